"""`edgeml serve`: score with a model on this machine, by the application that the scoring image runs."""

from __future__ import annotations

import json
import os
import sys
from typing import TYPE_CHECKING

from edgeml.errors import EdgemlError

if TYPE_CHECKING:
    import argparse

    from edgeml.serving.app import App

HELP = """Serve a registered model, or the folder of a release, over HTTP on this machine.

It is the very application of the scoring image, and runs until it is interrupted; its log is JSON on standard output.
Limits are set by EDGEML_SERVE_<NAME>: docs/serving.md lists them."""
EXAMPLES = [
    "edgeml serve                                   # the champion of registry.model",
    "edgeml serve breast-cancer:1 --port 9000",
    "edgeml serve .edgeml/runs/train-20260101-120000-1a2b/outputs/release",
]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "model",
        nargs="?",
        default="",
        help="NAME:VERSION, NAME@ALIAS, NAME for its champion, a folder, or an ONNX file (default: registry.model)",
    )
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (default: %(default)s)")
    parser.add_argument("--port", default="8080", help="port to listen on (default: %(default)s)")


def execute(args: argparse.Namespace) -> int:
    from edgeml.serving import run
    from edgeml.serving.settings import PREFIX, Unusable, read

    path, name, version = _find(args.model)
    chosen = {"MODEL": path, "HOST": args.host, "PORT": args.port, "NAME": name, "VERSION": version}
    try:
        run(read({**os.environ, **{PREFIX + key: value for key, value in chosen.items() if value}}), _announce)
    except Unusable as reason:
        raise EdgemlError(str(reason)) from None
    return 0


def _announce(app: App, host: str, port: int) -> None:
    from edgeml.serving.openapi import example

    body = json.dumps(example(app.model))
    where = f"http://{f'[{host}]' if ':' in host else host}:{port}"
    print(
        f"{app.model.name} {app.model.version} at {where}; interrupt to end. A row of zeros, as an example:\n"
        f"  curl {where}/score -H 'content-type: application/json' -d '{body}'",
        file=sys.stderr,
        flush=True,
    )


def _find(model: str) -> tuple[str, str, str]:
    """The folder or file to serve, and the name and version it has in the registry, empty where it has none."""
    if model and os.path.exists(model):
        return os.path.abspath(model), "", ""
    if os.sep in model:
        raise EdgemlError(f"there is no {model}; name a folder that holds model.onnx, or a registered model")
    from edgeml import registry, settings

    version = registry.find(model or settings.load().registry.model)
    return registry.path(version), version.name, str(version.version)
