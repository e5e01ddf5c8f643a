"""Where the steps of a resolved graph are written: each node in its pipeline's tree, and its component in its own."""

from __future__ import annotations

import os
from typing import NamedTuple

from edgeml.check.context import Context
from edgeml.check.document import Document, entries, scalar
from edgeml.check.finding import Place
from edgeml.pipeline import Graph, Step, expressions, load
from edgeml.pipeline.libyaml import yaml

_MAX_DEPTH = 32  # of pipelines within each other; the resolver refuses one that nests itself


class Scope(NamedTuple):
    """A pipeline, the outermost or one at a node of another."""

    document: Document
    root: yaml.Node | None
    node: Written | None


class Written(NamedTuple):
    """A node: its name and mapping in its pipeline's document, and its component wherever that stands."""

    key: yaml.Node | None
    node: yaml.Node | None
    component: tuple[Document, yaml.Node | None]
    scope: Scope

    def value(self, *path: str) -> yaml.Node | None:
        """What stands at the path of keys in the node."""
        return value(self.node, *path)

    def place(self, *path: str) -> Place:
        """The place of what stands at the path of keys in the node, else of the node's name."""
        found = self.value(*path) or self.key or self.node
        return self.scope.document.place(found) if found is not None else Place(self.scope.document.path, 1, 1)


def fields(node: yaml.Node | None) -> dict[str, tuple[yaml.Node, yaml.Node]]:
    """The keys of a mapping with their nodes, those that it merges (`<<`) included."""
    own = entries(node)
    if "<<" not in own:
        return own
    merged = own.pop("<<")[1]
    others = merged.value if isinstance(merged, yaml.SequenceNode) else [merged]
    for other in others:
        own = {**entries(other), **own}
    return own


def value(node: yaml.Node | None, *path: str) -> yaml.Node | None:
    """What stands at a path of keys, None where there is nothing."""
    for key in path:
        found = fields(node).get(key)
        if found is None:
            return None
        node = found[1]
    return node


def steps(document: Document, graph: Graph, context: Context) -> dict[str, Written]:
    """Where each step of a graph is written, by its name; the document is that of the graph's file."""
    root = Scope(document, document.root, None)
    if "jobs" not in fields(document.root):  # a job of its own, which the graph makes a pipeline of
        trial = value(document.root, "trial")
        component = _component(document, trial, context) if trial is not None else (document, document.root)
        return {name: Written(document.root, document.root, component, root) for name in graph.steps}
    found: dict[str, Written] = {}
    _collect(root, "", context, found, 0)
    return found


def _collect(scope: Scope, prefix: str, context: Context, found: dict[str, Written], depth: int) -> None:
    for name, (key, node) in fields(value(scope.root, "jobs")).items():
        declared = value(node, "component") or value(node, "trial")
        component = (scope.document, node) if declared is None else _component(scope.document, declared, context)
        written = Written(key, node, component, scope)
        if "jobs" in fields(component[1]) and depth < _MAX_DEPTH:
            _collect(Scope(*component, written), f"{prefix}{name}.", context, found, depth + 1)
        else:
            found[prefix + name] = written


def _component(document: Document, declared: yaml.Node, context: Context) -> tuple[Document, yaml.Node | None]:
    path = scalar(declared)
    if path is None:
        return document, declared
    file = load.local_path(path, document.path)
    if load.is_remote(path) or not os.path.isfile(file):
        return document, None
    read = context.read(file)[0]
    return read, read.root


def output(written: Written | None, step: Step, name: str, graph: Graph) -> Place:
    """The place that decides where an output of a step lies: its `path`, else the output, else the node."""
    if written is None:
        return Place(os.path.relpath(graph.file), max(step.line, 1), 1)
    decides = value(written.node, "outputs")
    place = _path_of(written.scope.document, decides, name)
    outer: Written | None = written
    bound = parent_output(value(decides, name))
    while bound and outer is not None:  # the outermost path wins
        scope = outer.scope
        place = _path_of(scope.document, value(scope.root, "outputs"), bound) or place
        outer = scope.node
        if outer is not None:
            given = value(outer.node, "outputs")
            place = _path_of(outer.scope.document, given, bound) or place
            bound = parent_output(value(given, bound))
    component, tree = written.component
    return place or _path_of(component, value(tree, "outputs"), name) or written.place("outputs", name)


def _path_of(document: Document, outputs: yaml.Node | None, name: str) -> Place | None:
    path = value(outputs, name, "path")
    return None if path is None or parent_output(path) else document.place(path)


def parent_output(node: yaml.Node | None) -> str:
    text = scalar(node) or scalar(value(node, "path"))
    binding = expressions.single(text) if text else None
    return binding.path[2] if binding is not None and binding.path[:2] == ("parent", "outputs") else ""
