"""Private rows recognised among numbers: cells in the order of the columns, however they were printed.

The numbers that want to leave are the index. Every cell of a column falls into one of a few buckets, and the buckets
of some neighbouring columns make a key; what a batch of private rows has in common with the index is then compared
number by number. Rows that are recognised are told by how many they are and by their evidence in bits.
"""

from __future__ import annotations

import math
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, NamedTuple

from edgeml.airlock.evidence import bits
from edgeml.airlock.evidence.corpus import Corpus
from edgeml.airlock.evidence.join import ranges
from edgeml.airlock.evidence.streams import streams
from edgeml.airlock.finding import Finding, Rule
from edgeml.airlock.private import Private
from edgeml.airlock.profile import Numbers, as_numbers

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

ROWS = Rule(
    "private-rows",
    "content",
    "Rows of the private table, at any precision",
    "Numbers that follow one another as the cells of a private row do, too well for chance, are that row.",
    waivable=False,
)
RULES = (ROWS,)
_STEPS = 1 << 14
_FINEST = (1024, 256, 64, 16, 4, 2)
_SPARE = 8.0  # bits by which a key is more selective than the numbers are many
WIDEST = 8  # columns of a key
_COMBINATIONS = 64  # of buckets that one key's numbers may stand for
_WAITING = 1 << 18  # rows that share a key with the numbers
_HITS = 1 << 16
_PIECE = 1 << 16
_SAMPLE = 1 << 13  # numbers by which it is told how fine buckets may be


class _Key(NamedTuple):
    """Numbers by the buckets of some neighbouring columns."""

    first: int
    columns: tuple[int, ...]
    codes: NDArray[np.uint32]
    places: NDArray[np.int32]
    upper: NDArray[np.bool_]
    lower: NDArray[np.bool_]
    shift: np.uint32
    mask: np.uint32


class Rows:
    """The examiner of rows of numbers."""

    def __init__(self, corpus: Corpus, private: Private, names: list[str] | None = None) -> None:
        import numpy as np

        self._corpus, self._private = corpus, private
        self._names = bits.numeric(private) if names is None else names
        self._columns = [private.profile.numbers[name] for name in self._names]
        self._public = np.array([private.columns[name].public for name in self._names], dtype=bool)
        self._pool = ThreadPoolExecutor(2)
        self._keys: list[_Key] = []
        self._size = 0
        self._found: dict[int, tuple[float, int, set[int]]] = {}
        self._fed = 0
        self.strongest = -math.inf
        if len(self._columns) < 3 or not len(corpus.tokens.numbers.at):
            return
        self._stream = streams(corpus, self._names)
        self._cost = math.log2(max(2, private.rows)) + math.log2(max(2, len(self._stream.which)))
        self._scales = [_STEPS / (column.high - column.low or 1.0) for column in self._columns]
        ends = self._stream.value - self._stream.half, self._stream.value + self._stream.half
        sample = self._stream.which[:: max(1, len(self._stream.which) // _SAMPLE)]
        self._buckets = list(self._pool.map(lambda column: _buckets(column, *ends, sample), self._columns))
        self._index()
        self._waiting: list[list[tuple[NDArray[np.uint32], NDArray[np.float64]]]] = [[] for _ in self._keys]

    def feed(self, batch: Any) -> None:
        """Compare a batch of rows with all numbers."""
        import numpy as np

        if not self._keys:
            return
        cells = [as_numbers(batch[name]) for name in self._names]
        with np.errstate(invalid="ignore"):
            mixed = [self._bucket_of(index, values) for index, values in enumerate(cells)]

        def hits(key: _Key) -> tuple[NDArray[np.uint32], NDArray[np.int64]]:
            codes = _mix([mixed[column] for column in key.columns])
            rows = np.flatnonzero(key.upper.take((codes >> key.shift).view(np.int32)))
            rows = rows[key.lower.take(codes[rows] & key.mask)]
            return codes[rows], rows

        for waiting, (codes, rows) in zip(self._waiting, self._pool.map(hits, self._keys), strict=True):
            if len(rows):
                waiting.append((codes, np.stack([*(column[rows] for column in cells), rows + float(self._fed)])))
                self._size += len(rows)
        self._fed += batch.num_rows
        if self._size > _WAITING:
            self._flush()

    def _flush(self) -> None:
        """Find where the rows that wait would stand, and compare them: few rows, so each key's numbers are gone
        through once and need no order."""
        import numpy as np

        for key, waiting in zip(self._keys, self._waiting, strict=True):
            if not waiting:
                continue
            codes = np.concatenate([codes for codes, _ in waiting])
            cells = np.concatenate([part for _, part in waiting], axis=1)
            waiting.clear()
            order = np.argsort(codes)
            codes, cells = codes[order], cells[:, order]
            sieve = np.zeros(1 << 20, dtype=bool)
            sieve[codes >> np.uint32(12)] = True
            numbers = np.flatnonzero(sieve.take(key.codes >> np.uint32(12)))
            begin = np.searchsorted(codes, key.codes[numbers], "left")
            many = np.searchsorted(codes, key.codes[numbers], "right") - begin
            for start in range(0, len(numbers), _HITS):
                part = slice(start, start + _HITS)
                rows = np.repeat(begin[part], many[part]) + ranges(many[part])
                starts = np.repeat(key.places[numbers[part]].astype(np.int64) - key.first, many[part])
                for low in range(0, len(rows), _HITS):
                    self._score(cells, rows[low : low + _HITS], starts[low : low + _HITS])
        self._size = 0

    def findings(self) -> list[Finding]:
        """One finding for each file, with the strongest row's place and evidence."""
        if self._size:
            self._flush()
        k = self._private.contract.k
        best: dict[str, Finding] = {}
        for at, (score, cells, alike) in sorted(self._found.items()):
            if len(alike) >= k:
                continue
            file, place = self._corpus.where(at)
            known = best.get(file)
            if known is None:
                message = "numbers stand here that follow one another as the cells of a private row do"
                fix = "leave the rows out; a statistic over k rows or more may leave"
                best[file] = Finding(ROWS.id, file, place, message, fix, rows=1, cells=cells, bits=round(score, 1))
            elif score > known.bits:
                best[file] = known._replace(place=place, rows=known.rows + 1, cells=cells, bits=round(score, 1))
            else:
                best[file] = known._replace(rows=known.rows + 1)
        return list(best.values())

    def _bucket_of(self, index: int, values: NDArray[np.float64]) -> NDArray[np.uint32]:
        import numpy as np

        steps = ((values - self._columns[index].low) * self._scales[index]).astype(np.int32)
        return self._buckets[index].table.take(steps, mode="clip")

    def _index(self) -> None:
        target = math.log2(len(self._stream.which) + 2) + _SPARE
        strong: list[list[int]] = []
        weak: list[list[int]] = []  # what is left of the columns is the end of an earlier key, if there was one
        for first in range(len(self._columns)):
            columns, size = [], 0.0
            for column in range(first, min(first + WIDEST, len(self._columns))):
                columns.append(column)
                size += 0.0 if self._public[column] else math.log2(self._buckets[column].size)
                if len(columns) >= 3 and size >= target:
                    break
            if len(columns) >= 3:
                (strong if size >= target and not weak else weak).append(columns)
        places = self._places(strong + weak)
        self._keys = [key for key in self._pool.map(self._key, strong, places) if len(key.codes)]
        for columns, standing in zip(weak, places[len(strong) :], strict=True):
            if self._keys:
                break
            key = self._key(columns, standing)
            if len(key.codes):
                self._keys.append(key)

    def _places(self, keys: list[list[int]]) -> list[NDArray[np.int64]]:
        """Where each key's columns may stand: numbers that follow one another, each in the range of its column.

        Into which columns a number may fall is told by the bits of one integer. Shifted by one for each number further
        on, they are joined for all keys at once.
        """
        import numpy as np

        found: list[list[NDArray[np.int64]]] = [[np.zeros(0, dtype=np.int64)] for _ in keys]
        for lowest in range(0, len(self._columns), 64 - WIDEST):
            mine = [(number, key) for number, key in enumerate(keys) if 0 <= key[0] - lowest < 64 - WIDEST]
            inside = np.zeros(len(self._stream.value), dtype=np.uint64)
            for bit, bucket in enumerate(self._buckets[lowest : lowest + 64]):
                inside |= (bucket.many != 0).astype(np.uint64) << np.uint64(bit)

            def piece(start: int, inside: Any = inside, mine: Any = mine, lowest: int = lowest) -> list[Any]:
                return _fitting(inside.take(self._stream.which[start : start + _PIECE + WIDEST]), mine, lowest, start)

            for parts in self._pool.map(piece, range(0, len(self._stream.which), _PIECE)):
                for number, part in parts:
                    found[number].append(part)
        return [np.concatenate(parts) for parts in found]

    def _key(self, columns: list[int], places: NDArray[np.int64]) -> _Key:
        import numpy as np

        # Piece by piece, so that what is computed stays in the processor's cache.
        pieces = [self._codes(columns, places[start : start + _PIECE]) for start in range(0, len(places), _PIECE)]
        codes = np.concatenate([np.zeros(0, dtype=np.uint32), *(codes for codes, _ in pieces)])
        standing = np.concatenate([np.zeros(0, dtype=np.int32), *(places for _, places in pieces)])
        width = min(23, max(10, (8 * len(codes)).bit_length()))
        shift, mask = np.uint32(32 - width), np.uint32((1 << width) - 1)
        upper, lower = np.zeros(1 << width, dtype=bool), np.zeros(1 << width, dtype=bool)
        upper[codes >> shift] = True
        lower[codes & mask] = True
        return _Key(columns[0], tuple(columns), codes, standing, upper, lower, shift, mask)

    def _codes(self, columns: list[int], places: NDArray[np.int64]) -> tuple[NDArray[np.uint32], NDArray[np.int32]]:
        """The buckets into which numbers fall as cells of the columns, the first of which stands at `places`."""
        import numpy as np

        total = np.ones(len(places), dtype=np.float32)
        for at, column in enumerate(columns):
            total *= self._buckets[column].many.take(self._stream.which.take(places + at))
        kept = np.flatnonzero(total <= _COMBINATIONS)
        places, total = places[kept], total[kept]
        # Most numbers fall into one bucket of each column; the combinations of the others come last.
        several = total > 1
        many = total[several].astype(np.int64)
        rest = ranges(many)
        places = np.concatenate([places[~several], np.repeat(places[several], many)])
        last = len(places) - len(rest)
        parts = []
        for at, column in enumerate(columns):
            which, bucket = self._stream.which.take(places + at), self._buckets[column]
            part = bucket.low.take(which).astype(np.uint32)
            if len(rest):
                rest, more = np.divmod(rest, bucket.many.take(which[last:]))
                part[last:] += more.astype(np.uint32)
            parts.append(part)
        return _mix(parts), places.astype(np.int32)

    def _score(self, cells: NDArray[np.float64], rows: NDArray[np.int64], starts: NDArray[np.int64]) -> None:
        """The evidence of each row standing with its first column at a start: the best stretch of fitting cells."""
        import numpy as np

        stream, last = self._stream, len(self._stream.which) - 1
        total, best = np.zeros(len(rows)), np.zeros(len(rows))
        count, most, first = np.zeros(len(rows), int), np.zeros(len(rows), int), np.zeros(len(rows), int)
        begin = np.zeros(len(rows), int)
        for index, column in enumerate(self._columns):
            token = starts + index
            inside = (token >= 0) & (token <= last)
            token = np.clip(token, 0, last)
            which = stream.which[token]
            cell, value, half = cells[index][rows], stream.value[which], stream.half[which]
            fits = inside & (np.abs(cell - value) <= half)
            # A cell that was left out of a named record, and a null where the row has one, tell nothing either way.
            absent = inside & np.isnan(value) & (np.isnan(cell) | (stream.at[token] < 0)) & (total > 0)
            told = np.zeros(len(rows))
            if not self._public[index]:
                told[fits] = bits.evidence(column, value[fits], half[fits], stream.digits[which[fits]])
            going = fits | absent
            begin = np.where(total > 0, begin, token)
            total = np.where(going, total + told, 0.0)
            count = np.where(going, count + fits, 0)
            better = total > best
            best, most = np.where(better, total, best), np.where(better, count, most)
            first = np.where(better, begin, first)
        score, k = best - self._cost, self._private.contract.k
        self.strongest = max(self.strongest, float(score.max(initial=-math.inf)))
        for index in np.flatnonzero((score >= bits.RUN) & (most >= 3)).tolist():
            at = int(stream.at[first[index]])
            sure, row = float(score[index]), int(cells[-1][rows[index]])
            known = self._found.get(at)
            if known is None or sure > known[0] + 1e-6:
                self._found[at] = (sure, int(most[index]), {row})
            elif sure >= known[0] - 1e-6 and len(known[2]) < k:
                known[2].add(row)


def _fitting(
    inside: NDArray[np.uint64], keys: list[tuple[int, list[int]]], lowest: int, start: int
) -> list[tuple[int, NDArray[np.int64]]]:
    """Of each key (by its number) the places from `start` on, among the numbers but the last WIDEST, where it fits.

    `inside` has for each number a bit for each column from `lowest` on.
    """
    import numpy as np

    size = min(_PIECE, len(inside))
    inside = np.append(inside, np.zeros(size + WIDEST - len(inside), dtype=np.uint64))
    fits = inside[:size] & (inside[1 : size + 1] >> np.uint64(1)) & (inside[2 : size + 2] >> np.uint64(2))
    places = np.flatnonzero(fits)  # few, as a rule
    fits, found = fits[places], []
    for width in range(3, WIDEST + 1):
        if width > 3:
            fits &= inside[places + width - 1] >> np.uint64(width - 1)
        for number, columns in keys:
            if len(columns) == width:
                found.append((number, places[(fits >> np.uint64(columns[0] - lowest)) & np.uint64(1) != 0] + start))
    return found


class _Buckets(NamedTuple):
    """How a column's values fall into buckets: by step of its range, and for each of the different numbers the lowest
    and how many, 0 outside the range."""

    size: int
    table: NDArray[np.uint32]
    low: NDArray[np.uint16]
    many: NDArray[np.uint8]


def _buckets(
    column: Numbers, lower: NDArray[np.float64], upper: NDArray[np.float64], sample: NDArray[np.int32]
) -> _Buckets:
    """As fine as most of a sample of the numbers, if they are of the column's range, are printed; half by share of
    rows, half by range. Each of the different numbers lies between `lower` and `upper`."""
    import numpy as np

    steps = (np.arange(_STEPS) + 0.5) / _STEPS
    share = np.interp(steps, np.linspace(0, 1, len(column.shares) + 1), np.append(0.0, np.cumsum(column.shares)))
    place = np.clip((share + steps) / 2, 0, 1 - 1e-9)
    span = column.high - column.low or 1.0
    slack = 1e-6 * span

    def ends(lower: NDArray[np.float64], upper: NDArray[np.float64]) -> tuple[NDArray[np.int64], Any, Any]:
        """Of numbers those near the range, and the steps between which they lie."""
        near = np.flatnonzero((upper >= column.low - slack) & (lower <= column.high + slack))
        sides: list[Any] = []
        for side, reach in ((lower, -slack), (upper, slack)):
            step = (side.take(near) + (reach - column.low)) * (_STEPS / span)
            sides.append(np.maximum(np.minimum(step, _STEPS - 1, out=step), 0, out=step).astype(np.int32))
        return near, sides[0], sides[1]

    _, first, last = ends(lower.take(sample), upper.take(sample))
    narrow = last - first < _STEPS / 8
    finest = _FINEST if column.levels > 2 else (2,)
    for count in finest:
        table = (place * count).astype(np.uint32)
        many = table[last] - table[first] + 1
        if count == finest[-1] or np.count_nonzero(many[narrow] > 2) <= np.count_nonzero(narrow) / 8:
            break
    near, first, last = ends(lower, upper)
    low, every = np.zeros(len(lower), dtype=np.uint16), np.zeros(len(lower), dtype=np.uint8)
    lowest = table.take(first)
    low[near] = lowest
    every[near] = np.minimum(table.take(last) - lowest + 1, 255)  # more than a key takes
    return _Buckets(count, table, low, every)


def _mix(parts: list[NDArray[np.uint32]]) -> NDArray[np.uint32]:
    import numpy as np

    code = parts[0].copy()
    for part in parts[1:]:
        code *= np.uint32(1031)
        code += part
    code *= np.uint32(0x9E3779B1)
    return code
