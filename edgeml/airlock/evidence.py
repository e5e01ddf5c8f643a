"""The examiner of text: everything in what wants to leave that is private, as words, numbers and rows."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

from edgeml.airlock import bits, cells, rows, strings, window
from edgeml.airlock.corpus import Corpus
from edgeml.airlock.finding import Examiner, Finding, Rule, Text
from edgeml.airlock.private import Private

RULES: tuple[Rule, ...] = (*strings.RULES, *rows.RULES, *window.RULES, *cells.RULES)


class Evidence:
    """The examiners of text, fed together, two at a time: what they compute with lets other threads run."""

    def __init__(self, corpus: Corpus, private: Private) -> None:
        self._pool = ThreadPoolExecutor(2)
        self._scorers = [rows.Rows(corpus, private, order) for order in _orders(private)]
        self._window = window.Window(corpus, private)
        self.parts: tuple[Examiner, ...] = (
            *self._scorers,
            self._window,
            strings.Strings(corpus, private),
            cells.Cells(corpus, private),
        )

    def feed(self, batch: object) -> None:
        list(self._pool.map(lambda part: part.feed(batch), self.parts))

    def findings(self) -> list[Finding]:
        return [finding for part in self.parts for finding in part.findings()]

    @property
    def strongest(self) -> float:
        """The most bits that any row had, recognised or not; asked after `findings`."""
        return max(self._window.strongest, *(part.strongest for part in self._scorers))


def examiner(texts: Sequence[Text], private: Private) -> Evidence:
    """The examiner of `texts`, to be fed with every batch of `private` once."""
    return Evidence(Corpus(texts), private)


def _orders(private: Private) -> list[list[str]]:
    """The orders in which programs print the columns of numbers: as the table has them, and as models take them."""
    table = bits.numeric(private)
    features = [column.name for column in private.contract.features if column.name in table]
    return [table] if features == table[: len(features)] else [table, features]
