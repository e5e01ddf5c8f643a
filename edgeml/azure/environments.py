"""The repository's environments in the workspace: registered by the version that is the digest of their content."""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING

from edgeml import project
from edgeml.engine import snapshot
from edgeml.pipeline import load
from edgeml.azure.explain import status_of
from edgeml.azure.workspace import silence
from edgeml.errors import EdgemlError

if TYPE_CHECKING:
    from edgeml.azure.store import Store
    from edgeml.azure.workspace import Workspace

_REFERENCE = re.compile(r"azureml:(?P<name>[A-Za-z0-9._-]+):(?P<version>[A-Za-z0-9._-]+)")


def ensure(workspace: Workspace, reference: str, store: Store) -> None:
    """Register the environment that a reference names, where the workspace lacks it and the repository has it.

    Raises EdgemlError, exit code 1, where neither has it.
    """
    from azure.core.exceptions import HttpResponseError

    match = _REFERENCE.fullmatch(reference)
    if match is None:  # an image, a registry's, or a file that the SDK registers as anonymous
        return
    name, version = match["name"], match["version"]
    try:
        workspace.request("GET", f"environments/{name}/versions/{version}")
        return
    except HttpResponseError as error:
        if status_of(error) != 404:
            raise
    file = _file(name, version)
    if not file:
        raise EdgemlError(f"neither the workspace nor environments/ has {reference}; `edgeml check` says where it is used", 1)
    with silence():
        from azure.ai.ml import load_environment
        from azure.ai.ml.entities import BuildContext

        environment = load_environment(file)
        build = environment.build
        if build is not None and build.path and not load.is_remote(str(build.path)):
            # The SDK leaves the path as it is written, which is relative to the file and not to where this runs.
            context = load.local_path(str(build.path), file)
            folder = f"edgeml/environments/{name}/{version}"
            store.put(folder, snapshot.contents(context, ()))
            url = f"{store.container.url.split('?')[0]}/{folder}/"
            environment.build = BuildContext(path=url, dockerfile_path=build.dockerfile_path)
        workspace.client.environments.create_or_update(environment)


def _file(name: str, version: str) -> str:
    """The repository's own definition of an environment; empty where it has none."""
    import yaml

    folder = os.path.join(project.root_folder(), "environments")
    for path, _, names in os.walk(folder):
        for file in sorted(name for name in names if name.endswith((".yml", ".yaml"))):
            with open(os.path.join(path, file), encoding="utf-8") as stream:
                document = yaml.safe_load(stream)
            if isinstance(document, dict) and (document.get("name"), str(document.get("version"))) == (name, version):
                return os.path.join(path, file)
    return ""
