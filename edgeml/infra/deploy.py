"""Makes what a template says, waits for it, and goes on where an earlier call was ended.

The deployment's name is a digest of template and parameters: a second call finds the first one's deployment, running,
failed or done, and starts nothing twice.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any

from edgeml.errors import EdgemlError
from edgeml.infra import arm as rm
from edgeml.infra.plan import SAME, Change
from edgeml.infra.target import DEPLOYMENTS, GROUPS, Target

ENDED = ("Succeeded", "Failed", "Canceled")
PAUSE = 5.0

Say = Callable[[str], None]


def apply(target: Target, changes: list[Change], say: Say, minutes: float) -> dict[str, Any]:
    """Deploy where something is to change, wait, and return the outputs. Raises EdgemlError, exit code 1."""
    deadline = time.monotonic() + minutes * 60
    path = f"{target.group_path}/providers/Microsoft.Resources/deployments/{target.deployment_name}"
    there = target.arm.get(path, DEPLOYMENTS) if target.group_is_there else None
    state = _state(there)
    if there is not None and state not in ENDED:
        say(f"{target.deployment_name} is running already; waiting for it")
    elif state == "Succeeded" and all(one.action == SAME for one in changes):
        return _outputs(there)
    else:
        if not target.group_is_there:
            target.arm.send("PUT", target.group_path, GROUPS, {"location": target.place.location})
            say(f"made the resource group {target.place.group}")
        body = {
            "properties": {
                "mode": "Incremental",  # what else is in the group is not ours
                "template": target.template,
                "parameters": {name: {"value": value} for name, value in target.values.items()},
            }
        }
        target.arm.send("PUT", path, DEPLOYMENTS, body)
        say(f"started {target.deployment_name}")
    return _outputs(_wait(target, path, say, deadline))


def _wait(target: Target, path: str, say: Say, deadline: float) -> Any:
    told: set[str] = set()
    while True:
        answer = target.arm.send("GET", path, DEPLOYMENTS)
        if answer.status == 404:
            raise EdgemlError(f"{target.deployment_name} is gone; somebody removed it, run the same command again", 1)
        operations = _operations(target, path)
        for name, operation in operations.items():
            if _state(operation) == "Succeeded" and name not in told:
                told.add(name)
                say(f"made {name}")
        state = _state(answer.body)
        if state == "Succeeded":
            return answer.body
        if state in ENDED:
            raise EdgemlError(_why(target, state, answer.body, operations), 1)
        pause = PAUSE if answer.again is None else answer.again
        if time.monotonic() + pause > deadline:
            raise EdgemlError(
                f"{target.deployment_name} is still {state.lower()}; run the same command again, it goes on waiting", 1
            )
        time.sleep(pause)


def _operations(target: Target, path: str) -> dict[str, Any]:
    """The deployment's operations by the resource that each is for."""
    found = target.arm.get(f"{path}/operations", DEPLOYMENTS) or {}
    named = {}
    for one in found.get("value", []):
        resource = one.get("properties", {}).get("targetResource") or {}
        if resource.get("resourceName"):
            kind = str(resource.get("resourceType", "")).removeprefix("Microsoft.")
            named[f"{kind} {resource['resourceName']}"] = one
    return named


def _why(target: Target, state: str, document: Any, operations: Mapping[str, Any]) -> str:
    causes = [
        f"{name}: {rm.said(one['properties'].get('statusMessage'))}"
        for name, one in operations.items()
        if _state(one) == "Failed"
    ]
    error = (document.get("properties") or {}).get("error")
    cause = "; ".join(causes) or (rm.said(error) if error else "without a reason")
    return f"{target.deployment_name} {state.lower()}: {cause}; mend it and run the same command again"


def _state(document: Any) -> str:
    properties = document.get("properties") if isinstance(document, dict) else None
    return str((properties or {}).get("provisioningState", ""))


def _outputs(document: Any) -> dict[str, Any]:
    found = (document.get("properties") or {}).get("outputs") or {}
    return {name: one.get("value") for name, one in found.items()}


def host_key(target: Target) -> str:
    """The VM's host key as its own bootstrap printed it, read by way of Resource Manager; empty where it is not told.

    That the extension's view carries what the script prints is documented for Azure and assumed for Stack Hub.
    """
    kind = "Microsoft.Compute/virtualMachines/extensions"
    extension = next((one for one in target.deployment.resources if one.type == kind), None)
    if extension is None:
        return ""
    query = {"$expand": "instanceView"}
    there = target.arm.get(extension.id, extension.api_version, **query) or {}
    view = (there.get("properties") or {}).get("instanceView") or {}
    for status in [*(view.get("statuses") or []), *(view.get("substatuses") or [])]:
        for line in str(status.get("message", "")).splitlines():
            name, _, value = line.partition("edgeml-host-key: ")
            parts = value.split()
            if not name.strip() and len(parts) == 2 and parts[0] == "ssh-ed25519" and parts[1].startswith("AAAA"):
                return value.strip()
    return ""


def container(target: Target, account_url: str, name: str, ca_bundle: str) -> bool:
    """Make the private container where it is missing; whether it was made. Raises EdgemlError.

    It is made where the rows go, not by the template: that a stamp knows containers as resources is nowhere written.
    The account's key is asked for this one call and kept nowhere.
    """
    from azure.core.exceptions import AzureError, ResourceExistsError

    from edgeml.storage import blob_client

    account = next(one for one in target.deployment.resources if one.type == "Microsoft.Storage/storageAccounts")
    keys = target.arm.send("POST", f"{account.id}/listKeys", account.api_version).body
    environ = {
        "EDGEML_STORAGE_ACCOUNT_URL": account_url,
        "EDGEML_STORAGE_ACCOUNT_KEY": str(keys["keys"][0]["value"]),
        "EDGEML_STORAGE_CA_BUNDLE": ca_bundle,
    }
    try:
        blob_client.container(name, environ).create_container()
    except ResourceExistsError:
        return False
    except AzureError as error:
        raise EdgemlError(f"container '{name}': {blob_client.sentence(error)}", 1) from None
    except blob_client.StorageError as error:
        raise EdgemlError(str(error), 1) from None
    return True
