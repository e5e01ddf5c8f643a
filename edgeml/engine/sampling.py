"""The values that the trials of a sweep are given.

Source of the distributions: Azure ML's sweep job YAML reference, "Parameter expressions". The values are a pure
function of the space and the seed (and, for bayesian sampling, of the metrics), so that a sweep that is run
again proposes the same trials.
"""

from __future__ import annotations

import itertools
import math
import random
from collections.abc import Callable, Iterator
from typing import Any, Protocol

from edgeml.errors import EdgemlError
from edgeml.pipeline.graph import Sweep

Values = dict[str, Any]


class Sampler(Protocol):
    """Proposes values until there are none left; hears what became of them (None: no metric)."""

    def propose(self) -> Values | None: ...

    def learn(self, values: Values, metric: float | None) -> None: ...


def sampler(sweep: Sweep) -> Sampler:
    """The sampler that a sweep asks for."""
    if sweep.algorithm == "bayesian":
        return _Bayesian(sweep)
    return _Listed(_grid(sweep) if sweep.algorithm == "grid" else _random(sweep))


def check_bayesian() -> None:
    """Refuse, before anything runs, what could not be sampled here."""
    from importlib.util import find_spec

    if find_spec("optuna") is None:
        raise EdgemlError(
            "bayesian sampling needs the package 'optuna', which is not installed; run `make setup` "
            "or install edgeml[sweep]"
        )


class _Listed:
    def __init__(self, values: Iterator[Values]) -> None:
        self.values = values

    def propose(self) -> Values | None:
        return next(self.values, None)

    def learn(self, values: Values, metric: float | None) -> None:
        return


def _grid(sweep: Sweep) -> Iterator[Values]:
    names = list(sweep.space)
    for combination in itertools.product(*(sweep.space[name]["values"] for name in names)):
        yield dict(zip(names, combination, strict=True))


def _random(sweep: Sweep) -> Iterator[Values]:
    """Independent draws; a space of choices alone ends when each combination was drawn."""
    draw = random.Random(sweep.seed or 0)  # noqa: S311 - a search, no secret
    finite = all(spec["type"] == "choice" for spec in sweep.space.values())
    left = math.prod(len(spec["values"]) for spec in sweep.space.values()) if finite else 0
    seen: set[str] = set()
    while not finite or len(seen) < left:
        values = {name: DRAWS[spec["type"]](draw, spec) for name, spec in sweep.space.items()}
        if finite:
            if repr(values) in seen:
                continue
            seen.add(repr(values))
        yield values


def _quantised(value: float, spec: dict[str, Any]) -> float:
    step = float(spec["q"])
    return round(round(value / step) * step, 12)  # 0.3, not 0.30000000000000004


def _uniform(draw: random.Random, spec: dict[str, Any]) -> float:
    return draw.uniform(spec["min_value"], spec["max_value"])


def _normal(draw: random.Random, spec: dict[str, Any]) -> float:
    return draw.gauss(spec["mu"], spec["sigma"])


DRAWS: dict[str, Callable[[random.Random, dict[str, Any]], Any]] = {
    "choice": lambda draw, spec: draw.choice(spec["values"]),
    "randint": lambda draw, spec: draw.randrange(int(spec["upper"])),
    "uniform": _uniform,
    "quniform": lambda draw, spec: _quantised(_uniform(draw, spec), spec),
    "loguniform": lambda draw, spec: math.exp(_uniform(draw, spec)),
    "qloguniform": lambda draw, spec: _quantised(math.exp(_uniform(draw, spec)), spec),
    "normal": _normal,
    "qnormal": lambda draw, spec: _quantised(_normal(draw, spec), spec),
    "lognormal": lambda draw, spec: math.exp(_normal(draw, spec)),
    "qlognormal": lambda draw, spec: _quantised(math.exp(_normal(draw, spec)), spec),
}
"""A value of each distribution: `min_value` and `max_value` of the logarithmic ones bound the logarithm."""


class _Bayesian:
    """Tree-structured Parzen estimators of Optuna, told of each metric as it comes."""

    def __init__(self, sweep: Sweep) -> None:
        import optuna

        optuna.logging.set_verbosity(optuna.logging.ERROR)
        self.optuna = optuna
        self.space = sweep.space
        self.study = optuna.create_study(
            direction="maximize" if sweep.goal == "maximize" else "minimize",
            sampler=optuna.samplers.TPESampler(seed=sweep.seed or 0, constant_liar=True),
        )
        self.open: dict[str, Any] = {}

    def propose(self) -> Values:
        trial = self.study.ask()
        values = {name: self._suggest(trial, name, spec) for name, spec in self.space.items()}
        self.open[repr(values)] = trial
        return values

    def _suggest(self, trial: Any, name: str, spec: dict[str, Any]) -> Any:
        if spec["type"] == "choice":
            # By position: Optuna takes only plain values as categories.
            return spec["values"][trial.suggest_categorical(name, list(range(len(spec["values"]))))]
        value = trial.suggest_float(name, spec["min_value"], spec["max_value"])
        return _quantised(value, spec) if spec["type"] == "quniform" else value

    def learn(self, values: Values, metric: float | None) -> None:
        trial = self.open.pop(repr(values), None)
        if trial is None:
            return
        state = self.optuna.trial.TrialState.FAIL if metric is None else None
        self.study.tell(trial, metric, state=state)
