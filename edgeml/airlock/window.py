"""Private rows recognised among numbers in any order: many cells of one row within a few numbers.

A window is WIDTH numbers. Each cell pays for the choice of its number, and the row for the choice of row and window;
only numbers that tell more than they pay are looked up, and of a long text and a large table only those that tell
most: rows in the order of the columns, or with the columns' names, are found at any size by `rows`.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from edgeml.airlock import bits
from edgeml.airlock.cells import Lookup
from edgeml.airlock.corpus import Corpus
from edgeml.airlock.finding import Finding, Rule
from edgeml.airlock.private import Private

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
_PAIRS = 5e6  # cells that fit a number by chance, at most


class Window:
    """The examiner of rows in any order."""

    def __init__(self, corpus: Corpus, private: Private) -> None:
        import numpy as np

        self._corpus, self._private = corpus, private
        numbers = corpus.tokens.numbers
        self._at = numbers.at
        self._windows = max(1, 2 * len(numbers.at) // WIDTH + 1)
        self._cost = math.log2(max(2, private.rows)) + math.log2(max(2, self._windows))
        self.strongest = -math.inf
        self._found: dict[int, tuple[float, int, set[int]]] = {}
        self._fed = 0
        by_value = np.argsort(numbers.value)
        value, half, digits = numbers.value[by_value], numbers.half[by_value], numbers.digits[by_value]
        paid = math.log2(WIDTH) + 1
        chosen: dict[str, tuple[NDArray[np.int64], NDArray[np.float64]]] = {}
        for name in bits.numeric(private):
            column = private.profile.numbers[name]
            if private.columns[name].public or column.levels < 2 * WIDTH:
                continue
            ends = np.searchsorted(value, [column.low - column.lattice, column.high + column.lattice])
            inside = np.arange(*np.clip(ends + np.array([-1, 1]), 0, len(value)))
            inside = inside[~np.isnan(value[inside])]
            told = bits.evidence(column, value[inside], half[inside], digits[inside])
            chosen[name] = (inside[told > paid], told[told > paid])
        least = self._affordable([told for _, told in chosen.values()])
        self._numbers: dict[str, NDArray[np.int64]] = {}
        self._net: dict[str, NDArray[np.float64]] = {}
        asked = {}
        for name, (inside, told) in chosen.items():
            inside, told = inside[told >= least], told[told >= least]
            self._numbers[name], self._net[name] = by_value[inside], told - math.log2(WIDTH)
            asked[name] = (value[inside], half[inside])
        self._lookup = Lookup(private, asked)

    def _affordable(self, parts: list[NDArray[np.float64]]) -> float:
        """The bits from which on the numbers fit no more cells by chance than can be gone through."""
        import numpy as np

        told = np.sort(np.concatenate([*parts, np.zeros(0)]))[::-1]
        expected = np.cumsum(2.0**-told) * self._private.rows
        within = int(np.searchsorted(expected, _PAIRS, "right"))
        return float(told[within]) + 1e-9 if within < len(told) else 0.0

    def feed(self, batch: Any) -> None:
        import numpy as np

        if len(self._lookup.names) < 4:
            return
        rows, windows, columns, net = [], [], [], []
        for index, name in enumerate(self._lookup.names):
            for row, number in self._lookup.pairs(batch, name):
                window = self._numbers[name][number] // (WIDTH // 2)
                for one in (window, window - 1):  # windows overlap by half
                    rows.append(row)
                    windows.append(one)
                    columns.append(np.full(len(row), index))
                    net.append(self._net[name][number])
        if rows:
            self._score(np.concatenate(rows), np.concatenate(windows), np.concatenate(columns), np.concatenate(net))
        self._fed += batch.num_rows

    def _score(
        self, rows: NDArray[np.int64], windows: NDArray[np.int64], columns: NDArray[np.int64], net: NDArray[np.float64]
    ) -> None:
        """Each column's best number for every row and window, summed."""
        import numpy as np

        place = rows * (self._windows + 1) + windows + 1
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
