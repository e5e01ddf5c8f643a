"""Who edgeml is to Azure: a workflow's own identity by GitHub's OIDC endpoint, else the signed-in Azure CLI.

No secret is kept anywhere. In a workflow each token that Azure gives is asked for with an assertion that GitHub made a
moment ago, so a job may wait for longer than any token lives.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from edgeml.errors import EdgemlError

if TYPE_CHECKING:
    from azure.core.credentials import TokenCredential

    from edgeml.azure.cloud import Cloud
    from edgeml.settings import Settings

AUDIENCE = "api://AzureADTokenExchange"  # what Entra's federated credentials expect
REQUEST_URL, REQUEST_TOKEN = "ACTIONS_ID_TOKEN_REQUEST_URL", "ACTIONS_ID_TOKEN_REQUEST_TOKEN"


def credential(settings: Settings, cloud: Cloud) -> TokenCredential:
    """The credential that fits where this process runs; nothing is asked for yet.

    Raises EdgemlError where a workflow has no identity to sign in as.
    """
    azure = settings.azure
    if not os.environ.get("GITHUB_ACTIONS") and not os.environ.get(REQUEST_URL):
        from azure.identity import AzureCliCredential

        return AzureCliCredential(tenant_id=azure.tenant_id)
    if not os.environ.get(REQUEST_URL) or not os.environ.get(REQUEST_TOKEN):
        raise EdgemlError("this job may not ask GitHub for an identity; give it `permissions: id-token: write`")
    for key in ("tenant_id", "client_id"):
        if not getattr(azure, key):
            raise EdgemlError(f"azure.{key} is empty, so nobody can sign in; set it, or EDGEML_AZURE_{key.upper()}")
    from azure.identity import ClientAssertionCredential

    return ClientAssertionCredential(
        azure.tenant_id,
        azure.client_id,
        assertion,
        authority=cloud.login,
        # Entra knows no private clouds, and asking it about one would leave the premises.
        disable_instance_discovery=not cloud.is_public,
    )


def assertion() -> str:
    """A fresh assertion of GitHub's about this job. Raises EdgemlError where it gives none, azure-core's else."""
    from azure.core import PipelineClient
    from azure.core.pipeline.policies import RetryPolicy
    from azure.core.rest import HttpRequest

    headers = {"Authorization": f"bearer {os.environ[REQUEST_TOKEN]}"}
    client: Any = PipelineClient(os.environ[REQUEST_URL], policies=[RetryPolicy()])
    with client:
        request = HttpRequest("GET", os.environ[REQUEST_URL], params={"audience": AUDIENCE}, headers=headers)
        response = client.send_request(request)
        if response.status_code in (401, 403):  # it will not change its mind
            raise EdgemlError("GitHub gives this job no identity; give it `permissions: id-token: write`", 1)
        response.raise_for_status()
        return str(response.json()["value"])
