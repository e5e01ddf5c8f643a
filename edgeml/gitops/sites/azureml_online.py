"""A site of the kind `azureml-online`: an online endpoint, a deployment of it for each image, and its traffic.

What is known to be good is Azure's own: two tags of the endpoint name the deployment that serves and the one before
it, which stays without traffic. So a run that was killed ends in the next one, wherever that is called.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

from edgeml.errors import EdgemlError
from edgeml.gitops import images
from edgeml.gitops.deploy import DEPLOYED, FAILED, ROLLED_BACK, UNCHANGED, Release, Rollout, Serving
from edgeml.gitops.sites import azure

if TYPE_CHECKING:
    from edgeml.azure.online import Endpoint
    from edgeml.gitops.record import Record

Say = Callable[[str], None]

SITE, GOOD, PREVIOUS = "edgeml.site", "edgeml.good", "edgeml.previous"  # tags of the endpoint
IMAGE, TAG = "edgeml.image", "edgeml.tag"  # tags of a deployment, for readers
ENVIRONMENT = "edgeml-scoring"
INSTANCE_TYPE = "Standard_DS3_v2"  # what azure-ai-ml names as the least for general use
GRACE_SECONDS = 60.0  # what moving the traffic may take after Azure has said that it is moved
PORT = 8080
# docs/serving.md has the paths. The golden request goes by the scoring route, the only one a caller is promised.
ROUTES = {
    "livenessRoute": {"path": "/v2/health/live", "port": PORT},
    "readinessRoute": {"path": "/v2/health/ready", "port": PORT},
    "scoringRoute": {"path": "/score", "port": PORT},
}
# The default of one request at a time is for scripts that can do no more; the time is the scoring server's own.
REQUESTS = {"maxConcurrentRequestsPerInstance": 100, "requestTimeout": "PT10S"}


class _State(NamedTuple):
    """What Azure knows of a site: `good` and `previous` name deployments that are there, or are empty."""

    scoring: str
    mode: str
    location: str
    compute: str
    traffic: dict[str, int]
    deployments: dict[str, dict[str, Any]]
    good: str
    previous: str


def deploy(site: str, record: Record, release: Release, say: Say) -> Rollout:
    """Make a record's image serve at a site. Raises EdgemlError where nothing has been changed yet."""
    say("verifying the signature by the keys of this repository")
    golden = images.verified_as(record).golden
    endpoint = _endpoint(site, say)
    state = _state(endpoint, site)
    endpoint.authorization(state.mode)  # refused now, or not at all

    def ask(name: str) -> str:
        """By the deployment's name, else as the traffic goes."""
        header = {"azureml-model-deployment": name} if name else {}
        return azure.wrong(state.scoring, golden, {"Authorization": endpoint.authorization(state.mode), **header})

    wanted = _name(record)
    if reason := _tried(endpoint, state, record, release, ask, say):
        return _taken_back(endpoint, state, wanted, reason, say)
    kept = state.previous if state.good == wanted else state.good
    if (state.good, state.previous) != (wanted, kept):
        endpoint.write({}, {SITE: site, GOOD: wanted, PREVIOUS: kept})
    for name in state.deployments:
        if name not in (wanted, kept):
            say(f"deleting {name}, which is older than the last known good")
            endpoint.remove(name)
    outcome = DEPLOYED if endpoint.writes else UNCHANGED
    return Rollout(outcome, "", {"current": wanted, "previous": kept})


def status(site: str, record: Record) -> Serving:
    """What the traffic of a site goes to, and whether it gives the golden answer of its record."""
    endpoint = _endpoint(site, lambda line: None)
    state = _state(endpoint, site)
    led = {name: share for name, share in state.traffic.items() if share}
    name = max(led, key=lambda each: led[each], default="")
    image = endpoint.image_of(state.deployments[name]) if name in state.deployments else ""
    healthy = len(led) == 1 and image == record.image
    if healthy:
        headers = {"Authorization": endpoint.authorization(state.mode)}
        healthy = not azure.wrong(state.scoring, images.verified_as(record).golden, headers)
    return Serving(image, healthy, {"traffic": state.traffic, "current": state.good, "previous": state.previous})


def _tried(
    endpoint: Endpoint, state: _State, record: Record, release: Release, ask: Callable[[str], str], say: Say
) -> str:
    """Make, ask, lead the traffic there and watch; empty where all is well, else what is wrong."""
    wanted = _name(record)
    seconds = 0 if state.good == wanted else record.rollout.get("health_seconds", azure.HEALTH_SECONDS)
    try:
        _provisioned(endpoint, state, record, release, say)
        say("asking the golden request of the deployment by its name")
        if problem := azure.stays(lambda: ask(wanted), 0):
            return problem
        share = record.rollout.get("traffic_percent", 100)
        if state.good not in ("", wanted) and 0 < share < 100 and state.traffic.get(wanted, 0) < 100:
            _lead(endpoint, {wanted: share, state.good: 100 - share}, say)
            if problem := azure.stays(lambda: ask(wanted), seconds):
                return problem
        _lead(endpoint, {wanted: 100}, say)
        if problem := azure.becomes(lambda: ask(""), GRACE_SECONDS):
            return problem
        if seconds:
            say(f"asking the golden request for {seconds:g} s")
        return azure.stays(lambda: ask(""), seconds) if seconds else ""
    except EdgemlError as error:
        return str(error)


def _provisioned(endpoint: Endpoint, state: _State, record: Record, release: Release, say: Say) -> None:
    """Have the deployment of a record there, as large as it says."""
    wanted = _name(record)
    there = endpoint.deployment(wanted) if wanted in state.deployments else None
    if there is not None and there["properties"].get("provisioningState") != "Succeeded":
        say(f"deleting {wanted}, which an earlier run left in {there['properties'].get('provisioningState')}")
        if state.traffic.get(wanted):
            _lead(endpoint, {state.good: 100} if state.good not in ("", wanted) else {}, say)
        endpoint.remove(wanted)
        there = None
    size = int(record.rollout.get("replicas", 1))
    as_large = there is not None and (there.get("sku") or {}).get("capacity") == size
    if there is not None and as_large and endpoint.image_of(there) == record.image:
        return
    say(f"making the deployment {wanted}; it takes minutes")
    content = {"osType": "Linux", "image": record.image, "inferenceConfig": ROUTES}
    version = hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]
    environment = endpoint.environment(ENVIRONMENT, version, content)
    site = {SITE: record.site, IMAGE: record.image, TAG: release.tag}
    endpoint.deploy(wanted, {
        "location": state.location,
        "tags": {key: value for key, value in site.items() if value},
        "sku": {"name": "Default", "capacity": size},
        "properties": {
            "environmentId": environment,
            "appInsightsEnabled": False,
            "requestSettings": REQUESTS,
            **(_on_cluster(record) if state.compute else _managed(record)),
        },
    })  # fmt: skip


def _managed(record: Record) -> dict[str, Any]:
    return {"endpointComputeType": "Managed", "instanceType": record.rollout.get("instance_type", INSTANCE_TYPE)}


def _on_cluster(record: Record) -> dict[str, Any]:
    """The same on the Kubernetes compute that the endpoint has."""
    wanted = record.rollout
    made: dict[str, Any] = {"endpointComputeType": "Kubernetes"}
    if "instance_type" in wanted:
        made["instanceType"] = wanted["instance_type"]
    limits = {"cpu": str(wanted["cpus"])} if "cpus" in wanted else {}
    limits |= {"memory": f"{wanted['memory_mb']}Mi"} if "memory_mb" in wanted else {}
    if limits:
        made["containerResourceRequirements"] = {
            "containerResourceLimits": limits,
            "containerResourceRequests": limits,
        }
    return made


def _lead(endpoint: Endpoint, traffic: Mapping[str, int], say: Say) -> None:
    """Lead the traffic, unless it goes there already."""
    now = {name: share for name, share in (endpoint.read()["properties"].get("traffic") or {}).items() if share}
    if now != traffic:
        say("leading the traffic: " + (", ".join(f"{share} % to {name}" for name, share in traffic.items()) or "none"))
        endpoint.write({"traffic": dict(traffic)}, {})


def _taken_back(endpoint: Endpoint, state: _State, wanted: str, reason: str, say: Say) -> Rollout:
    """Have the last known good serve again, take away what failed, and say how that went."""
    details = {"current": state.good, "previous": state.previous}
    if state.good == wanted:
        return Rollout(FAILED, f"the known good does not answer: {reason}", details)
    try:
        _lead(endpoint, {state.good: 100} if state.good else {}, say)
        endpoint.remove(wanted)
        if state.previous == wanted:
            endpoint.write({}, {PREVIOUS: ""})
    except EdgemlError as error:
        return Rollout(FAILED, f"{reason}; and it could not be taken back: {error}", details)
    return Rollout(ROLLED_BACK if state.good else FAILED, reason, details)


def _name(record: Record) -> str:
    """A deployment's name: the image's digest, and a digit or two of what else cannot change under one name."""
    fixed = [record.image, *(record.rollout.get(key) for key in ("instance_type", "cpus", "memory_mb"))]
    more = hashlib.sha256(json.dumps(fixed).encode()).hexdigest()
    return f"i-{record.digest.removeprefix('sha256:')[:16]}-{more[:4]}"


def _endpoint(site: str, say: Say) -> Endpoint:
    from edgeml.azure.online import Endpoint
    from edgeml.azure.workspace import Workspace

    settings, place = azure.where(site, "endpoint")
    return Endpoint(Workspace(settings), place.endpoint, say)


def _state(endpoint: Endpoint, site: str) -> _State:
    """What Azure knows. Raises EdgemlError where the endpoint is somebody else's."""
    there = endpoint.read()
    properties, tags = there["properties"], there.get("tags") or {}
    deployments = endpoint.deployments()
    for what, owner in [
        ("endpoint", tags.get(SITE, site)),
        *((name, (each.get("tags") or {}).get(SITE)) for name, each in deployments.items()),
    ]:
        if owner != site:
            raise EdgemlError(
                f"at the endpoint {endpoint.name}, {what} is of {owner or 'somebody else'}; give {site} one of its own",
                1,
            )
    good, previous = (tags.get(tag, "") if tags.get(tag) in deployments else "" for tag in (GOOD, PREVIOUS))
    return _State(
        str(properties.get("scoringUri") or ""),
        str(properties.get("authMode")),
        str(there["location"]),
        str(properties.get("compute") or ""),
        dict(properties.get("traffic") or {}),
        deployments,
        good,
        previous,
    )
