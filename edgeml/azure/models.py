"""Released models in the workspace's registry: one version for one content, whoever registers it and how often.

A version's name begins the model's SHA-256, so two machines that register the same model at once write the same thing.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

from edgeml.azure.patience import patiently
from edgeml.azure.store import Store
from edgeml.azure.workspace import silence
from edgeml.errors import EdgemlError

if TYPE_CHECKING:
    from edgeml.azure.workspace import Workspace

STORE = "workspaceblobstore"
DIGITS = 16  # of the digest, as the version
LONGEST_TAG = 256  # characters; what Azure ML takes is not documented, and no lineage needs more
SECONDS = 600.0


class Published(NamedTuple):
    """A version of the workspace, and whether it was made just now."""

    name: str
    version: str
    id: str
    created: bool


def publish(
    workspace: Workspace, name: str, sha256: str, folder: str, tags: Mapping[str, str], say: Callable[[str], None]
) -> Published:
    """Register the verified files of a release under a name. Safe to be killed and called again."""
    until = time.monotonic() + SECONDS
    version = sha256[:DIGITS]
    path = f"models/{name}/versions/{version}"

    def once() -> Published:
        there = workspace.find(path)
        if there is not None:
            _refuse_another(there, sha256)
            return Published(name, version, str(there["id"]), created=False)
        from edgeml.engine.fingerprint import walk

        uri = Store(workspace, STORE).put(
            f"edgeml/models/{sha256}", [(inner, file) for inner, kind, file in walk(folder) if kind == "file"]
        )
        with silence():
            from azure.ai.ml.entities import Model

            kept = {key: value[:LONGEST_TAG] for key, value in tags.items() if value}
            made: Any = workspace.client.models.create_or_update(
                Model(name=name, version=version, path=f"{uri}/", type="custom_model", tags=kept)
            )
        return Published(name, version, str(made.id), created=True)

    return patiently(workspace, f"registering {name}:{version}", once, until, say)


def _refuse_another(there: dict[str, Any], sha256: str) -> None:
    """Raise EdgemlError where a version of this name holds another model."""
    if (there["properties"].get("tags") or {}).get("model.sha256") != sha256:
        which = str(there["id"]).rpartition("/models/")[2]
        raise EdgemlError(f"models/{which} of the workspace is another model; look at it in the studio", 1)
