"""Single private cells: how many rows hold a number, columns that are dumped, and cells that their key names.

A number alone says little: it blocks only if its key names the column and almost no other number would fit, or if many
rare cells of one column stand in a file. Columns whose lattice is well filled (ages, lengths in centimetres) carry no
such evidence: any number in their range is someone's, and so are the thresholds of trees.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from edgeml.airlock import bits
from edgeml.airlock.corpus import Corpus
from edgeml.airlock.finding import Finding, Rule
from edgeml.airlock.join import ranges
from edgeml.airlock.private import Private
from edgeml.airlock.profile import Numbers, as_numbers
from edgeml.airlock.streams import named_columns

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

DUMP = Rule(
    "column-dump",
    "content",
    "Rare cells of one column, too many for chance",
    "Values of one column, in whatever order, are still the private values.",
    waivable=False,
)
NAMED = Rule(
    "named-cell",
    "content",
    "A number that its key names as a cell of a column",
    "Next to the column's name one exact number is one person's value, as a maximum or a median is.",
)
RULES = (DUMP, NAMED)
_RARE = 0.2  # rows that would fit a number by chance, for it to count towards a dump
_NAMED = 0.01  # the same where the key names the column
_FEW = 0.5  # rows for each number of so many digits
_TIMES = 4.0
_STEPS = 1 << 16


class Lookup:
    """How many rows of each column lie within `half` of each of some numbers, counted as batches stream past."""

    def __init__(self, private: Private, asked: Mapping[str, tuple[NDArray[np.float64], NDArray[np.float64]]]) -> None:
        import numpy as np

        self._profile = private.profile.numbers
        self._order = {name: np.argsort(values, kind="stable") for name, (values, _) in asked.items() if len(values)}
        self._values = {name: asked[name][0][order] for name, order in self._order.items()}
        self._halves = {name: asked[name][1][order] for name, order in self._order.items()}
        self._counts = {name: np.zeros(len(order), dtype=np.int64) for name, order in self._order.items()}
        self._sieves = {name: self._sieve(name) for name in self._order}

    @property
    def names(self) -> list[str]:
        return list(self._values)

    def feed(self, batch: Any) -> None:
        import numpy as np

        for name in self._values:
            for _, numbers in self.pairs(batch, name):
                np.add.at(self._counts[name], numbers, 1)

    def pairs(self, batch: Any, name: str) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64]]]:
        """Row and number (as ordered by value) wherever a cell of the column fits a number."""
        import numpy as np

        values, halves = self._values[name], self._halves[name]
        cells = as_numbers(batch[name])
        with np.errstate(invalid="ignore"):
            steps = ((cells - self._profile[name].low) * self._scale(name)).astype(np.int32)
        rows = np.flatnonzero(self._sieves[name].take(steps, mode="clip") & ~np.isnan(cells))
        cells = cells[rows]
        reach = float(halves.max())
        begin = np.searchsorted(values, cells - reach, "left")
        many = np.searchsorted(values, cells + reach, "right") - begin
        for start in range(0, len(cells), 1 << 14):
            part = slice(start, start + (1 << 14))
            which = np.repeat(np.arange(start, start + len(cells[part])), many[part])
            number = np.repeat(begin[part], many[part]) + ranges(many[part])
            fits = np.abs(cells[which] - values[number]) <= halves[number]
            yield rows[which[fits]], number[fits]

    def counts(self, name: str) -> NDArray[np.int64]:
        """The rows for each number asked of column `name`, in the order in which they were asked."""
        import numpy as np

        if name not in self._order:
            return np.zeros(0, dtype=np.int64)
        result = np.empty(len(self._order[name]), dtype=np.int64)
        result[self._order[name]] = self._counts[name]
        return result

    def _scale(self, name: str) -> float:
        column = self._profile[name]
        return _STEPS / ((column.high - column.low) or 1.0)

    def _sieve(self, name: str) -> NDArray[np.bool_]:
        import numpy as np

        low, scale = self._profile[name].low, self._scale(name)
        ends = [
            np.clip((self._values[name] + side * self._halves[name] - low) * scale, 0, _STEPS - 1).astype(np.int64)
            for side in (-1, 1)
        ]
        edges = np.zeros(_STEPS + 1, dtype=np.int64)
        np.add.at(edges, ends[0], 1)
        np.add.at(edges, ends[1] + 1, -1)
        return np.asarray(np.cumsum(edges[:-1]) > 0)


class Cells:
    """The examiner of single numbers."""

    def __init__(self, corpus: Corpus, private: Private) -> None:
        import numpy as np

        self._corpus, self._private = corpus, private
        names = [name for name in bits.numeric(private) if not private.columns[name].public]
        numbers = corpus.tokens.numbers
        named = named_columns(corpus, names, after=2)
        by_value = np.argsort(numbers.value)  # once: what is taken from it for a column is in order too
        value, half, digits = numbers.value[by_value], numbers.half[by_value], numbers.digits[by_value]
        named = named[by_value]
        self._tokens: dict[str, NDArray[np.int64]] = {}
        self._chance: dict[str, NDArray[np.float64]] = {}
        self._named: dict[str, NDArray[np.bool_]] = {}
        asked = {}
        for index, name in enumerate(names):
            column = private.profile.numbers[name]
            if column.occupancy > bits.OCCUPIED or column.levels < 2:
                continue
            ends = np.searchsorted(value, [column.low - column.lattice, column.high + column.lattice])
            inside = np.arange(*np.clip(ends + np.array([-1, 1]), 0, len(value)))
            inside = inside[2 * half[inside] * private.rows <= _RARE * (column.high - column.low)]
            inside = inside[~np.isnan(value[inside])]
            chance = bits.chance(column, value[inside], half[inside]) * private.rows
            # Few digits are many people's numbers: 0, 1 and 100 stand everywhere.
            few = 10.0 ** -digits[inside].astype(np.float64) * private.rows > _FEW
            own = (named[inside] == index) & (chance <= _NAMED)
            kept = ((chance <= _RARE) & ~few) | own
            inside, own, chance = inside[kept], own[kept], chance[kept]
            self._tokens[name] = by_value[inside]
            self._chance[name] = np.maximum(chance, _on_lattice(column, value[inside]) * column.occupancy)
            self._named[name] = own
            asked[name] = (value[inside], half[inside])
        self._lookup = Lookup(private, asked)

    def feed(self, batch: Any) -> None:
        self._lookup.feed(batch)

    def findings(self) -> list[Finding]:
        import numpy as np

        k, numbers = self._private.contract.k, self._corpus.tokens.numbers
        result: list[Finding] = []
        for name, tokens in self._tokens.items():
            counts = self._lookup.counts(name)
            text = self._corpus.which(numbers.at[tokens])
            rare = (counts > 0) & (counts < k)
            for index in np.flatnonzero(rare & self._named[name])[:1].tolist():
                file, place = self._corpus.where(int(numbers.at[tokens[index]]))
                message = f"a number that its key names as {name} is the value of fewer than {k} rows"
                fix = "round it until it is true of k rows or more, or give a mean instead"
                result.append(Finding(NAMED.id, file, place, message, fix, name, int(counts[index]), 1))
            for one in np.unique(text):
                here = text == one
                value = numbers.value[tokens[here]]
                first = np.append(True, value[1:] != value[:-1])  # they are in order
                hits = int(np.count_nonzero(rare[here][first]))
                expected = float(self._chance[name][here][first].sum())
                if hits >= k and hits > _TIMES * expected:
                    index = int(np.flatnonzero(here & rare)[0])
                    file, place = self._corpus.where(int(numbers.at[tokens[index]]))
                    message = f"rare values of {name} stand here, too many for chance"
                    fix = f"leave the values of {name} out; binned counts of k rows or more may leave"
                    result.append(Finding(DUMP.id, file, place, message, fix, name, hits, hits))
        return result


def _on_lattice(column: Numbers, value: NDArray[np.float64]) -> NDArray[np.bool_]:
    import numpy as np

    if not column.lattice:
        return np.zeros(len(value), dtype=bool)
    return np.abs(np.round(value / column.lattice) * column.lattice - value) <= 1e-6 * np.maximum(np.abs(value), 1e-6)
