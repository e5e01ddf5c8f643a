"""The residency rules for what is created once: datastores, computes, workspaces, data assets and models."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator

from edgeml.check import local, residency
from edgeml.check.context import Context
from edgeml.check.document import Document, entries, scalar
from edgeml.check.finding import Finding, found
from edgeml.check.places import value
from edgeml.pipeline import PipelineError, load
from edgeml.pipeline.graph import datastore_of
from edgeml.policy import Policy

_DATASTORES = frozenset({"azure_blob", "azure_file", "azure_data_lake_gen1", "azure_data_lake_gen2", "one_lake"})
_COMPUTES = frozenset({"amlcompute", "computeinstance", "virtualmachine", "kubernetes", "synapsespark"})
_AZURE = (".windows.net", ".azure.net", ".chinacloudapi.cn", ".usgovcloudapi.net", ".fabric.microsoft.com")
_OF_WORKSPACES = ("key_vault", "container_registry", "application_insights", "storage_account")
_SCHEMAS = {
    "azureblob": "datastore",
    "azurefile": "datastore",
    "azuredatalakegen1": "datastore",
    "azuredatalakegen2": "datastore",
    "onelake": "datastore",
    "amlcompute": "compute",
    "computeinstance": "compute",
    "virtualmachinecompute": "compute",
    "kubernetescompute": "compute",
    "synapsesparkcompute": "compute",
    "workspace": "workspace",
    "data": "data",
    "model": "data",
}


def check(document: Document, context: Context) -> Iterator[Finding]:
    """The findings of an asset's YAML; none of a file that is none, or where there is no policy."""
    kind = _kind(document)
    if not kind:
        return
    try:
        policy = context.policy
    except PipelineError:
        yield from residency.check_policy(context)
        return
    if policy.file:
        yield from _CHECKS[kind](document, policy)


def _kind(document: Document) -> str:
    present = entries(document.root)
    schema = scalar(value(document.root, "$schema")) or ""
    by_schema = _SCHEMAS.get(schema.rpartition("/")[2].removesuffix(".schema.json").lower(), "")
    if by_schema or schema:
        return by_schema
    type_ = (scalar(value(document.root, "type")) or "").lower()
    if type_ in _DATASTORES:
        return "datastore"
    if type_ in _COMPUTES:
        return "compute"
    return "workspace" if "location" in present and any(key in present for key in _OF_WORKSPACES) else ""


def _datastore(document: Document, policy: Policy) -> Iterator[Finding]:
    root = document.root
    name = value(root, "name")
    at = document.place(name or root) if root is not None else None
    datastore = scalar(name) or ""
    if at is None:
        return
    yield from residency.named(datastore, policy, at)
    if datastore not in policy.private:
        return
    type_, endpoint = value(root, "type"), value(root, "endpoint")
    kind = scalar(type_) or "azure_blob"
    if kind.lower() != "azure_blob":
        message = (
            f"the private datastore '{datastore}' is of type {kind}, which Azure Stack Hub has not; use azure_blob"
        )
        yield found(residency.DATASTORE, document.place(type_) if type_ else at, message)
    suffix = "." + (scalar(endpoint) or "").lower().strip(".")
    if suffix == ".":
        message = f"the private datastore '{datastore}' has no endpoint, so it lies in Azure; write <region>.<fqdn>"
        yield found(residency.DATASTORE, at, message)
    elif suffix.endswith(_AZURE) and endpoint is not None:
        message = f"the private datastore '{datastore}' has an endpoint in Azure; write that of the premises"
        yield found(residency.DATASTORE, document.place(endpoint), message)


def _compute(document: Document, policy: Policy) -> Iterator[Finding]:
    name = value(document.root, "name")
    if name is not None and scalar(name) not in policy.computes:
        known = ", ".join(sorted(policy.computes)) or "none yet"
        message = f"the policy names no compute '{scalar(name)}'; it names {known}"
        yield found(residency.COMPUTE, document.place(name), message)
    if value(document.root, "location") is not None:
        yield from residency.region(document, value(document.root, "location"), policy)


def _workspace(document: Document, policy: Policy) -> Iterator[Finding]:
    yield from residency.region(document, value(document.root, "location"), policy)


def _data(document: Document, policy: Policy) -> Iterator[Finding]:
    node = value(document.root, "path")
    path = scalar(node)
    if node is None or path is None:
        return
    if path.startswith("azureml://") and "/datastores/" in path:
        yield from residency.named(datastore_of(path), policy, document.place(node))
    elif not load.is_remote(path):
        why = local.why_not(load.local_path(path, document.path), os.path.dirname(os.path.dirname(policy.file)))
        if why:
            message = f"the path of this asset would be uploaded to the cloud and {why}; name a datastore instead"
            yield found(residency.LOCAL, document.place(node), message)


_CHECKS: dict[str, Callable[[Document, Policy], Iterator[Finding]]] = {
    "datastore": _datastore,
    "compute": _compute,
    "workspace": _workspace,
    "data": _data,
}
