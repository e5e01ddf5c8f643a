"""The examiner of text: everything in what wants to leave that is private, as words, numbers and rows."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

from edgeml.airlock.evidence import bits, cells, near, rows, strings, window
from edgeml.airlock.evidence.corpus import Corpus
from edgeml.airlock.finding import Examiner, Finding, Rule, Text
from edgeml.airlock.private import Private

RULES: tuple[Rule, ...] = (*strings.RULES, *rows.RULES, *window.RULES, *cells.RULES)


class Evidence:
    """The examiners of text, fed together, two at a time: what they compute with lets other threads run."""

    def __init__(self, corpus: Corpus, private: Private) -> None:
        self._pool = ThreadPoolExecutor(2)
        private.profile  # noqa: B018 - once, before all ask for it
        makers: list[Callable[[], Any]] = [
            *(partial(rows.Rows, corpus, private, order) for order in _orders(private)),
            *(partial(kind, corpus, private) for kind in (Singles, strings.Strings)),
        ]
        self.parts: tuple[Examiner, ...] = tuple(self._pool.map(lambda make: make(), makers))

    def feed(self, batch: object) -> None:
        list(self._pool.map(lambda part: part.feed(batch), self.parts))

    def findings(self) -> list[Finding]:
        return [finding for part in self.parts for finding in part.findings()]

    @property
    def strongest(self) -> float:
        """The most bits that any row had, recognised or not; asked after `findings`."""
        return max(part.strongest for part in self.parts if isinstance(part, rows.Rows | Singles))


class Singles:
    """The examiners of numbers one by one, which look for the same cells."""

    def __init__(self, corpus: Corpus, private: Private) -> None:
        self._window, self._cells = window.Window(corpus, private), cells.Cells(corpus, private)
        least = {name: min(self._window.least(name), self._cells.least(name)) for name in bits.numeric(private)}
        least = {name: times for name, times in least.items() if times < math.inf}
        self._near = near.Near(corpus.distinct, private, least)

    def feed(self, batch: Any) -> None:
        for name in self._near.names:
            for row, which in self._near.pairs(batch, name):
                self._cells.take(name, which)
                self._window.take(name, row, which)
        self._window.close(batch.num_rows)

    def findings(self) -> list[Finding]:
        return [*self._window.findings(), *self._cells.findings()]

    @property
    def strongest(self) -> float:
        return self._window.strongest


def examiner(texts: Sequence[Text], private: Private) -> Evidence:
    """The examiner of `texts`, to be fed with every batch of `private` once."""
    return Evidence(Corpus(texts), private)


def _orders(private: Private) -> list[list[str]]:
    """The orders in which programs print the columns of numbers: as the table has them, and as models take them."""
    table = bits.numeric(private)
    features = [column.name for column in private.contract.features if column.name in table]
    first = table.index(features[0]) if features else 0
    alike = features == table[first : first + len(features)]
    # A long stretch of the table's own order is found as such; a short one may be too short for the table's keys.
    return [table] if alike and (first == 0 or len(features) > 2 * rows.WIDEST) else [table, features]
