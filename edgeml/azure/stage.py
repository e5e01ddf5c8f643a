"""The pipeline as Azure ML is sent it: the file's own words, with what is local replaced by what was uploaded.

Everything that decides is in the repository's YAML; here only the addresses change. `code:` becomes the code asset of
the very files that the snapshot lists, local configuration becomes its blob, and private steps keep what they print
and write in the private storage.
"""

from __future__ import annotations

import copy
import os
from typing import Any, NamedTuple

import yaml

from edgeml.azure import aside
from edgeml.azure.plan import Plan
from edgeml.errors import EdgemlError
from edgeml.pipeline import load
from edgeml.pipeline.graph import datastore_of


class Uploaded(NamedTuple):
    """Addresses of what was uploaded: code by step, local inputs by their absolute path."""

    code: dict[str, str]
    inputs: dict[str, str]


def local_inputs(plan: Plan) -> list[str]:
    """The absolute paths of the files and folders that the pipeline's inputs name on this machine."""
    from edgeml.pipeline.graph import data_of

    found: dict[str, None] = {}
    for value in (
        *plan.graph.inputs.values(),
        *(v for step in plan.graph.steps.values() for v in step.inputs.values()),
    ):
        for data in data_of(value):
            if not data.source and os.path.isabs(data.path):
                found[os.path.realpath(data.path)] = None
    return list(found)


def write(plan: Plan, uploaded: Uploaded, compute: str, folder: str) -> str:
    """Write the pipeline's YAML and that of its components into a folder; returns the pipeline's path."""
    stage = _Stage(plan, uploaded, folder)
    base = os.path.dirname(plan.graph.file)
    document = _read(plan.graph.file)
    if "jobs" not in document:
        raise EdgemlError(f"{plan.file} is a single job; submit a pipeline that has it as its only step")
    settings = document.setdefault("settings", {})
    settings["default_compute"] = compute
    if plan.graph.default_datastore:
        settings["default_datastore"] = plan.graph.default_datastore
    if plan.stowed is not None and datastore_of(plan.graph.default_datastore) in plan.policy.private:
        settings.pop("default_datastore")  # what then lies in the workspace's own is markers
    for name, text in plan.overrides.items():
        _override(document, name, text, plan)
    stage.inputs(document, base)
    if plan.stowed is not None:
        stage.outputs(document)
    stage.jobs(document, base, "")
    return stage.save("pipeline", document)


class _Stage:
    def __init__(self, plan: Plan, uploaded: Uploaded, folder: str) -> None:
        self._plan, self._uploaded, self._folder = plan, uploaded, folder

    def jobs(self, document: dict[str, Any], base: str, prefix: str) -> None:
        for name, node in document["jobs"].items():
            self._node(prefix + name, node, base)

    def inputs(self, holder: dict[str, Any], base: str) -> None:
        """Replace the local paths of inputs by where they lie now."""
        for key, given in (holder.get("inputs") or {}).items():
            path = given.get("path") if isinstance(given, dict) else None
            if isinstance(path, str) and "${{" not in path and not load.is_remote(path):
                absolute = os.path.realpath(load.local_path(path, os.path.join(base, "pipeline.yml")))
                holder["inputs"][key] = {**given, "path": self._uploaded.inputs[absolute]}

    def save(self, name: str, document: dict[str, Any]) -> str:
        path = os.path.join(self._folder, f"{name}.yml")
        with open(path, "w", encoding="utf-8") as stream:
            yaml.safe_dump(document, stream, sort_keys=False, allow_unicode=True)
        return path

    def _node(self, step: str, node: dict[str, Any], base: str) -> None:
        self.inputs(node, base)
        if self._plan.stowed is not None:
            self.outputs(node)
        if "jobs" in node:
            self.jobs(node, base, f"{step}.")
            return
        key = next((key for key in ("component", "trial") if key in node), "")
        reference = node.get(key)
        if isinstance(reference, str) and not load.is_remote(reference):
            file = load.local_path(reference, os.path.join(base, "pipeline.yml"))
            document, within = _read(file), os.path.dirname(file)
            if "jobs" in document:
                self.inputs(document, within)
                self.jobs(document, within, f"{step}.")
            else:
                self._component(step, document, within, node)
            node[key] = self.save(step, document)
        elif isinstance(reference, dict):
            self._component(step, reference, base, node)
        elif not key:
            self._component(step, node, base, node)

    def _component(self, step: str, document: dict[str, Any], base: str, node: dict[str, Any]) -> None:
        """Rewrite a component, or a node that is its own; `node` is where its outputs are placed."""
        for holder in (document, document.get("task") or {}):
            if step in self._uploaded.code and ("code" in holder or "additional_includes" in holder):
                holder["code"] = self._uploaded.code[step]
                holder.pop("additional_includes", None)
            if "environment" in holder:
                holder["environment"] = _environment(holder["environment"], base)
        if step not in self._plan.private or "command" not in document:
            return
        graphed, stowed, command = self._plan.graph.steps[step], self._plan.stowed, str(document["command"])
        if stowed is None:
            document["command"] = aside.to_datastore(command, graphed.sweep is not None)
            document["outputs"] = {**(document.get("outputs") or {}), aside.LOG: {"type": "uri_folder"}}
            path = f"azureml://datastores/{min(self._plan.policy.private)}/paths/logs/${{{{name}}}}/"
            node["outputs"] = {**(node.get("outputs") or {}), aside.LOG: {"type": "uri_folder", "path": path}}
            return
        document["command"] = aside.to_storage(command, graphed, self._plan.name, stowed)
        document["code"] = self._uploaded.code[step]
        tags = document.get("tags") or {}
        needs = dict.fromkeys([*str(tags.get("edgeml.needs") or "").split(), "storage"])
        document["tags"] = {**tags, "edgeml.needs": " ".join(needs)}
        home = f"{aside.HOME}/{self._plan.name}/{step}"
        for holder in (document, node):
            for name, value in (holder.get("environment_variables") or {}).items():
                holder["environment_variables"][name] = aside.placed(str(value), graphed, home, stowed)

    def outputs(self, holder: dict[str, Any]) -> None:
        """Let Azure ML write the markers of what is stowed to its own storage, for it may not reach the edge's."""
        for given in (holder.get("outputs") or {}).values():
            if isinstance(given, dict) and datastore_of(str(given.get("path") or "")) in self._plan.policy.private:
                given.pop("path")


def _override(document: dict[str, Any], name: str, text: str, plan: Plan) -> None:
    """Give an input of the pipeline another value, as `edgeml run --input` would."""
    given = document["inputs"][name]
    if isinstance(given, dict) and (
        "path" in given or str(given.get("type", "")).startswith(("uri_", "mltable", "custom_"))
    ):
        document["inputs"][name] = {**given, "path": text if load.is_remote(text) else os.path.abspath(text)}
    else:
        document["inputs"][name] = plan.graph.inputs[name]


def _environment(given: Any, base: str) -> Any:
    """A declared environment with its local paths made absolute, for the SDK reads this file from another folder."""
    if isinstance(given, str):
        return given if load.is_remote(given) else load.local_path(given, os.path.join(base, "component.yml"))
    made = copy.deepcopy(given)
    if isinstance(made, dict):
        if isinstance(made.get("conda_file"), str):
            made["conda_file"] = os.path.abspath(os.path.join(base, made["conda_file"]))
        if isinstance(made.get("build"), dict) and isinstance(made["build"].get("path"), str):
            made["build"]["path"] = os.path.abspath(os.path.join(base, made["build"]["path"]))
    return made


def _read(path: str) -> dict[str, Any]:
    """A YAML file that the resolver has read before, so it is one and a mapping."""
    with open(path, encoding="utf-8") as stream:
        document: dict[str, Any] = yaml.load(stream, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))  # noqa: S506
    return document
