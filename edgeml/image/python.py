"""The Python of a base image, run on this machine from the base's unpacked files.

What depends on a Python or on its zlib, compiled files and compressed layers, is made by the base's own, whatever
this machine has: so two machines make the same bytes. It is started through the base's own loader and needs no
container.
"""

from __future__ import annotations

import os
import subprocess
from typing import IO

from edgeml.errors import EdgemlError

PROGRAM = "usr/bin/python3"
VERSION = "3.11"  # for which environments/scoring/requirements.lock is made
_LIBRARIES = ("lib", "usr/lib", "lib64", "usr/lib64")
_TRIPLETS = ("x86_64-linux-gnu", "aarch64-linux-gnu")
_LOADERS = ("ld-linux-x86-64.so.2", "ld-linux-aarch64.so.1")
# Sets and interned names must not depend on chance. Not `-I`, which would ignore this.
_ENVIRONMENT = {"PYTHONHASHSEED": "0", "PYTHONDONTWRITEBYTECODE": "1", "LC_ALL": "C.UTF-8"}
_COMPRESS = (
    "import gzip,shutil,sys\n"
    "with gzip.GzipFile('', 'wb', 4, sys.stdout.buffer, 0) as out: shutil.copyfileobj(sys.stdin.buffer, out, 1 << 20)"
)


def command(root: str) -> list[str]:
    """The words that start the Python of an unpacked base. Raises EdgemlError where it has none that we know."""
    folders = [os.path.join(root, top, triplet) for top in _LIBRARIES for triplet in _TRIPLETS]
    folders = [folder for folder in folders if os.path.isdir(folder)]
    loaders = [path for folder in folders for name in _LOADERS if os.path.isfile(path := os.path.join(folder, name))]
    program = os.path.join(root, "usr/bin", f"python{VERSION}")
    if not loaders or not os.path.isfile(program):
        raise EdgemlError(
            f"the base has no Python {VERSION} of Debian's at /{PROGRAM}; name one that has in image.base", 1
        )
    return [os.path.realpath(loaders[0]), "--library-path", os.pathsep.join(folders), program, "-sPS"]


def run(root: str, *arguments: str) -> None:
    """Run a script under the base's Python. Raises EdgemlError with its last line where it fails."""
    done = subprocess.run(
        [*command(root), *arguments], env=_ENVIRONMENT, stdin=subprocess.DEVNULL, capture_output=True,
        text=True, errors="replace",
    )  # fmt: skip
    if done.returncode:
        said = done.stderr.strip().splitlines() or [f"exit code {done.returncode}"]
        raise EdgemlError(f"the base's Python failed: {said[-1]}", 1)


def compress(root: str, source: str, target: str) -> None:
    """Compress a file with the base's zlib; another one, or another version, would make other bytes."""
    with open(source, "rb") as reading, open(target, "wb") as writing:
        _compress(root, reading, writing)


def _compress(root: str, source: IO[bytes], target: IO[bytes]) -> None:
    done = subprocess.run(
        [*command(root), "-c", _COMPRESS], env=_ENVIRONMENT, stdin=source, stdout=target,
        stderr=subprocess.PIPE,
    )  # fmt: skip
    if done.returncode:
        raise EdgemlError(f"a layer cannot be compressed: {done.stderr.decode(errors='replace').strip()[-200:]}", 1)
