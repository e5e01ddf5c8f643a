"""All text that wants to leave as one run of bytes, with its tokens and the way back to file and line."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from edgeml.airlock.finding import Text
from edgeml.airlock.tokens import Tokens, encoded, tokens

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

NAME = "the file's name"


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
