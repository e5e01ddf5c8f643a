"""The workspace's MLflow endpoint, as MLflow's REST reference has it and as far as runs go.

Every request is parsed into MLflow's own protobuf message; a field that it does not have is refused, and kept in
`wrong`.
That Azure ML shows a run in a search as soon as it was made is an assumption.
"""

from __future__ import annotations

import re
import uuid
from dataclasses import dataclass, field
from functools import cache
from typing import Any

from google.protobuf import json_format
from mlflow.protos import service_pb2 as messages

from tests.azure.server import Answer, Request

FILTER = re.compile(r"tags\.`([^`']+)` = '([^']*)'")
LIMITS = {"metrics": 1000, "params": 100, "tags": 100}  # of one batch


@dataclass
class Experiments:
    """What lasts: experiments by name, runs by id."""

    ids: dict[str, str] = field(default_factory=dict)
    runs: dict[str, messages.Run] = field(default_factory=dict)
    created: int = 0

    def alive(self) -> list[messages.Run]:
        return [run for run in self.runs.values() if run.info.lifecycle_stage == "active"]


def answer(state: Experiments, request: Request, path: str, wrong: list[str]) -> Answer:
    """The answer to a request below `/api/2.0/mlflow/`."""
    kind = _messages().get((request.method, path))
    handler = _HANDLERS.get(path)
    if kind is None or handler is None:
        wrong.append(f"{request.method} {path}: not a call that the loopback MLflow knows")
        return _refused(404, "ENDPOINT_NOT_FOUND", path)
    asked = kind()
    try:
        json_format.ParseDict(request.query if request.method == "GET" else request.json(), asked)
    except json_format.ParseError as error:
        wrong.append(f"{request.method} {path}: {error}")
        return _refused(400, "INVALID_PARAMETER_VALUE", str(error))
    made = handler(state, asked)
    if isinstance(made, Answer):
        return made
    return Answer(200, json_format.MessageToDict(made, preserving_proto_field_name=True))


@cache
def _messages() -> dict[tuple[str, str], Any]:
    """MLflow's request message by method and path, from its own description of the service."""
    from mlflow.utils.rest_utils import extract_api_info_for_service

    found = extract_api_info_for_service(messages.MlflowService, "")
    return {(method, path.removeprefix("/mlflow/")): message for message, (path, method) in found.items()}


def _refused(status: int, code: str, message: str) -> Answer:
    return Answer(status, {"error_code": code, "message": message})


def _by_name(state: Experiments, asked: Any) -> Any:
    if asked.experiment_name not in state.ids:
        return _refused(404, "RESOURCE_DOES_NOT_EXIST", f"no experiment {asked.experiment_name}")
    experiment = messages.Experiment(experiment_id=state.ids[asked.experiment_name], name=asked.experiment_name)
    return messages.GetExperimentByName.Response(experiment=experiment)


def _create_experiment(state: Experiments, asked: Any) -> Any:
    if asked.name in state.ids:
        return _refused(400, "RESOURCE_ALREADY_EXISTS", f"there is an experiment {asked.name}")
    state.ids[asked.name] = str(uuid.uuid4())
    return messages.CreateExperiment.Response(experiment_id=state.ids[asked.name])


def _create_run(state: Experiments, asked: Any) -> Any:
    if asked.experiment_id not in state.ids.values():
        return _refused(404, "RESOURCE_DOES_NOT_EXIST", f"no experiment {asked.experiment_id}")
    run = messages.Run()
    run.info.run_id = run.info.run_uuid = str(uuid.uuid4())
    run.info.experiment_id, run.info.run_name, run.info.start_time = (
        asked.experiment_id,
        asked.run_name,
        asked.start_time,
    )
    run.info.status, run.info.lifecycle_stage = messages.RUNNING, "active"
    run.data.tags.extend(asked.tags)
    state.runs[run.info.run_id] = run
    state.created += 1
    return messages.CreateRun.Response(run=run)


def _search(state: Experiments, asked: Any) -> Any:
    match = FILTER.fullmatch(asked.filter)
    if match is None:
        return _refused(400, "INVALID_PARAMETER_VALUE", f"cannot read the filter {asked.filter}")
    found = [
        run
        for run in state.alive()
        if run.info.experiment_id in asked.experiment_ids
        and any((tag.key, tag.value) == match.groups() for tag in run.data.tags)
    ]
    return messages.SearchRuns.Response(runs=found[: asked.max_results])


def _log_batch(state: Experiments, asked: Any) -> Any:
    run = state.runs.get(asked.run_id)
    if run is None:
        return _refused(404, "RESOURCE_DOES_NOT_EXIST", asked.run_id)
    for kind, limit in LIMITS.items():
        if len(getattr(asked, kind)) > limit:
            return _refused(400, "INVALID_PARAMETER_VALUE", f"more than {limit} {kind}")
    known = {param.key: param.value for param in run.data.params}
    for param in asked.params:
        if known.setdefault(param.key, param.value) != param.value:
            return _refused(400, "INVALID_PARAMETER_VALUE", f"the parameter {param.key} has another value already")
    run.data.metrics.extend(asked.metrics)  # each is a point of its own, also the second of the same name
    del run.data.params[:]
    run.data.params.extend(messages.Param(key=key, value=value) for key, value in known.items())
    for tag in asked.tags:
        _tag(run, tag.key, tag.value)
    return messages.LogBatch.Response()


def _set_tag(state: Experiments, asked: Any) -> Any:
    if asked.run_id not in state.runs:
        return _refused(404, "RESOURCE_DOES_NOT_EXIST", asked.run_id)
    _tag(state.runs[asked.run_id], asked.key, asked.value)
    return messages.SetTag.Response()


def _update(state: Experiments, asked: Any) -> Any:
    if asked.run_id not in state.runs:
        return _refused(404, "RESOURCE_DOES_NOT_EXIST", asked.run_id)
    info = state.runs[asked.run_id].info
    info.status, info.end_time = asked.status, asked.end_time
    return messages.UpdateRun.Response(run_info=info)


def _delete(state: Experiments, asked: Any) -> Any:
    if asked.run_id not in state.runs:
        return _refused(404, "RESOURCE_DOES_NOT_EXIST", asked.run_id)
    state.runs[asked.run_id].info.lifecycle_stage = "deleted"
    return messages.DeleteRun.Response()


def _tag(run: Any, key: str, value: str) -> None:
    for tag in run.data.tags:
        if tag.key == key:
            tag.value = value
            return
    run.data.tags.append(messages.RunTag(key=key, value=value))


_HANDLERS = {
    "experiments/get-by-name": _by_name,
    "experiments/create": _create_experiment,
    "runs/create": _create_run,
    "runs/search": _search,
    "runs/log-batch": _log_batch,
    "runs/set-tag": _set_tag,
    "runs/update": _update,
    "runs/delete": _delete,
}
