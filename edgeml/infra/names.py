"""What Azure lets a resource be called, and which version of its API a target speaks.

Names: Microsoft's page "Naming rules and restrictions for Azure resources" (read 2026-11). Versions of `stack-hub`: the
API profile 2020-09-01-hybrid; those of `azure` are pinned by us.
"""

from __future__ import annotations

import re

_GUID = r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}"
_NETWORK = r"[A-Za-z0-9](?:[\w.-]{0,%d}\w)?"

# By type, the form of the last part of the name and what to say of it.
FORMS: dict[str, tuple[str, str]] = {
    "Microsoft.Authorization/roleAssignments": (_GUID, "a GUID"),
    "Microsoft.Authorization/roleDefinitions": (_GUID, "a GUID"),
    "Microsoft.Compute/disks": (r"[A-Za-z0-9_][\w-]{0,79}", "1 to 80 letters, digits, _ and -"),
    "Microsoft.Compute/virtualMachines": (
        r"[A-Za-z0-9](?:[A-Za-z0-9-]{0,62}[A-Za-z0-9])?",
        "1 to 64 letters, digits and -, not at an end",
    ),
    "Microsoft.Compute/virtualMachines/extensions": (r"[A-Za-z0-9][\w-]{0,79}", "1 to 80 letters, digits, _ and -"),
    "Microsoft.ContainerRegistry/registries": (r"[A-Za-z0-9]{5,50}", "5 to 50 letters and digits, no -"),
    "Microsoft.KeyVault/vaults": (
        r"(?=.{3,24}$)[A-Za-z](?:-?[A-Za-z0-9])+",
        "3 to 24 letters, digits and single -, from a letter to a letter or digit",
    ),
    "Microsoft.MachineLearningServices/workspaces": (r"[A-Za-z0-9][\w-]{2,32}", "3 to 33 letters, digits, _ and -"),
    "Microsoft.ManagedIdentity/userAssignedIdentities": (
        r"[A-Za-z0-9][\w-]{2,127}",
        "3 to 128 letters, digits, _ and -, first a letter or digit",
    ),
    "Microsoft.ManagedIdentity/userAssignedIdentities/federatedIdentityCredentials": (
        r"[A-Za-z0-9][\w-]{2,119}",
        "3 to 120 letters, digits, _ and -, first a letter or digit",
    ),
    "Microsoft.Network/networkInterfaces": (_NETWORK % 78, "1 to 80 letters, digits, _ . and -, no . or - at its end"),
    "Microsoft.Network/networkSecurityGroups": (_NETWORK % 78, "1 to 80 letters, digits, _ . and -"),
    "Microsoft.Network/publicIPAddresses": (_NETWORK % 78, "1 to 80 letters, digits, _ . and -"),
    "Microsoft.Network/virtualNetworks": (r"(?=..)" + _NETWORK % 62, "2 to 64 letters, digits, _ . and -"),
    "Microsoft.Storage/storageAccounts": (r"[a-z0-9]{3,24}", "3 to 24 small letters and digits, no -"),
}

GROUP = (r"[\w.()-]{0,89}[\w()-]", "1 to 90 letters, digits, _ . ( ) and -, no . at its end")
CONTAINER = (r"(?=.{3,63}$)[a-z0-9](?:-?[a-z0-9])*", "3 to 63 small letters, digits and single -")

VERSIONS: dict[str, dict[str, str]] = {
    "stack-hub": {
        "Microsoft.Compute/disks": "2019-07-01",
        "Microsoft.Compute/virtualMachines": "2020-06-01",
        "Microsoft.Compute/virtualMachines/extensions": "2020-06-01",
        "Microsoft.Network/networkInterfaces": "2018-11-01",
        "Microsoft.Network/networkSecurityGroups": "2018-11-01",
        "Microsoft.Network/publicIPAddresses": "2018-11-01",
        "Microsoft.Network/virtualNetworks": "2018-11-01",
        "Microsoft.Storage/storageAccounts": "2019-06-01",
    },
    "azure": {
        "Microsoft.Authorization/roleAssignments": "2022-04-01",
        "Microsoft.Authorization/roleDefinitions": "2022-04-01",
        "Microsoft.ContainerRegistry/registries": "2023-07-01",
        "Microsoft.KeyVault/vaults": "2023-07-01",
        "Microsoft.MachineLearningServices/workspaces": "2024-04-01",
        "Microsoft.ManagedIdentity/userAssignedIdentities": "2023-01-31",
        "Microsoft.ManagedIdentity/userAssignedIdentities/federatedIdentityCredentials": "2023-01-31",
        "Microsoft.Storage/storageAccounts": "2023-05-01",
    },
}

# Names that Azure takes for no user of a VM.
_RESERVED = """
1 123 a actuser adm admin admin1 admin2 administrator aspnet backup console david guest john owner
root server sql support support_388945a0 sys test test1 test2 test3 user user1 user2 user3 user4
user5
"""
RESERVED_USERS = frozenset(_RESERVED.split())


def wrong(kind: str, name: str) -> str:
    """Why a resource of this type may not be called so; empty where it may, or where the type is not known here."""
    form = FORMS.get(kind)
    last = name.rpartition("/")[2]
    if form is None or re.fullmatch(form[0], last, re.ASCII):
        return ""
    return f"'{last}' is no name for {kind}: it takes {form[1]}"
