"""All text that wants to leave as one run of bytes, with its tokens and the way back to file and line."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

from edgeml.airlock.evidence.join import ranges
from edgeml.airlock.evidence.tokens import Numbers, Tokens, encoded, tokens
from edgeml.airlock.finding import Text

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

NAME = "the file's name"


class Distinct(NamedTuple):
    """What differs among numbers, by value: a log prints the same rates and counts again and again.

    `which` tells for each number which it is; `order` holds the numbers, those of one after another, from `begins` on.
    """

    value: NDArray[np.float64]
    half: NDArray[np.float64]
    digits: NDArray[np.int64]
    which: NDArray[np.int32]
    order: NDArray[np.int32]
    begins: NDArray[np.int64]

    def numbers(self, which: NDArray[np.int64]) -> tuple[NDArray[np.int32], NDArray[np.int64]]:
        """All numbers that are one of `which`, and for each its place in `which`."""
        import numpy as np

        many = self.begins[which + 1] - self.begins[which]
        return self.order[np.repeat(self.begins[which], many) + ranges(many)], np.repeat(np.arange(len(which)), many)


def distinct(numbers: Numbers) -> Distinct:
    """The different numbers; some may come twice where numbers are equal but printed to different precision."""
    import numpy as np

    order = np.argsort(numbers.value).astype(np.int32)
    value, half, digits = numbers.value[order], numbers.half[order], numbers.digits[order]
    bits = value.view(np.int64)  # of which a null equals another
    first = np.ones(len(order), dtype=bool)
    first[1:] = (bits[1:] != bits[:-1]) | (half[1:] != half[:-1]) | (digits[1:] != digits[:-1])
    begins = np.flatnonzero(first)
    which = np.empty(len(order), dtype=np.int32)
    which[order] = np.cumsum(first, dtype=np.int32) - 1
    return Distinct(value[begins], half[begins], digits[begins], which, order, np.append(begins, len(order)))


class Corpus:
    """The texts, and after them the name of every file: a name can carry a value as well as a line."""

    def __init__(self, texts: Sequence[Text]) -> None:
        import numpy as np

        names = [Text(file, NAME, file) for file in dict.fromkeys(text.file for text in texts)]
        self._texts = [*texts, *names]
        parts = [encoded(text.text) for text in self._texts]
        lengths = np.array([0] + [len(part) + 1 for part in parts], dtype=np.int64)
        self._starts = np.cumsum(lengths)[:-1]
        self.data = b"\n".join(parts)  # a line's end: no value and no record goes on past it
        self.tokens: Tokens = tokens(self.data)
        self.distinct = distinct(self.tokens.numbers)

    def which(self, at: NDArray[np.int64]) -> NDArray[np.int64]:
        """The number of the text that holds each place."""
        import numpy as np

        return np.searchsorted(self._starts, at, "right") - 1

    def where(self, at: int) -> tuple[str, str]:
        """File and place, with the line where the text has several."""
        import numpy as np

        number = int(np.searchsorted(self._starts, at, "right")) - 1
        text = self._texts[number]
        if "\n" not in text.text:
            return text.file, text.place
        line = self.tokens.line(at) - self.tokens.line(int(self._starts[number])) + 1
        return text.file, f"{text.place}, line {line}" if text.place else f"line {line}"
