"""`edgeml wait`: follow a job to its end, from any machine and as often as it takes."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import argparse

STILL_RUNNING = 75  # sysexits' EX_TEMPFAIL: nothing is wrong, come again
HELP = f"""Follow a job to its end and bring here what it released.

Shown is which step does what, and nothing of what it printed. Lost networks, expired tokens and a busy service are
waited out. Exit code 0: completed; 1: failed or cancelled; {STILL_RUNNING}: still running when the deadline came, call
it again. With --resume a workflow does that: it is started anew with the job, and the exit code is 0."""
EXAMPLES = [
    "edgeml wait train-0123456789abcdef",
    "edgeml wait train-0123456789abcdef --target edge-vm --deadline 300   # minutes, below the workflow's",
    "edgeml wait train-0123456789abcdef --resume train.yml                # in a workflow, which may not wait for ever",
]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("job", help="its name, as `edgeml submit` prints it")
    parser.add_argument(
        "--target", default="", metavar="NAME", help="where it runs (default: where it was submitted to)"
    )
    parser.add_argument("--deadline", type=float, default=330.0, metavar="MINUTES", help="default: %(default)s")
    parser.add_argument(
        "--poll", type=float, default=15.0, metavar="SECONDS", help="between two looks (default: %(default)s)"
    )
    parser.add_argument("--resume", default="", metavar="WORKFLOW", help="let this workflow wait on, by its input job")
    parser.add_argument("--json", action="store_true", help="print state and run folder as JSON")


def execute(args: argparse.Namespace) -> int:
    from edgeml import records, settings, targets, workflow
    from edgeml.commands.submit import say

    target = targets.of(records.target_of(args.job, args.target), settings.load())
    ended = target.wait(args.job, say, seconds=args.deadline * 60, poll=args.poll)
    workflow.tell(state=ended.state, run=ended.run)
    if args.json:
        print(json.dumps(ended._asdict(), indent=2))
    else:
        say(f"{ended.job}: {ended.state}")
        if ended.run:
            print(ended.run)
    if ended.state == targets.RUNNING:
        if args.resume:
            from edgeml.gitops import start

            start.workflow(args.resume, inputs={"job": args.job})
            say(f"it goes on; {args.resume} was started to wait for it")
            return 0
        say(f"it goes on; `edgeml wait {args.job}` finds it again (exit code {STILL_RUNNING})")
        return STILL_RUNNING
    return 0 if ended.state == targets.COMPLETED else 1
