"""`edgeml compute`: the machines that pipelines run on."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import argparse

HELP = "Look at the machines that pipelines run on, the compute targets of edgeml.toml."
EXAMPLES = [
    "edgeml compute check edge-vm                 # what the VM lacks, with cause and fix",
    "edgeml compute check edge-vm --data-gib 40 --gpus 1 --json",
]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    actions = parser.add_subparsers(dest="action", required=True, metavar="check")
    check = actions.add_parser("check", help="look at an edge VM from within", allow_abbrev=False)
    check.add_argument("target", help="name of a compute target of kind edge")
    check.add_argument("--data-gib", type=float, metavar="N", help="size of the rows (default: the container's)")
    check.add_argument("--gpus", type=int, default=0, metavar="N", help="graphics cards that the pipeline wants")
    check.add_argument("--json", action="store_true", help="print the findings as JSON")


def execute(args: argparse.Namespace) -> int:
    from edgeml.edge import check

    data = None if args.data_gib is None else int(args.data_gib * (1 << 30))
    findings = check.examine(args.target, data=data, cards=args.gpus)
    if args.json:
        print(json.dumps([finding._asdict() for finding in findings], indent=2))
        return 0 if all(finding.ok for finding in findings) else 1
    right = check.show(findings)
    if not right:
        print(f"edgeml: {args.target} is not ready; mend what is wrong above and check again", file=sys.stderr)
    return 0 if right else 1
