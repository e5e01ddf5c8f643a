"""The loopback cloud, started: proxy, service and Azurite."""

from __future__ import annotations

import base64
import contextlib
import secrets
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from edgeml.storage import install
from tests.azure import loop
from tests.azure.server import Cloud, azurite
from tests.azure.service import Service


@dataclass
class Running:
    cloud: Cloud
    service: Service
    blobs: str  # connection string of the workspace's own account, straight to Azurite

    def container(self, name: str = loop.CONTAINER):
        from azure.storage.blob import ContainerClient

        return ContainerClient.from_connection_string(self.blobs, name)

    def make_container(self, name: str) -> None:
        from azure.core.exceptions import ResourceExistsError

        with contextlib.suppress(ResourceExistsError):
            self.container(name).create_container()

    def provide(self) -> None:
        """What the demo pipeline needs of a workspace: its compute and its private datastore."""
        cluster = "/subscriptions/s/resourceGroups/stamp/providers/Microsoft.Kubernetes/connectedClusters/hub"
        self.service.state.computes["edge-vm"] = {
            "computeType": "Kubernetes",
            "provisioningState": "Succeeded",
            "resourceId": cluster,
            "properties": {"namespace": "default"},
        }
        self.service.state.datastores["stackhub"] = {
            "datastoreType": "AzureBlob",
            "accountName": "rows",
            "containerName": "private",
            "endpoint": "region.stamp.example",
            "protocol": "https",
            "credentials": {"credentialsType": "None"},
        }

    def reset(self) -> None:
        """An empty workspace."""
        self.cloud.clear()
        self.service.reset()


@contextlib.contextmanager
def started(install_folder: Path, folder: Path) -> Iterator[Running]:
    key = base64.b64encode(secrets.token_bytes(64)).decode()
    with azurite(install.azurite(install_folder), folder, loop.STORE, key) as port:
        service = Service(key)
        cloud = Cloud(service, folder, port)
        blobs = (
            f"DefaultEndpointsProtocol=http;AccountName={loop.STORE};AccountKey={key};"
            f"BlobEndpoint=http://127.0.0.1:{port}/{loop.STORE};"
        )
        running = Running(cloud, service, blobs)
        service.make_container = running.make_container  # type: ignore[method-assign]
        running.make_container(loop.CONTAINER)
        try:
            yield running
        finally:
            cloud.close()
