"""The gate's own folder: what waits, what was approved, what was rejected, and a ledger of every decision.

    quarantine/  a release while it is written; nothing in it was ever approved
    approved/    releases by the SHA-256 of their verdict, moved there whole
    rejected/    the reports of what did not leave
    ledger.jsonl one line a decision, each with the digest of the line before it

The decision is in the ledger before the release is moved, so whatever is in `approved/` has its line. A process
that is killed leaves something in `quarantine/`, which the next one removes.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from edgeml import project
from edgeml.errors import EdgemlError

STATE_VARIABLE = "EDGEML_AIRLOCK_STATE"
FOLDERS = ("quarantine", "approved", "rejected")
LEDGER = "ledger.jsonl"
FIRST = "0" * 64


def state(given: Path | None = None) -> Path:
    """The gate's folder: given, named by the environment, or the project's own."""
    named = os.environ.get(STATE_VARIABLE)
    return given or (Path(named) if named else project.state() / "airlock")


def prepare(folder: Path) -> None:
    """Make the folders, for their owner alone."""
    for name in ("", *FOLDERS):
        (folder / name).mkdir(mode=0o700, parents=True, exist_ok=True)


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """One decision at a time; what a killed process left in quarantine is removed."""
    with open(folder / "lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        for leftover in (folder / "quarantine").iterdir():
            shutil.rmtree(leftover, ignore_errors=True)
        yield


def read(folder: Path) -> list[dict[str, Any]]:
    """Every decision, oldest first. Raises EdgemlError, exit code 1, where a line was changed or taken out."""
    path = folder / LEDGER
    if not path.is_file():
        return []
    entries: list[dict[str, Any]] = []
    previous = FIRST
    lines = path.read_bytes().split(b"\n")
    for number, line in enumerate(lines[:-1], 1):  # what follows the last line break was never whole
        try:
            entry = json.loads(line)
            whole = entry["previous"] == previous and entry["number"] == number
        except (ValueError, KeyError, TypeError):
            whole = False
        if not whole:
            raise EdgemlError(f"line {number} of {path} does not follow from the line before; restore the ledger", 1)
        entries.append(entry)
        previous = hashlib.sha256(line).hexdigest()
    return entries


def append(folder: Path, entry: dict[str, Any]) -> None:
    """Add a decision; on the disk when this returns. Call it with the lock held."""
    path = folder / LEDGER
    data = path.read_bytes() if path.is_file() else b""
    whole = data[: data.rfind(b"\n") + 1]
    lines = whole.split(b"\n")[:-1]
    entry = {
        "number": len(lines) + 1,
        "previous": hashlib.sha256(lines[-1]).hexdigest() if lines else FIRST,
        "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
    } | entry
    with open(os.open(path, os.O_RDWR | os.O_CREAT, 0o600), "r+b") as file:
        file.truncate(len(whole))
        file.seek(0, os.SEEK_END)
        file.write(json.dumps(entry, sort_keys=True).encode() + b"\n")
        file.flush()
        os.fsync(file.fileno())


def stage(folder: Path, name: str, files: dict[str, bytes]) -> Path:
    """A new folder in quarantine with these files, on the disk when this returns."""
    staged = folder / "quarantine" / f"{name}.{os.getpid()}"
    staged.mkdir(mode=0o700)
    for file, data in files.items():
        _write(staged / file, data)
    _sync(staged)
    return staged


def approve(folder: Path, staged: Path, name: str) -> Path:
    """Move what was staged to where approved releases lie, at once."""
    return _move(staged, folder / "approved" / name)


def reject(folder: Path, staged: Path, name: str) -> Path:
    return _move(staged, folder / "rejected" / name)


def _move(staged: Path, target: Path) -> Path:
    if target.exists():  # the same verdict, decided before: its name is its digest
        shutil.rmtree(target)
    os.rename(staged, target)
    _sync(target.parent)
    return target


def publish(files: dict[str, bytes], out: Path, last: str) -> None:
    """Write the files to a folder that is empty, the one named `last` at the end; on a failure leave it empty.

    Raises EdgemlError, exit code 1.
    """
    try:
        for name in sorted(files, key=lambda name: (name == last, name)):
            _write(out / f".{name}.part", files[name])
            os.rename(out / f".{name}.part", out / name)
        _sync(out)
    except BaseException as error:
        for name in files:
            for path in (out / name, out / f".{name}.part"):
                path.unlink(missing_ok=True)
        if not isinstance(error, OSError):
            raise
        raise EdgemlError(f"the release could not be written ({error.strerror}); nothing left", 1) from None


def _write(path: Path, data: bytes) -> None:
    with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o644), "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def _sync(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
