"""`edgeml promote`: the pull request that brings a model to a site."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import argparse

    from edgeml.gitops.proposal import Outcome

HELP = """Open, or bring up to date, the pull request that changes the record of one site.

The first site of sites.order gets what a run released and registered; each later one what the site before it runs.
Needs GITHUB_TOKEN with contents and pull requests to write; --dry-run for the first site needs nothing."""
EXAMPLES = [
    "edgeml promote                                    # the newest completed run, to the first site",
    "edgeml promote breast-cancer:4 --image registry.example/scoring@sha256:… --dry-run",
    "edgeml promote --site production                  # what staging runs",
    "edgeml promote --check check.yml                  # in a workflow, whose token starts no other by itself",
]
_WORDS = {
    "opened": "opened",
    "updated": "updated",
    "unchanged": "is up to date",
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    from edgeml.check.records import SITES

    parser.add_argument("model", nargs="?", default="", help="run, or NAME:VERSION (default: the newest completed run)")
    parser.add_argument("--site", default="", help="one of sites.order (default: the first)")
    parser.add_argument("--image", default="", metavar="NAME@DIGEST", help="image (default: the one packaged here)")
    parser.add_argument("--kind", default="", choices=SITES, help="of a site that has no record yet")
    parser.add_argument("--check", default="", metavar="WORKFLOW", help="start this workflow on what was pushed")
    parser.add_argument("--dry-run", action="store_true", help="print record and evidence, write nothing")
    parser.add_argument("--json", action="store_true", help="print the outcome as JSON")


def execute(args: argparse.Namespace) -> int:
    from edgeml.gitops.promote import promote

    outcome = promote(args.model, args.site, image=args.image, kind=args.kind, dry_run=args.dry_run)
    begin_check(outcome, args.check)
    show(outcome, args.json)
    return 0


def begin_check(outcome: Outcome, workflow: str) -> None:
    """Start a workflow on the branch of a proposal, unless there is none. Safe to be repeated: it checks once more."""
    from edgeml.gitops import start

    if workflow and outcome.commit:
        start.workflow(workflow, outcome.proposal.branch)


def show(outcome: Outcome, as_json: bool) -> None:
    """Print what became of a proposal."""
    proposal = outcome.proposal
    if as_json:
        print(json.dumps(outcome._asdict() | {"proposal": proposal._asdict()}, indent=2))
    elif outcome.action == "dry-run":
        print(f"{proposal.title}\n\n--- {proposal.path}\n{proposal.text}\n--- pull request\n{proposal.body}", end="")
    elif outcome.action == "none":
        print(f"nothing to do: {proposal.path} says so already")
    else:
        print(f"#{outcome.number} {_WORDS[outcome.action]}: {proposal.title}\n{outcome.url}")
