"""JSON as text: its strings one by one, and the scalars of each object or list in a row.

A document, or a line that is one, is parsed where it is short or has escapes. Of a large text without escapes every
string already stands in the text as it is, and so do the scalars of most objects and lists; only those between which
other objects, lists or numbers as keys stand are put together, by the places of brackets and quotes.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

LARGE = 1 << 17  # characters from which on no document without escapes is parsed
_LINES = 100_000


def of(text: str, known: frozenset[str]) -> Iterator[tuple[str, str]]:
    """Places and texts. `known` are the keys that a place may name."""
    if len(text) < LARGE:
        yield from _parsed(_documents(text), known)
        return
    if "\\" in text:
        document = _document(text)
        if document is not None:
            yield from _parsed([document], known)
            return
        lines = text.splitlines()
        escaped = (_document(line) for line in lines[:_LINES] if "\\" in line)
        yield from _parsed((document for document in escaped if document is not None), known)
        text = "\n".join(line for line in lines if "\\" not in line)
    yield from (("$ values", found) for found in _scalars(text) if found)


def _documents(text: str) -> Iterator[Any]:
    """The document, or those of each line; a list where there is a scalar."""
    document = _document(text)
    if document is not None:
        yield document
        return
    yield from (found for line in text.splitlines()[:_LINES] if (found := _document(line)) is not None)


def _document(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None


def _parsed(documents: Iterable[Any], known: frozenset[str]) -> Iterator[tuple[str, str]]:
    """Strings one by one, and the scalars of each innermost object or list as one line."""
    for number, document in enumerate(documents):
        place = "$" if number == 0 else f"line {number + 1}"
        strings: dict[str, list[str]] = {}
        lines: dict[str, list[str]] = {}
        try:
            _flatten(document, place, known, strings, lines)
        except RecursionError:
            continue
        yield from ((where, "\n".join(found)) for where, found in strings.items())
        yield from ((where, "\n".join(found)) for where, found in lines.items())


def _flatten(
    value: Any, place: str, known: frozenset[str], strings: dict[str, list[str]], lines: dict[str, list[str]]
) -> None:
    children: Iterable[tuple[str, Any]]
    if isinstance(value, dict):
        children = [
            (f"{place}.{key if key in known else f'#{i}'}", item) for i, (key, item) in enumerate(value.items())
        ]
        strings.setdefault(f"{place} keys", []).extend(key for key in value if key not in known)
    elif isinstance(value, list):
        children = ((f"{place}[]", item) for item in value)
    else:
        children = [(place, value)]
    scalars = []
    for where, item in children:
        if isinstance(item, dict | list):
            _flatten(item, where, known, strings, lines)
        elif isinstance(item, str):
            strings.setdefault(where, []).append(item)
            scalars.append(item)
        elif isinstance(item, float | int) and not isinstance(item, bool) and math.isfinite(item):
            scalars.append(repr(item))
    if len(scalars) > 1:
        lines.setdefault(f"{place} values", []).append(" ".join(scalars))


def _scalars(text: str) -> Iterator[str]:
    """Of a text without escapes the strings that hold decimal commas, and the scalars of every object or list that are
    not already side by side, one a line and without the keys."""
    import numpy as np

    raw = np.frombuffer(text.encode("utf-8", "replace"), dtype=np.uint8).copy()
    quotes = _quotes(raw)
    opening, closing = quotes[0::2], quotes[1::2]
    digit = raw - 48 < 10
    commas = np.flatnonzero(digit[:-2] & digit[2:] & (raw[1:-1] == 44)) + 1
    strings = np.searchsorted(quotes, commas)
    strings = np.unique(strings[strings % 2 == 1]) // 2
    pairs = zip(opening[strings].tolist(), closing[strings].tolist(), strict=True)
    yield "\n".join(raw[first + 1 : last].tobytes().decode("utf-8", "replace") for first, last in pairs)

    glue = digit | ((raw | 32) - 97 < 26) | (raw == 95) | (raw == 46)
    key = _keys(raw, opening, closing)
    numeric = key & digit
    numeric[1:] &= ~glue[:-1]
    brackets = np.flatnonzero(((raw | 32) == 123) | ((raw | 32) == 125))
    brackets = brackets[np.searchsorted(quotes, brackets) % 2 == 0]
    if not len(brackets):
        return
    owner = _owners((raw[brackets] | 32) == 123)
    start, end = brackets + 1, np.append(brackets[1:], len(raw))
    numbered = _any(numeric, brackets)
    raw[key] = 32
    filled = _any(digit | ((raw | 32) - 97 < 26), brackets)
    several = np.bincount(owner, filled, minlength=len(brackets)) > 1
    several |= np.bincount(owner, numbered, minlength=len(brackets)) > 0
    some = np.flatnonzero(filled & several[owner])
    some = some[np.argsort(owner[some], kind="stable")]
    yield _lines(raw, start[some], end[some], owner[some])


def _quotes(raw: NDArray[np.uint8]) -> NDArray[np.int64]:
    """The places of quotes; of a line with an odd number of them, which is no JSON, none."""
    import numpy as np

    quotes = np.flatnonzero(raw == 34)
    line = np.searchsorted(np.flatnonzero(raw == 10), quotes)
    return quotes[(np.bincount(line, minlength=1) % 2 == 0)[line]] if len(quotes) else quotes


def _keys(raw: NDArray[np.uint8], opening: NDArray[np.int64], closing: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Which bytes are of a key, which is a string before a colon."""
    import numpy as np

    after = closing + 1
    for _ in range(2):
        after += raw.take(after, mode="clip") == 32
    named = raw.take(after, mode="clip") == 58
    edges = np.zeros(len(raw) + 1, dtype=np.int8)
    edges[opening[named]] += 1
    edges[closing[named]] -= 1
    return np.cumsum(edges[:-1], dtype=np.int8).view(bool)


def _owners(opens: NDArray[np.bool_]) -> NDArray[np.int64]:
    """For every bracket the one that opened what goes on behind it: the last that opened as deep."""
    import numpy as np

    depth = np.cumsum(np.where(opens, 1, -1))
    order = np.argsort(depth, kind="stable")
    last = np.maximum.accumulate(np.where(opens[order], np.arange(len(order)), 0))
    owner = np.empty(len(order), dtype=np.int64)
    owner[order] = order[last]
    return owner


def _any(marked: NDArray[np.bool_], begins: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Whether a byte from each place on and before the next one is marked."""
    import numpy as np

    return np.maximum.reduceat(marked.view(np.uint8), begins).view(bool)


def _lines(raw: NDArray[np.uint8], start: NDArray[np.int64], end: NDArray[np.int64], owner: NDArray[np.int64]) -> str:
    """The stretches, a space after each and a line's end after the last of each owner."""
    import numpy as np

    if not len(start):
        return ""
    length = end - start + 1
    behind = np.cumsum(length)
    place = np.arange(behind[-1]) + np.repeat(start - (behind - length), length)
    found = raw.take(place, mode="clip")
    found[behind - 1] = np.where(np.append(owner[1:] != owner[:-1], True), 10, 32)
    return str(found.tobytes(), "utf-8", "replace")
