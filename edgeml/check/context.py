"""What rules may ask beyond their own document; each answer is worked out once."""

from __future__ import annotations

import os
from functools import cached_property

from edgeml.check import document
from edgeml.check.document import Document
from edgeml.check.finding import Finding
from edgeml.pipeline import Graph, resolve
from edgeml.pipeline.source import PipelineError
from edgeml.policy import Policy


class Context:
    """The repository at `root` as the rules see it. `ready` names what must be configured, such as `azure`."""

    def __init__(self, root: str, ready: frozenset[str] = frozenset()) -> None:
        self.root = root
        self.ready = ready
        self._documents: dict[str, tuple[Document, list[Finding]]] = {}
        self._graphs: dict[str, Graph | PipelineError] = {}

    def read(self, path: str) -> tuple[Document, list[Finding]]:
        """A YAML file's document, with its path relative to the working directory, and what is wrong with its YAML."""
        path = os.path.relpath(path)
        if path not in self._documents:
            self._documents[path] = document.read(path)
        return self._documents[path]

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

    @cached_property
    def policy(self) -> Policy:
        """The residency policy of the repository. Raises PipelineError where it is not understood."""
        from edgeml import policy

        return policy.load(self.root)
