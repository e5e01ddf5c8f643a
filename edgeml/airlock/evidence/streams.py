"""The orders in which numbers of a text may hold a row.

A row is printed along a line, down the lines or across lists of equal length (column by column), spread over the
values of one key, or as named values in any order; each order is a stream in which the cells of a row follow one
another as the columns do. Streams lie one after the other in one run of numbers, with gaps that nothing fits.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from edgeml.airlock.evidence.corpus import Corpus, distinct
from edgeml.airlock.evidence.tokens import encoded, gram_ending, grams, words_of

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_MOST = 6_000_000  # numbers in all streams
_LONGEST_NAME = 6  # words


class Stream(NamedTuple):
    """Numbers in all orders: which of the different numbers stands there, and where in the corpus.

    The last of the different numbers is NaN and stands for gaps and absent cells, whose place is -1. A null has a place
    but NaN for a value.
    """

    value: NDArray[np.float64]
    half: NDArray[np.float64]
    digits: NDArray[np.int64]
    which: NDArray[np.int32]
    at: NDArray[np.int32]


def streams(corpus: Corpus, columns: list[str]) -> Stream:
    """All orders of the corpus' numbers, for a table with these columns of numbers."""
    import numpy as np

    readings = [(corpus.tokens.numbers, corpus.distinct)]
    readings += [(numbers, distinct(numbers)) for numbers in corpus.tokens.others]
    orders = [(number, _gaps(corpus.which(reading.at))) for number, (reading, _) in enumerate(readings)]
    numbers = corpus.tokens.numbers
    if len(numbers.at):
        text = corpus.which(numbers.at)
        raw = np.frombuffer(corpus.data, dtype=np.uint8)
        brackets = np.flatnonzero((raw | 6) == 95)
        brackets = brackets[raw[brackets] != 95]
        named = named_columns(corpus, columns)
        units = [np.searchsorted(ends, numbers.at, "left") for ends in (corpus.tokens.lines, brackets) if len(ends)]
        orders += [(0, _down(text, unit)) for unit in units]
        orders.append((0, _by_key(corpus, text, named)))
        orders.append((0, _named(text, named, len(columns))))
    starts = np.cumsum([0] + [len(different.value) for _, different in readings])
    which: list[NDArray[np.int32]] = []
    at: list[NDArray[np.int32]] = []
    size = 0
    for number, order in orders:
        size += len(order)
        if size > _MOST and which:
            break
        reading, different = readings[number]
        which.append(np.append(different.which + np.int32(starts[number]), np.int32(starts[-1])).take(order))
        at.append(np.append(reading.at, -1).astype(np.int32).take(order))
    parts = [different for _, different in readings]
    value = np.concatenate([*(part.value for part in parts), [np.nan]])
    half = np.concatenate([*(part.half for part in parts), [0.0]])
    digits = np.concatenate([*(part.digits for part in parts), [0]])
    return Stream(value, half, digits, np.concatenate(which), np.concatenate(at))


def named_columns(corpus: Corpus, columns: list[str], after: int = 0) -> NDArray[np.int64]:
    """For every number the column whose name ends its key, up to `after` words earlier; -1 where none does."""
    import numpy as np

    words, key = corpus.tokens.words, corpus.tokens.numbers.key
    named = np.full(len(key), -1, dtype=np.int64)
    by_size: dict[int, list[tuple[int, int]]] = {}
    for index, name in enumerate(columns):
        parts = words_of(encoded(name))
        size = len(parts.hash)
        if 0 < size <= _LONGEST_NAME:
            whole = grams(parts._replace(joined=np.ones(size, dtype=bool)), size)[0]
            by_size.setdefault(size, []).append((int(whole[0]), index))
    keyed = np.flatnonzero(key >= 0)
    length = np.zeros(len(keyed), dtype=np.int64)
    for size, names in by_size.items():
        codes = np.array([code for code, _ in names], dtype=np.uint64)
        word = key[keyed]
        for step in range(after + 1):
            if step:
                word = np.where((word > 0) & words.joined[word - 1], word - 1, -1)
            ending = gram_ending(words, word, size)
            maybe = np.flatnonzero(np.isin(ending, codes) & (length < size))
            for code, index in names:
                hit = maybe[ending[maybe] == np.uint64(code)]
                named[keyed[hit]], length[hit] = index, size
    return named


def _gaps(group: NDArray[np.int64], index: NDArray[np.int64] | None = None) -> NDArray[np.int64]:
    """The indices (0, 1, … if none are given) with -1 after each group."""
    import numpy as np

    index = np.arange(len(group)) if index is None else index
    last = np.flatnonzero(np.append(group[1:] != group[:-1], True)[: len(group)]) + 1
    return np.insert(index, last, -1)


def _down(text: NDArray[np.int64], unit: NDArray[np.int64]) -> NDArray[np.int64]:
    """The first numbers of all units (lines, lists) that have equally many, then their second ones, and so on."""
    import numpy as np

    begins = np.flatnonzero(np.append(True, (unit[1:] != unit[:-1]) | (text[1:] != text[:-1])))
    width = np.diff(np.append(begins, len(unit)))
    alike = text[begins] * (int(width.max()) + 1) + width
    order = np.argsort(alike, kind="stable")
    first = np.flatnonzero(np.append(True, np.diff(alike[order]) != 0))
    parts = [np.zeros(0, dtype=np.int64)]
    for start, units in zip(first.tolist(), np.diff(np.append(first, len(order))).tolist(), strict=True):
        wide = int(width[order[start]])
        if wide > 1 and units > 2:
            table = begins[order[start : start + units]] + np.arange(wide)[:, None]
            parts += [table.reshape(-1), np.full(1, -1)]
    return np.concatenate(parts)


def _by_key(corpus: Corpus, text: NDArray[np.int64], named: NDArray[np.int64]) -> NDArray[np.int64]:
    """The values of each key that names no column, in order: records that were written column by column."""
    import numpy as np

    key = corpus.tokens.numbers.key
    kept = np.flatnonzero((key >= 0) & (named < 0))
    if not len(kept):
        return kept
    code = corpus.tokens.words.hash[key[kept]]
    order = np.argsort(code, kind="stable")
    code, kept = code[order], kept[order]
    first = np.flatnonzero(np.append(True, code[1:] != code[:-1]))
    many = np.diff(np.append(first, len(code)))
    several = np.repeat(many > 2, many)
    code, kept = code[several], kept[several]
    return _gaps(text[kept] + (np.repeat(np.arange(len(many)), many)[several] * (int(text.max()) + 1)), kept)


def _named(text: NDArray[np.int64], named: NDArray[np.int64], width: int) -> NDArray[np.int64]:
    """Records of named values, each as wide as the table; a record ends where a column comes again."""
    import numpy as np

    kept = np.flatnonzero(named >= 0)
    column = named[kept]
    record = np.zeros(len(kept), dtype=np.int64)
    number, seen, last = 0, 0, -1
    for at, (name, where) in enumerate(zip(column.tolist(), text[kept].tolist(), strict=True)):
        if seen >> name & 1 or where != last:
            number, seen, last = number + 1, 0, where
        seen |= 1 << name
        record[at] = number
    several = np.bincount(record, minlength=1)[record] > 2
    kept, column, record = kept[several], column[several], record[several]
    _, record = np.unique(record, return_inverse=True)
    slots = np.full((int(record.max(initial=-1)) + 1, width + 1), -1, dtype=np.int64)
    slots[record, column] = kept
    return slots.reshape(-1)
