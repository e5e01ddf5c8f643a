"""The resolved graph: every step with its command, typed values and the steps it needs.

Nested pipelines are flattened; the step `b` of the pipeline component at node `a` is `a.b`.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from edgeml.pipeline.ports import Input, Literal, Output, render


class Data(NamedTuple):
    """A file or folder on this machine, by absolute path.

    `source` is the remote reference that it stands for, as written or as its data asset says; empty for what is local.
    In a graph that is not to run here `path` may be that reference too, or empty where no value is given yet.
    """

    path: str
    type: str
    source: str = ""


class FromStep(NamedTuple):
    """An output of another step."""

    step: str
    output: str


class Text(NamedTuple):
    """Literal text with data or outputs of steps inside it."""

    parts: tuple[str | Data | FromStep, ...]


Value = Literal | Data | FromStep | Text


class Sweep(NamedTuple):
    """A search: each trial runs the step's component with values of the space, the best by the metric stays.

    `space` holds, by input, the distribution as written (`type` and its parameters). Times are in seconds, 0 for none.
    """

    algorithm: str
    seed: int | None
    space: dict[str, dict[str, Any]]
    goal: str
    metric: str
    max_trials: int
    max_concurrent: int
    timeout: float
    trial_timeout: float
    early_termination: str


class Parallel(NamedTuple):
    """An entry script that gets the files of `input` in mini-batches, bounded by `files` or by `bytes` (0 for none).

    What it returns is appended to the output `append_to`. `timeout` is in seconds for one mini-batch; of the
    thresholds, -1 means that any number may fail.
    """

    input: str
    append_to: str
    files: int
    bytes: int
    workers: int
    retries: int
    timeout: int
    failed_batches: int
    failed_items: int


class Distribution(NamedTuple):
    """How many processes of one command work together, and by which means (`pytorch`, `mpi`, `tensorflow`)."""

    type: str
    processes: int


class Component(NamedTuple):
    """A command component, from a file of its own or written in a node. Paths are absolute, or empty."""

    name: str
    version: str
    command: str
    code: str
    includes: tuple[str, ...]
    environment: Any
    environment_variables: dict[str, str]
    inputs: dict[str, Input]
    outputs: dict[str, Output]
    deterministic: bool
    tags: dict[str, str]
    distribution: Any
    file: str
    line: int
    environment_line: int = 0


class Step(NamedTuple):
    """A node to be run. `inputs` holds only those that have a value.

    `environment_at` is the file and the line that declare its environment.
    """

    name: str
    component: Component
    inputs: dict[str, Value]
    outputs: dict[str, Output]
    environment: Any
    environment_variables: dict[str, Value]
    compute: str
    needs: frozenset[str]
    line: int
    environment_at: tuple[str, int] = ("", 0)
    sweep: Sweep | None = None
    parallel: Parallel | None = None
    distribution: Distribution | None = None


class Graph(NamedTuple):
    """A pipeline ready to run: `steps` in an order in which each comes after all that it needs."""

    name: str
    experiment: str
    file: str
    steps: dict[str, Step]
    inputs: dict[str, Value]
    outputs: dict[str, tuple[FromStep, Output]]
    default_datastore: str
    continue_on_failure: bool
    force_rerun: bool
    sources: tuple[str, ...]
    warnings: tuple[str, ...]


def sources_of(value: Value) -> list[FromStep]:
    """The outputs of other steps that a value is made of."""
    if isinstance(value, FromStep):
        return [value]
    if isinstance(value, Text):
        return [part for part in value.parts if isinstance(part, FromStep)]
    return []


def data_of(value: Value) -> list[Data]:
    """The data from outside the pipeline that a value is made of."""
    if isinstance(value, Data):
        return [value]
    if isinstance(value, Text):
        return [part for part in value.parts if isinstance(part, Data)]
    return []


def order(needs: dict[str, frozenset[str]]) -> list[str]:
    """Step names such that each follows all it needs, otherwise in the order given.

    Raises ValueError with the steps of a cycle, in its order, where there is one.
    """
    waiting = {name: len(wanted) for name, wanted in needs.items()}
    followers: dict[str, list[str]] = {name: [] for name in needs}
    for name, wanted in needs.items():
        for other in wanted:
            followers[other].append(name)
    ordered = [name for name, count in waiting.items() if count == 0]
    for name in ordered:  # grows while it is read
        for follower in followers[name]:
            waiting[follower] -= 1
            if waiting[follower] == 0:
                ordered.append(follower)
    if len(ordered) < len(needs):
        raise ValueError(_cycle({name: needs[name] for name, count in waiting.items() if count}))
    return ordered


def _cycle(stuck: dict[str, frozenset[str]]) -> list[str]:
    path: list[str] = []
    name = next(iter(stuck))
    while name not in path:
        path.append(name)
        name = next(other for other in sorted(stuck[name]) if other in stuck)
    return [*path[path.index(name) :], name]


def datastore_of(uri: str) -> str:
    """The datastore's name in an `azureml:name`, `azureml:name:version` or `azureml://…/datastores/name/…` reference.

    Empty where the reference names none.
    """
    if uri.startswith("azureml://"):
        parts = uri.split("/")
        return parts[parts.index("datastores") + 1] if "datastores" in parts[:-1] else ""
    if "://" in uri:
        return ""
    name = uri.removeprefix("azureml:")
    return name.rpartition("/datastores/")[2].partition(":")[0]


def describe(graph: Graph) -> dict[str, Any]:
    """The graph as plain data: what `edgeml run --dry-run --json` prints."""
    return {
        "name": graph.name,
        "experiment": graph.experiment,
        "pipeline": graph.file,
        "default_datastore": graph.default_datastore,
        "continue_on_step_failure": graph.continue_on_failure,
        "force_rerun": graph.force_rerun,
        "inputs": {name: describe_value(value) for name, value in graph.inputs.items()},
        "outputs": {
            name: {"step": source.step, "output": source.output, "type": output.type, "uri": output.uri}
            for name, (source, output) in graph.outputs.items()
        },
        "steps": [_describe_step(step) for step in graph.steps.values()],
        "warnings": list(graph.warnings),
    }


def describe_value(value: Value) -> Any:
    """A value as plain data: literals as they are, the rest as small mappings."""
    if isinstance(value, Data):
        return {"path": value.path, "type": value.type}
    if isinstance(value, FromStep):
        return {"step": value.step, "output": value.output}
    if isinstance(value, Text):
        return {"text": [describe_value(part) for part in value.parts]}
    return value


def summary(value: Value) -> str:
    """A value as a person would read it in one line."""
    if isinstance(value, Data):
        return value.path
    if isinstance(value, FromStep):
        return f"{value.step}.{value.output}"
    if isinstance(value, Text):
        return "".join(summary(part) for part in value.parts)
    return render(value)


def _describe_step(step: Step) -> dict[str, Any]:
    component = step.component
    return {
        "node": step.name,
        "component": component.name,
        "version": component.version,
        "command": component.command,
        "code": component.code,
        "environment": step.environment,
        "environment_variables": {name: describe_value(value) for name, value in step.environment_variables.items()},
        "compute": step.compute,
        "is_deterministic": component.deterministic,
        "inputs": {name: describe_value(value) for name, value in step.inputs.items()},
        "outputs": {name: {"type": output.type, "uri": output.uri} for name, output in step.outputs.items()},
        "needs": sorted(step.needs),
        **{
            kind: value._asdict()
            for kind, value in (("sweep", step.sweep), ("parallel", step.parallel), ("distribution", step.distribution))
            if value is not None
        },
    }
