"""Every rule, and those that this repository asks of its own files, by kind."""

from __future__ import annotations

import os
from collections.abc import Iterator

from edgeml.check import (
    bindings,
    code,
    command,
    contracts,
    document,
    format,
    ports,
    records,
    runnable,
    schemas,
    sdk,
    settings,
    silence,
    sweeps,
    tracking,
    workflows,
)
from edgeml.check.context import Context
from edgeml.check.finding import Finding, Rule

RULES: tuple[Rule, ...] = (
    *document.RULES,
    *format.RULES,
    *schemas.RULES,
    *ports.RULES,
    *bindings.RULES,
    *sweeps.RULES,
    *command.RULES,
    *code.RULES,
    *tracking.RULES,
    *contracts.RULES,
    *records.RULES,
    *workflows.RULES,
    *settings.RULES,
    *sdk.RULES,
    *silence.RULES,
)

_DEMANDS: tuple[runnable.Rules, ...] = (code.check, tracking.check)
_BY_PLACE: dict[str, runnable.Rules] = {
    "data contract": contracts.check,
    "workflow": workflows.check,
    "deployment record": records.check,
}


def check(path: str, context: Context) -> Iterator[Finding]:
    """The findings of one file: as one of ours or of GitHub's by its place, else as Azure ML's by what it holds."""
    read, findings = context.read(path)
    place = kind_by_place(path, context.root)
    if place:
        yield from findings
        if not findings:
            yield from _BY_PLACE[place](read, context)
        return
    yield from runnable.check(path, context)
    if not context.unfit(path):
        for rules in _DEMANDS:
            yield from rules(read, context)


def kind_by_place(path: str, root: str) -> str:
    """The kind of a file that its place in the repository tells; else empty."""
    folder, name = os.path.split(os.path.relpath(path, root))
    top = folder.split(os.sep)
    if top[:2] == [".github", "workflows"] or (top[:2] == [".github", "actions"] and name.startswith("action.")):
        return "workflow"
    if top == ["deployments"]:
        return "deployment record"
    return "data contract" if top == ["contracts"] and name != "residency.yml" else ""
