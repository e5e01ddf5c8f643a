"""What a private step logged to MLflow, as far as it may reach the run's own store.

The step has a store of its own, files in its own folder; it cannot touch the run's. What is taken over is read with
the standard library, without following a link, and is little: finite numbers of six digits, a few points of a series,
and parameters that are numbers, inputs of the step or words of its code. Artifacts, tags, notes and data sets stay.
"""

from __future__ import annotations

import math
import os
import re
import stat
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple
from urllib.parse import quote

NAMES = 64  # parameters, and metrics, of one run
POINTS = 256  # values of all metrics together
RUNS = 4
_BYTES = 1 << 20
_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_./ -]{0,63}")
_PARTS = re.compile(r"[A-Za-z]+|\d+")
# Words of the names that libraries give to metrics; a script's own come from its code.
_USUAL = frozenset(
    """
    absolute accuracy area at auc average avg balanced batch best brier calibration class classes cohen count
    cross curve cv depth entropy epoch error estimators eval evaluation explained f fbeta features fold folds gini
    gradient hinge iter iteration iterations jaccard kappa l label labels leaf learning log loss lr macro mae mape
    matthews max mean median micro min mse n negative norm number of percentage pr precision r rate recall rmse
    roc root rows sample samples score seconds size specificity squared std step steps sum support test time top
    total train training tree trees true under val validation variance weighted
    """.split()  # noqa: SIM905
)


class Logged(NamedTuple):
    """One MLflow run's name, parameters and metrics (name, value and step); `withheld` is how many were not taken."""

    name: str
    params: dict[str, str]
    metrics: list[tuple[str, float, int]]
    withheld: int


def variables(folder: str) -> dict[str, str]:
    """The variables by which a step logs to its own store."""
    return {
        "MLFLOW_TRACKING_URI": "file://" + quote(folder),
        "MLFLOW_ALLOW_FILE_STORE": "true",
        "MLFLOW_DISABLE_TELEMETRY": "true",
    }


def make(folder: str, run: str = "", experiment: str = "", name: str = "") -> None:
    """Make a store; with a run in it where the step is to log to one that exists elsewhere (a sweep's trial)."""
    os.makedirs(folder)
    if not run:
        return
    place = os.path.join(folder, experiment)
    uri = "file://" + quote(place)
    for part in ("metrics", "params", "tags", "artifacts"):
        os.makedirs(os.path.join(place, run, part))
    common = {"experiment_id": experiment, "lifecycle_stage": "active"}
    times = {"creation_time": 0, "last_update_time": 0}
    _write(place, {**common, **times, "artifact_location": uri, "name": name or "default"})
    state = {"run_id": run, "run_name": "trial", "status": 1, "start_time": 0, "end_time": None, "user_id": "step"}
    source = {"source_type": 4, "source_name": "", "source_version": "", "entry_point_name": "", "tags": []}
    _write(os.path.join(place, run), {**common, **state, **source, "artifact_uri": f"{uri}/{run}/artifacts"})


def read(folder: str, words: frozenset[str], literals: frozenset[str]) -> list[Logged]:
    """What a step logged, in the order of its runs. `words` are those of its code, `literals` its inputs' values."""
    vocabulary = frozenset(part.lower() for word in words for part in _PARTS.findall(word)) | _USUAL
    found = []
    for experiment in _folders(folder):
        for run in _folders(experiment):
            if os.path.isdir(os.path.join(run, "metrics")):
                logged = _logged(run, words, literals, vocabulary)
                if logged.params or logged.metrics or logged.withheld:
                    found.append(logged)
    return found[:RUNS]


def _logged(run: str, words: frozenset[str], literals: frozenset[str], vocabulary: frozenset[str]) -> Logged:
    params: dict[str, str] = {}
    withheld = 0
    for name, text in _entries(os.path.join(run, "params")):
        value = text.strip()
        if len(params) < NAMES and _is_name(name, vocabulary) and (shown := _param(value, words, literals)) is not None:
            params[name] = shown
        else:
            withheld += 1
    series: dict[str, list[tuple[int, float]]] = {}
    for name, text in _entries(os.path.join(run, "metrics")):
        points = _points(text)
        if points and len(series) < NAMES and _is_name(name, vocabulary):
            series[name] = points
        else:
            withheld += 1
    metrics = []
    each = max(1, POINTS // max(1, len(series)))
    for name, points in series.items():
        kept = _thinned(points, each)
        withheld += len(points) - len(kept)
        metrics += [(name, value, step) for step, value in kept]
    title = dict(_entries(os.path.join(run, "tags"))).get("mlflow.runName", "").strip()
    return Logged(title if _is_name(title, vocabulary) else "", params, metrics, withheld)


def _is_name(name: str, vocabulary: frozenset[str]) -> bool:
    """Whether a name is made of known words and small numbers."""
    parts = _PARTS.findall(name)
    known = len(parts) <= 8 and all(p.lower() in vocabulary if p.isalpha() else len(p) <= 2 for p in parts)
    return _NAME.fullmatch(name) is not None and known


def _param(value: str, words: frozenset[str], literals: frozenset[str]) -> str | None:
    if value in literals or value in words or value in {"True", "False", "None", ""}:
        return value
    number = _number(value)
    return None if number is None else f"{number:.6g}"


def _points(text: str) -> list[tuple[int, float]]:
    """Value by step, in the order of the steps; lines are time, value and step."""
    found = {}
    for line in text.splitlines():
        fields = line.split(" ")
        value = _number(fields[1]) if len(fields) > 1 else None
        step = fields[2] if len(fields) > 2 else "0"
        if value is not None and step.isdecimal() and len(step) <= 7:
            found[int(step)] = value
    return sorted(found.items())


def _thinned(points: list[tuple[int, float]], count: int) -> list[tuple[int, float]]:
    """At most so many of the points, evenly, with the last among them; their steps are counted anew."""
    if len(points) <= count:
        return points if all(step <= len(points) for step, _ in points) else list(enumerate(v for _, v in points))
    chosen = [points[(i + 1) * len(points) // count - 1] for i in range(count)]
    return list(enumerate(value for _, value in chosen))


def _number(text: str) -> float | None:
    try:
        value = float(text)
    except ValueError:
        return None
    return float(f"{value:.6g}") if math.isfinite(value) else None


def _folders(folder: str) -> list[str]:
    try:
        with os.scandir(folder) as entries:
            return sorted(entry.path for entry in entries if entry.is_dir(follow_symlinks=False))
    except OSError:
        return []


def _entries(folder: str, prefix: str = "", depth: int = 0) -> Iterator[tuple[str, str]]:
    """Names and texts of the files of a folder; names may hold slashes."""
    try:
        with os.scandir(folder) as found:
            entries = sorted(found, key=lambda entry: entry.name)
    except OSError:
        return
    for entry in entries[: 4 * NAMES]:
        if entry.is_dir(follow_symlinks=False):
            if depth < 3:
                yield from _entries(entry.path, f"{prefix}{entry.name}/", depth + 1)
        elif (text := _text(entry.path)) is not None:
            yield prefix + entry.name, text


def _text(path: str) -> str | None:
    """A regular file's text; not that of a link, a pipe or a device."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return None
    with open(descriptor, "rb") as stream:
        return stream.read(_BYTES).decode("utf-8", "replace") if stat.S_ISREG(os.fstat(descriptor).st_mode) else None


def _write(folder: str, content: Mapping[str, Any]) -> None:
    import json

    with open(os.path.join(folder, "meta.yaml"), "w", encoding="utf-8") as stream:
        json.dump(content, stream)  # JSON is YAML
