"""`edgeml submit`: a pipeline runs on a compute target."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import argparse

HELP = """Let a compute target run a pipeline.

The job's name follows from content and commit: submitted again, the job that runs or has completed is found. What
`edgeml check` calls an error, or would put a private output into the cloud, is not submitted."""
EXAMPLES = [
    "edgeml submit pipelines/train.yml --target edge-vm",
    "edgeml wait $(edgeml submit pipelines/train.yml)",
    "edgeml submit pipelines/train.yml --input seed=7 --supersede --json",
]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("pipeline", help="YAML file of a pipeline job")
    parser.add_argument("--target", default="", metavar="NAME", help="compute target (default: the pipeline's)")
    parser.add_argument(
        "--input", action="append", default=[], metavar="NAME=VALUE", help="set an input of the pipeline; repeatable"
    )
    parser.add_argument(
        "--supersede", action="store_true", help="cancel other jobs of this pipeline that have not ended"
    )
    parser.add_argument("--json", action="store_true", help="print job, state and link as JSON")


def execute(args: argparse.Namespace) -> int:
    from edgeml import records, settings, targets, workflow
    from edgeml.commands.run import pairs

    target = targets.chosen(args.target, args.pipeline, settings.load())
    done = target.submit(args.pipeline, pairs(args.input, "--input"), say, supersede=args.supersede)
    records.keep(done.job, target.name, args.pipeline)
    workflow.tell(job=done.job)
    if args.json:
        print(json.dumps({**done._asdict(), "target": target.name}, indent=2))
        return 0
    say(f"{done.job} {'was submitted' if done.created else f'is there already: {done.state}'}, on {target.name}")
    if done.studio:
        say(done.studio)
    say(f"follow it with `edgeml wait {done.job}`")
    print(done.job)
    return 0


def say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)
