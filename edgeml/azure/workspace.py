"""The Azure ML workspace: the SDK's client and, for what it cannot say, plain requests to Azure Resource Manager."""

from __future__ import annotations

import contextlib
import io
import os
import warnings
from collections.abc import Iterator
from functools import cached_property
from typing import TYPE_CHECKING, Any

from edgeml.azure.arm import Arm, pause_of
from edgeml.errors import EdgemlError

if TYPE_CHECKING:
    from azure.ai.ml import MLClient
    from azure.core.rest import HttpResponse

    from edgeml.settings import Settings

PROVIDER = "Microsoft.MachineLearningServices"
API_VERSION = "2024-10-01"  # the newest stable one whose compute body has all that is sent


class Workspace(Arm):
    """One workspace, seen by one identity. Nothing is asked of Azure before something is asked of it."""

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings)
        missing = [k for k in ("subscription_id", "resource_group", "workspace") if not getattr(settings.azure, k)]
        if missing:
            raise EdgemlError(f"azure.{missing[0]} is empty; set it in edgeml.toml, `edgeml doctor` tells what else")
        self.uploaded: set[tuple[str, str]] = set()  # container and name of blobs that this process knows to be there
        azure = settings.azure
        self.name = azure.workspace
        self.id = (
            f"/subscriptions/{azure.subscription_id}/resourceGroups/{azure.resource_group}/providers/{PROVIDER}"
            f"/workspaces/{azure.workspace}"
        )

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

    def request(self, method: str, path: str, body: Any = None, **params: str) -> HttpResponse:
        """One request below the workspace, as its REST reference documents it; waits for a long-running operation.

        Raises azure.core's HttpResponseError where Azure refuses.
        """
        response = self.ask(method, f"{self.id}{'/' if path else ''}{path}", API_VERSION, body, params)
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
        return self.look(f"{self.id}/{path}", API_VERSION)

    def _finished(self, operation: str) -> HttpResponse:
        import time

        from azure.core.exceptions import HttpResponseError

        while True:
            response = self.follow(operation)
            status = str(response.json().get("status"))
            if status == "Succeeded":
                return response
            if status in ("Failed", "Canceled"):
                error = response.json().get("error") or {}
                raise HttpResponseError(f"({error.get('code', status)}) {error.get('message', status)}")
            time.sleep(pause_of(response))


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
