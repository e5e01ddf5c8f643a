"""Online endpoints of the loopback Azure: their resources, and the address that callers score at.

Strict where the service documents that it is: a deployment with traffic cannot be deleted, traffic goes to deployments
that are there and sums to 100 or 0, keys are asked for by name. The scoring routes of an environment are obeyed, and
what answers is whatever `servers` has for its image: the tests put real scoring servers there.
"""

from __future__ import annotations

import http.client
import json
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from tests.azure import loop
from tests.azure.server import Answer, Request, refusal

HOST = f"inference.{loop.SUFFIX}"


@dataclass
class Online:
    """Endpoints by name, deployments by endpoint and name, and what is to go wrong."""

    endpoints: dict[str, dict[str, Any]] = field(default_factory=dict)
    deployments: dict[tuple[str, str], dict[str, Any]] = field(default_factory=dict)
    servers: dict[str, str] = field(default_factory=dict)  # HOST:PORT of what an image is when it runs
    failing: dict[str, str] = field(default_factory=dict)  # images whose provisioning fails, and why
    slow: int = 0  # looks until a long-running operation ends
    working: dict[str, tuple[int, str]] = field(default_factory=dict)  # path: looks left, and the state after them
    reasons: dict[str, str] = field(default_factory=dict)  # why an operation failed
    scored: list[tuple[str, str]] = field(default_factory=list)  # deployment that a caller named, and that was asked
    spoiled: set[str] = field(default_factory=set)  # images whose numbers are wrong

    def make(self, name: str, mode: str = "AADToken", **more: Any) -> None:
        """An endpoint as people make it, with things of its own that must stay."""
        self.endpoints[name] = {
            "tags": {"team": "ward"},
            "identity": {"type": "UserAssigned", "userAssignedIdentities": {"/id/puller": {"clientId": "x"}}},
            "properties": {
                "authMode": mode,
                "description": "the ward's",
                "publicNetworkAccess": "Enabled",
                "traffic": {},
                "mirrorTraffic": {},
                "provisioningState": "Succeeded",
                "scoringUri": f"https://{name}.{HOST}/score",
                "swaggerUri": f"https://{name}.{HOST}/swagger.json",
                **more,
            },
        }

    def arm(self, request: Request, parts: list[str], body: Any, environments: Callable[[str], Any]) -> Answer:
        name = parts[1] if len(parts) > 1 else ""
        if len(parts) > 2 and parts[2] == "deployments" and name in self.endpoints:
            return self._deployment(request, name, parts[3] if len(parts) > 3 else "", body, environments)
        if request.method == "PUT":
            return self._written(name, body)
        if name not in self.endpoints:
            return refusal(404, "UserError", f"Endpoint not found with name: {name}")
        if parts[-1] == "listKeys":
            if self.endpoints[name]["properties"]["authMode"] != "Key":
                return refusal(400, "UserError", "Keys are for endpoints of auth mode Key.")
            return Answer(200, {"primaryKey": f"key-of-{name}", "secondaryKey": "other"})
        return Answer(200, self._shown(f"onlineEndpoints/{name}", self.endpoints[name]))

    def _written(self, name: str, body: dict[str, Any]) -> Answer:
        there = self.endpoints.get(name)
        if there is None:
            return refusal(400, "UserError", "the loopback makes endpoints by `make` alone")
        if there["properties"]["provisioningState"] != "Succeeded":
            return refusal(409, "Conflict", "Already running method.")
        traffic = body["properties"].get("traffic") or {}
        known = {d for e, d in self.deployments if e == name}
        if sum(traffic.values()) not in (0, 100) or not set(traffic) <= known:
            return refusal(400, "BadArgument", f"Traffic {traffic} must sum to 100 over existing deployments.")
        if any(self._state_of(name, d) != "Succeeded" for d, share in traffic.items() if share):
            return refusal(400, "BadArgument", "Traffic cannot be led to a deployment that is not there.")
        kept = {k: there["properties"][k] for k in ("scoringUri", "swaggerUri")}
        self.endpoints[name] = body | {"properties": body["properties"] | kept}
        self._begin(f"onlineEndpoints/{name}", self.endpoints[name], "Updating", "Succeeded")
        return self._accepted(200, f"onlineEndpoints/{name}", self.endpoints[name], "")

    def _deployment(
        self, request: Request, endpoint: str, name: str, body: Any, environments: Callable[[str], Any]
    ) -> Answer:
        if not name:
            found = [self._resource(endpoint, n) for e, n in list(self.deployments) if e == endpoint]
            at = int(request.query.get("$skip", 0))  # one a page
            more = f"{loop.ARM}{request.path}?api-version=2024-10-01&$skip={at + 1}"
            return Answer(200, {"value": found[at : at + 1], "nextLink": more if found[at + 1 :] else None})
        path, key = f"onlineEndpoints/{endpoint}/deployments/{name}", (endpoint, name)
        if request.method == "PUT":
            environment = environments(body["properties"]["environmentId"])
            if environment is None:
                return refusal(400, "BadArgument", "The environment was not found.")
            if key in self.deployments and self._state_of(endpoint, name) in ("Creating", "Updating"):
                return refusal(409, "Conflict", "Already running method.")
            why = self.failing.get(environment["image"], "")
            self.deployments[key] = body | {"environment": environment}
            self._begin(path, self.deployments[key], "Creating", "Failed" if why else "Succeeded")
            return self._accepted(201, path, self.deployments[key], why)
        if key not in self.deployments:
            return refusal(404, "UserError", f"Deployment not found: {name}")
        if request.method == "DELETE":
            if (self.endpoints[endpoint]["properties"].get("traffic") or {}).get(name):
                return refusal(409, "Conflict", "A deployment with traffic cannot be deleted.")
            if self.slow:
                self._begin(path, self.deployments[key], "Deleting", "")
            else:
                del self.deployments[key]
            return Answer(202, None, {"Location": self._operation("")})
        return Answer(200, self._resource(endpoint, name)) if self._look(path, key) else refusal(404, "UserError", name)

    def score(self, request: Request, *, by_token: bool) -> Answer:
        """A caller's request: by the header, else by the traffic; the container sees its own path."""
        name = request.host.partition(".")[0]
        endpoint = self.endpoints.get(name)
        if endpoint is None:
            return refusal(404, "NotFound", request.host)
        by_key = request.headers.get("authorization") == f"Bearer key-of-{name}"
        if not (by_token if endpoint["properties"]["authMode"] == "AADToken" else by_key):
            return Answer(401, {"message": "key_auth_access_denied"})
        named = request.headers.get("azureml-model-deployment", "")
        led = {d: share for d, share in (endpoint["properties"].get("traffic") or {}).items() if share}
        chosen = named or max(led, key=lambda d: led[d], default="")
        self.scored.append((named, chosen))
        deployment = self.deployments.get((name, chosen))
        if deployment is None or self._state_of(name, chosen) != "Succeeded" or request.path != "/score":
            return Answer(404, {"message": "no healthy upstream"})
        environment = deployment["environment"]
        route = environment["inferenceConfig"]["scoringRoute"]
        image = environment["image"]
        return forwarded(
            self.servers.get(image, ""), "POST", str(route["path"]), request.body, wrong=image in self.spoiled
        )

    def _begin(self, path: str, resource: dict[str, Any], state: str, after: str) -> None:
        if self.slow:
            resource["properties"] = resource["properties"] | {"provisioningState": state}
            self.working[path] = (self.slow, after)
        else:
            resource["properties"] = resource["properties"] | {"provisioningState": after}

    def _look(self, path: str, key: tuple[str, str]) -> bool:
        """One look nearer to the end of what works on a resource; whether it is still there."""
        resource = self.deployments[key] if key[1] else self.endpoints[key[0]]
        left, after = self.working.get(path, (0, ""))
        if path in self.working:
            self.working[path] = (left - 1, after)
            if left <= 1:
                del self.working[path]
                if not after:
                    del self.deployments[key]
                    return False
                resource["properties"] = resource["properties"] | {"provisioningState": after}
        return True

    def _shown(self, path: str, resource: dict[str, Any]) -> dict[str, Any]:
        self._look(path, (path.partition("/")[2], ""))
        return self._envelope(path, resource)

    def _resource(self, endpoint: str, name: str) -> dict[str, Any]:
        return self._envelope(f"onlineEndpoints/{endpoint}/deployments/{name}", self.deployments[endpoint, name])

    def _envelope(self, path: str, resource: dict[str, Any]) -> dict[str, Any]:
        kind = "/".join(path.split("/")[::2])
        inner = {k: v for k, v in resource.items() if k != "environment"}
        return {
            "id": f"{loop.WORKSPACE_ID}/{path}",
            "name": path.rpartition("/")[2],
            "type": f"Microsoft.MachineLearningServices/workspaces/{kind}",
            "location": loop.LOCATION,
            "kind": "Managed" if "/deployments/" in path else None,
            **inner,
        }

    def _state_of(self, endpoint: str, name: str) -> str:
        return str(self.deployments[endpoint, name]["properties"]["provisioningState"])

    def _accepted(self, status: int, path: str, resource: dict[str, Any], why: str) -> Answer:
        url = self._operation(why)
        return Answer(status, self._envelope(path, resource), {"Azure-AsyncOperation": url, "Retry-After": "0"})

    def _operation(self, why: str) -> str:
        operation = uuid.uuid4().hex
        self.reasons[operation] = why
        provider = f"subscriptions/{loop.SUBSCRIPTION}/providers/Microsoft.MachineLearningServices"
        return f"{loop.ARM}/{provider}/locations/{loop.LOCATION}/mfeOperationsStatus/{operation}?api-version=2024-10-01"

    def operation(self, name: str) -> Answer:
        why = self.reasons[name]
        if why:
            return Answer(200, {"status": "Failed", "error": {"code": "UserError", "message": why}})
        return Answer(200, {"status": "Succeeded"})


def forwarded(where: str, method: str, path: str, body: bytes, *, wrong: bool = False) -> Answer:
    """What a container answers; 502 where none runs. `wrong`: with every number another one."""
    if not where:
        return Answer(502, {"message": "upstream connect error"})
    connection = http.client.HTTPConnection(where, timeout=30)
    try:
        connection.request(method, path, body or None, {"Content-Type": "application/json"})
        response = connection.getresponse()
        answer = json.loads(response.read() or b"null", **({"parse_float": lambda n: float(n) + 0.01} if wrong else {}))
        return Answer(response.status, answer)
    except OSError:
        return Answer(502, {"message": "upstream connect error"})
    finally:
        connection.close()
