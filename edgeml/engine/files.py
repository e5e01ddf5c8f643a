"""Copying and linking of files and trees; nothing here decides anything."""

from __future__ import annotations

import contextlib
import os
import stat

_COPY_RANGE = getattr(os, "copy_file_range", None)
UNFINISHED = ".tmp"


def copy_file(source: str, target: str) -> None:
    """A copy with the source's permissions; shares its blocks where the file system can (btrfs, xfs)."""
    with open(source, "rb", buffering=0) as reading, open(target, "xb", buffering=0) as writing:
        info = os.fstat(reading.fileno())
        if not _copied_in_kernel(reading.fileno(), writing.fileno()):
            while block := reading.read(1 << 20):
                writing.write(block)
        os.fchmod(writing.fileno(), stat.S_IMODE(info.st_mode) | stat.S_IWUSR)


def link_or_copy(source: str, target: str) -> None:
    """A hard link, or a copy where the target is on another file system or links are refused."""
    try:
        os.link(source, target)
    except FileExistsError:
        raise
    except OSError:
        copy_file(source, target)


def replicate(source: str, target: str) -> None:
    """The file or tree at `source`, file by file linked (or copied) to `target`, which must not exist."""
    if not os.path.isdir(source):
        link_or_copy(os.path.realpath(source), target)
        return
    os.mkdir(target)
    with os.scandir(source) as entries:
        for entry in entries:
            to = os.path.join(target, entry.name)
            if entry.is_dir(follow_symlinks=False):
                replicate(entry.path, to)
            elif entry.is_symlink() and not entry.is_file():
                os.symlink(os.readlink(entry.path), to)
            else:
                link_or_copy(os.path.realpath(entry.path), to)


def remove(path: str) -> None:
    """Remove a file or a tree if it is there."""
    if os.path.isdir(path) and not os.path.islink(path):
        import shutil

        shutil.rmtree(path, ignore_errors=True)
    else:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(path)


def write_atomically(path: str, content: str) -> None:
    """Replace a text file so that a reader sees the old or the new content, never a part."""
    temporary = f"{path}.{unique()}{UNFINISHED}"
    try:
        with open(temporary, "w", encoding="utf-8") as stream:
            stream.write(content)
        os.replace(temporary, path)
    except OSError:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        raise


def is_unfinished(name: str) -> bool:
    """Whether a file is what `write_atomically` left when its process was killed."""
    return name.endswith(UNFINISHED)


def unique() -> str:
    """A name that no other thread, process or container makes; it begins with the process id."""
    return f"{os.getpid()}-{os.urandom(4).hex()}"


def _copied_in_kernel(source: int, target: int) -> bool:
    if _COPY_RANGE is None:
        return False
    copied = 0
    try:
        while size := _COPY_RANGE(source, target, 1 << 30):
            copied += size
    except OSError:
        if copied:
            raise
        return False
    return True
