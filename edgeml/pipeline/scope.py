"""A pipeline as a level on which bindings hold: the outermost one, or one nested at a node."""

from __future__ import annotations

import os

from edgeml.pipeline import expressions, load
from edgeml.pipeline.graph import Component, Value
from edgeml.pipeline.source import Mapping, PipelineError


class Scope:
    """One pipeline, the outermost or nested: its document, its inputs' values and what its outputs become."""

    def __init__(self, document: Mapping, prefix: str, parent: Scope | None, node: Mapping | None) -> None:
        self.document = document
        self.prefix = prefix
        self.parent = parent
        self.node = node  # the node in `parent` that this pipeline stands at
        self.jobs = load.section(document, "jobs")
        self.inputs: dict[str, Value | None] = {}
        self.components: dict[str, Component] = {}
        self.parallel: dict[str, Mapping] = {}  # documents of the nodes that are parallel
        self.nested: dict[str, Scope] = {}


def as_pipeline(document: Mapping) -> Mapping:
    """The document itself, or, for a command job, a pipeline of that one job."""
    if "jobs" in document or document.get("type") == "pipeline":
        return document
    if "command" not in document and document.get("type") != "sweep":
        raise PipelineError(
            "neither a pipeline (with 'jobs'), nor a command job (with 'command'), nor a sweep", document.file, 1
        )
    name = load.text(document, "name") or stem(document.file)
    wrapped = Mapping(document.file, document.line)
    jobs = wrapped["jobs"] = Mapping(document.file, document.line)
    jobs[name if name.isidentifier() else "job"] = document
    return wrapped


def promoted_by(scope: Scope, output: str) -> tuple[str, str, Mapping, str] | None:
    """The job and its output that are bound to `${{parent.outputs.<output>}}` in a pipeline, and where that stands."""
    for job in scope.jobs:
        bound = load.section(scope.jobs[job], "outputs")
        for name in bound:
            if parent_output(bound, name) == output:
                return job, str(name), bound, name
    return None


def parent_output(mapping: Mapping, key: str) -> str:
    binding = expressions.single(mapping[key])
    if binding is None and isinstance(mapping[key], Mapping):
        binding = expressions.single(mapping[key].get("path"))
    if binding is None or binding.path[:2] != ("parent", "outputs") or len(binding.path) != 3:
        return ""
    return binding.path[2]


def stem(path: str) -> str:
    return os.path.splitext(os.path.basename(path))[0]
