"""What a node runs: the component in its own file, in the node, or the pipeline that it nests."""

from __future__ import annotations

import os
from collections.abc import Mapping as AbstractMapping
from typing import Any, NamedTuple

from edgeml.pipeline import load
from edgeml.pipeline.graph import Component
from edgeml.pipeline.ports import ANY, Input
from edgeml.pipeline.source import Mapping, PipelineError, at, read

_COMMAND, _PARALLEL, _PIPELINE, _SWEEP = "command", "parallel", "pipeline", "sweep"


class Found(NamedTuple):
    """A node's component, or None where `document` is a pipeline that it nests."""

    component: Component | None
    kind: str
    document: Mapping


class Components:
    """Documents and components by file, each read once. `maps` gives remote references a local file."""

    def __init__(self, maps: AbstractMapping[str, str]) -> None:
        self.maps = maps
        self.documents: dict[str, Mapping] = {}
        self._loaded: dict[tuple[str, int], Component] = {}

    def refuse(self, error: PipelineError) -> None:
        """What is done about an error in a component, beside which the rest of it can still be understood."""
        raise error

    def document(self, path: str) -> Mapping:
        if path not in self.documents:
            self.documents[path] = read(path)
        return self.documents[path]

    def look(self, path: str) -> Mapping:
        """A document that may turn out to be none of the pipeline's."""
        return read(path)

    def of(self, name: str, node: Mapping) -> Found:
        """What the node of this name runs. Raises PipelineError where that cannot run here."""
        kind = load.text(node, "type", _COMMAND).lower()
        key = "trial" if kind == _SWEEP else "component"
        if node.get(key) is None:
            return self._inline(name, node, kind)
        document = self._declared(node, name, key)
        if kind == _SWEEP and "inputs" not in document:
            return Found(self._inline_trial(name, node, document), _SWEEP, document)
        kind = load.text(document, "type", _PIPELINE if "jobs" in document else _COMMAND).lower()
        if kind == _PIPELINE:
            return Found(None, kind, document)
        return Found(self.component(document, name, kind), kind, document)

    def component(self, document: Mapping, name: str, kind: str = _COMMAND) -> Component:
        """The component of a document, loaded once."""
        place = (document.file, document.line)
        if place not in self._loaded:
            self._loaded[place] = load.component(_runnable(document, name, kind), name, self.refuse)
        return self._loaded[place]

    def _declared(self, node: Mapping, name: str, key: str) -> Mapping:
        declared = node[key]
        if isinstance(declared, Mapping):
            return declared
        if not isinstance(declared, str):
            raise at(node, key, f"the {key} of node '{name}' must be a path or a mapping")
        path = self.maps.get(declared, declared)
        if load.is_remote(path):
            raise at(
                node,
                key,
                f"the component {declared} of node '{name}' is in a registry; give its YAML with --map {declared}=FILE",
            )
        if path is declared:
            path = load.local_path(declared, node.file)
        if not os.path.isfile(path):
            message = f"the component file {os.path.relpath(path)} of node '{name}' does not exist"
            raise at(node, key, message, "missing-path")
        return self.document(os.path.abspath(path))

    def _inline(self, name: str, node: Mapping, kind: str) -> Found:
        if "jobs" in node or kind == _PIPELINE:
            return Found(None, _PIPELINE, node)
        if kind == _SWEEP:
            message = f"sweep '{name}' has no trial; name the component that each trial runs"
            raise at(node, "trial", message, "missing-key")
        runnable = _runnable(node, name, kind)
        return Found(load.inline_command(runnable, name, _inline_ports(node), self.refuse), kind, node)

    def _inline_trial(self, name: str, node: Mapping, trial: Mapping) -> Component:
        from edgeml.pipeline.sweep import trial_mapping

        varied = {str(key): Input(type=ANY, optional=True) for key in load.section(node, "search_space")}
        return load.inline_command(trial_mapping(node, trial), name, _inline_ports(node) | varied, self.refuse)


def _runnable(document: Mapping, name: str, kind: str) -> Mapping:
    """The document as one of a command component."""
    if kind == _COMMAND:
        return document
    if kind != _PARALLEL:
        raise at(document, "type", f"node '{name}' is of type '{kind}', which this runner cannot run")
    from edgeml.pipeline.parallel import command_mapping

    return command_mapping(document, name)


def _inline_ports(node: Mapping) -> dict[str, Input]:
    """Ports of a node with its own command: each takes whatever value it is given."""
    given = load.section(node, "inputs")
    ports: dict[str, Any] = {}
    for key in given:
        spec = given[key]
        if isinstance(spec, str) and "${{" in spec:
            ports[str(key)] = Input(type=ANY, optional=True, line=given.line_of(key))
        else:
            ports[str(key)] = load.value_port(spec, given.line_of(key))._replace(optional=True)
    return ports
