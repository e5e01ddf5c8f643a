"""Sweep nodes: the search space, the objective and the limits of a `type: sweep`.

Source: Azure ML's sweep job YAML reference; names and defaults are those of azure-ai-ml.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, NamedTuple

from edgeml.pipeline import expressions, load
from edgeml.pipeline.graph import Sweep
from edgeml.pipeline.source import Mapping, Refuse, at, halt, tried

Plain = Callable[[Mapping, str], Any]
"""Reads a key whose value may be bound to a literal of the pipeline; None where the key is absent."""

_SPACE = re.compile(r"\$\{\{\s*search_space\.")
ALGORITHMS = ("grid", "random", "bayesian")
_MAX_TRIALS = 1000

_UNIFORM = ("min_value", "max_value")
_NORMAL = ("mu", "sigma")
PARAMETERS: dict[str, tuple[str, ...]] = {
    "choice": ("values",),
    "randint": ("upper",),
    "uniform": _UNIFORM,
    "quniform": (*_UNIFORM, "q"),
    "loguniform": _UNIFORM,
    "qloguniform": (*_UNIFORM, "q"),
    "normal": _NORMAL,
    "qnormal": (*_NORMAL, "q"),
    "lognormal": _NORMAL,
    "qlognormal": (*_NORMAL, "q"),
}
"""The parameters of each distribution of a search space."""

_ALLOWED = {"grid": ("choice",), "bayesian": ("choice", "uniform", "quniform")}


class _Reader(NamedTuple):
    node: Mapping
    plain: Plain

    def number(self, mapping: Mapping, key: str, default: float | None = None) -> float:
        value = self.plain(mapping, key)
        if value is None and default is not None:
            return default
        try:
            if value is None or isinstance(value, bool):
                raise ValueError
            return value if isinstance(value, int) else float(value)
        except (TypeError, ValueError):
            raise at(mapping, key, f"'{key}' must be a number", "wrong-value") from None

    def whole(self, mapping: Mapping, key: str, default: int) -> int:
        value = self.number(mapping, key, default)
        if value != int(value) or value < 1:
            raise at(mapping, key, f"'{key}' must be a whole number of at least 1", "wrong-value")
        return int(value)


def sweep_of(node: Mapping, name: str, plain: Plain, refuse: Refuse = halt) -> Sweep:
    """What a sweep node asks for. Raises PipelineError with file and line for what Azure ML would refuse."""
    reader = _Reader(node, plain)
    algorithm, seed = tried(refuse, ("", None), _algorithm, reader)
    space = _space(reader, name, algorithm, refuse)
    objective = load.section(node, "objective")
    metric, goal = plain(objective, "primary_metric"), plain(objective, "goal")
    if not metric:
        message = f"sweep '{name}' has no objective.primary_metric; name the metric that trials log"
        refuse(at(node, "objective", message, "missing-key"))
    if str(goal).lower() not in ("minimize", "maximize"):
        refuse(at(objective, "goal", f"the goal of sweep '{name}' must be minimize or maximize", "wrong-value"))
    limits = load.section(node, "limits")
    trials = tried(refuse, 1, reader.whole, limits, "max_total_trials", _MAX_TRIALS)
    at_once = tried(refuse, 1, reader.whole, limits, "max_concurrent_trials", trials)
    return Sweep(
        algorithm=algorithm,
        seed=seed,
        space=space,
        goal=str(goal).lower(),
        metric=str(metric),
        max_trials=trials,
        max_concurrent=min(trials, at_once),
        timeout=tried(refuse, 0, reader.number, limits, "timeout", 0),
        trial_timeout=tried(refuse, 0, reader.number, limits, "trial_timeout", 0),
        early_termination=load.text(load.section(node, "early_termination"), "type"),
    )


def _algorithm(reader: _Reader) -> tuple[str, int | None]:
    written = reader.node.get("sampling_algorithm")
    declared = written if isinstance(written, Mapping) else reader.node
    key = "type" if isinstance(written, Mapping) else "sampling_algorithm"
    algorithm = str(reader.plain(declared, key) or "random").lower()
    if algorithm not in ALGORITHMS:
        message = f"the sampling algorithm '{algorithm}' is none of {', '.join(ALGORITHMS)}"
        raise at(declared, key, message, "wrong-value")
    seed = declared.get("seed") if declared is written else None
    return algorithm, None if seed is None else int(reader.number(declared, "seed"))


def _space(reader: _Reader, name: str, algorithm: str, refuse: Refuse) -> dict[str, dict[str, Any]]:
    declared = load.section(reader.node, "search_space")
    if not declared:
        message = f"sweep '{name}' has no search_space; say which inputs to vary"
        refuse(at(reader.node, "search_space", message, "search-space"))
    return {str(key): tried(refuse, {}, _distribution, reader, declared, key, algorithm) for key in declared}


def _distribution(reader: _Reader, declared: Mapping, key: str, algorithm: str) -> dict[str, Any]:
    spec = declared[key]
    kind = load.text(spec, "type") if isinstance(spec, Mapping) else ""
    if kind not in PARAMETERS:
        message = f"'{key}' of the search space has no type of: {', '.join(PARAMETERS)}"
        raise at(declared, key, message, "search-space")
    if kind not in _ALLOWED.get(algorithm, PARAMETERS):
        message = f"{algorithm} sampling takes {', '.join(_ALLOWED[algorithm])}, but '{key}' is of type {kind}"
        raise at(spec, "type", message, "search-space")
    if kind == "choice":
        values = spec.get("values")
        if not isinstance(values, list) or not values:
            raise at(spec, "values", f"'{key}' of the search space needs a list of values", "search-space")
        return {"type": kind, "values": list(values)}
    numbers = {part: reader.number(spec, part) for part in PARAMETERS[kind]}
    if numbers.get("min_value", 0) > numbers.get("max_value", 0):
        raise at(spec, "min_value", f"min_value of '{key}' is above its max_value", "search-space")
    return {"type": kind, **numbers}


def trial_mapping(node: Mapping, trial: Mapping) -> Mapping:
    """A trial written in the sweep itself, as the command component it stands for: its ports are the sweep's."""
    made = trial.copied()
    if "outputs" not in trial and "outputs" in node:
        made["outputs"] = node["outputs"]
    command = trial.get("command")
    if isinstance(command, str):
        made["command"] = _SPACE.sub("${{inputs.", command)
    return made


def bound_to_space(given: Mapping, sweep: Sweep, refuse: Refuse = halt) -> Sweep:
    """The sweep with its space by input, where the node says `input: ${{search_space.other_name}}`."""
    space = dict(sweep.space)
    for key in given:
        binding = expressions.single(given[key])
        if binding is None or binding.path[0] != "search_space":
            continue
        source = ".".join(binding.path[1:])
        if source not in sweep.space:
            message = f"{binding} names nothing of the search_space; it has: {', '.join(sweep.space)}"
            refuse(at(given, key, message, "search-space", binding))
            continue
        if source != key:
            space[str(key)] = sweep.space[source]
            space.pop(source, None)
    return sweep._replace(space=space)
