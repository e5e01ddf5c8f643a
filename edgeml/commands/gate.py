"""`edgeml gate`: whether a release tag may deploy to a site."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import argparse

HELP = """Decide whether a release tag may deploy to a site, and say why not.

Asks GitHub (GITHUB_TOKEN, GITHUB_REPOSITORY) and the container registry. Exit code 0: it may. 1: it may not.
A question that gets no answer is a no."""
EXAMPLES = [
    "edgeml gate staging --ref v1.4.0",
    "edgeml gate production --ref v1.4.0 --json",
]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("site", help="one of sites.order")
    parser.add_argument("--ref", required=True, metavar="TAG", help="a release tag, v1.2.3")
    parser.add_argument("--json", action="store_true", help="print the decision as JSON")


def execute(args: argparse.Namespace) -> int:
    from edgeml.gitops import gate

    decision = gate.decide(args.site, args.ref)
    if args.json:
        print(decision.json())
        return 0 if decision.allowed else 1
    verdict = "may deploy" if decision.allowed else "may not deploy"
    print(f"{decision.tag} {verdict} to {decision.site}")
    width = max(map(len, decision.facts), default=0)
    for name, value in decision.facts.items():
        print(f"  {name:<{width}}  {value}")
    for refusal in decision.refusals:
        print(f"\n  {refusal.reason}: {refusal.cause}\n    {refusal.fix}")
    return 0 if decision.allowed else 1
