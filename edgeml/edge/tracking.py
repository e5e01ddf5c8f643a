"""Runs of kind `edge` in the workspace's experiments, by the MLflow REST interface that Azure ML has.

Plain requests with our own credential, to where azureml-mlflow sends its own. That package is not used: it brings a
second sign-in, and MLflow's client sends the creation of a run again when the answer was lost, which makes two. Here
each attempt looks first at what is there, so a report that was cut short is completed and never doubled.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from edgeml.azure.explain import status_of
from edgeml.azure.patience import patiently
from edgeml.edge.report import DIGEST_TAG, JOB_TAG, filter_of
from edgeml.errors import EdgemlError

if TYPE_CHECKING:
    from edgeml.azure.workspace import Workspace
    from edgeml.edge.report import Content

SECONDS = 600.0
BATCH = 100  # entries of each kind in one request; MLflow's own limit for parameters and tags
_URI = re.compile(r"azureml://([A-Za-z0-9.-]+)/mlflow/v[0-9.]+(/subscriptions/[^?#]+)\??")


def report(workspace: Workspace, made: Content, say: Callable[[str], None]) -> str:
    """Report a run to the workspace and return its id there; one that is there whole is left as it is.

    Safe to be killed and called again. Raises EdgemlError, exit code 1.
    """
    until = time.monotonic() + SECONDS
    return patiently(workspace, f"reporting {made.job}", lambda: _reported(_Service(workspace), made), until, say)


def _reported(service: _Service, made: Content) -> str:
    where = service.experiment(made.experiment)
    known = service.run_of(where, made.job)
    if known is None:
        job = [{"key": JOB_TAG, "value": made.job}]
        service.post(
            "runs/create", {"experiment_id": where, "run_name": made.job, "start_time": made.start, "tags": job}
        )
        known = service.run_of(where, made.job)
        if known is None:
            raise EdgemlError(f"the workspace does not show the run of {made.job} that it took; run this again", 1)
    run, data = str(known["info"]["run_id"]), known.get("data") or {}
    if _pairs(data, "tags").get(DIGEST_TAG) == made.digest:
        return run
    for batch in _batches(made, data):
        service.post("runs/log-batch", {"run_id": run, **batch})
    service.post("runs/update", {"run_id": run, "status": made.status, "end_time": made.end})
    service.post("runs/set-tag", {"run_id": run, "key": DIGEST_TAG, "value": made.digest})  # last: the run is whole
    return run


def _batches(made: Content, there: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """What a run lacks, in requests of a size that the service takes. A metric that is sent again is a second point."""
    metrics = [
        {"key": key, "value": value, "timestamp": made.end, "step": 0}
        for key, value in made.metrics.items()
        if key not in _pairs(there, "metrics")
    ]
    params = [{"key": k, "value": v} for k, v in made.params.items() if k not in _pairs(there, "params")]
    tags = [{"key": k, "value": v} for k, v in made.tags.items() if _pairs(there, "tags").get(k) != v]
    for begin in range(0, max(len(metrics), len(params), len(tags)), BATCH):
        end = begin + BATCH
        yield {"metrics": metrics[begin:end], "params": params[begin:end], "tags": tags[begin:end]}


def _pairs(data: dict[str, Any], kind: str) -> dict[str, Any]:
    return {str(one["key"]): one.get("value") for one in data.get(kind) or []}


class _Service:
    """The workspace's MLflow endpoint."""

    def __init__(self, workspace: Workspace) -> None:
        self._workspace = workspace
        given = str(workspace.request("GET", "").json()["properties"].get("mlFlowTrackingUri"))
        match = _URI.fullmatch(given)
        if match is None or match[2].lower().rstrip("/") != workspace.id.lower():
            raise EdgemlError(f"the workspace names {given[:200]} as its tracking store, which is none of its own", 1)
        # Its own client for MLflow 2 and 3 speaks to v2.0, whatever version the workspace names.
        self._base = f"https://{match[1]}/mlflow/v2.0{workspace.id}/api/2.0/mlflow/"

    def post(self, what: str, body: dict[str, Any]) -> Any:
        return self._workspace.send("POST", self._base + what, body)

    def experiment(self, name: str) -> str:
        """The id of an experiment, which is made where there is none."""
        from azure.core.exceptions import HttpResponseError

        def there() -> str:
            found = self._workspace.send("GET", self._base + "experiments/get-by-name", experiment_name=name)
            return str(found["experiment"]["experiment_id"])

        try:
            return there()
        except HttpResponseError as error:
            if status_of(error) != 404:
                raise
        try:
            return str(self.post("experiments/create", {"name": name})["experiment_id"])
        except HttpResponseError as error:
            if "RESOURCE_ALREADY_EXISTS" not in str(getattr(error.response, "text", str)()):
                raise
        return there()

    def run_of(self, experiment: str, job: str) -> dict[str, Any] | None:
        """The run of a job. Of several, which two reports at once can make, all keep the same one."""
        asked = {"experiment_ids": [experiment], "filter": filter_of(job), "max_results": BATCH}
        found = sorted(self.post("runs/search", asked).get("runs") or [], key=lambda run: str(run["info"]["run_id"]))
        for other in found[1:]:
            self.post("runs/delete", {"run_id": other["info"]["run_id"]})
        return found[0] if found else None
