"""One look of the gate at one folder, and what the suite wants to know of it."""

from __future__ import annotations

import os
import re
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from edgeml import contract
from edgeml.airlock import evidence, gate, rules
from edgeml.airlock.finding import CONTENT, Finding
from edgeml.airlock.intake import inventory, unwrap, views
from edgeml.airlock.private import open_private

from .release import copy_release, on_disk, papers
from .table import Table
from .vectors import Vector

BROKEN = ("gate.error", "table.invalid")  # the gate could not look: no merit of any rule
UNEXAMINED = "model.unexamined"  # it refuses what it could not compare, which is right and no recognition


@dataclass(frozen=True)
class Judged:
    """What the gate said, by which rules, in how many seconds, and every text and file that it wrote."""

    findings: tuple[Finding, ...]
    verdict: str
    seconds: float
    megabytes: float
    written: dict[str, bytes]
    approved: dict[str, bytes]

    @property
    def blocked(self) -> bool:
        return self.verdict == gate.BLOCKED

    @property
    def content(self) -> tuple[Finding, ...]:
        """What somebody recognised who compared the folder with the private rows."""
        return tuple(found for found in self.alarms if found.rule != UNEXAMINED)

    @property
    def alarms(self) -> tuple[Finding, ...]:
        """What no honest output may cause, listed or not."""
        return tuple(found for found in self.findings if self._kind(found) == CONTENT)

    @property
    def rules(self) -> tuple[str, ...]:
        return tuple(sorted({found.rule for found in self.findings}))

    @property
    def content_rules(self) -> tuple[str, ...]:
        return tuple(sorted({found.rule for found in self.content}))

    @property
    def broken(self) -> tuple[Finding, ...]:
        return tuple(found for found in self.findings if found.rule in BROKEN)

    @staticmethod
    def _kind(found: Finding) -> str:
        rule = rules.known().get(found.rule)
        return "" if rule is None or found.rule in BROKEN else rule.kind

    def told(self) -> list[str]:
        """Rule, place and message of every finding, for the reader of a failed test."""
        return [f"{found.rule} {found.file} {found.place} {found.bits:.0f} {found.message}" for found in self.findings]


def judge(table: Table, make: Callable[[Path], Path], work: Path | None = None) -> Judged:
    """Make a folder and let the whole gate decide about it, with a state of its own."""
    with tempfile.TemporaryDirectory(prefix="edgeml-judge-", dir=work) as temporary:
        home = Path(temporary)
        folder = make(home / "artifacts")
        data, rules_of_data = on_disk(table)
        manifest, validation = papers(table)
        size = sum(_size(Path(root) / name) for root, _, names in os.walk(folder) for name in names)
        began = time.perf_counter()
        verdict = gate.check(
            [data], rules_of_data, folder, home / "out", manifest=manifest, validation=validation, state=home / "state"
        )
        seconds = time.perf_counter() - began
        written = _files(home / "out") | _files(home / "state")
        findings = (*verdict.findings, *verdict.waived)
        return Judged(findings, verdict.verdict, seconds, size / 1e6, written, dict(verdict.files))


@cache
def _clean(table: Table) -> dict[str, bytes]:
    return judge(table, lambda folder: copy_release(table, folder)).approved


def stopped(vector: Vector, table: Table, judged: Judged) -> bool:
    """Whether the leak stays inside: refused, or what leaves is to the byte what leaves without it."""
    if judged.blocked or not vector.washed or not judged.approved:
        return judged.blocked
    left, clean = (_but_digest(files) for files in (judged.approved, _clean(table)))
    return left == clean


def _but_digest(files: dict[str, bytes]) -> dict[str, bytes]:
    """Without the digest of the model as it was trained, which differs and says nothing."""
    return {name: re.sub(rb'"trained_sha256": "\w+"', b"", data) for name, data in files.items()}


def _size(path: Path) -> int:
    return path.stat().st_size if path.is_file() and not path.is_symlink() else 0


def _files(folder: Path) -> dict[str, bytes]:
    """Every file below a folder, by its path, which may say too much as well."""
    paths = [path for path in sorted(folder.rglob("*")) if path.is_file()]
    return {str(path.relative_to(folder.parent)): path.read_bytes() for path in paths}


def strongest(table: Table, make: Callable[[Path], Path]) -> float:
    """The strongest evidence in bits that a folder's text gives of any row, below the thresholds as well."""
    loaded = contract.load(on_disk(table)[1])
    private = open_private([on_disk(table)[0]], loaded)
    with tempfile.TemporaryDirectory(prefix="edgeml-judge-") as temporary:
        taken = inventory.take([make(Path(temporary) / "artifacts")])
    inside = unwrap.unwrap(taken.artifacts)
    texts = list(views.of([*taken.artifacts, *inside.artifacts], frozenset(loaded.columns)))
    examiner = evidence.examiner(texts, private)
    for batch in private.batches():
        examiner.feed(batch)
    examiner.findings()
    return examiner.strongest


# --- what must not be in a verdict ------------------------------------------------------------------

WORD = re.compile(r"[^\W_]+")
NUMBER = re.compile(r"(?<![\w.])-?\d+\.?\d*(?:[eE][+-]?\d+)?(?![\w.])")


@cache
def _secrets(table: Table) -> tuple[frozenset[str], frozenset[float]]:
    """Words that point at one row, and the numbers that are long enough to."""
    form = table.form
    words = {form.rare.lower()}
    for column in (form.key, form.mail, form.person, form.note):
        counted: dict[str, int] = {}
        for text in table.texts(column):
            for word in set(WORD.findall(text.lower())):
                counted[word] = counted.get(word, 0) + 1
        words |= {word for word, rows in counted.items() if rows < 10 and len(word) > 4}
    numbers: set[float] = set()
    for name in (*table.names, form.amount.name):
        numbers |= {value for value in table.frame[name].to_list() if value is not None and _long(value)}
    return frozenset(words), frozenset(numbers)


def _long(value: Any) -> bool:
    return len(f"{value}".replace(".", "").strip("0")) >= 6


def private_values(table: Table, written: dict[str, bytes]) -> list[str]:
    """Where a report repeats a word or a long number of the table: a plain search, no part of the gate's own."""
    words, numbers = _secrets(table)
    places = []
    for name, data in written.items():
        text = f"{name}\n{data.decode('utf-8', 'replace')}"
        if words.intersection(WORD.findall(text.lower())):
            places.append(f"{name}: a word")
        if any(float(found[0]) in numbers for found in NUMBER.finditer(text)):
            places.append(f"{name}: a number")
    return places
