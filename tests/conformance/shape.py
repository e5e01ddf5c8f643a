"""edgeml's graph in the plain shape that `oracle.py` makes of azure-ai-ml's job."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from edgeml.engine.fingerprint import Fingerprints
from edgeml.engine.snapshot import take
from edgeml.engine.step import Sources, command_of, text_of, variables_of
from edgeml.pipeline import Graph, Step
from edgeml.pipeline.graph import Data, FromStep, Text, Value

Shape = dict[str, Any]


class _EveryOutput(dict[Any, str]):
    """A place for each output of each step, as `<step.output>`: which ones there are is compared elsewhere."""

    def __missing__(self, source: tuple[str, str]) -> str:
        return f"<{source[0]}.{source[1]}>"


_SOURCES = Sources(_EveryOutput(), {}, str)


def shape(graph: Graph, scratch: Path) -> Shape:
    """All of a graph that the SDK has a say in; `scratch` is where file fingerprints may be kept."""
    fingerprints = Fingerprints(str(scratch / "files.json"))
    return {
        "steps": {name: _step(step, fingerprints) for name, step in graph.steps.items()},
        "inputs": _described(graph.inputs),
        "outputs": {
            name: {"from": f"<{source.step}.{source.output}>", "type": output.type or "uri_folder", "uri": output.uri}
            for name, (source, output) in graph.outputs.items()
        },
        "default_datastore": graph.default_datastore.removeprefix("azureml:"),
        "continue_on_failure": graph.continue_on_failure,
        "force_rerun": graph.force_rerun,
    }


def _step(step: Step, fingerprints: Fingerprints) -> Shape:
    component = step.component
    outputs = {name: f"<{name}>" for name in step.outputs}
    # What a sweep varies has no value but each trial's own.
    swept = {name: f"<{name}>" for name in step.sweep.space} if step.sweep else {}
    trial = step._replace(inputs={**step.inputs, **swept})
    snapshot = take(component.code, component.includes, fingerprints)
    return {
        "inputs": _described({name: value for name, value in step.inputs.items() if name not in swept}),
        "outputs": {
            name: {"type": output.type or "uri_folder", "uri": output.uri} for name, output in step.outputs.items()
        },
        "variables": variables_of(step, outputs, _SOURCES),
        "environment": _environment(step.environment),
        "compute": step.compute.removeprefix("azureml:"),
        "deterministic": component.deterministic,
        "distribution": _distribution(step),
        "sweep": step.sweep and step.sweep._asdict(),
        "parallel": _parallel(step),
        "command": command_of(trial, outputs, _SOURCES),
        "files": sorted({name for name, _ in snapshot.files} - {".gitignore"}),
    }


def _described(values: Mapping[str, Value]) -> Shape:
    made: Shape = {}
    for name, value in values.items():
        if isinstance(value, Data):
            made[name] = {"path": value.path, "type": value.type}
        elif isinstance(value, (FromStep, Text)):
            made[name] = text_of(value, _SOURCES)
        else:
            made[name] = [type(value).__name__, value]
    return made


def _environment(environment: Any) -> Any:
    """The environment with the contents of its local files, as the SDK holds it."""
    if isinstance(environment, str):
        if not environment.startswith("file:"):
            return environment if environment.startswith("azureml://") else environment.removeprefix("azureml:")
        path = Path(environment.removeprefix("file:"))
        environment = yaml.safe_load(path.read_text())
        conda = environment.get("conda_file")
        environment["conda_file"] = conda and str(path.parent / conda)
    conda = environment.get("conda_file")
    if isinstance(conda, str):
        conda = yaml.safe_load(Path(conda).read_text())
    made = {
        "image": environment.get("image"),
        "conda": conda and conda["dependencies"],
        "build": (environment.get("build") or {}).get("path"),
    }
    return {key: value for key, value in made.items() if value}


def _distribution(step: Step) -> Any:
    held = step.distribution
    return held and {"type": held.type, "processes": held.processes}


def _parallel(step: Step) -> Any:
    if step.parallel is None:
        return None
    made = step.parallel._asdict()
    return made | {"size": made.pop("files") + made.pop("bytes")}
