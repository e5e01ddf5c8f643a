"""What `edgeml infra` is pointed at: a template with its parameters, and the Resource Manager that it is for.

Infrastructure is a person's to change, with a person's rights: one signs in with the Azure CLI, or, on a stamp with
ADFS, by a certificate. No workflow does it, since its identity may not change what confines it.
"""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgeml import project
from edgeml.edge import sizing
from edgeml.errors import EdgemlError
from edgeml.infra import names, rules
from edgeml.infra import template as templates
from edgeml.infra.arm import Arm, metadata

if TYPE_CHECKING:
    from azure.core.credentials import TokenCredential

    from edgeml.settings import Settings

CLOUDS = {
    "AzureCloud": "https://management.azure.com",
    "AzureUSGovernment": "https://management.usgovcloudapi.net",
    "AzureChinaCloud": "https://management.chinacloudapi.cn",
}
GROUPS = "2016-06-01"
"""Version of resource groups: the oldest of those said of the profile, so that an older stamp has it, too."""
DEPLOYMENTS = "2019-10-01"
_ENDPOINT = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9.-]*[A-Za-z0-9])?:\d{1,5}")


@dataclass(frozen=True)
class Target:
    """A template, evaluated for where it goes. `values` are its parameters as they are sent."""

    name: str
    arm: Arm
    place: templates.Place
    template: dict[str, Any]
    values: dict[str, Any]
    deployment: templates.Deployment
    group_is_there: bool

    @property
    def deployment_name(self) -> str:
        """Of the content: the same template with the same parameters is the same deployment, which can be resumed."""
        content = json.dumps([self.template, self.values], sort_keys=True)
        return f"edgeml-{hashlib.sha256(content.encode()).hexdigest()[:16]}"

    @property
    def group_path(self) -> str:
        return f"/subscriptions/{self.place.subscription}/resourcegroups/{self.place.group}"


def of(name: str, settings: Settings, given: dict[str, str]) -> Target:
    """The target `stack-hub` or `azure` as the settings and infra/<name>/ say, `given` parameters winning.

    Raises EdgemlError for settings that are missing and for everything that rules.py finds.
    """
    folder = project.root() / "infra" / name
    found = templates.load(folder / "main.json")
    values = _values(folder / "parameters.json", found, given)
    section = settings.stackhub if name == "stack-hub" else settings.azure
    title = "stackhub" if name == "stack-hub" else "azure"
    for key in ("tenant_id", "subscription_id", "resource_group"):
        if not getattr(section, key):
            raise EdgemlError(
                f"{title}.{key} is empty; set it in edgeml.toml, or as EDGEML_{title.upper()}_{key.upper()}"
            )
    if not re.fullmatch(names.GROUP[0], section.resource_group, re.ASCII):
        raise EdgemlError(f"'{section.resource_group}' is no name of a resource group: it takes {names.GROUP[1]}")
    if name == "stack-hub":
        values["bootstrap"] = bootstrap(values, folder / "bootstrap.sh", settings.stackhub.egress)
    # Judged before anybody signs in: with a location that stands for the group's.
    place = templates.Place(section.subscription_id, section.resource_group, "location", section.tenant_id)
    judge(name, found, values, place)
    arm = connect(name, settings)
    group = arm.get(f"/subscriptions/{place.subscription}/resourcegroups/{place.group}", GROUPS)
    location = (group or {}).get("location") or values.get("location", "")
    if not location:
        raise EdgemlError(
            f"there is no resource group '{place.group}'; name its region by `--set location=REGION`, and it is made"
        )
    place = templates.Place(place.subscription, place.group, location, place.tenant)
    deployment = templates.evaluate(found, values, place)
    return Target(name, arm, place, found, values, deployment, group is not None)


def judge(name: str, found: dict[str, Any], values: dict[str, Any], place: templates.Place) -> None:
    """Raises EdgemlError with every finding where a template and its parameters break a rule."""
    for key, value in values.items():
        if value == "" and "defaultValue" not in found.get("parameters", {}).get(key, {}):
            raise EdgemlError(f"the parameter '{key}' is empty; set it in infra/{name}/parameters.json")
    wrong = rules.findings(name, found, templates.evaluate(found, values, place))
    if wrong:
        raise EdgemlError(f"infra/{name}: " + "\n  ".join(wrong))


def connect(name: str, settings: Settings) -> Arm:
    """Resource Manager of the target, with the credential of whoever calls."""
    if name == "azure":
        azure = settings.azure
        if azure.metadata_url:
            found = metadata(azure.metadata_url, azure.cloud)
            return Arm(found["resourceManager"], _signed_in(azure.tenant_id), found["authentication"]["audiences"][0])
        if azure.cloud not in CLOUDS:
            raise EdgemlError(f"azure.cloud is '{azure.cloud}', which is none of {', '.join(CLOUDS)}; correct it")
        endpoint = CLOUDS[azure.cloud]
        return Arm(endpoint, _signed_in(azure.tenant_id), endpoint)
    hub, ca_bundle = settings.stackhub, settings.storage.ca_bundle
    if not hub.arm_url.startswith("https://"):
        raise EdgemlError("stackhub.arm_url is no https address; set it to https://management.<region>.<fqdn>")
    sign_in = metadata(f"{hub.arm_url.rstrip('/')}/metadata/endpoints?api-version=2015-01-01", ca_bundle=ca_bundle)
    authority, audience = sign_in["authentication"]["loginEndpoint"], sign_in["authentication"]["audiences"][0]
    if not hub.client_certificate:
        return Arm(hub.arm_url, _signed_in(hub.tenant_id), audience, ca_bundle)
    from azure.identity import CertificateCredential

    try:
        credential = CertificateCredential(
            hub.tenant_id,
            hub.client_id,
            hub.client_certificate,
            authority=authority.rstrip("/").removesuffix("/adfs"),
            # A stamp's authority is no public one, and asking a public one about it would leave the premises.
            disable_instance_discovery=True,
        )
    except (OSError, ValueError) as error:
        raise EdgemlError(
            f"stackhub.client_certificate cannot be read ({error}); name a PEM file with its key"
        ) from None
    return Arm(hub.arm_url, credential, audience, ca_bundle)


def _signed_in(tenant: str) -> TokenCredential:
    from azure.identity import AzureCliCredential

    return AzureCliCredential(tenant_id=tenant, process_timeout=60)


def _values(path: Path, found: dict[str, Any], given: dict[str, str]) -> dict[str, Any]:
    """The parameters of the file, with what is given on the command line; text becomes what the template declares."""
    values = templates.values_of(path) if path.exists() else {}
    for key, text in given.items():
        kind = str(found.get("parameters", {}).get(key, {}).get("type", "")).lower()
        if not kind:
            raise EdgemlError(f"the template has no parameter '{key}'; infra/{path.parent.name}/main.json names them")
        try:
            values[key] = text if kind == "string" else json.loads(text)
        except ValueError:
            raise EdgemlError(f"--set {key}: '{text}' is no {kind} in JSON; write it as in parameters.json") from None
    return values


def bootstrap(values: dict[str, Any], script: Path, egress: list[str]) -> str:
    """The script with its settings in front. Each word is checked, since root's shell reads it."""
    for one in egress:
        if not _ENDPOINT.fullmatch(one) or int(one.rpartition(":")[2]) > 65535:
            raise EdgemlError(f"stackhub.egress: '{one}' is no host:port; write it like login.microsoftonline.com:443")
    for source in values.get("sshSources", []):
        if reason := rules.too_wide(source):
            raise EdgemlError(f"sshSources: {reason}")
    user = str(values.get("adminUser", ""))
    if not re.fullmatch(r"[a-z_][a-z0-9_-]{0,31}", user):
        raise EdgemlError(f"adminUser: '{user}' is no user name; it takes small letters, digits, _ and -")
    head, _, body = script.read_text("utf-8").partition("set -eu\n")
    lists = {"ADMIN": user, "SSH_SOURCES": " ".join(values.get("sshSources", [])), "EGRESS": " ".join(egress)}
    return head + "".join(f"{key}='{value}'\n" for key, value in lists.items()) + "set -eu\n" + body


def image_offered(target: Target) -> None:
    """Whether the stamp's operator offers the image. Raises EdgemlError where not, with what is offered instead."""
    publisher, offer, sku = (target.values[f"image{part}"] for part in ("Publisher", "Offer", "Sku"))
    base = f"/subscriptions/{target.place.subscription}/providers/Microsoft.Compute/locations/{target.place.location}"
    version = names.VERSIONS["stack-hub"]["Microsoft.Compute/virtualMachines"]
    path = f"{base}/publishers/{publisher}/artifacttypes/vmimage/offers/{offer}/skus"
    offered = sorted(str(one.get("name")) for one in target.arm.get(path, version) or [])
    if sku not in offered:
        there = f"it has {', '.join(offered)}" if offered else f"it has nothing of {publisher}/{offer}"
        raise EdgemlError(
            f"{target.arm.endpoint} offers no image {publisher}/{offer}/{sku}: {there}; ask its operator", 1
        )


def holds(target: Target, rows: int | None) -> str:
    """What rows the VM of a template can hold, as a sentence. Raises EdgemlError where `rows` bytes are too many."""
    size = next((one for one in sizing.SIZES if one.name == target.values["size"]), None)
    disk = int(target.values.get("dataDiskGiB", 256)) * sizing.GIB
    if rows is not None:
        need = sizing.need(rows)
        wanted = need.size.name if need.size else "more than one machine"
        if size is None or size.memory * sizing.GIB < need.memory:
            raise EdgemlError(f"{target.values['size']} is too small for these rows: {sizing.RULE}; take {wanted}")
        if disk < need.disk:
            raise EdgemlError(
                f"dataDiskGiB is too small for these rows: {sizing.RULE}; take {-(-need.disk // sizing.GIB)}"
            )
    if size is None:
        return f"{target.values['size']}: not in the list of sizes, so nothing is said about rows"
    most = min((size.memory * sizing.GIB - sizing.MEMORY_BASE) / sizing.MEMORY_FACTOR, disk / sizing.DISK_FACTOR)
    holds = f"rows of up to {most / sizing.GIB:.1f} GiB by the rule of docs/edge.md"
    return f"{size.name} ({size.processors} processors, {size.memory:g} GiB): {holds}"
