"""The Azure ML workspace: the SDK's client and, for what it cannot say, plain requests to Azure Resource Manager."""

from __future__ import annotations

import contextlib
import io
import logging
import os
import warnings
from collections.abc import Iterator
from functools import cached_property
from typing import TYPE_CHECKING, Any

from edgeml.azure import cloud as clouds
from edgeml.azure import identity
from edgeml.azure.explain import explained, is_missing
from edgeml.errors import EdgemlError

if TYPE_CHECKING:
    from azure.ai.ml import MLClient
    from azure.core.rest import HttpResponse

    from edgeml.settings import Settings

PROVIDER = "Microsoft.MachineLearningServices"
API_VERSION = "2024-10-01"  # the newest stable one whose compute body has all that is sent


class Workspace:
    """One workspace, seen by one identity. Nothing is asked of Azure before something is asked of it."""

    def __init__(self, settings: Settings) -> None:
        quiet_sdk()
        missing = [k for k in ("subscription_id", "resource_group", "workspace") if not getattr(settings.azure, k)]
        if missing:
            raise EdgemlError(f"azure.{missing[0]} is empty; set it in edgeml.toml, `edgeml doctor` tells what else")
        self.settings = settings
        self.uploaded: set[tuple[str, str]] = set()  # container and name of blobs that this process knows to be there
        azure = settings.azure
        self.name = azure.workspace
        self.id = (
            f"/subscriptions/{azure.subscription_id}/resourceGroups/{azure.resource_group}/providers/{PROVIDER}"
            f"/workspaces/{azure.workspace}"
        )

    @cached_property
    def cloud(self) -> clouds.Cloud:
        return clouds.of(self.settings)

    @cached_property
    def credential(self) -> Any:
        return identity.credential(self.settings, self.cloud)

    @cached_property
    def client(self) -> MLClient:
        """The SDK's client, without telemetry and without the progress bars that it would draw."""
        import_sdk()
        from azure.ai.ml import MLClient
        from azure.ai.ml._azure_environments import _environments

        more: dict[str, Any] = {"cloud": self.cloud.name}
        if self.cloud.name not in _environments:  # the SDK keeps each in a global and refuses one that it has
            more["cloud_metadata"] = self.cloud.metadata()
        azure = self.settings.azure
        with silence():
            return MLClient(
                self.credential,
                azure.subscription_id,
                azure.resource_group,
                azure.workspace,
                enable_telemetry=False,
                show_progress=False,
                **more,
            )

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

    def request(self, method: str, path: str, body: Any = None, **params: str) -> HttpResponse:
        """One request below the workspace, as its REST reference documents it; waits for a long-running operation.

        Raises azure.core's HttpResponseError where Azure refuses.
        """
        from azure.core.rest import HttpRequest

        url = f"{self.cloud.arm}{self.id}{'/' if path else ''}{path}"
        query = {"api-version": API_VERSION, **params}
        response: HttpResponse = self._arm.send_request(HttpRequest(method, url, params=query, json=body))
        response.raise_for_status()
        operation = response.headers.get("Azure-AsyncOperation")
        return self._finished(operation) if operation else response

    def send(self, method: str, url: str, body: Any = None, **params: str) -> Any:
        """The JSON that an endpoint of the workspace beside Resource Manager answers, asked once and not again.

        Raises azure.core's HttpResponseError where it refuses.
        """
        from azure.core.rest import HttpRequest

        request = HttpRequest(method, url, params=params, json=body)
        response: HttpResponse = self._arm.send_request(request, retry_total=0)
        response.raise_for_status()
        return response.json()

    def location(self) -> str:
        """The region of the workspace, which a compute has to name as its own."""
        return str(self.request("GET", "").json()["location"])

    def find(self, path: str) -> Any:
        """The JSON of a resource below the workspace; None where it is not there."""
        from azure.core.exceptions import HttpResponseError

        try:
            return self.request("GET", path).json()
        except HttpResponseError as error:
            if is_missing(error):
                return None
            raise

    def _finished(self, operation: str) -> HttpResponse:
        import time

        from azure.core.exceptions import HttpResponseError
        from azure.core.rest import HttpRequest

        while True:
            response: HttpResponse = self._arm.send_request(HttpRequest("GET", operation))
            response.raise_for_status()
            status = str(response.json().get("status"))
            if status == "Succeeded":
                return response
            if status in ("Failed", "Canceled"):
                error = response.json().get("error") or {}
                raise HttpResponseError(f"({error.get('code', status)}) {error.get('message', status)}")
            time.sleep(float(response.headers.get("Retry-After") or 5))

    @contextlib.contextmanager
    def explaining(self, doing: str) -> Iterator[None]:
        """Turn what Azure's clients raise into one sentence that begins with what was being done."""
        with explained(doing, self.settings):
            yield


def quiet_sdk() -> None:
    """Azure's loggers print warnings about themselves, and HTTP headers when asked for more."""
    logging.getLogger("azure").setLevel(logging.CRITICAL)  # what they tell of as errors is raised as well
    logging.getLogger("msrest").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", module=r"azure\..*|marshmallow.*|msrest.*")


def import_sdk() -> None:
    """Import azure-ai-ml, which takes two seconds, without what it says meanwhile."""
    with silence():
        from azure.ai.ml._utils import _experimental  # and all of the package before it

    # For a warning that goes nowhere it reads the source of each caller, half a second of a submission.
    _experimental._should_skip_warning = lambda: True


@contextlib.contextmanager
def silence() -> Iterator[None]:
    """What the SDK prints for people (colours, blank lines, bars) goes nowhere; `EDGEML_DEBUG` lets it through."""
    if os.environ.get("EDGEML_DEBUG"):
        yield
        return
    with (
        warnings.catch_warnings(),
        contextlib.redirect_stdout(io.StringIO()),
        contextlib.redirect_stderr(io.StringIO()),
    ):
        warnings.simplefilter("ignore")
        yield
