"""What is checked: which files, of which kind, by which rules."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator

from edgeml.check import (
    assets,
    bindings,
    document,
    environments,
    format,
    kinds,
    pins,
    ports,
    residency,
    schemas,
    silence,
    sweeps,
)
from edgeml.check.context import Context
from edgeml.check.document import Document
from edgeml.check.finding import Finding, Rule
from edgeml.errors import EdgemlError
from edgeml.policy import POLICY_FILE

RULES: tuple[Rule, ...] = (
    *document.RULES,
    *format.RULES,
    *schemas.RULES,
    *ports.RULES,
    *bindings.RULES,
    *sweeps.RULES,
    *residency.RULES,
    *pins.RULES,
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
    by_file: dict[str, list[Finding]] = {file: [] for file in files}
    for finding in findings:
        by_file.setdefault(finding.path, []).append(finding)
    firm = _FIRM if residency.has_policy(context) else frozenset()
    kept = [left for file, here in by_file.items() for left in silence.apply(context.source(file), here, firm)]
    kept += residency.unjudged(files, kept, context)
    return sorted(kept, key=lambda finding: (finding.path, finding.line, finding.column, finding.rule))


def check_file(path: str, context: Context) -> Iterator[Finding]:
    """The findings of one file; of a file that is nothing of Azure ML's only those about its YAML."""
    if pins.is_source(path):
        yield from pins.check_source(path, context)
        return
    read, _ = context.read(path)
    unfit = context.unfit(path)
    yield from unfit
    yield from _by_policy(read, context)
    kind = kinds.kind_of(read)
    yield from schemas.check(read, kind)
    if kind is None or unfit:
        return
    for rules in _BY_KIND.get(kind.name, ()):
        yield from rules(read, context)


def _by_policy(read: Document, context: Context) -> Iterator[Finding]:
    """What the residency policy demands; asked of wrong formats too, since those may be silenced and a leak may not."""
    if os.path.abspath(read.path) == os.path.join(context.root, POLICY_FILE):
        yield from residency.check_policy(context)
    yield from assets.check(read, context)
    yield from pins.check(read, context)
    if residency.is_job(read):
        yield from residency.check(read, context)


Rules = Callable[[Document, Context], Iterator[Finding]]
# The rules beyond format, by the kind of document; each is asked only of a document whose format is right.
_JOBS: tuple[Rules, ...] = (bindings.check, sweeps.check, ports.check_paths)
_BY_KIND: dict[str, tuple[Rules, ...]] = {
    kinds.PIPELINE_JOB.name: _JOBS,
    kinds.PIPELINE_COMPONENT.name: _JOBS,
    kinds.SWEEP_JOB.name: _JOBS,
    kinds.COMMAND_JOB.name: _JOBS,
    kinds.COMMAND_COMPONENT.name: (ports.check, ports.check_paths),
    kinds.PARALLEL_COMPONENT.name: (ports.check, ports.check_paths),
    kinds.ENVIRONMENT.name: (ports.check_paths,),
    kinds.DATA.name: (ports.check_paths,),
}
# What the residency policy decides nobody else does.
_FIRM = frozenset(rule.id for rule in (*residency.RULES, pins.REGISTRY))


def fix(paths: list[str]) -> list[str]:
    """Write the versions of the repository's environments into the files and folders; returns the changed files.

    Raises EdgemlError where a path does not exist.
    """
    from edgeml import project

    context = Context(str(project.root()))
    files = {os.path.relpath(file) for path in paths or _default(context.root) for file in _files(path)}
    return environments.fix(context, files)


def _default(root: str) -> list[str]:
    return [path for name in (*_FOLDERS, POLICY_FILE) if os.path.exists(path := os.path.join(root, name))]


def _files(path: str) -> Iterator[str]:
    if os.path.isfile(path):
        yield path
        return
    if not os.path.isdir(path):
        raise EdgemlError(f"{path} does not exist; name a file or a folder")
    for folder, folders, names in os.walk(path):
        folders[:] = [name for name in folders if name not in _BEYOND]
        yield from (os.path.join(folder, name) for name in names if name.endswith(_SUFFIXES) or pins.is_source(name))
