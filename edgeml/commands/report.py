"""`edgeml report`: a run as one HTML page and its plots."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import argparse

HELP = """Write the report of a run: one self-contained HTML page and its plots as PNG.

It shows the record of the run and what the egress gate released, never a log or anything of the edge zone."""
EXAMPLES = [
    "edgeml report                                     # the newest run, into its folder",
    "edgeml report train-20260101-120000-1a2b --open",
    "edgeml report --out site/report",
]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("run", nargs="?", default="", help="name or folder of a run (default: the newest)")
    parser.add_argument("--out", metavar="DIR", help="folder to write to (default: report/ in the run's folder)")
    parser.add_argument("--open", action="store_true", help="show the page in a browser")


def execute(args: argparse.Namespace) -> int:
    from edgeml import report

    page = report.write(args.run, args.out)
    print(page)
    if args.open:
        import webbrowser
        from pathlib import Path

        if not webbrowser.open(Path(page).as_uri()):
            print("edgeml: no browser was found; open the page above in one", file=sys.stderr)
    return 0
