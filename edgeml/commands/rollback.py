"""`edgeml rollback`: the pull request that takes a site back."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import argparse

HELP = """Open, or bring up to date, the pull request that reverts the record of a site to the one before it.

It takes the same approval and release tag as any other change; a site may go back to what it ran before whatever the
site before it runs now."""
EXAMPLES = ["edgeml rollback production", "edgeml rollback staging --dry-run"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("site", help="one of sites.order")
    parser.add_argument("--check", default="", metavar="WORKFLOW", help="start this workflow on what was pushed")
    parser.add_argument("--dry-run", action="store_true", help="print record and text, write nothing")
    parser.add_argument("--json", action="store_true", help="print the outcome as JSON")


def execute(args: argparse.Namespace) -> int:
    from edgeml.commands.promote import begin_check, show
    from edgeml.gitops.rollback import rollback

    outcome = rollback(args.site, dry_run=args.dry_run)
    begin_check(outcome, args.check)
    show(outcome, args.json)
    return 0
