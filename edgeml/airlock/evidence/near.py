"""Which numbers of the corpus the cells of the private table fit, told once for all who ask.

The different numbers are sorted once, by how finely they are printed and by value; a column takes of them the stretch
that lies in its range. Nothing is computed of a number before a cell fits it: of a text few do.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, NamedTuple

from edgeml.airlock.evidence.corpus import Distinct
from edgeml.airlock.evidence.join import ranges
from edgeml.airlock.private import Private
from edgeml.airlock.profile import BINS, Numbers, as_numbers

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_FINEST = 1 << 22  # steps of a column's range of which it is told whether a number lies there
_COARSE = 1 << 14  # the same for numbers of several steps
_PIECE = 1 << 14


class _Group(NamedTuple):
    """Numbers of a similar width in order, and which of the different numbers they are."""

    values: NDArray[np.float64]
    halves: NDArray[np.float64]
    reach: float
    which: NDArray[np.int64]


class _Column(NamedTuple):
    low: float
    scale: float
    groups: list[_Group]
    sieve: NDArray[np.bool_] | None


class Near:
    """The different numbers that are fine enough to tell something of a column.

    `least` is of how many rows no more than one may fit a number by chance, by column.
    """

    def __init__(self, distinct: Distinct, private: Private, least: dict[str, float]) -> None:
        groups = _grouped(distinct)
        self._rows = private.rows
        columns = {name: self._column(private.profile.numbers[name], groups, least[name]) for name in least}
        self._columns = {name: column for name, column in columns.items() if column.groups}

    @property
    def names(self) -> list[str]:
        return list(self._columns)

    def pairs(self, batch: Any, name: str) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64]]]:
        """Row and number wherever a cell of the column fits a number."""
        import numpy as np

        column, cells = self._columns[name], as_numbers(batch[name])
        if column.sieve is None:
            rows = np.flatnonzero(~np.isnan(cells))
        else:
            with np.errstate(invalid="ignore"):
                steps = ((cells - column.low) * column.scale).astype(np.int32)
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
            for start in range(0, len(some), _PIECE):
                part = slice(start, start + _PIECE)
                which = np.repeat(some[part], many[part])
                number = np.repeat(begin[part], many[part]) + ranges(many[part])
                fits = np.flatnonzero(np.abs(cells[which] - group.values[number]) <= group.halves[number])
                yield rows[which[fits]], group.which[number[fits]]

    def _column(self, column: Numbers, groups: list[_Group], least: float) -> _Column:
        import numpy as np

        span = column.high - column.low
        kept = []
        for group in groups:
            if 2 * group.halves.min() * least > span:
                continue
            ends = column.low - group.reach, column.high + group.reach
            first, last = (
                np.searchsorted(group.values, ends[0], "left"),
                np.searchsorted(group.values, ends[1], "right"),
            )
            if last > first:
                part = slice(first, last)
                kept.append(_Group(group.values[part], group.halves[part], group.reach, group.which[part]))
        many = sum(len(group.values) for group in kept)
        if self._rows <= many:  # for few rows it is quicker to look for each of them
            return _Column(column.low, 0.0, kept, None)
        kept = [told for group in kept if len((told := _telling(column, group, least)).values)]
        many = sum(len(group.values) for group in kept)
        steps = min(_FINEST, max(_COARSE, 1 << (8 * many).bit_length()))
        scale = steps / (span or 1.0)
        return _Column(column.low, scale, kept, _sieve(kept, column.low, scale, steps))


def _telling(column: Numbers, group: _Group, least: float) -> _Group:
    """The numbers of a group that are fine enough where they stand: where more rows are they must be finer."""
    import numpy as np

    edges = column.low + (column.high - column.low) / BINS * np.arange(1, BINS)
    padded = np.concatenate([column.shares[:1], column.shares, column.shares[-1:]])
    # A number may reach over into a neighbouring step: the emptiest of the three counts. Wider ones are all kept.
    share = np.minimum(np.minimum(padded[:-2], padded[1:-1]), padded[2:])
    share *= 2 * group.reach * BINS <= column.high - column.low
    many = np.diff(np.concatenate([[0], np.searchsorted(group.values, edges), [len(group.values)]]))
    times = np.repeat(np.maximum(share * BINS, 1.0) * (2 * least), many)
    some = np.flatnonzero(times * group.halves <= column.high - column.low)
    halves = group.halves[some]
    return _Group(group.values[some], halves, float(halves.max(initial=0.0)), group.which[some])


def _grouped(distinct: Distinct) -> list[_Group]:
    """The numbers by how wide they are: one wide number would make every cell meet all that are near it."""
    import numpy as np

    some = np.flatnonzero(~np.isnan(distinct.value))
    width = (np.frexp(np.maximum(distinct.half[some], 1e-30))[1] // 2).astype(np.int16)
    groups = []
    for one in np.flatnonzero(np.bincount(width + 128)) - 128:
        which = some[width == one]  # by value, as all are
        halves = distinct.half[which]
        groups.append(_Group(distinct.value[which], halves, float(halves.max()), which))
    return groups


def _sieve(groups: list[_Group], low: float, scale: float, steps: int) -> NDArray[np.bool_]:
    """In which steps of a column's range a number lies."""
    import numpy as np

    sieve, wide = np.zeros(steps, dtype=bool), np.zeros(_COARSE + 1, dtype=np.int64)
    for group in groups:
        ends = [(group.values + side * group.halves - low) * scale for side in (-1, 1)]
        first, last = (np.clip(end, 0, steps - 1).astype(np.int64) for end in ends)
        sieve[first] = sieve[last] = True
        over = np.flatnonzero(last - first > 1)
        if len(over):  # these are few, or there would be no room for others
            wide += np.bincount(first[over] * _COARSE // steps, minlength=_COARSE + 1)
            wide -= np.bincount(last[over] * _COARSE // steps + 1, minlength=_COARSE + 1)
    if wide.any():
        sieve.reshape(_COARSE, -1)[np.cumsum(wide[:-1]) > 0] = True
    return sieve
