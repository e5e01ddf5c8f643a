"""`edgeml init`: begin a fork of this template under a name of its own."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING

from edgeml.errors import EdgemlError

if TYPE_CHECKING:
    import argparse

    from edgeml.fork.begin import Done
    from edgeml.fork.git import Git

HELP = """Begin a fork: ask for names and regions, and write them where they belong.

What the team has changed is kept, so this can be run again, with more answers or other ones. Nothing is sent
anywhere; look at `git diff`, then commit. In a terminal what no flag says is asked; else give flags, or --yes."""
EXAMPLES = [
    "edgeml init",
    "edgeml init --yes --name ward-models --owner @clinic/ml --location westeurope",
    "edgeml init --yes --name ward-models --owner @clinic/ml --json",
]
_WORDS = {"made": "made", "changed": "set", "same": "as it is", "kept": "kept", "later": "later"}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    from edgeml.fork.answers import QUESTIONS

    for question in QUESTIONS:
        parser.add_argument(f"--{question.key}", help=question.asks)
    parser.add_argument("--yes", action="store_true", help="ask nothing; take the defaults")
    parser.add_argument("--json", action="store_true", help="print what became of each file as JSON")


def execute(args: argparse.Namespace) -> int:
    from edgeml import project
    from edgeml.fork.answers import QUESTIONS
    from edgeml.fork.begin import begin
    from edgeml.fork.git import Git

    git = Git(project.root())
    if not (git.root / project.SETTINGS_FILE).is_file():
        raise EdgemlError(f"there is no {project.SETTINGS_FILE} here; run this in a fork of the template")
    flags = {one.key: getattr(args, one.key.replace("-", "_")) for one in QUESTIONS}
    answers = {key: value for key, value in flags.items() if value is not None}
    defaults = _defaults(git)
    if args.yes or not sys.stdin.isatty():
        answers = {key: value for key, value in defaults.items() if args.yes or key != "name"} | answers
    else:
        answers = _asked(answers, defaults)
    done = begin(git, answers)
    if args.json:
        print(json.dumps([one._asdict() for one in done], indent=2))
    else:
        print("\n".join(_told(done, answers)))
    return 0


def _defaults(git: Git) -> dict[str, str]:
    """What the fork says already, else what its repository's and its folder's name suggest."""
    from edgeml.fork import answers, begin
    from edgeml.gitops import github

    repository = github.named()
    owner, _, name = repository.partition("/")
    found = {
        "name": answers.slug(name or git.root.name),
        "owner": f"@{owner}" if owner else "",
        "repository": repository,
    }
    found = {key: value for key, value in found.items() if value and not answers.judge(key, value)}
    return found | begin.given(git)


def _asked(answers: dict[str, str], defaults: dict[str, str]) -> dict[str, str]:
    """The answers, with those that a person gives to what is open; one that will not do is asked again."""
    from edgeml.fork.answers import QUESTIONS, judge

    found = dict(answers)
    for question in QUESTIONS:
        while question.key not in answers:
            default = defaults.get(question.key, "")
            print(f"{question.asks}{f' [{default}]' if default else ''}: ", end="", file=sys.stderr, flush=True)
            line = sys.stdin.readline()
            if not line:
                raise EdgemlError("the answers ended early; nothing was written")
            found[question.key] = line.strip() or default
            reason = judge(question.key, found[question.key])
            if not reason:
                break
            print(f"  {reason}", file=sys.stderr)
    return found


def _told(done: list[Done], answers: dict[str, str]) -> list[str]:
    width = max(len(one.path) for one in done)
    lines = [f"{_WORDS[one.action]:<8}  {one.path:<{width}}  {one.what}".rstrip() for one in done]
    return [
        *lines,
        "",
        "next    git diff, then git add --all && git commit -m 'Begin " + answers["name"] + "'",
        "        make demo                                # the whole loop on this machine",
        "        az login",
        "        edgeml doctor github                     # is infra/azure/parameters.json as GitHub says?",
        "        edgeml infra plan --target azure         # workspace, registry, identities; then apply",
        "        edgeml infra plan --target stack-hub     # the edge VM and the rows' account; then apply",
        "        edgeml infra plan --target github        # environments, rules, variables; then apply",
        "        edgeml doctor                            # what is missing before a workflow can run",
    ]
