"""Outputs of finished steps by what made them, so that an unchanged step is not run again.

An entry is a folder named by its key: the outputs, and `entry.json` with their fingerprints. It is prepared
elsewhere and renamed into place, so it exists whole or not at all; whichever of two engines comes second drops its own.
Files are hard links shared with the run folders, which costs no space and lets either be deleted. A file that somebody
edits in place is therefore edited here too: each use compares size, mtime, ctime and inode of every file
with what was noted, reads the content again where they differ, and drops an entry whose content is no longer
what the step wrote.
"""

from __future__ import annotations

import itertools
import json
import os
from typing import Any, NamedTuple

from edgeml.engine import files
from edgeml.engine.fingerprint import Fingerprints, walk

_VERSION = 1
_counter = itertools.count()


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
        recorded = _read(entry)
        if recorded is None or set(recorded["outputs"]) != set(targets):
            return None
        if not self._is_intact(entry, recorded):
            self._drop(entry)
            return None
        try:
            for name, target in targets.items():
                files.remove(target)
                files.replicate(os.path.join(entry, "outputs", name), target)
            self._note(entry)
        except FileNotFoundError:  # another process dropped the entry meanwhile
            for target in targets.values():
                files.remove(target)
            return None
        return Cached(dict(recorded["outputs"]), float(recorded["seconds"]), recorded.get("note"))

    def store(
        self, key: str, outputs: dict[str, str], fingerprints: dict[str, str], seconds: float, note: Any = None
    ) -> None:
        """Add the outputs (paths by name) of a step that finished. Raises OSError; a key that is there is kept."""
        entry = self._path(key)
        temporary = os.path.join(self.folder, "unfinished", f"{os.getpid()}-{next(_counter)}")
        files.remove(temporary)
        os.makedirs(os.path.join(temporary, "outputs"))
        try:
            for name, path in outputs.items():
                files.replicate(path, os.path.join(temporary, "outputs", name))
            record = {"version": _VERSION, "outputs": fingerprints, "seconds": round(seconds, 3), "note": note}
            with open(os.path.join(temporary, "entry.json"), "w", encoding="utf-8") as stream:
                json.dump(record, stream)
            self._note(temporary)
            os.makedirs(os.path.dirname(entry), exist_ok=True)
            os.rename(temporary, entry)
        except OSError:
            files.remove(temporary)
            if not os.path.isdir(entry):
                raise

    def _path(self, key: str) -> str:
        return os.path.join(self.folder, key[:2], key)

    def _is_intact(self, entry: str, recorded: dict[str, Any]) -> bool:
        try:
            with open(os.path.join(entry, "noted.json"), encoding="utf-8") as stream:
                if json.load(stream) == _stats(entry):
                    return True
        except (OSError, ValueError):
            pass
        try:
            return all(
                self.fingerprints.of(os.path.join(entry, "outputs", name)) == fingerprint
                for name, fingerprint in recorded["outputs"].items()
            )
        except OSError:
            return False

    def _note(self, entry: str) -> None:
        # Linking a file moves its ctime, hence after every use.
        files.write_atomically(os.path.join(entry, "noted.json"), json.dumps(_stats(entry)))

    def _drop(self, entry: str) -> None:
        aside = os.path.join(self.folder, "unfinished", f"{os.getpid()}-{next(_counter)}")
        os.makedirs(os.path.dirname(aside), exist_ok=True)
        try:
            os.rename(entry, aside)
        except OSError:
            return
        files.remove(aside)


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
