"""A pipeline as the resolver sees it, with all of its errors instead of the first, and what rules ask of it."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from edgeml.errors import nearest
from edgeml.pipeline import load
from edgeml.pipeline.graph import Data, FromStep, Graph, Step, Text, Value, order
from edgeml.pipeline.nodes import Components
from edgeml.pipeline.ports import ANY, DATA_TYPES, FILE_TYPES, LITERAL_TYPES, Input
from edgeml.pipeline.resolve import Resolver, Unset, unset
from edgeml.pipeline.scope import Scope
from edgeml.pipeline.source import Mapping, PipelineError, at

if TYPE_CHECKING:
    from edgeml.check.context import Context

ELSEWHERE = "elsewhere"  # the rule of an error that another file's own findings state

_ANY_KIND = frozenset({"custom_model"})  # a model of this type may be a file as well as a folder


class Library(Components):
    """Documents and components out of the context, so that what many pipelines use is read and loaded once."""

    def __init__(self, context: Context) -> None:
        super().__init__({})
        self._context = context
        self._loaded = context.loaded
        self.unread: list[str] = []

    def document(self, path: str) -> Mapping:
        if path not in self.documents:
            try:
                self.documents[path] = self.look(path)
            except PipelineError:
                self.unread.append(path)
                raise
        return self.documents[path]

    def look(self, path: str) -> Mapping:
        read, findings = self._context.read(path)
        if read.mapping is None:
            problem = findings[0].message if findings else "not a YAML mapping of keys to values"
            raise PipelineError(problem, path, 1, rule=ELSEWHERE if findings else "")
        return read.mapping

    def refuse(self, error: PipelineError) -> None:
        self._context.problems.setdefault(error.file, []).append(error)


class Survey(Resolver):
    """One pipeline, or a pipeline component by itself, resolved as far as that goes.

    `problems` has every error; `graph` is None where there are any. `owners` has the scope and the job by step,
    `scopes` every pipeline in it.
    """

    def __init__(self, context: Context, path: str) -> None:
        super().__init__({}, here=False)
        self.library = Library(context)
        self.components = self.library
        self.problems: list[PipelineError] = []
        self.owners: dict[str, tuple[Scope, str]] = {}
        self.scopes: list[Scope] = []
        self.resolved: Graph | None = None
        try:
            made = self.graph(os.path.abspath(path), {})
        except PipelineError as error:
            self.refuse(error)
        else:
            self.resolved = None if self.problems else made

    def refuse(self, error: PipelineError) -> None:
        if error.rule != ELSEWHERE:
            self.problems.append(error)

    # ---- what the resolver does, and what is noted on the way ----

    def declare(self, scope: Scope) -> None:
        self.scopes.append(scope)
        super().declare(scope)

    def step(self, scope: Scope, name: str, node: Mapping) -> Step:
        self.owners[scope.prefix + name] = (scope, name)
        return super().step(scope, name, node)

    def ordered(self) -> list[str]:
        needs = {name: step.needs & self.steps.keys() for name, step in self.steps.items()}
        while True:
            try:
                return order(needs)
            except ValueError as error:
                cycle = error.args[0]
            scope, job = self.owners[cycle[0]]
            message = "the steps wait for each other in a circle: " + " → ".join(cycle)
            self.refuse(at(scope.jobs, job, message, "cycle"))
            needs |= {name: needs[name] - set(cycle) for name in cycle}

    def inputs(self, scope: Scope, name: str, node: Mapping, ports: dict[str, Input]) -> dict[str, Value | None]:
        given = load.section(node, "inputs")
        for key in given:
            if key not in ports:
                near = nearest(str(key), ports)
                hint = f"did you mean '{near}'?" if near else f"it declares {', '.join(ports) or 'none'}"
                message = f"the component of node '{name}' declares no input '{key}', so the value is dropped; {hint}"
                self.refuse(at(given, key, message, "undeclared-input"))
        return super().inputs(scope, name, node, ports)

    # ---- types ----

    def root_value(self, root: Scope, declared: Mapping, name: str, port: Input) -> Value | None:
        value = super().root_value(root, declared, name, port)
        spec = declared[name]
        typed = isinstance(spec, Mapping) and "type" in spec
        return value if typed or not isinstance(value, Data) else Data(value.path, "")

    def fit(self, value: Value, port: Input, mapping: Mapping, key: str) -> Value:
        written = isinstance(value, (str, bool, int, float))
        type_ = "" if written and port.is_literal else self.type_of(value)
        if type_ and port.type != ANY and clash(type_, port.type):
            message = f"input '{key}' is of type {port.type}, but what it is given is of type {type_}"
            self.refuse(at(mapping, key, message, "binding-type"))
            return unset(port.type)
        return super().fit(value, port, mapping, key)

    def type_of(self, value: Value) -> str:
        """The declared type of what arrives at an input; empty where nothing is declared or the value decides."""
        if isinstance(value, (Unset, Data)):
            return value.type
        if isinstance(value, FromStep):
            return self.output_type(value)
        if isinstance(value, Text):
            return ""
        return "boolean" if isinstance(value, bool) else "number" if isinstance(value, (int, float)) else ""

    def output_type(self, source: FromStep) -> str:
        scope, job = self._job_of(source.step)
        if scope is None or source.output not in scope.components[job].outputs:
            return ""
        return self.output(scope, job, scope.jobs[job], source.output).type

    def _job_of(self, step: str) -> tuple[Scope | None, str]:
        for scope in self.scopes:
            job = step.removeprefix(scope.prefix)
            if step.startswith(scope.prefix) and job in scope.components:
                return scope, job
        return None, ""

    def data(self, written: str, type_: str, mapping: Mapping, key: str) -> Value:
        value = super().data(written, type_, mapping, key)
        if isinstance(value, Data) and "type" in mapping and os.path.exists(value.path):
            is_folder = os.path.isdir(value.path)
            if type_ not in _ANY_KIND and (type_ in FILE_TYPES) == is_folder:
                found = "a folder" if is_folder else "a file"
                message = f"{os.path.relpath(value.path)} is {found}, but its type is {type_}"
                self.refuse(at(mapping, key, message, "binding-type"))
        return value


def clash(given: str, wanted: str) -> bool:
    """Whether a value declared as one type cannot be meant for an input of another.

    What may fit is let pass: text for data is its path, and folders of data and of models are interchangeable.
    """
    if given in DATA_TYPES and wanted in DATA_TYPES:
        return not {given, wanted} & _ANY_KIND and (given in FILE_TYPES) != (wanted in FILE_TYPES)
    if given in DATA_TYPES or wanted in DATA_TYPES:
        return given != "string"
    if given in LITERAL_TYPES and wanted in LITERAL_TYPES:
        return wanted != "string" and given != wanted and (given, wanted) not in (("integer", "number"),)
    return False


def component_of(context: Context, path: str, kind: str) -> tuple[Any, list[PipelineError]]:
    """The command or parallel component in a file, None where it cannot be loaded, and all that is wrong with it."""
    library = Library(context)
    try:
        document = library.document(path)
        name = os.path.splitext(os.path.basename(path))[0]
        made = library.component(document, name, kind)
    except PipelineError as error:
        return None, [error]
    return made, context.problems.get(path, [])
