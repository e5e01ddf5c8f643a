"""Takes away what a template made: shown first with what keeping it is billed for, then asked for by name.

Prices are nobody's to guess: what is said is what the service counts. The rows are never among what goes, unless they
are asked for twice.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

from edgeml.errors import EdgemlError
from edgeml.infra.names import VERSIONS
from edgeml.infra.target import Target

PAUSE = 5.0
_BILLED = {
    "Microsoft.Compute/virtualMachines": "its processors and memory by the hour, until it is deallocated",
    "Microsoft.Compute/disks": "its whole size, whether or not the VM runs",
    "Microsoft.Network/publicIPAddresses": "by the hour, whether or not it is used",
    "Microsoft.Storage/storageAccounts": "what lies in it, and each request",
    "Microsoft.ContainerRegistry/registries": "by the day, and what lies in it beyond that",
    "Microsoft.KeyVault/vaults": "each request; its name stays taken for 90 days after it goes",
}
_WITH_OTHERS = (
    "Microsoft.Compute/virtualMachines/extensions",
    "Microsoft.ManagedIdentity/userAssignedIdentities/federatedIdentityCredentials",
)
"""What goes with the resource that it is a part of."""


@dataclass(frozen=True)
class Doomed:
    """A resource that is there: `kept` says why it stays, if it does."""

    id: str
    type: str
    name: str
    version: str
    kept: str = ""

    @property
    def billed(self) -> str:
        return _BILLED.get(self.type, "nothing by itself")


def doomed(target: Target, *, rows_too: bool) -> list[Doomed]:
    """What is there of the template, the last made first; the account of the private rows stays unless `rows_too`."""
    found = []
    for one in reversed(target.deployment.resources):
        if one.type in _WITH_OTHERS or target.arm.get(one.id, one.api_version) is None:
            continue
        rows = target.name == "stack-hub" and one.type == "Microsoft.Storage/storageAccounts"
        kept = "" if not rows or rows_too else "the private rows lie there"
        found.append(Doomed(one.id, one.type, one.name, one.api_version, kept))
        if one.type == "Microsoft.Compute/virtualMachines":
            # Made by the VM and not of its life: nothing else names it.
            disk = one.body["properties"]["storageProfile"]["osDisk"]["name"]
            path = f"{one.id.partition('/providers/')[0]}/providers/Microsoft.Compute/disks/{disk}"
            version = VERSIONS["stack-hub"]["Microsoft.Compute/disks"]
            if target.arm.get(path, version) is not None:
                found.append(Doomed(path, "Microsoft.Compute/disks", disk, version))
    return found


def lines(found: list[Doomed]) -> list[str]:
    """What goes and what stays, each with what it is billed for."""
    return [
        f"{' ' if one.kept else '-'} {one.type.removeprefix('Microsoft.')} {one.name}"
        f"{f'  stays: {one.kept}' if one.kept else ''}  (billed: {one.billed})"
        for one in found
    ]


def destroy(target: Target, found: list[Doomed], say: Callable[[str], None], minutes: float) -> None:
    """Delete one after the other and wait for each. Raises EdgemlError; another call goes on where this one ended."""
    deadline = time.monotonic() + minutes * 60
    for one in found:
        if one.kept:
            continue
        target.arm.send("DELETE", one.id, one.version)
        while True:
            answer = target.arm.send("GET", one.id, one.version)
            if answer.status == 404:
                break
            pause = PAUSE if answer.again is None else answer.again
            if time.monotonic() + pause > deadline:
                raise EdgemlError(f"{one.name} is still being deleted; run the same command again, it goes on", 1)
            time.sleep(pause)
        say(f"deleted {one.type.removeprefix('Microsoft.')} {one.name}")
