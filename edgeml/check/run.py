"""What is checked: which files, of which kind, by which rules."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator

from edgeml.check import (
    bindings,
    code,
    command,
    document,
    format,
    kinds,
    ports,
    schemas,
    silence,
    sweeps,
    tracking,
)
from edgeml.check.context import Context
from edgeml.check.document import Document
from edgeml.check.finding import Finding, Rule
from edgeml.errors import EdgemlError

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
    *silence.RULES,
)

_SUFFIXES = (".yml", ".yaml")
_FOLDERS = ("pipelines", "components", "environments")
_BEYOND = frozenset({".git", ".venv", ".edgeml", "node_modules", "__pycache__"})


def check(paths: list[str], ready: Iterable[str] = ()) -> list[Finding]:
    """All findings of the files and folders, by path and place; without paths those of the repository.

    Raises EdgemlError where a path does not exist or there is nothing to check.
    """
    from edgeml import project

    context = Context(str(project.root()), frozenset(ready))
    files = sorted({os.path.relpath(file) for path in paths or _default(context.root) for file in _files(path)})
    if not files:
        raise EdgemlError("there is no YAML file to check; name one, or a folder that has some")
    findings = {finding for file in files for finding in check_file(file, context)}
    # What one file shows of another, a pipeline of its component, is silenced where it stands.
    by_file: dict[str, list[Finding]] = {file: [] for file in (*files, *context.parsed)}
    for finding in findings:
        by_file.setdefault(finding.path, []).append(finding)
    kept = [left for file, here in by_file.items() for left in silence.apply(file, context.lines(file), here)]
    return sorted(kept, key=lambda finding: (finding.path, finding.line, finding.column, finding.rule))


def check_file(path: str, context: Context) -> Iterator[Finding]:
    """The findings of one file; of a file that is nothing of Azure ML's only those about its YAML."""
    read, _ = context.read(path)
    unfit = context.unfit(path)
    yield from unfit
    kind = kinds.kind_of(read)
    yield from schemas.check(read, kind)
    if kind is None or unfit:
        return
    for rules in _BY_KIND.get(kind.name, ()):
        yield from rules(read, context)


Rules = Callable[[Document, Context], Iterator[Finding]]
# The rules beyond format, by the kind of document; each is asked only of a document whose format is right.
_COMMANDS: tuple[Rules, ...] = (command.check, code.check, tracking.check)
_JOBS: tuple[Rules, ...] = (bindings.check, sweeps.check, ports.check_paths, *_COMMANDS)
_BY_KIND: dict[str, tuple[Rules, ...]] = {
    kinds.PIPELINE_JOB.name: _JOBS,
    kinds.PIPELINE_COMPONENT.name: _JOBS,
    kinds.SWEEP_JOB.name: _JOBS,
    kinds.COMMAND_JOB.name: _JOBS,
    kinds.COMMAND_COMPONENT.name: (ports.check, ports.check_paths, *_COMMANDS),
    kinds.PARALLEL_COMPONENT.name: (ports.check, ports.check_paths, *_COMMANDS),
    kinds.ENVIRONMENT.name: (ports.check_paths,),
    kinds.DATA.name: (ports.check_paths,),
}


def _default(root: str) -> list[str]:
    return [folder for name in _FOLDERS if os.path.isdir(folder := os.path.join(root, name))]


def _files(path: str) -> Iterator[str]:
    if os.path.isfile(path):
        yield path
        return
    if not os.path.isdir(path):
        raise EdgemlError(f"{path} does not exist; name a file or a folder")
    for folder, folders, names in os.walk(path):
        folders[:] = [name for name in folders if name not in _BEYOND]
        yield from (os.path.join(folder, name) for name in names if name.endswith(_SUFFIXES))
