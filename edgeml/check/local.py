"""Which local files may be given to a job: Azure ML's client uploads them to the cloud."""

from __future__ import annotations

import os
from collections.abc import Iterator

_CONFIGURATIONS = frozenset({".yml", ".yaml", ".toml", ".md"})
_BYTES, _PLACEHOLDER_BYTES, _FILES = 64 << 10, 1 << 10, 100
WHAT = (
    f"YAML, TOML or Markdown of {_BYTES >> 10} KiB at most, or a placeholder without a suffix of "
    f"{_PLACEHOLDER_BYTES >> 10} KiB at most"
)


def why_not(path: str, root: str) -> str:
    """Why a local file or folder is not mere configuration; empty where it is."""
    root = os.path.realpath(root)
    size = count = 0
    try:
        for file in _files(path):
            real = os.path.realpath(file)
            if os.path.commonpath([root, real]) != root:
                return "lies outside the repository"
            count += 1
            length = os.path.getsize(real)
            size += length
            suffix = os.path.splitext(file)[1].lower()
            if suffix and suffix not in _CONFIGURATIONS:
                return f"holds a {suffix} file, which is no configuration"
            if not suffix and length > _PLACEHOLDER_BYTES:
                return f"holds a file without suffix of {length} bytes"
            if size > _BYTES or count > _FILES:
                return f"holds more than {_BYTES >> 10} KiB or {_FILES} files"
    except OSError:
        return "cannot be read"
    return ""


def _files(path: str) -> Iterator[str]:
    if not os.path.isdir(path):
        yield path
        return

    def refuse(error: OSError) -> None:
        raise error

    for folder, folders, names in os.walk(path, onerror=refuse):
        yield from (os.path.join(folder, name) for name in names)
        yield from (link for name in folders if os.path.islink(link := os.path.join(folder, name)))
