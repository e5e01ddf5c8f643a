"""Make the layers of the scoring image: its packages from locked wheels, and the server.

Runs under the Python of the base image itself, in a stage of the Dockerfile or by edgeml's own builder, so that all
builders make the same bytes: a compiled file depends on the Python that made it. Needs no network, pip or shell:

    python3 layers.py packages WHEELS LOCK TARGET
    python3 layers.py server SOURCE TARGET
    python3 layers.py compile FOLDER PLACE

A wheel whose SHA-256 is not in the lock is refused, and so is a lock with a package that no wheel is there for.
"""

from __future__ import annotations

import compileall
import hashlib
import os
import py_compile
import re
import shutil
import sys
import zipfile

PACKAGES, SERVER = "opt/edgeml/packages", "opt/edgeml/server"
# What a scoring process never imports: tests, tools that make models, stubs, headers, and onnxruntime's library for
# programs in C (Python's own has all of it again).
LEFT_OUT = re.compile(
    r".*/(tests|_examples|include)/.*|.*\.(pyi|pxd|pyx|h|hpp|c|a|lib)"
    r"|onnxruntime/(tools|transformers|quantization|backend|datasets)/.*|onnxruntime/capi/libonnxruntime\.so\..*"
    r"|numpy/(f2py|_pyinstaller)/.*"
)
LOCKED = re.compile(r"^([A-Za-z0-9][A-Za-z0-9._-]*)==", re.MULTILINE)
HASH = re.compile(r"--hash=sha256:([0-9a-f]{64})")
# ONNX's StringNormalizer asks for the locale en_US.UTF-8 by name. It needs its tables of letters alone, and those are
# the same in C.UTF-8, which glibc brings.
LOCALES, LOCALE = "usr/lib/locale", "en_US.utf8"


def packages(wheels: str, lock: str, target: str) -> None:
    """Unpack and compile the wheels of a folder, all of them locked and none of the lock missing."""
    with open(lock, encoding="utf-8") as stream:
        text = stream.read()
    hashes, wanted = set(HASH.findall(text)), {_plain(name) for name in LOCKED.findall(text)}
    library = os.path.join(target, PACKAGES)
    os.makedirs(library)
    for name in sorted(os.listdir(wheels)):
        path = os.path.join(wheels, name)
        with open(path, "rb") as stream:
            found = hashlib.sha256(stream.read()).hexdigest()
        if found not in hashes:
            sys.exit(f"layers: {name} is not in the lock (sha256:{found})")
        wanted.discard(_plain(name.partition("-")[0]))
        _unpack(path, library)
    if wanted:
        sys.exit(f"layers: no wheel is there for {', '.join(sorted(wanted))}")
    compiled(library, PACKAGES)
    os.makedirs(os.path.join(target, LOCALES))
    os.symlink("C.utf8", os.path.join(target, LOCALES, LOCALE))


def server(source: str, target: str) -> None:
    """Copy and compile the server's own package."""
    place = os.path.join(target, SERVER)
    shutil.copytree(source, place, ignore=shutil.ignore_patterns("__pycache__"))
    compiled(place, SERVER)


def compiled(folder: str, place: str) -> None:
    """Compile a folder for its place in the image. No time is in what is made, and nothing is compared at import."""
    mode = py_compile.PycInvalidationMode.UNCHECKED_HASH
    compileall.compile_dir(folder, quiet=2, stripdir=folder, prependdir="/" + place, invalidation_mode=mode, workers=1)


def _unpack(wheel: str, library: str) -> None:
    """The files of a wheel that are imported; its scripts have no place in an image without a shell."""
    with zipfile.ZipFile(wheel) as archive:
        for entry in archive.infolist():
            name = re.sub(r"^[^/]+\.data/(purelib|platlib)/", "", entry.filename)
            if entry.is_dir() or LEFT_OUT.fullmatch(name) or re.match(r"[^/]+\.data/", name):
                continue
            path = os.path.normpath(os.path.join(library, name))
            if not path.startswith(library + os.sep):
                sys.exit(f"layers: {os.path.basename(wheel)} would write outside of its folder")
            os.makedirs(os.path.dirname(path), exist_ok=True)
            with open(path, "wb") as stream:
                stream.write(archive.read(entry))


def _plain(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


if __name__ == "__main__":
    COMMANDS = {"packages": (packages, 3), "server": (server, 2), "compile": (compiled, 2)}
    command, count = COMMANDS.get(sys.argv[1] if len(sys.argv) > 1 else "", (None, 0))
    if command is None or len(sys.argv) != count + 2:
        sys.exit(__doc__)
    os.umask(0o022)
    command(*sys.argv[2:])
