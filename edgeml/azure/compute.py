"""Compute targets of the workspace, attached and detached by the REST interface that the SDK itself uses."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from edgeml.azure.patience import patiently
from edgeml.errors import EdgemlError

if TYPE_CHECKING:
    from edgeml.azure.workspace import Workspace

SECONDS = 900.0  # how long attaching may take; Azure installs things on a VM

Say = Callable[[str], None]


def attach(
    workspace: Workspace,
    name: str,
    kind: str,
    properties: Callable[[], dict[str, Any]],
    is_same: Callable[[dict[str, Any]], bool],
    say: Say,
) -> None:
    """Attach a compute, or change what is attached, or find that nothing is to be done.

    `properties` are what to send, made only when they are. Raises EdgemlError, exit code 1, where the name belongs to a
    compute of another kind or attaching fails.
    """
    until = time.monotonic() + SECONDS

    def once() -> str:
        there = find(workspace, name)
        if there is not None and there["computeType"] != kind:
            raise EdgemlError(
                f"the workspace has a compute '{name}' of another kind, {there['computeType']}; give the target "
                "another name in edgeml.toml, or detach that one",
                1,
            )
        if there is not None and there.get("provisioningState") == "Succeeded" and is_same(there):
            return "is attached already"
        body = {"location": workspace.location(), "properties": properties()}
        workspace.request("PUT", f"computes/{name}", body)
        return "was attached" if there is None else "was attached anew"

    done = patiently(workspace, f"attaching {name}", once, until, say)
    state = patiently(workspace, f"asking for {name}", lambda: find(workspace, name), until, say) or {}
    if state.get("provisioningState") != "Succeeded":
        raise EdgemlError(f"attaching {name} ended in {_told(state)}; mend it and attach again", 1)
    say(f"{name} {done}")


def find(workspace: Workspace, name: str) -> dict[str, Any] | None:
    """The properties of a compute; None where the workspace has none of the name."""
    found = workspace.find(f"computes/{name}")
    return None if found is None else dict(found["properties"])


def state(workspace: Workspace, name: str) -> str:
    """In one word, whether a compute can be used."""
    until = time.monotonic() + 60
    found = patiently(workspace, f"asking for {name}", lambda: find(workspace, name), until)
    return "not attached" if found is None else str(found.get("provisioningState"))


def detach(workspace: Workspace, name: str, say: Say) -> None:
    """Detach a compute, which goes on to exist; one that is not attached is none to detach."""
    until = time.monotonic() + SECONDS

    def once() -> bool:
        if find(workspace, name) is None:
            return False
        workspace.request("DELETE", f"computes/{name}", underlyingResourceAction="Detach")
        return True

    done = patiently(workspace, f"detaching {name}", once, until, say)
    say(f"{name} was detached" if done else f"{name} is not attached")


def _told(found: dict[str, Any]) -> str:
    errors = [str((one.get("error") or one).get("message", "")) for one in found.get("provisioningErrors") or []]
    return " ".join([str(found.get("provisioningState", "nothing")), *(f"({error})" for error in errors if error)])
