"""How often the model gives which prediction, told so that nobody can be read from it, beside what was released of it.

The release says how many test rows got a prediction of each bin (`distribution` of curves.json). Served rows are
counted by the same bins, in memory alone, until a window of `ROWS` is full; only then is it told, as a whole. So the
difference of two scrapes is never the prediction of one patient. A bin of 1 to k-1 rows is told as one with its
neighbour, by the k of the egress gate.
"""

from __future__ import annotations

import itertools
import math
import threading
from bisect import bisect_right
from typing import Any, NamedTuple

import numpy as np

from edgeml.serving.settings import Unusable

ROWS = 200
GOLDEN = "edgeml-golden"  # id of a request that is asked to see whether the server is well, and is of no patient
_MOST = 100  # bins


class Bin(NamedTuple):
    """Rows whose prediction is `low` or more and below `high`; the outermost bins hold what lies beyond, too."""

    low: float
    high: float
    rows: int


class Window:
    """The predictions of one model. Without bins nothing is counted."""

    def __init__(self, expected: list[Bin], k: int) -> None:
        self.expected = expected
        self.told: list[Bin] = []  # of the newest full window
        self.full = 0  # windows so far
        self._k = k
        self._edges = [each.high for each in expected[:-1]]
        self._counts = [0] * len(expected)
        self._rows = 0
        self._lock = threading.Lock()  # requests that take long are worked on by threads

    def count(self, predictions: np.ndarray) -> None:
        """Add the predictions of an answer. What is no number belongs to no bin."""
        if not self.expected:
            return
        if predictions.size == 1:  # as most requests are; a fourth of what the arrays below take
            value = predictions.item()
            if not math.isnan(value):
                with self._lock:
                    self._counts[bisect_right(self._edges, value)] += 1
                    self._grown(1)
            return
        cells = np.searchsorted(self._edges, predictions[~np.isnan(predictions)], side="right")
        with self._lock:
            while len(cells):
                part = cells[: ROWS - self._rows]
                cells = cells[len(part) :]
                more = np.bincount(part, minlength=len(self.expected)).tolist()
                self._counts = [rows + new for rows, new in zip(self._counts, more, strict=True)]
                self._grown(len(part))

    def _grown(self, rows: int) -> None:
        self._rows += rows
        if self._rows == ROWS:
            self.told = _joined(self.expected, self._counts, self._k)
            self.full += 1
            self._counts, self._rows = [0] * len(self.expected), 0


def of(curves: Any, lineage: Any) -> Window:
    """The window of a release's `curves.json` and `lineage.json`, each None where there is none. Raises Unusable."""
    try:
        found = (curves or {}).get("distribution") or []
        bins = [Bin(float(each["low"]), float(each["high"]), int(each["count"])) for each in found]
        k = int(((lineage or {}).get("egress") or {}).get("k", 0)) if bins else 0
    except (KeyError, TypeError, ValueError, AttributeError):
        raise Unusable("curves.json or lineage.json is not of the known form; take both from the release") from None
    whole = all(each.low < each.high and each.rows >= 0 for each in bins) and len(bins) <= _MOST
    if not whole or any(left.high != right.low for left, right in itertools.pairwise(bins)):
        raise Unusable("curves.json has a distribution whose bins do not follow each other; take it from the release")
    # Without the gate's k nobody knows what may be told, and one bin says nothing.
    return Window(bins if k > 0 and len(bins) > 1 else [], k)


def _joined(bins: list[Bin], counts: list[int], k: int) -> list[Bin]:
    """Bins with these counts, each none or k at the least."""
    told: list[Bin] = []
    for each, rows in zip(bins, counts, strict=True):
        if told and 0 < told[-1].rows < k:
            told[-1] = Bin(told[-1].low, each.high, told[-1].rows + rows)
        else:
            told.append(Bin(each.low, each.high, rows))
    while len(told) > 1 and 0 < told[-1].rows < k:
        last = told.pop()
        told[-1] = Bin(told[-1].low, last.high, told[-1].rows + last.rows)
    return told
