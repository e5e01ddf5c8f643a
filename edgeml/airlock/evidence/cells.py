"""Single private cells: how many rows hold a number, columns that are dumped, and cells that their key names.

A number alone says little: it blocks only if its key names the column and almost no other number would fit, or if many
rare cells of one column stand in a file. Columns whose lattice is well filled (ages, lengths in centimetres) carry no
such evidence: any number in their range is someone's, and so are the thresholds of trees.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

from edgeml.airlock.evidence import bits
from edgeml.airlock.evidence.corpus import Corpus
from edgeml.airlock.evidence.join import ranges
from edgeml.airlock.evidence.streams import named_columns
from edgeml.airlock.finding import Finding, Rule
from edgeml.airlock.private import Private
from edgeml.airlock.profile import Numbers, as_numbers

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
_PART = 16  # of so many numbers one is looked at first
_STEPS = 1 << 16


class _Group(NamedTuple):
    """Numbers of a similar width in order, and which of those asked they are."""

    values: NDArray[np.float64]
    halves: NDArray[np.float64]
    reach: float
    which: NDArray[np.int64]


class _Column(NamedTuple):
    groups: list[_Group]
    counts: NDArray[np.int64]
    sieve: NDArray[np.bool_]


class Lookup:
    """How many rows of each column lie within `half` of each of some numbers, counted as batches stream past."""

    def __init__(self, private: Private, asked: Mapping[str, tuple[NDArray[np.float64], NDArray[np.float64]]]) -> None:
        self._profile = private.profile.numbers
        self._columns = {name: self._column(name, *numbers) for name, numbers in asked.items() if len(numbers[0])}

    def _column(self, name: str, values: NDArray[np.float64], halves: NDArray[np.float64]) -> _Column:
        """The numbers by how wide they are: one wide number would make every cell meet all that are near it."""
        import numpy as np

        width = np.frexp(np.maximum(halves, 1e-30))[1] // 2
        groups = []
        for one in np.unique(width):
            which = np.flatnonzero(width == one)
            which = which[np.argsort(values[which], kind="stable")]
            groups.append(_Group(values[which], halves[which], float(halves[which].max()), which))
        return _Column(groups, np.zeros(len(values), dtype=np.int64), self._sieve(name, values, halves))

    @property
    def names(self) -> list[str]:
        return list(self._columns)

    def feed(self, batch: Any) -> None:
        import numpy as np

        for name, column in self._columns.items():
            for _, numbers in self.pairs(batch, name):
                np.add.at(column.counts, numbers, 1)

    def pairs(self, batch: Any, name: str) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64]]]:
        """Row and number (as asked) wherever a cell of the column fits a number."""
        import numpy as np

        column, cells = self._columns[name], as_numbers(batch[name])
        with np.errstate(invalid="ignore"):
            steps = ((cells - self._profile[name].low) * self._scale(name)).astype(np.int32)
        rows = np.flatnonzero(column.sieve.take(steps, mode="clip"))
        rows = rows[~np.isnan(cells[rows])]
        cells = cells[rows]
        order = np.argsort(cells)  # neighbours find their numbers in the same places of memory
        rows, cells = rows[order], cells[order]
        for group in column.groups:
            begin = np.searchsorted(group.values, cells - group.reach, "left")
            many = np.searchsorted(group.values, cells + group.reach, "right") - begin
            some = np.flatnonzero(many)
            begin, many = begin[some], many[some]
            for start in range(0, len(some), 1 << 14):
                part = slice(start, start + (1 << 14))
                which = np.repeat(some[part], many[part])
                number = np.repeat(begin[part], many[part]) + ranges(many[part])
                fits = np.flatnonzero(np.abs(cells[which] - group.values[number]) <= group.halves[number])
                yield rows[which[fits]], group.which[number[fits]]

    def counts(self, name: str) -> NDArray[np.int64]:
        """The rows for each number asked of column `name`, in the order in which they were asked."""
        import numpy as np

        return self._columns[name].counts if name in self._columns else np.zeros(0, dtype=np.int64)

    def _scale(self, name: str) -> float:
        column = self._profile[name]
        return _STEPS / ((column.high - column.low) or 1.0)

    def _sieve(self, name: str, values: NDArray[np.float64], halves: NDArray[np.float64]) -> NDArray[np.bool_]:
        import numpy as np

        low, scale = self._profile[name].low, self._scale(name)
        ends = [np.clip((values + side * halves - low) * scale, 0, _STEPS - 1).astype(np.int64) for side in (-1, 1)]
        edges = np.bincount(ends[0], minlength=_STEPS + 1) - np.bincount(ends[1] + 1, minlength=_STEPS + 1)
        return np.asarray(np.cumsum(edges[:-1]) > 0)


class _Asked(NamedTuple):
    """Numbers that are compared with a column's cells: `free` wherever they stand, `own` under the column's name.

    `which` counts the corpus' different numbers, `chance` is how many rows would fit each by chance.
    """

    column: int
    which: NDArray[np.int64]
    chance: NDArray[np.float64]
    free: NDArray[np.bool_]
    own: NDArray[np.bool_]


class Cells:
    """The examiner of single numbers; what cells fit them is told by `near`."""

    def __init__(self, corpus: Corpus, private: Private) -> None:
        import numpy as np

        self._corpus, self._private = corpus, private
        self._names = [name for name in bits.numeric(private) if not private.columns[name].public]
        self._keyed = named_columns(corpus, self._names, after=2)
        self._text = corpus.which(corpus.tokens.numbers.at)
        distinct = corpus.distinct
        # Few digits are many people's numbers: 0, 1 and 100 stand everywhere.
        self._many = 10.0 ** -distinct.digits.astype(np.float64) * private.rows <= _FEW
        self._wanted = self._many.copy()
        self._wanted[distinct.which[self._keyed >= 0]] = True
        self._met: dict[str, list[NDArray[np.int64]]] = {}

    def least(self, name: str) -> float:
        """Of how many rows no more than one may fit a number by chance for the number to tell anything."""
        column = self._private.profile.numbers[name]
        if name not in self._names or column.occupancy > bits.OCCUPIED or column.levels < 2:
            return math.inf
        return self._private.rows / _RARE

    def take(self, name: str, which: NDArray[np.int64]) -> None:
        """Count the different numbers that a cell of the column fits, once for each cell."""
        import numpy as np

        column, least = self._private.profile.numbers[name], self.least(name)
        wide = 2 * self._corpus.distinct.half[which] * least > column.high - column.low
        met = self._met.setdefault(name, [])
        met.append(np.sort(which[self._wanted[which] & ~wide]).astype(np.int32))
        if len(met) > 1 and len(met[-1]) > len(met[-2]):  # so that there are few, and each is merged a few times
            met[-2:] = [np.sort(np.concatenate(met[-2:]), kind="stable")]

    def _asked(self, name: str, some: NDArray[np.int64]) -> _Asked:
        """Of some of the different numbers, in order, those that tell something as cells of a column."""
        import numpy as np

        index, column, rows = self._names.index(name), self._private.profile.numbers[name], self._private.rows
        distinct = self._corpus.distinct
        named = np.zeros(len(distinct.value), dtype=bool)
        named[distinct.which[self._keyed == index]] = True
        value, half, many, own = distinct.value[some], distinct.half[some], self._many[some], named[some]
        fine = (2 * half * rows <= _RARE * (column.high - column.low)) & within(column, value, half)
        kept = np.flatnonzero(fine & (many | own))
        chance = bits.chance(column, value[kept], half[kept]) * rows
        free, own = (chance <= _RARE) & many[kept], (chance <= _NAMED) & own[kept]
        good = free | own
        kept, chance = kept[good], chance[good]
        chance = np.maximum(chance, _on_lattice(column, value[kept]) * column.occupancy)
        return _Asked(index, some[kept], chance, free[good], own[good])

    def findings(self) -> list[Finding]:
        import numpy as np

        k = self._private.contract.k
        result: list[Finding] = []
        for name, parts in self._met.items():
            met, many = np.unique(np.concatenate(parts), return_counts=True)
            met, counts = met[many < k].astype(np.int64), many[many < k]
            asked = self._asked(name, met)
            counts = counts[np.searchsorted(met, asked.which)]
            own = np.flatnonzero(asked.own)
            numbers, which = self._numbers(asked, own)
            for at in np.flatnonzero(self._keyed[numbers] == asked.column)[:1].tolist():
                message = f"a number that its key names as {name} is the value of fewer than {k} rows"
                fix = "round it until it is true of k rows or more, or give a mean instead"
                file, place = self._where(numbers[at])
                result.append(Finding(NAMED.id, file, place, message, fix, name, int(counts[own[which[at]]]), 1))
            every = np.arange(len(asked.which))
            hits = {text: many for text, many in self._values(asked, every).items() if many >= k}
            for one in self._too_many(name, hits):
                numbers, _ = self._numbers(asked, every)
                file, place = self._where(numbers[self._text[numbers] == one][0])
                message = f"rare values of {name} stand here, too many for chance"
                fix = f"leave the values of {name} out; binned counts of k rows or more may leave"
                result.append(Finding(DUMP.id, file, place, message, fix, name, int(hits[one]), int(hits[one])))
        return result

    def _too_many(self, name: str, hits: dict[int, float]) -> list[int]:
        """The texts that have more hits than chance allows, first by a part of the numbers, as most have far fewer."""
        import numpy as np

        every = np.arange(len(self._many))
        for step, times in ((_PART, _TIMES / 2), (1, _TIMES)) if len(every) > _PART << 10 else ((1, _TIMES),):
            if not hits:
                break
            asked = self._asked(name, every[::step])
            expected = self._values(asked, np.arange(len(asked.which)), asked.chance)
            hits = {text: many for text, many in hits.items() if many > times * step * expected.get(text, 0.0)}
        return list(hits)

    def _where(self, number: np.int32) -> tuple[str, str]:
        return self._corpus.where(int(self._corpus.tokens.numbers.at[number]))

    def _numbers(self, asked: _Asked, some: NDArray[np.int64]) -> tuple[NDArray[np.int32], NDArray[np.int64]]:
        """The numbers that are `some` of those asked and for each which: those of few digits only under their key."""
        numbers, which = self._corpus.distinct.numbers(asked.which[some])
        kept = asked.free[some[which]] | (self._keyed[numbers] == asked.column)
        return numbers[kept], which[kept]

    def _values(
        self, asked: _Asked, some: NDArray[np.int64], weight: NDArray[np.float64] | None = None
    ) -> dict[int, float]:
        """The texts that hold `some` of those asked, and how many different values of them, or what these weigh."""
        import numpy as np

        if not len(some):
            return {}
        value = self._corpus.distinct.value[asked.which[some]]
        fresh = np.append(True, value[1:] != value[:-1])  # they are in order
        if self._text[0] == self._text[-1]:
            whole = np.count_nonzero(fresh) if weight is None else weight[some[fresh]].sum()
            return {int(self._text[0]): float(whole)}
        numbers, which = self._numbers(asked, some)
        _, first = np.unique(self._text[numbers] * (len(some) + 1) + np.cumsum(fresh)[which], return_index=True)
        texts, group = np.unique(self._text[numbers[first]], return_inverse=True)
        weights = None if weight is None else weight[some[which[first]]]
        return dict(zip(texts.tolist(), np.bincount(group, weights, minlength=len(texts)).tolist(), strict=True))


def within(column: Numbers, value: NDArray[np.float64], half: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Whether a number may be one of the column's range."""
    return (value + half >= column.low - column.lattice) & (value - half <= column.high + column.lattice)


def _on_lattice(column: Numbers, value: NDArray[np.float64]) -> NDArray[np.bool_]:
    import numpy as np

    if not column.lattice:
        return np.zeros(len(value), dtype=bool)
    return np.abs(np.round(value / column.lattice) * column.lattice - value) <= 1e-6 * np.maximum(np.abs(value), 1e-6)
