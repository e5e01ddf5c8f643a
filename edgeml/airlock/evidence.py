"""The examiner of text: everything in what wants to leave that is private, as words, numbers and rows."""

from __future__ import annotations

from collections.abc import Sequence

from edgeml.airlock import bits, cells, rows, strings, window
from edgeml.airlock.corpus import Corpus
from edgeml.airlock.finding import Examiner, Finding, Rule, Text
from edgeml.airlock.private import Private

RULES: tuple[Rule, ...] = (*strings.RULES, *rows.RULES, *window.RULES, *cells.RULES)


class _All:
    """Several examiners that are fed together."""

    def __init__(self, parts: Sequence[Examiner]) -> None:
        self.parts = parts

    def feed(self, batch: object) -> None:
        for part in self.parts:
            part.feed(batch)

    def findings(self) -> list[Finding]:
        return [finding for part in self.parts for finding in part.findings()]


def examiner(texts: Sequence[Text], private: Private) -> Examiner:
    """The examiner of `texts`, to be fed with every batch of `private` once."""
    corpus = Corpus(texts)
    parts: list[Examiner] = [kind(corpus, private) for kind in (strings.Strings, window.Window, cells.Cells)]
    return _All([*parts, *(rows.Rows(corpus, private, order) for order in _orders(private))])


def _orders(private: Private) -> list[list[str]]:
    """The orders in which programs print the columns of numbers: as the table has them, and as models take them."""
    table = bits.numeric(private)
    features = [column.name for column in private.contract.features if column.name in table]
    return [table] if features == table[: len(features)] else [table, features]
