"""What a rule is and what it finds."""

from __future__ import annotations

from typing import NamedTuple

ERROR, WARNING = "error", "warning"


class Rule(NamedTuple):
    """A rule by its stable id: why it exists, and the smallest YAML that breaks and that keeps it."""

    id: str
    severity: str
    title: str
    why: str
    bad: str
    good: str


class Place(NamedTuple):
    """A place in a file; line and column count from 1."""

    path: str
    line: int
    column: int


class Finding(NamedTuple):
    """One finding; `path` is relative to the working directory."""

    rule: str
    severity: str
    path: str
    line: int
    column: int
    message: str


def found(rule: Rule, place: Place, message: str) -> Finding:
    return Finding(rule.id, rule.severity, *place, message)
