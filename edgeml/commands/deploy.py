"""`edgeml deploy`: what the record of a site says comes to serve there."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import argparse

HELP = """Deploy a release to a site: the image of its record, by digest, once the gate has said that it may.

The new container starts beside the old one, must give the golden answer, gets the traffic and is watched; when any of
it fails the old one serves on. Exit code 0: it serves, or is exported for a site that cannot run it. 1: refused, or
rolled back. Run again, nothing changes."""
EXAMPLES = [
    "edgeml deploy staging --ref v1.4.0",
    "edgeml deploy staging --ref v1.4.0 --json | jq .outcome",
    "edgeml deploy --list",
    "edgeml deploy staging --policy kyverno         # for the cluster's administrator to apply, on Kubernetes",
    "edgeml deploy bench --ungated                  # the record in this checkout, to try a site out",
]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("site", nargs="?", default="", help="one of sites.order")
    which = parser.add_mutually_exclusive_group(required=True)
    which.add_argument("--ref", metavar="TAG", help="a release tag, v1.2.3, which the gate is asked about")
    which.add_argument("--list", action="store_true", help="print the sites that have a record here, in their order")
    which.add_argument("--restore", action="store_true", help="have the known good serve again, as after a reboot")
    which.add_argument(
        "--policy", choices=("kyverno", "sigstore"), help="print what has a cluster verify signatures by itself"
    )
    which.add_argument("--ungated", action="store_true", help="the record in this checkout, asked of nobody")
    parser.add_argument("--json", action="store_true", help="print what became of it as JSON")


def execute(args: argparse.Namespace) -> int:
    from edgeml.commands.gate import show
    from edgeml.errors import EdgemlError
    from edgeml.gitops import deploy

    if args.list:
        return _list(as_json=args.json)
    if not args.site:
        raise EdgemlError("name the site to deploy to; `edgeml deploy --list` shows those that have a record")

    def say(line: str) -> None:
        print(f"edgeml: {line}", file=sys.stderr, flush=True)

    if args.policy:
        print(_policy(args.site, args.policy), end="")
        return 0
    if args.restore:
        print(json.dumps(deploy.restore(args.site), indent=2))
        return 0
    try:
        done = deploy.deploy_ungated(args.site, say) if args.ungated else deploy.deploy(args.site, args.ref, say)
    except deploy.Refused as refused:
        show(refused.decision, as_json=args.json)
        return 1
    record, rollout = done
    if args.json:
        told = {"version": 1, "site": args.site, "model": record.model, "image": record.image, **rollout._asdict()}
        print(json.dumps(told, indent=2))
    else:
        print(f"{args.site}  {rollout.outcome}: {record.model}" + (f"; {rollout.reason}" if rollout.reason else ""))
        print(f"  image  {record.image}")
    return 0 if rollout.outcome in (*deploy.SERVES, deploy.EXPORTED) else 1


def _policy(site: str, kind: str) -> str:
    """The policy of a site on Kubernetes, with the keys of this repository."""
    from edgeml import project, settings
    from edgeml.errors import EdgemlError
    from edgeml.gitops import images, record
    from edgeml.gitops.sites import admission

    wanted, known = record.read(project.root_folder(), site), settings.load().site.get(site)
    if wanted.kind != "kubernetes" or known is None or not known.namespace:
        raise EdgemlError(f"a policy is for a site of the kind kubernetes, whose namespace site.{site}.namespace names")
    return admission.policy(kind, wanted, known.namespace, images.keys())


def _list(*, as_json: bool) -> int:
    """The sites of `sites.order` whose records are in this checkout: what a release can reach."""
    import os

    from edgeml import project, settings, workflow
    from edgeml.gitops import record

    root = project.root_folder()
    sites = [site for site in settings.load().sites.order if os.path.isfile(os.path.join(root, record.path_of(site)))]
    workflow.tell(sites=json.dumps(sites))
    print(json.dumps(sites) if as_json else "\n".join(sites))
    return 0
