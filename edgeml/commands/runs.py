"""`edgeml runs`: what was run on this machine."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING, Any

from edgeml import project

if TYPE_CHECKING:
    import argparse

HELP = "List earlier runs, or show one with its steps, timings and outputs."
EXAMPLES = [
    "edgeml runs list",
    "edgeml runs show                                # the newest",
    "edgeml runs show train-20260101-120000-1a2b --json",
]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    actions = parser.add_subparsers(dest="action", required=True, metavar="{list,show}")
    listing = actions.add_parser("list", help="all runs, the newest first")
    showing = actions.add_parser("show", help="one run")
    showing.add_argument("run", nargs="?", default="", help="name or folder of a run (default: the newest)")
    for parser_ in (listing, showing):
        parser_.add_argument("--json", action="store_true", help="print records as JSON")


def execute(args: argparse.Namespace) -> int:
    from edgeml.engine import runs

    state = project.state_folder()
    if args.action == "show":
        run = runs.find(state, args.run)
        print(json.dumps(run.record, indent=2)) if args.json else _show(run.path, run.record)
        return 0
    found = runs.every(state)
    if args.json:
        print(json.dumps([run.record for run in found], indent=2))
        return 0
    if not found:
        print("no runs yet")
    for run in found:
        record = run.record
        print(f"{record['run']:<36} {record['status']:<11} {record['seconds']:>9.2f} s  {_counts(record)}")
    return 0


def _counts(record: dict[str, Any]) -> str:
    statuses = [step["status"] for step in record["steps"]]
    return ", ".join(f"{statuses.count(status)} {status}" for status in dict.fromkeys(statuses))


def _show(path: str, record: dict[str, Any]) -> None:
    commit = record["git"]["commit"][:12] + (" with changes" if record["git"]["dirty"] else "")
    print(f"{record['run']}  {record['status']}")
    print(f"  pipeline  {record['pipeline']}  {record['pipeline_digest'][:19]}")
    print(f"  commit    {commit or 'none'}")
    print(f"  started   {record['started']}, took {record['seconds']:.2f} s")
    print(f"  folder    {os.path.relpath(path)}")
    width = max(len(step["node"]) for step in record["steps"])
    for step in record["steps"]:
        print(f"  {step['node']:<{width}}  {step['status']:<9} {step['seconds']:>8.2f} s  {step['message']}".rstrip())
    for name, output in record["outputs"].items():
        print(f"  output {name}: {os.path.join(os.path.relpath(path), output['path'])} ({output['zone']})")
