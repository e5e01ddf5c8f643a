"""The code of steps as Azure ML code assets: exactly the files that the snapshot lists, named by their content."""

from __future__ import annotations

import uuid
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from edgeml.azure.workspace import Workspace
    from edgeml.engine.snapshot import Snapshot


def upload(workspace: Workspace, snapshot: Snapshot) -> str:
    """The `azureml:` reference of a snapshot's code asset, which is made where the workspace has none.

    A version is written last, so one that is there is whole.
    """
    from azure.storage.blob import ContainerClient

    from edgeml.azure import store

    name = str(uuid.UUID(hex=snapshot.fingerprint.partition(":")[2][:32]))  # the form that the SDK's own have
    path = f"codes/{name}/versions/1"
    if workspace.find(path) is None:
        body = {"pendingUploadType": "TemporaryBlobReference"}
        place = workspace.request("POST", f"{path}/startPendingUpload", body).json()["blobReferenceForConsumption"]
        container = ContainerClient.from_container_url(place["credential"]["sasUri"], **store.RETRY)
        store.put(workspace, container, snapshot.files)
        properties = {"edgeml.fingerprint": snapshot.fingerprint}
        workspace.request(
            "PUT",
            path,
            {"properties": {"codeUri": place["blobUri"], "isAnonymous": True, "properties": properties}},
        )
    return f"azureml:{workspace.id}/{path}"
