"""The locked wheels of the scoring image, fetched for the image's Python whatever Python this is."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable
from typing import NamedTuple

from edgeml import project
from edgeml.errors import EdgemlError
from edgeml.image import base, parts, python

LOCK = os.path.join(base.ENVIRONMENT, "requirements.lock")
_GLIBC = (17, 24, 26, 27, 28, 31, 34, 35, 36)  # minor versions of glibc 2 up to the base's, as wheels name them
_MACHINES = {"amd64": "x86_64", "arm64": "aarch64"}
_SECONDS = 900
_PIN = re.compile(r"^([A-Za-z0-9][A-Za-z0-9._-]*)==([^\s;\\]+)", re.MULTILINE)


class Wheel(NamedTuple):
    """A package of the lock and the SHA-256 of the wheel that was taken for it."""

    name: str
    version: str
    sha256: str


def folder(say: Callable[[str], None]) -> str:
    """The folder of the locked wheels, fetched where they are missing. Raises EdgemlError where they cannot be had."""
    lock = lock_file()

    def make(place: str) -> None:
        say("fetching the locked wheels of the scoring image (once)")
        _fetch(lock, place)

    return parts.of("wheels", [parts.digest(lock), base.architecture()], make)


def lock_file() -> str:
    return os.path.join(project.root_folder(), LOCK)


def listed(wheels: str) -> list[Wheel]:
    """What the lock pins, with the wheel that was fetched for each."""
    with open(lock_file(), encoding="utf-8") as stream:
        pins = {_plain(name): (name, version) for name, version in _PIN.findall(stream.read())}
    found = []
    for file in sorted(os.listdir(wheels)):
        name, version = pins[_plain(file.partition("-")[0])]
        found.append(Wheel(name, version, parts.digest(os.path.join(wheels, file))))
    return found


def _fetch(lock: str, place: str) -> None:
    machine = _MACHINES.get(base.architecture())
    if machine is None:
        raise EdgemlError(f"there are no wheels for {base.architecture()}; package on amd64 or arm64")
    platforms = [word for minor in reversed(_GLIBC) for word in ("--platform", f"manylinux_2_{minor}_{machine}")]
    options = ["--no-deps", "--require-hashes", "--only-binary=:all:", "--no-input", "--quiet"]
    abis = [word for abi in (f"cp{python.VERSION.replace('.', '')}", "abi3", "none") for word in ("--abi", abi)]
    command = [sys.executable, "-m", "pip", "download", *options, "--disable-pip-version-check", *platforms,
               "--platform", f"manylinux2014_{machine}", "--implementation", "cp", *abis,
               "--python-version", python.VERSION, "--dest", place, "--requirement", lock]  # fmt: skip
    try:
        done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=_SECONDS)
    except subprocess.TimeoutExpired:
        raise EdgemlError("pip did not fetch the wheels in time; check the network and call this again", 1) from None
    if done.returncode:
        said = [line for line in done.stderr.splitlines() if line.startswith("ERROR:")] or [done.stderr[-200:]]
        raise EdgemlError(f"pip cannot fetch the wheels of {LOCK} ({said[0].strip()[:200]}); check the network", 1)


def _plain(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()
