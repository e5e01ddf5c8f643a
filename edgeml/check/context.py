"""What rules may ask beyond their own document; each answer is worked out once."""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import cached_property
from typing import TYPE_CHECKING, Any, TypeVar

from edgeml.check import document, format, kinds
from edgeml.check.document import Document
from edgeml.check.finding import Finding
from edgeml.pipeline import Graph, PipelineError, resolve
from edgeml.pipeline.graph import Component
from edgeml.policy import Policy
from edgeml.project import SETTINGS_FILE

if TYPE_CHECKING:
    from edgeml.check.listing import Listing
    from edgeml.check.python import Module
    from edgeml.check.survey import Survey

T = TypeVar("T")


class Context:
    """The repository at `root` as the rules see it. `ready` names what must be configured, such as `azure`."""

    def __init__(self, root: str, ready: frozenset[str] = frozenset()) -> None:
        self.root = root
        self.ready = ready
        self.loaded: dict[tuple[str, int], Component] = {}
        self.problems: dict[str, list[PipelineError]] = {}
        self.of_components: dict[str, list[Finding]] = {}
        self._documents: dict[str, tuple[Document, list[Finding]]] = {}
        self._modules: dict[str, Module] = {}
        self._listings: dict[tuple[str, tuple[str, ...]], Listing] = {}
        self._remembered: dict[Any, Any] = {}
        self._graphs: dict[str, Graph | PipelineError] = {}
        self._unfit: dict[str, list[Finding]] = {}
        self._surveys: dict[str, Survey] = {}

    def read(self, path: str) -> tuple[Document, list[Finding]]:
        """A file's document, with its path relative to the working directory, and what is wrong with it as a file."""
        path = os.path.relpath(path)
        if path not in self._documents:
            if os.path.basename(path) == SETTINGS_FILE:
                from edgeml.check import settings

                self._documents[path] = settings.check(path, self)
            else:
                self._documents[path] = document.read(path)
        return self._documents[path]

    def lines(self, path: str) -> list[str]:
        """The lines of a file that a finding names or a rule has parsed, for its silencers."""
        path = os.path.relpath(path)
        if path in self._documents or path.endswith((".yml", ".yaml")):
            return self.read(path)[0].lines
        if path in self._modules:
            return self._modules[path].comments
        return document.lines_of(path)

    def python(self, path: str) -> Module:
        """A Python file's tree, with its path relative to the working directory."""
        from edgeml.check import python

        path = os.path.relpath(path)
        if path not in self._modules:
            self._modules[path] = python.Module(path)
        return self._modules[path]

    @property
    def parsed(self) -> list[str]:
        """The Python files that were looked at."""
        return list(self._modules)

    def listing(self, code: str, includes: tuple[str, ...]) -> Listing:
        """What a working directory starts with, by the absolute paths of its code folder and includes."""
        from edgeml.check import listing

        if (code, includes) not in self._listings:
            self._listings[code, includes] = listing.of(code, includes)
        return self._listings[code, includes]

    def remembered(self, key: Any, make: Callable[[], T]) -> T:
        """What `make` gave the first time it was asked for with this key."""
        if key not in self._remembered:
            self._remembered[key] = make()
        made: T = self._remembered[key]
        return made

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

    @cached_property
    def is_governed(self) -> bool:
        """Whether the repository has a residency policy, even one that is not understood."""
        from edgeml.policy import POLICY_FILE

        return os.path.isfile(os.path.join(self.root, POLICY_FILE))
