"""`edgeml storage`: the embedded blob server that stands in for Azure Stack Hub."""

from __future__ import annotations

import argparse
import json

from edgeml import project
from edgeml.errors import EdgemlError

HELP = (
    "Start, stop or look at the embedded blob storage (Azurite on loopback), the stand-in for Azure Stack Hub.\n"
    "Its data lie under .edgeml/storage/ and outlive it. Settings that name a real account need no server."
)
EXAMPLES = [
    "edgeml storage start               # install it (once), start it, keep it running",
    "edgeml storage start --port 10000  # on this port, now and later",
    "edgeml storage status --json",
    "edgeml storage stop",
]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    actions = parser.add_subparsers(dest="action", required=True, metavar="start|stop|status")
    start = actions.add_parser("start", help="start it and return once it answers; does nothing if it runs")
    start.add_argument(
        "--port", type=int, default=0, help="port to listen on (default: the settings', else a free one)"
    )
    stop = actions.add_parser("stop", help="stop it and return once it is gone; does nothing if it does not run")
    status = actions.add_parser("status", help="say whether and where it runs")
    for action in (start, stop, status):
        action.add_argument("--json", action="store_true", help="print JSON")


def execute(args: argparse.Namespace) -> int:
    from edgeml import settings
    from edgeml.storage import server

    state, chosen = project.state(), settings.load().storage
    if args.action == "stop":
        stopped = server.stop(state)
        print(json.dumps({"stopped": stopped}) if args.json else "stopped" if stopped else "it was not running")
        return 0
    if args.action == "start":
        if chosen.account_url:
            raise EdgemlError(
                f"storage.account_url names {chosen.account_url}, so the embedded storage would not be used; "
                "empty it in edgeml.toml or in the environment to use the embedded one"
            )
        if not 0 <= args.port <= 65535:
            raise EdgemlError(f"{args.port} is not a port; choose one from 1024 to 65535")
        server.start(state, args.port or chosen.port)
    found = server.running(state)
    facts: dict[str, object] = {
        "kind": "account" if chosen.account_url else "embedded",
        "running": found is not None,
        "url": chosen.account_url or (found.url if found else ""),
        "port": found.port if found else 0,
        "pid": found.pid if found else 0,
        "data": str(state / "storage" / "data"),
    }
    if args.json:
        print(json.dumps(facts, indent=2, sort_keys=True))
    elif chosen.account_url:
        print(f"the settings name {chosen.account_url}; the embedded storage is not used")
    else:
        print(f"running at {found.url} (process {found.pid})" if found else "stopped")
    return 0
