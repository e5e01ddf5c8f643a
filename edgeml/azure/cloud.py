"""Where an Azure cloud's endpoints are: the public ones are known, a private one is asked for its own."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from edgeml.errors import EdgemlError

if TYPE_CHECKING:
    from edgeml.settings import Settings


class Cloud(NamedTuple):
    """Endpoints as azure-ai-ml's `cloud_metadata` wants them, the last slash removed."""

    name: str
    portal: str
    arm: str
    login: str
    ml: str
    storage: str
    is_public: bool = True

    def metadata(self) -> dict[str, str]:
        """The form in which `MLClient` takes a cloud that it does not know."""
        return {
            "azure_portal": f"{self.portal}/",
            "resource_manager": f"{self.arm}/",
            "active_directory": f"{self.login}/",
            "aml_resource_id": f"{self.ml}/",
            "storage_endpoint": self.storage,
            "registry_discovery_endpoint": f"{self.arm}/",
        }


PUBLIC = {
    cloud.name: cloud
    for cloud in (
        Cloud(
            "AzureCloud",
            "https://portal.azure.com",
            "https://management.azure.com",
            "https://login.microsoftonline.com",
            "https://ml.azure.com",
            "core.windows.net",
        ),
        Cloud(
            "AzureUSGovernment",
            "https://portal.azure.us",
            "https://management.usgovcloudapi.net",
            "https://login.microsoftonline.us",
            "https://ml.azure.us",
            "core.usgovcloudapi.net",
        ),
        Cloud(
            "AzureChinaCloud",
            "https://portal.azure.cn",
            "https://management.chinacloudapi.cn",
            "https://login.chinacloudapi.cn",
            "https://ml.azure.cn",
            "core.chinacloudapi.cn",
        ),
    )
}


def of(settings: Settings) -> Cloud:
    """The cloud that the settings name. Raises EdgemlError where it is unknown, azure-core's where none answers."""
    name, url = settings.azure.cloud, settings.azure.metadata_url
    if not url:
        if name not in PUBLIC:
            raise EdgemlError(f"'{name}' is none of {', '.join(PUBLIC)}; set azure.metadata_url for a private cloud")
        return PUBLIC[name]
    from azure.core import PipelineClient
    from azure.core.pipeline.policies import RetryPolicy
    from azure.core.rest import HttpRequest

    client: Any = PipelineClient(url, policies=[RetryPolicy()])
    with client:
        response = client.send_request(HttpRequest("GET", url))
        response.raise_for_status()
        found = response.json()
    try:
        known = {cloud["name"]: cloud for cloud in (found if isinstance(found, list) else [found])}
        one = known[name]
        portal = str(one["portal"]).rstrip("/")
        return Cloud(
            name,
            portal,
            str(one["resourceManager"]).rstrip("/"),
            str(one["authentication"]["loginEndpoint"]).rstrip("/"),
            # azure-ai-ml derives it in this way; no metadata endpoint tells it.
            "https://ml.azure." + ".".join(portal.split(".")[2:]),
            str(one["suffixes"]["storage"]),
            is_public=False,
        )
    except (KeyError, TypeError):
        raise EdgemlError(f"{url} does not describe a cloud named '{name}'; check azure.cloud") from None
