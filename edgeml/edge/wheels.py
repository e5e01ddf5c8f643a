"""The packages of the VM: gathered here, where there is a package index, for the Python and the processor there.

The VM needs no way to an index: it gets wheels by content, only those that it lacks, and pip there installs from these
alone and compares each with the hash in the lock.
"""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator

from edgeml.engine import files
from edgeml.errors import EdgemlError

LOCK = os.path.join("requirements", "runtime.lock")
_BLOCK = 1 << 20
# From the newest C library that Ubuntu 22.04 has to the oldest that wheels are made for.
_PLATFORMS = (*(f"manylinux_2_{minor}" for minor in (35, 34, 31, 28, 27, 24, 17, 12, 5)), "manylinux2014", "linux")


def key(lock: str, python: tuple[int, int], machine: str) -> str:
    """What identifies an installed environment."""
    return hashlib.sha256(json.dumps([lock, python, machine]).encode()).hexdigest()[:32]


def gather(lock: str, python: tuple[int, int], machine: str, folder: str, say: Callable[[str], None]) -> dict[str, str]:
    """The wheels of a lock as paths by `<sha256>/<file name>`, downloaded once. Raises EdgemlError, exit code 1."""
    target = os.path.join(folder, key(lock, python, machine))
    if not os.path.isfile(os.path.join(target, "ready")):
        say("gathering the VM's packages (once for each lock)")
        os.makedirs(target, exist_ok=True)
        written = os.path.join(target, "lock.txt")
        files.write_atomically(written, for_python(lock, python))
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps"]
        command += ["--require-hashes", "--only-binary=:all:", "--dest", target, "--requirement", written]
        command += ["--python-version", f"{python[0]}.{python[1]}", "--implementation", "cp"]
        command += [word for name in _PLATFORMS for word in ("--platform", f"{name}_{machine}")]
        done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True)
        if done.returncode:
            said = [line for line in done.stderr.strip().splitlines() if line.startswith("ERROR")] or ["pip failed"]
            raise EdgemlError(
                f"the VM's packages cannot be gathered ({said[-1][:300]}); see that this machine reaches a package "
                f"index, and that every package of {LOCK} has a wheel for Python {python[0]}.{python[1]} on {machine}",
                1,
            )
        files.write_atomically(os.path.join(target, "ready"), "")
    wheels = sorted(name for name in os.listdir(target) if name.endswith(".whl"))
    return {f"{_sha256(os.path.join(target, name))}/{name}": os.path.join(target, name) for name in wheels}


def for_python(lock: str, python: tuple[int, int]) -> str:
    """The lines of a lock that hold for a version of Python: pip asks its own instead of the one it downloads for."""
    from packaging.markers import Marker

    version = f"{python[0]}.{python[1]}"
    there = {"python_version": version, "python_full_version": f"{version}.0", "sys_platform": "linux"}
    there |= {"platform_system": "Linux", "os_name": "posix", "implementation_name": "cpython"}
    there |= {"platform_python_implementation": "CPython"}
    kept, keep = [], True
    for line in lock.splitlines():
        if line and not line[0].isspace() and not line.startswith("#"):
            name, semicolon, marker = line.rstrip(" \\").partition(" ; ")
            keep = not semicolon or Marker(marker).evaluate(there)
            line = f"{name} \\" if line.endswith("\\") else name
        if keep:
            kept.append(line)
    return "\n".join(kept) + "\n"


def sent(wheels: dict[str, str], wanted: set[str]) -> Iterator[bytes]:
    """Those of the wheels that are wanted, as the VM's `put` reads them."""
    for name in sorted(wanted & wheels.keys()):
        yield json.dumps({"name": name, "size": os.path.getsize(wheels[name])}).encode() + b"\n"
        with open(wheels[name], "rb") as stream:
            while block := stream.read(_BLOCK):
                yield block


def _sha256(path: str) -> str:
    with open(path, "rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
