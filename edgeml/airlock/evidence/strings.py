"""Private text recognised in what wants to leave: rare values whole, longer ones by four words in a row.

A value is rare in fewer than k rows, whatever is written around it and in whichever case. The words that want to
leave are the index; the table's values stream past it and are counted only where they hit.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, NamedTuple

from edgeml.airlock.evidence.corpus import Corpus
from edgeml.airlock.evidence.tokens import LONGEST, encoded, grams, words_of
from edgeml.airlock.evidence.words import COMMON
from edgeml.airlock.finding import Finding, Rule
from edgeml.airlock.private import STRING, Private

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

RARE = Rule(
    "rare-value",
    "content",
    "A value that fewer than k rows of the private table hold",
    "A value that few rows share names them. Where it must leave, the data contract says so with `public: true`.",
    waivable=False,
)
PHRASE = Rule(
    "private-phrase",
    "content",
    "Four or more words in a row of a private text",
    "Notes and messages are private as a whole, so parts of them that few rows share may not leave.",
    waivable=False,
)
RULES = (RARE, PHRASE)
SHORTEST = 4  # characters of a value that can be rare
_PHONE = 8  # digits of a value of several groups, which are not a date
_DATE = re.compile(r"(19|20)\d\d (0[1-9]|1[0-2]) [0-3]\d( .*)?|[0-3]\d [0-3]\d (19|20)\d\d( .*)?")
_MOST = 1_000_000  # hits that are remembered; past that, enough is known
_LETTERS = bytes(byte for byte in range(256) if byte >= 128 or chr(byte).isalpha())
_CHOICES = {"9": 10.0, "a": 26.0, "h": 16.0}


class _Hit(NamedTuple):
    text: str
    plain: str
    words: int
    whole: bool


class Strings:
    """The examiner of text columns."""

    def __init__(self, corpus: Corpus, private: Private) -> None:
        self._corpus, self._private = corpus, private
        columns = private.columns.values()
        self._columns = [column.name for column in columns if column.kind == STRING and not column.public]
        self._public = set(COMMON) | {word for name in private.columns for word in _plain(encoded(name)).split()}
        self._allowed = {
            _plain(encoded(str(value)))
            for column in private.contract.columns.values()
            if column.public
            for value in column.allowed or ()
        }
        self._hits: dict[tuple[str, int], _Hit] = {}
        self._counts: dict[tuple[str, int], int] = {}
        self._sieves: dict[int, NDArray[np.bool_]] = {}

    def feed(self, batch: Any) -> None:
        for column in self._columns:
            entries = batch[column].drop_null().value_counts()
            if len(entries) and len(self._hits) < _MOST:
                self._probe(column, entries.field(0), entries.field(1).to_numpy())

    def findings(self) -> list[Finding]:
        """One finding for each file, column and rule, at the first place."""
        k = self._private.contract.k
        rare = {key: hit for key, hit in self._hits.items() if self._counts[key] < k and self._names(hit)}
        found = [(key, at) for key, at, end in self._places(rare) if self._stands(rare[key], at, end)]
        chance = self._by_chance({rare[key].plain for key, _ in found if rare[key].words == 1})
        groups: dict[tuple[str, str, str], tuple[Finding, set[int]]] = {}
        for (column, code), at in found:
            hit = rare[column, code]
            if hit.words == 1 and _shape(hit.plain) in chance:
                continue
            rule = RARE if hit.whole else PHRASE
            file, place = self._corpus.where(at)
            group = groups.setdefault((file, column, rule.id), (_finding(rule, file, place, column, k), set()))
            group[1].add(code)
        result = []
        for (_, column, _), (finding, codes) in groups.items():
            rows = sum(self._counts[column, code] for code in codes)
            result.append(finding._replace(rows=rows, cells=len(codes)))
        return result

    def _leaves(self, codes: NDArray[np.uint64], size: int) -> NDArray[np.bool_]:
        """Whether grams of `size` words may be among those that want to leave; the index is made when first asked."""
        import numpy as np

        if size not in self._sieves:
            index = grams(self._corpus.tokens.words, size)[0]
            width = min(26, max(12, (8 * len(index)).bit_length()))
            sieve = np.zeros(1 << width, dtype=bool)
            for slots in _slots(index, width):
                sieve[slots] = True
            self._sieves[size] = sieve
        sieve = self._sieves[size]
        upper, lower = _slots(codes, len(sieve).bit_length() - 1)
        return np.asarray(sieve.take(upper) & sieve.take(lower))

    def _probe(self, column: str, values: Any, rows: NDArray[np.int64]) -> None:
        """Count the values (a `pyarrow.StringArray`) that may be among what wants to leave, each with its rows."""
        import numpy as np

        data, starts = _joined(values)
        words = words_of(data)
        leaves = self._leaves(words.hash, 1)  # a value that holds another word than those that want to leave is none
        if not leaves.any():
            return
        value = np.searchsorted(starts, words.start, "right") - 1
        same = np.append(value[1:] == value[:-1], False)
        count = np.bincount(value, minlength=len(values))
        for size in range(1, LONGEST + 1):
            codes, firsts = grams(words._replace(joined=same), size)
            wanted = count[value[firsts]] == size
            if size == LONGEST:
                wanted |= count[value[firsts]] > size
            for at in range(size):
                wanted &= leaves[firsts + at]
            codes, firsts = codes[wanted], firsts[wanted]
            if not len(codes):
                continue
            found = self._leaves(codes, size)
            for code, first in zip(codes[found].tolist(), firsts[found].tolist(), strict=True):
                whole = int(count[value[first]]) <= LONGEST
                key = (column, code)
                self._counts[key] = self._counts.get(key, 0) + int(rows[value[first]])
                if key not in self._hits:
                    part = data[int(words.start[first]) : int(words.end[first + size - 1])]
                    text = values[int(value[first])].as_py() if whole else part.decode("utf-8", "replace")
                    self._hits[key] = _Hit(text, _plain(encoded(text)), size, whole)

    def _names(self, hit: _Hit) -> bool:
        """Whether a rare value can name rows at all."""
        plain = hit.plain
        if plain in self._allowed or len(plain) < SHORTEST or _bare(hit.text):
            return False
        unusual = sum(word not in self._public and not word.isdigit() for word in plain.split())
        digits = plain.replace(" ", "")
        if digits.isdigit():
            return hit.whole and len(digits) >= _PHONE and not _DATE.fullmatch(plain)
        return hit.whole or unusual >= 2

    def _places(self, rare: dict[tuple[str, int], _Hit]) -> Iterator[tuple[tuple[str, int], int, int]]:
        """Where rare values stand: key, first byte and the byte after, in order for each number of words."""
        import numpy as np

        words = self._corpus.tokens.words
        for size in range(1, LONGEST + 1):
            keys = sorted((code, column) for (column, code), hit in rare.items() if hit.words == size)
            if not keys:
                continue
            codes, firsts = grams(words, size)
            wanted = np.array([code for code, _ in keys], dtype=np.uint64)
            sieve = np.zeros(1 << 16, dtype=bool)
            sieve[wanted >> np.uint64(48)] = True
            maybe = np.flatnonzero(sieve[codes >> np.uint64(48)])
            begin = np.searchsorted(wanted, codes[maybe], "left")
            stop = np.searchsorted(wanted, codes[maybe], "right")
            for at, first, last in zip(firsts[maybe].tolist(), begin.tolist(), stop.tolist(), strict=True):
                for index in range(first, last):
                    code, column = keys[index]
                    yield (column, code), int(words.start[at]), int(words.end[at + size - 1])

    def _stands(self, hit: _Hit, at: int, end: int) -> bool:
        """Whether the value stands at this place by more than chance, and is no word of everyday use."""
        data = self._corpus.data
        if hit.words == 1 and data[at:end].decode("utf-8", "replace").lower() != hit.plain:
            return False
        if hit.whole and all(word in self._public for word in hit.plain.split()):
            quoted = data[at - 1 : at] in (b'"', b"'") and data[end : end + 1] in (b'"', b"'")
            return quoted and data[at:end] == encoded(hit.text)
        return True

    def _by_chance(self, codes: set[str]) -> set[str]:
        """The shapes of codes ("a1f3") of which no more were met than among so many of that shape by chance."""
        met = Counter(shape for shape in map(_shape, codes) if shape)
        chance = set()
        for shape, many in met.items():
            space = math.prod(_CHOICES[letter] for letter in shape)
            expected = self._alike(shape) * self._private.rows / space
            if expected > 0.03 and many <= 4 * expected + 3:
                chance.add(shape)
        return chance

    def _alike(self, shape: str) -> int:
        """How many different words of this shape want to leave."""
        import numpy as np

        words = self._corpus.tokens.words
        which = np.flatnonzero(words.end - words.start == len(shape))
        table = np.zeros((2, 256), dtype=bool)
        for row, letters in enumerate((b"0123456789", b"0123456789abcdefABCDEF" if "h" in shape else _LETTERS)):
            table[row, list(letters)] = True
        raw = np.frombuffer(self._corpus.data, dtype=np.uint8)
        alike = np.ones(len(which), dtype=bool)
        for at, letter in enumerate(shape):
            alike &= table[0 if letter == "9" else 1][raw[words.start[which] + at]]
        return len(np.unique(words.hash[which[alike]]))


def _joined(values: Any) -> tuple[bytes, NDArray[np.int64]]:
    """The encoded values (a `pyarrow.StringArray`) with a line's end between them, and where each begins."""
    import numpy as np
    import pyarrow as pa
    import pyarrow.compute as pc

    whole = pa.ListArray.from_arrays(pa.array([0, len(values)], pa.int32()), values)
    data = pc.binary_join(whole, "\n")[0].as_buffer().to_pybytes()
    if data.isascii():
        lengths = pc.binary_length(values).to_numpy()
    else:
        parts = [encoded(value) for value in values.to_pylist()]
        data, lengths = b"\n".join(parts), np.array([len(part) for part in parts])
    return data, np.concatenate([[0], np.cumsum(lengths + 1, dtype=np.int64)[:-1]])


def _slots(codes: NDArray[np.uint64], width: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Two places of each code in a table of 2 ** width."""
    import numpy as np

    upper, lower = codes >> np.uint64(64 - width), codes & np.uint64((1 << width) - 1)
    return upper.view(np.int64), lower.view(np.int64)


def _shape(word: str) -> str:
    """The form of a code: hexadecimal ("hhhh"), or letters and digits ("a999"); "" for a word of letters alone."""
    if set(word) <= set("0123456789abcdef"):
        return "h" * len(word)
    if not any(letter.isdigit() for letter in word):
        return ""
    return "".join("9" if letter.isdigit() else "a" for letter in word)


def _finding(rule: Rule, file: str, place: str, column: str, k: int) -> Finding:
    if rule is RARE:
        message = f"a value of {column} that fewer than {k} rows hold stands here"
        fix = f"leave it out or merge rare values, or declare {column} public in the data contract if it is"
    else:
        message = f"words in a row of {column} that fewer than {k} rows hold stand here"
        fix = f"leave out what is taken from {column}"
    return Finding(rule.id, file, place, message, fix, column)


def _plain(data: bytes) -> str:
    """The words of encoded text in lower case with a space between them."""
    words = words_of(data)
    parts = (data[a:b] for a, b in zip(words.start.tolist(), words.end.tolist(), strict=True))
    return b" ".join(parts).decode("utf-8", "replace").lower()


def _bare(text: str) -> bool:
    try:
        float(text.replace(",", "."))
    except ValueError:
        return False
    return True
