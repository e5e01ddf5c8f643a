"""Content fingerprints of files and folders.

A fingerprint is `sha256:` and 64 hex digits. That of a folder is the digest of its sorted entries (relative
path, kind, content), so it does not depend on times, owners or the order in which a disk lists its files.

Hashing 10 GB again on each run would take ten seconds, so the digests of large files are remembered by
(device, inode, size, mtime, ctime). Size and mtime alone can be restored by whoever changes a file;
ctime cannot be set by any call of the operating system, it only moves when the file does. A file that changed
less than two seconds before it was hashed is not remembered, because a later change could fall
into the same tick of a coarse clock.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import stat
import threading
import time

from edgeml.engine.files import write_atomically

_REMEMBER_FROM = 1 << 20  # bytes: below this, hashing is quicker than looking up
_SETTLED_NS = 2_000_000_000
_BLOCK = 1 << 20


def digest(content: bytes) -> str:
    return "sha256:" + hashlib.sha256(content).hexdigest()


def digits(fingerprint: str) -> str:
    """The hex digits of a fingerprint."""
    return fingerprint.partition(":")[2]


class Fingerprints:
    """Fingerprints of paths, with a memory of large files kept in `memory_file` between runs."""

    def __init__(self, memory_file: str) -> None:
        self._file = memory_file
        self._lock = threading.Lock()
        self._known: dict[str, list[int | str]] | None = None
        self._learnt: dict[str, list[int | str]] = {}

    def of(self, path: str) -> str:
        """The fingerprint of a file or a folder. Raises OSError where it cannot be read."""
        info = os.stat(path)
        if stat.S_ISDIR(info.st_mode):
            return self._folder(path)
        return self._file_digest(path, info)

    def save(self) -> None:
        """Add what was learnt to the memory on disk; losing it to another process only costs time."""
        with self._lock:
            if not self._learnt:
                return
            known = self._load() | self._learnt
            self._learnt = {}
        with contextlib.suppress(OSError):  # a read-only or full disk: the next run hashes again
            os.makedirs(os.path.dirname(self._file), exist_ok=True)
            write_atomically(self._file, json.dumps(known))

    def _folder(self, path: str) -> str:
        entries = hashlib.sha256()
        for name, kind, found in sorted(walk(path)):
            if kind == "file":
                content = self._file_digest(found, os.stat(found))
            elif kind == "link":
                content = digest(os.fsencode(os.readlink(found)))
            else:
                content = ""
            entries.update(f"{name}\0{kind}\0{content}\n".encode("utf-8", "surrogateescape"))
        return "sha256:" + entries.hexdigest()

    def _file_digest(self, path: str, info: os.stat_result) -> str:
        if info.st_size < _REMEMBER_FROM:
            with open(path, "rb") as stream:
                return digest(stream.read())
        identity = [info.st_dev, info.st_ino, info.st_size, info.st_mtime_ns, info.st_ctime_ns]
        key = os.path.abspath(path)
        with self._lock:
            if self._known is None:
                self._known = self._load()
            known = self._learnt.get(key) or self._known.get(key)
        if known is not None and known[:-1] == identity:
            return str(known[-1])
        settled = time.time_ns() - max(info.st_mtime_ns, info.st_ctime_ns) > _SETTLED_NS
        content = _hash(path)
        after = os.stat(path)
        unchanged = (after.st_size, after.st_mtime_ns, after.st_ctime_ns) == tuple(identity[2:])
        if settled and unchanged:
            with self._lock:
                self._learnt[key] = [*identity, content]
        return content

    def _load(self) -> dict[str, list[int | str]]:
        try:
            with open(self._file, encoding="utf-8") as stream:
                known = json.load(stream)
        except (OSError, ValueError):
            return {}
        return known if isinstance(known, dict) else {}


def walk(folder: str, prefix: str = "") -> list[tuple[str, str, str]]:
    """All entries below a folder as (relative path with `/`, "file" | "folder" | "link", path), unsorted.

    Links to folders are not entered. Raises OSError for what is neither (a socket, a device).
    """
    found: list[tuple[str, str, str]] = []
    with os.scandir(folder) as entries:
        for entry in entries:
            name = prefix + entry.name
            if entry.is_symlink():
                # A link to a file stands for its content; one to a folder or to nothing stands for its target's name.
                found.append((name, "file" if entry.is_file() else "link", entry.path))
            elif entry.is_dir():
                found.append((name, "folder", entry.path))
                found.extend(walk(entry.path, name + "/"))
            elif entry.is_file():
                found.append((name, "file", entry.path))
            else:
                raise OSError(f"{entry.path} is neither a file nor a folder")
    return found


def _hash(path: str) -> str:
    made = hashlib.sha256()
    with open(path, "rb", buffering=0) as stream:
        buffer = bytearray(_BLOCK)
        view = memoryview(buffer)
        while size := stream.readinto(buffer):
            made.update(view[:size])
    return "sha256:" + made.hexdigest()
