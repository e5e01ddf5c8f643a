"""The private table streamed past an index of numbers that want to leave.

The index is over the artifact, which is small; the table may be large and is seen once, and nothing of it is kept but
how often what was found occurs. Stored rows are consecutive float32 numbers that equal consecutive columns, so three
in a row are the key; every hit is then compared cell by cell, forwards and backwards.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

GRAM = 3
_MIXERS = (0x9E3779B1, 0x85EBCA77, 0xC2B2AE3D)  # odd and far apart, so that the upper bits of the sum are well mixed
_COMMON = 4096  # rows that share a key: beyond, it tells nothing and is dropped; the row has rarer ones
_PLACES = 8  # where a key stands are enough of: a thousand copies of a row are found as well by their first
_LARGEST = 1 << 25


class Match(NamedTuple):
    """Numbers that are cells of a private row.

    `position` counts from the first number (in the given order if `order` is "row", else transposed), `column` is the
    first matching column as fed, `cells` how many follow one another, `rows` how many private rows fit equally well.
    """

    file: str
    place: str
    order: str
    position: int
    column: int
    cells: int
    rows: int


class RowIndex:
    """Which private rows stand in `numbers`, an array of one or more dimensions, verbatim as float32."""

    def __init__(self, numbers: Any, place: str, file: str) -> None:
        import numpy as np

        self._place, self._file = place, file
        array = np.ascontiguousarray(numbers, dtype=np.float32)
        parts = [array.reshape(-1)]
        if array.ndim > 1 and min(array.shape) > 1:
            # No key spans the gap: NaN is part of none.
            parts += [np.full(1, np.nan, np.float32), array.reshape(array.shape[0], -1).T.reshape(-1)]
        self._transposed = len(parts[0]) + 1
        self._numbers = _plain(np.concatenate(parts))
        bits = self._numbers.view(np.uint32)
        size = max(0, len(bits) - GRAM + 1)
        usable = np.ones(size, dtype=bool)
        for at in range(GRAM):
            usable &= np.isfinite(self._numbers[at : at + size])
        # Three equal numbers are what zeros and paddings look like; a row has other neighbours.
        usable &= (bits[:size] != bits[1 : size + 1]) | (bits[:size] != bits[2 : size + 2])
        positions = np.flatnonzero(usable)
        keys = _keys([bits[at : at + size] for at in range(GRAM)])[positions]
        order = np.argsort(keys, kind="stable")
        keys, positions = keys[order], positions[order]
        first = np.searchsorted(keys, keys, "left")
        kept = np.arange(len(keys)) - first < _PLACES
        self._keys, self._positions = keys[kept], positions[kept]
        self._counts: NDArray[np.int64] = np.zeros(len(self._keys), dtype=np.int64)
        self._rows: dict[tuple[int, int], tuple[int, int]] = {}
        self._sieve()

    def feed(self, columns: Sequence[Any]) -> None:
        """Compare a batch of private rows: one array of numbers per column, in the order in which a model takes them.

        NaN is null and equals nothing. Fewer columns than three give no match.
        """
        import numpy as np

        if len(columns) < GRAM or not len(self._keys) or not len(columns[0]):
            return
        cells = [_plain(np.asarray(column, dtype=np.float32)) for column in columns]
        bits = [column.view(np.uint32) for column in cells]
        hits: list[tuple[NDArray[np.int64], NDArray[np.int64]]] = []
        for first in range(len(columns) - GRAM + 1):
            keys = _keys(bits[first : first + GRAM])
            rows = np.flatnonzero(self._upper.take(keys >> self._shift))
            rows = rows[self._lower.take(keys[rows] & self._mask)]
            if len(rows) > _COMMON:
                _, which, many = np.unique(keys[rows], return_inverse=True, return_counts=True)
                rows = rows[many[which] <= _COMMON]
            if len(rows):
                hits.append(self._aligned(keys[rows], rows, first))
        self._verify(cells, hits)

    def matches(self) -> list[Match]:
        """Every place where private cells stand, longest first."""
        found = []
        for (start, column), (cells, rows) in self._rows.items():
            order, position = ("row", start + column)
            if position >= self._transposed:
                order, position = "column", position - self._transposed
            found.append(Match(self._file, self._place, order, position, column, cells, rows))
        return sorted(found, key=lambda match: (-match.cells, match.order, match.position))

    def _sieve(self) -> None:
        """Two small tables that tell at once of most keys that they are not there."""
        import numpy as np

        wanted = min(_LARGEST, max(1 << 12, 1 << (16 * max(1, len(self._keys)) - 1).bit_length()))
        self._shift, self._mask = np.uint32(32 - (wanted.bit_length() - 1)), np.uint32(wanted - 1)
        self._upper, self._lower = np.zeros(wanted, dtype=bool), np.zeros(wanted, dtype=bool)
        self._upper[self._keys >> self._shift] = True
        self._lower[self._keys & self._mask] = True

    def _aligned(
        self, keys: NDArray[np.uint32], rows: NDArray[np.int64], first: int
    ) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """For every hit the row, and where the row's first column would stand among the numbers."""
        import numpy as np

        begin = np.searchsorted(self._keys, keys, "left")
        many = np.searchsorted(self._keys, keys, "right") - begin
        entries = np.repeat(begin, many) + ranges(many)
        np.add.at(self._counts, entries, 1)
        return np.repeat(rows, many), self._positions[entries] - first

    def _verify(
        self, columns: list[NDArray[np.float32]], hits: list[tuple[NDArray[np.int64], NDArray[np.int64]]]
    ) -> None:
        import numpy as np

        if not hits:
            return
        both = np.unique(np.stack([np.concatenate(part) for part in zip(*hits, strict=True)]), axis=1)
        for start in range(0, both.shape[1], 1 << 16):
            rows, starts = both[:, start : start + (1 << 16)]
            places = starts[:, None] + np.arange(len(columns))
            inside = (places >= 0) & (places < len(self._numbers))
            cells = np.stack([column[rows] for column in columns], axis=1)
            equal = inside & (self._numbers[np.clip(places, 0, len(self._numbers) - 1)] == cells)
            length, first = longest(equal)
            good = length >= GRAM
            self._note(starts[good], first[good], length[good])
        common = self._counts > _COMMON
        if common.any():
            self._keys, self._positions = self._keys[~common], self._positions[~common]
            self._counts = self._counts[~common]
            self._sieve()

    def _note(self, starts: NDArray[np.int64], first: NDArray[np.int64], cells: NDArray[np.int64]) -> None:
        """Keep the longest match of every place, and how many rows reach it."""
        for start, column, count in zip(starts.tolist(), first.tolist(), cells.tolist(), strict=True):
            best, rows = self._rows.get((start, column), (0, 0))
            if count > best:
                self._rows[start, column] = (count, 1)
            elif count == best:
                self._rows[start, column] = (count, rows + 1)


def _plain(numbers: NDArray[np.float32]) -> NDArray[np.float32]:
    """The numbers with one zero: -0.0 equals 0.0 but has other bits."""
    import numpy as np

    return np.asarray(numbers + np.float32(0.0), dtype=np.float32)


def _keys(parts: Sequence[NDArray[np.uint32]]) -> NDArray[np.uint32]:
    import numpy as np

    key = np.zeros(len(parts[0]), dtype=np.uint32)
    for part, mixer in zip(parts, _MIXERS, strict=True):
        key += part * np.uint32(mixer)
    return key


def ranges(lengths: NDArray[np.int64]) -> NDArray[np.int64]:
    """0, 1, … length-1 for every length, one after the other."""
    import numpy as np

    ends = np.cumsum(lengths)
    return np.arange(ends[-1] if len(ends) else 0) - np.repeat(ends - lengths, lengths)


def longest(equal: NDArray[np.bool_]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Of every row of booleans the longest stretch of true and where it begins."""
    import numpy as np

    best, first = np.zeros(len(equal), dtype=np.int64), np.zeros(len(equal), dtype=np.int64)
    length = np.zeros(len(equal), dtype=np.int64)
    for at in range(equal.shape[1]):
        length = np.where(equal[:, at], length + 1, 0)
        longer = length > best
        best[longer] = length[longer]
        first[longer] = at + 1 - length[longer]
    return best, first
