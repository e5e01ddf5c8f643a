"""Metrics, their bootstrap, and aggregates that keep small groups hidden: pure functions over numpy arrays.

A metric is a function of weights (B, N): row b holds how often each of the N rows was drawn in resample
b, so that one pass over the sorted scores gives the metric in all resamples at once.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

Measure = Callable[[np.ndarray], dict[str, np.ndarray]]
Estimate = dict[str, float]

CELLS = 4_000_000  # weights held at once: 32 MB
SMALLEST_PROBABILITY = 1e-7  # float32 has none between this and 1
LOWER_IS_BETTER = frozenset({"brier", "log_loss", "rmse", "mae"})
PRIMARY = {"classification": "roc_auc", "regression": "r2"}


# --- metrics --------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Scored:
    """Predictions of a classifier beside the truth, N rows each."""

    positive: np.ndarray  # bool: the row is of the positive class
    score: np.ndarray  # predicted probability of the positive class
    predicted: np.ndarray  # bool: the label is the positive class
    correct: np.ndarray  # bool: the label is right
    truth: np.ndarray  # predicted probability of the true class

    def __len__(self) -> int:
        return len(self.score)

    def take(self, rows: np.ndarray) -> Scored:
        return Scored(*(getattr(self, name)[rows] for name in self.__dataclass_fields__))

    @property
    def smaller_class(self) -> int:
        return int(min(self.positive.sum(), (~self.positive).sum()))


@dataclass(frozen=True)
class Valued:
    """Predictions of a regression beside the truth, N rows each."""

    actual: np.ndarray
    predicted: np.ndarray

    def __len__(self) -> int:
        return len(self.actual)

    def take(self, rows: np.ndarray) -> Valued:
        return Valued(self.actual[rows], self.predicted[rows])


def measure(rows: Scored | Valued) -> Measure:
    """All metrics of a model on these rows, as a function of weights."""
    return _classification(rows) if isinstance(rows, Scored) else _regression(rows)


def _classification(rows: Scored) -> Measure:
    """Positive class against the rest; accuracy and log loss over all classes. NaN where a class is absent."""
    order = np.argsort(rows.score, kind="stable")
    ties = np.flatnonzero(np.diff(rows.score[order], prepend=-np.inf))
    positive = rows.positive[order]
    losses = np.column_stack(
        [
            rows.correct,
            (rows.score - rows.positive) ** 2,
            -np.log(np.clip(rows.truth, SMALLEST_PROBABILITY, 1)),
            rows.predicted & rows.positive,
            rows.predicted.astype(float) + rows.positive,
        ]
    ).astype(float)

    def metrics(weights: np.ndarray) -> dict[str, np.ndarray]:
        ranked = weights[:, order]
        positives = np.add.reduceat(ranked * positive, ties, axis=1)  # per distinct score, ascending
        negatives = np.add.reduceat(ranked * ~positive, ties, axis=1)
        below = np.cumsum(negatives, axis=1) - negatives / 2  # a tie counts one half
        total = positives.sum(axis=1)
        found = np.cumsum(positives[:, ::-1], axis=1)
        chosen = found + np.cumsum(negatives[:, ::-1], axis=1)
        accuracy, brier, log_loss, hits, marked = (weights @ losses / weights.sum(axis=1, keepdims=True)).T
        with np.errstate(divide="ignore", invalid="ignore"):
            precision = np.where(chosen > 0, found / chosen, 0)
            return {
                "roc_auc": (positives * below).sum(axis=1) / (total * negatives.sum(axis=1)),
                "average_precision": (positives[:, ::-1] * precision).sum(axis=1) / total,
                "accuracy": accuracy,
                "f1": np.where(marked > 0, 2 * hits / marked, 0),
                "brier": brier,
                "log_loss": log_loss,
            }

    return metrics


def _regression(rows: Valued) -> Measure:
    error = rows.actual - rows.predicted
    # Centred first: the variance of large values would otherwise be lost in their squares.
    centred = rows.actual - rows.actual.mean()
    columns = np.column_stack([error**2, np.abs(error), centred, centred**2])

    def metrics(weights: np.ndarray) -> dict[str, np.ndarray]:
        squared, absolute, mean, square = (weights @ columns / weights.sum(axis=1, keepdims=True)).T
        with np.errstate(divide="ignore", invalid="ignore"):
            return {"r2": 1 - squared / (square - mean**2), "rmse": np.sqrt(squared), "mae": absolute}

    return metrics


# --- bootstrap ------------------------------------------------------------------------------------


def resamples(rows: int, samples: int, seed: int) -> Iterator[np.ndarray]:
    """Blocks of weights (b, rows) of `samples` resamples with replacement; the same for the same arguments."""
    generator = np.random.default_rng(seed)
    block = max(1, CELLS // max(rows, 1))
    for start in range(0, samples, block):
        size = min(block, samples - start)
        drawn = generator.integers(rows, size=(size, rows)) + np.arange(size)[:, None] * rows
        yield np.bincount(drawn.ravel(), minlength=size * rows).reshape(size, rows).astype(float)


def draws(measures: list[Measure], rows: int, samples: int, seed: int) -> list[dict[str, np.ndarray]]:
    """Each measure's metrics in the same resamples, which is what makes a comparison paired."""
    blocks = [[one(weights) for one in measures] for weights in resamples(rows, samples, seed)]
    return [
        {name: np.concatenate([block[index][name] for block in blocks]) for name in blocks[0][index]}
        for index in range(len(measures))
    ]


def point(one: Measure, rows: int) -> dict[str, float]:
    """The metrics on the rows as they are."""
    return {name: float(values[0]) for name, values in one(np.ones((1, rows))).items()}


def interval(values: np.ndarray, confidence: float) -> tuple[float, float]:
    """The percentile interval; NaN if more than one resample in twenty has no value."""
    if np.isnan(values).mean() > 0.05:
        return math.nan, math.nan
    low, high = np.nanquantile(values, [(1 - confidence) / 2, (1 + confidence) / 2])
    return float(low), float(high)


def estimates(rows: Scored | Valued, drawn: dict[str, np.ndarray], confidence: float) -> dict[str, Estimate]:
    """Value and interval of every metric that these rows support.

    Resampling rows without a mistake never shows one, so a perfect score would seem certain. It gets
    the low end that no mistake in n rows permits: 1 - ln(2 / (1 - confidence)) / n, the "rule of
    three" (Hanley and Lippman-Hand, JAMA 249, 1983) at this confidence; n is the rows of the smaller
    class where both are needed.
    """
    found = {}
    for name, value in point(measure(rows), len(rows)).items():
        low, high = interval(drawn[name], confidence)
        if isinstance(rows, Scored) and value == low == 1 and name not in LOWER_IS_BETTER:
            n = len(rows) if name == "accuracy" else rows.smaller_class
            low = max(0.0, 1 + math.log((1 - confidence) / 2) / n)
        if all(map(math.isfinite, (value, low, high))):
            found[name] = {"value": value, "low": low, "high": high}
    return found


# --- aggregates -----------------------------------------------------------------------------------


def curves(rows: Scored, k: int, points: int = 51) -> dict[str, list[list[float]]]:
    """ROC and precision-recall on a fixed grid, so that no point is one person's score.

    A precision is of k rows at the least: further left the curve keeps its value there. Empty where
    a class has fewer than k rows.
    """
    if rows.smaller_class < k:
        return {"roc": [], "pr": []}
    order = np.argsort(-rows.score, kind="stable")
    ends = np.flatnonzero(np.diff(rows.score[order], append=np.inf))  # last row of every tie
    found = np.cumsum(rows.positive[order])[ends]
    false = np.cumsum(~rows.positive[order])[ends]
    recall, fallout = found / found[-1], false / false[-1]
    # The highest point above each false positive rate, then straight lines between those.
    corner = np.flatnonzero(np.diff(fallout, append=np.inf))
    grid = np.linspace(0, 1, points - 1)
    roc = [[0.0, 0.0], *np.column_stack([grid, np.interp(grid, fallout[corner], recall[corner])]).tolist()]
    grid = np.linspace(0, 1, points)
    reached = np.maximum(np.searchsorted(recall, grid - 1e-12), np.searchsorted(found + false, k))
    precision = found[reached] / (found + false)[reached]
    return {"roc": roc, "pr": np.column_stack([grid, precision]).tolist()}


def calibration(rows: Scored, k: int) -> list[dict[str, float]]:
    """Predicted probability against what was found, in up to ten groups of equal size, 2k rows or more."""
    groups = min(10, len(rows) // (2 * k))
    parts = np.array_split(np.argsort(rows.score, kind="stable"), groups) if groups else []
    return [
        {
            "mean_predicted": float(rows.score[part].mean()),
            "fraction_positive": float(rows.positive[part].mean()),
            "count": len(part),
        }
        for part in parts
    ]


def residuals(rows: Valued, k: int) -> list[dict[str, float]]:
    """Histogram of actual minus predicted in half root mean squared errors; thin bins join their neighbour."""
    error = rows.actual - rows.predicted
    unit = float(np.sqrt((error**2).mean())) / 2
    return _histogram(error, np.arange(-8, 9) * unit, k) if unit else []


def distribution(rows: Scored | Valued, k: int) -> list[dict[str, float]]:
    """How many rows get which prediction, which a site's predictions are held against; thin bins join their neighbour.

    Probabilities in tenths, values in half standard deviations; the outermost bins hold what lies beyond them, too.
    """
    if isinstance(rows, Scored):
        return _histogram(rows.score, np.arange(11) / 10, k)
    middle, unit = float(rows.predicted.mean()), float(rows.predicted.std()) / 2
    return _histogram(rows.predicted, middle + np.arange(-4, 5) * unit, k) if unit else []


def _histogram(values: np.ndarray, edges: np.ndarray, k: int) -> list[dict[str, float]]:
    """Counts between edges, each of k rows or more; empty where there are fewer rows than that."""
    if len(values) < k:
        return []
    cells = np.searchsorted(edges[1:-1], values, side="right")
    bins: list[dict[str, float]] = []
    for cell, (low, high) in enumerate(itertools.pairwise(map(float, edges))):
        count = int((cells == cell).sum())
        if bins and bins[-1]["count"] < k:
            bins[-1] = {"low": bins[-1]["low"], "high": high, "count": bins[-1]["count"] + count}
        else:
            bins.append({"low": low, "high": high, "count": count})
    if len(bins) > 1 and bins[-1]["count"] < k:
        last = bins.pop()
        bins[-1] = {"low": bins[-1]["low"], "high": last["high"], "count": bins[-1]["count"] + last["count"]}
    return bins


def suppress(counts: np.ndarray, k: int) -> np.ndarray:
    """Which cells of a table (R, C) to hide: those of 1 to k-1 rows, and what would give them away.

    The sums of rows and columns count as known (the other files tell them), so in a row or column with
    a hidden cell another is hidden too, the smallest that suffices, until two or more are hidden and
    they hold k rows or more together.
    """
    hidden = (counts > 0) & (counts < k)
    lines: list[Any] = [(index, slice(None)) for index in range(counts.shape[0])] if counts.shape[1] > 1 else []
    lines += [(slice(None), index) for index in range(counts.shape[1])] if counts.shape[0] > 1 else []
    changed = True
    while changed:
        changed = False
        for line in lines:
            covered = hidden[line].copy()
            exposed = covered.any() and (covered.sum() < 2 or counts[line][covered].sum() < k)
            if exposed and not covered.all():
                others = np.flatnonzero(~covered)
                enough = others[counts[line][others] >= k - counts[line][covered].sum()]
                covered[min(enough if enough.size else others, key=lambda cell: counts[line][cell])] = True
                hidden[line] = covered
                changed = True
    return hidden


def confusion(truth: np.ndarray, predicted: np.ndarray, labels: list[str], k: int) -> list[list[int | None]]:
    """Counts by true class (rows) and predicted class (columns); None where `suppress` hides one."""
    counts = np.array([[((truth == row) & (predicted == column)).sum() for column in labels] for row in labels])
    hidden = suppress(counts, k)
    return [
        [None if hide else int(count) for count, hide in zip(*line, strict=True)]
        for line in zip(counts, hidden, strict=True)
    ]


def spread(values: list[float]) -> dict[str, Any]:
    """Mean and standard deviation of repeats."""
    return {"mean": float(np.mean(values)), "std": float(np.std(values))}
