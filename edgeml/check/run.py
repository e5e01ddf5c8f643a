"""What is checked: which files, by which rules, and what remains once silencers are heard."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator

from edgeml.check import environments, kinds, pins, residency, rules, runnable
from edgeml.check.context import Context
from edgeml.check.finding import Finding
from edgeml.errors import EdgemlError
from edgeml.project import SETTINGS_FILE

_SUFFIXES = (".yml", ".yaml")
_FOLDERS = ("pipelines", "components", "environments", "contracts", "deployments", "infra", ".github", SETTINGS_FILE)
_BEYOND = frozenset({".git", ".venv", ".edgeml", "node_modules", "__pycache__"})


def check(
    paths: list[str], ready: Iterable[str] = (), *, with_tools: bool = False, with_sdk: bool = False
) -> list[Finding]:
    """All findings of the files and folders, by path and place; without paths those of the repository.

    `ready` names what must be configured too. `with_tools` asks other checkers, `with_sdk` azure-ai-ml's loader.
    Raises EdgemlError where a path does not exist, there is nothing to check, or a checker is not there.
    """
    from edgeml import project

    context = Context(project.root_folder(), frozenset(ready))
    files = sorted({os.path.relpath(file) for path in paths or _default(context.root) for file in _files(path)})
    if not files:
        raise EdgemlError("there is no YAML file to check; name one, or a folder that has some")
    findings = {finding for file in files for finding in rules.check(file, context)}
    if with_tools:
        from edgeml.check import tools  # seldom asked for, and it costs the import of subprocess

        findings.update(tools.findings([*files, *_scripts(paths or _default(context.root))]))
    if with_sdk:
        findings.update(finding for file in files for finding in _second_opinion(file, context))
    firm = rules.FIRM if context.is_governed else frozenset()
    kept = runnable.kept(findings, (*files, *context.parsed), context, firm)
    pipelines = [file for file in files if file.endswith(_SUFFIXES) and not rules.kind_by_place(file, context.root)]
    return [*kept, *residency.unjudged(pipelines, kept, context)]


def fix(paths: list[str]) -> list[str]:
    """Write the versions of the repository's environments into the files and folders; returns the changed files.

    Raises EdgemlError where a path does not exist.
    """
    from edgeml import project

    context = Context(project.root_folder())
    files = {os.path.relpath(file) for path in paths or _default(context.root) for file in _files(path)}
    return environments.fix(context, files)


def _second_opinion(path: str, context: Context) -> Iterator[Finding]:
    from edgeml.check import sdk

    read, findings = context.read(path)
    kind = None if findings or rules.kind_by_place(path, context.root) else kinds.kind_of(read)
    if kind is not None:
        yield from sdk.check(path, kind.name)


def _default(root: str) -> list[str]:
    return [path for name in _FOLDERS if os.path.exists(path := os.path.join(root, name))]


def _scripts(paths: list[str]) -> list[str]:
    """The Python files below the paths."""
    return sorted({os.path.relpath(file) for path in paths for file in _files(path, lambda name: name.endswith(".py"))})


def _is_checked(name: str) -> bool:
    return name.endswith(_SUFFIXES) or name == SETTINGS_FILE or pins.is_source(name)


def _files(path: str, is_wanted: Callable[[str], bool] = _is_checked) -> Iterator[str]:
    if os.path.isfile(path):
        yield path
        return
    if not os.path.isdir(path):
        raise EdgemlError(f"{path} does not exist; name a file or a folder")
    for folder, folders, names in os.walk(path):
        folders[:] = [name for name in folders if name not in _BEYOND]
        yield from (os.path.join(folder, name) for name in names if is_wanted(name))
