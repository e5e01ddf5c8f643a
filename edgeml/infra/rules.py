"""What must be true of a template and its parameters before anything is sent: the published rules, and our own.

Each rule looks at the evaluated resources, so a name that is put together of three parameters is judged as it will be.
Findings are sentences; a template without any is well-formed by what is stated here, which is less than what a stamp
knows: sizes, images and quotas are asked of it before it deploys.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable, Iterator, Mapping
from fnmatch import fnmatchcase
from typing import Any

from edgeml.infra.expression import Unknown
from edgeml.infra.names import RESERVED_USERS, VERSIONS, wrong
from edgeml.infra.shapes import strange
from edgeml.infra.template import Deployment, Resource, leaves

WIDEST = 8
"""Bits that a range must fix at least: half of the internet in each of two rules is no restriction."""
COMPUTE_KEYS = "Microsoft.MachineLearningServices/workspaces/computes/listKeys/action"
_BUILT_IN = {
    "8311e382-0749-4cb8-b61a-304f252e45ec": "AcrPush",
    "7f951dda-4ed3-4680-a7ca-43fe172d538d": "AcrPull",
}
_SECRET = re.compile(r"password|secret|token|sas$|accountkey|connectionstring|privatekey", re.IGNORECASE)
_KEY = re.compile(
    r"(?:ssh-ed25519|ssh-rsa|ecdsa-sha2-nistp(?:256|384|521)|sk-ssh-ed25519@openssh\.com) [A-Za-z0-9+/]+=*(?: .*)?"
)
_SUBJECT = re.compile(r"repo:[\w.-]+(?:@\d+)?/[\w.-]+(?:@\d+)?:environment:[^:*?]+")

Rule = Callable[[str, Mapping[str, Any], Deployment], Iterator[str]]


def findings(target: str, template: Mapping[str, Any], deployment: Deployment) -> list[str]:
    """Every sentence about what is wrong, in the order of the rules."""
    return [sentence for rule in RULES for sentence in rule(target, template, deployment)]


def named_rightly(_: str, __: Mapping[str, Any], deployment: Deployment) -> Iterator[str]:
    for one in deployment.resources:
        reason = wrong(one.type, one.name)
        if reason:
            yield f"{one.where}: {reason}"


def of_the_targets_versions(target: str, _: Mapping[str, Any], deployment: Deployment) -> Iterator[str]:
    for one in deployment.resources:
        version = VERSIONS[target].get(one.type)
        if version is None:
            yield f"{one.where}: {one.type} is none of the types that {target} is known to have"
        elif one.api_version != version:
            yield f"{one.where}: {one.type} must be of version {version} on {target}, not {one.api_version}"


def of_the_published_form(_: str, __: Mapping[str, Any], deployment: Deployment) -> Iterator[str]:
    """A key that the service does not know is dropped by it without a word, and with it what it was to switch on."""
    for one in deployment.resources:
        for path in strange(one.type, one.body):
            yield f"{one.where}: {one.type} has no '{path}' in version {one.api_version}"


def waits_for_what_it_names(_: str, __: Mapping[str, Any], deployment: Deployment) -> Iterator[str]:
    ids = deployment.by_id
    for one in deployment.resources:
        for wanted in one.depends_on:
            if wanted.lower() not in ids and wanted.lower() not in deployment.left_out:
                yield f"{one.where}: it waits for {wanted}, which the template does not make"
        before = _before(one, ids)
        if one.id.lower() in before:
            yield f"{one.where}: it waits for itself, through what it waits for"
        for named in sorted(_named(one, ids) - before - {one.id.lower()}):
            yield f"{one.where}: it names {ids[named].id} without waiting for it; add it to dependsOn"


def _before(resource: Resource, ids: Mapping[str, Resource]) -> set[str]:
    """The ids of all that is made before a resource, by its own `dependsOn` and theirs."""
    found: set[str] = set()
    waiting = [one.lower() for one in resource.depends_on]
    while waiting:
        one = waiting.pop()
        if one not in found:
            found.add(one)
            waiting += [other.lower() for other in (ids[one].depends_on if one in ids else ())]
    return found


def _named(resource: Resource, ids: Mapping[str, Resource]) -> set[str]:
    """The ids of the template's resources that a resource names: itself or a part of them, its parent, what it asks."""
    texts = [value.of if isinstance(value, Unknown) else value for _, value in leaves(resource.body)]
    texts = [text.lower() for text in texts if isinstance(text, str)] + [resource.id.lower()]
    return {one for one in ids for text in texts if text == one or text.startswith(f"{one}/")}


def finds_what_it_refers_to(_: str, __: Mapping[str, Any], deployment: Deployment) -> Iterator[str]:
    """`reference()` and ids of this resource group must lead to something that the template makes."""
    places = [(f"{one.where}.{path}", value) for one in deployment.resources for path, value in leaves(one.body)]
    places += [(f"outputs.{path}", value) for path, value in leaves(deployment.outputs)]
    made = set(deployment.by_id) | deployment.left_out
    group = next(iter(deployment.by_id)).partition("/providers/")[0]
    for where, value in places:
        target = value.of if isinstance(value, Unknown) else value
        if not isinstance(target, str) or not target.lower().startswith(f"{group}/providers/"):
            continue
        if not any(target.lower() == one or target.lower().startswith(f"{one}/") for one in made):
            yield f"{where}: there is no {target} in this template"


def asks_for_all_it_declares(_: str, __: Mapping[str, Any], deployment: Deployment) -> Iterator[str]:
    for name in sorted(deployment.unused):
        yield f"{name}: nothing asks for it; remove it"


def keeps_no_secret(_: str, template: Mapping[str, Any], deployment: Deployment) -> Iterator[str]:
    for name, one in template.get("parameters", {}).items():
        secure = str(one.get("type", "")).lower().startswith("secure")
        if (secure or _SECRET.search(name)) and one.get("defaultValue"):
            yield f"parameters.{name}: a secret has no default; everybody who reads the template would know it"
        elif _SECRET.search(name) and not secure:
            yield f"parameters.{name}: a secret must be of type securestring; the deployment's record shows any other"
    for one in deployment.resources:
        for path, value in leaves(one.body):
            key = path.rpartition(".")[2]
            if isinstance(value, str) and value and (key == "adminPassword" or "AccountKey=" in value):
                yield f"{one.where}.{path}: a password or key stands in the template; use a key pair or an identity"


def logs_in_by_key_alone(_: str, __: Mapping[str, Any], deployment: Deployment) -> Iterator[str]:
    for one in _of(deployment, "Microsoft.Compute/virtualMachines"):
        profile = _get(one.body, "properties", "osProfile")
        linux = _get(profile, "linuxConfiguration")
        if _get(linux, "disablePasswordAuthentication") is not True:
            yield f"{one.where}: disablePasswordAuthentication must be true; the VM would take passwords"
        if "adminPassword" in profile:
            yield f"{one.where}: adminPassword must go; the VM is reached by key alone"
        keys = _get(linux, "ssh", "publicKeys") or []
        user = profile.get("adminUsername", "")
        if not keys or not all(_KEY.fullmatch(str(key.get("keyData", ""))) for key in keys):
            yield f"{one.where}: adminKey is no public SSH key (`ssh-ed25519 AAAA...`); give the line of a .pub file"
        if not re.fullmatch(r"[a-z_][a-z0-9_-]{0,31}", str(user)) or user in RESERVED_USERS:
            yield f"{one.where}: '{user}' is no user name that Azure and Linux take; choose another adminUser"


def opens_ports_to_stated_ranges(_: str, __: Mapping[str, Any], deployment: Deployment) -> Iterator[str]:
    open_to_all = True
    for one in _of(deployment, "Microsoft.Network/networkSecurityGroups"):
        for rule in _get(one.body, "properties", "securityRules") or []:
            facts = rule.get("properties", {})
            inbound = facts.get("direction") == "Inbound"
            if inbound and facts.get("access") == "Deny" and facts.get("destinationPortRange") == "*":
                open_to_all = False
            if not inbound or facts.get("access") != "Allow":
                continue
            if not str(facts.get("destinationPortRange", "")).isdecimal() or "destinationPortRanges" in facts:
                yield f"{one.where}: the rule '{rule.get('name')}' opens more than one port; give each its rule"
            sources = [*facts.get("sourceAddressPrefixes", []), *filter(None, [facts.get("sourceAddressPrefix")])]
            if not sources:
                yield f"{one.where}: the rule '{rule.get('name')}' states no source, which means everybody"
            for source in sources:
                reason = too_wide(source)
                if reason:
                    yield f"{one.where}: {reason}"
        if open_to_all:
            yield f"{one.where}: no rule denies the rest; Azure would let the whole virtual network in"


def too_wide(source: object) -> str:
    """Why a port may not be opened to a range; empty where it may. Only IPv4: Stack Hub has no other."""
    try:
        network = ipaddress.IPv4Network(str(source))
    except ValueError:
        return f"'{source}' is no IPv4 range in the form 192.0.2.0/24; state who may come in"
    if network.prefixlen < WIDEST:
        return f"{network} lets {network.num_addresses:,} addresses in; state a range of at least /{WIDEST}"
    return ""


def keeps_the_account_private(target: str, _: Mapping[str, Any], deployment: Deployment) -> Iterator[str]:
    for one in _of(deployment, "Microsoft.Storage/storageAccounts"):
        facts = _get(one.body, "properties")
        if facts.get("supportsHttpsTrafficOnly") is not True:
            yield f"{one.where}: supportsHttpsTrafficOnly must be true; rows would travel in clear"
        if target == "azure" and facts.get("allowBlobPublicAccess") is not False:
            yield f"{one.where}: allowBlobPublicAccess must be false; a container could be opened to everybody"
        if target == "azure" and facts.get("minimumTlsVersion") != "TLS1_2":
            yield f"{one.where}: minimumTlsVersion must be TLS1_2"
    for one in _of(deployment, "Microsoft.ContainerRegistry/registries"):
        if _get(one.body, "properties", "adminUserEnabled") is not False:
            yield f"{one.where}: adminUserEnabled must be false; it is one password for everybody"
    for one in _of(deployment, "Microsoft.KeyVault/vaults"):
        if _get(one.body, "properties", "enableRbacAuthorization") is not True:
            yield f"{one.where}: enableRbacAuthorization must be true; access policies escape the roles"


def grants_the_least(_: str, __: Mapping[str, Any], deployment: Deployment) -> Iterator[str]:
    roles = {one.id.lower() for one in _of(deployment, "Microsoft.Authorization/roleDefinitions")}
    for one in _of(deployment, "Microsoft.Authorization/roleDefinitions"):
        for permission in _get(one.body, "properties", "permissions") or []:
            granted = permission.get("actions", [])
            if any(fnmatchcase(COMPUTE_KEYS.lower(), action.lower()) for action in granted) or "*" in granted:
                yield f"{one.where}: the role may list the keys of computes, the VM's among them; name actions"
            if any(action.lower().startswith("microsoft.authorization/") for action in granted):
                yield f"{one.where}: the role may give rights; leave Microsoft.Authorization out"
    for one in _of(deployment, "Microsoft.Authorization/roleAssignments"):
        role = str(_get(one.body, "properties", "roleDefinitionId"))
        if role.lower() not in roles and role.rpartition("/")[2].lower() not in _BUILT_IN:
            yield f"{one.where}: the role {role} is neither the template's own nor {' or '.join(_BUILT_IN.values())}"
        if one.id.lower().count("/providers/") < 2:
            yield f"{one.where}: the role is granted on the whole resource group; give it a scope"
    pushing = [
        _get(one.body, "properties", "principalId")
        for one in _of(deployment, "Microsoft.Authorization/roleAssignments")
        if str(_get(one.body, "properties", "roleDefinitionId")).endswith("8311e382-0749-4cb8-b61a-304f252e45ec")
    ]
    if len(pushing) > 1:
        yield "more than one identity may push images; only the training workflow makes them"


def trusts_environments_alone(_: str, __: Mapping[str, Any], deployment: Deployment) -> Iterator[str]:
    kind = "Microsoft.ManagedIdentity/userAssignedIdentities/federatedIdentityCredentials"
    by_identity: dict[str, list[str]] = {}
    for one in _of(deployment, kind):
        facts = _get(one.body, "properties")
        subject = str(facts.get("subject", ""))
        if not _SUBJECT.fullmatch(subject):
            yield f"{one.where}: '{subject}' is no subject of a GitHub environment; wildcards match nothing"
        if not str(facts.get("issuer", "")).startswith("https://"):
            yield f"{one.where}: the issuer must be an https address"
        if facts.get("audiences") != ["api://AzureADTokenExchange"]:
            yield f"{one.where}: audiences must be api://AzureADTokenExchange alone"
        by_identity.setdefault(one.id.rpartition("/federatedIdentityCredentials/")[0], []).append(subject)
    for identity, subjects in by_identity.items():
        if len(subjects) > 20:
            yield f"{identity} trusts {len(subjects)} subjects; Azure takes 20 for an identity"
        if len(set(subjects)) != len(subjects):
            yield f"{identity} trusts the same subject twice; Azure refuses the second"


def _of(deployment: Deployment, kind: str) -> Iterator[Resource]:
    return (one for one in deployment.resources if one.type == kind)


def _get(value: Any, *keys: str) -> Any:
    for key in keys:
        value = value.get(key, {}) if isinstance(value, Mapping) else {}
    return value


RULES: tuple[Rule, ...] = (
    named_rightly,
    of_the_targets_versions,
    of_the_published_form,
    waits_for_what_it_names,
    finds_what_it_refers_to,
    asks_for_all_it_declares,
    keeps_no_secret,
    logs_in_by_key_alone,
    opens_ports_to_stated_ranges,
    keeps_the_account_private,
    grants_the_least,
    trusts_environments_alone,
)
