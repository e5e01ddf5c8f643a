"""Private rows recognised among numbers that stand close together, in whatever order.

A number that few rows hold is an anchor; the rows that hold it are then compared with all numbers around it. That
finds rows whose columns were sorted, picked or shuffled, which `rows` does not, as long as one cell was printed well.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from edgeml.airlock import bits
from edgeml.airlock.corpus import Corpus
from edgeml.airlock.finding import CONTENT, Finding, Rule
from edgeml.airlock.join import ranges
from edgeml.airlock.private import Private
from edgeml.airlock.profile import as_numbers
from edgeml.airlock.streams import streams

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

CLOSE = Rule(
    "private-cells-together",
    CONTENT,
    "The cells of one private row, in any order",
    "Numbers that stand close together and fit the cells of one row better than chance would, are that row.",
    waivable=False,
)
RULES = (CLOSE,)
_FEWEST = 4  # cells of a row
_ANCHOR = 8.0  # bits at the least
_HITS = 1 << 18  # pairs of a row and an anchor that are compared per batch: those of the rarest anchors
_CHUNK = 1 << 12


class Window:
    """The examiner of numbers that stand close together."""

    def __init__(self, corpus: Corpus, private: Private) -> None:
        import numpy as np

        self._corpus, self._private = corpus, private
        self._names = [name for name in bits.numeric(private) if not private.columns[name].public]
        self._columns = [private.profile.numbers[name] for name in self._names]
        self._anchors: list[NDArray[np.int64]] = []
        self._found: dict[int, tuple[float, int, int]] = {}
        self.strongest = -math.inf
        if len(self._names) < _FEWEST or not len(corpus.tokens.numbers.at):
            return
        self._stream = stream = streams(corpus, bits.numeric(private))
        self._group = np.cumsum(stream.at < 0)
        self._reach = 2 * len(self._names)
        self._places = math.log2(max(2, private.rows)) + math.log2(max(2, len(stream.value)))
        least = max(_ANCHOR, math.log2(max(2, private.rows)) - 2)
        for column in self._columns:
            inside = np.flatnonzero((stream.value >= column.low) & (stream.value <= column.high))
            told = bits.evidence(column, stream.value[inside], stream.half[inside], stream.digits[inside])
            self._anchors.append(inside[told >= least])

    def feed(self, batch: Any) -> None:
        """Compare a batch of rows with what stands around the anchors."""
        import numpy as np

        if not any(len(anchors) for anchors in self._anchors):
            return
        cells = [as_numbers(batch[name]) for name in self._names]
        pairs, many = [], []
        for anchors, values in zip(self._anchors, cells, strict=True):
            if not len(anchors):
                continue
            order = np.argsort(values)
            ordered, value, half = values[order], self._stream.value[anchors], self._stream.half[anchors]
            begin = np.searchsorted(ordered, value - half, "left")
            hits = np.searchsorted(ordered, value + half, "right") - begin
            rows = order[np.repeat(begin, hits) + ranges(hits)]
            pairs.append(np.stack([rows, np.repeat(anchors, hits)]))
            many.append(np.repeat(hits, hits))
        found = np.concatenate(pairs, axis=1)
        if found.shape[1] > _HITS:
            found = found[:, np.argsort(np.concatenate(many), kind="stable")[:_HITS]]
        for start in range(0, found.shape[1], _CHUNK):
            self._score(cells, *found[:, start : start + _CHUNK])

    def findings(self) -> list[Finding]:
        """One finding for each file, with the strongest row's place and evidence."""
        best: dict[str, Finding] = {}
        for at, (score, cells, alike) in sorted(self._found.items()):
            if alike >= self._private.contract.k:
                continue
            file, place = self._corpus.where(at)
            message = "numbers stand close together here that are the cells of one private row"
            fix = "leave the rows out; a statistic over k rows or more may leave"
            if file not in best or score > best[file].bits:
                best[file] = Finding(CLOSE.id, file, place, message, fix, rows=1, cells=cells, bits=round(score, 1))
        return list(best.values())

    def _score(self, cells: list[NDArray[np.float64]], rows: NDArray[np.int64], anchors: NDArray[np.int64]) -> None:
        """The evidence that the numbers around each anchor are its row's cells, each told once.

        Any of the numbers in a column's range could have fitted its cell, so a cell tells less by as many.
        """
        import numpy as np

        stream, last = self._stream, len(self._stream.value) - 1
        around = anchors[:, None] + np.arange(-self._reach, self._reach + 1)
        inside = (around >= 0) & (around <= last)
        around = np.clip(around, 0, last)
        inside &= (self._group[around] == self._group[anchors][:, None]) & (stream.at[around] >= 0)
        value, half = stream.value[around], stream.half[around]
        total, count = np.zeros(len(rows)), np.zeros(len(rows), dtype=np.int64)
        for index, column in enumerate(self._columns):
            could = inside & (value + half >= column.low) & (value - half <= column.high)
            which, place = np.nonzero(could & (np.abs(value - cells[index][rows][:, None]) <= half))
            token = around[which, place]
            told = np.zeros(len(rows))
            found = bits.evidence(column, stream.value[token], stream.half[token], stream.digits[token])
            np.maximum.at(told, which, found - np.log2(np.count_nonzero(could, axis=1))[which])
            total += told
            count += told > 0
        score = total - self._places
        enough = count >= _FEWEST
        self.strongest = max(self.strongest, float(score[enough].max(initial=-math.inf)))
        for index in np.flatnonzero(enough & (score >= bits.WINDOW)).tolist():
            at = int(stream.at[anchors[index]])
            known = self._found.get(at)
            if known is None or score[index] > known[0] + 1e-6:
                self._found[at] = (float(score[index]), int(count[index]), 1)
            elif abs(score[index] - known[0]) <= 1e-6:
                self._found[at] = (known[0], known[1], known[2] + 1)
