"""The keys that our resource types have in their published REST descriptions, at the versions of names.py.

Only what a template of ours may say: a short list that is read is worth more than a long one that is copied. A key that
is right and missing here is added here, with a look at the description.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

ANY: dict[str, Any] = {}
"""What is not looked into: a value, or an object with keys of its own."""


def _keys(text: str) -> dict[str, Any]:
    return dict.fromkeys(text.split(), ANY)


_ID = {"id": ANY}
_TOP = {"location": ANY, "tags": ANY, "sku": {"name": ANY, "tier": ANY}}
_RULE = _keys(
    "description priority direction access protocol sourceAddressPrefix "
    "sourceAddressPrefixes sourcePortRange sourcePortRanges destinationAddressPrefix "
    "destinationAddressPrefixes destinationPortRange destinationPortRanges"
)
_DISK = {
    **_keys("name lun createOption diskSizeGB caching writeAcceleratorEnabled osType"),
    "managedDisk": {"id": ANY, "storageAccountType": ANY},
}

SHAPES: dict[str, dict[str, Any]] = {
    "Microsoft.Authorization/roleAssignments": {
        "properties": {"roleDefinitionId": ANY, "principalId": ANY, "principalType": ANY, "description": ANY}
    },
    "Microsoft.Authorization/roleDefinitions": {
        "properties": {
            **_keys("roleName description type assignableScopes"),
            "permissions": _keys("actions notActions dataActions notDataActions"),
        }
    },
    "Microsoft.Compute/disks": {
        **_TOP,
        "properties": {"creationData": {"createOption": ANY}, "diskSizeGB": ANY, "osType": ANY},
    },
    "Microsoft.Compute/virtualMachines": {
        **_TOP,
        "properties": {
            "hardwareProfile": {"vmSize": ANY},
            "osProfile": {
                **_keys("computerName adminUsername adminPassword customData"),
                "linuxConfiguration": {
                    "disablePasswordAuthentication": ANY,
                    "provisionVMAgent": ANY,
                    "ssh": {"publicKeys": {"path": ANY, "keyData": ANY}},
                },
            },
            "storageProfile": {
                "imageReference": _keys("publisher offer sku version id"),
                "osDisk": _DISK,
                "dataDisks": _DISK,
            },
            "networkProfile": {"networkInterfaces": {"id": ANY, "properties": {"primary": ANY}}},
            "availabilitySet": _ID,
        },
    },
    "Microsoft.Compute/virtualMachines/extensions": {
        **_TOP,
        "properties": _keys(
            "publisher type typeHandlerVersion autoUpgradeMinorVersion forceUpdateTag settings protectedSettings"
        ),
    },
    "Microsoft.ContainerRegistry/registries": {
        **_TOP,
        "properties": _keys("adminUserEnabled anonymousPullEnabled publicNetworkAccess"),
    },
    "Microsoft.KeyVault/vaults": {
        **_TOP,
        "properties": {
            "sku": {"family": ANY, "name": ANY},
            **_keys(
                "tenantId accessPolicies enableRbacAuthorization enableSoftDelete "
                "enablePurgeProtection softDeleteRetentionInDays publicNetworkAccess"
            ),
        },
    },
    "Microsoft.MachineLearningServices/workspaces": {
        **_TOP,
        "identity": {"type": ANY},
        "kind": ANY,
        "properties": _keys(
            "friendlyName description storageAccount keyVault containerRegistry "
            "applicationInsights hbiWorkspace v1LegacyMode publicNetworkAccess imageBuildCompute"
        ),
    },
    "Microsoft.ManagedIdentity/userAssignedIdentities": {"location": ANY, "tags": ANY},
    "Microsoft.ManagedIdentity/userAssignedIdentities/federatedIdentityCredentials": {
        "properties": {"issuer": ANY, "subject": ANY, "audiences": ANY}
    },
    "Microsoft.Network/networkInterfaces": {
        **_TOP,
        "properties": {
            "networkSecurityGroup": _ID,
            "enableIPForwarding": ANY,
            "ipConfigurations": {
                "name": ANY,
                "properties": {
                    **_keys("privateIPAllocationMethod privateIPAddress primary"),
                    "subnet": _ID,
                    "publicIPAddress": _ID,
                },
            },
        },
    },
    "Microsoft.Network/networkSecurityGroups": {
        **_TOP,
        "properties": {"securityRules": {"name": ANY, "properties": _RULE}},
    },
    "Microsoft.Network/publicIPAddresses": {
        **_TOP,
        "properties": {
            **_keys("publicIPAllocationMethod publicIPAddressVersion idleTimeoutInMinutes"),
            "dnsSettings": {"domainNameLabel": ANY},
        },
    },
    "Microsoft.Network/virtualNetworks": {
        **_TOP,
        "properties": {
            "addressSpace": {"addressPrefixes": ANY},
            "subnets": {"name": ANY, "properties": {"addressPrefix": ANY, "networkSecurityGroup": _ID}},
        },
    },
    "Microsoft.Storage/storageAccounts": {
        **_TOP,
        "kind": ANY,
        "properties": _keys(
            "supportsHttpsTrafficOnly allowBlobPublicAccess minimumTlsVersion "
            "allowSharedKeyAccess allowCrossTenantReplication publicNetworkAccess"
        ),
    },
}


def strange(kind: str, body: Mapping[str, Any]) -> Iterator[str]:
    """The paths in a resource's body that its type does not have; nothing for a type that is not known here."""
    if kind in SHAPES:
        yield from _strange(body, SHAPES[kind], "")


def _strange(value: Any, shape: Mapping[str, Any], path: str) -> Iterator[str]:
    if not shape:
        return
    if isinstance(value, list):
        for item in value:
            yield from _strange(item, shape, path)
    elif isinstance(value, Mapping):
        for key, item in value.items():
            here = f"{path}.{key}" if path else key
            if key not in shape:
                yield here
            else:
                yield from _strange(item, shape[key], here)
