"""Deployment: what the record of a site says comes to serve there, once the gate has said that it may.

Each kind of site is a module with `deploy(site, record, release, say) -> Rollout`, `status(site, record) -> Serving`
and, where there is something to restore, `restore(site) -> dict`. GitHub is told of the beginning and the end
(`running`), because what runs at a site is what the gate of the next one asks for.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from typing import TYPE_CHECKING, Any, NamedTuple

from edgeml import project
from edgeml.errors import EdgemlError
from edgeml.gitops import gate, remote, running
from edgeml.gitops import record as records
from edgeml.gitops.github import connect

if TYPE_CHECKING:
    from edgeml.gitops.record import Record

Say = Callable[[str], None]

KINDS = {
    "edge-vm": "edgeml.gitops.sites.edge_vm",
    "kubernetes": "edgeml.gitops.sites.kubernetes",
    "azureml-online": "edgeml.gitops.sites.azureml_online",
    "app-service": "edgeml.gitops.sites.app_service",
}
DEPLOYED, UNCHANGED, ROLLED_BACK, FAILED, EXPORTED = "deployed", "unchanged", "rolled back", "failed", "exported"
SERVES = frozenset({DEPLOYED, UNCHANGED})


class Release(NamedTuple):
    """What a deployment is made from: a release tag and its commit, both empty for this checkout as it lies here."""

    tag: str
    commit: str


class Rollout(NamedTuple):
    """What became of a deployment: one of the five outcomes, why where it is not served, and details for readers."""

    outcome: str
    reason: str
    details: dict[str, Any]


class Serving(NamedTuple):
    """What a site serves: the image, empty for nothing, whether it answers, and details for readers.

    `exported`: edgeml only exports for this site, and does not see what runs there.
    `predictions` is what the scoring server's /metrics says of them, empty where the site cannot be asked.
    """

    image: str
    healthy: bool
    details: dict[str, Any]
    exported: bool = False
    predictions: str = ""


class Refused(EdgemlError):  # noqa: N818 - an answer
    """The gate said no."""

    def __init__(self, decision: gate.Decision) -> None:
        super().__init__(f"{decision.tag} may not deploy to {decision.site}; `edgeml gate` says why", 1)
        self.decision = decision


def deploy(site: str, ref: str, say: Say) -> tuple[Record, Rollout]:
    """Deploy a release tag's record to its site and tell GitHub. Raises Refused where the gate says no."""
    repository = connect()
    decision = gate.decide(site, ref, repository)
    if not decision.allowed:
        raise Refused(decision)
    release = Release(decision.tag, decision.facts["commit"])
    record = remote.record_at(repository, site, release.commit).record
    number = running.begin(repository, site, decision.tag, record)
    try:
        rollout = _kind(record).deploy(site, record, release, say)
    except BaseException:
        running.finish(repository, number, "error", "see the log of the deployment")
        raise
    # Of what was exported nobody knows whether it serves, so no gate of a later site may believe that it does.
    state: running.State = "inactive" if rollout.outcome == EXPORTED else "failure"
    running.finish(repository, number, "success" if rollout.outcome in SERVES else state, rollout.reason)
    return record, rollout


def deploy_ungated(site: str, say: Say) -> tuple[Record, Rollout]:
    """Deploy the record in this checkout, asked of nobody: for trying a site out. No gate will believe that it ran."""
    record = records.read(project.root_folder(), site)
    return record, _kind(record).deploy(site, record, Release("", ""), say)


def status(site: str) -> tuple[Record, Serving]:
    """What the record in this checkout wants of a site, and what runs there."""
    record = records.read(project.root_folder(), site)
    return record, _kind(record).status(site, record)


def restore(site: str) -> dict[str, Any]:
    """Have the last known good of a site serve again, as after a reboot."""
    record = records.read(project.root_folder(), site)
    module = _kind(record)
    if not hasattr(module, "restore"):
        raise EdgemlError(f"{site} is of the kind {record.kind}, which needs no restoring; deploy again")
    restored: dict[str, Any] = module.restore(site)
    return restored


def _kind(record: Record) -> Any:
    """The module of a site's kind."""
    return import_module(KINDS[record.kind])
