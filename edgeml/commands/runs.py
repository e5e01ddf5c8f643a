"""`edgeml runs`: what was run on this machine."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING, Any

from edgeml import project
from edgeml.errors import EdgemlError

if TYPE_CHECKING:
    import argparse

HELP = "List earlier runs, show one, say what differs between two, or remove old ones."
EXAMPLES = [
    "edgeml runs list",
    "edgeml runs show                                # the newest",
    "edgeml runs show train-20260101-120000-1a2b --json",
    "edgeml runs diff                                # why each step of the newest run was not reused",
    "edgeml runs gc --keep 20 --dry-run              # which folders would go, and what that would free",
]

_KEEP = 10  # runs, where neither number nor age is asked for


def add_arguments(parser: argparse.ArgumentParser) -> None:
    actions = parser.add_subparsers(dest="action", required=True, metavar="{list,show,diff,gc}")
    listing = actions.add_parser("list", help="all runs, the newest first")
    showing = actions.add_parser("show", help="one run")
    showing.add_argument("run", nargs="?", default="", help="name or folder of a run (default: the newest)")
    differing = actions.add_parser("diff", help="why the steps of a run were not reused from an earlier one")
    differing.add_argument("run", nargs="?", default="", help="name or folder of a run (default: the newest)")
    differing.add_argument(
        "against", nargs="?", default="", help="the run to compare with (default: the one of its pipeline before it)"
    )
    removing = actions.add_parser(
        "gc", help="remove run folders; never one that runs, nor the newest completed one of a pipeline"
    )
    removing.add_argument("--keep", type=int, metavar="N", help=f"keep the newest N (default: {_KEEP})")
    removing.add_argument("--older-than", type=float, metavar="DAYS", help="remove only what ended so long ago")
    removing.add_argument("--dry-run", action="store_true", help="say what would go and remove nothing")
    for parser_ in (listing, showing, differing, removing):
        parser_.add_argument("--json", action="store_true", help="print records as JSON")


def execute(args: argparse.Namespace) -> int:
    from edgeml.engine import runs

    state = project.state_folder()
    if args.action == "show":
        run = runs.find(state, args.run)
        print(json.dumps(run.record, indent=2)) if args.json else _show(run.path, run.record)
        return 0
    if args.action == "diff":
        return _diff(state, args.run, args.against, as_json=args.json)
    if args.action == "gc":
        return _gc(state, args)
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


def _diff(state: str, wanted: str, against: str, *, as_json: bool) -> int:
    from edgeml.engine import difference, runs

    run = runs.find(state, wanted)
    made = difference.between(run, runs.find(state, against) if against else runs.predecessor(state, run))
    if as_json:
        print(json.dumps(made, indent=2))
        return 0
    print(f"{made['run']} against {made['against']}")
    width = max((len(step["node"]) for step in made["steps"]), default=0)
    for step in made["steps"]:
        texts = [reason["text"] for reason in step["reasons"]] or ["nothing differs"]
        print(f"  {step['node']:<{width}}  {step['status']:<9}  {texts[0]}")
        for text in texts[1:]:
            print(f"  {'':<{width}}  {'':<9}  {text}")
    for node in made["removed"]:
        print(f"  {node:<{width}}  {'gone':<9}  is only in {made['against']}")
    return 0


def _gc(state: str, args: argparse.Namespace) -> int:
    from edgeml.engine import reclaim

    if args.keep is not None and args.keep < 0:
        raise EdgemlError(f"--keep {args.keep}: give the number of runs to keep, 0 or more")
    if args.older_than is not None and not args.older_than >= 0:
        raise EdgemlError(f"--older-than {args.older_than:g}: give a number of days, 0 or more")
    keep = args.keep if args.keep is not None else _KEEP if args.older_than is None else 0
    age = (args.older_than or 0.0) * reclaim.DAY
    told = reclaim.remove_runs(state, keep=keep, older_than=age, dry_run=args.dry_run)
    if args.json:
        print(json.dumps(told, indent=2))
        return 0
    would = "would be " if args.dry_run else ""
    for name in told["removed"]:
        print(f"  {name}")
    freed, linked = reclaim.readable(told["freed_bytes"]), reclaim.readable(told["still_linked_bytes"])
    print(f"{len(told['removed'])} runs {would}removed, {told['kept']} kept; {freed} {would}freed")
    if told["still_linked_bytes"]:
        print(f"{linked} of what they held is in the cache or other runs too; `edgeml cache gc`")
    return 0
