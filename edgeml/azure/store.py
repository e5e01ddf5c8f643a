"""The workspace's own blob storage, in the cloud: where code, small configuration and released models go.

Only what the snapshot's allow-list or a rule of `edgeml check` lets pass is put here, named by the digest of its
content. A blob that is there already is left alone, so an upload that was cut short is simply made again.
"""

from __future__ import annotations

from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from typing import TYPE_CHECKING, Any

from edgeml.errors import EdgemlError

if TYPE_CHECKING:
    from azure.storage.blob import ContainerClient

    from edgeml.azure.workspace import Workspace

# The storage SDK would wait 15 seconds before it tries again; what lasts longer is waited out by `patiently`.
RETRY: dict[str, Any] = {"retry_total": 3, "initial_backoff": 0.5, "increment_base": 2.0, "random_jitter_range": 1}
AT_ONCE = 8  # uploads; the blobs are small, so their number of round trips is what counts


class Store:
    """One datastore of the workspace, looked up when it is first used."""

    def __init__(self, workspace: Workspace, name: str) -> None:
        self._workspace, self.name = workspace, name

    @cached_property
    def container(self) -> ContainerClient:
        """Its container. Raises EdgemlError for a datastore that is not in the cloud's own blob storage."""
        from azure.core.credentials import AzureNamedKeyCredential, AzureSasCredential
        from azure.storage.blob import ContainerClient

        datastore: Any = self._workspace.request("GET", f"datastores/{self.name}").json()["properties"]
        cloud = self._workspace.cloud.storage
        if datastore.get("datastoreType") != "AzureBlob" or datastore.get("endpoint", cloud) != cloud:
            raise EdgemlError(
                f"datastore '{self.name}' is not in the workspace's cloud, so nothing is uploaded to it", 1
            )
        account = str(datastore["accountName"])
        credential: Any = self._workspace.credential
        if (datastore.get("credentials") or {}).get("credentialsType") != "None":
            secrets: Any = self._workspace.request("POST", f"datastores/{self.name}/listSecrets").json()
            if secrets.get("sasToken"):
                credential = AzureSasCredential(str(secrets["sasToken"]))
            elif secrets.get("key"):
                credential = AzureNamedKeyCredential(account, str(secrets["key"]))
        protocol = datastore.get("protocol") or "https"
        return ContainerClient(
            f"{protocol}://{account}.blob.{cloud}", str(datastore["containerName"]), credential, **RETRY
        )

    def put(self, folder: str, files: Iterable[tuple[str, str]]) -> str:
        """Upload files (name, path on this machine) below a folder that their content names; returns its `azureml://`."""
        put(self._workspace, self.container, files, folder)
        return self.uri(folder)

    def uri(self, path: str) -> str:
        return f"azureml://datastores/{self.name}/paths/{path}"


def put(workspace: Workspace, container: ContainerClient, files: Iterable[tuple[str, str]], folder: str = "") -> None:
    """Upload files that are not there yet, several at a time.

    What arrived is not sent again when an attempt is repeated: of many files some would fail each time.
    """
    from azure.core.exceptions import ResourceExistsError

    where = f"{container.primary_hostname}/{container.container_name}"  # its URL has a token, another one each time

    def one(file: tuple[str, str]) -> None:
        name, path = file
        blob = f"{folder}/{name}" if folder else name
        if (where, blob) in workspace.uploaded:
            return
        with open(path, "rb") as stream:
            content = stream.read()
        try:
            container.upload_blob(blob, content, overwrite=False)
        except ResourceExistsError as error:
            # Any conflict has this type; only one of them means that the content lies there.
            if getattr(error, "error_code", "") != "BlobAlreadyExists":
                raise
        workspace.uploaded.add((where, blob))

    with ThreadPoolExecutor(AT_ONCE) as pool:
        list(pool.map(one, files))
