"""Plain requests to Azure Resource Manager, by the identity and in the cloud that the settings name."""

from __future__ import annotations

import contextlib
import logging
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from functools import cached_property
from typing import TYPE_CHECKING, Any

from edgeml.azure import cloud as clouds
from edgeml.azure import identity
from edgeml.azure.explain import explained, is_missing
from edgeml.errors import EdgemlError

if TYPE_CHECKING:
    from azure.core.rest import HttpResponse

    from edgeml.settings import Settings

PAUSE = 5.0  # seconds between two looks at something that Azure works on, where it asks for no other
LONGEST = 60.0  # seconds of a pause that Azure asks for
_WORKING = ("Creating", "Updating", "Deleting", "Scaling", "Accepted", "InProgress", "Running")


class Arm:
    """One cloud, seen by one identity. Nothing is asked of Azure before something is asked of it."""

    def __init__(self, settings: Settings) -> None:
        quiet_sdk()
        self.settings = settings

    @cached_property
    def cloud(self) -> clouds.Cloud:
        return clouds.of(self.settings)

    @cached_property
    def credential(self) -> Any:
        return identity.credential(self.settings, self.cloud)

    @cached_property
    def _arm(self) -> Any:
        from azure.core.pipeline.policies import RetryPolicy
        from azure.mgmt.core import ARMPipelineClient
        from azure.mgmt.core.policies import ARMChallengeAuthenticationPolicy

        policy = ARMChallengeAuthenticationPolicy(self.credential, f"{self.cloud.arm}/.default")
        return ARMPipelineClient(base_url=self.cloud.arm, policies=[RetryPolicy(), policy])

    def sign_in_again(self) -> None:
        """Forget every token: one that was refused is not offered a second time."""
        for name in ("credential", "client", "_arm"):
            self.__dict__.pop(name, None)

    def ask(
        self,
        method: str,
        resource: str,
        version: str,
        body: Any = None,
        params: Mapping[str, str] | None = None,
        *,
        once: bool = False,
    ) -> HttpResponse:
        """One request to a resource by its ARM id; what it begins is not waited for.

        `once`: never sent a second time by itself, for what does not mean the same twice.

        Raises azure.core's HttpResponseError where Azure refuses.
        """
        from azure.core.rest import HttpRequest

        query = {"api-version": version, **(params or {})}
        request = HttpRequest(method, f"{self.cloud.arm}{resource}", params=query, json=body)
        response: HttpResponse = self._arm.send_request(request, **({"retry_total": 0} if once else {}))
        response.raise_for_status()
        return response

    def look(self, resource: str, version: str) -> Any:
        """The JSON of a resource; None where it is not there."""
        from azure.core.exceptions import HttpResponseError

        try:
            return self.ask("GET", resource, version).json()
        except HttpResponseError as error:
            if is_missing(error):
                return None
            raise

    def follow(self, url: str) -> HttpResponse:
        """One look at an operation, by the address that Azure gave for it."""
        from azure.core.rest import HttpRequest

        if not url.startswith(f"{self.cloud.arm}/"):  # the token is for nobody else
            raise EdgemlError("Azure names an operation outside of its own Resource Manager; check azure.cloud", 1)
        response: HttpResponse = self._arm.send_request(HttpRequest("GET", url))
        response.raise_for_status()
        return response

    @contextlib.contextmanager
    def explaining(self, doing: str) -> Iterator[None]:
        """Turn what Azure's clients raise into one sentence that begins with what was being done."""
        with explained(doing, self.settings):
            yield


def settled(look: Callable[[], Any], until: float) -> Any:
    """A resource once Azure has ended working on it, None where it is gone. `until` is on time.monotonic's clock.

    The state is the resource's own, so it does not matter who began the work: a run that was killed, or this one.
    """
    while True:
        found = look()
        state = str(((found or {}).get("properties") or {}).get("provisioningState"))
        if found is None or state not in _WORKING:
            return found
        if time.monotonic() > until:
            raise EdgemlError(f"Azure is still {state.lower()} {found.get('name')}; deploy again later", 1)
        time.sleep(PAUSE)


def pause_of(response: HttpResponse) -> float:
    """Seconds to wait before the next look at an operation."""
    try:
        return min(float(response.headers.get("Retry-After") or PAUSE), LONGEST)
    except ValueError:
        return PAUSE


def quiet_sdk() -> None:
    """Azure's loggers print warnings about themselves, and HTTP headers when asked for more."""
    logging.getLogger("azure").setLevel(logging.CRITICAL)  # what they tell of as errors is raised as well
    logging.getLogger("msrest").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", module=r"azure\..*|marshmallow.*|msrest.*")
