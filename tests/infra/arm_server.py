"""Azure Resource Manager on loopback: resource groups, deployments that take their time, resources, keys, images.

It refuses what the real one would refuse before it looks further: no token, a version that the type does not have, a
template without its schema. A deployment makes four resources each time it is asked about, unless it is `frozen`;
`faults` answer in the place of what was asked, once each.
"""

from __future__ import annotations

import json
import re
import ssl
import subprocess
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

from edgeml.infra import template as arm
from edgeml.infra.names import VERSIONS

TOKEN, AUDIENCE = "a-token", "https://management.adfs.local.azurestack.external/1234"
KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIBEe3ntO1FV9pz0hQQdbazeDofE36hyEb8F8h1gC90sU"


class ArmServer:
    """One stamp (or cloud) with its state; `url` is its address, `asked` every request as `METHOD path`."""

    def __init__(self, folder: Path, target: str) -> None:
        self.target = target
        self.groups: dict[str, dict[str, Any]] = {}
        self.resources: dict[str, dict[str, Any]] = {}
        self.deployments: dict[str, dict[str, Any]] = {}
        self.skus = ["20_04-lts", "22_04-lts"]
        self.blob = "https://rows.blob.local.azurestack.external/"
        self.account_key = ""
        self.prints = f"[stdout]\nedgeml: changed: nothing\nedgeml-host-key: {KEY}\n[stderr]\n"
        self.failing: dict[str, str] = {}
        self.frozen = False
        self.faults: list[tuple[str, str, int, dict[str, Any], dict[str, str]]] = []
        self.asked: list[str] = []
        self.bad: list[str] = []
        self.cert = certificate(folder)
        server = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *_: Any) -> None:
                pass

            def handle_one(self) -> None:
                size = int(self.headers.get("Content-Length") or 0)
                body = json.loads(self.rfile.read(size)) if size else None
                status, answer, headers = server.answer(self.command, self.path, dict(self.headers), body)
                data = b"" if answer is None else json.dumps(answer).encode()
                self.send_response(status)
                for name, value in {"Content-Type": "application/json", **headers}.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            do_GET = do_PUT = do_POST = do_DELETE = handle_one  # noqa: N815

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self.cert, folder / "key.pem")
        self.http.socket = context.wrap_socket(self.http.socket, server_side=True)
        self.url = f"https://localhost:{self.http.server_address[1]}"
        threading.Thread(target=self.http.serve_forever, daemon=True, kwargs={"poll_interval": 0.05}).start()

    def close(self) -> None:
        self.http.shutdown()
        self.http.server_close()

    def writes(self) -> list[str]:
        return [one for one in self.asked if not one.startswith("GET ")]

    def answer(self, method: str, url: str, headers: dict[str, str], body: Any) -> tuple[int, Any, dict[str, str]]:
        parts = urlsplit(url)
        path, version = unquote(parts.path), parse_qs(parts.query).get("api-version", [""])[0]
        if path == "/metadata/endpoints":
            known = {"loginEndpoint": "https://adfs.local.azurestack.external/adfs/", "audiences": [AUDIENCE]}
            return 200, {"name": "Loop", "resourceManager": self.url, "authentication": known}, {}
        self.asked.append(f"{method} {path}")
        if headers.get("Authorization") != f"Bearer {TOKEN}":
            return 401, _error("InvalidAuthenticationToken", "The access token is invalid."), {}
        for fault in self.faults:
            if fault[0] == method and re.search(fault[1], path, re.IGNORECASE):
                self.faults.remove(fault)
                return fault[2], fault[3], fault[4]
        group = re.fullmatch(r"/subscriptions/[^/]+/resourcegroups/([^/]+)", path, re.IGNORECASE)
        if group:
            return self._group(method, group[1], version, body)
        if "/providers/Microsoft.Resources/deployments/" in path:
            return self._deployment(method, path, version, body)
        if path.endswith("/skus"):
            return 200, [{"name": one} for one in self.skus], {}
        return self._resource(method, path, version)

    def _group(self, method: str, name: str, version: str, body: Any) -> tuple[int, Any, dict[str, str]]:
        if version != "2016-06-01":
            return 400, _error("InvalidApiVersionParameter", version), {}
        if method == "PUT":
            self.groups[name.lower()] = {"name": name, **body}
            return 201, self.groups[name.lower()], {}
        found = self.groups.get(name.lower())
        return (200, found, {}) if found else (404, _error("ResourceGroupNotFound", name), {})

    def _deployment(self, method: str, path: str, version: str, body: Any) -> tuple[int, Any, dict[str, str]]:
        if version != "2019-10-01":
            return 400, _error("InvalidApiVersionParameter", version), {}
        name = path.partition("/deployments/")[2].partition("/")[0]
        if method == "PUT":
            properties = body["properties"]
            values = {key: one["value"] for key, one in properties["parameters"].items()}
            assert set(properties) == {"mode", "template", "parameters"} and properties["mode"] == "Incremental"
            place = arm.Place(*re.findall(r"/subscriptions/([^/]+)/resourcegroups/([^/]+)", path)[0], "local", "tenant")
            made = arm.evaluate(properties["template"], values, place)
            self.deployments[name] = {"todo": list(made.resources), "done": [], "state": "Running", "error": None}
            self.deployments[name]["outputs"] = made.outputs
            return 201, self._document(name), {}
        if name not in self.deployments:
            return 404, _error("DeploymentNotFound", name), {}
        if path.endswith("/operations"):
            return 200, {"value": self.deployments[name]["done"]}, {}
        self._advance(name)
        return 200, self._document(name), {"Retry-After": "0"}

    def _advance(self, name: str) -> None:
        one = self.deployments[name]
        if one["state"] != "Running" or self.frozen:
            return
        for resource in [one["todo"].pop(0) for _ in range(min(4, len(one["todo"])))]:
            self._step(one, resource)
            if one["state"] == "Failed":
                return
        if not one["todo"]:
            one["state"] = "Succeeded"

    def _step(self, one: dict[str, Any], resource: arm.Resource) -> None:
        operation = {
            "provisioningState": "Succeeded",
            "targetResource": {"resourceType": resource.type, "resourceName": resource.name},
        }
        if resource.type in self.failing:
            one["state"] = operation["provisioningState"] = "Failed"
            operation["statusMessage"] = _error("Conflict", self.failing[resource.type])
        else:
            self.make(resource)
        one["done"].append({"properties": operation})

    def make(self, resource: arm.Resource) -> None:
        body = json.loads(json.dumps(resource.body, default=lambda _: "known-later"))
        document = {"id": resource.id, "name": resource.name, "type": resource.type, **body}
        document.setdefault("properties", {})["provisioningState"] = "Succeeded"
        if document.get("location"):
            document["location"] = "Local"
        document["properties"].pop("protectedSettings", None)
        if resource.type == "Microsoft.Compute/virtualMachines/extensions":
            document["properties"]["instanceView"] = {"statuses": [{"message": f"Enable succeeded: \n{self.prints}"}]}
        if resource.type == "Microsoft.Compute/virtualMachines":
            disk = body["properties"]["storageProfile"]["osDisk"]["name"]
            base = resource.id.partition("/providers/")[0]
            self.resources[f"{base}/providers/Microsoft.Compute/disks/{disk}".lower()] = {"name": disk}
        self.resources[resource.id.lower()] = document

    def _document(self, name: str) -> dict[str, Any]:
        one = self.deployments[name]
        given = {
            "address": "198.51.100.10",
            "accountUrl": self.blob,
            "registryServer": "edgemlacr.example",
            "trainingClientId": "44444444-4444-4444-4444-444444444444",
            "deployClientId": "55555555-5555-5555-5555-555555555555",
        }
        outputs = {
            key: {"type": "String", "value": given[key] if isinstance(value, arm.Unknown) else value}
            for key, value in one["outputs"].items()
        }
        properties = {"provisioningState": one["state"], "outputs": outputs if one["state"] == "Succeeded" else None}
        return {"name": name, "properties": properties}

    def _resource(self, method: str, path: str, version: str) -> tuple[int, Any, dict[str, str]]:
        if path.endswith("/listKeys"):
            return 200, {"keys": [{"keyName": "key1", "value": self.account_key}]}, {}
        parts = path.rpartition("/providers/")[2].split("/")
        kind = "/".join([parts[0], *parts[1::2]])
        if VERSIONS[self.target].get(kind) != version:
            self.bad.append(f"{method} {path} {version}")
            return 400, _error("NoRegisteredProviderFound", f"no {kind} of {version}"), {}
        found = self.resources.get(path.lower())
        if method == "DELETE":
            for one in [one for one in self.resources if one == path.lower() or one.startswith(f"{path.lower()}/")]:
                del self.resources[one]
            return (202 if found else 204), None, {}
        return (200, found, {}) if found else (404, _error("ResourceNotFound", path), {})


def _error(code: str, message: str) -> dict[str, Any]:
    return {"error": {"code": code, "message": message}}


def certificate(folder: Path) -> Path:
    """A certificate for localhost and its key, beside each other in `folder`."""
    cert = folder / "cert.pem"
    names = "subjectAltName=DNS:localhost,IP:127.0.0.1"
    command = [
        "openssl",
        "req",
        "-x509",
        "-newkey",
        "ec",
        "-pkeyopt",
        "ec_paramgen_curve:P-256",
        "-nodes",
        "-days",
        "2",
    ]
    command += ["-subj", "/CN=localhost", "-addext", names, "-keyout", str(folder / "key.pem"), "-out", str(cert)]
    subprocess.run(command, check=True, capture_output=True)
    return cert
