"""`edgeml cancel`: end a job."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import argparse

HELP = "Cancel a job; one that has ended stays as it is."
EXAMPLES = ["edgeml cancel train-0123456789abcdef", "edgeml cancel train-0123456789abcdef --target edge-vm"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("job", help="its name, as `edgeml submit` prints it")
    parser.add_argument(
        "--target", default="", metavar="NAME", help="where it runs (default: where it was submitted to)"
    )


def execute(args: argparse.Namespace) -> int:
    from edgeml import records, settings, targets
    from edgeml.commands.submit import say

    target = targets.of(records.target_of(args.job, args.target), settings.load())
    state = target.cancel(args.job, say)
    if state in (targets.COMPLETED, targets.FAILED):
        say(f"{args.job} has ended already: {state}")
    return 0
