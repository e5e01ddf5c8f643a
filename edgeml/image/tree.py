"""Folders and tar archives as layers, and layers as folders.

A layer is written in one way whoever built it: sorted, without times, names of users or extended attributes. So the
same files make the same bytes.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import tarfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import IO, NamedTuple

from edgeml.errors import EdgemlError

WHITEOUT = ".wh."


class Entry(NamedTuple):
    """A member of a layer, and where its bytes are: a file on disk, or a member of an open archive."""

    info: tarfile.TarInfo
    path: str = ""
    archive: tarfile.TarFile | None = None
    member: tarfile.TarInfo | None = None


def of_folder(folder: str, place: str = "") -> Iterator[Entry]:
    """Everything below a folder, for a place in the image, and the folders that lead to the place; all root's."""
    steps = place.split("/") if place else []
    for depth in range(len(steps)):
        yield Entry(_info("/".join(steps[: depth + 1]), tarfile.DIRTYPE, 0o755))
    for where, folders, files in os.walk(folder):
        for name in (*folders, *files):
            path = os.path.join(where, name)
            inside = "/".join([*steps, os.path.relpath(path, folder)])
            if os.path.islink(path):
                info = _info(inside, tarfile.SYMTYPE, 0o777)
                info.linkname = os.readlink(path)
                yield Entry(info)
            elif name in folders:
                yield Entry(_info(inside, tarfile.DIRTYPE, 0o1777 if inside == "tmp" else 0o755))
            else:
                status = os.stat(path)
                info = _info(inside, tarfile.REGTYPE, 0o755 if status.st_mode & 0o111 else 0o644)
                info.size = status.st_size
                yield Entry(info, path)


def of_archive(archive: tarfile.TarFile) -> Iterator[Entry]:
    """The members of a layer that another builder made."""
    for member in archive:
        info = _info(member.name.strip("/").removeprefix("./"), member.type, member.mode & 0o7777)
        info.linkname, info.size, info.uid, info.gid = member.linkname, member.size, member.uid, member.gid
        if info.name not in ("", "."):
            yield Entry(info, archive=archive, member=member)


def write(entries: Iterable[Entry], stream: IO[bytes]) -> str:
    """Write a layer; returns the digest of the uncompressed archive, by which a config names it."""
    hashed = _Hashed(stream)
    kept = {entry.info.name: entry for entry in entries}
    with tarfile.open(fileobj=hashed, mode="w|", format=tarfile.PAX_FORMAT, bufsize=1 << 20) as archive:  # type: ignore[call-overload]
        for name in sorted(kept):
            entry = kept[name]
            with _bytes(entry) as source:
                archive.addfile(entry.info, source)
    return hashed.digest


def unpack(layers: Iterable[IO[bytes]], folder: str) -> None:
    """Lay compressed layers over one another as a folder, as who calls. Whiteouts remove, nothing lands outside."""
    for stream in layers:
        with tarfile.open(fileobj=stream, mode="r|*") as archive:
            for member in archive:
                path = _inside(folder, member.name)
                parent, name = os.path.split(path)
                if name.startswith(WHITEOUT):
                    remove(os.path.join(parent, name.removeprefix(WHITEOUT)))
                    continue
                if member.isdir():
                    os.makedirs(path, exist_ok=True)
                    continue
                remove(path)
                os.makedirs(parent, exist_ok=True)
                if member.issym():
                    os.symlink(member.linkname, path)
                elif member.islnk():
                    os.link(_inside(folder, member.linkname), path)
                elif member.isreg():
                    source = archive.extractfile(member)
                    assert source is not None
                    with open(path, "wb") as target:
                        shutil.copyfileobj(source, target, 1 << 20)
                    os.chmod(path, member.mode & 0o755 | 0o200)


def _inside(folder: str, name: str) -> str:
    """A member's path below a folder, with no link on the way out of it."""
    parts = [part for part in name.split("/") if part not in ("", ".")] or ["."]
    if ".." in parts:
        raise EdgemlError(f"a layer names '{name[:100]}', which is outside of the image; it is refused", 1)
    path = folder
    for part in parts[:-1]:
        path = os.path.join(path, part)
        if os.path.islink(path):
            target = os.readlink(path)
            base = folder if target.startswith("/") else os.path.dirname(path)
            path = os.path.normpath(os.path.join(base, target.lstrip("/")))
            if path != folder and not path.startswith(folder + os.sep):
                raise EdgemlError(f"a layer names '{name[:100]}', which leads outside of the image; it is refused", 1)
    return os.path.join(path, parts[-1])


def _info(name: str, kind: bytes, mode: int) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)  # its time is 0, its user and group are 0 and have no names
    info.type, info.mode = kind, mode
    return info


@contextmanager
def _bytes(entry: Entry) -> Iterator[IO[bytes] | None]:
    if not entry.info.isreg():
        yield None
    elif entry.archive is not None and entry.member is not None:
        yield entry.archive.extractfile(entry.member)
    else:
        with open(entry.path, "rb") as stream:
            yield stream


def remove(path: str) -> None:
    """Remove a file, link or folder, if it is there."""
    if os.path.isdir(path) and not os.path.islink(path):
        shutil.rmtree(path)
    elif os.path.lexists(path):
        os.unlink(path)


class _Hashed:
    def __init__(self, stream: IO[bytes]) -> None:
        self._stream, self._hash = stream, hashlib.sha256()

    def write(self, data: bytes) -> int:
        self._hash.update(data)
        return self._stream.write(data)

    @property
    def digest(self) -> str:
        return "sha256:" + self._hash.hexdigest()
