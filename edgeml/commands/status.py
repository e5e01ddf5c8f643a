"""`edgeml status`: what sites should run, and what they run."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, Any

from edgeml.errors import EdgemlError

if TYPE_CHECKING:
    import argparse

HELP = """Show what each site should run, by its record in this checkout, what it runs, and whether its predictions
drift from those of the model's test rows.

Exit code 0: every site runs what its record says, and answers, drift or not. 1: one does not. A site that is only
exported for is shown and not judged: edgeml does not see what runs there."""
EXAMPLES = [
    "edgeml status",
    "edgeml status production --json",
    "edgeml status --issue                             # each day, in a workflow: one issue that says what is wrong",
]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("site", nargs="?", default="", help="one site (default: all of sites.order)")
    parser.add_argument(
        "--issue", action="store_true", help="keep one issue on GitHub that says what is wrong or drifts"
    )
    parser.add_argument("--json", action="store_true", help="print the sites as JSON")


def execute(args: argparse.Namespace) -> int:
    from edgeml import settings
    from edgeml.gitops import deploy

    sites = [args.site] if args.site else settings.load().sites.order
    if not sites:
        raise EdgemlError('no site is declared; name them in edgeml.toml: [sites] order = ["staging", "production"]')
    told = [_look(site) for site in sites]
    if args.issue:
        from edgeml.gitops import watch

        seen = [each for each in told if each["state"] != deploy.EXPORTED]
        watch.tell(seen, lambda line: print(f"edgeml: {line}", file=sys.stderr))
    if args.json:
        print(json.dumps({"version": 1, "sites": told}, indent=2))
    else:
        width = max(map(len, sites))
        for each in told:
            print(f"{each['site']:<{width}}  {each['state']}")
            for name in ("wanted", "running"):
                print(f"{'':<{width}}    {name:<8} {each[name] or 'nothing'}")
            if "signature" in each["details"]:
                print(f"{'':<{width}}    {'verified':<8} by the {each['details']['signature']}")
            print(f"{'':<{width}}    {'drift':<8} {_words(each['drift'])}")
    return 0 if all(each["state"] in ("in step", deploy.EXPORTED) for each in told) else 1


def _look(site: str) -> dict[str, Any]:
    from edgeml.gitops import deploy, drift

    try:
        record, serving = deploy.status(site)
    except EdgemlError as error:
        print(f"edgeml: {error}", file=sys.stderr)
        unknown = drift.Drift(drift.UNKNOWN, "the site was not asked")._asdict()
        return {"site": site, "state": "unknown", "wanted": "", "running": "", "details": {}, "drift": unknown}
    if serving.exported:
        state = deploy.EXPORTED
    elif serving.image != record.image:
        state = "differs" if serving.image else "nothing runs"
    else:
        state = "in step" if serving.healthy else "does not answer"
    running = {"running": serving.image, "details": serving.details}
    measured = drift.measured(serving.predictions)._asdict()
    return {"site": site, "state": state, "wanted": record.image, **running, "drift": measured}


def _words(found: dict[str, Any]) -> str:
    if found["reason"]:
        return f"{found['state']}: {found['reason']}"
    return f"{found['state']}: PSI {found['psi']:.3f} of at most {found['limit']:.3f}"
