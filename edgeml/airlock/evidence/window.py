"""Private rows recognised among numbers in any order: many cells of one row within a few numbers.

A window is WIDTH numbers. Each cell pays for the choice of its number, and the row for the choice of row and window;
only numbers that tell more than they pay are looked up, and of a long text and a large table only those that tell
most: rows in the order of the columns, or with the columns' names, are found at any size by `rows`.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from edgeml.airlock.evidence import bits
from edgeml.airlock.evidence.cells import within
from edgeml.airlock.evidence.corpus import Corpus
from edgeml.airlock.finding import Finding, Rule
from edgeml.airlock.private import Private
from edgeml.airlock.profile import Numbers

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

SCATTERED = Rule(
    "private-row-in-any-order",
    "content",
    "Cells of one private row close together, in any order",
    "A row is the same row when its cells are shuffled, or stand between words.",
    waivable=False,
)
RULES = (SCATTERED,)
WIDTH = 32
_PAID = math.log2(WIDTH) + 1
_DIGITS = 2  # one tells less than is paid
_MIXER = 0x9E3779B97F4A7C15
_PAIRS = 1e6  # cells that fit a number by chance, at most
_FINE = 64  # steps of a bit
_SAMPLE = 1 << 12  # numbers from which it is told how many can be gone through
_SLOTS = 22  # bits of a row's and window's slot, at most


class Window:
    """The examiner of rows in any order."""

    def __init__(self, corpus: Corpus, private: Private) -> None:

        self._corpus, self._private = corpus, private
        numbers = corpus.tokens.numbers
        self._at = numbers.at
        self._windows = max(1, 2 * len(numbers.at) // WIDTH + 1)
        self._cost = math.log2(max(2, private.rows)) + math.log2(max(2, self._windows))
        self.strongest = -math.inf
        self._found: dict[int, tuple[float, int, set[int]]] = {}
        self._fed = 0
        self._columns = {
            name: private.profile.numbers[name]
            for name in bits.numeric(private)
            if not private.columns[name].public and private.profile.numbers[name].levels >= 2 * WIDTH
        }
        step = max(1, len(corpus.distinct.value) // _SAMPLE)
        self._least = max(
            _PAID, self._affordable([self._told(column, step) for column in self._columns.values()], step)
        )
        self._names = [name for name, column in self._columns.items() if bits.most(column) >= self._least]
        self._pairs: list[tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64], NDArray[np.float64]]] = []

    def least(self, name: str) -> float:
        """Of how many rows no more than one may fit a number by chance for the number to tell anything."""
        return float(2.0**self._least) if name in self._names and len(self._names) >= 4 else math.inf

    def _told(self, column: Numbers, step: int = 1) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        """The different numbers, or every so many of them, that tell more than they pay, and their evidence."""
        import numpy as np

        numbers = self._corpus.distinct
        value, half, digits = numbers.value[::step], numbers.half[::step], numbers.digits[::step]
        which = np.flatnonzero(within(column, value, half) & (digits >= _DIGITS))
        told = bits.evidence(column, value[which], half[which], digits[which])
        good = told > _PAID
        return which[good] * step, told[good]

    def _affordable(self, parts: list[tuple[NDArray[np.int64], NDArray[np.float64]]], step: int) -> float:
        """The bits from which on the numbers fit no more cells by chance than can be gone through."""
        import numpy as np

        expected = np.zeros(_FINE * 64)
        many = np.diff(self._corpus.distinct.begins) * (self._private.rows * step)
        for which, told in parts:
            steps = np.minimum((told * _FINE).astype(np.int64), len(expected) - 1)
            expected += np.bincount(steps, many[which] * 2.0**-told, minlength=len(expected))
        above = np.cumsum(expected[::-1])[::-1]
        return int(np.count_nonzero(above > _PAIRS)) / _FINE

    def take(self, name: str, rows: NDArray[np.int64], which: NDArray[np.int64]) -> None:
        """Keep what a batch's cells of a column fit: rows and different numbers."""
        import numpy as np

        if name not in self._names:
            return
        numbers, index = self._corpus.distinct, self._names.index(name)
        some = np.flatnonzero(numbers.digits[which] >= _DIGITS)
        rows, which = rows[some], which[some]
        told = bits.evidence(self._columns[name], numbers.value[which], numbers.half[which], numbers.digits[which])
        some = np.flatnonzero((told > _PAID) & (told >= self._least))
        number, pair = numbers.numbers(which[some])
        row, net, window = (
            rows[some][pair],
            told[some][pair] - math.log2(WIDTH),
            number.astype(np.int64) // (WIDTH // 2),
        )
        column = np.full(len(row), index)
        for one in (window, window - 1):  # windows overlap by half
            self._pairs.append((row, one, column, net))

    def close(self, rows: int) -> None:
        """Score what was kept of a batch of so many rows."""
        import numpy as np

        if self._pairs:
            self._score(*map(np.concatenate, zip(*self._pairs, strict=True)))
            self._pairs.clear()
        self._fed += rows

    def _score(
        self, rows: NDArray[np.int64], windows: NDArray[np.int64], columns: NDArray[np.int64], net: NDArray[np.float64]
    ) -> None:
        """Each column's best number for every row and window, summed."""
        import numpy as np

        place = rows * (self._windows + 1) + windows + 1
        slots = min(_SLOTS, max(10, (4 * len(place)).bit_length()))
        slot = ((place.view(np.uint64) * np.uint64(_MIXER)) >> np.uint64(64 - slots)).view(np.int64)
        several = np.flatnonzero((np.bincount(slot, minlength=1 << slots) >= 4).take(slot))  # of most there are fewer
        place, columns, net = place[several], columns[several], net[several]
        order = np.lexsort((-net, columns, place))
        place, columns, net = place[order], columns[order], net[order]
        best = np.append(True, (place[1:] != place[:-1]) | (columns[1:] != columns[:-1]))[: len(place)]
        place, net = place[best], net[best]
        begins = np.flatnonzero(np.append(True, place[1:] != place[:-1])[: len(place)])
        if not len(begins):
            return
        score = np.add.reduceat(net, begins) - self._cost
        cells = np.diff(np.append(begins, len(place)))
        self.strongest = max(self.strongest, float(score[cells >= 4].max(initial=-math.inf)))
        for index in np.flatnonzero((score >= bits.WINDOW) & (cells >= 4)).tolist():
            row, window = divmod(int(place[begins[index]]), self._windows + 1)
            sure, known = float(score[index]), self._found.get(window - 1)
            if known is None or sure > known[0] + 1e-6:
                self._found[window - 1] = (sure, int(cells[index]), {self._fed + row})
            elif sure >= known[0] - 1e-6 and len(known[2]) < self._private.contract.k:
                known[2].add(self._fed + row)

    def findings(self) -> list[Finding]:
        """One finding for each file, with the strongest row's place and evidence."""
        k = self._private.contract.k
        best: dict[str, Finding] = {}
        seen: dict[str, set[int]] = {}
        for window, (score, cells, alike) in sorted(self._found.items()):
            if len(alike) >= k:
                continue
            middle = min((window + 1) * (WIDTH // 2), len(self._at) - 1)
            file, place = self._corpus.where(int(self._at[middle]))
            seen.setdefault(file, set()).update(alike)
            if file not in best or score > best[file].bits:
                message = "numbers stand here that are the cells of one private row, in another order"
                fix = "leave the row out; a statistic over k rows or more may leave"
                best[file] = Finding(SCATTERED.id, file, place, message, fix, cells=cells, bits=round(score, 1))
        return [finding._replace(rows=len(seen[file])) for file, finding in best.items()]
