"""`edgeml doctor`: what is missing before a workflow can run."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterator

    from edgeml.azure.doctor import Finding

HELP = """Test each thing that a workflow will need, in order, and say what mends what is wrong. Changes nothing.

`edgeml doctor github` asks GitHub who this repository is, and prints the exact subjects that Azure must trust."""
EXAMPLES = [
    "edgeml doctor",
    "edgeml doctor github",
    "edgeml doctor --target edge-vm",
    "edgeml doctor --json | jq '.[] | select(.ok | not)'",
]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("part", nargs="?", choices=("github",), help="only what concerns GitHub")
    parser.add_argument("--target", default="", metavar="NAME", help="only this compute target (default: all)")
    parser.add_argument("--json", action="store_true", help="print the findings as JSON")


def execute(args: argparse.Namespace) -> int:
    ok, found = True, []
    for one in _examined(args.part, args.target):
        ok = ok and one.ok
        found.append(one._asdict())
        if not args.json:
            print(f"{'ok   ' if one.ok else 'WRONG'}  {one.name}: {one.told}", flush=True)
            if one.fix and not one.ok:
                print(f"       mend it: {one.fix}", flush=True)
    if args.json:
        print(json.dumps(found, indent=2))
    return 0 if ok else 1


def _examined(part: str | None, target: str) -> Iterator[Finding]:
    from edgeml import settings

    if part == "github":
        from edgeml.gitops import github
        from edgeml.infra import subjects

        return subjects.examine(github.connect(), settings.load())
    from edgeml.azure import doctor

    return doctor.examine(settings.load(), target)
