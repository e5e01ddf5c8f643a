"""Kind `kubernetes`: an Arc-enabled cluster on Azure Stack Hub, as Azure ML Kubernetes compute.

The supported route: the cluster calls out, nobody calls in, and it goes past one machine.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from edgeml.azure import compute

if TYPE_CHECKING:
    from edgeml.azure.workspace import Workspace
    from edgeml.settings import Kubernetes

TYPE = "Kubernetes"


def properties(settings: Kubernetes) -> dict[str, Any]:
    """What attaches the cluster."""
    inner: dict[str, Any] = {"namespace": settings.namespace}
    if settings.instance_type:
        inner["defaultInstanceType"] = settings.instance_type
    return {"computeType": TYPE, "resourceId": settings.resource_id, "properties": inner}


def is_same(settings: Kubernetes, there: dict[str, Any]) -> bool:
    """Whether what is attached is what the settings say."""
    inner = there.get("properties") or {}
    return (
        str(there.get("resourceId") or "").lower() == settings.resource_id.lower()
        and inner.get("namespace") == settings.namespace
        and str(inner.get("defaultInstanceType") or "") == settings.instance_type
    )


def attach(workspace: Workspace, name: str, settings: Kubernetes, say: Callable[[str], None]) -> None:
    """Attach the cluster, or find it attached."""
    compute.attach(workspace, name, TYPE, lambda: properties(settings), lambda there: is_same(settings, there), say)
