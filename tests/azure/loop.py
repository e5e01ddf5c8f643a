"""Names of the loopback cloud: they look like Azure's, resolve nowhere, and lead to `server.py` by its proxy."""

from __future__ import annotations

SUFFIX = "loop.test"
STORAGE = f"core.{SUFFIX}"  # a client derives the account from a host that has `.core.` in it
CLOUD = "LoopCloud"
ARM = f"https://management.{SUFFIX}"
LOGIN = f"https://login.{SUFFIX}"
ML = f"https://ml.azure.{SUFFIX}"
ACTIONS = f"https://actions.{SUFFIX}/token?api-version=2.0"
API = f"https://westeurope.api.{SUFFIX}"
METADATA = f"{ARM}/metadata/endpoints?api-version=2022-09-01"

TENANT = "11111111-1111-1111-1111-111111111111"
CLIENT = "22222222-2222-2222-2222-222222222222"
SUBSCRIPTION = "33333333-3333-3333-3333-333333333333"
GROUP = "edge"
WORKSPACE = "edge-training"
LOCATION = "westeurope"
STORE = "edgetrainingstore"  # the workspace's own storage account
CONTAINER = "azureml-blobstore"
WORKSPACE_ID = (
    f"/subscriptions/{SUBSCRIPTION}/resourceGroups/{GROUP}/providers/Microsoft.MachineLearningServices/"
    f"workspaces/{WORKSPACE}"
)
REQUEST_TOKEN = "what-actions-gives-a-job"

# What a workflow's environment would hold; with it every real client finds its way here.
SETTINGS = {
    "EDGEML_AZURE_CLOUD": CLOUD,
    "EDGEML_AZURE_METADATA_URL": METADATA,
    "EDGEML_AZURE_TENANT_ID": TENANT,
    "EDGEML_AZURE_CLIENT_ID": CLIENT,
    "EDGEML_AZURE_SUBSCRIPTION_ID": SUBSCRIPTION,
    "EDGEML_AZURE_RESOURCE_GROUP": GROUP,
    "EDGEML_AZURE_WORKSPACE": WORKSPACE,
    "ACTIONS_ID_TOKEN_REQUEST_URL": ACTIONS,
    "ACTIONS_ID_TOKEN_REQUEST_TOKEN": REQUEST_TOKEN,
}
