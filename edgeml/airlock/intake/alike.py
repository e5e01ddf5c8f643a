"""A file of one document a line without what is alike in them but for the numbers.

Trainers append the same document for each epoch. What rules say of most of them depends on keys and on how long lists
are, which is told once for all lines of a form. The form of a line is the line with 1 for each run of digits outside
of strings: it is JSON if and only if the line is, as long as no number begins with a zero too many.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

LEAST = 1 << 17  # letters of a text from which on this pays
_FORMS = 1_000  # different lines, at most


def shortened(text: str, silent: Callable[[str], bool | None]) -> str:
    """The text with an empty object or list for each line of whose form `silent` is true.

    The text is given as it is if it may be something else than one document a line: if `silent` knows no document for
    any form (None), or there are letters for which the form is not told here, as escapes.
    """
    if len(text) < LEAST or text[:1] not in ("{", "[") or not text.isascii() or "\\" in text:
        return text
    if text[: text.find("\n")].rstrip()[-1:] not in ("}", "]"):
        return text
    forms = _forms(text.encode())
    lines = forms.split("\n") if forms is not None else []
    known: dict[str, bool | None] = dict.fromkeys(lines)
    if not lines or len(known) > min(_FORMS, len(lines) // 4):
        return text
    for form in known:
        known[form] = silent(form) if form.strip() else False
        if known[form] is None:
            return text
    empty = {"{": "{}", "[": "[]"}
    return "\n".join(
        empty[form.lstrip()[0]] if known[form] else line for line, form in zip(text.split("\n"), lines, strict=True)
    )


def _forms(data: bytes) -> str | None:
    """The form of every line; None where one has an odd number of quotes or a number begins with a zero too many."""
    import numpy as np

    raw = np.frombuffer(data, dtype=np.uint8)
    quotes = np.flatnonzero(raw == 34)
    line = np.searchsorted(np.flatnonzero(raw == 10), quotes)
    if (np.bincount(line) & 1).any():
        return None
    edges = np.zeros(len(raw), dtype=np.int8)
    edges[quotes[0::2]], edges[quotes[1::2]] = 1, -1
    digit = raw - 48 < 10
    digit &= np.cumsum(edges, dtype=np.int8) == 0
    again = np.zeros(len(raw), dtype=bool)
    again[1:] = digit[1:] & digit[:-1]
    if _too_many_zeros(raw, digit, again):
        return None
    form = raw.copy()
    form[digit] = 49
    return form[~again].tobytes().decode("ascii")


def _too_many_zeros(raw: NDArray[np.uint8], digit: NDArray[np.bool_], again: NDArray[np.bool_]) -> bool:
    """Whether a run of several digits begins with a zero and follows neither a point nor an exponent."""
    import numpy as np

    zeros = np.flatnonzero((raw[:-1] == 48) & again[1:] & digit[:-1] & ~again[:-1])
    before, earlier = raw[zeros - 1], raw[zeros - 2] | 32  # a text begins with a bracket
    sign = (before == 43) | (before == 45)
    return not bool(np.all((before == 46) | (before | 32 == 101) | (sign & (earlier == 101))))
