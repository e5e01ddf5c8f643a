"""A web app for containers of App Service, and its deployment slot, by Azure Resource Manager.

Shapes are those of Microsoft.Web's published description, version 2023-12-01 (`WebApps.json`).
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Mapping
from typing import Any

from edgeml.azure.arm import Arm, pause_of
from edgeml.azure.explain import code_of, status_of
from edgeml.azure.patience import patiently
from edgeml.errors import EdgemlError

VERSION, TAGS_VERSION = "2023-12-01", "2021-04-01"
SECONDS = 2700.0  # for a whole rollout's calls
_ID = re.compile(r"/subscriptions/[^/]+/resourceGroups/[^/]+/providers/Microsoft\.Web/sites/(?P<name>[^/]+)", re.I)
_KIND = "DOCKER|"

Say = Callable[[str], None]


class WebApp:
    """One app and one slot of it. `writes` counts what was changed through this object."""

    def __init__(self, arm: Arm, resource_id: str, slot: str, say: Say) -> None:
        match = _ID.fullmatch(resource_id)
        if match is None:
            raise EdgemlError(f"'{resource_id}' is no ARM id of a web app: .../providers/Microsoft.Web/sites/NAME")
        self.name, self.slot, self.writes = match["name"], slot, 0
        self._arm, self._id, self._staging = arm, resource_id, f"{resource_id}/slots/{slot}"
        self._say, self._until = say, time.monotonic() + SECONDS

    def read(self) -> dict[str, Any]:
        """The app. Raises EdgemlError where there is none that runs containers."""
        found = self._look(self._id)
        if found is None:
            raise EdgemlError(f"there is no web app {self.name}; make it, as docs/deployment.md says", 1)
        if "linux" not in str(found.get("kind")).split(","):
            kind = found.get("kind")
            raise EdgemlError(f"the web app {self.name} is of kind {kind} and runs no Linux container; make another", 1)
        return dict(found)

    def staging(self) -> dict[str, Any]:
        """The slot. Raises EdgemlError where there is none."""
        found = self._look(self._staging)
        if found is None:
            raise EdgemlError(
                f"the web app {self.name} has no slot {self.slot}; make it: "
                f"az webapp deployment slot create --name {self.name} --slot {self.slot} "
                f"--configuration-source {self.name}",
                1,
            )
        return dict(found)

    def image(self) -> str:
        """The image that callers get; empty where it is none."""
        return self._image(self._id)

    def staged(self) -> str:
        """The image in the slot; empty where it is none."""
        return self._image(self._staging)

    def stage(self, image: str) -> None:
        """Have the slot run an image. It is stopped before, so that nothing else can answer there after."""
        if self.staged() != image:
            self._asked("POST", f"{self._staging}/stop")
            self._asked("PATCH", f"{self._staging}/config/web", {"properties": {"linuxFxVersion": _KIND + image}})
        elif self.staging()["properties"].get("state") == "Running":
            return
        self._asked("POST", f"{self._staging}/start")

    def lead(self, image: str) -> None:
        """Swap app and slot, so that callers get the slot's image. Never twice: a second swap would undo the first."""

        def once() -> None:
            if self._image_now(self._id) == image:
                return
            self.writes += 1
            body = {"targetSlot": "production", "preserveVnet": True}
            self._finished(self._arm.ask("POST", f"{self._staging}/slotsswap", VERSION, body, once=True))

        patiently(self._arm, f"swapping {self.name} and its slot {self.slot}", once, self._until, self._say)
        if self.image() != image:
            raise EdgemlError(
                f"Azure says that {self.name} is swapped, but its image is another; look in the portal", 1
            )

    def tag(self, tags: Mapping[str, str]) -> None:
        """Set tags of the app, beside those that it has; this does not restart it."""
        path, body = f"{self._id}/providers/Microsoft.Resources/tags/default", {"tags": dict(tags)}
        self._asked("PATCH", path, {"operation": "Merge", "properties": body}, TAGS_VERSION)

    def _finished(self, response: Any) -> None:
        """Wait for what a response began: 202 and an address that says 202 until it is done."""
        while response.status_code == 202 and response.headers.get("Location"):
            if time.monotonic() > self._until:
                raise EdgemlError(f"Azure still swaps {self.name}; deploy again later", 1)
            time.sleep(pause_of(response))
            response = self._arm.follow(str(response.headers["Location"]))

    def _image(self, resource: str) -> str:
        what = f"asking for the image of {resource.partition('/sites/')[2]}"
        return patiently(self._arm, what, lambda: self._image_now(resource), self._until, self._say)

    def _image_now(self, resource: str) -> str:
        found = self._arm.ask("GET", f"{resource}/config/web", VERSION).json()["properties"].get("linuxFxVersion")
        return str(found or "").removeprefix(_KIND)

    def _look(self, resource: str) -> Any:
        from azure.core.exceptions import HttpResponseError

        def once() -> Any:
            try:
                return self._arm.ask("GET", resource, VERSION).json()
            except HttpResponseError as error:
                if status_of(error) == 404 and code_of(error) in ("ResourceNotFound", "NotFound"):
                    return None
                raise

        return patiently(self._arm, f"asking for {resource.partition('/sites/')[2]}", once, self._until, self._say)

    def _asked(self, method: str, resource: str, body: Any = None, version: str = VERSION) -> Any:
        self.writes += 1
        what = f"{method} {resource.partition('/sites/')[2]}"
        ask = lambda: self._arm.ask(method, resource, version, body)  # noqa: E731
        return patiently(self._arm, what, ask, self._until, self._say)
