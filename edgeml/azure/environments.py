"""The repository's environments in the workspace: registered by the version that is the digest of their content."""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING, Any

from edgeml import project
from edgeml.engine import snapshot
from edgeml.errors import EdgemlError
from edgeml.pipeline import load

if TYPE_CHECKING:
    from edgeml.azure.store import Store
    from edgeml.azure.workspace import Workspace

_REFERENCE = re.compile(r"azureml:(?P<name>[A-Za-z0-9._-]+):(?P<version>[A-Za-z0-9._-]+)")


def ensure(workspace: Workspace, reference: str, store: Store) -> None:
    """Register the environment that a reference names, where the workspace lacks it and the repository has it.

    By plain REST: the SDK would upload the folder of a build context once more, by its own idea of what belongs to it.
    Raises EdgemlError, exit code 1, where neither has it.
    """
    match = _REFERENCE.fullmatch(reference)
    if match is None:  # an image, a registry's, or a file that the SDK registers as anonymous
        return
    path = f"environments/{match['name']}/versions/{match['version']}"
    if workspace.find(path) is not None:
        return
    file, document = _definition(match["name"], match["version"])
    if not file:
        raise EdgemlError(
            f"neither the workspace nor environments/ has {reference}; `edgeml check` says who uses it", 1
        )
    properties: dict[str, Any] = {"osType": "Linux", "tags": {"edgeml.file": os.path.basename(file)}}
    if document.get("description"):
        properties["description"] = str(document["description"])
    if document.get("image"):
        properties["image"] = str(document["image"])
    if document.get("conda_file"):
        with open(load.local_path(str(document["conda_file"]), file), encoding="utf-8") as stream:
            properties["condaFile"] = stream.read()
    build = document.get("build")
    if isinstance(build, dict):
        folder = f"edgeml/{path}"
        store.put(folder, snapshot.contents(load.local_path(str(build["path"]), file), ()))
        context = f"{store.container.url.partition('?')[0]}/{folder}/"
        properties["build"] = {
            "contextUri": context,
            "dockerfilePath": str(build.get("dockerfile_path") or "Dockerfile"),
        }
    workspace.request("PUT", path, {"properties": properties})


def _definition(name: str, version: str) -> tuple[str, dict[str, Any]]:
    """The repository's own definition of an environment, by its file; empty where it has none."""
    import yaml

    for folder, _, names in os.walk(os.path.join(project.root_folder(), "environments")):
        for file in sorted(one for one in names if one.endswith((".yml", ".yaml"))):
            path = os.path.join(folder, file)
            with open(path, encoding="utf-8") as stream:
                document = yaml.safe_load(stream)
            if isinstance(document, dict) and (document.get("name"), str(document.get("version"))) == (name, version):
                return path, document
    return "", {}
