"""Rules for GitHub's workflows and composite actions: pinned, bounded, no secrets for forks, calling what exists.

What zizmor and actionlint know better they say themselves, under `edgeml check --with-tools`.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from typing import NamedTuple

from edgeml.check import commands
from edgeml.check.context import Context
from edgeml.check.document import Document, entries, scalar, walk
from edgeml.check.finding import ERROR, WARNING, Finding, Rule, found
from edgeml.pipeline.libyaml import yaml

_HEAD = "# --- .github/workflows/train.yml\non: push\npermissions: {}\njobs:\n  train:\n    runs-on: ubuntu-latest\n"
_JOB = _HEAD + "    timeout-minutes: 10\n"

PIN = Rule(
    "action-pin",
    ERROR,
    "Every action is pinned to a commit of 40 digits, with its version in a comment",
    "A tag can be moved to other code after its review; the comment tells people and update bots what the commit is.",
    _JOB + "    steps:\n      - uses: actions/checkout@v7\n",
    _JOB + "    steps:\n      - uses: actions/checkout@3d3c42e5aac5ba805825da76410c181273ba90b1  # v7.0.1\n",
)
PERMISSIONS = Rule(
    "workflow-permissions",
    ERROR,
    "A workflow starts from `permissions:` at its top and never asks for all",
    "Without it every job gets the default token, which may write; a grant belongs to the job that needs it.",
    _JOB.replace("permissions: {}\n", "") + "    steps:\n      - run: echo\n",
    _JOB + "    steps:\n      - run: echo\n",
)
TIMEOUT = Rule(
    "workflow-timeout",
    ERROR,
    "Every job says how long it may take",
    "A job that hangs otherwise holds its runner for six hours, a self-hosted one for days.",
    _HEAD + "    steps:\n      - run: echo\n",
    _JOB + "    steps:\n      - run: echo\n",
)
FORK = Rule(
    "workflow-fork-secret",
    ERROR,
    "What a pull request starts has neither secrets nor an identity",
    "A pull request runs its author's code: with `pull_request_target` it gets the secrets of the repository, and with "
    "`pull_request` a fork gets none, so its checks fail. What needs an identity runs after the merge.",
    _JOB.replace("on: push", "on: pull_request")
    + "    steps:\n      - run: echo\n        env: {KEY: '${{ secrets.KEY }}'}\n",
    _JOB.replace("on: push", "on: pull_request") + "    steps:\n      - run: echo\n",
)
HIDDEN = Rule(
    "workflow-hides-failure",
    WARNING,
    "No step goes on in spite of an error",
    "`continue-on-error` shows a green mark for work that failed.",
    _JOB + "    steps:\n      - run: echo\n        continue-on-error: true\n",
    _JOB + "    steps:\n      - run: echo\n",
)
LOCAL = Rule(
    "workflow-local-action",
    ERROR,
    "An action of this repository exists, and is used after the repository was checked out",
    "The runner looks for `./.github/actions/…` in its work folder, which is empty until a checkout.",
    _JOB + "    steps:\n      - uses: ./.github/actions/setup\n",
    _JOB + "    steps:\n      - run: echo\n",
)
COMMAND = Rule(
    "workflow-command",
    ERROR,
    "Every command of ours that a workflow runs exists, with those options",
    "A workflow that calls a verb, a make target, a module or a script that was renamed fails only when it is needed.",
    _JOB + "    steps:\n      - run: edgeml chekc --format github\n",
    _JOB + "    steps:\n      - run: edgeml check --format github\n",
)
RULES = (PIN, PERMISSIONS, TIMEOUT, FORK, HIDDEN, LOCAL, COMMAND)

_COMMIT = re.compile(r"[0-9a-f]{40}")
_VERSION_COMMENT = re.compile(r"#\s*v?\d")
_SECRET = re.compile(r"\$\{\{[^}]*\bsecrets\b(?!\.GITHUB_TOKEN\b)")
_PULL = frozenset({"pull_request", "pull_request_target"})


class Job(NamedTuple):
    """A job by its name and its keys."""

    name: str
    key: yaml.Node
    node: yaml.Node


def check(document: Document, context: Context) -> Iterator[Finding]:
    """The findings of a workflow, or of a composite action (which has neither triggers nor jobs)."""
    present = entries(document.root)
    jobs = [Job(name, key, node) for name, (key, node) in entries(_value(present, "jobs")).items()]
    if jobs:
        yield from _permissions(document, present)
        yield from _forks(document, present, jobs)
    for job in jobs:
        yield from _job(document, job, context)
    runs = entries(_value(present, "runs"))
    if "steps" in runs:
        yield from _steps(document, runs["steps"][1], context, checked_out=True)


def _job(document: Document, job: Job, context: Context) -> Iterator[Finding]:
    present = entries(job.node)
    if "uses" in present:  # another workflow, which has its own limits
        yield from _uses(document, present["uses"][1], context, checked_out=True)
    elif "timeout-minutes" not in present:
        yield found(TIMEOUT, document.place(job.key), f"job '{job.name}' has no timeout-minutes; add it")
    yield from _steps(document, _value(present, "steps"), context, checked_out=False)


def _steps(document: Document, steps: yaml.Node | None, context: Context, *, checked_out: bool) -> Iterator[Finding]:
    for step in steps.value if isinstance(steps, yaml.SequenceNode) else ():
        present = entries(step)
        if "uses" in present:
            yield from _uses(document, present["uses"][1], context, checked_out=checked_out)
            checked_out |= (scalar(present["uses"][1]) or "").startswith("actions/checkout@")
        if "run" in present:
            yield from _run(document, present["run"][1], scalar(_value(present, "working-directory")) or "", context)
        if "continue-on-error" in present and scalar(present["continue-on-error"][1]) != "false":
            message = "this step goes on in spite of an error; let it fail, or test what it may fail with"
            yield found(HIDDEN, document.place(present["continue-on-error"][0]), message)


def _permissions(document: Document, present: dict[str, tuple[yaml.Node, yaml.Node]]) -> Iterator[Finding]:
    if "permissions" not in present:
        place = document.place(present["jobs"][0])
        yield found(PERMISSIONS, place, "the workflow has no 'permissions' at its top; add 'permissions: {}'")
    for node in walk(document.root):
        for name, (_, value) in entries(node).items():
            if name == "permissions" and scalar(value) == "write-all":
                message = "'write-all' grants everything; name what the job needs"
                yield found(PERMISSIONS, document.place(value), message)


def _forks(document: Document, present: dict[str, tuple[yaml.Node, yaml.Node]], jobs: list[Job]) -> Iterator[Finding]:
    triggers = _triggers(_value(present, "on"))
    if "pull_request_target" in triggers:
        message = "'pull_request_target' hands the secrets of this repository to a fork's code; use 'pull_request'"
        yield found(FORK, document.place(triggers["pull_request_target"]), message)
    if not triggers.keys() & _PULL:
        return
    yield from _identity(document, _value(present, "permissions"))
    for job in jobs:
        keys = entries(job.node)
        if "github.event_name" in (scalar(_value(keys, "if")) or ""):
            continue  # the job says itself which events it is for
        yield from _identity(document, _value(keys, "permissions"))
        inherited = _value(keys, "secrets")
        if scalar(inherited) == "inherit" and inherited is not None:
            yield found(FORK, document.place(inherited), f"job '{job.name}' hands all secrets on; name none here")
        for node in walk(job.node):
            if _SECRET.search(scalar(node) or ""):
                message = f"job '{job.name}' uses a secret, and a pull request starts it; move it to what runs on main"
                yield found(FORK, document.place(node), message)


def _identity(document: Document, permissions: yaml.Node | None) -> Iterator[Finding]:
    token = _value(entries(permissions), "id-token")
    if token is not None and scalar(token) == "write":
        message = "a pull request could sign in as this repository; grant 'id-token' only where main starts the job"
        yield found(FORK, document.place(token), message)


def _triggers(node: yaml.Node | None) -> dict[str, yaml.Node]:
    if isinstance(node, yaml.SequenceNode):
        return {scalar(item) or "": item for item in node.value}
    if isinstance(node, yaml.MappingNode):
        return {name: key for name, (key, _) in entries(node).items()}
    return {} if node is None else {scalar(node) or "": node}


def _uses(document: Document, node: yaml.Node, context: Context, *, checked_out: bool) -> Iterator[Finding]:
    used = scalar(node) or ""
    place = document.place(node)
    if used.startswith("./"):
        if not os.path.exists(os.path.join(context.root, used)):
            yield found(LOCAL, place, f"there is no {used} in this repository; check the path")
        elif not checked_out:
            yield found(LOCAL, place, f"{used} is used before a checkout of the repository; add actions/checkout")
        return
    name, _, reference = used.partition("@")
    if used.startswith("docker://"):
        if not reference.startswith("sha256:"):
            yield found(PIN, place, f"the image {name} is not pinned; name it by digest, @sha256:…")
    elif not _COMMIT.fullmatch(reference):
        yield found(PIN, place, f"{name} is not pinned to a commit; write its 40 digits and the version in a comment")
    elif not _VERSION_COMMENT.search(document.lines[place.line - 1][node.end_mark.column :]):
        yield found(PIN, place, f"no comment says which version of {name} this commit is; add '# v…'")


def _run(document: Document, node: yaml.Node, folder: str, context: Context) -> Iterator[Finding]:
    text = scalar(node) or ""
    style = node.style if isinstance(node, yaml.ScalarNode) else None
    for number, line in enumerate(text.splitlines()):
        for problem in commands.problems(line, os.path.join(context.root, folder)):
            place = document.place(node)
            if style == "|":  # a block's text begins on the line after its sign
                place = place._replace(line=place.line + 1 + number, column=1)
            yield found(COMMAND, place, problem)


def _value(present: dict[str, tuple[yaml.Node, yaml.Node]], key: str) -> yaml.Node | None:
    return present[key][1] if key in present else None
