"""Texts in a model that only few private rows hold: categories, labels, n-grams, names, comments.

Each element of a vocabulary is looked up by itself; joined together, unrelated words would make phrases
that nobody wrote. An element counts where it is a whole cell of the table, a longer text also where some
of its words in a row are; the elements of a text vocabulary count where they are words of a row's text.
"""

from __future__ import annotations

import itertools
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Any

import onnx
import pyarrow as pa

from edgeml.airlock.finding import CONTENT, Finding, Rule
from edgeml.airlock.models.batch import strings
from edgeml.airlock.models.walk import Place, messages
from edgeml.contract import Contract

VOCABULARY = Rule(
    "model.vocabulary", CONTENT, "rare private texts",
    "a text of the model is one that fewer than k private rows hold", waivable=False,
)  # fmt: skip
RULES = (VOCABULARY,)

SHORTEST, WORDS = 4, 4
BARE_NUMBER = re.compile(r"[-+\s\d.,:/]+")
TOKEN = re.compile(r"\w+(?:[-'.@+]\w+)*")
WORD = re.compile(r"\w+")
POOLS = frozenset({"pool_strings", "cats_strings", "keys_strings", "values_strings", "classlabels_strings"})
NOT_TEXT = frozenset({"op_type", "nodes_modes", "post_transform", "aggregate_function", "kernel_type"})
Elements = dict[str, set[str]]


class Vocabularies:
    """The texts of some models, against the texts of the private rows."""

    def __init__(
        self, places: Iterable[tuple[str, Place]], models: Iterable[tuple[str, Any]], contract: Contract
    ) -> None:
        self.contract = contract
        self.public = {
            _normal(str(text))
            for column in contract.columns.values()
            if column.public and column.allowed
            for text in column.allowed
        } | {_normal(name) for name in contract.columns}
        self.cells: Elements = {}  # element -> where it lies, as "file\0place"
        self.phrases: Elements = {}  # n-grams of a text vocabulary
        self.longest = 1
        for file, place in places:
            if place.role not in NOT_TEXT:
                for text in place.strings:
                    self._add(f"{file}\0{place.where}", text, place.role)
        for file, model in models:
            for where, phrase in ngrams(model):
                self._phrase(f"{file}\0{where}", phrase)
        self.found: dict[str, Counter[str]] = {"cell": Counter(), "phrase": Counter()}
        self.columns: dict[str, str] = {}

    def _add(self, where: str, text: str, role: str) -> None:
        if telling := self._telling(text):
            self.cells.setdefault(telling, set()).add(where)
            if role in POOLS or role in ("initializer", "value", "t"):
                self._phrase(where, text)
        words = TOKEN.findall(text[:1_000_000])
        if len(words) > 1:  # a comment, a name made of several: any run of its words may be a cell
            for size in range(1, WORDS + 1):
                for start in range(len(words) - size + 1):
                    if telling := self._telling(" ".join(words[start : start + size])):
                        self.cells.setdefault(telling, set()).add(where)

    def _phrase(self, where: str, text: str) -> None:
        words = WORD.findall(_normal(text))
        if telling := self._telling(" ".join(words)):
            self.phrases.setdefault(telling, set()).add(where)
            self.longest = max(self.longest, min(len(words), 8))

    def _telling(self, text: str) -> str:
        """The text in the form in which it is looked up, or nothing if it cannot tell of anybody."""
        text = _normal(text)
        short = len(text) < SHORTEST or BARE_NUMBER.fullmatch(text)
        return "" if short or text in self.public else text

    def feed(self, batch: pa.RecordBatch) -> None:
        if not self.cells and not self.phrases:
            return
        for name, column in strings(batch).items():
            values = Counter(_normal(text) for text in column if text)
            for text, times in values.items():
                if text in self.cells:
                    self.found["cell"][text] += times
                    self.columns[text] = name
                if self.phrases:
                    for phrase in self._phrases_of(text) & self.phrases.keys():
                        self.found["phrase"][phrase] += times
                        self.columns.setdefault(phrase, name)

    def _phrases_of(self, text: str) -> set[str]:
        words = WORD.findall(text)
        sizes = range(1, min(self.longest, len(words)) + 1)
        return {" ".join(words[start : start + size]) for size in sizes for start in range(len(words) - size + 1)}

    def findings(self) -> Iterator[Finding]:
        rare: dict[str, list[str]] = {}
        for kind, elements in (("cell", self.cells), ("phrase", self.phrases)):
            for text, times in self.found[kind].items():
                whole = kind == "cell" or self.found["cell"][text] < self.contract.k
                if 0 < times < self.contract.k and whole:
                    for where in elements[text]:
                        rare.setdefault(where, []).append(text)
        for where, texts in sorted(rare.items()):
            file, place = where.split("\0", 1)
            columns = sorted({self.columns[text] for text in texts})
            yield Finding(
                VOCABULARY.id, file, place,
                f"holds {len(set(texts))} texts that fewer than {self.contract.k} private rows hold",
                "take categories from the contract's allowed values, and words that many rows share (min_df)",
                column=columns[0] if len(columns) == 1 else "", cells=len(set(texts)),
            )  # fmt: skip


def _normal(text: str) -> str:
    return " ".join(text.casefold().split())


def ngrams(model: Any) -> Iterator[tuple[str, str]]:
    """The n-grams of TfIdfVectorizer, whose words lie flat in one list: all of length 1, then of length 2, …"""
    for number, node in enumerate(message for message in messages(model) if isinstance(message, onnx.NodeProto)):
        if node.op_type != "TfIdfVectorizer":
            continue
        attributes = {a.name: a for a in node.attribute}
        if "pool_strings" not in attributes or "ngram_counts" not in attributes:
            continue
        pool = [text.decode("utf-8", "replace") for text in attributes["pool_strings"].strings]
        starts = [*attributes["ngram_counts"].ints, len(pool)]
        for size, (start, end) in enumerate(itertools.pairwise(starts), start=1):
            if 0 <= start <= end <= len(pool):
                for at in range(start, end - size + 1, size):
                    yield f"n-grams {number} (TfIdfVectorizer)", " ".join(pool[at : at + size])
