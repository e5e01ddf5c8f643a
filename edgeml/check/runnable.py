"""The rules on what makes a file run, here and on Azure ML: they hold for everybody's pipelines.

`edgeml run` asks them before its first step, so this module imports no more than they need.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator

from edgeml.check import bindings, command, kinds, ports, schemas, silence, sweeps
from edgeml.check.context import Context
from edgeml.check.document import Document
from edgeml.check.finding import ERROR, Finding

Rules = Callable[[Document, Context], Iterator[Finding]]

# Each is asked only of a document whose format is right.
_JOB: tuple[Rules, ...] = (bindings.check, sweeps.check, ports.check_paths, command.check)
_COMPONENT: tuple[Rules, ...] = (ports.check, ports.check_paths, command.check)
_BY_KIND: dict[str, tuple[Rules, ...]] = {
    kinds.PIPELINE_JOB.name: _JOB,
    kinds.PIPELINE_COMPONENT.name: _JOB,
    kinds.SWEEP_JOB.name: _JOB,
    kinds.COMMAND_JOB.name: _JOB,
    kinds.COMMAND_COMPONENT.name: _COMPONENT,
    kinds.PARALLEL_COMPONENT.name: _COMPONENT,
    kinds.ENVIRONMENT.name: (ports.check_paths,),
    kinds.DATA.name: (ports.check_paths,),
}


def check(path: str, context: Context) -> Iterator[Finding]:
    """The findings of one file; of a file that is nothing of Azure ML's only those about its YAML."""
    read, _ = context.read(path)
    unfit = context.unfit(path)
    yield from unfit
    kind = kinds.kind_of(read)
    yield from schemas.check(read, kind)
    if kind is not None and not unfit:
        for rules in _BY_KIND.get(kind.name, ()):
            yield from rules(read, context)


def refusals(files: Iterable[str], context: Context) -> list[Finding]:
    """The errors of a pipeline's files, by place, that nobody silenced: what must be mended before it runs."""
    found = {finding for file in files for finding in check(os.path.relpath(file), context)}
    return [finding for finding in kept(found, (), context) if finding.severity == ERROR]


def kept(
    findings: Iterable[Finding], files: Iterable[str], context: Context, firm: frozenset[str] = frozenset()
) -> list[Finding]:
    """The findings that nobody silenced, in the order of their places, and those about silencers in the files.

    What one file shows of another, a pipeline of its component, is silenced where it stands; `firm` rules nowhere.
    """
    by_file: dict[str, list[Finding]] = {file: [] for file in files}
    for finding in findings:
        by_file.setdefault(finding.path, []).append(finding)
    left = [one for file, here in by_file.items() for one in silence.apply(file, context.lines(file), here, firm)]
    return sorted(left, key=lambda finding: (finding.path, finding.line, finding.column, finding.rule))
