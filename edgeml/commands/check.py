"""`edgeml check`: pipelines, components and environments, before anything runs."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from edgeml.errors import EdgemlError

if TYPE_CHECKING:
    import argparse

HELP = "Find what is wrong with pipelines, components and environments, offline and before anything runs."
EXAMPLES = [
    "edgeml check                                    # pipelines/, components/ and environments/",
    "edgeml check pipelines/train.yml --format github",
    "edgeml check --explain unknown-key",
    "edgeml check --fix                              # after a lock changed: the versions of its environment",
]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("paths", nargs="*", metavar="PATH", help="file or folder (default: the repository's own)")
    parser.add_argument("--format", choices=("text", "github", "json", "sarif"), default="text", help="of the findings")
    parser.add_argument("--explain", default="", metavar="RULE", help="say why a rule exists, with examples")
    parser.add_argument(
        "--fix", action="store_true", help="write the versions that environments' content demands, first"
    )


def execute(args: argparse.Namespace) -> int:
    from edgeml.check import RULES, check, fix, render

    if args.explain:
        print(_explained(args.explain))
        return 0
    for file in fix(args.paths) if args.fix else ():
        print(f"edgeml: rewrote {file}", file=sys.stderr)
    findings = check(args.paths)
    shown = render(findings, RULES, args.format)
    if shown:
        print(shown)
    if args.format == "text":
        print(f"{len(findings)} findings" if findings else "nothing found", file=sys.stderr)
    return 1 if findings else 0


def _explained(wanted: str) -> str:
    from edgeml.check import RULES

    for rule in RULES:
        if rule.id == wanted:
            return (
                f"{rule.id} ({rule.severity})\n{rule.title}.\n\n{rule.why}\n\n"
                f"breaks it:\n{_indented(rule.bad)}\n\nkeeps it:\n{_indented(rule.good)}"
            )
    known = ", ".join(rule.id for rule in RULES)
    raise EdgemlError(f"there is no rule '{wanted}'; there are: {known}")


def _indented(text: str) -> str:
    return "\n".join(f"  {line}" for line in text.rstrip("\n").splitlines())
