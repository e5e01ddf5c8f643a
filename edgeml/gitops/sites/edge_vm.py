"""A site of the kind `edge-vm`: docker on a machine, reached over SSH, or on the machine that this is.

Everything that decides runs there (`on_vm.rollout`): the signature is verified by the site's own keys, and a rollout
that was begun ends there as a whole, whether the connection lasts or not.
"""

from __future__ import annotations

import base64
from collections.abc import Callable
from contextlib import closing
from typing import TYPE_CHECKING, Any

from edgeml.edge import session
from edgeml.errors import EdgemlError
from edgeml.gitops import images
from edgeml.gitops.deploy import Release, Rollout, Serving

if TYPE_CHECKING:
    from edgeml.gitops.record import Record
    from edgeml.settings import Site

Say = Callable[[str], None]

HEALTH_SECONDS, MEMORY_MB, CPUS = 30, 512, 1.0
_STAGES = {
    "verify": "verifying the signature by the site's own keys",
    "pull": "pulling the image by its digest",
    "start": "starting the new container beside the old one",
    "switch": "leading the traffic to the new container",
    "watch": "watching it for {seconds} s",
    "drain": "letting the old container answer what it accepted",
}
_REFUSALS = {
    "no-trusted-key": "{site} trusts no key; copy the public key of your releases there, as root, into {what}/",
    "unsigned": "no key that {site} trusts signed {what}; sign it with `edgeml package`, or add the key there as root",
    "labels": "the image at {site} does not bear the label {what} of its record; promote what the image holds",
    "pull": "{site} could not pull the image ({what}); see that the registry is reachable from there and lets it in",
    "start": "the container could not be started at {site} ({what})",
    "stop": "the old container at {site} could not be stopped ({what})",
    "docker": "docker at {site} does not answer ({what}); start it there",
    "no-docker": "there is no docker at {site}; docs/deployment.md says what a site needs",
    "no-nftables": "there is no {what} at {site}, which the traffic is led by; install nftables (and sudo) there",
    "nftables": "the rule for the traffic could not be set at {site} ({what}); its user needs `sudo nft -f -`",
    "known-good": "the last known good container of {site} does not come up ({what}); see its docker logs there",
    "state": "{what} at {site} is damaged; restore it from a backup, or remove it and deploy again",
    "image": "'{what}' is no image by digest; write the record's image as NAME@sha256:…",
    "port": "'{what}' is no port that two more can follow; correct the site's port",
    "name": "'{what}' is no name of a site on a VM: at most 40 small letters, digits and '-'",
    "disk-full": "no space is left on the disk of {site}; free some there and deploy again",
}


def deploy(site: str, record: Record, release: Release, say: Say) -> Rollout:
    """Make a record's image serve at a site. Raises EdgemlError where the site refuses before anything is changed."""
    from edgeml.image import credentials, signature, verification

    where = verification.store(record.image.partition("@")[0])
    verified = images.verified(record.image)
    golden = verified.golden.document()
    target, wanted = _machine(site), record.rollout
    question = {
        "verb": "deploy",
        "folder": target.folder,
        "site": site,
        "image": record.image,
        "tag": release.tag,
        "signatures": [list(map(_base64, pair)) for pair in signature.collected(where, record.digest)],
        "labels": images.labels(record),
        "golden": {"model": record.values["model"]["name"], "inputs": golden["inputs"], "outputs": golden["outputs"]},
        "login": credentials.of(record.image.partition("/")[0]).entry(),
        "port": target.serve_port,
        "health_seconds": wanted.get("health_seconds", HEALTH_SECONDS),
        "memory_mb": wanted.get("memory_mb", MEMORY_MB),
        "cpus": wanted.get("cpus", CPUS),
    }
    answer = _asked(site, target, question, say)
    return Rollout(answer["outcome"], answer.get("reason", ""), {key: answer[key] for key in ("current", "previous")})


def status(site: str, record: Record) -> Serving:
    """What serves at a site, and whether it answers through the port that it is called at."""
    target = _machine(site)
    answer = _asked(site, target, {"verb": "status", "folder": target.folder, "site": site}, lambda line: None)
    current = answer["current"] or {}
    details = {key: answer[key] for key in ("previous", "failed")}
    return Serving(current.get("image", ""), answer["through"], details, predictions=answer["predictions"])


def restore(site: str) -> dict[str, Any]:
    """Bring the machine of a site to what its state says."""
    target = _machine(site)
    answer = _asked(site, target, {"verb": "restore", "folder": target.folder}, lambda line: None)
    restored: dict[str, Any] = answer["sites"]
    return restored


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode()


def _machine(site: str) -> Site:
    from edgeml import settings

    machines = settings.load().site
    if site not in machines:
        raise EdgemlError(f"edgeml.toml does not say where {site} is; add [site.{site}] with address and host_key")
    return machines[site]


def _asked(site: str, target: Site, question: dict[str, Any], say: Say) -> dict[str, Any]:
    with closing(session.open_host(site, target, "site")) as host:
        for answer in session.told(host, question, heard=lambda answer: _tell(answer, say)):
            if "refused" in answer:
                form = _REFUSALS.get(answer["refused"], "{site} refuses: {what}")
                raise EdgemlError(form.format(site=site, what=answer["what"]), 1)
            if answer.get("done"):
                return answer
    raise EdgemlError(f"{site} ended without an answer; call `edgeml status {site}`", 1)


def _tell(answer: dict[str, Any], say: Say) -> None:
    if answer.get("stage") in _STAGES:
        say(_STAGES[answer["stage"]].format(**answer))
