"""What rules may ask beyond their own document; each answer is worked out once."""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import cached_property
from typing import TypeVar, cast

from edgeml.check import document
from edgeml.check.document import Document
from edgeml.check.finding import Finding
from edgeml.pipeline import Graph, resolve
from edgeml.pipeline.source import PipelineError
from edgeml.policy import Policy

T = TypeVar("T")


class Context:
    """The repository at `root` as the rules see it. `ready` names what must be configured, such as `azure`."""

    def __init__(self, root: str, ready: frozenset[str] = frozenset()) -> None:
        self.root = root
        self.ready = ready
        self._documents: dict[str, tuple[Document, list[Finding]]] = {}
        self._made: dict[str, object] = {}
        self._graphs: dict[str, Graph | PipelineError] = {}

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

    @cached_property
    def policy(self) -> Policy:
        """The residency policy of the repository. Raises PipelineError where it is not understood."""
        from edgeml import policy

        return policy.load(self.root)
