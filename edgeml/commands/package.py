"""`edgeml package`: a registered model becomes a container image, tested, signed and published by digest."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import argparse

    from edgeml.image import Packaged

HELP = """Build, test and publish the container image of a registered model.

The image is run before it goes anywhere: as its own user, read-only, without a network, against a golden answer. The
same model gives the same digest on every machine; called again, nothing is done."""
EXAMPLES = [
    "edgeml package breast-cancer:3                         # into .edgeml/image/layout",
    "edgeml package breast-cancer:3 --registry example.azurecr.io",
    "edgeml package breast-cancer --builder docker --no-push --json",
]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model", help="NAME:VERSION, NAME@ALIAS, or NAME for its champion")
    parser.add_argument("--builder", default="", metavar="NAME", help="embedded (default), buildx, docker or buildah")
    parser.add_argument("--registry", default="", metavar="HOST", help="push there (default: image.registry)")
    pushing = parser.add_mutually_exclusive_group()
    pushing.add_argument("--push", action="store_true", default=None, help="push; an error where no registry is named")
    pushing.add_argument("--no-push", action="store_false", dest="push", help="keep the image on this machine")
    parser.add_argument("--renew-base", action="store_true", help="let base.lock name the Debian packages of today")
    parser.add_argument("--json", action="store_true", help="print digest, reference and record as JSON")


def execute(args: argparse.Namespace) -> int:
    from edgeml import image

    done = image.package(
        args.model,
        builder=args.builder,
        registry=args.registry,
        push=args.push,
        renew_base=args.renew_base,
        say=lambda line: print(line, file=sys.stderr),
    )
    print(json.dumps(done._asdict(), indent=2, sort_keys=True) if args.json else summary(done))
    return 0


def summary(done: Packaged) -> str:
    """What a person wants to know: the digest, and what was done now."""
    state = "packaged just now" if done.created else "is already packaged: the same inputs"
    sizes = [layer["bytes"] for layer in done.record["layers"]]
    proof = done.record["proof"]
    return "\n".join(
        [
            f"{done.model}  {state}{', pushed' if done.pushed else ''}",
            f"  image   {done.reference}",
            f"  size    {sum(sizes) / 1e6:.1f} MB compressed, the model's layer {sizes[-1] / 1e3:.1f} kB",
            f"  tested  in {proof['runtime']}: golden answer for {proof['rows']} rows, "
            f"ready in {proof['ready_s']:.2f} s, one row {proof['p50_ms']:.2f} ms, {proof['peak_mb']:.0f} MB",
            f"  signed  by key {done.record['key'][:16]}",
        ]
    )
