"""What is checked: which files, of which kind, by which rules."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator

from edgeml.check import contracts, document, format, kinds, records, sdk, settings, silence, workflows
from edgeml.check.context import Context
from edgeml.check.document import Document, entries, scalar
from edgeml.check.finding import ERROR, Finding, Place, Rule, found
from edgeml.errors import EdgemlError
from edgeml.pipeline import PipelineError, resolve
from edgeml.project import SETTINGS_FILE

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
RULES: tuple[Rule, ...] = (
    *document.RULES,
    *format.RULES,
    CANNOT_RUN,
    *contracts.RULES,
    *records.RULES,
    *workflows.RULES,
    *settings.RULES,
    *sdk.RULES,
    *silence.RULES,
)

_SUFFIXES = (".yml", ".yaml")
_OURS = ("pipelines", "components", "environments", "contracts", "deployments", "infra", ".github", SETTINGS_FILE)
_BEYOND = frozenset({".git", ".venv", ".edgeml", "node_modules", "__pycache__"})


def check(
    paths: list[str], ready: Iterable[str] = (), *, with_tools: bool = False, with_sdk: bool = False
) -> list[Finding]:
    """All findings of the files and folders, by path and place; without paths those of the repository.

    `ready` names what must be configured too. `with_tools` asks other checkers, `with_sdk` azure-ai-ml's loader.
    Raises EdgemlError where a path does not exist, there is nothing to check, or a checker is not there.
    """
    from edgeml import project

    context = Context(str(project.root()), frozenset(ready))
    files = sorted({os.path.relpath(file) for path in paths or _default(context.root) for file in _files(path)})
    if not files:
        raise EdgemlError("there is no YAML file to check; name one, or a folder that has some")
    findings = {finding for file in files for finding in check_file(file, context)}
    if with_tools:
        from edgeml.check import tools  # seldom asked for, and it costs the import of subprocess

        findings.update(tools.findings([*files, *_scripts(paths or _default(context.root))]))
    if with_sdk:
        findings.update(finding for file in files for finding in _second_opinion(file, context))
    # What one file shows of another, a pipeline of its component, is silenced where it stands.
    by_file: dict[str, list[Finding]] = {file: [] for file in files}
    for finding in findings:
        by_file.setdefault(finding.path, []).append(finding)
    kept = [left for file, here in by_file.items() for left in silence.apply(context.read(file)[0], here)]
    return sorted(kept, key=lambda finding: (finding.path, finding.line, finding.column, finding.rule))


def check_file(path: str, context: Context) -> Iterator[Finding]:
    """The findings of one file; of a file that is nothing of Azure ML's or ours only those about its YAML."""
    read, findings = context.read(path)
    yield from findings
    name = _by_path(path, context.root)
    if name and not findings:
        if name == records.RECORD.name:
            yield from format.check(read, records.RECORD)
        yield from _BY_KIND[name][0](read, context)
    if name:
        return
    kind = kind_of(read)
    if kind is None:
        return
    unfit = list(format.check(read, kind))
    yield from unfit
    if findings or unfit:
        return
    for rules in _BY_KIND.get(kind.name, ()):
        yield from rules(read, context)


def _second_opinion(path: str, context: Context) -> Iterator[Finding]:
    read, findings = context.read(path)
    kind = None if findings or _by_path(path, context.root) else kind_of(read)
    if kind is not None:
        yield from sdk.check(path, kind.name)


def _by_path(path: str, root: str) -> str:
    """The kind of a file that its place tells: those of ours, and GitHub's."""
    folder, name = os.path.split(os.path.relpath(path, root))
    top = folder.split(os.sep)
    if top[:2] == [".github", "workflows"] or (top[:2] == [".github", "actions"] and name.startswith("action.")):
        return "workflow"
    if top == ["deployments"]:
        return records.RECORD.name
    return "data contract" if top == ["contracts"] and name != "residency.yml" else ""


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
        resolve(read.path, here=False)
    except PipelineError as error:
        place = Place(os.path.relpath(error.file or read.path), error.line or 1, 1)
        yield found(CANNOT_RUN, place, error.message)


Rules = Callable[[Document, Context], Iterator[Finding]]
# The rules beyond format, by the kind of document; each is asked only of a document whose format is right.
_JOBS: tuple[Rules, ...] = (_resolved,)
_BY_KIND: dict[str, tuple[Rules, ...]] = {
    kinds.PIPELINE_JOB.name: _JOBS,
    kinds.SWEEP_JOB.name: _JOBS,
    kinds.COMMAND_JOB.name: _JOBS,
    "data contract": (contracts.check,),
    "workflow": (workflows.check,),
    records.RECORD.name: (records.check,),
}


def _default(root: str) -> list[str]:
    return [path for name in _OURS if os.path.exists(path := os.path.join(root, name))]


def _scripts(paths: list[str]) -> list[str]:
    """The Python files below the paths."""
    return sorted({os.path.relpath(file) for path in paths for file in _files(path, (".py",))})


def _files(path: str, suffixes: tuple[str, ...] = (*_SUFFIXES, SETTINGS_FILE)) -> Iterator[str]:
    if os.path.isfile(path):
        yield path
        return
    if not os.path.isdir(path):
        raise EdgemlError(f"{path} does not exist; name a file or a folder")
    for folder, folders, names in os.walk(path):
        folders[:] = [name for name in folders if name not in _BEYOND]
        yield from (os.path.join(folder, name) for name in names if name.endswith(suffixes))
