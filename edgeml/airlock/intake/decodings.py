"""The ways in which text is hidden in text: encodings, escapes, look-alike letters, decimal commas."""

from __future__ import annotations

import base64
import binascii
import contextlib
import html
import quopri
import re
import unicodedata
import zlib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from typing import TypeAlias
from urllib.parse import unquote_plus

from edgeml.airlock.intake import spans

RUNS = 20_000  # encoded runs that are looked at in one text

BASE64 = re.compile(r"(?<![A-Za-z0-9+/_-])(?:[A-Za-z0-9+/_-]{4}(?:\r?\n[ \t]*)?){4,}(?:[A-Za-z0-9+/_-]{2,3}={0,2})?")
BASE32 = re.compile(r"(?:[A-Z2-7]{8}){3,}(?:[A-Z2-7]{2,7}=*)?")
BASE85 = re.compile(r"[0-9A-Za-z!#$%&()*+;<=>?@^_`{|}~-]{40,}")
HEX = re.compile(r"(?<![0-9a-fA-F])(?:(?:0x|\\x)?[0-9a-fA-F]{2}[ :,]?){8,}")
PERCENT = re.compile(r"%[0-9A-Fa-f]{2}")
ENTITY = re.compile(r"&(?:#\d{2,7}|#x[0-9a-fA-F]{2,6}|[A-Za-z]{2,30});")
ESCAPE = re.compile(r"\\(?:u([0-9a-fA-F]{4})|U([0-9a-fA-F]{8})|x([0-9a-fA-F]{2})|([0-7]{3}))")
HEX_FLOAT = re.compile(r"0x[0-9a-f]\.[0-9a-f]{1,32}p[+-]?\d{1,4}", re.IGNORECASE)
UU = re.compile(r"^begin [0-7]{3,4} [^\n]*\n(.*?)^`?[ ]?\n?end", re.MULTILINE | re.DOTALL)
QUOTED = re.compile(r"=(?:[0-9A-F]{2}|\r?\n)")
BYTES = re.compile(r"(?:\d{1,3}[,;\s]\s*){12,}\d{1,3}")
COMMA = re.compile(r"(?<![\d.,])(-?\d{1,9}),(\d{1,18})(?![\d.,])")
POINT = re.compile(r"\d\.\d")
OTHERS = re.compile(r"[^\x00-\x7f]+")
# Letters of other scripts that look like ASCII's, and spaces that are not seen.
LOOKS = str.maketrans(
    dict(
        zip(
            "АВЕКМНОРСТУХЅІЈԚԜасеорхуіјѕԛԝһΑΒΕΖΗΙΚΜΝΟΡΤΥΧοαινρτυχ‐‑‒–—−ʼ’‘ˈ٫",
            "ABEKMHOPCTYXSIJQWaceopxyijsqwhABEZHIKMNOPTYXoaivptux------''''.",
            strict=True,
        )
    )
    | dict.fromkeys("\u00ad\u200b\u200c\u200d\u2060\ufeff\u180e", "")
)

_URL = bytes.maketrans(b"-_", b"+/")
LAST = frozenset({"decimal commas"})  # nothing more is looked for in these

Way: TypeAlias = Callable[[str, spans.Letters | None], Iterator[bytes | str]]


def of(text: str) -> Iterator[tuple[str, bytes | str]]:
    """Every decoding of a text that yields something, by its name: bytes where they were encoded, else text."""
    if len(text) <= spans.SHORT:
        for name, way in WAYS:
            yield from ((name, found) for found in islice(way(text, None), RUNS))
        return
    letters = spans.Letters(text)

    def found(way: tuple[str, Way]) -> list[bytes | str]:
        return list(islice(way[1](text, letters), RUNS))

    with ThreadPoolExecutor(2) as pool:  # what costs here lets other threads run
        for (name, _), several in zip(WAYS, pool.map(found, WAYS), strict=True):
            yield from ((name, one) for one in several)


def _runs(
    pattern: re.Pattern[str], decode: Callable[[str], bytes], where: Callable[[spans.Letters], spans.Spans]
) -> Way:
    def way(text: str, letters: spans.Letters | None) -> Iterator[bytes]:
        for start, end in [(0, len(text))] if letters is None else where(letters):
            for match in pattern.finditer(text, start, end):
                try:
                    data = decode(match[0])
                except (ValueError, binascii.Error):
                    continue
                if (plain := _plain(data)) is not None:
                    yield plain

    return way


def _plain(data: bytes) -> bytes | None:
    """Decoded bytes where they are something: text, a known format, or a bare compressed stream."""
    from edgeml.airlock.intake import formats

    if len(data) < 6:
        return None
    if formats.is_text(data):
        return data
    if data[:1] == b"\x78":
        try:
            return zlib.decompressobj().decompress(data, 32 << 20)
        except zlib.error:
            pass
    if formats.of(data) != "binary":
        return data
    return data if len(data) >= 64 else None  # numbers as they lie in memory


def _base64(run: str) -> bytes:
    kept = run.encode().translate(_URL, b" \t\r\n").rstrip(b"=")
    return base64.b64decode(kept[: len(kept) - (len(kept) % 4 == 1)] + b"==="[: -len(kept) % 4])


def _base32(run: str) -> bytes:
    kept = run.rstrip("=")
    return base64.b32decode(kept + "=" * (-len(kept) % 8))


def _hex(run: str) -> bytes:
    kept = re.sub(r"0x|\\x|[ :,]", "", run)
    return bytes.fromhex(kept[: len(kept) // 2 * 2])


def _decimals(run: str) -> bytes:
    return bytes(int(number) for number in re.split(r"[,;\s]+", run))


def _changed(text: str, found: str) -> Iterator[str]:
    """The lines that a decoding made new, so that the rest is not compared twice."""
    if found != text:
        known = set(text.splitlines())
        if lines := [line for line in found.splitlines() if line not in known]:
            yield "\n".join(lines)


def _percent(text: str, _: object) -> Iterator[str]:
    if PERCENT.search(text):
        lines = "\n".join(line for line in text.splitlines() if "%" in line or "+" in line)
        yield from _changed(lines, unquote_plus(lines, errors="replace"))


def _entities(text: str, _: object) -> Iterator[str]:
    if ENTITY.search(text):
        yield from _changed(text, html.unescape(text))


def _escapes(text: str, _: object) -> Iterator[str]:
    def letter(match: re.Match[str]) -> str:
        code = int(match[4], 8) if match[4] else int(match[1] or match[2] or match[3], 16)
        return chr(code) if code < 0x110000 else ""

    if ESCAPE.search(text):
        yield from _changed(text, ESCAPE.sub(letter, text))


def _hex_floats(text: str, _: object) -> Iterator[str]:
    """Numbers as C's `%a` and Python's `float.hex` write them."""

    def number(match: re.Match[str]) -> str:
        try:
            return repr(float.fromhex(match[0]))
        except OverflowError:
            return match[0]

    if HEX_FLOAT.search(text):
        yield from _changed(text, HEX_FLOAT.sub(number, text))


def _quoted(text: str, letters: spans.Letters | None) -> Iterator[str]:
    """Quoted-printable, in which every `=` is an escape; of lines with others, as `step=12 loss=0.5`, only the words
    with escapes, or a log would be compared twice."""
    if not QUOTED.search(text):
        return
    encoded = text if letters is None else letters.quoted(text)
    whole = quopri.decodestring(encoded.encode("utf-8", "replace")).decode("utf-8", "replace")
    yield from _changed(text, whole) if encoded is text else [whole]


def _uu(text: str, _: object) -> Iterator[bytes]:
    for match in UU.finditer(text) if "begin " in text else ():
        pieces = []
        for line in match[1].splitlines():
            with contextlib.suppress(ValueError, binascii.Error):
                pieces.append(binascii.a2b_uu(line))
        yield b"".join(pieces)


def _look(text: str, _: object) -> Iterator[str]:
    if not text.isascii():
        plain = unicodedata.normalize("NFKC", text)
        yield from _changed(text, OTHERS.sub(lambda run: run[0].translate(LOOKS), plain))


def _commas(text: str, letters: spans.Letters | None) -> Iterator[str]:
    """Numbers with decimal commas, where the text writes no decimal point in the same line."""
    if letters is None or not text.isascii():
        lines = text.splitlines() if "," in text else []
    else:
        lines = [text[start:end] for start, end in letters.comma_lines()]
    lines = [COMMA.sub(r"\1.\2", line) for line in lines if COMMA.search(line) and not POINT.search(line)]
    if lines:
        yield "\n".join(lines)


WAYS: tuple[tuple[str, Way], ...] = (
    ("base64", _runs(BASE64, _base64, spans.Letters.base64)),
    ("hexadecimal", _runs(HEX, _hex, spans.Letters.hexadecimal)),
    ("base32", _runs(BASE32, _base32, lambda letters: letters.long(spans.BASE32, 24, 6))),
    ("base85", _runs(BASE85, base64.b85decode, lambda letters: letters.long(spans.BASE85, 40))),
    ("bytes as numbers", _runs(BYTES, _decimals, lambda letters: letters.long(spans.BYTES, 25))),
    ("URL escapes", _percent),
    ("HTML entities", _entities),
    ("escapes", _escapes),
    ("hexadecimal floats", _hex_floats),
    ("quoted-printable", _quoted),
    ("uuencode", _uu),
    ("look-alike letters", _look),
    ("decimal commas", _commas),
)
