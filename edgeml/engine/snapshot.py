"""What a step's working directory starts with: its `code:` folder and additional includes, less what is ignored.

`.amlignore` at the top of the code folder decides what is left out, else `.gitignore` there, as Azure ML's SDK
does when it uploads a snapshot.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from typing import NamedTuple

from edgeml.engine.files import copy_file
from edgeml.engine.fingerprint import Fingerprints, digest
from edgeml.errors import EdgemlError

# Never part of what the author wrote: they change without the code changing.
_NEVER = frozenset({"__pycache__", ".git", ".ipynb_checkpoints", ".amlignore"})

_Ignored = Callable[[str], bool]


class Snapshot(NamedTuple):
    """Files by relative path, the fingerprint of them all, and that of each (with `x` where it is executable)."""

    files: tuple[tuple[str, str], ...]
    fingerprint: str
    digests: dict[str, str]

    def copy_to(self, folder: str) -> None:
        """Make the folder with a copy of every file."""
        os.makedirs(folder)
        made = {folder}
        for name, source in self.files:
            target = os.path.join(folder, name)
            parent = os.path.dirname(target)
            if parent not in made:
                os.makedirs(parent, exist_ok=True)
                made.add(parent)
            copy_file(source, target)


def take(code: str, includes: tuple[str, ...], fingerprints: Fingerprints) -> Snapshot:
    """List and fingerprint what belongs to a component's code; nothing is copied yet."""
    files: dict[str, str] = {}
    for name, source in contents(code, includes):
        if files.get(name, source) != source and source in includes:
            raise EdgemlError(f"the additional include {source} would replace {name} of the code folder; rename one")
        files[name] = source
    entries = tuple(sorted(files.items()))
    digests = {name: fingerprints.of(path) + "x" * os.access(path, os.X_OK) for name, path in entries}
    lines = [f"{name}\0{made}\n" for name, made in digests.items()]
    return Snapshot(entries, digest("".join(lines).encode("utf-8", "surrogateescape")), digests)


def contents(code: str, includes: tuple[str, ...]) -> Iterator[tuple[str, str]]:
    """Each file of a component's code by its name in the working directory; those of the includes come last."""
    if code and os.path.isdir(code):
        yield from _files(code, "", _ignore_rules(code))
    elif code:
        yield os.path.basename(code), code
    for include in includes:
        name = os.path.basename(include.rstrip("/"))
        if os.path.isdir(include):
            yield from _files(include, name + "/", _ignore_rules(include))
        else:
            yield name, include


def _files(
    folder: str, prefix: str, ignored: _Ignored | None, inside: str = "", above: tuple[str, ...] = ()
) -> Iterator[tuple[str, str]]:
    real = os.path.realpath(folder)
    if real in above:  # a link to a folder that holds it
        return
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.name in _NEVER:
                continue
            name = inside + entry.name
            is_folder = entry.is_dir()
            if ignored is not None and ignored(name + "/" if is_folder else name):
                continue
            if is_folder:
                yield from _files(entry.path, prefix, ignored, name + "/", (*above, real))
            elif entry.is_file():
                yield prefix + name, entry.path


def _ignore_rules(folder: str) -> _Ignored | None:
    for name in (".amlignore", ".gitignore"):
        path = os.path.join(folder, name)
        if os.path.isfile(path):
            import pathspec

            with open(path, encoding="utf-8", errors="replace") as stream:
                return pathspec.GitIgnoreSpec.from_lines(stream).match_file
    return None
