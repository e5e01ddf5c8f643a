"""App Service of the loopback Azure: web apps for containers, their slots, and the hosts that callers reach.

Bodies are held to the published description of Microsoft.Web, `stable/2023-12-01/WebApps.json` (SiteConfigResource,
CsmSlotEntity), as far as edgeml may use it; what answers at a host is the scoring server of its image.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from tests.azure import loop
from tests.azure.online import forwarded
from tests.azure.server import Answer, Request, refusal

HOST = f"azurewebsites.{loop.SUFFIX}"
PROVIDER = f"/subscriptions/{loop.SUBSCRIPTION}/resourceGroups/{loop.GROUP}/providers/Microsoft.Web/sites/"


@dataclass
class Place:
    """The app itself, or a slot: an image, whether it runs, and how many requests it is still starting for."""

    image: str = ""
    running: bool = True
    starting: int = 0


@dataclass
class App:
    kind: str = "app,linux,container"
    tags: dict[str, str] = field(default_factory=dict)
    places: dict[str, Place] = field(default_factory=dict)  # "" is production


@dataclass
class Web:
    apps: dict[str, App] = field(default_factory=dict)
    servers: dict[str, str] = field(default_factory=dict)
    spoiled: set[str] = field(default_factory=set)
    slow: int = 0  # looks until a swap has ended, and requests until a container has started
    swaps: int = 0
    swapping: tuple[str, str, int] = ("", "", 0)  # app, slot, looks left
    denied: str = ""  # an action that this identity may not do

    def make(self, name: str, slot: str = "staging") -> App:
        self.apps[name] = App(tags={"team": "ward"}, places={"": Place("nginx:1"), slot: Place("nginx:1")})
        return self.apps[name]

    def arm(self, request: Request, wrong: list[str]) -> Answer:
        body = request.json()
        if error := _error(request, body):
            wrong.append(f"{request.method} {request.path}: {error}")
            return refusal(400, "BadRequest", error)
        name, *rest = request.path[len(PROVIDER) :].split("/")
        app = self.apps.get(name)
        slot, rest = (rest[1], rest[2:]) if rest[:1] == ["slots"] else ("", rest)
        if app is None or slot not in app.places:
            return refusal(404, "ResourceNotFound", f"The Resource 'Microsoft.Web/sites/{name}' was not found.")
        what = "/".join(rest)
        if self.denied and self.denied == what and request.method != "GET":
            return refusal(403, "AuthorizationFailed", f"does not have authorization to perform action '{what}'")
        place = app.places[slot]
        if what.startswith("operationresults"):
            return self._swapped()
        if request.method != "GET" and self.swapping[2]:
            self._swapped()
            return refusal(409, "Conflict", "Cannot modify this site because another operation is in progress.")
        if what == "slotsswap":
            return self._swap(name, slot)
        if what in ("stop", "start"):
            place.running, place.starting = what == "start", self.slow
        elif what == "config/web" and request.method == "PATCH":
            place.image, place.starting = body["properties"]["linuxFxVersion"].removeprefix("DOCKER|"), self.slow
        elif what == "providers/Microsoft.Resources/tags/default":
            app.tags |= body["properties"]["tags"]
        if what == "config/web":
            return Answer(200, {"properties": {"linuxFxVersion": f"DOCKER|{place.image}"}})
        host = f"{name}-{slot}.{HOST}" if slot else f"{name}.{HOST}"
        properties = {"defaultHostName": host, "state": "Running" if place.running else "Stopped"}
        return Answer(200, {"name": name, "kind": app.kind, "tags": app.tags, "properties": properties})

    def _swap(self, name: str, slot: str) -> Answer:
        self.swaps += 1
        self.swapping = (name, slot, self.slow)
        if not self.slow:
            self._now()
            return Answer(200)
        return self._accepted()

    def _accepted(self) -> Answer:
        name, slot, _ = self.swapping
        url = f"{loop.ARM}{PROVIDER}{name}/slots/{slot}/operationresults/1?api-version=2023-12-01"
        return Answer(202, None, {"Location": url, "Retry-After": "0"})

    def _swapped(self) -> Answer:
        name, slot, left = self.swapping
        self.swapping = (name, slot, max(0, left - 1))
        if left == 1:
            self._now()
        return Answer(200) if left <= 1 else self._accepted()

    def _now(self) -> None:
        name, slot, _ = self.swapping
        places = self.apps[name].places
        places[""], places[slot] = places[slot], places[""]

    def call(self, request: Request) -> Answer:
        """What callers get at a host of an app or a slot."""
        label = request.host.partition(".")[0]
        for name, app in self.apps.items():
            for slot, place in app.places.items():
                if label == (f"{name}-{slot}" if slot else name):
                    if not place.running:
                        return Answer(403, {"message": "Web App Stopped"})
                    if place.starting:
                        place.starting -= 1
                        return Answer(503, {"message": "Application Error"})
                    wrong = place.image in self.spoiled
                    return forwarded(
                        self.servers.get(place.image, ""), request.method, request.path, request.body, wrong=wrong
                    )
        return refusal(404, "NotFound", request.host)


def _error(request: Request, body: Any) -> str:
    """What the published description does not allow."""
    what = request.path.rpartition("/sites/")[2].partition("/")[2]
    tags = what.endswith("providers/Microsoft.Resources/tags/default")
    if request.query["api-version"] != ("2021-04-01" if tags else "2023-12-01"):
        return "another api-version"
    if request.method == "GET" or what.endswith(("/stop", "/start")):
        return "" if body is None else "takes no body"
    if tags:
        fits = set(body) == {"operation", "properties"} and body["operation"] == "Merge"
        return "" if fits and all(isinstance(v, str) for v in body["properties"]["tags"].values()) else "no TagsPatch"
    if what.endswith("/config/web"):
        fits = set(body) == {"properties"} and set(body["properties"]) == {"linuxFxVersion"}
        return "" if fits and request.method == "PATCH" else "no SiteConfigResource"
    if what.endswith("/slotsswap"):
        fits = set(body) == {"targetSlot", "preserveVnet"} and body["preserveVnet"] in (True, False)
        return "" if fits and request.method == "POST" else "no CsmSlotEntity"
    return "not a call that the loopback cloud knows"
