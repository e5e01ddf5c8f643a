"""What `edgeml run` asks before its first step, and does not ask again while the files are the same."""

from __future__ import annotations

import contextlib
import os
from hashlib import sha256
from typing import TYPE_CHECKING

from edgeml import __version__

if TYPE_CHECKING:
    from edgeml.check.finding import Finding
    from edgeml.pipeline import Graph

_CHECKED = "checked"  # folder of the cache: an empty file for each state of a pipeline in which no error was found


def refusals(graph: Graph, state: str, *, note: bool = True) -> list[Finding]:
    """The errors in a pipeline's files and in the scripts that its commands call.

    `state` is the project's own folder, where what was found faultless is noted, unless nothing is to be written.
    """
    checked = os.path.join(state, "cache", _CHECKED, _state_of(graph))
    if os.path.exists(checked):
        return []
    from edgeml.check import runnable
    from edgeml.check.context import Context

    found = runnable.refusals(graph.sources, Context(os.path.dirname(state)))
    if note and not found:
        # Without room for the note it is only asked again.
        with contextlib.suppress(OSError):
            os.makedirs(os.path.dirname(checked), exist_ok=True)
            os.close(os.open(checked, os.O_CREAT | os.O_WRONLY, 0o644))
    return found


def _state_of(graph: Graph) -> str:
    """A digest of all that the rules look at: YAML by its bytes, files of code by name, size and times."""
    made = sha256(__version__.encode())
    for path in graph.sources:
        made.update(f"\n{path}\n".encode("utf-8", "surrogateescape"))
        with open(path, "rb") as stream:
            made.update(stream.read())
    code = {path for step in graph.steps.values() for path in (step.component.code, *step.component.includes) if path}
    for path in sorted(code):
        for name, status in _files(path):
            line = f"\n{name} {status.st_size} {status.st_mtime_ns} {status.st_ctime_ns}"
            made.update(line.encode("utf-8", "surrogateescape"))
    return made.hexdigest()


def _files(path: str) -> list[tuple[str, os.stat_result]]:
    if not os.path.isdir(path):
        return [(path, os.stat(path))]
    found = []
    for folder, folders, names in os.walk(path):
        folders.sort()
        found += [(os.path.join(folder, name), os.lstat(os.path.join(folder, name))) for name in sorted(names)]
    return found
