"""What `edgeml run` asks before its first step, and does not ask again while the files are the same."""

from __future__ import annotations

import contextlib
import json
import os
from hashlib import sha256
from typing import TYPE_CHECKING

from edgeml import __version__

if TYPE_CHECKING:
    from edgeml.check.finding import Finding
    from edgeml.pipeline import Graph

_CHECKED = "checked"  # folder of the cache: an empty file for each state of a pipeline in which no error was found


class Question:
    """The errors in a pipeline's files and in the scripts that its commands call, looked for beside other work.

    `state` is the project's own folder, where what was found faultless is noted, unless nothing is to be written.
    A child of the process looks, while this one gets the engine ready; it is asked once, and then answers.
    """

    def __init__(self, graph: Graph, state: str, *, note: bool = True) -> None:
        self._sources = graph.sources
        self._root = os.path.dirname(state)
        self._checked = os.path.join(state, "cache", _CHECKED, _state_of(graph))
        self._note = note
        self._child: tuple[int, int] | None = None
        if not os.path.exists(self._checked):
            self._child = self._ask()

    def answer(self) -> list[Finding]:
        if self._child is None:
            return []
        from edgeml.check.finding import Finding

        child, pipe = self._child
        self._child = None
        with open(pipe, "rb") as stream:
            said = stream.read()
        if os.waitpid(child, 0)[1] == 0:
            return [Finding(*finding) for finding in json.loads(said)]
        return self._look()  # whatever ended the child happens here, where it can be seen

    def _ask(self) -> tuple[int, int]:
        """The process that looks, and the pipe in which it says what it found."""
        reader, writer = os.pipe()
        child = os.fork()
        if child:
            os.close(writer)
            return child, reader
        code = 1
        try:
            os.close(reader)
            with open(writer, "wb") as stream:
                stream.write(json.dumps(self._look()).encode())
            code = 0
        finally:
            os._exit(code)

    def _look(self) -> list[Finding]:
        from edgeml.check import runnable
        from edgeml.check.context import Context

        found = runnable.refusals(self._sources, Context(self._root))
        if self._note and not found:
            # Without room for the note it is only asked again.
            with contextlib.suppress(OSError):
                os.makedirs(os.path.dirname(self._checked), exist_ok=True)
                os.close(os.open(self._checked, os.O_CREAT | os.O_WRONLY, 0o644))
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
