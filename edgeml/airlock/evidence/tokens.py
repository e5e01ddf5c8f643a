"""The words and numbers of a text, found in arrays of bytes and not one by one: a log may have ten megabytes.

A word is a run of letters and digits, whatever its script; `_` and `-` separate words, so that a value is found in
`x0_value` and in an e-mail address. A number is an interval: "0.87" stands for all that is printed so, and no number
is exact beyond float32. Digits inside words, versions, dates, times, digests and paths are no numbers.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from hashlib import blake2b
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

CHUNK = 1 << 18
LONGEST = 4  # words of a gram
_FLOAT32 = 6.1e-8
_BASE, _ROUNDS = 0x9E3779B97F4A7C15, 0xD6E8FEB86659FD93
_SMALLEST = 330
_LANES = 64  # bytes of a word or of a run of digits that are read along with those of all others
_LETTER, _DIGIT, _LINE = 1, 2, 4  # what a byte is
_OTHERS = re.compile(r"[^\x00-\x7f]+")
_MINUS = dict.fromkeys((0x2212, 0x2010, 0x2011, 0x2013), "-")


class Numbers(NamedTuple):
    """Numbers in order. `comma` and `percent` are other readings: of "0,87" as one number, of "87%" as 0.87.

    `value` is NaN for a null. `digits` counts what was printed, `key` is the word (by index) that ends the number's
    key, -1 without one; `at` the place of its first byte.
    """

    value: NDArray[np.float64]
    half: NDArray[np.float64]
    digits: NDArray[np.int64]
    at: NDArray[np.int64]
    key: NDArray[np.int64]


class Words(NamedTuple):
    """Words in order: hash in lower case, first byte, byte after the last, whether the next one may be of its value."""

    hash: NDArray[np.uint64]
    start: NDArray[np.int64]
    end: NDArray[np.int64]
    joined: NDArray[np.bool_]


class Tokens(NamedTuple):
    """What a text holds; `others` are further readings of its numbers, where they differ."""

    words: Words
    numbers: Numbers
    others: tuple[Numbers, ...]
    lines: NDArray[np.int64]

    def line(self, at: int) -> int:
        """The line, from 1, of a place."""
        import numpy as np

        return int(np.searchsorted(self.lines, at, "left")) + 1


def encoded(text: str) -> bytes:
    """A text's bytes with one form for what looks alike: full-width digits, ligatures, other minus signs and spaces."""
    if not text.isascii():
        text = unicodedata.normalize("NFKC", text)
        # Of ASCII letters the case is folded when words are hashed, and kept for whoever needs it.
        others = {ord(letter): letter.lower() for letter in set(text) if not letter.isascii()} | _MINUS
        text = _OTHERS.sub(
            lambda run: run[0].translate(others), text
        )  # of a whole text it would take ten times as long
    return text.encode("utf-8", "replace")


def tokens(data: bytes) -> Tokens:
    """The tokens of `encoded` text."""
    import numpy as np

    words: list[Words] = []
    numbers: list[Numbers] = []
    commas: list[Numbers] = []
    percents: list[Numbers] = []
    lines = []
    count = 0
    for start, (raw, found, *readings) in _read(data):
        shift = start - 4
        words.append(Words(found.hash, found.start + shift, found.end + shift, found.joined))
        for reading, into in zip(readings, (numbers, commas, percents), strict=True):
            if reading is not None:
                key = np.where(reading.key >= 0, reading.key + count, -1)
                into.append(reading._replace(at=reading.at + shift, key=key))
        lines.append(np.flatnonzero(raw[4:-4] == 10) + start)
        count += len(found.hash)
    others = tuple(_joined(part) for part in (commas, percents) if part)
    joined = Words(*map(np.concatenate, zip(*words, strict=True)))
    return Tokens(joined, _joined(numbers), others, np.concatenate(lines))


def _read(data: bytes) -> Iterator[tuple[int, tuple[Any, ...]]]:
    """The pieces of the data with their tokens, two at a time: what costs here lets other threads run."""
    pieces = list(_pieces(data))
    if len(pieces) == 1:
        yield 0, _piece(data)
        return
    _tables()
    with ThreadPoolExecutor(2) as pool:
        yield from zip([start for start, _ in pieces], pool.map(_piece, [piece for _, piece in pieces]), strict=True)


def _piece(data: bytes) -> tuple[Any, ...]:
    piece = _Piece(data)
    words = _words(piece)
    return piece.raw, words, *_numbers(piece, words)


class _Piece:
    """Bytes between line ends: `raw` as they are, `eight` those from each place on as one integer, in lower case."""

    def __init__(self, data: bytes) -> None:
        import numpy as np

        self.data = b"\n\n\n\n" + data + b"\n\n\n\n"
        self.raw = np.frombuffer(self.data, dtype=np.uint8)
        self.lower = self.data.lower() + bytes(8)
        self.eight = np.ndarray((len(self.raw) + 1,), "<u8", self.lower, strides=(1,)).copy()

    def runs(self, kind: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Where stretches of bytes of a kind begin, and where the next other byte stands; the ends are others."""
        import numpy as np

        inside = np.frombuffer(self.data.translate(_tables().inside[kind]), dtype=bool)
        edges = np.flatnonzero(inside[1:] != inside[:-1]) + 1
        return edges[0::2], edges[1::2]


def words_of(data: bytes) -> Words:
    """The words of `encoded` text alone."""
    import numpy as np

    parts = []
    for start, piece in _pieces(data):
        found = _words(_Piece(piece))
        parts.append(found._replace(start=found.start + start - 4, end=found.end + start - 4))
    return Words(*map(np.concatenate, zip(*parts, strict=True)))


def grams(words: Words, size: int) -> tuple[NDArray[np.uint64], NDArray[np.int64]]:
    """The hashes of every `size` words that may be one value, and the index of the first of them."""
    import numpy as np

    count = len(words.hash) - size + 1
    if count <= 0:
        return np.zeros(0, np.uint64), np.zeros(0, np.int64)
    key = words.hash[:count].copy()
    whole = np.ones(count, dtype=bool)
    for at in range(1, size):
        key *= np.uint64(_ROUNDS)
        key += words.hash[at : at + count]
        whole &= words.joined[at - 1 : at - 1 + count]
    firsts = np.flatnonzero(whole)
    return key[firsts], firsts


def gram_ending(words: Words, last: NDArray[np.int64], size: int) -> NDArray[np.uint64]:
    """The hash of the `size` words that may be one value and of which `last` is the last; 0 where there are none."""
    import numpy as np

    first = last - size + 1
    whole = first >= 0
    first = np.where(whole, first, 0)
    key = words.hash[first]
    for at in range(1, size):
        word = np.minimum(first + at, len(words.hash) - 1)
        key = key * np.uint64(_ROUNDS) + words.hash[word]
        whole &= words.joined[word - 1]
    return np.where(whole, key, np.uint64(0))


def _joined(parts: list[Numbers]) -> Numbers:
    import numpy as np

    return Numbers(*map(np.concatenate, zip(*parts, strict=True)))


def _pieces(data: bytes) -> Iterator[tuple[int, bytes]]:
    """The data in pieces that end with a line, which ends every value; if it is too long, between tokens, if it has any
    spaces or commas at all."""
    start = 0
    while len(data) - start > CHUNK:
        stop = data.rfind(b"\n", start, start + CHUNK) + 1
        stop = stop or max(data.rfind(mark, start, start + CHUNK) for mark in (b" ", b",", b";", b"\t")) + 1
        stop = stop if stop > start else start + CHUNK
        yield start, data[start:stop]
        start = stop
    yield start, data[start:]


class _Tables(NamedTuple):
    """What each byte is: `kinds` as bits, `inside` for some kinds whether it is of them, `ending` whether it ends a
    value. `masks` leave the first bytes of eight."""

    kinds: NDArray[np.uint8]
    inside: dict[int, bytes]
    ending: NDArray[np.bool_]
    masks: NDArray[np.uint64]


@lru_cache(maxsize=1)
def _tables() -> _Tables:
    import numpy as np

    byte = np.arange(256)
    kinds = np.zeros(256, dtype=np.uint8)
    kinds[(byte >= 128) | (((byte | 32) >= 97) & ((byte | 32) <= 122))] = _LETTER
    kinds[48:58] = _DIGIT
    kinds[95] = _LINE
    inside = {kind: ((kinds & kind) != 0).astype(np.uint8).tobytes() for kind in (_DIGIT, _LETTER | _DIGIT)}
    ending = np.zeros(256, dtype=bool)
    ending[list(b'\n\r\t"[]{}<>|=')] = True
    return _Tables(kinds, inside, ending, np.array([(1 << 8 * size) - 1 for size in range(9)], dtype=np.uint64))


def _words(piece: _Piece) -> Words:
    import numpy as np

    raw, ending = piece.raw, _tables().ending
    start, end = piece.runs(_LETTER | _DIGIT)
    joined = np.zeros(len(start), dtype=bool)

    def ends(at: NDArray[np.int64]) -> NDArray[np.bool_]:
        byte = raw.take(at)
        comma = (byte == 44) & (raw.take(at + 1) != 32)  # a list's; that of a sentence has a space behind it
        return np.asarray(ending.take(byte) | comma)

    if len(start) > 1:
        gap, byte = start[1:] - end[:-1], raw.take(end[:-1])
        joined[:-1] = (gap == 1) & ~ending.take(byte) & (byte != 44)
        for size in (2, 3):
            some = np.flatnonzero(gap == size)
            several = ends(end[some]) | ends(end[some] + 1)
            joined[some] = ~(several | ends(end[some] + 2)) if size == 3 else ~several
    return Words(_hashes(piece, start, end), start, end, joined)


def _hashes(piece: _Piece, start: NDArray[np.int64], end: NDArray[np.int64]) -> NDArray[np.uint64]:
    """A hash of each word in lower case, by eight bytes at a time."""
    import numpy as np

    masks, length = _tables().masks, end - start
    value = _mixed(piece.eight.take(start) & masks.take(length, mode="clip"))
    longer, at = np.flatnonzero(length > 8), 8
    while len(longer) and at < _LANES:
        more = piece.eight.take(start[longer] + at) & masks.take(length[longer] - at, mode="clip")
        value[longer] = _mixed(value[longer] ^ more)
        at += 8
        longer = longer[length[longer] > at]
    for index in longer.tolist():  # few, as they are so long
        rest = blake2b(piece.lower[start[index] + at : end[index]], digest_size=8).digest()
        value[index] ^= np.uint64(int.from_bytes(rest, "little"))
    return value


def _mixed(value: NDArray[np.uint64]) -> NDArray[np.uint64]:
    import numpy as np

    value = value * np.uint64(_BASE)
    value ^= value >> np.uint64(32)
    value *= np.uint64(_ROUNDS)
    value ^= value >> np.uint64(29)
    return value


def _numbers(piece: _Piece, words: Words) -> tuple[Numbers, Numbers | None, Numbers | None]:
    """The numbers as they stand, and the readings with decimal commas and of percents, where there are any."""
    import numpy as np

    runs = _Runs(piece, *_told(piece, *piece.runs(_DIGIT)))
    plain = runs.read(46)
    nulls = _nulls(words)
    first = _merged(plain, nulls, words, piece.raw)
    commas = None
    comma = runs.read(44) if len(runs.heads(44)) else None
    if comma is not None and len(comma.start):
        kept = ~np.isin(plain.start, comma.start) & ~np.isin(plain.start, comma.second)
        whole = _Read(*(np.concatenate([mine[kept], theirs]) for mine, theirs in zip(plain, comma, strict=True)))
        commas = _merged(whole, nulls, words, piece.raw)
    percents = None
    if plain.percent.any():
        scale = np.where(plain.percent, 0.01, 1.0)
        percent = plain._replace(value=plain.value * scale, unit=plain.unit * scale)
        percents = _merged(percent, nulls, words, piece.raw)
    return first, commas, percents


def _told(
    piece: _Piece, start: NDArray[np.int64], end: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The runs of digits without those of words ("P12", "4b1f"): a log's times and digests have more than its numbers.

    What has a letter before it is an exponent or no number. What has one after it is no number either, but decimals
    and exponents are, and what an exponent follows.
    """
    import numpy as np

    kinds = _tables().kinds
    before, after = piece.raw.take(start - 1), piece.raw.take(end)
    power = _exponents(piece.raw, start, end, after)
    told = np.append(False, power[:-1])[: len(start)]
    word = (kinds.take(after) != 0) & ~power & (before != 46) & (before != 44)
    told |= ~(((kinds.take(before) & _LETTER) != 0) | word)
    return start[told], end[told]


def _exponents(
    raw: NDArray[np.uint8], start: NDArray[np.int64], end: NDArray[np.int64], after: NDArray[np.uint8]
) -> NDArray[np.bool_]:
    """Whether a run is followed by an exponent, which is the next run."""
    import numpy as np

    powers = np.zeros(len(start), dtype=bool)
    some = np.flatnonzero((after[:-1] | 32) == 101)
    gap, sign = start[some + 1] - end[some], raw.take(end[some] + 1)
    powers[some] = (gap == 1) | ((gap == 2) & ((sign == 43) | (sign == 45)))
    return powers


class _Read(NamedTuple):
    value: NDArray[np.float64]
    unit: NDArray[np.float64]
    digits: NDArray[np.int64]
    start: NDArray[np.int64]
    second: NDArray[np.int64]
    percent: NDArray[np.bool_]


class _Form(NamedTuple):
    """Of numbers the runs of their whole part, decimals and exponent (the one before, where there is none), which of
    them there are (`bare` has decimals only, in `whole`), and whether a minus stands before."""

    whole: NDArray[np.int64]
    last: NDArray[np.int64]
    final: NDArray[np.int64]
    has: NDArray[np.bool_]
    bare: NDArray[np.bool_]
    power: NDArray[np.bool_]
    minus: NDArray[np.bool_]


class _Runs:
    """Runs of digits, and the numbers that they make up."""

    def __init__(self, piece: _Piece, start: NDArray[np.int64], end: NDArray[np.int64]) -> None:
        import numpy as np

        self.piece, self.start, self.end = piece, start, end
        self.length = end - start
        self.gap = np.append(start[1:] - end[:-1], 1 << 30)[: len(start)]
        self.after = piece.raw.take(end)
        self.power = _exponents(piece.raw, start, end, self.after)

    def read(self, mark: int) -> _Read:
        """The numbers with `mark` (a point, 46, or a comma, 44) before their decimals.

        With the point all numbers, with the comma those that have one and stand alone.
        """
        import numpy as np

        raw, kinds = self.piece.raw, _tables().kinds
        link = (self.gap == 1) & (self.after == mark)
        index = self.heads(mark)
        has = link[index]
        last = index + has
        follow = np.append(link, False)[last]  # a second mark: a version, an address, a date
        power = self.power[last]
        final = last + power
        start, end, length = self.start[index], self.end[final], self.length[index]
        before, earlier, after, later = (raw.take(at) for at in (start - 1, start - 2, end, end + 1))
        ahead, behind = kinds.take(earlier) != 0, kinds.take(later) != 0
        bare = (before == 46) & ~ahead & ~has if mark == 46 else np.zeros(len(index), bool)
        glued = ((before == 45) | (before == 43)) & ahead
        exact = has | bare | power
        bad = follow & has
        bad |= ((kinds.take(before) & (_LETTER | _LINE)) != 0) & ((before != 95) | ~exact)
        bad |= ((kinds.take(after) & (_LETTER | _LINE)) != 0) & (~has | power)
        bad |= ~exact & (glued | ((after == 45) & behind) | ((before == 47) & ahead) | ((after == 47) & behind))
        bad |= (length <= 2) & ~has & (after == 58) & (later - 48 < 10)  # an hour
        minutes = np.flatnonzero((length == 2) & (before == 58) & (earlier - 48 < 10))
        hours = [raw.take(start[minutes] - back) - 48 < 10 for back in (3, 4)]
        bad[minutes] |= ~(hours[0] & hours[1])
        bad |= (before == 46) & ~bare
        bad |= power & (self.length[final] > 3)
        good = np.flatnonzero(~bad)
        minus = (before == 45) & ~glued
        form = _Form(index[good], last[good], final[good], has[good], bare[good], power[good], minus[good])
        value, unit = self._worth(form)
        digits = _digits(np.abs(value / unit), form.has | form.bare)
        return _Read(value, unit, digits, start[good], self.start[form.last], after[good] == 37)

    def heads(self, mark: int) -> NDArray[np.int64]:
        """The runs with which numbers begin."""
        import numpy as np

        link = (self.gap == 1) & (self.after == mark)
        before = self.piece.raw.take(self.start - 1)
        letter = (_tables().kinds.take(before) & (_LETTER | _LINE)) != 0
        head = np.ones(len(link), dtype=bool)
        head[1:] = ~(link[:-1] | (self.power[:-1] & ~letter[:-1]))
        if mark == 44:
            other = (self.gap == 1) & (self.after == 46)
            chained = np.append(link[1:] | other[1:], False)[: len(link)]
            head &= link & ~chained & (before != 46) & (before != 44)
        return np.flatnonzero(head)

    def _worth(self, form: _Form) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """What numbers are worth, and one of the last digit printed."""
        import numpy as np

        value = self._values(form.whole)
        decimals = np.where(form.bare, self.length[form.whole], 0)
        some = np.flatnonzero(form.bare)
        value[some] *= _ten(-decimals[some].clip(0, 300))
        some = np.flatnonzero(form.has)
        decimals[some] = self.length[form.last[some]]
        value[some] += self._values(form.last[some]) * _ten(-decimals[some].clip(0, 300))
        unit = _ten(-decimals)
        some = np.flatnonzero(form.power)
        if len(some):
            shift = self._values(form.final[some]).clip(0, 100).astype(np.int64)
            shift = np.where(self.piece.raw.take(self.start[form.final[some]] - 1) == 45, -shift, shift)
            value[some] *= _ten(shift)
            unit[some] = _ten(shift - decimals[some])
        np.negative(value, out=value, where=form.minus)
        return value, unit

    def _values(self, run: NDArray[np.int64]) -> NDArray[np.float64]:
        """What runs of digits are worth; beyond sixty-four digits they are rounded off."""
        import numpy as np

        start, length = self.start[run], self.length[run]
        value = _eight(self.piece.eight.take(start), np.minimum(length, 8))
        longer, at = np.flatnonzero(length > 8), 8
        while len(longer) and at < _LANES:
            rest = np.minimum(length[longer] - at, 8)
            value[longer] = value[longer] * _ten(rest) + _eight(self.piece.eight.take(start[longer] + at), rest)
            at += 8
            longer = longer[length[longer] > at]
        value[longer] *= _ten(np.minimum(length[longer] - at, 100))
        return value


def _eight(lane: NDArray[np.uint64], size: NDArray[np.int64]) -> NDArray[np.float64]:
    """What the first `size` (1 to 8) digits of eight bytes are worth, all at once: as pairs, as fours, as eight."""
    import numpy as np

    lane = (lane & np.uint64(0x0F0F0F0F0F0F0F0F)) << (64 - 8 * size).view(np.uint64)  # zeros where digits lack
    lane = (lane * np.uint64(10) + (lane >> np.uint64(8))) & np.uint64(0x00FF00FF00FF00FF)
    lane = (lane * np.uint64(100) + (lane >> np.uint64(16))) & np.uint64(0x0000FFFF0000FFFF)
    lane = (lane * np.uint64(10000) + (lane >> np.uint64(32))) & np.uint64(0xFFFFFFFF)
    return lane.astype(np.float64)


def _digits(counted: NDArray[np.float64], decimal: NDArray[np.bool_]) -> NDArray[np.int64]:
    """How many digits of a number tell something: without leading zeros, and of whole numbers without trailing ones."""
    import numpy as np

    size = np.round(counted)
    digits = np.floor(np.log10(np.maximum(size, 1))).astype(np.int64) + 1
    round_ = np.flatnonzero(~decimal)
    for _ in range(6):
        round_ = round_[(digits[round_] > 1) & (size[round_] % 10 == 0)]
        size[round_] /= 10
        digits[round_] -= 1
    return digits


def _ten(exponent: NDArray[np.int64]) -> NDArray[np.float64]:
    """Powers of ten, 0 where they are too small."""
    return _powers().take(exponent + _SMALLEST, mode="clip")


@lru_cache(maxsize=1)
def _powers() -> NDArray[np.float64]:
    import numpy as np

    return np.asarray(10.0 ** np.arange(-_SMALLEST, 309.0))


def _nulls(words: Words) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Where a null (as NaN), a true (1) or a false (0) is written."""
    import numpy as np

    length = words.end - words.start
    some = np.flatnonzero((length >= 3) & (length <= 5))
    hashes, places, values = words.hash[some], [], []
    for code, value in zip(_null_codes(), (np.nan, np.nan, np.nan, 1.0, 0.0), strict=True):
        here = words.start[some[hashes == code]]
        places.append(here)
        values.append(np.full(len(here), value))
    return np.concatenate(places), np.concatenate(values)


@lru_cache(maxsize=1)
def _null_codes() -> tuple[np.uint64, ...]:
    return tuple(words_of(b"nan null none true false").hash)


def _merged(
    read: _Read, nulls: tuple[NDArray[np.int64], NDArray[np.float64]], words: Words, raw: NDArray[np.uint8]
) -> Numbers:
    import numpy as np

    at = np.concatenate([read.start, nulls[0]])
    value = np.concatenate([read.value, nulls[1]])
    half = np.maximum(read.unit * (0.5 * (1 + 1e-9)), np.abs(read.value) * _FLOAT32)
    half = np.concatenate([half, np.full(len(nulls[1]), 1e-9)])
    digits = np.concatenate([read.digits, np.zeros(len(nulls[0]), np.int64)])
    if (at[1:] < at[:-1]).any():
        order = np.argsort(at, kind="stable")
        value, half, digits, at = value[order], half[order], digits[order], at[order]
    return Numbers(value, half, digits, at, _keys(raw, at, words))


def _keys(raw: NDArray[np.uint8], at: NDArray[np.int64], words: Words) -> NDArray[np.int64]:
    """The last word of each number's key, as in `"age": 5`, `age=5` and `age: "5"`; -1 without one."""
    import numpy as np

    key = np.full(len(at), -1)
    if not len(words.start):
        return key
    place = at - 1
    before = raw.take(place)
    place -= (before == 45) | (before == 43)
    some = np.flatnonzero(_between().take(raw.take(place)))  # few numbers of a list have a key
    place = _back(raw, place[some])
    mark = raw.take(place)
    named = np.flatnonzero((mark == 58) | (mark == 61))
    place = _back(raw, place[named] - 1)
    word = np.minimum(np.searchsorted(words.end, place + 1, "left"), len(words.end) - 1)
    key[some[named]] = np.where(words.end[word] == place + 1, word, -1)
    return key


@lru_cache(maxsize=1)
def _between() -> NDArray[np.bool_]:
    """What may stand between a key and its number."""
    import numpy as np

    table = np.zeros(256, dtype=bool)
    table[list(b" \"':=")] = True
    return table


def _back(raw: NDArray[np.uint8], place: NDArray[np.int64]) -> NDArray[np.int64]:
    """The places before up to two spaces, a quote and a space."""
    for marks in ((32,), (32,), (34, 39), (32,)):
        skip = raw[place] == marks[0]
        for mark in marks[1:]:
            skip = skip | (raw[place] == mark)
        place = place - skip.astype(place.dtype)
    return place
