"""Online endpoints of the workspace and their deployments, by the REST interface that the SDK itself uses.

Not by the SDK's operations: they write an endpoint back as they understood it, whatever else Azure knew of it, and
their `invoke` (1.35.2) keeps the deployment that it was once given in a header of all later requests of the process.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from edgeml.azure.arm import settled
from edgeml.azure.patience import patiently
from edgeml.azure.workspace import API_VERSION
from edgeml.errors import EdgemlError

if TYPE_CHECKING:
    from edgeml.azure.workspace import Workspace

SECONDS = 2700.0  # for a whole rollout's calls: a machine is allocated, an image pulled; the job of a workflow has 3600
_FRESH = 300.0  # seconds for which a token is used before it is asked for again
# What a client may write of an endpoint's properties; the rest is the service's own.
_WRITABLE = ("authMode", "compute", "description", "mirrorTraffic", "properties", "publicNetworkAccess", "traffic")

Say = Callable[[str], None]


class Endpoint:
    """One endpoint. `writes` counts what was changed through this object."""

    def __init__(self, workspace: Workspace, name: str, say: Say) -> None:
        self.workspace, self.name, self.writes = workspace, name, 0
        self._known, self._known_until = "", 0.0
        self._path, self._say, self._until = f"{workspace.id}/onlineEndpoints/{name}", say, time.monotonic() + SECONDS

    def read(self) -> dict[str, Any]:
        """The endpoint as Azure has it, once nothing works on it. Raises EdgemlError where there is none."""
        found = settled(lambda: self._look(self._path), self._until)
        if found is None:
            raise EdgemlError(
                f"the workspace has no online endpoint {self.name}; make it: "
                f"az ml online-endpoint create --name {self.name} --auth-mode aad_token",
                1,
            )
        return dict(found)

    def deployments(self) -> dict[str, dict[str, Any]]:
        """The endpoint's deployments by name, as they are now."""
        found: dict[str, dict[str, Any]] = {}
        page: Any = self._asked("GET", f"{self._path}/deployments").json()
        while True:
            found |= {str(each["name"]).rpartition("/")[2]: each for each in page.get("value") or []}
            if not page.get("nextLink"):
                return found
            page = self._followed(str(page["nextLink"]), "asking for deployments")

    def deployment(self, name: str) -> dict[str, Any] | None:
        """A deployment once nothing works on it; None where there is none."""
        found = settled(lambda: self._look(f"{self._path}/deployments/{name}"), self._until)
        return None if found is None else dict(found)

    def write(self, changed: Mapping[str, Any], tags: Mapping[str, str]) -> None:
        """Change properties and tags of the endpoint, and leave all else as it is. Raises EdgemlError."""
        there = self.read()
        properties = {key: value for key, value in there["properties"].items() if key in _WRITABLE and value}
        body: dict[str, Any] = {key: there[key] for key in ("location", "kind", "sku") if there.get(key)}
        identity = there.get("identity") or {}
        if identity:
            assigned: dict[str, Any] = {key: {} for key in identity.get("userAssignedIdentities") or {}}
            body["identity"] = {"type": identity["type"]} | ({"userAssignedIdentities": assigned} if assigned else {})
        body |= {"tags": {**(there.get("tags") or {}), **tags}, "properties": {**properties, **changed}}
        self._put(self._path, body, f"the endpoint {self.name}")

    def deploy(self, name: str, body: Mapping[str, Any]) -> None:
        """Make or change a deployment, and wait until it is there. Raises EdgemlError."""
        self._put(f"{self._path}/deployments/{name}", body, f"the deployment {name}")

    def environment(self, name: str, version: str, properties: Mapping[str, Any]) -> str:
        """The id of an environment's version, which is made where it is not there; `version` says its content."""
        path = f"{self.workspace.id}/environments/{name}/versions/{version}"
        there = self._look(path)
        if there is None:
            self.writes += 1
            self._asked("PUT", path, {"properties": dict(properties)})
        elif there["properties"].get("image") != properties["image"]:
            raise EdgemlError(f"the environment {name}:{version} of the workspace has another image; archive it", 1)
        return path

    def image_of(self, deployment: Mapping[str, Any]) -> str:
        """The image that a deployment runs: that of its environment, whatever its tags say; empty where it has none."""
        path = str(deployment["properties"].get("environmentId") or "")
        found = self._look(path) if path.lower().startswith(f"{self.workspace.id}/".lower()) else None
        return str(((found or {}).get("properties") or {}).get("image") or "")

    def remove(self, name: str) -> None:
        """Delete a deployment that has no traffic, and wait until it is gone."""
        if self.deployment(name) is None:
            return
        self.writes += 1
        self._asked("DELETE", f"{self._path}/deployments/{name}")
        left = self.deployment(name)
        if left is not None:
            raise EdgemlError(f"the deployment {name} cannot be deleted ({_state(left)}); delete it in the studio", 1)

    def authorization(self, mode: str) -> str:
        """What a caller of the endpoint has to say of himself. Raises EdgemlError for a mode that is not served.

        Asked for again after a while: a rollout may last longer than a token.
        """
        if time.monotonic() > self._known_until:
            self._known, self._known_until = self._authorization(mode), time.monotonic() + _FRESH
        return self._known

    def _authorization(self, mode: str) -> str:
        if mode == "AADToken":
            scope = f"{self.workspace.cloud.ml}/.default"
            token = patiently(
                self.workspace, "signing in", lambda: self.workspace.credential.get_token(scope).token, self._until
            )
            return f"Bearer {token}"
        if mode == "Key":
            return f"Bearer {self._asked('POST', f'{self._path}/listKeys').json()['primaryKey']}"
        raise EdgemlError(f"the endpoint {self.name} has auth mode {mode}; make it with aad_token, or else with key", 1)

    def _put(self, path: str, body: Mapping[str, Any], what: str) -> None:
        self.writes += 1
        response = self._asked("PUT", path, dict(body))
        found = settled(lambda: self._look(path), self._until)
        if found is None or _state(found) != "Succeeded":
            reason = self._reason(str(response.headers.get("Azure-AsyncOperation") or ""))
            raise EdgemlError(f"{what} ended in {_state(found) if found else 'nothing'}{reason}", 1)

    def _reason(self, operation: str) -> str:
        """Why an operation failed: only the operation knows, the resource does not. Empty where it is not told.

        It lies at the subscription, where an identity of this workspace may have no right: that it failed is known.
        """
        if not operation:
            return ""
        try:
            said = self._followed(operation, "asking why it failed")
        except EdgemlError as error:
            return f" ({error})"
        message = " ".join(str((said.get("error") or {}).get("message") or "").split())[:500]
        return f" ({message})" if message else ""

    def _followed(self, url: str, doing: str) -> Any:
        return patiently(self.workspace, doing, lambda: self.workspace.follow(url).json(), self._until, self._say)

    def _look(self, path: str) -> Any:
        what = f"asking for {path.rpartition('/')[2]}"
        return patiently(self.workspace, what, lambda: self.workspace.look(path, API_VERSION), self._until, self._say)

    def _asked(self, method: str, path: str, body: Any = None) -> Any:
        verb = {"PUT": "writing", "DELETE": "deleting"}.get(method, "asking for")
        what = f"{verb} {path.removeprefix(f'{self.workspace.id}/')}"
        return patiently(
            self.workspace, what, lambda: self.workspace.ask(method, path, API_VERSION, body), self._until, self._say
        )


def _state(found: Mapping[str, Any]) -> str:
    return str(found["properties"].get("provisioningState"))
