"""Promotion: a model that passed goes to the first site by a pull request, what a site runs goes to the next."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any, NamedTuple

import yaml

from edgeml import project
from edgeml.check.document import entries, scalar
from edgeml.check.records import SITES as KINDS
from edgeml.errors import EdgemlError
from edgeml.gitops import evidence, gate, remote, running
from edgeml.gitops import images as registries
from edgeml.gitops import record as records
from edgeml.gitops.evidence import Measured, Released
from edgeml.gitops.github import connect
from edgeml.gitops.proposal import Outcome, Proposal, propose

if TYPE_CHECKING:
    from edgeml.gitops.github import Repository
    from edgeml.gitops.images import Images
    from edgeml.gitops.record import Record
    from edgeml.registry import Version

BRANCH = "edgeml/promote/{site}"
BASE = "base.yml"
IMAGE_TAG = "image.reference"  # where `edgeml package` writes, at the version, what it pushed
_COMMIT = re.compile(r"[0-9a-f]{40}")
_MODEL = re.compile(r"[^:@/\\]+:[0-9]+")


class Candidate(NamedTuple):
    """What is to be promoted: the keys of a record that it brings along, and what a reviewer is shown of it."""

    values: dict[str, Any]
    released: Released | None
    measured: Measured
    before: str | None


def promote(
    reference: str = "",
    site: str = "",
    *,
    image: str = "",
    kind: str = "",
    dry_run: bool = False,
    images: Images | None = None,
) -> Outcome:
    """Open or update the pull request that brings a model to a site; without one, the first.

    `reference` is a run or NAME:VERSION, without one the newest completed run; a later site takes what the site before
    it runs, and nothing else. `image` is NAME@sha256:DIGEST; `kind` is that of a site without a record. Nothing is
    written with `dry_run`. Raises EdgemlError, exit code 1, where the model may not go there.
    """
    from edgeml import settings

    order = settings.load().sites.order
    if not order:
        raise EdgemlError('no site is declared; name them in edgeml.toml: [sites] order = ["staging", "production"]')
    site = site or order[0]
    before = gate.predecessor(order, site)
    offline = dry_run and before is None
    repository = None if offline else connect()
    held = _texts(repository)
    current = remote.read(held, site) if records.path_of(site) in held else None
    if before is None:
        candidate = _released(reference, image)
    else:
        assert repository is not None  # a later site is never decided offline
        candidate = _run_before(repository, before, reference)
    proposal = _proposal(site, kind, held, current, candidate)
    if proposal.text == held.get(proposal.path):
        return Outcome("none", proposal)
    if dry_run or repository is None:
        return Outcome("dry-run", proposal)
    record = remote.read(held | {proposal.path: proposal.text}, site)
    if current is not None:
        _refuse_doubles(current, record)
    if not remote.contains(repository, repository.branch, record.evidence["commit"]):
        commit = record.evidence["commit"][:12]
        raise EdgemlError(
            f"{record.model} was trained at {commit}, which is not on {repository.branch}; merge first", 1
        )
    _resolves(record, images or registries.default())
    return propose(repository, proposal)


def _texts(repository: Repository | None) -> dict[str, str]:
    """The records of the default branch by path, or those of this checkout."""
    if repository is not None:
        blobs = remote.blobs(
            repository, repository.ask(repository.rest.git.get_ref, f"heads/{repository.branch}").object_.sha
        )
        return {path: remote.text_of(repository, blob) for path, blob in blobs.items() if path.endswith(".yml")}
    folder = project.root() / records.FOLDER
    return {f"{records.FOLDER}/{file.name}": file.read_text("utf-8") for file in sorted(folder.glob("*.yml"))}


def _proposal(site: str, kind: str, held: dict[str, str], current: Record | None, candidate: Candidate) -> Proposal:
    path = records.path_of(site)
    values = dict(candidate.values)
    text = held.get(path, "")
    if current is None:
        values |= _new(site, kind, held)
        text = records.HEADER.format(site=site)
        text += f"base: {BASE}\n" if f"{records.FOLDER}/{BASE}" in held else ""
    elif kind and kind != current.kind:
        raise EdgemlError(f"{site} is of kind {current.kind}; to change it, edit {path} by a pull request")
    text = records.changed(text, current, values)
    record = remote.read(held | {path: text}, site)
    wrong = [key for key, value in values.items() if record.values.get(key) != value]
    if wrong:
        raise EdgemlError(f"{path} cannot be changed by machine at '{wrong[0]}'; write it in the plain form", 1)
    body = evidence.promotion(record, current, candidate.before, candidate.released, candidate.measured)
    return Proposal(BRANCH.format(site=site), path, text, f"Promote {record.model} to {site}", body)


def _new(site: str, kind: str, held: dict[str, str]) -> dict[str, str]:
    """The keys of a site that has no record yet."""
    base = entries(yaml.compose(held.get(f"{records.FOLDER}/{BASE}", ""), Loader=yaml.SafeLoader))
    kind = kind or (scalar(base["kind"][1]) if "kind" in base else None) or KINDS[0]
    return {"site": site, "kind": kind}


def _run_before(repository: Repository, before: str, reference: str) -> Candidate:
    """What the site before runs, by the record at the commit that was deployed there."""
    now = running.at(repository, before)
    if now is None:
        raise EdgemlError(f"{before} runs nothing yet, and the next site gets what it runs; deploy there first", 1)
    if not remote.contains(repository, repository.branch, now.commit):
        raise EdgemlError(
            f"{before} runs {now.tag}, which is not on {repository.branch}; deploy a release there first", 1
        )
    record = remote.record_at(repository, before, now.commit).record
    if reference and reference != record.model:
        raise EdgemlError(f"{before} runs {record.model}, not {reference}; deploy {reference} there first", 1)
    return Candidate({key: record.values[key] for key in records.PROMOTED}, None, Measured(), before)


def _released(reference: str, image: str) -> Candidate:
    """What a run released, once it is registered and its verdict is yes, or overridden by name."""
    from edgeml import registry
    from edgeml.registry import release

    version = _version(reference)
    folder = registry.path(version)
    files = release.verify(folder)
    tags = version.tags
    metrics = files.document("metrics.json")["metrics"]
    champion = files.document("promotion.json").get("champion") or {}
    proof = {
        "job": tags["run"],
        "commit": _commit(version),
        "data": tags["data.fingerprint"],
        "gate": f"sha256:{tags['egress.sha256']}",
        "metrics": {
            name: {key: float(estimate[key]) for key in ("value", "low", "high")} for name, estimate in metrics.items()
        },
        "verdict": _verdict(version),
    }
    reference = image or tags.get(IMAGE_TAG, "")
    if not reference:
        raise EdgemlError(
            f"{version} has no image yet; make one with `edgeml package {version}`, or name it: --image", 1
        )
    values = {"model": {"name": version.name, "version": str(version.version)}, "image": reference, "evidence": proof}
    shown = evidence.of(files, _champion(str(champion.get("model_sha256", ""))), tags)
    return Candidate(values, shown, _measured(version), None)


def _version(reference: str) -> Version:
    """The registered version that a run released, or that is named."""
    from edgeml import registry
    from edgeml.engine import runs
    from edgeml.registry import release

    if _MODEL.fullmatch(reference):
        return registry.find(reference)
    run = runs.find(str(project.state()), reference, "" if reference else "completed")
    sha256 = release.of(run).sha256
    known = [version for version in registry.versions() if version.sha256 == sha256]
    if not known:
        name = run.record["run"]
        raise EdgemlError(f"the model of {name} is not registered; register it: edgeml register {name}", 1)
    return known[-1]


def _measured(version: Version) -> Measured:
    """What `edgeml package` kept of its tests of the image; a figure that is not there was not measured."""
    try:
        kept = json.loads((project.state() / "image" / f"{version.name}-{version.version}.json").read_text("utf-8"))
        size = sum(int(layer["bytes"]) for layer in kept["layers"])
        return Measured(size, float(kept["proof"]["p99_ms"]))
    except (OSError, ValueError, KeyError, TypeError):
        return Measured()


def _champion(sha256: str) -> Any:
    """The champion's release, where it is on this machine."""
    from edgeml import registry
    from edgeml.registry import release

    for version in registry.versions():
        if sha256 and version.sha256 == sha256:
            try:
                return release.verify(registry.path(version))
            except EdgemlError:  # evidence that is missing is said to be missing
                return None
    return None


def _commit(version: Version) -> str:
    commit = version.tags.get("git.commit", "")
    if not _COMMIT.fullmatch(commit) or version.tags.get("git.dirty") != "false":
        raise EdgemlError(f"{version} was not trained from a clean commit; commit, merge, and train again", 1)
    return commit


def _verdict(version: Version) -> dict[str, Any]:
    tags = version.tags
    if tags.get("promotion.promote") == "true":
        return {"promote": True}
    if not tags.get("override.reason") or not tags.get("override.user"):
        raise EdgemlError(
            f"the verdict is not to promote {version}; train a better model, or override at `register`", 1
        )
    return {"promote": False, "override": tags["override.reason"], "approver": tags["override.user"]}


def _refuse_doubles(current: Record, record: Record) -> None:
    """One name and number is one release: a registry that forgot counts from 1 again, and mixes models up."""
    if record.model == current.model and record.evidence["gate"] != current.evidence["gate"]:
        raise EdgemlError(
            f"{record.site} has another {record.model} already: the registry that numbered it is gone, as on a runner "
            "that is made anew for each job; set registry.tracking_uri to one that lasts, and register again",
            1,
        )


def _resolves(record: Record, images: Images) -> None:
    """The image is in the registry, signed, and of this model; nobody should review what could never be deployed."""
    refusals = list(gate.image(record, images))
    if refusals:
        raise EdgemlError(f"{refusals[0].cause}; {refusals[0].fix}", 1)
