"""What would be submitted, decided here and offline: the graph, what is private in it, its code, and the job's name.

The name follows from content and commit, so that whoever submits the same again, from whatever machine, finds the job
that already runs.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

from edgeml import policy, project
from edgeml.azure import aside, source
from edgeml.errors import EdgemlError
from edgeml.pipeline.graph import Data, FromStep, Graph, Text, Value

if TYPE_CHECKING:
    from collections.abc import Mapping

    from edgeml.azure.aside import Stowed
    from edgeml.azure.source import Source
    from edgeml.engine.fingerprint import Fingerprints
    from edgeml.engine.snapshot import Snapshot
    from edgeml.pipeline.graph import Step
    from edgeml.policy import Policy

LONGEST = 40  # characters of the pipeline's name in that of a job; Azure ML takes 255 for the whole


class Plan(NamedTuple):
    """A pipeline as it is about to be submitted. `file` is relative to the project, `overrides` are inputs as given.

    `stowed` is what its steps keep in the private storage by themselves; None where Azure ML writes it there.
    """

    name: str
    digest: str
    file: str
    graph: Graph
    private: frozenset[str]
    policy: Policy
    snapshots: dict[str, Snapshot]
    source: Source
    overrides: dict[str, str]
    stowed: Stowed | None

    def attempt(self, number: int) -> str:
        """The job's name the n-th time it has to be made, because the one before failed or was cancelled."""
        return self.name if number == 1 else f"{self.name}-{number}"


def make(
    pipeline: str, target: str, overrides: Mapping[str, str], say: Callable[[str], None], container: str = ""
) -> Plan:
    """Check everything that can be checked before Azure is asked, and name the job.

    `container` is the one of the private storage in which the steps keep their private outputs by themselves; without
    one Azure ML writes them to the private datastore.

    Raises EdgemlError, exit code 1, for what `edgeml check` calls an error, and for a target that the policy does
    not name.
    """
    from edgeml.engine import snapshot
    from edgeml.engine.fingerprint import Fingerprints

    graph, rules = refuse(pipeline, target, overrides, say)
    private = policy.private_steps(graph, rules)
    for name in sorted(private):
        if graph.steps[name].parallel is not None:
            raise EdgemlError(
                f"'{name}' is private and a parallel step, whose logs Azure ML takes from its own wrapper; "
                "submit it to a target of kind edge",
                1,
            )
    stowed = aside.stowed(graph, rules, container) if container and rules.private else None
    if stowed is not None:
        private |= {name for name, outputs in stowed.outputs.items() if outputs}

    def included(step: Step) -> tuple[str, ...]:
        there = step.component.includes
        return (*there, *aside.beside(there)) if stowed is not None and step.name in private else there

    known = Fingerprints(os.path.join(project.state_folder(), "cache", "fingerprints.json"))
    snapshots = {name: snapshot.take(step.component.code, included(step), known) for name, step in graph.steps.items()}
    made = source.of(graph.file)
    digest = _digest(graph, snapshots, known, target, made, container)
    known.save()
    stem = re.sub(r"[^A-Za-z0-9-]+", "-", os.path.splitext(os.path.basename(pipeline))[0]).strip("-")[:LONGEST] or "job"
    file = os.path.relpath(os.path.realpath(pipeline), os.path.realpath(project.root_folder()))
    return Plan(f"{stem}-{digest[:16]}", digest, file, graph, private, rules, snapshots, made, dict(overrides), stowed)


def refuse(
    pipeline: str, target: str, overrides: Mapping[str, str], say: Callable[[str], None]
) -> tuple[Graph, Policy]:
    """Raise EdgemlError, exit code 1, for a pipeline that must not run on a target; else its graph and the policy."""
    from edgeml.pipeline import resolve

    graph = resolve(pipeline, overrides)
    rules = policy.governing(graph.file)
    _refuse_faulty(pipeline, say)
    if rules.file and target not in rules.computes:
        known = ", ".join(sorted(rules.computes)) or "none yet"
        raise EdgemlError(f"the residency policy names no compute '{target}'; it names {known}", 1)
    return graph, rules


def _refuse_faulty(pipeline: str, say: Callable[[str], None]) -> None:
    from edgeml.check import check
    from edgeml.check.finding import ERROR

    paths = [pipeline, *(path for path in _asked_about() if os.path.exists(path))]
    found = [finding for finding in check(paths) if finding.severity == ERROR]
    for finding in found:
        say(f"{finding.path}:{finding.line}:{finding.column} {finding.rule} {finding.message}")
    if found:
        raise EdgemlError(f"{pipeline} was not submitted: mend what is named above", 1)


def _asked_about() -> list[str]:
    """What a pipeline is made of besides its own file: a rule broken anywhere there stops the submission."""
    root = project.root_folder()
    return [os.path.join(root, name) for name in ("components", "environments", "contracts", project.SETTINGS_FILE)]


def _digest(
    graph: Graph, snapshots: dict[str, Snapshot], known: Fingerprints, target: str, made: Source, container: str
) -> str:
    """64 hex digits of all that decides what a job does; no path of this machine is part of it."""
    steps = {
        name: {
            "component": [step.component.name, step.component.version, step.component.command],
            "code": snapshots[name].fingerprint,
            "environment": _plain(step.environment),
            "variables": {key: _value(value, known) for key, value in step.environment_variables.items()},
            "inputs": {key: _value(value, known) for key, value in step.inputs.items()},
            "outputs": {key: [output.type, output.uri] for key, output in step.outputs.items()},
            "sweep": step.sweep and step.sweep._asdict(),
            "parallel": step.parallel and step.parallel._asdict(),
        }
        for name, step in graph.steps.items()
    }
    document = {
        "experiment": graph.experiment,
        "inputs": {key: _value(value, known) for key, value in graph.inputs.items()},
        "datastore": graph.default_datastore,
        "target": target,
        "commit": made.commit,
        "container": container,
        "steps": steps,
    }
    return hashlib.sha256(json.dumps(document, sort_keys=True).encode()).hexdigest()


def _value(value: Value, known: Fingerprints) -> Any:
    if isinstance(value, Data):
        return ["data", value.source or (known.of(value.path) if os.path.exists(value.path) else value.path)]
    if isinstance(value, FromStep):
        return ["step", value.step, value.output]
    if isinstance(value, Text):
        return ["text", [part if isinstance(part, str) else _value(part, known) for part in value.parts]]
    return value


def _plain(environment: Any) -> Any:
    """An environment as written; a mapping of the YAML loader's as a plain one."""
    if isinstance(environment, dict):
        return {str(key): _plain(value) for key, value in environment.items()}
    return [_plain(item) for item in environment] if isinstance(environment, list) else environment
