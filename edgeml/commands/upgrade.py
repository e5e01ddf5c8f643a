"""`edgeml upgrade`: a later version of the template, merged into this fork."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import argparse

    from edgeml.fork.upgrade import Outcome

HELP = """Merge a later version of the template into this fork, as one commit on a branch for a pull request.

template.toml draws the line: the team's files stay byte by byte, the template's are merged. Nothing is checked out and
no branch of yours is moved, unless both sides changed the same lines of the template: then the conflict is laid out in
the working tree as git does it, and the exit code is 1."""
EXAMPLES = [
    "edgeml upgrade --dry-run                               # what the newest release would change",
    "edgeml upgrade --from https://git.example/edgeml.git   # the first time; then it is remembered",
    "edgeml upgrade --ref v1.4.0",
    "edgeml upgrade --ref v1.4.0 --base v1.0.0              # this fork never recorded what it has",
]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--from", dest="source", default="", metavar="REPOSITORY", help="remote, address or path of the template"
    )
    parser.add_argument("--ref", default="", metavar="REF", help="tag, branch or commit (default: newest release tag)")
    parser.add_argument("--base", default="", metavar="REF", help="the version that this fork has, if none is recorded")
    parser.add_argument("--dry-run", action="store_true", help="say what would change; change nothing")
    parser.add_argument("--json", action="store_true", help="print the outcome as JSON")


def execute(args: argparse.Namespace) -> int:
    from edgeml import project
    from edgeml.fork.git import Git
    from edgeml.fork.upgrade import upgrade

    outcome = upgrade(Git(project.root()), args.source, args.ref, args.base, dry_run=args.dry_run)
    print(json.dumps(outcome._asdict(), indent=2) if args.json else "\n".join(_told(outcome)))
    return 1 if outcome.conflicts else 0


def _told(outcome: Outcome) -> list[str]:
    if outcome.action == "none":
        return [f"nothing to do: this fork has {outcome.version}"]
    lines = [f"  {change}" for change in outcome.changes]
    if outcome.yours:
        lines += ["yours, left as it is; the template's samples changed there:", *(f"  {one}" for one in outcome.yours)]
    if outcome.conflicts:
        lines += ["changed here and there:", *(f"  {path}" for path in outcome.conflicts)]
    number = len(outcome.changes)
    if outcome.action == "dry-run":
        return [*lines, f"{outcome.version}: {number} files would change, {len(outcome.conflicts)} of them in conflict"]
    if outcome.action == "conflict":
        return [
            *lines,
            f"{outcome.version} is laid out on {outcome.branch}; resolve what `git status` shows, then",
            "  git add --all && git cherry-pick --continue     # or give it up: git cherry-pick --abort",
        ]
    state = "waits on" if outcome.action == "waits" else "is one commit on"
    return [
        *lines,
        f"{outcome.version}: {number} files change; it {state} {outcome.branch}",
        f"  git push origin {outcome.branch}     # and open a pull request",
    ]
