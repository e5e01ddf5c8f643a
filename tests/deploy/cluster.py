"""The API server of a cluster, on loopback: what kubectl asks of it for a deployment, no more.

Every object is held against the published schemas (`kubernetes-validate`, strictly) before it is taken. Pods are not
run: an image whose answers are in `answers` gets ready and gives them, any other fails its deadline, as a pod whose
image cannot be pulled does. Where it has a `key`, an admission controller of it denies what that did not sign.
"""

from __future__ import annotations

import contextlib
import json
import ssl
import subprocess
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import kubernetes_validate
import yaml

from edgeml.image import signature, verification

VERSION = "1.31"
TOKEN, NAMESPACE = "a-token", "ward"
GROUPS = {
    "v1": {"services": "Service", "configmaps": "ConfigMap", "pods": "Pod"},
    "apps/v1": {"deployments": "Deployment"},
    "networking.k8s.io/v1": {"networkpolicies": "NetworkPolicy"},
    "coordination.k8s.io/v1": {"leases": "Lease"},
}

METRICS = 'edgeml_predictions_expected{low="0.0",high="0.5"} 60\nedgeml_predictions_expected{low="0.5",high="1.0"} 40\n'


@dataclass
class Cluster:
    """Objects by (resource, name), the images that work with the outputs they give, and what was asked."""

    answers: dict[str, list[dict[str, Any]]]
    objects: dict[tuple[str, str], dict[str, Any]] = field(default_factory=dict)
    serving: str = ""
    key: str = ""
    fails: bool = False  # the admission controller, where it has to say no: it decides nothing
    pods: bool = True  # whether the account may make them
    asked: list[tuple[str, str]] = field(default_factory=list)
    breaches: list[str] = field(default_factory=list)
    images: list[str] = field(default_factory=list)  # that somebody wanted to run
    url: str = ""
    authority: str = ""
    version: int = 0
    lock: Any = field(default_factory=threading.RLock)

    def kubeconfig(self, decoy: str) -> str:
        """Two contexts; the current one is another cluster's."""
        known = {"certificate-authority": self.authority}
        clusters = [{"name": n, "cluster": {"server": u, **known}} for n, u in (("ward", self.url), ("other", decoy))]
        contexts = [{"name": n, "context": {"cluster": n, "user": "edgeml"}} for n in ("ward", "other")]
        user = {"name": "edgeml", "user": {"token": TOKEN}}
        return json.dumps(
            {"apiVersion": "v1", "kind": "Config", "current-context": "other", "clusters": clusters}
            | {"contexts": contexts, "users": [user]}
        )

    def admission(self, image: str) -> tuple[int, Any] | None:
        """The refusal of an image by a controller that looks for signatures in the registry, worded as such are."""
        self.images.append(image)
        if not self.key:
            return None
        name, _, digest = image.partition("@")
        if signature.signed_by(verification.store(name), digest, signature.trusted(self.key)):
            return None
        if self.fails:
            why = 'Internal error occurred: failed calling webhook "policy.example": context deadline exceeded'
            return 500, _status(500, "InternalError", why)
        why = f"validation failed: failed policy: edgeml: containers[0].image\n{image} signature key validation failed"
        return 403, _status(403, "Forbidden", f'admission webhook "policy.example" denied the request: {why}')

    def take(self, resource: str, name: str, wanted: dict[str, Any], *, dry: bool = False) -> tuple[int, Any]:
        """An object as it is stored; `generation` grows with its spec alone."""
        try:
            kubernetes_validate.validate(wanted, VERSION, strict=True)
        except kubernetes_validate.ValidationError as error:
            self.breaches.append(f"{resource}/{name}: {error.message}")
            return 422, _status(422, "Invalid", str(error.message))
        if resource in ("deployments", "pods"):
            pod = wanted["spec"]["template"]["spec"] if resource == "deployments" else wanted["spec"]
            if refused := self.admission(pod["containers"][0]["image"]):
                return refused
        if dry:
            return 201, wanted
        there = self.objects.get((resource, name))
        if resource == "deployments":
            wanted["spec"].setdefault("replicas", 1)
        same = there is not None and there.get("spec") == wanted.get("spec")
        generation = there["metadata"]["generation"] + (not same) if there else 1
        self.version += 1
        known = {"namespace": NAMESPACE, "generation": generation, "resourceVersion": str(self.version), "uid": name}
        status = {"status": there["status"]} if there and "status" in there else {}
        self.objects[resource, name] = {**wanted, "metadata": wanted["metadata"] | known, **status}
        if resource == "deployments" and not same:
            self._roll(self.objects[resource, name])
        return (200 if there else 201), self.objects[resource, name]

    def _roll(self, deployment: dict[str, Any]) -> None:
        """Where a rollout ends, a moment from now; the old pods serve where the new ones never get ready."""
        image = deployment["spec"]["template"]["spec"]["containers"][0]["image"]
        replicas, generation = deployment["spec"].get("replicas", 1), deployment["metadata"]["generation"]
        deployment["status"] = {"observedGeneration": generation, "replicas": replicas, "updatedReplicas": 0}

        def end() -> None:
            with self.lock:
                deployment = self.objects.get(("deployments", "scoring"))
                if deployment is None or deployment["metadata"]["generation"] != generation:
                    return
                whole = dict.fromkeys(("replicas", "updatedReplicas", "readyReplicas", "availableReplicas"), replicas)
                if image in self.answers:
                    self.serving = image
                    deployment["status"] |= whole
                else:
                    late = {"type": "Progressing", "status": "False", "reason": "ProgressDeadlineExceeded"}
                    deployment["status"] |= {"conditions": [late | {"message": "timed out"}]}
                self.version += 1
                deployment["metadata"]["resourceVersion"] = str(self.version)

        threading.Timer(0.1, end).start()

    def answer(self, method: str, path: str, query: dict[str, str], body: bytes) -> tuple[int, Any]:
        if path in ("/api", "/apis"):
            return 200, _groups(path)
        if path.startswith("/openapi/v3"):
            return 200, _openapi(path)
        version, _, rest = path.lstrip("/").partition("/")[2].partition("/namespaces/")
        if version not in GROUPS:
            return 404, _status(404, "NotFound", path)
        if not rest:
            return 200, _resources(version)
        if rest == NAMESPACE:
            return 200, {"kind": "Namespace", "apiVersion": "v1", "metadata": {"name": NAMESPACE}}
        namespace, resource, *more = rest.split("/")
        if namespace != NAMESPACE or resource not in GROUPS[version]:
            return 403, _status(403, "Forbidden", f"not allowed: {path}")
        if more[1:2] == ["proxy"]:
            return self._proxied("/".join(more[2:]), body)
        name = more[0] if more else ""
        there = self.objects.get((resource, name))
        if method == "POST" and resource == "pods" and not self.pods:
            return 403, _status(403, "Forbidden", 'pods is forbidden: User "edgeml" cannot create resource "pods"')
        if method == "POST":
            wanted = json.loads(body)
            name = wanted["metadata"]["name"]
            if (resource, name) in self.objects:
                return 409, _status(409, "AlreadyExists", f'{resource} "{name}" already exists')
            return self.take(resource, name, wanted, dry=query.get("dryRun") == "All")
        if method == "PATCH":
            return self.take(resource, name, yaml.safe_load(body))
        if not name:
            wanted_name = query.get("fieldSelector", "").removeprefix("metadata.name=")
            found = [each for (kind, n), each in self.objects.items() if kind == resource and n == wanted_name]
            kind = GROUPS[version][resource] + "List"
            meta = {"resourceVersion": str(self.version)}
            return 200, {"kind": kind, "apiVersion": version, "metadata": meta, "items": found}
        if there is None:
            return 404, _status(404, "NotFound", f'{resource} "{name}" not found')
        if method == "PUT":
            wanted = json.loads(body)
            if wanted["metadata"].get("resourceVersion") != there["metadata"]["resourceVersion"]:
                return 409, _status(409, "Conflict", "the object has been modified")
            return self.take(resource, name, _without_server_fields(wanted))
        if method == "DELETE":
            del self.objects[resource, name]
            self.serving = "" if resource == "deployments" else self.serving
            return 200, _status(200, "", "")
        return 200, there

    def _proxied(self, path: str, body: bytes) -> tuple[int, Any]:
        if not self.serving:
            return 503, _status(503, "ServiceUnavailable", "no endpoints available for service")
        if path == "v2/health/ready":
            return 200, {}
        if path == "metrics":
            return 200, METRICS
        if "inputs" not in json.loads(body):
            return 400, {"error": "no inputs"}
        return 200, {"outputs": self.answers[self.serving]}


def _without_server_fields(wanted: dict[str, Any]) -> dict[str, Any]:
    keep = {k: v for k, v in wanted["metadata"].items() if k not in ("managedFields", "creationTimestamp")}
    return {**wanted, "metadata": keep}


def _status(code: int, reason: str, message: str) -> dict[str, Any]:
    said = "Failure" if code >= 400 else "Success"
    known = {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": said, "code": code}
    return known | {"reason": reason, "message": message}


def _groups(path: str) -> dict[str, Any]:
    if path == "/api":
        return {"kind": "APIVersions", "versions": ["v1"]}
    groups = []
    for version in GROUPS:
        if "/" in version:
            name, _, number = version.partition("/")
            one = {"groupVersion": version, "version": number}
            groups.append({"name": name, "versions": [one], "preferredVersion": one})
    return {"kind": "APIGroupList", "apiVersion": "v1", "groups": groups}


def _openapi(path: str) -> dict[str, Any]:
    """As much as tells kubectl that this server validates fields itself."""
    roots = {version: ("apis/" if "/" in version else "api/") + version for version in GROUPS}
    if path == "/openapi/v3":
        return {"paths": {root: {"serverRelativeURL": f"/openapi/v3/{root}"} for root in roots.values()}}
    root = path.removeprefix("/openapi/v3/")
    version = next(version for version, each in roots.items() if each == root)
    group, _, number = version.rpartition("/")
    paths = {}
    for name, kind in GROUPS[version].items():
        known = {"group": group, "version": number, "kind": kind}
        parameters = [{"name": each, "in": "query"} for each in ("fieldValidation", "dryRun")]
        patch = {"parameters": parameters, "x-kubernetes-group-version-kind": known}
        paths[f"/{root}/namespaces/{{namespace}}/{name}/{{name}}"] = {"patch": patch}
    return {"openapi": "3.0.0", "info": {"title": "loopback", "version": VERSION}, "paths": paths}


def _resources(version: str) -> dict[str, Any]:
    verbs = ["get", "list", "watch", "create", "update", "patch", "delete"]
    listed = [
        {"name": name, "singularName": kind.lower(), "namespaced": True, "kind": kind, "verbs": verbs}
        for name, kind in GROUPS[version].items()
    ]
    return {"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": version, "resources": listed}


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    cluster: Cluster

    def log_message(self, *arguments: Any) -> None:
        return

    def _any(self) -> None:
        cluster, split = self.server.cluster, urlsplit(self.path)  # type: ignore[attr-defined]
        query = {key: values[0] for key, values in parse_qs(split.query).items()}
        body = self._body()
        with cluster.lock:
            cluster.asked.append((self.command, split.path))
            if self.headers.get("Authorization") != f"Bearer {TOKEN}":
                status, answer = 401, _status(401, "Unauthorized", "no token")
            elif query.get("sendInitialEvents"):  # as a server that has no streaming lists; kubectl lists instead
                status, answer = 422, _status(422, "Invalid", "sendInitialEvents is forbidden")
            elif query.get("watch"):
                status, answer = 200, None
            else:
                status, answer = cluster.answer(self.command, split.path, query, body)
        if answer is None:
            self._watched(cluster, query)
            return
        data = answer.encode() if isinstance(answer, str) else json.dumps(answer).encode() if answer != {} else b""
        self._say(status, data)

    def _body(self) -> bytes:
        """The body, in pieces too: `kubectl create --raw` does not say how long it is."""
        if self.headers.get("Transfer-Encoding") != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length") or 0))
        whole = b""
        while size := int(self.rfile.readline().strip() or b"0", 16):
            whole += self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()
        return whole

    def _say(self, status: int, data: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def _watched(self, cluster: Cluster, query: dict[str, str]) -> None:
        """A Deployment each time that it changes, until the caller has seen enough."""
        name, seen = query["fieldSelector"].removeprefix("metadata.name="), query.get("resourceVersion", "")
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Connection", "close")
        self.end_headers()
        deadline = time.monotonic() + 20
        with contextlib.suppress(OSError):
            while time.monotonic() < deadline:
                with cluster.lock:
                    found = json.dumps({"type": "MODIFIED", "object": cluster.objects.get(("deployments", name))})
                    version = str(cluster.version)
                if version != seen:
                    self.wfile.write(found.encode() + b"\n")
                    self.wfile.flush()
                    seen = version
                time.sleep(0.02)
        self.close_connection = True

    do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = _any  # noqa: N815


@contextlib.contextmanager
def serving(answers: dict[str, list[dict[str, Any]]], folder: Path) -> Iterator[Cluster]:
    certificate, key = folder / "api.crt", folder / "api.key"
    if not certificate.exists():
        names = ["-subj", "/CN=loopback", "-addext", "subjectAltName=IP:127.0.0.1"]
        kind = ["-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"]
        line = ["openssl", "req", *kind, *names, "-keyout", str(key), "-out", str(certificate)]
        subprocess.run(line, capture_output=True, check=True)
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(certificate, key)
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
    server.daemon_threads = True
    server.socket = tls.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
    server.cluster = Cluster(answers, authority=str(certificate))  # type: ignore[attr-defined]
    server.cluster.url = f"https://127.0.0.1:{server.server_address[1]}"  # type: ignore[attr-defined]
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
    try:
        yield server.cluster  # type: ignore[attr-defined]
    finally:
        server.shutdown()
        server.server_close()
