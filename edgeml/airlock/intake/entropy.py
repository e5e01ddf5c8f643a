"""How much the strings of a file could carry beyond what their words say.

A schema gives every string a form, but three hundred letters of any form hold two hundred bytes for those who
want them to. Words of a language and of programs seldom change between capitals, small letters and digits within
a word; base64 does it in two pairs of letters out of three, hexadecimal in one of two, base32 in one of three. So a
string with too many such changes is refused. What all strings of a file can tell together is bounded by what is left
of them when they are compressed.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Collection, Iterator
from itertools import pairwise
from typing import Any

LONG_WORD, LONG_TEXT = 12, 32  # pairs of neighbours within words, from which on the changes between them are counted
CHANGES = 0.25  # of those pairs
BUDGET = 2048  # bytes of all strings of a file, compressed

WORD = re.compile(r"[A-Za-z0-9]+(?:[+/=_-]+[A-Za-z0-9]+)*")
PIECE = re.compile(r"[A-Z]+|[a-z]+|[0-9]+")
RUN = re.compile(r"[A-Za-z0-9]+")


def encoded(text: str, known: Collection[str] = ()) -> bool:
    """Whether a string, or a word of it that is not known, looks like an encoding of something else."""
    words = [_pairs(word) for word in WORD.findall(text) if word not in known]
    whole = (sum(pairs for pairs, _ in words), sum(changes for _, changes in words))
    return any(_many(*word, LONG_WORD) for word in words) or _many(*whole, LONG_TEXT)


def _many(pairs: int, changes: int, least: int) -> bool:
    return pairs >= least and changes > CHANGES * pairs


def _pairs(word: str) -> tuple[int, int]:
    """How many letters and digits follow one another, and how often their kind changes.

    A capital before small letters begins a word: that is one change and not two.
    """
    pairs = changes = 0
    for run in RUN.findall(word):
        pieces = PIECE.findall(run)
        begun = sum(a.isupper() and b.islower() for a, b in pairwise(pieces) if len(a) == 1)
        pairs, changes = pairs + len(run) - 1, changes + len(pieces) - 1 - begun
    return pairs, changes


def excess(document: Any, known: Collection[str]) -> str:
    """Why the strings of a document could carry too much, or nothing. `known` are words that a contract gives."""
    strings = sorted({text for text in _strings(document) if text not in known})
    if any(encoded(text, known) for text in strings):
        return "a string looks like an encoding"
    if len(zlib.compress("\n".join(strings).encode(), 9)) > BUDGET:
        return f"its strings tell more than {BUDGET} bytes"
    return ""


def _strings(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for key, item in value.items():
            yield key
            yield from _strings(item)
    elif isinstance(value, list):
        for item in value:
            yield from _strings(item)
