"""A site of the kind `kubernetes`: plain manifests, applied by kubectl, the image by its digest.

Kubernetes itself starts the new pods beside the old ones and ends those once the new ones are ready. edgeml verifies
the signature before it applies, has the cluster show that it verifies too, asks the golden request after, and applies
what it knows to be good again where any of it fails. What is known to be good lies in the cluster, in a ConfigMap, as
the very manifests that were applied.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from edgeml.errors import EdgemlError
from edgeml.gitops import images
from edgeml.gitops.deploy import DEPLOYED, FAILED, ROLLED_BACK, UNCHANGED, Release, Rollout, Serving
from edgeml.gitops.sites import admission, manifests
from edgeml.gitops.sites.kubectl import Cluster, Failed

if TYPE_CHECKING:
    from edgeml.gitops.record import Record
    from edgeml.image.golden import Golden

Say = Callable[[str], None]

HEALTH_SECONDS = 30
NAME = manifests.NAME


def deploy(site: str, record: Record, release: Release, say: Say) -> Rollout:
    """Make a record's image serve at a site. Raises EdgemlError where nothing has been changed yet."""
    say("verifying the signature by the keys of this repository")
    golden = images.verified_as(record).golden
    cluster = _cluster(site)
    objects = manifests.render(record, release.commit, cluster.kustomize)
    new = {"image": record.image, "tag": release.tag, "signature": record.signature}
    new["manifests"] = manifests.text(objects)
    try:
        admission.require(cluster, record, objects, say)
        with cluster.lease(say):
            return _rolled_out(cluster, record, new, golden, say)
    except Failed as failed:
        raise _unreachable(cluster, failed) from None


def status(site: str, record: Record) -> Serving:
    """What serves at a site, and whether all of it is new, ready and answers through the site's Service."""
    cluster = _cluster(site)
    try:
        deployment, state = cluster.find("deployment", NAME), _state(cluster)
        ready = deployment is not None and _is_whole(deployment) and _answers(cluster, "/v2/health/ready") is not None
        metrics = _answers(cluster, "/metrics") if ready else None
    except Failed as failed:
        raise _unreachable(cluster, failed) from None
    image = deployment["spec"]["template"]["spec"]["containers"][0]["image"] if deployment else ""
    details: dict[str, Any] = {key: _shown(state[key]) for key in ("previous", "failed")}
    details["signature"] = (state["current"] or {}).get("signature", admission.WORKFLOW)
    return Serving(image, ready, details, predictions=metrics or "")


def restore(site: str) -> dict[str, Any]:
    """Apply what the site knows to be good once more. Raises EdgemlError where there is nothing, or it fails."""
    cluster = _cluster(site)
    try:
        with cluster.lease(lambda line: None):
            state = _state(cluster)
            if not state["current"]:
                raise EdgemlError(f"{site} has no last known good; deploy a release there", 1)
            cluster.apply(state["current"]["manifests"])
            cluster.wait(NAME)
            return {site: {key: _shown(state[key]) for key in state}}
    except Failed as failed:
        raise _unreachable(cluster, failed) from None


def _rolled_out(cluster: Cluster, record: Record, new: dict[str, Any], golden: Golden, say: Say) -> Rollout:
    before, state = cluster.find("deployment", NAME), _state(cluster)
    owner = before and (before["metadata"].get("annotations") or {}).get(manifests.SITE)
    if before and owner != cluster.site:
        raise EdgemlError(
            f"the namespace {cluster.where.namespace} holds a Deployment of {owner or 'somebody else'}; "
            f"give {cluster.site} a namespace of its own",
            1,
        )
    old = state["current"]
    same = old is not None and old["manifests"] == new["manifests"]
    seconds = 0 if same else record.rollout.get("health_seconds", HEALTH_SECONDS)
    if reason := _tried(cluster, record, new["manifests"], golden, seconds, say):
        state["failed"] = {"image": new["image"], "reason": reason}
        return _taken_back(cluster, state, FAILED if same else ROLLED_BACK, reason, say)
    if same:
        if state["current"].get("signature") != new["signature"]:
            state["current"]["signature"] = new["signature"]
            _keep(cluster, state)
        after = cluster.find("deployment", NAME) or {}
        untouched = before and before["metadata"]["generation"] == after["metadata"]["generation"]
        return Rollout(UNCHANGED if untouched else DEPLOYED, "", _details(state))
    state.update(current=new, previous=old, failed=None)
    _keep(cluster, state)
    return Rollout(DEPLOYED, "", _details(state))


def _tried(cluster: Cluster, record: Record, wanted: str, golden: Golden, seconds: float, say: Say) -> str:
    """Apply, wait, ask the golden request for a while; empty where all is well, else what is wrong."""
    try:
        say("applying the manifests; Kubernetes starts the new pods beside the old ones")
        cluster.apply(wanted)
        cluster.wait(NAME)
        say(f"asking the golden request for {seconds:g} s")
        deadline = time.monotonic() + seconds
        while True:
            if problem := _wrong(cluster, record.values["model"]["name"], golden):
                return problem
            if time.monotonic() >= deadline:
                cluster.wait(NAME)  # still whole
                return ""
            time.sleep(min(1.0, max(0.05, deadline - time.monotonic())))
    except Failed as failed:
        return str(failed)


def _taken_back(cluster: Cluster, state: dict[str, Any], outcome: str, reason: str, say: Say) -> Rollout:
    """Have the last known good serve again, and say how that went."""
    if outcome == FAILED:
        _keep(cluster, state)
        return Rollout(FAILED, f"the known good does not answer: {reason}", _details(state))
    if not state["current"]:
        say("nothing served before; taking the new one away")
        cluster.ask("delete", "deployment", NAME, "--ignore-not-found", "--wait=false")
        _keep(cluster, state)
        return Rollout(FAILED, reason, _details(state))
    say(f"putting the last known good back ({reason})")
    try:
        cluster.apply(state["current"]["manifests"])
        cluster.wait(NAME)
    except Failed as failed:
        outcome, reason = FAILED, f"{reason}; and the last known good does not come back: {failed}"
    _keep(cluster, state)
    return Rollout(outcome, reason, _details(state))


def _wrong(cluster: Cluster, model: str, golden: Golden) -> str:
    from edgeml.image import golden as golden_request

    try:
        outputs = json.loads(
            cluster.call(NAME, f"/v2/models/{model}/infer", {"id": golden_request.ID, "inputs": golden.inputs})
        )["outputs"]
    except Failed as failed:
        return f"the golden request was not answered ({failed})"
    except (ValueError, KeyError, TypeError):
        return "the golden request got no answer of the protocol"
    return "" if golden_request.equal(outputs, golden) else "the golden request got another answer"


def _answers(cluster: Cluster, path: str) -> str | None:
    """What one of the pods says at a path; None where it says no."""
    try:
        return cluster.call(NAME, path)
    except Failed:
        return None


def _is_whole(deployment: dict[str, Any]) -> bool:
    """Whether every pod is of the newest version and ready, as `kubectl rollout status` decides it."""
    said, wanted = deployment.get("status") or {}, deployment["spec"].get("replicas", 1)
    counts = [said.get(key, 0) for key in ("replicas", "updatedReplicas", "availableReplicas")]
    return said.get("observedGeneration") == deployment["metadata"]["generation"] and counts == [wanted] * 3


def _cluster(site: str) -> Cluster:
    from edgeml import settings

    known = settings.load().site
    if site not in known:
        raise EdgemlError(f"edgeml.toml does not say where {site} is; add [site.{site}] with context and namespace")
    return Cluster(site, known[site])


def _state(cluster: Cluster) -> dict[str, Any]:
    """What serves, what served before and what failed, as the cluster holds it."""
    held = cluster.find("configmap", f"edgeml-{cluster.site}")
    empty: dict[str, Any] = {"current": None, "previous": None, "failed": None}
    try:
        return empty | (json.loads(held["data"]["state"]) if held else {})
    except (ValueError, KeyError, TypeError):
        raise EdgemlError(
            f"the ConfigMap edgeml-{cluster.site} is damaged; remove it and deploy again, without a last known good", 1
        ) from None


def _keep(cluster: Cluster, state: dict[str, Any]) -> None:
    metadata = {"name": f"edgeml-{cluster.site}"}
    kept = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": {"state": json.dumps(state)}}
    cluster.apply(json.dumps(kept))


def _details(state: dict[str, Any]) -> dict[str, Any]:
    return {key: _shown(state[key]) for key in ("current", "previous")}


def _shown(known: dict[str, Any] | None) -> dict[str, Any] | None:
    return known and {key: value for key, value in known.items() if key != "manifests"}


def _unreachable(cluster: Cluster, failed: Failed) -> EdgemlError:
    return EdgemlError(f"the cluster of {cluster.site} refuses ({failed}); mend that and deploy again", 1)
