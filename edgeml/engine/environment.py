"""What a step declares that it runs in, and the launchers that honour it (`--env docker` and `--env conda`).

Imported only with `--env`: a run in this Python needs none of it.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, Protocol

from edgeml.engine.folder import Job
from edgeml.engine.guard import Guard
from edgeml.engine.step import Process, Sources
from edgeml.pipeline import load
from edgeml.pipeline.graph import Graph, Step
from edgeml.pipeline.source import Mapping as YamlMapping
from edgeml.pipeline.source import PipelineError, read


class Declared(NamedTuple):
    """An environment's parts, each empty where it has none: `conda` is the text of its conda file.

    `step` is the first that runs in it, `file` and `line` are where it is written.
    """

    step: str
    image: str
    build: str
    dockerfile: str
    conda: str
    file: str
    line: int

    def refusal(self, message: str) -> PipelineError:
        return PipelineError(message, self.file, self.line)


class Sandbox(Protocol):
    """Starts steps in a place of their own; `kind` is what the run's record calls it."""

    @property
    def kind(self) -> str: ...

    def start(
        self,
        step: Step,
        command: str,
        job: Job,
        environment: dict[str, str],
        outputs: dict[str, str],
        sources: Sources,
        guard: Guard,
    ) -> Process:
        """Start a step's command in its working directory; `outputs` are its outputs' paths by name."""
        ...


class Launcher(Protocol):
    """Starts steps in the environments that were prepared for them."""

    def identity(self, step: Step) -> str:
        """What identifies a step's environment; part of what decides on reuse."""
        ...

    def start(
        self,
        step: Step,
        command: str,
        job: Job,
        environment: dict[str, str],
        outputs: dict[str, str],
        sources: Sources,
        guard: Guard,
    ) -> Process:
        """Start a step's command in its working directory; `outputs` are its outputs' paths by name."""
        ...


def prepare(kind: str, graph: Graph, maps: Mapping[str, str], state: str, say: Callable[[str], None]) -> Launcher:
    """The launcher of a kind with every step's environment made ready; `say` is told of what takes time.

    `maps` gives environments that are not on this machine a local source. Raises EdgemlError, before any step
    starts, for whatever cannot be honoured.
    """
    declared: dict[str, Declared] = {}
    for step in graph.steps.values():
        if step.parallel is not None or (step.distribution is not None and step.distribution.processes > 1):
            raise PipelineError(
                f"step '{step.name}' is of several processes, which --env {kind} cannot start; run it with --env local",
                step.component.file,
                step.component.line,
            )
        if key(step) not in declared:
            declared[key(step)] = _declared(step, kind, maps)
    if kind == "docker":
        from edgeml.engine import docker

        return docker.prepare(declared, state, say)
    from edgeml.engine import conda

    return conda.prepare(declared, state, say)


def key(step: Step) -> str:
    """What steps with the same environment have in common."""
    return json.dumps(step.environment, sort_keys=True, default=str)


def _declared(step: Step, kind: str, maps: Mapping[str, str]) -> Declared:
    environment = step.environment
    file, line = step.environment_at
    if not environment:
        raise PipelineError(f"step '{step.name}' declares no environment for --env {kind}; declare one", file, line)
    if isinstance(environment, dict):
        return _from_mapping(step.name, environment, file, line, lambda key: line)
    path = environment.removeprefix("file:")
    if path == environment:
        mapped = maps.get(environment)
        if mapped is None:
            raise PipelineError(
                f"the environment {environment} of step '{step.name}' is not on this machine; "
                f"give it a local source with --map {environment}=ENVIRONMENT.yml (or =IMAGE)",
                file,
                line,
            )
        if not mapped.endswith((".yml", ".yaml")) and not os.path.exists(mapped):
            return Declared(step.name, mapped, "", "", "", file, line)
        path = os.path.abspath(mapped)
    if not os.path.isfile(path):
        wrong = "is a folder; name the YAML file in it" if os.path.isdir(path) else "does not exist; check the path"
        raise PipelineError(f"the environment {os.path.relpath(path)} of step '{step.name}' {wrong}", file, line)
    document = read(path)
    if "dependencies" in document:  # a conda file in the place of the environment that would name it
        return Declared(step.name, "", "", "", _text(path), path, document.line_of("dependencies"))
    wrapper = YamlMapping(path, document.line)
    wrapper["environment"] = document
    return _from_mapping(step.name, load.environment(wrapper), path, document.line, document.line_of)


def _from_mapping(
    step: str, environment: Mapping[str, Any], file: str, line: int, line_of: Callable[[str], int]
) -> Declared:
    def refuse(key: str, message: str) -> PipelineError:
        return PipelineError(f"the environment of step '{step}' {message}", file, line_of(key))

    image, build, conda = (environment.get(key) for key in ("image", "build", "conda_file"))
    if build is not None:
        path = build.get("path") if isinstance(build, dict) else None
        if not isinstance(path, str):
            raise refuse("build", "has a build without a path; name the folder of its Dockerfile")
        if load.is_remote(path):
            raise refuse(
                "build", f"is built from {path}, which is not on this machine; check it out and name the folder"
            )
        dockerfile = str(build.get("dockerfile_path") or "Dockerfile")
        if not os.path.isfile(os.path.join(path, dockerfile)):
            missing = os.path.relpath(os.path.join(path, dockerfile))
            raise refuse("build", f"is built with {missing}, which does not exist; check path and dockerfile_path")
        return Declared(step, "", path, dockerfile, "", file, line_of("build"))
    if conda is None:
        if not isinstance(image, str) or not image:
            raise refuse("image", "has neither image nor build nor conda_file; add one of them")
        return Declared(step, image, "", "", "", file, line_of("image"))
    if isinstance(conda, dict):
        text = json.dumps(conda, indent=1)  # JSON is YAML
    elif not os.path.isfile(str(conda)):
        raise refuse("conda_file", f"has the conda file {os.path.relpath(str(conda))}, which does not exist")
    else:
        text = _text(str(conda))
    return Declared(step, image if isinstance(image, str) else "", "", "", text, file, line_of("conda_file"))


def _text(path: str) -> str:
    with open(path, encoding="utf-8") as stream:
        return stream.read()
