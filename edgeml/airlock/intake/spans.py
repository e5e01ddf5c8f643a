"""Where in a text something may be encoded, told for all of its bytes at once.

The patterns of `decodings` cost 400 ms a megabyte if they are tried at every letter. Each of them can match only inside
of a long stretch of its own letters, and such stretches are found in arrays a hundred times faster. A stretch that is
given may hold no match; one that holds a match is always given, whole, so that the pattern finds in it what it would
have found in the text.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from typing import TYPE_CHECKING

from edgeml.airlock.intake import formats

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

SHORT = 2048  # letters of a text for which the patterns alone are faster
BASE64, HEX, BASE32, BASE85, BYTES, DIGIT, LINE, HEXES = (1 << bit for bit in range(8))
_EIGHT = 0x0101010101010101  # eight bytes that are true
_INDENT = 4096  # spaces before the next line of an encoded word, at most
_TEXT, _REST, _LEAD, _NEVER = range(4)  # what a byte can be in UTF-8

Spans = Iterator[tuple[int, int]]


class Letters:
    """A text as one byte a letter, 255 for all that are not ASCII, and to which alphabets each belongs."""

    def __init__(self, text: str) -> None:
        import numpy as np

        if text.isascii():
            data = text.encode()
        else:
            wide = np.frombuffer(text.encode("utf-32-le", "surrogatepass"), dtype="<u4")
            data = np.where(wide < 128, wide, 255).astype(np.uint8).tobytes()
        self._data = data
        self.raw = np.frombuffer(data, dtype=np.uint8)
        self.kinds = np.frombuffer(data.translate(_kinds()), dtype=np.uint8)

    def among(self, kind: int) -> NDArray[np.bool_]:
        found: NDArray[np.bool_] = (self.kinds & kind) != 0
        return found

    def long(self, kind: int, least: int, tail: int = 0) -> Spans:
        """Stretches of at least so many letters of one alphabet, and what may follow as their `tail`.

        A stretch of 8n + 7 letters fills eight letters at n places divisible by eight, which are quickly told.
        """
        import numpy as np

        inside = self._padded(kind)
        start, end = runs(_full(inside))
        some = np.flatnonzero(end - start >= (least - 7) // 8)
        start, end = start[some] * 8 + 8, end[some] * 8 + 8
        eight = np.arange(8)
        start -= np.logical_and.accumulate(inside[start[:, None] - 1 - eight], axis=1).sum(axis=1)
        end += np.logical_and.accumulate(inside[end[:, None] + eight], axis=1).sum(axis=1)
        long = end - start >= least
        yield from zip((start[long] - 8).tolist(), (end[long] - 8 + tail).tolist(), strict=True)

    def base64(self) -> Spans:
        """Words of base64, over line ends where each line has a multiple of four letters, that decode to something."""
        import numpy as np

        indented = self._indented()
        inside = self._padded(BASE64)
        start, end = runs(self._edged(inside, None if indented else self._in_base64(inside)))
        length, after = end - start, self._at(end)
        gap = np.append(start[1:], end[-1:]) - end
        link = (length % 4 == 0) & (((after == 10) & (gap == 1)) | ((after == 13) & (gap == 2)))
        # Behind the line's end there may be spaces and tabs, which is rare enough to be looked at one by one.
        spaced = (length % 4 == 0) & ((after == 10) | (after == 13)) & (gap > 1)
        for at in np.flatnonzero(spaced).tolist() if indented else ():
            between = self.raw[end[at] : end[at] + min(gap[at], _INDENT)].tobytes()
            link[at] = between.rstrip(b" \t") in (b"\n", b"\r\n")
        link[-1:] = False
        start, end, link = _linked(start, end, link, length >= 16)
        if not len(start):
            return
        length, head, tail = end - start, *_chains(link)
        gap = np.append(start[1:], end[-1:]) - end
        quads = np.add.reduceat(length // 4, head)
        some = np.flatnonzero(quads >= 4)
        head, tail, quads = head[some], tail[some], quads[some]
        # Words that are too short to hold numbers as they lie in memory must begin like text or like a known format.
        sure = quads >= 16
        one = length[head]
        sure |= (one < 12) & (one + length[np.minimum(head + 1, len(length) - 1)] < 12)
        place = start[head][:, None] + np.arange(12)
        place += np.where(np.arange(12) >= one[:, None], gap[head][:, None], 0)
        six = _six().take(self._at(place)).astype(np.uint32).reshape(-1, 3, 4)
        three = six[..., 0] << 18 | six[..., 1] << 12 | six[..., 2] << 6 | six[..., 3]
        nine = np.stack([three >> 16, three >> 8 & 255, three & 255], axis=2).reshape(-1, 9)
        kept = np.flatnonzero(sure | _something(nine.astype(np.uint8)))
        yield from zip(start[head[kept]].tolist(), (end[tail[kept]] + 2).tolist(), strict=True)

    def hexadecimal(self) -> Spans:
        """Pairs of hexadecimal digits, together or with marks between, that decode to something."""
        import numpy as np

        start, end = runs(self._edged(self._padded(HEX), _around(_full(self._padded(HEXES)), 1)))
        length, after = end - start, self._at(end)
        gap = np.append(start[1:], end[-1:] + 9) - end
        crossed = (gap <= 3) & (np.append(self.raw.take(start[1:] - 1), 0)[: len(gap)] == 120)
        link = ((gap == 1) & (length % 2 == 0) & ((after == 32) | (after == 58) | (after == 44))) | crossed
        link[-1:] = False
        start, end, link = _linked(start, end, link, length >= 16)
        if not len(start):
            return
        length, head, tail = end - start, *_chains(link)
        some = np.flatnonzero(np.add.reduceat(length, head) >= 16)
        head, tail = head[some], tail[some]
        four = _four().take(self._at(start[head][:, None] + np.arange(16))).reshape(-1, 8, 2)
        sure = (head != tail) | (length[head] >= 100)
        kept = np.flatnonzero(sure | _something((four[..., 0] << 4 | four[..., 1]).astype(np.uint8)))
        yield from zip((start[head[kept]] - 2).clip(0).tolist(), (end[tail[kept]] + 1).tolist(), strict=True)

    def comma_lines(self) -> Spans:
        """Lines of ASCII with a comma between digits and no point between digits."""
        import numpy as np

        digit = self.among(DIGIT)
        if len(digit) < 3:
            return
        between = digit[:-2] & digit[2:]
        commas = np.flatnonzero(between & (self.raw[1:-1] == 44)) + 1
        if not len(commas):
            return
        points = np.flatnonzero(between & (self.raw[1:-1] == 46)) + 1
        ends = np.append(np.flatnonzero(self.among(LINE)), len(self.raw))
        many, others = (np.diff(np.append(0, np.searchsorted(marks, ends))) for marks in (commas, points))
        lines = np.flatnonzero((many > 0) & (others == 0))
        first = np.append(0, ends + 1)[lines]
        yield from zip(first.tolist(), ends[lines].tolist(), strict=True)

    def quoted(self, text: str) -> str:
        """The lines in which every `=` is one of quoted-printable's escapes, and of other lines the words with one that
        is not for a byte which no text has."""
        import numpy as np

        equals = np.flatnonzero(self.raw == 61)
        after, then = self._at(equals + 1), self._at(equals + 2)
        upper = _upper()
        escape = (upper.take(after) & upper.take(then)) | (after == 10) | ((after == 13) & (then == 10))
        told = escape & ((after > 49) | ((after == 48) & ((then == 57) | (then == 65) | (then == 68))) | (after < 48))
        if escape.all() or not text.isascii():
            return text
        ends = np.append(np.flatnonzero(self.raw == 10), len(self.raw))
        line = np.searchsorted(ends, equals)
        mixed = np.bincount(line, ~escape, minlength=len(ends)) > 0
        whole = np.unique(line[escape & ~mixed[line]])
        spaces = np.concatenate(
            [[-1], np.flatnonzero((self.raw == 32) | (self.raw == 9) | (self.raw == 10)), [len(text)]]
        )
        word = np.unique(np.searchsorted(spaces, equals[told & mixed[line]]))
        first = np.concatenate([np.append(0, ends + 1)[whole], spaces[word - 1] + 1])  # the words are of other lines
        last = np.concatenate([ends[whole] + 1, spaces[word] + 1])
        order = np.argsort(first)
        kept = zip(first[order].tolist(), last[order].tolist(), strict=True)
        return b"".join([self._data[start:end] for start, end in kept]).decode("ascii")

    def _padded(self, kind: int) -> NDArray[np.bool_]:
        """Which letters are of an alphabet, with eight before and up to sixteen behind them that are not."""
        import numpy as np

        inside = np.zeros(len(self.raw) // 8 * 8 + 24, dtype=bool)
        inside[8 : 8 + len(self.raw)] = self.among(kind)
        return inside

    def _edged(self, inside: NDArray[np.bool_], eights: NDArray[np.bool_] | None) -> NDArray[np.bool_]:
        """`inside` with one that is not before the first and after the last letter; without those of other `eights`."""
        import numpy as np

        if eights is not None:
            inside.view(np.uint64)[~eights] = 0
        return inside[7 : 9 + len(self.raw)]

    def _in_base64(self, inside: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """Which eight letters can be of words that are 16 letters long or go on behind a line's end.

        Other words that end or begin a line have no eight letters of their own, so they and a carriage return reach
        no further than two eights beside the line's end.
        """
        import numpy as np

        ends = np.zeros(len(inside), dtype=bool)
        np.equal(self.raw, 10, out=ends[8 : 8 + len(self.raw)])
        return _around(_full(inside), 1) | _around(ends.view(np.uint64) != 0, 2)

    def _indented(self) -> bool:
        """Whether a line begins with a space or tab."""
        return b"\n " in self._data or b"\n\t" in self._data

    def _at(self, place: NDArray[np.int64]) -> NDArray[np.uint8]:
        """The letters at places, of which some may lie behind the end."""
        return self.raw.take(place, mode="clip")


def _full(inside: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Which eight letters, from each eighth on, are all of an alphabet: a stretch of 15 has eight such."""
    import numpy as np

    return np.asarray(inside.view(np.uint64) == _EIGHT)


def _around(eights: NDArray[np.bool_], reach: int) -> NDArray[np.bool_]:
    """These and so many before and behind them: where a stretch ends that fills them."""
    wide = eights.copy()
    for step in range(1, reach + 1):
        wide[step:] |= eights[:-step]
        wide[:-step] |= eights[step:]
    return wide


def runs(edged: NDArray[np.bool_]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Where stretches of true begin and end among all but the first and last, which are false."""
    import numpy as np

    edges = np.flatnonzero(edged[1:] != edged[:-1])
    return edges[0::2], edges[1::2]


def _linked(
    start: NDArray[np.int64], end: NDArray[np.int64], link: NDArray[np.bool_], alone: NDArray[np.bool_]
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.bool_]]:
    """The stretches that are linked to the next or the last one, or are enough `alone`."""
    import numpy as np

    kept = alone | link
    kept[1:] |= link[:-1]
    some = np.flatnonzero(kept)
    return start[some], end[some], link[some]


def _chains(link: NDArray[np.bool_]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The first and the last of those that are linked to one another."""
    import numpy as np

    head = np.flatnonzero(np.append(True, ~link[:-1]))
    return head, np.append(head[1:], len(link)) - 1


def _something(data: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """Of rows of eight bytes or more those that may begin text (in any encoding) or a known format."""
    import numpy as np

    follows = np.zeros((4, 4), dtype=bool)  # of each kind of byte what may come next
    follows[_TEXT, [_TEXT, _LEAD]] = follows[_LEAD, _REST] = follows[_REST, [_TEXT, _REST, _LEAD]] = True
    kinds, starts, onnx = _beginnings()
    kind = kinds.take(data)
    text = kind[:, 0] != _REST
    for at in range(data.shape[1]):
        text &= kind[:, at] != _NEVER
        if at:
            text &= follows[kind[:, at - 1], kind[:, at]]
    known = starts.take(data[:, 0].astype(np.int64) << 8 | data[:, 1])
    known &= onnx.take(data[:, 2]) | ((data[:, 0] != 0x08) & (data[:, 0] != 0x12))
    # Of UTF-16 and UTF-32 nine letters of ten are below 0x250, with every other byte at most 2 (of 24 letters all
    # but two); or there is a mark.
    wide = ((data[:, 0:8:2] > 2).sum(axis=1) < 3) | ((data[:, 1:8:2] > 2).sum(axis=1) < 3)
    marked = (data[:, 0] & 254 == 254) & (data[:, 1] & 254 == 254)
    return np.asarray(text | known | wide | marked)


@lru_cache(maxsize=1)
def _beginnings() -> tuple[NDArray[np.uint8], NDArray[np.bool_], NDArray[np.bool_]]:
    """What each byte can be in UTF-8, which two begin a known format (see `formats`), which is ONNX's third."""
    import numpy as np

    kinds = np.full(256, _NEVER, dtype=np.uint8)
    kinds[list(b"\t\n\r\x0b\x0c\x1b")] = kinds[32:128] = _TEXT
    kinds[128:192], kinds[194:245] = _REST, _LEAD
    starts = np.zeros((256, 256), dtype=bool)
    for magic, _ in formats.MAGIC:
        starts[magic[0], magic[1]] = True
    starts[0x78, (0x7800 + np.arange(256)) % 31 == 0] = True  # zlib at any level
    starts[0x80, 2:6] = True  # pickle
    starts[0x08, 1:33] = starts[0x12, 1:65] = True  # ONNX
    onnx = np.zeros(256, dtype=bool)
    onnx[list(b"\x12\x1a\x22\x28\x32\x3a\x42ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz")] = True
    return kinds, starts.reshape(-1), onnx


@lru_cache(maxsize=1)
def _kinds() -> bytes:
    """The alphabets of each letter; those of other scripts may be digits and spaces."""
    import numpy as np

    kinds = np.zeros(256, dtype=np.uint8)
    digits, upper, lower = b"0123456789", bytes(range(65, 91)), bytes(range(97, 123))
    for kind, letters in (
        (BASE64, digits + upper + lower + b"+/_-"),
        (HEX, digits + b"abcdefABCDEF"),
        (BASE32, upper + b"234567"),
        (BASE85, digits + upper + lower + b"!#$%&()*+;<=>?@^_`{|}~-"),
        (BYTES, digits + b",; \t\n\r\x0b\x0c\x1c\x1d\x1e\x1f"),
        (DIGIT, digits),
        (LINE, b"\n\r\x0b\x0c\x1c\x1d\x1e"),  # where str.splitlines ends a line
        (HEXES, digits + b"abcdefABCDEF :,x\\"),  # of hexadecimal digits and what may stand between them
    ):
        kinds[list(letters)] |= kind
    kinds[255] = BYTES
    return kinds.tobytes()


@lru_cache(maxsize=1)
def _upper() -> NDArray[np.bool_]:
    """The digits of quoted-printable's escapes."""
    import numpy as np

    upper = np.zeros(256, dtype=bool)
    upper[list(b"0123456789ABCDEF")] = True
    return upper


@lru_cache(maxsize=1)
def _six() -> NDArray[np.uint8]:
    """The six bits of each letter of base64."""
    import numpy as np

    six = np.zeros(256, dtype=np.uint8)
    six[list(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/")] = np.arange(64)
    six[list(b"-_")] = 62, 63
    return six


@lru_cache(maxsize=1)
def _four() -> NDArray[np.uint8]:
    """The four bits of each hexadecimal digit."""
    import numpy as np

    four = np.zeros(256, dtype=np.uint8)
    four[list(b"0123456789abcdef")] = np.arange(16)
    four[list(b"ABCDEF")] = np.arange(10, 16)
    return four
