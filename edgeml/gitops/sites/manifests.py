"""The manifests of a Kubernetes site: the repository's own, with what its record says, held to what they promise.

`deployments/kubernetes/<site>/` is an overlay of kustomize on `base/`. They are read from the released commit, never
from a working tree that nobody approved.
"""

from __future__ import annotations

import io
import json
import os
import subprocess
import tarfile
import tempfile
from typing import TYPE_CHECKING, Any

import yaml

from edgeml import project
from edgeml.errors import EdgemlError

if TYPE_CHECKING:
    from collections.abc import Callable

    from edgeml.gitops.record import Record

FOLDER = "deployments/kubernetes"
NAME = "scoring"  # of the Deployment, its container and its Service
SITE = "edgeml/site"  # an annotation
PROPAGATION_SECONDS = 5  # in which every node has learned that a pod is going, by far; most take one
KINDS = frozenset({"Deployment", "Service", "NetworkPolicy", "PodDisruptionBudget"})


def render(record: Record, commit: str, kustomize: Callable[[str], str]) -> list[dict[str, Any]]:
    """The objects of a site as they are applied; `commit` is empty for the files of this checkout.

    Raises EdgemlError where there is no overlay, or where it takes back what the base promises.
    """
    if not commit:
        return _filled(record, kustomize(_overlay(project.root_folder(), record.site)))
    with tempfile.TemporaryDirectory(prefix="edgeml-site-") as folder:
        _checked_out(commit, folder)
        return _filled(record, kustomize(_overlay(folder, record.site)))


def _overlay(root: str, site: str) -> str:
    path = os.path.join(root, FOLDER, site)
    if not os.path.isfile(os.path.join(path, "kustomization.yaml")):
        message = f"{FOLDER}/{site}/kustomization.yaml is not there; write one that has ../base as its resource"
        raise EdgemlError(message, 1)
    return path


def _checked_out(commit: str, folder: str) -> None:
    command = ["git", "-C", project.root_folder(), "archive", "--format=tar", commit, "--", FOLDER]
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True)
    if done.returncode:
        raise EdgemlError(f"this clone has no {FOLDER} of the commit {commit[:12]}; fetch it and deploy again", 1)
    with tarfile.open(fileobj=io.BytesIO(done.stdout)) as archive:
        archive.extractall(folder, filter="data")


def _filled(record: Record, rendered: str) -> list[dict[str, Any]]:
    found = [each for each in yaml.safe_load_all(rendered) if each]
    strange = [str(each.get("kind")) for each in found if each.get("kind") not in KINDS]
    deployments = [each for each in found if each.get("kind") == "Deployment"]
    if strange or len(deployments) != 1:
        what = f"a {strange[0]}" if strange else f"{len(deployments)} Deployments"
        raise EdgemlError(
            f"{FOLDER}/{record.site} makes {what}; it is one Deployment with Services, NetworkPolicies, budgets",
            1,
        )
    deployment, wanted = deployments[0], record.rollout
    for each in found:
        each["metadata"].setdefault("annotations", {})[SITE] = record.site
    container = _container(record.site, deployment)
    container["image"] = record.image
    resources = container.setdefault("resources", {})
    for key in ("requests", "limits"):
        limits = resources.setdefault(key, {})
        if "memory_mb" in wanted:
            limits["memory"] = f"{wanted['memory_mb']}Mi"
        if "cpus" in wanted:
            limits["cpu"] = str(wanted["cpus"])
    if "replicas" in wanted:
        deployment["spec"]["replicas"] = wanted["replicas"]
    return found


def _container(site: str, deployment: dict[str, Any]) -> dict[str, Any]:
    """The one container, once it is known that no patch of an overlay has opened what the base shuts."""
    container: dict[str, Any]
    try:
        pod = deployment["spec"]["template"]["spec"]
        (container,) = pod["containers"]
        inner, strategy = container["securityContext"], deployment["spec"]["strategy"]["rollingUpdate"]
        wait, finish = _seconds_to_end(container)
        held = {
            f"the names '{NAME}'": deployment["metadata"]["name"] == container["name"] == NAME,
            "runAsNonRoot": pod["securityContext"]["runAsNonRoot"] is True,
            "no token": pod["automountServiceAccountToken"] is False,
            "no namespace of the node": not any(pod.get(key) for key in ("hostNetwork", "hostPID", "hostIPC")),
            "no folder of the node": not any("hostPath" in volume for volume in pod.get("volumes") or []),
            "a read-only root": inner["readOnlyRootFilesystem"] is True,
            "no privilege": inner["allowPrivilegeEscalation"] is False and not inner.get("privileged"),
            "no capability": inner["capabilities"] == {"drop": ["ALL"]},
            "no other container": not pod.get("initContainers"),
            "maxUnavailable: 0": strategy["maxUnavailable"] == 0,
            "its readiness probe": container["readinessProbe"]["httpGet"]["path"] == "/v2/health/ready",
            f"{PROPAGATION_SECONDS} s of waiting before the end": wait >= PROPAGATION_SECONDS,
            "the time to end": pod["terminationGracePeriodSeconds"] > wait + finish,
        }
    except (KeyError, TypeError, ValueError) as error:
        raise EdgemlError(f"{FOLDER}/{site} lacks what the base has ({error}); leave that as it is", 1) from None
    if broken := [name for name, holds in held.items() if not holds]:
        raise EdgemlError(f"{FOLDER}/{site} gives up {broken[0]}; a patch must leave that as the base has it", 1)
    return container


def _seconds_to_end(container: dict[str, Any]) -> tuple[int, int]:
    """How long the server goes on listening after SIGTERM, which is the wait of a preStop hook, and then finishes.

    Until every node knows that the pod is going it is sent requests, and it must take them.
    """
    from edgeml.serving.settings import PREFIX, Settings

    given = {each["name"]: each.get("value") for each in container.get("env") or []}
    wait, finish = (given.get(f"{PREFIX}{name}_SECONDS") for name in ("DRAIN", "STOP"))
    return int(wait or Settings.drain_seconds), int(finish or Settings.stop_seconds)


def text(documents: list[dict[str, Any]]) -> str:
    """The objects as kubectl reads them, one a line, the same for the same objects."""
    return "\n".join(json.dumps(each, sort_keys=True) for each in documents)
