"""What is checked: which files, of which kind, by which rules."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator

from edgeml.check import assets, document, environments, format, kinds, pins, residency, silence
from edgeml.check.context import Context
from edgeml.check.document import Document, entries, scalar
from edgeml.check.finding import ERROR, Finding, Place, Rule, found
from edgeml.errors import EdgemlError
from edgeml.pipeline import PipelineError
from edgeml.policy import POLICY_FILE

CANNOT_RUN = Rule(
    "cannot-run",
    ERROR,
    "A pipeline resolves: every binding, component, path and value",
    "What `edgeml run` refuses before its first step, with the same words; Azure ML finds most of it after submission.",
    "type: pipeline\njobs:\n  a: {command: 'cat ${{inputs.x}}', inputs: {x: '${{parent.jobs.b.outputs.y}}'}}\n",
    "type: pipeline\njobs:\n"
    "  a: {command: 'cat ${{inputs.x}}', inputs: {x: '${{parent.jobs.b.outputs.y}}'}}\n"
    "  b: {command: 'echo 1 > ${{outputs.y}}', outputs: {y: {type: uri_file}}}\n",
)
RULES: tuple[Rule, ...] = (*document.RULES, *format.RULES, CANNOT_RUN, *residency.RULES, *pins.RULES, *silence.RULES)

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
    return sorted(kept, key=lambda finding: (finding.path, finding.line, finding.column, finding.rule))


def fix(paths: list[str]) -> list[str]:
    """Write the versions of the repository's environments into the files and folders; returns the changed files.

    Raises EdgemlError where a path does not exist.
    """
    from edgeml import project

    context = Context(str(project.root()))
    return environments.fix(
        context, {os.path.relpath(file) for path in paths or _default(context.root) for file in _files(path)}
    )


def check_file(path: str, context: Context) -> Iterator[Finding]:
    """The findings of one file; of a file that is nothing of Azure ML's only those about its YAML."""
    if pins.is_source(path):
        yield from pins.check_source(path, context)
        return
    read, findings = context.read(path)
    yield from findings
    yield from assets.check(read, context)
    if os.path.abspath(path) == os.path.join(context.root, POLICY_FILE):
        yield from residency.check_policy(context)
    kind = kind_of(read)
    if kind is None:
        if pins.is_conda(read):
            yield from pins.check(read, context)
        return
    unfit = list(format.check(read, kind))
    yield from unfit
    if findings or unfit:  # these may be silenced, where a leak may not
        yield from residency.check(read, context) if kind.name in _BY_KIND else ()
        return
    for rules in (pins.check, *_BY_KIND.get(kind.name, ())):
        yield from rules(read, context)


def kind_of(read: Document) -> kinds.Fields | None:
    """The kind that a document says it is, by `$schema`, else by `type` and what only that kind has."""
    present = entries(read.root)
    schema = (scalar(present["$schema"][1]) if "$schema" in present else None) or ""
    for name, kind in _BY_SCHEMA.items():
        if schema.endswith(f"/{name}.schema.json"):
            return kind
    type_ = (scalar(present["type"][1]) if "type" in present else None) or ""
    if "jobs" in present or type_ == "pipeline":
        return kinds.PIPELINE_JOB
    if type_ == "sweep":
        return kinds.SWEEP_JOB
    if type_ == "parallel" and "task" in present:
        return kinds.PARALLEL_COMPONENT
    if "command" in present:
        return kinds.COMMAND_COMPONENT if "name" in present else kinds.COMMAND_JOB
    return None


_BY_SCHEMA = {
    "pipelineJob": kinds.PIPELINE_JOB,
    "pipelineComponent": kinds.PIPELINE_COMPONENT,
    "commandComponent": kinds.COMMAND_COMPONENT,
    "parallelComponent": kinds.PARALLEL_COMPONENT,
    "commandJob": kinds.COMMAND_JOB,
    "sweepJob": kinds.SWEEP_JOB,
    "environment": kinds.ENVIRONMENT,
    "data": kinds.DATA,
}


def _resolved(read: Document, context: Context) -> Iterator[Finding]:
    try:
        context.graph(read.path)
    except PipelineError as error:
        place = Place(os.path.relpath(error.file or read.path), error.line or 1, 1)
        yield found(CANNOT_RUN, place, error.message)


Rules = Callable[[Document, Context], Iterator[Finding]]
# The rules beyond format, by the kind of document; each is asked only of a document whose format is right.
_JOBS: tuple[Rules, ...] = (_resolved, residency.check)
_BY_KIND: dict[str, tuple[Rules, ...]] = {
    kinds.PIPELINE_JOB.name: _JOBS,
    kinds.SWEEP_JOB.name: _JOBS,
    kinds.COMMAND_JOB.name: _JOBS,
}
# A pipeline that does not resolve cannot be judged, and what the policy decides nobody else does.
_FIRM = frozenset(rule.id for rule in (CANNOT_RUN, *residency.RULES, pins.REGISTRY))


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
