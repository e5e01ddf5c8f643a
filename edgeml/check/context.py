"""What rules may ask beyond their own document; each answer is worked out once."""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import cached_property
from typing import TYPE_CHECKING, TypeVar, cast

from edgeml.check import document, format, kinds
from edgeml.check.document import Document
from edgeml.check.finding import Finding
from edgeml.pipeline import Graph, PipelineError, resolve
from edgeml.pipeline.graph import Component
from edgeml.policy import Policy

if TYPE_CHECKING:
    from edgeml.check.survey import Survey

T = TypeVar("T")


class Context:
    """The repository at `root` as the rules see it. `ready` names what must be configured, such as `azure`."""

    def __init__(self, root: str, ready: frozenset[str] = frozenset()) -> None:
        self.root = root
        self.ready = ready
        self.loaded: dict[tuple[str, int], Component] = {}
        self.problems: dict[str, list[PipelineError]] = {}
        self._documents: dict[str, tuple[Document, list[Finding]]] = {}
        self._made: dict[str, object] = {}
        self._graphs: dict[str, Graph | PipelineError] = {}
        self._unfit: dict[str, list[Finding]] = {}
        self._surveys: dict[str, Survey] = {}

    def read(self, path: str) -> tuple[Document, list[Finding]]:
        """A YAML file's document, with its path relative to the working directory, and what is wrong with its YAML."""
        path = os.path.relpath(path)
        if path not in self._documents:
            self._documents[path] = document.read(path)
        return self._documents[path]

    def source(self, path: str) -> Document:
        """A file's lines, and its tree where it is YAML."""
        if path.endswith((".yml", ".yaml")):
            return self.read(path)[0]
        try:
            with open(path, encoding="utf-8", errors="replace") as stream:
                return Document(os.path.relpath(path), None, stream.read().splitlines())
        except OSError:
            return Document(os.path.relpath(path), None, [])

    def graph(self, path: str) -> Graph:
        """The graph of a pipeline as it would run anywhere. Raises PipelineError where it would not."""
        path = os.path.abspath(path)
        if path not in self._graphs:
            try:
                self._graphs[path] = resolve(path, here=False)
            except PipelineError as error:
                self._graphs[path] = error
        graph = self._graphs[path]
        if isinstance(graph, PipelineError):
            raise graph
        return graph

    def once(self, key: str, make: Callable[[Context], T]) -> T:
        """What `make` works out of this repository, by a key of its own; worked out once."""
        if key not in self._made:
            self._made[key] = make(self)
        return cast("T", self._made[key])

    def unfit(self, path: str) -> list[Finding]:
        """What is wrong with a file as YAML or with its format; other rules are not asked of it then."""
        path = os.path.relpath(path)
        if path not in self._unfit:
            read, findings = self.read(path)
            kind = kinds.kind_of(read)
            self._unfit[path] = [*findings, *(format.check(read, kind) if kind is not None else ())]
        return self._unfit[path]

    def survey(self, path: str) -> Survey:
        """A pipeline or job resolved with all of its errors; its `resolved` graph is None where there are any."""
        from edgeml.check.survey import Survey

        path = os.path.relpath(path)
        if path not in self._surveys:
            self._surveys[path] = Survey(self, path)
        return self._surveys[path]

    @cached_property
    def policy(self) -> Policy:
        """The residency policy of the repository. Raises PipelineError where it is not understood."""
        from edgeml import policy

        return policy.load(self.root)
