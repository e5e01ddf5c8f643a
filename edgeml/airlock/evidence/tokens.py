"""The words and numbers of a text, found in arrays of bytes and not one by one: a log may have ten megabytes.

A word is a run of letters and digits, whatever its script; `_` and `-` separate words, so that a value is found in
`x0_value` and in an e-mail address. A number is an interval: "0.87" stands for all that is printed so, and no number
is exact beyond float32. Digits inside words, versions, dates, times, digests and paths are no numbers.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from hashlib import blake2b
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

CHUNK = 1 << 19
LONGEST = 4  # words of a gram
_FLOAT32 = 6.1e-8
_BASE, _ROUNDS = 0x9E3779B97F4A7C15, 0xD6E8FEB86659FD93
_SMALLEST = 330
_LANES = 64  # bytes of a word that are hashed along with those of all others


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
        text = unicodedata.normalize("NFKC", text).translate({0x2212: "-", 0x2010: "-", 0x2011: "-", 0x2013: "-"})
        if not text.isascii():
            # Of ASCII letters the case is folded when words are hashed, and kept for whoever needs it.
            text = text.translate({ord(letter): letter.lower() for letter in set(text) if not letter.isascii()})
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


def _piece(piece: bytes) -> tuple[Any, ...]:
    import numpy as np

    raw = np.frombuffer(b"\n\n\n\n" + piece + b"\n\n\n\n", dtype=np.uint8)
    words = _words(raw)
    return raw, words, *_numbers(raw, words)


def words_of(data: bytes) -> Words:
    """The words of `encoded` text alone."""
    import numpy as np

    parts = []
    for start, piece in _pieces(data):
        found = _words(np.frombuffer(b"\n\n\n\n" + piece + b"\n\n\n\n", dtype=np.uint8))
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
    """The data in pieces that end between tokens, as far as it has spaces or commas at all."""
    start = 0
    while len(data) - start > CHUNK:
        stop = max(data.rfind(mark, start, start + CHUNK) for mark in (b"\n", b" ", b",", b";", b"\t")) + 1
        stop = stop if stop > start else start + CHUNK
        yield start, data[start:stop]
        start = stop
    yield start, data[start:]


@lru_cache(maxsize=1)
def _tables() -> tuple[NDArray[np.uint8], NDArray[np.uint64]]:
    """Which bytes end a value, and the masks that leave the first bytes of eight."""
    import numpy as np

    ending = np.zeros(256, dtype=np.uint8)
    ending[list(b'\n\r\t"[]{}<>|=')] = 1
    return ending, np.array([(1 << 8 * size) - 1 for size in range(9)], dtype=np.uint64)


def _runs(inside: NDArray[np.bool_]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Where stretches of true begin and where the next false stands; the ends are false."""
    import numpy as np

    edges = np.flatnonzero(inside[1:] != inside[:-1]) + 1
    return edges[0::2], edges[1::2]


def _letters(raw: NDArray[np.uint8]) -> NDArray[np.bool_]:
    letters: NDArray[np.bool_] = ((raw | 32) - 97 < 26) | (raw >= 128)  # bytes wrap round
    return letters


def _words(raw: NDArray[np.uint8]) -> Words:
    import numpy as np

    ending, _ = _tables()
    start, end = _runs(_letters(raw) | (raw - 48 < 10))
    ends = ending.take(raw)
    ends[:-1] |= (raw[:-1] == 44) & (raw[1:] != 32)  # a list's comma; that of a sentence has a space
    ends[:-1] |= ends[1:] << 1
    ends[:-2] |= (ends[2:] & 1) << 2
    joined = np.zeros(len(start), dtype=bool)
    if len(start) > 1:
        gap = start[1:] - end[:-1]
        between = np.array([0, 1, 3, 7, 255], dtype=np.uint8).take(np.minimum(gap, 4))
        joined[:-1] = ((ends.take(end[:-1]) & between) == 0) & (gap <= 3)
    return Words(_hashes(raw, start, end), start, end, joined)


def _hashes(raw: NDArray[np.uint8], start: NDArray[np.int64], end: NDArray[np.int64]) -> NDArray[np.uint64]:
    """A hash of each word in lower case, by eight bytes at a time."""
    import numpy as np

    lower = np.zeros(len(raw) + 8, dtype=np.uint8)
    np.bitwise_or(raw, (raw - 65 < 26).view(np.uint8) << 5, out=lower[:-8])
    eight = np.ndarray((len(raw) + 1,), "<u8", lower.data, strides=(1,))
    _, masks = _tables()
    length = end - start
    value = _mixed(eight.take(start) & masks.take(np.minimum(length, 8)))
    longer, at = np.flatnonzero(length > 8), 8
    while len(longer) and at < _LANES:
        more = eight.take(start[longer] + at) & masks.take(np.minimum(length[longer] - at, 8))
        value[longer] = _mixed(value[longer] ^ more)
        at += 8
        longer = longer[length[longer] > at]
    for index in longer.tolist():  # few, as they are so long
        rest = blake2b(lower[start[index] + at : end[index]].data, digest_size=8).digest()
        value[index] ^= np.uint64(int.from_bytes(rest, "little"))
    return value


def _mixed(value: NDArray[np.uint64]) -> NDArray[np.uint64]:
    import numpy as np

    value = value * np.uint64(_BASE)
    value ^= value >> np.uint64(32)
    value *= np.uint64(_ROUNDS)
    value ^= value >> np.uint64(29)
    return value


def _numbers(raw: NDArray[np.uint8], words: Words) -> tuple[Numbers, Numbers | None, Numbers | None]:
    """The numbers as they stand, and the readings with decimal commas and of percents, where there are any."""
    import numpy as np

    runs = _Runs(raw, *_told(raw, *_runs(raw - 48 < 10)))
    plain = runs.read(46)
    nulls = _nulls(raw, words)
    first = _merged(plain, nulls, words, raw)
    commas = None
    comma = runs.read(44) if ((runs.gap == 1) & (runs.after == 44)).any() else None
    if comma is not None and len(comma.start):
        kept = ~np.isin(plain.start, comma.start) & ~np.isin(plain.start, comma.second)
        whole = _Read(*(np.concatenate([mine[kept], theirs]) for mine, theirs in zip(plain, comma, strict=True)))
        commas = _merged(whole, nulls, words, raw)
    percents = None
    if plain.percent.any():
        scale = np.where(plain.percent, 0.01, 1.0)
        percents = _merged(plain._replace(value=plain.value * scale, unit=plain.unit * scale), nulls, words, raw)
    return first, commas, percents


def _told(
    raw: NDArray[np.uint8], start: NDArray[np.int64], end: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The runs of digits without those of words ("P12", "4b1f"): a log's times and digests have more than its numbers.

    What has a letter before it is an exponent or no number. What has one after it is no number either, but decimals
    and exponents are, and what an exponent follows.
    """
    import numpy as np

    letter = _letters(raw)
    before, after = raw.take(start - 1), raw.take(end)
    beside = np.append(start[1:] - end[:-1], 1 << 30)[: len(start)]
    power = _exponents(raw, end, after, beside)
    told = np.append(False, power[:-1])[: len(start)]
    told |= ~(letter.take(start - 1) | ((letter.take(end) | (after == 95)) & ~power & (before != 46) & (before != 44)))
    return start[told], end[told]


def _exponents(
    raw: NDArray[np.uint8], end: NDArray[np.int64], after: NDArray[np.uint8], gap: NDArray[np.int64]
) -> NDArray[np.bool_]:
    """Whether a run is followed by an exponent, which is the next run."""
    powers: NDArray[np.bool_] = (after | 32) == 101
    then = raw.take(end + 1)
    powers &= (gap == 1) | ((gap == 2) & ((then == 43) | (then == 45)))
    return powers


class _Read(NamedTuple):
    value: NDArray[np.float64]
    unit: NDArray[np.float64]
    digits: NDArray[np.int64]
    start: NDArray[np.int64]
    second: NDArray[np.int64]
    percent: NDArray[np.bool_]


class _Runs:
    """Runs of digits, and the numbers that they make up."""

    def __init__(self, raw: NDArray[np.uint8], start: NDArray[np.int64], end: NDArray[np.int64]) -> None:
        import numpy as np

        self.raw, self.start, self.end = raw, start, end
        self.value, self.length = _values(raw, start, end)
        self.letter = _letters(raw) | (raw == 95)
        self.digit = raw - 48 < 10
        self.alnum = self.letter | self.digit
        self.gap = np.append(start[1:] - end[:-1], 1 << 30)[: len(start)]
        self.after = raw.take(end)
        self.power = _exponents(raw, end, self.after, self.gap)

    def read(self, mark: int) -> _Read:
        """The numbers with `mark` (a point, 46, or a comma, 44) before their decimals.

        With the point all numbers, with the comma those that have one and stand alone.
        """
        import numpy as np

        raw, count = self.raw, len(self.start)
        link = (self.gap == 1) & (self.after == mark)
        linked = np.append(False, link[:-1])[:count]
        head = ~linked & ~np.append(False, self.power[:-1] & ~self.letter[self.start[:-1] - 1])[:count]
        if mark == 44:
            other = (self.gap == 1) & (self.after == 46)
            chained = np.append(link[1:] | other[1:], False)[:count]
            head &= link & ~chained & (raw[self.start - 1] != 46) & (raw[self.start - 1] != 44)
        index = np.flatnonzero(head)
        has = link[index]
        last = index + has
        follow = np.append(link, False)[last]  # a second mark: a version, an address, a date
        power = self.power[last]
        final = last + power
        start, end = self.start[index], self.end[final]
        bare = (raw[start - 1] == 46) & ~self.alnum[start - 2] & ~has if mark == 46 else np.zeros(len(index), bool)
        before, earlier = raw[start - 1], raw[start - 2]
        after, later = raw[end], end + 1
        sign = (before == 45) | (before == 43)
        glued = sign & self.alnum[start - 2]
        exact = has | bare | power
        bad = follow & has
        bad |= (self.letter[start - 1] & ((before != 95) | ~exact)) | (self.letter[end] & (~has | power))
        bad |= ~exact & (glued | ((after == 45) & self.alnum[later]))
        bad |= ~exact & (((before == 47) & self.alnum[start - 2]) | ((after == 47) & self.alnum[later]))
        clock = self.length[index] <= 2
        pair = (self.length[index] == 2) & ~(self.digit[start - 3] & self.digit[start - 4])
        bad |= pair & (before == 58) & (earlier >= 48) & (earlier <= 57)
        bad |= clock & ~has & (after == 58) & (raw[later] >= 48) & (raw[later] <= 57)
        bad |= (before == 46) & ~bare
        bad |= power & (self.length[final] > 3)
        good = ~bad
        index, last, final, has, bare, power, glued, sign, start, end = (
            part[good] for part in (index, last, final, has, bare, power, glued, sign, start, end)
        )
        decimals = np.where(has, self.length[last], np.where(bare, self.length[index], 0))
        shift = np.where(power, self.value[final], 0.0).clip(0, 100).astype(np.int64)
        shift = np.where(power & (raw[self.start[final] - 1] == 45), -shift, shift)
        whole = np.where(bare, 0.0, self.value[index])
        part = np.where(has, self.value[last], np.where(bare, self.value[index], 0.0))
        value = (whole + part * _ten(-decimals.clip(0, 300))) * _ten(shift)
        unit = _ten(shift - decimals)
        value = np.where(sign & ~glued & (raw[start - 1] == 45), -value, value)
        return _Read(value, unit, _digits(value / unit, has | bare), start, self.start[last], raw[end] == 37)


def _values(
    raw: NDArray[np.uint8], start: NDArray[np.int64], end: NDArray[np.int64]
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """What runs of digits are worth, and how many they are; beyond seventeen digits they are rounded off."""
    import numpy as np

    length = end - start
    value = np.zeros(len(start))
    active = np.arange(len(start))
    for at in range(min(17, int(length.max(initial=0)))):
        active = active[length[active] > at]
        value[active] = value[active] * 10 + (raw[start[active] + at] - 48.0)
    value *= 10.0 ** np.clip(length - 17, 0, 100)
    return value, length


def _digits(counted: NDArray[np.float64], decimal: NDArray[np.bool_]) -> NDArray[np.int64]:
    """How many digits of a number tell something: without leading zeros, and of whole numbers without trailing ones."""
    import numpy as np

    size = np.abs(np.round(counted))
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


def _nulls(raw: NDArray[np.uint8], words: Words) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Where a null (as NaN), a true (1) or a false (0) is written."""
    import numpy as np

    places, values = [], []
    for code, value in zip(_null_codes(), (np.nan, np.nan, np.nan, 1.0, 0.0), strict=True):
        here = words.start[words.hash == code]
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
    half = np.concatenate(
        [np.maximum(read.unit / 2 * (1 + 1e-9), np.abs(read.value) * _FLOAT32), np.full(len(nulls[1]), 1e-9)]
    )
    digits = np.concatenate([read.digits, np.zeros(len(nulls[0]), np.int64)])
    order = np.argsort(at, kind="stable")
    at = at[order]
    return Numbers(value[order], half[order], digits[order], at, _keys(raw, at, words))


def _keys(raw: NDArray[np.uint8], at: NDArray[np.int64], words: Words) -> NDArray[np.int64]:
    """The last word of each number's key, as in `"age": 5`, `age=5` and `age: "5"`; -1 without one."""
    import numpy as np

    if not len(words.start):
        return np.full(len(at), -1)
    place = at - 1
    place = place - ((raw[place] == 45) | (raw[place] == 43))
    place = _back(raw, place)
    named = (raw[place] == 58) | (raw[place] == 61)
    place = _back(raw, np.where(named, place - 1, place))
    word = np.searchsorted(words.end, place + 1, "left")
    word = np.minimum(word, len(words.end) - 1)
    return np.where(named & (words.end[word] == place + 1), word, -1)


def _back(raw: NDArray[np.uint8], place: NDArray[np.int64]) -> NDArray[np.int64]:
    """The places before up to two spaces, a quote and a space."""
    for marks in ((32,), (32,), (34, 39), (32,)):
        skip = raw[place] == marks[0]
        for mark in marks[1:]:
            skip = skip | (raw[place] == mark)
        place = place - skip.astype(place.dtype)
    return place
