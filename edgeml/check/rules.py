"""Every rule, and which of them are asked of which kind of document.

Two groups. What makes a file run, here and on Azure ML, holds for everybody's pipelines, and `edgeml run` asks it too.
What this repository demands of its own (`_POLICY`) holds only where the rules find its policy.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator

from edgeml.check import (
    bindings,
    contracts,
    document,
    format,
    kinds,
    ports,
    records,
    schemas,
    sdk,
    settings,
    silence,
    sweeps,
    workflows,
)
from edgeml.check.context import Context
from edgeml.check.document import Document
from edgeml.check.finding import Finding, Rule

RULES: tuple[Rule, ...] = (
    *document.RULES,
    *format.RULES,
    *schemas.RULES,
    *ports.RULES,
    *bindings.RULES,
    *sweeps.RULES,
    *contracts.RULES,
    *records.RULES,
    *workflows.RULES,
    *settings.RULES,
    *sdk.RULES,
    *silence.RULES,
)

Rules = Callable[[Document, Context], Iterator[Finding]]

# Each is asked only of a document whose format is right.
_JOB: tuple[Rules, ...] = (bindings.check, sweeps.check, ports.check_paths)
_COMPONENT: tuple[Rules, ...] = (ports.check, ports.check_paths)
RUNS: dict[str, tuple[Rules, ...]] = {
    kinds.PIPELINE_JOB.name: _JOB,
    kinds.PIPELINE_COMPONENT.name: _JOB,
    kinds.SWEEP_JOB.name: _JOB,
    kinds.COMMAND_JOB.name: _JOB,
    kinds.COMMAND_COMPONENT.name: _COMPONENT,
    kinds.PARALLEL_COMPONENT.name: _COMPONENT,
    kinds.ENVIRONMENT.name: (ports.check_paths,),
    kinds.DATA.name: (ports.check_paths,),
}
OURS: dict[str, tuple[Rules, ...]] = {
    "data contract": (contracts.check,),
    "workflow": (workflows.check,),
    records.RECORD.name: (records.check,),
}


def kind_by_place(path: str, root: str) -> str:
    """The kind of a file that its place in the repository tells: those of ours, and GitHub's; else empty."""
    folder, name = os.path.split(os.path.relpath(path, root))
    top = folder.split(os.sep)
    if top[:2] == [".github", "workflows"] or (top[:2] == [".github", "actions"] and name.startswith("action.")):
        return "workflow"
    if top == ["deployments"]:
        return records.RECORD.name
    return "data contract" if top == ["contracts"] and name != "residency.yml" else ""
