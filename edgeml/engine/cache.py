"""Outputs of finished steps by what made them, so that an unchanged step is not run again.

An entry is a folder named by its key: the outputs, and `entry.json` with their fingerprints. It is prepared
elsewhere and renamed into place, so it exists whole or not at all, and is renamed away before it is deleted; whichever
of two engines comes second drops its own.
Files are hard links shared with the run folders, which costs no space and lets either be deleted. A file that somebody
edits in place is therefore edited here too: each use compares size, mtime, ctime and inode of every file
with what was noted, reads the content again where they differ, and drops an entry whose content is no longer
what the step wrote.
"""

from __future__ import annotations

import contextlib
import json
import os
from typing import Any, NamedTuple

from edgeml.engine import files
from edgeml.engine.fingerprint import Fingerprints, walk

NOTED = "noted.json"  # rewritten at each use: its time is that of the last one
UNFINISHED = "unfinished"  # entries on their way in or out, named by the process that moves them
_VERSION = 1


class Cached(NamedTuple):
    """A hit: the fingerprint of each output, the seconds that the step took when it ran, and what was noted of it."""

    fingerprints: dict[str, str]
    seconds: float
    note: Any


class Cache:
    """The cache in one folder. Several engines may use it at once."""

    def __init__(self, folder: str, fingerprints: Fingerprints) -> None:
        self.folder = folder
        self.fingerprints = fingerprints

    def fetch(self, key: str, targets: dict[str, str]) -> Cached | None:
        """Link the outputs of an entry to their target paths; None where there is no entry to trust."""
        entry = self._path(key)
        try:
            held = os.open(entry, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except OSError:
            return None
        try:
            return self._fetch(entry, held, targets)
        finally:
            os.close(held)

    def store(
        self, key: str, outputs: dict[str, str], fingerprints: dict[str, str], seconds: float, note: Any = None
    ) -> None:
        """Add the outputs (paths by name) of a step that finished; an entry that says otherwise is replaced.

        Raises OSError.
        """
        entry = self._path(key)
        if self._holds(entry, fingerprints):
            return
        temporary = self._aside()
        os.makedirs(os.path.join(temporary, "outputs"))
        try:
            for name, path in outputs.items():
                files.replicate(path, os.path.join(temporary, "outputs", name))
            record = {"version": _VERSION, "outputs": fingerprints, "seconds": round(seconds, 3), "note": note}
            with open(os.path.join(temporary, "entry.json"), "w", encoding="utf-8") as stream:
                json.dump(record, stream)
            files.write_atomically(os.path.join(temporary, NOTED), json.dumps(_stats(temporary)))
            os.makedirs(os.path.dirname(entry), exist_ok=True)
            if os.path.isdir(entry):
                self.drop(entry)
            os.rename(temporary, entry)
        except OSError:
            files.remove(temporary)
            if not self._holds(entry, fingerprints):  # another engine was first
                raise

    def drop(self, entry: str) -> bool:
        """Take an entry away, in one moment for every other engine; False where it is gone or cannot be moved."""
        aside = self._aside()
        try:
            os.makedirs(os.path.dirname(aside), exist_ok=True)
            os.rename(entry, aside)
        except OSError:
            return False
        files.remove(aside)
        return True

    def _path(self, key: str) -> str:
        return os.path.join(self.folder, key[:2], key)

    def _aside(self) -> str:
        return os.path.join(self.folder, UNFINISHED, files.unique())

    def _fetch(self, entry: str, held: int, targets: dict[str, str]) -> Cached | None:
        recorded = _read(entry)
        stats = self._intact(entry, recorded) if recorded and targets.keys() <= recorded["outputs"].keys() else None
        if recorded is None or stats is None:
            self.drop(entry)
            return None
        try:
            for name, target in targets.items():
                files.remove(target)
                files.replicate(os.path.join(entry, "outputs", name), target)
            after = _stats(entry)
        except FileNotFoundError:  # another process dropped the entry meanwhile
            after = []
        # A folder that is emptied while it is read looks like one with fewer files, and somebody may have stored
        # the key anew; the inode of the folder that is held open tells that, it cannot be given away before.
        if _without_ctime(after) != _without_ctime(stats) or not _is_at(held, entry):
            for target in targets.values():
                files.remove(target)
            return None
        # Linking a file moves its ctime, hence after every use. In a cache that is read-only nothing was linked.
        with contextlib.suppress(OSError):
            files.write_atomically(os.path.join(entry, NOTED), json.dumps(after))
        return Cached(
            {name: recorded["outputs"][name] for name in targets},
            float(recorded.get("seconds", 0)),
            recorded.get("note"),
        )

    def _intact(self, entry: str, recorded: dict[str, Any]) -> list[list[Any]] | None:
        """The state of the files of an entry that holds what the step wrote, or None."""
        try:
            stats = _stats(entry)
            if stats == _noted(entry):
                return stats
            for name, fingerprint in recorded["outputs"].items():
                if self.fingerprints.of(os.path.join(entry, "outputs", name)) != fingerprint:
                    return None
        except OSError:
            return None
        return stats

    def _holds(self, entry: str, fingerprints: dict[str, str]) -> bool:
        recorded = _read(entry)
        return recorded is not None and fingerprints.items() <= recorded["outputs"].items()


def _is_at(held: int, path: str) -> bool:
    try:
        return os.path.samestat(os.fstat(held), os.stat(path))
    except OSError:
        return False


def _noted(entry: str) -> Any:
    try:
        with open(os.path.join(entry, NOTED), encoding="utf-8") as stream:
            return json.load(stream)
    except (OSError, ValueError):
        return None


def _without_ctime(stats: list[list[Any]]) -> list[list[Any]]:
    return [[*noted[:4], *noted[5:]] for noted in stats]


def _read(entry: str) -> dict[str, Any] | None:
    try:
        with open(os.path.join(entry, "entry.json"), encoding="utf-8") as stream:
            recorded = json.load(stream)
    except (OSError, ValueError):
        return None
    usable = isinstance(recorded, dict) and recorded.get("version") == _VERSION
    return recorded if usable and isinstance(recorded.get("outputs"), dict) else None


def _stats(entry: str) -> list[list[Any]]:
    noted: list[list[Any]] = []
    for name, kind, path in sorted(walk(os.path.join(entry, "outputs"))):
        info = os.lstat(path)
        times = [] if kind == "folder" else [info.st_size, info.st_mtime_ns, info.st_ctime_ns, info.st_ino]
        noted.append([name, kind, *times])
    return noted
