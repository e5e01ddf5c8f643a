"""What a rule is and what it finds."""

from __future__ import annotations

import re
from typing import NamedTuple

ERROR, WARNING = "error", "warning"

_SPLIT = re.compile(r"^# --- (\S+)\n", re.MULTILINE)


class Rule(NamedTuple):
    """A rule by its stable id: why it exists, and the smallest example that breaks and that keeps it.

    An example is one YAML file, or a small tree: each line `# --- path/of/file` begins a file of that path.
    """

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


def files_of(example: str, name: str) -> dict[str, str]:
    """The files of a rule's example by path; what stands before the first `# --- path` is the file of that name."""
    first, *rest = _SPLIT.split(example)
    files = dict(zip(rest[::2], rest[1::2], strict=True))
    return {name: first, **files} if first else files
