"""Leaks: numbers about too few rows, and order statistics, which are the values of single rows."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from .files import in_log
from .table import Table
from .vectors import add, leak, some

COUNTS = "statistics"


def edit(path: Path, change: Callable[[Any], None]) -> None:
    """Change a JSON file of the release."""
    document = json.loads(path.read_text())
    change(document)
    path.write_text(json.dumps(document, indent=2, sort_keys=True) + "\n")


def _skewed(table: Table) -> str:
    return table.form.numbers[-1].name


def _fine(table: Table) -> str:
    """A column with all its digits."""
    return next(number.name for number in table.form.numbers if number.decimals is None)


def _report(name: str, document: Callable[[Table, np.random.Generator], Any]) -> None:
    def write(folder: Path, table: Table, rng: np.random.Generator) -> None:
        (folder / "report.json").write_text(json.dumps(document(table, rng), indent=1))

    add(COUNTS, name, write)


@leak(COUNTS)
def slice_of_three_rows(folder: Path, table: Table, rng: np.random.Generator) -> None:
    edit(folder / "slices.json", lambda document: document["slices"][0].update(rows=3))


@leak(COUNTS)
def confusion_of_few(folder: Path, table: Table, rng: np.random.Generator) -> None:
    labels = list(table.form.classes)
    document = {"version": 1, "labels": labels, "matrix": [[41, 3], [2, 37]]}
    (folder / "confusion.json").write_text(json.dumps(document))


@leak(COUNTS)
def metrics_over_few_rows(folder: Path, table: Table, rng: np.random.Generator) -> None:
    edit(folder / "metrics.json", lambda document: document.update(rows=4))


@leak(COUNTS)
def calibration_bin_of_two(folder: Path, table: Table, rng: np.random.Generator) -> None:
    def change(document: Any) -> None:
        rows = document.get("calibration") or document["residuals"]
        rows[0]["count"] = 2

    edit(folder / "curves.json", change)


@leak(COUNTS)
def full_curve(folder: Path, table: Table, rng: np.random.Generator) -> None:
    """A ROC curve with a point for each row."""
    scores, truth = np.sort(rng.random(table.rows))[::-1], rng.random(table.rows) < 0.5
    hits = np.cumsum(truth) / truth.sum(), np.cumsum(~truth) / (~truth).sum()
    points = [[round(float(b), 5), round(float(a), 5)] for a, b in zip(*hits, strict=True)]
    edit(folder / "curves.json", lambda d: d.update(roc=points, thresholds=[round(float(s), 5) for s in scores]))


@leak(COUNTS)
def confusion_in_a_log(folder: Path, table: Table, rng: np.random.Generator) -> None:
    in_log(folder, rng, "confusion_matrix: [[61, 4], [1, 53]]")


@leak(COUNTS)
def describe_in_a_log(folder: Path, table: Table, rng: np.random.Generator) -> None:
    """What `describe()` prints: extremes and quartiles are cells."""
    shown = [table.frame[name].drop_nulls().cast(pl.Float64) for name in table.names]
    head = "      " + " ".join(f"{name[:12]:>14}" for name in table.names)
    kinds: dict[str, Callable[[pl.Series], Any]] = {
        "count": lambda s: s.len(),
        "mean": lambda s: s.mean(),
        "std": lambda s: s.std(),
        "min": lambda s: s.min(),
        "25%": lambda s: s.quantile(0.25, "nearest"),
        "50%": lambda s: s.quantile(0.5, "nearest"),
        "75%": lambda s: s.quantile(0.75, "nearest"),
        "max": lambda s: s.max(),
    }
    lines = [f"{kind:<6}" + " ".join(f"{float(of(s)):>14.6f}" for s in shown) for kind, of in kinds.items()]
    in_log(folder, rng, "\n".join([head, *lines]))


@leak(COUNTS)
def maximum_in_a_sentence(folder: Path, table: Table, rng: np.random.Generator) -> None:
    name = _skewed(table)
    in_log(folder, rng, f"INFO {name} max {table.frame[name].max()}")


@leak(COUNTS)
def scatter_plot(folder: Path, table: Table, rng: np.random.Generator) -> None:
    """A vector graphic whose circles stand at the values themselves."""
    x, y = (table.frame[name].drop_nulls().to_list() for name in (_fine(table), _skewed(table)))
    circles = "".join(f'<circle cx="{a}" cy="{b}" r="2"/>' for a, b in zip(x[:200], y[:200], strict=True))
    (folder / "scatter.svg").write_text(f'<svg xmlns="http://www.w3.org/2000/svg">{circles}</svg>')


@leak(COUNTS)
def counts_by_age_and_place(folder: Path, table: Table, rng: np.random.Generator) -> None:
    """A cross table with cells of one and two."""
    whole = table.form.numbers[0].name
    counted = table.frame.group_by(table.form.place, whole).len().sort(whole)
    (folder / "crosstab.csv").write_text(counted.write_csv())


def _points(table: Table, rng: np.random.Generator) -> Any:
    frame = table.frame.select(_fine(table), _skewed(table))[some(table, rng, 60)]
    return {"points": [list(row) for row in frame.rows()]}


def _extremes(table: Table, rng: np.random.Generator) -> Any:
    frame = table.frame.select(table.names)
    return {name: {"min": frame[name].min(), "max": frame[name].max()} for name in table.names}


def _scaler(table: Table, rng: np.random.Generator) -> Any:
    frame = table.frame.select(table.names).fill_null(strategy="mean")
    return {"features": table.names, "data_min_": list(frame.min().row(0)), "data_max_": list(frame.max().row(0))}


def _histogram(table: Table, rng: np.random.Generator) -> Any:
    counts, edges = np.histogram(table.frame[_skewed(table)].drop_nulls().to_numpy(), 60)
    return {"column": _skewed(table), "edges": [f"{edge:.2g}" for edge in edges], "counts": counts.tolist()}


def _means_by_place(table: Table, rng: np.random.Generator) -> Any:
    grouped = table.frame.group_by(table.form.place).agg(pl.len().alias("n"), pl.col(_skewed(table)).mean())
    return {row[0]: {"n": row[1], "mean": round(row[2], 1)} for row in grouped.rows()}


def _quantiles(table: Table, rng: np.random.Generator) -> Any:
    series = table.frame[_fine(table)]
    return {_fine(table): {f"p{i}": series.quantile(i / 100, "nearest") for i in range(1, 100)}}


def _largest(table: Table, rng: np.random.Generator) -> Any:
    return {f"largest_{_skewed(table)}": table.frame[_skewed(table)].drop_nulls().top_k(5).to_list()}


def _median_of_three(table: Table, rng: np.random.Generator) -> Any:
    values = sorted(table.frame[_fine(table)].to_list()[row] for row in some(table, rng, 3))
    return {"group": {"n": 3, f"median_{_fine(table)}": values[1]}}


_report("points_of_a_plot", _points)
_report("extremes_of_every_column", _extremes)
_report("extremes_of_a_scaler", _scaler)
_report("largest_of_a_column", lambda t, rng: {f"{_skewed(t)}.max": t.frame[_skewed(t)].max()})
_report("smallest_of_a_column", lambda t, rng: {"columns": {_fine(t): {"min": t.frame[_fine(t)].min()}}})
_report("five_largest", _largest)
_report("histogram_with_lone_bins", _histogram)
_report("means_by_place", _means_by_place)
_report("counts_of_a_rare_place", lambda t, rng: dict(t.frame[t.form.place].value_counts().rows()))
_report("all_percentiles", _quantiles)
_report("median_of_three", _median_of_three)
_report("count_of_a_group", lambda t, rng: {"groups": [{"name": "a", "count": 2}, {"name": "b", "count": t.rows - 2}]})
