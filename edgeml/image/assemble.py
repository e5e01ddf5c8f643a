"""The embedded builder: an image of base, packages, server and model, without a daemon, root or network.

It makes what `environments/scoring/Dockerfile` says, and only that: the metadata is read from the file's last stage,
and a file that copies or runs anything else is refused rather than half followed.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import tempfile
from collections.abc import Mapping
from typing import Any

from edgeml.check import dockerfile
from edgeml.errors import EdgemlError
from edgeml.image import base as base_image
from edgeml.image import normal, oci, parts, python, tree
from edgeml.image.base import Base
from edgeml.image.layout import Layout
from edgeml.image.recipe import DOCKERFILE, Recipe

NAME = "embedded"
_FOLLOWED = (
    "COPY --from=build --chown=0:0 /image/packages/ /",
    "COPY --from=build --chown=0:0 /image/server/ /",
    "COPY --chown=0:0 model /model",
)


def missing() -> str:
    """Why this builder cannot work here; it always can."""
    return ""


def build(context: str, base: Base, recipe: Recipe, layout: Layout) -> str:
    """Build the image of a context into the layout; returns its digest. The same inputs give the same one."""
    with open(os.path.join(context, "Dockerfile"), encoding="utf-8") as stream:
        settings = last_stage(stream.read(), recipe.arguments)
    script, lock = os.path.join(context, "layers.py"), os.path.join(context, "requirements.lock")
    wheels, server = os.path.join(context, "wheels"), os.path.join(context, "server")
    known = [base.digest, parts.digest(script), *base_image.made_by()]
    places = [
        parts.of("packages", [*known, parts.digest(lock), parts.digest(os.path.realpath(wheels))],
                 lambda folder: _part(base.root, folder, script, "packages", wheels, lock)),
        parts.of("server", [*known, parts.digest(server)],
                 lambda folder: _part(base.root, folder, script, "server", server)),
    ]  # fmt: skip
    layers = []
    for place in places:
        with open(os.path.join(place, "diff"), encoding="ascii") as stream:
            layers.append((layout.adopt(os.path.join(place, "layer.tar.gz"), oci.LAYER), stream.read()))
    with tempfile.TemporaryDirectory(dir=parts.folder()) as folder:
        diff = base_image.layer(tree.of_folder(os.path.join(context, "model"), "model"), base.root, folder)
        layers.append((layout.adopt(os.path.join(folder, "layer.tar.gz"), oci.LAYER), diff))
    return normal.image(base, layers, settings | {"Labels": recipe.labels}, layout)


def last_stage(text: str, arguments: Mapping[str, str]) -> dict[str, Any]:
    """The settings of an image's config that a Dockerfile's last stage makes. Raises EdgemlError for other content."""
    found: list[dockerfile.Instruction] = []
    for instruction in dockerfile.instructions(text):
        found = [] if instruction.name == "FROM" else [*found, instruction]
    copied = tuple(f"{name} {rest}" for _, name, rest in found if name in ("COPY", "ADD", "RUN"))
    if copied != _FOLLOWED:
        raise EdgemlError(
            f"{DOCKERFILE} copies or runs what the embedded builder does not know; build it with --builder docker"
        )
    settings: dict[str, Any] = {}
    for line, name, rest in found:
        if name == "ENV":
            words = shlex.split(re.sub(r"\$\{(\w+)\}", lambda match: arguments[match[1]], rest))
            settings.setdefault("Env", []).extend(words)
        elif name in ("USER", "WORKDIR", "STOPSIGNAL"):
            settings[{"USER": "User", "WORKDIR": "WorkingDir", "STOPSIGNAL": "StopSignal"}[name]] = rest
        elif name == "EXPOSE" and re.fullmatch(r"\d+", rest):
            settings["ExposedPorts"] = {f"{rest}/tcp": {}}
        elif name in ("ENTRYPOINT", "CMD"):
            settings[name.capitalize()] = json.loads(rest)
        elif name not in ("COPY", "ADD", "RUN") and (name != "ARG" or rest not in arguments):
            raise EdgemlError(f"{DOCKERFILE}:{line}: the embedded builder does not know {name}; use --builder docker")
    return settings


def _part(root: str, folder: str, script: str, *arguments: str) -> None:
    """A layer that the script makes under the base's Python, as `layer.tar.gz` and the digest of its content."""
    made = os.path.join(folder, "tree")
    python.run(root, script, *arguments, made)
    diff = base_image.layer(tree.of_folder(made), root, folder)
    tree.remove(made)
    with open(os.path.join(folder, "diff"), "w", encoding="ascii") as stream:
        stream.write(diff)
