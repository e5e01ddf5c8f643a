"""Whether a model is asked about others than it was tested on: its predictions at a site against those in its release.

Rows stay where they are, so only what the scoring server tells is compared: counts of a full window, none below the
egress gate's k, against the counts that the gate released. What drifts without changing predictions is not seen.

The measure is the population stability index over the window's bins. Two limits must be passed: 0.25, above which
practice speaks of a significant change, and what chance alone exceeds once in a hundred windows of this size, because
for equal populations PSI / (1/n + 1/m) has the chi-square distribution of one degree of freedom less than bins
(B. Yurdakul, J. Naranjo: Statistical properties of the population stability index, Journal of Risk Model Validation 14,
2020, which states the limit of practice, too).
"""

from __future__ import annotations

import math
import re
from statistics import NormalDist
from typing import NamedTuple

NONE, DRIFTED, UNKNOWN = "none", "drifted", "unknown"
LIMIT = 0.25
CHANCE = 0.01
_SAMPLE = re.compile(r'edgeml_predictions(_expected)?\{low="([0-9.e+-]{1,32})",high="([0-9.e+-]{1,32})"\} ([0-9]{1,9})')
_MOST = 100  # bins


class Bin(NamedTuple):
    """Rows whose prediction lies between two edges."""

    low: float
    high: float
    rows: int


class Drift(NamedTuple):
    """What is known of a site: one of the three states, why where nothing is, else the index and its limit.

    `bins` are pairs of what was released and what was seen.
    """

    state: str
    reason: str = ""
    psi: float = 0.0
    limit: float = LIMIT
    bins: tuple[tuple[Bin, Bin], ...] = ()


def measured(metrics: str) -> Drift:
    """The drift that a scoring server's metrics tell of."""
    expected, seen = _bins(metrics, "_expected"), _bins(metrics, None)
    if not expected:
        return Drift(UNKNOWN, "its metrics tell nothing of predictions")
    if not seen:
        return Drift(UNKNOWN, "too few requests: no window is full since the server started")
    pairs = [(_between(expected, each.low, each.high), each) for each in seen]
    whole = sum(then.rows for then, _ in pairs) == sum(each.rows for each in expected)
    if not whole or min(sum(each.rows for each in side) for side in zip(*pairs, strict=True)) <= 0:
        return Drift(UNKNOWN, "its metrics are of two different models; look at the server")
    released, served = ([each.rows for each in side] for side in zip(*pairs, strict=True))
    psi = stability(released, served)
    limit = max(LIMIT, by_chance(len(pairs), sum(released), sum(served)))
    return Drift(DRIFTED if psi > limit else NONE, "", psi, limit, tuple(pairs))


def stability(one: list[int], other: list[int]) -> float:
    """The population stability index of two counts over the same bins; half a row is added to each, for empty ones."""
    first, second = ([(rows + 0.5) / (sum(side) + len(side) / 2) for rows in side] for side in (one, other))
    return sum((p - q) * math.log(p / q) for p, q in zip(first, second, strict=True))


def by_chance(bins: int, one: int, other: int) -> float:
    """The index that two samples of one population exceed with the probability CHANCE.

    The chi-square quantile is Wilson and Hilferty's, within 3% from two bins on.
    """
    freedom = max(1, bins - 1)
    part = 2 / (9 * freedom)
    quantile = freedom * (1 - part + NormalDist().inv_cdf(1 - CHANCE) * math.sqrt(part)) ** 3
    return quantile * (1 / one + 1 / other)


def _bins(metrics: str, suffix: str | None) -> list[Bin]:
    found = [match for match in map(_SAMPLE.fullmatch, metrics.splitlines()) if match and match[1] == suffix]
    try:
        return [Bin(float(low), float(high), int(rows)) for _, low, high, rows in (m.groups() for m in found[:_MOST])]
    except ValueError:
        return []


def _between(bins: list[Bin], low: float, high: float) -> Bin:
    return Bin(low, high, sum(each.rows for each in bins if low <= each.low and each.high <= high))
