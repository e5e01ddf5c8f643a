"""What `edgeml run` asks before its first step, and does not ask again while the files are the same."""

from __future__ import annotations

import contextlib
import json
import os
from functools import partial
from hashlib import sha256
from typing import TYPE_CHECKING

from edgeml import __version__

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any

    from edgeml.check.finding import Finding
    from edgeml.pipeline import Graph

_CHECKED = "checked"  # folder of the cache: an empty file for each state of a pipeline in which no error was found


class Question:
    """The errors in a pipeline's files and in the scripts that its commands call, looked for beside other work.

    `state` is the project's own folder, where what was found faultless is noted, unless nothing is to be written. A
    child of this process looks at the files, while this one gets the engine ready. Where nothing was noted yet it is
    sure to be needed, and imports the rules while this one still resolves the graph.
    """

    def __init__(self, state: str, *, note: bool = True) -> None:
        self._root = os.path.dirname(state)
        self._checked = os.path.join(state, "cache", _CHECKED)
        self._note = note
        self._look: Callable[[], list[Finding]] | None = None
        self._child: _Child | None = None if os.path.isdir(self._checked) else _Child()

    def ask(self, graph: Graph) -> None:
        """Ask about a graph, unless it was found faultless before."""
        checked = os.path.join(self._checked, _state_of(graph))
        if os.path.exists(checked):
            return
        about = (graph.sources, self._root, checked if self._note else "")
        self._look = partial(_look, *about)
        self._child = self._child or _Child()
        self._child.ask(about)

    def answer(self) -> list[Finding]:
        if self._look is None or self._child is None:
            return []
        said = self._child.answer()
        if said is None:
            return self._look()  # whatever ended the child happens here, where it can be seen
        from edgeml.check.finding import Finding

        return [Finding(*finding) for finding in said]


class _Child:
    """A process that imports the rules, reads what is asked from a pipe, and says what it found in another.

    Not asked anything, it ends with this one.
    """

    def __init__(self) -> None:
        asked, self._ask = os.pipe()
        self._answer, answer = os.pipe()
        self._child = os.fork()
        if self._child:
            os.close(asked)
            os.close(answer)
            return
        code = 1
        try:
            os.close(self._ask)
            os.close(self._answer)
            from edgeml.check import context, runnable  # noqa: F401 - before it is known what to look at

            with open(asked, "rb") as stream:
                about = json.loads(stream.read())
            with open(answer, "wb") as stream:
                stream.write(json.dumps(_look(*about)).encode())
            code = 0
        finally:
            os._exit(code)

    def ask(self, about: tuple[Sequence[str], str, str]) -> None:
        with contextlib.suppress(BrokenPipeError), open(self._ask, "wb") as stream:
            stream.write(json.dumps(about).encode())

    def answer(self) -> Any:
        """What it found; None where it failed."""
        with open(self._answer, "rb") as stream:
            said = stream.read()
        return json.loads(said) if os.waitpid(self._child, 0)[1] == 0 else None


def _look(sources: Sequence[str], root: str, note: str) -> list[Finding]:
    from edgeml.check import runnable
    from edgeml.check.context import Context

    found = runnable.refusals(sources, Context(root))
    if note and not found:
        # Without room for the note it is only asked again.
        with contextlib.suppress(OSError):
            os.makedirs(os.path.dirname(note), exist_ok=True)
            os.close(os.open(note, os.O_CREAT | os.O_WRONLY, 0o644))
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
