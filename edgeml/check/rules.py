"""Every rule, and those that this repository asks of its own files, by kind."""

from __future__ import annotations

import os
from collections.abc import Iterator

from edgeml.check import (
    assets,
    bindings,
    code,
    command,
    contracts,
    document,
    format,
    pins,
    ports,
    records,
    residency,
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
from edgeml.check.document import Document
from edgeml.check.finding import Finding, Rule
from edgeml.policy import POLICY_FILE

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
    *residency.RULES,
    *pins.RULES,
    *contracts.RULES,
    *records.RULES,
    *workflows.RULES,
    *settings.RULES,
    *sdk.RULES,
    *silence.RULES,
)

# What the residency policy decides nobody else does.
FIRM = frozenset(rule.id for rule in (*residency.RULES, pins.REGISTRY))

_DEMANDS: tuple[runnable.Rules, ...] = (code.check, tracking.check)
_BY_PLACE: dict[str, runnable.Rules] = {
    "data contract": contracts.check,
    "workflow": workflows.check,
    "deployment record": records.check,
}


def check(path: str, context: Context) -> Iterator[Finding]:
    """The findings of one file: as one of ours or of GitHub's by its place, else as Azure ML's by what it holds."""
    if pins.is_source(path):
        yield from pins.check_source(path, context)
        return
    read, findings = context.read(path)
    place = kind_by_place(path, context.root)
    if place:
        yield from findings
        if not findings:
            yield from _BY_PLACE[place](read, context)
        return
    yield from runnable.check(path, context)
    yield from _by_policy(read, context)
    if not context.unfit(path):
        for rules in _DEMANDS:
            yield from rules(read, context)


def _by_policy(read: Document, context: Context) -> Iterator[Finding]:
    """What the residency policy demands; asked of wrong formats too, since those may be silenced and a leak may not."""
    if os.path.abspath(read.path) == os.path.join(context.root, POLICY_FILE):
        yield from residency.check_policy(context)
    yield from assets.check(read, context)
    yield from pins.check(read, context)
    if residency.is_job(read):
        yield from residency.check(read, context)


def kind_by_place(path: str, root: str) -> str:
    """The kind of a file that its place in the repository tells; else empty."""
    folder, name = os.path.split(os.path.relpath(path, root))
    top = folder.split(os.sep)
    if top[:2] == [".github", "workflows"] or (top[:2] == [".github", "actions"] and name.startswith("action.")):
        return "workflow"
    if top == ["deployments"]:
        return "deployment record"
    return "data contract" if top == ["contracts"] and name != "residency.yml" else ""
