"""Who verifies signatures at a Kubernetes site: the cluster itself, shown by asking it, or the workflow alone.

edgeml verifies before it applies, but whoever else may write to the namespace could run any image there, unless an
admission controller verifies too. Whether one does is asked of the API server, by dry runs that make nothing: a pod of
the release's own image must be admitted, and the same pod of an image beside it that nobody has signed be denied.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import yaml

from edgeml.errors import EdgemlError

if TYPE_CHECKING:
    from edgeml.gitops.record import Record
    from edgeml.gitops.sites.kubectl import Cluster

CLUSTER, WORKFLOW = "cluster", "workflow"  # the values of a record's `signature`


def require(cluster: Cluster, record: Record, objects: list[dict[str, Any]], say: Callable[[str], None]) -> None:
    """Hold the cluster to what the record says of it. Raises EdgemlError where it admits what it must deny.

    Also raises kubectl's Failed for any answer that is neither: not knowing is no yes.
    """
    if record.signature == WORKFLOW:
        say("the cluster is not asked to verify signatures: the record says `signature: workflow`")
        return
    say("asking the cluster whether it denies an image that nobody has signed")
    policy = f"`edgeml deploy {record.site} --policy kyverno`"
    if denial := cluster.denial(_pod(objects, record.image)):
        raise EdgemlError(f"the cluster denies the signed image ({denial}); mend its policy: {policy} prints one", 1)
    if not cluster.denial(_pod(objects, _unsigned(record.image))):
        raise EdgemlError(
            f"the cluster of {record.site} admits an image that nobody has signed; have it apply what {policy} prints, "
            f"or let the record say `signature: {WORKFLOW}`",
            1,
        )


def _unsigned(image: str) -> str:
    """The image that the release's signature is: it lies in the same repository, and nobody signs signatures.

    One that is really there: a controller that only looks whether the registry has an image does not deny it.
    """
    from edgeml.image import oci, signature, verification

    name, _, digest = image.partition("@")
    data = verification.store(name).manifest(signature.tag(digest))
    if data is None:
        raise EdgemlError(f"{name} has lost the signature of {digest}; package the model again", 1)
    return f"{name}@{oci.digest_of(data)}"


def _pod(objects: list[dict[str, Any]], image: str) -> str:
    """The pod that the site's Deployment makes, with an image of choice."""
    (deployment,) = [each for each in objects if each["kind"] == "Deployment"]
    template = json.loads(json.dumps(deployment["spec"]["template"]))
    template["spec"]["containers"][0]["image"] = image
    metadata = {**template.get("metadata", {}), "name": "edgeml-signature"}
    return json.dumps({"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": template["spec"]})


def policy(kind: str, record: Record, namespace: str, keys: list[str]) -> str:
    """The policy that has a cluster verify: only what one of the keys signed may run in the site's namespace.

    Shapes are those of Kyverno's `kyverno.io/v1` and of sigstore policy-controller's `policy.sigstore.dev/v1beta1`.
    """
    name, repository = f"edgeml-{record.site}", record.image.partition("@")[0]
    made = _kyverno(name, namespace, keys) if kind == "kyverno" else _sigstore(name, repository, keys)
    return yaml.dump(made, Dumper=_Dumper, sort_keys=False, width=10**6)


def _kyverno(name: str, namespace: str, keys: list[str]) -> dict[str, Any]:
    # Signatures lie beside the image in the registry, and nowhere else: there is no transparency log to ask.
    entries = [
        {"keys": {"publicKeys": _Block(key), "rekor": {"ignoreTlog": True}, "ctlog": {"ignoreSCT": True}}}
        for key in keys
    ]
    images = {
        "imageReferences": ["*"],
        "attestors": [{"count": 1, "entries": entries}],
        "mutateDigest": False,
        "verifyDigest": True,
        "required": True,
    }
    pods = {"any": [{"resources": {"kinds": ["Pod"], "namespaces": [namespace]}}]}
    spec = {
        "validationFailureAction": "Enforce",
        "failurePolicy": "Fail",
        "background": False,
        "webhookTimeoutSeconds": 30,
        "rules": [{"name": "signed", "match": pods, "verifyImages": [images]}],
    }
    return {"apiVersion": "kyverno.io/v1", "kind": "ClusterPolicy", "metadata": {"name": name}, "spec": spec}


def _sigstore(name: str, repository: str, keys: list[str]) -> dict[str, Any]:
    """It holds in namespaces with the label `policy.sigstore.dev/include: "true"`, and denies what no policy names."""
    spec = {
        "images": [{"glob": f"{repository}*"}],
        "authorities": [{"name": f"key-{at}", "key": {"data": _Block(key)}} for at, key in enumerate(keys)],
    }
    document = {"apiVersion": "policy.sigstore.dev/v1beta1", "kind": "ClusterImagePolicy"}
    return {**document, "metadata": {"name": name}, "spec": spec}


class _Block(str):
    """Text that is written line by line, as people read a key."""


class _Dumper(yaml.SafeDumper):
    """What writes it so."""


_Dumper.add_representer(
    _Block, lambda dumper, text: dumper.represent_scalar("tag:yaml.org,2002:str", str(text), style="|")
)
