"""The private container as Azure ML knows it: by reference, with a fingerprint, and without a credential.

A datastore says where rows lie, a data asset which. Neither holds a row, and nobody who may read the workspace can read
them by it: steps bring their own way to the storage.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from edgeml.azure.patience import patiently
from edgeml.errors import EdgemlError

if TYPE_CHECKING:
    from edgeml.azure.workspace import Workspace
    from edgeml.settings import Storage

SECONDS = 300.0
DIGITS = 16


def register_datastore(workspace: Workspace, name: str, storage: Storage, say: Callable[[str], None]) -> None:
    """Make a datastore that refers to the settings' container. Raises EdgemlError where there is none to refer to."""
    account, suffix = _place(storage)
    wanted = {
        "datastoreType": "AzureBlob",
        "accountName": account,
        "containerName": storage.container,
        "endpoint": suffix,
        "protocol": "https",
        "credentials": {"credentialsType": "None"},
    }
    until = time.monotonic() + SECONDS
    path = f"datastores/{name}"

    def once() -> str:
        there = workspace.find(path)
        if there is not None and all(there["properties"].get(key) == value for key, value in wanted.items()):
            return "is there already"
        workspace.request("PUT", path, {"properties": wanted}, skipValidation="true")
        return "was made" if there is None else "was changed"

    say(f"datastore {name} {patiently(workspace, f'registering {name}', once, until, say)}")


def register_asset(
    workspace: Workspace, name: str, datastore: str, prefix: str, fingerprint: str, say: Callable[[str], None]
) -> str:
    """Make the version of a data asset that a fingerprint names; returns its `azureml:` reference."""
    digits = fingerprint.rpartition(":")[2]
    if len(digits) != 64 or not set(digits) <= set("0123456789abcdef"):
        raise EdgemlError(f"'{fingerprint}' is no fingerprint; ingest_blobs writes one into its manifest")
    version = digits[:DIGITS]
    path = f"data/{name}/versions/{version}"
    uri = f"azureml://datastores/{datastore}/paths/{prefix.strip('/')}/"
    tags = {"data.fingerprint": f"sha256:{digits}", "edgeml": "reference only"}
    body = {"properties": {"dataType": "uri_folder", "dataUri": uri, "tags": tags}}

    def once() -> bool:
        if workspace.find(path) is not None:
            return False
        workspace.request("PUT", path, body)
        return True

    made = patiently(workspace, f"registering {name}", once, time.monotonic() + SECONDS, say)
    say(f"data asset {name}:{version} {'was made' if made else 'is there already'}")
    return f"azureml:{name}:{version}"


def _place(storage: Storage) -> tuple[str, str]:
    """The account's name and the suffix after `.blob.` of the settings' endpoint."""
    host = urlsplit(storage.account_url).hostname or ""
    account, blob, suffix = host.partition(".blob.")
    if not blob:
        raise EdgemlError("storage.account_url is no https://<account>.blob.<region>.<fqdn>; set it to the stamp's")
    return storage.account_name or account, suffix
