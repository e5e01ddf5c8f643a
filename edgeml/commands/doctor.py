"""`edgeml doctor`: what is missing before a workflow can run."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import argparse

HELP = "Test each thing that a workflow will need, in order, and say what mends what is wrong. Changes nothing."
EXAMPLES = ["edgeml doctor", "edgeml doctor --target edge-vm", "edgeml doctor --json | jq '.[] | select(.ok | not)'"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--target", default="", metavar="NAME", help="only this compute target (default: all)")
    parser.add_argument("--json", action="store_true", help="print the findings as JSON")


def execute(args: argparse.Namespace) -> int:
    from edgeml import settings
    from edgeml.azure import doctor

    ok, found = True, []
    for one in doctor.examine(settings.load(), args.target):
        ok = ok and one.ok
        found.append(one._asdict())
        if not args.json:
            print(f"{'ok   ' if one.ok else 'WRONG'}  {one.name}: {one.told}", flush=True)
            if one.fix and not one.ok:
                print(f"       mend it: {one.fix}", flush=True)
    if args.json:
        print(json.dumps(found, indent=2))
    return 0 if ok else 1
