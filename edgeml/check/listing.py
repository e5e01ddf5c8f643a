"""The files that a step's working directory starts with, listed within limits."""

from __future__ import annotations

import os
from itertools import islice
from typing import NamedTuple

MAX_FILES = 2000


class Listing(NamedTuple):
    """Files by relative path. `whole` is false where there are more than `MAX_FILES`, or some cannot be listed."""

    code: str
    files: dict[str, str]
    whole: bool

    def has_folder(self, path: str) -> bool:
        return path in ("", ".") or any(name.startswith(path + "/") for name in self.files)

    def is_left_out(self, path: str) -> bool:
        """Whether a file is in the code folder, and an ignore file keeps it out of the snapshot."""
        return bool(self.code) and path not in self.files and os.path.isfile(os.path.join(self.code, path))


def of(code: str, includes: tuple[str, ...]) -> Listing:
    """The listing of a code folder (or file) and includes, by absolute path; what does not exist is passed over."""
    from edgeml.engine import snapshot

    present = code if os.path.exists(code) else ""
    found = snapshot.contents(present, tuple(path for path in includes if os.path.exists(path)))
    try:
        files = dict(islice(found, MAX_FILES + 1))
    except (OSError, RecursionError):
        return Listing(present, {}, False)
    return Listing(present, files, len(files) <= MAX_FILES)
