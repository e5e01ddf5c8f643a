"""`edgeml models`: what is registered, and who is the champion."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import argparse

    from edgeml.registry import Version
    from edgeml.registry.trace import Trace

HELP = """List registered models, show one, print its folder, or name it.

A model is written NAME:VERSION or NAME@ALIAS; NAME alone is its champion, the model serving now."""
EXAMPLES = [
    "edgeml models list",
    "edgeml models show breast-cancer:3",
    "edgeml models trace 9f2c0a1b                  # the beginning of any digest",
    "edgeml models alias breast-cancer:3 champion",
    "edgeml run pipelines/train.yml --input champion=$(edgeml models path breast-cancer@champion)",
]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    actions = parser.add_subparsers(dest="action", required=True, metavar="{list,show,path,alias,trace}")
    listing = actions.add_parser("list", help="all models and versions")
    listing.add_argument("name", nargs="?", default="", help="of this model only")
    showing = actions.add_parser("show", help="one version with its lineage")
    pathing = actions.add_parser("path", help="the folder of its verified files")
    naming = actions.add_parser("alias", help="let an alias name this version and no other")
    for action in (showing, pathing, naming):
        action.add_argument("model", help="NAME:VERSION, NAME@ALIAS, or NAME for its champion")
    naming.add_argument("alias", help="for example champion")
    tracing = actions.add_parser("trace", help="what a model was made of and became, and back; from what lies here")
    tracing.add_argument(
        "what", help="model, or the digest of one or of an image, job or run, commit, fingerprint, site"
    )
    for action in (listing, showing, tracing):
        action.add_argument("--json", action="store_true", help="print JSON")


def execute(args: argparse.Namespace) -> int:
    from edgeml import registry
    from edgeml.commands.register import document

    if args.action == "list":
        versions = registry.versions(args.name)
        if args.json:
            print(json.dumps([document(version) for version in versions], indent=2))
        elif not versions:
            print("no models yet")
        else:
            _list(versions)
    elif args.action == "show":
        version = registry.find(args.model)
        print(json.dumps(document(version), indent=2)) if args.json else _show(version)
    elif args.action == "trace":
        found = registry.trace(args.what)
        print(json.dumps([one._asdict() for one in found], indent=2)) if args.json else _trace(found)
    elif args.action == "path":
        print(registry.path(registry.find(args.model)))
    else:
        version = registry.set_alias(args.model, args.alias)
        print(f"{version} is {args.alias}")
    return 0


def _list(versions: list[Version]) -> None:
    width = max(len(str(version)) for version in versions)
    for version in versions:
        verdict = "promote" if version.tags.get("promotion.promote") == "true" else "override"
        names = " ".join(f"@{alias}" for alias in version.aliases)
        print(f"{version!s:<{width}}  {version.sha256[:12]}  {_time(version)}  {verdict:<8}  {names}".rstrip())


def _show(version: Version) -> None:
    print(f"{version}  {' '.join(f'@{alias}' for alias in version.aliases)}".rstrip())
    print(f"  registered {_time(version)}")
    width = max(map(len, version.tags), default=0)
    for key, value in sorted(version.tags.items()):
        print(f"  {key:<{width}}  {value}".rstrip())


def _trace(found: list[Trace]) -> None:
    for one in found:
        for key, value in one._asdict().items():
            shown = ", ".join(value) if isinstance(value, list) else value
            print(f"{key:<10} {shown or 'unknown'}".rstrip())
        print()


def _time(version: Version) -> str:
    return time.strftime("%Y-%m-%d %H:%MZ", time.gmtime(version.created / 1000))
