"""`edgeml cache`: the outputs of finished steps that are kept for reuse."""

from __future__ import annotations

import json
import os
import re
from typing import TYPE_CHECKING

from edgeml import project
from edgeml.errors import EdgemlError

if TYPE_CHECKING:
    import argparse

HELP = "Look at the cache of finished steps, or bound it; safe while pipelines run."
EXAMPLES = [
    "edgeml cache status",
    "edgeml cache gc --max-size 10GB                 # drops what was used least recently",
    "edgeml cache gc --older-than 30 --dry-run",
]
_MAX_SIZE = "10GB"
_UNITS = {"": 1, "B": 1} | {
    unit + suffix: base**power
    for power, unit in enumerate("KMGT", start=1)
    for suffix, base in (("", 1000), ("B", 1000), ("IB", 1024))
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    actions = parser.add_subparsers(dest="action", required=True, metavar="{status,gc}")
    status = actions.add_parser("status", help="how many entries, how much space, how much of it shared with runs")
    gc = actions.add_parser("gc", help="drop entries, the least recently used first, and what killed engines left")
    gc.add_argument("--max-size", default=_MAX_SIZE, metavar="SIZE", help=f"space to keep (default: {_MAX_SIZE})")
    gc.add_argument("--older-than", type=float, metavar="DAYS", help="drop also what was not used for so long")
    gc.add_argument("--dry-run", action="store_true", help="say what would go and drop nothing")
    for parser_ in (status, gc):
        parser_.add_argument("--json", action="store_true", help="print the numbers as JSON")


def execute(args: argparse.Namespace) -> int:
    from edgeml.engine import reclaim

    folder = os.path.join(project.state_folder(), "cache")
    if args.action == "status":
        told = reclaim.cache_status(folder)
        if args.json:
            print(json.dumps(told, indent=2))
            return 0
        shared = reclaim.readable(told["shared_bytes"])
        print(f"{told['entries']} entries, {reclaim.readable(told['bytes'])}, of which {shared} in folders of runs too")
        print(f"folder  {os.path.relpath(folder)}")
        return 0
    if args.older_than is not None and not args.older_than >= 0:
        raise EdgemlError(f"--older-than {args.older_than:g}: give a number of days, 0 or more")
    age = None if args.older_than is None else args.older_than * reclaim.DAY
    told = reclaim.shrink_cache(folder, max_size=_bytes(args.max_size), older_than=age, dry_run=args.dry_run)
    if args.json:
        print(json.dumps(told, indent=2))
        return 0
    would = "would be " if args.dry_run else ""
    freed, left = reclaim.readable(told["freed_bytes"]), reclaim.readable(told["bytes"])
    print(f"{told['dropped']} entries {would}dropped, {told['entries']} kept ({left}); {freed} {would}freed")
    if told["unfinished"]:
        print(f"{told['unfinished']} leftovers of killed engines {would}removed")
    if told["still_linked_bytes"]:
        linked = reclaim.readable(told["still_linked_bytes"])
        print(f"{linked} of what they held is in folders of runs too; `edgeml runs gc`")
    return 0


def _bytes(size: str) -> int:
    parts = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([A-Za-z]*)", size.strip())
    if parts is None or parts[2].upper() not in _UNITS:
        raise EdgemlError(f"--max-size {size}: write it as a number and a unit, for example 500MB or 10GB")
    return int(float(parts[1]) * _UNITS[parts[2].upper()])
