"""Gives disk space back: folders of old runs, and what the cache has not been asked for.

Outputs are hard links that a run's folder and the cache share, so a file's space is free only when the last of its
names is gone. What is said to be freed counts just that; the rest is named as still linked. Everything is renamed aside
before it is deleted, so an engine that works meanwhile sees it whole or not at all.
"""

from __future__ import annotations

import contextlib
import json
import os
import stat
import time
from typing import Any, NamedTuple

from edgeml.engine import files, runs
from edgeml.engine.cache import NOTED, UNFINISHED, Cache
from edgeml.engine.fingerprint import Fingerprints
from edgeml.engine.folder import LOCK

DAY = 86_400.0
_HOUR = 3_600.0
_REMOVED = ".removed-"

_File = tuple[int, int]  # device and inode


class _Disk(NamedTuple):
    """Files of some folders: the space of each, how many names it has in all, and how many of them are here."""

    space: dict[_File, int]
    names: dict[_File, int]
    here: dict[_File, int]

    def of_last_names(self) -> int:
        """What is free when these folders are gone."""
        return sum(space for file, space in self.space.items() if self.here[file] >= self.names[file])

    def all(self) -> int:
        return sum(self.space.values())

    def add(self, other: _Disk) -> None:
        self.space.update(other.space)
        self.names.update(other.names)
        for file, count in other.here.items():
            self.here[file] = self.here.get(file, 0) + count


class _Entry(NamedTuple):
    path: str
    used: float
    disk: _Disk


def remove_runs(state: str, *, keep: int, older_than: float, dry_run: bool) -> dict[str, Any]:
    """Remove runs beyond the newest `keep` that ended more than `older_than` seconds ago, and what killed engines left.

    Those that run, and the newest completed one of each pipeline, stay.
    """
    now = time.time()
    found = runs.every(state)
    newest_completed: dict[tuple[str, str], str] = {}
    for run in found:
        if run.record["status"] == "completed":
            newest_completed.setdefault(runs.pipeline_of(run), run.path)
    kept = {run.path for run in found[:keep]} | {*newest_completed.values()}
    old = [run.path for run in found if _age(os.path.join(run.path, runs.RECORD), now) >= older_than]
    removed = [path for path in old if path not in kept]
    disk = _empty()
    gone = []
    for path in [*removed, *_left_over(state, now)]:
        measured = _measured(path)
        if runs.is_locked(path) if dry_run else not _removed_run(path, state):
            continue
        disk.add(measured)
        if path in removed:
            gone.append(os.path.basename(path))
    freed = disk.of_last_names()
    return {
        "removed": gone,
        "kept": len(found) - len(gone),
        "freed_bytes": freed,
        "still_linked_bytes": disk.all() - freed,
        "dry_run": dry_run,
    }


def cache_status(folder: str) -> dict[str, Any]:
    """What the cache holds: `bytes` on disk, of which `shared_bytes` are in folders of runs as well."""
    entries = _entries(folder)
    disk = _together(entries)
    return {
        "folder": folder,
        "entries": len(entries),
        "bytes": disk.all(),
        "shared_bytes": disk.all() - disk.of_last_names(),
        "unfinished": len(_names(os.path.join(folder, UNFINISHED))),
    }


def shrink_cache(folder: str, *, max_size: int, older_than: float | None, dry_run: bool) -> dict[str, Any]:
    """Drop entries not used for `older_than` seconds, then the least recently used until `max_size` bytes are left."""
    now = time.time()
    cache = Cache(folder, Fingerprints(os.path.join(folder, "files.json")))
    entries = sorted(_entries(folder), key=lambda entry: min(entry.used, now))  # a clock may have been set back
    left = _together(entries)
    size = left.all()
    gone = _empty()
    dropped = 0
    for entry in entries:
        if size <= max_size and (older_than is None or now - entry.used < older_than):
            continue
        if not dry_run and not cache.drop(entry.path):
            continue
        dropped += 1
        gone.add(entry.disk)
        for file, count in entry.disk.here.items():
            left.here[file] -= count
            if left.here[file] == 0:
                size -= entry.disk.space[file]
    unfinished = _drop_unfinished(folder, now, gone, dry_run=dry_run)
    if not dry_run:
        _forget_absent(os.path.join(folder, "files.json"))
    freed = gone.of_last_names()
    return {
        "folder": folder,
        "dropped": dropped,
        "unfinished": unfinished,
        "freed_bytes": freed,
        "still_linked_bytes": gone.all() - freed,
        "entries": len(entries) - dropped,
        "bytes": size,
        "dry_run": dry_run,
    }


def readable(size: float) -> str:
    """A number of bytes as a person reads it."""
    for unit in ("B", "kB", "MB", "GB"):
        if size < 1000:
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1000
    return f"{size:.1f} TB"


def _entries(folder: str) -> list[_Entry]:
    found = []
    for short in _names(folder):
        for key in _names(os.path.join(folder, short)) if len(short) == 2 else ():
            path = os.path.join(folder, short, key)
            with contextlib.suppress(OSError):  # dropped meanwhile
                found.append(_Entry(path, os.stat(_last_use(path)).st_mtime, _measured(path)))
    return found


def _empty() -> _Disk:
    return _Disk({}, {}, {})


def _measured(path: str) -> _Disk:
    """A file or a folder with all in it; what goes away meanwhile is left out."""
    disk = _empty()
    inside = (os.path.join(root, name) for root, folders, names in os.walk(path) for name in (*folders, *names))
    for found in [path, *inside]:
        with contextlib.suppress(OSError):
            info = os.lstat(found)
            file = (info.st_dev, info.st_ino)
            disk.space[file] = info.st_blocks * 512
            disk.here[file] = disk.here.get(file, 0) + 1
            disk.names[file] = 1 if stat.S_ISDIR(info.st_mode) else info.st_nlink  # a folder's links are its subfolders
    return disk


def _last_use(entry: str) -> str:
    noted = os.path.join(entry, NOTED)
    return noted if os.path.exists(noted) else entry


def _together(entries: list[_Entry]) -> _Disk:
    disk = _empty()
    for entry in entries:
        disk.add(entry.disk)
    return disk


def _drop_unfinished(folder: str, now: float, gone: _Disk, *, dry_run: bool) -> int:
    """Remove what processes that are dead were about to move into or out of the cache, or to write beside it."""
    aside = os.path.join(folder, UNFINISHED)
    stale = [os.path.join(aside, name) for name in _names(aside)]
    stale += [os.path.join(folder, name) for name in _names(folder) if files.is_unfinished(name)]
    count = 0
    for path in stale:
        # A process id is given again, and means nothing to another container: hence the age, and hence the rename.
        maker = os.path.basename(path).removesuffix(files.UNFINISHED).rpartition(".")[2].partition("-")[0]
        if maker.isdigit() and _is_alive(int(maker)) and _age(path, now) < DAY:
            continue
        measured = _measured(path)
        if dry_run or _moved_and_removed(path, os.path.join(aside, files.unique())):
            gone.add(measured)
            count += 1
    return count


def _forget_absent(memory: str) -> None:
    """Take files that are gone out of the memory of fingerprints, which would grow with every run."""
    try:
        with open(memory, encoding="utf-8") as stream:
            known = json.load(stream)
        present = {path: identity for path, identity in known.items() if os.path.exists(path)}
        if len(present) < len(known):
            files.write_atomically(memory, json.dumps(present))
    except (OSError, ValueError, AttributeError):  # it is made anew
        return


def _left_over(state: str, now: float) -> list[str]:
    """Folders that a killed `runs gc` had moved aside, or that an engine was killed in before it wrote a record."""
    folder = os.path.join(state, "runs")
    found = []
    for name in _names(folder):
        path = os.path.join(folder, name)
        begun = all(inside == LOCK or files.is_unfinished(inside) for inside in _names(path))
        if name.startswith(_REMOVED) or (begun and os.path.isdir(path) and _age(path, now) > _HOUR):
            found.append(path)
    return found


def _removed_run(path: str, state: str) -> bool:
    """Remove a run's folder under its lock; False where an engine has it."""
    import fcntl

    if os.path.islink(path):
        return False
    handle = os.open(os.path.join(path, LOCK), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return _moved_and_removed(path, os.path.join(state, "runs", _REMOVED + files.unique()))
    except BlockingIOError:
        return False
    finally:
        os.close(handle)


def _moved_and_removed(path: str, aside: str) -> bool:
    try:
        os.rename(path, aside)
    except OSError:
        return False
    files.remove(aside)
    return True


def _age(path: str, now: float) -> float:
    try:
        return now - os.lstat(path).st_mtime
    except OSError:
        return 0.0


def _is_alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        return True
    return True


def _names(folder: str) -> list[str]:
    try:
        return os.listdir(folder)
    except OSError:
        return []
