"""`edgeml compute`: the machines that pipelines run on."""

from __future__ import annotations

import json
import sys
from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import argparse

HELP = """The compute targets of edgeml.toml: attach them to Azure ML, look at them, change their key, detach them."""
EXAMPLES = [
    "edgeml compute list",
    "edgeml compute attach edge-vm                # the key from EDGEML_SSH_KEY or EDGEML_SSH_KEY_FILE",
    "edgeml compute check edge-vm                 # what the VM lacks, with cause and fix",
    "edgeml compute check edge-vm --data-gib 40 --gpus 1 --json",
    "edgeml compute rotate edge-vm                # after a new key was let in on the VM",
]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    actions = parser.add_subparsers(dest="action", required=True, metavar="{list,attach,check,rotate,detach}")
    listing = actions.add_parser("list", help="every target, its kind and its state", allow_abbrev=False)
    listing.add_argument("--json", action="store_true", help="print JSON")
    attach = actions.add_parser("attach", help="attach a target to the workspace", allow_abbrev=False)
    check = actions.add_parser("check", help="look at an edge VM from within", allow_abbrev=False)
    rotate = actions.add_parser("rotate", help="give Azure ML the target's new key", allow_abbrev=False)
    detach = actions.add_parser("detach", help="detach a target; the machine goes on to exist", allow_abbrev=False)
    for action in (attach, check, rotate, detach):
        action.add_argument("target", help="its name in edgeml.toml")
    attach.add_argument(
        "--password",
        action="store_true",
        help="with the password in EDGEML_SSH_PASSWORD instead of a key; a strong one",
    )
    check.add_argument("--data-gib", type=float, metavar="N", help="size of the rows (default: the container's)")
    check.add_argument("--gpus", type=int, default=0, metavar="N", help="graphics cards that the pipeline wants")
    check.add_argument("--json", action="store_true", help="print the findings as JSON")


def execute(args: argparse.Namespace) -> int:
    if args.action == "check":
        return _check(args)
    from edgeml import settings as all_settings
    from edgeml import targets
    from edgeml.commands.submit import say

    settings = all_settings.load()
    if args.action == "list":
        found = [(name, (one := targets.of(name, settings)).kind, one.state()) for name in settings.compute]
        if args.json:
            print(json.dumps([dict(zip(("name", "kind", "state"), row, strict=True)) for row in found], indent=2))
        else:
            print("\n".join(f"{name}  {kind}  {state}" for name, kind, state in found) or "no compute targets yet")
        return 0
    target = targets.of(args.target, settings)
    if args.action == "detach":
        target.detach(say)
    else:
        target.attach(say, rotate=args.action == "rotate", password=getattr(args, "password", False))
    return 0


def _check(args: argparse.Namespace) -> int:
    check = import_module("edgeml.edge.check")
    data = None if args.data_gib is None else int(args.data_gib * (1 << 30))
    findings = check.examine(args.target, data=data, cards=args.gpus)
    if args.json:
        print(json.dumps([finding._asdict() for finding in findings], indent=2))
        return 0 if all(finding.ok for finding in findings) else 1
    right = check.show(findings)
    if not right:
        print(f"edgeml: {args.target} is not ready; mend what is wrong above and check again", file=sys.stderr)
    return 0 if right else 1
