"""A run of the edge in an MLflow tracking store: what the gate released of it, and nothing else.

Metrics, parameters and lineage come from the verified release and the value-free record; the files are the released
ones. A run is found again by its job's name, so that reporting twice, or going on after being interrupted, makes one.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from typing import TYPE_CHECKING, Any, NamedTuple

from edgeml.errors import EdgemlError

if TYPE_CHECKING:
    from edgeml.engine.runs import Run
    from edgeml.registry.release import Release

JOB_TAG = "edgeml.job"
DIGEST_TAG = "edgeml.release"
_STATUS = {"completed": "FINISHED", "failed": "FAILED", "cancelled": "KILLED", "interrupted": "KILLED"}
_TEXT = 500  # characters of a parameter; stores differ in what they take


class Content(NamedTuple):
    """What of a run may be known elsewhere, in MLflow's words; times in milliseconds since 1970.

    `digest` names what was released: a run that has it as its tag was reported whole.
    """

    job: str
    experiment: str
    status: str
    start: int
    end: int
    digest: str
    metrics: dict[str, float]
    params: dict[str, str]
    tags: dict[str, str]


def content(run_folder: str) -> tuple[Content, Release | None]:
    """What there is to report of a fetched run, and its verified release where it has one.

    Raises EdgemlError where the folder holds no run, or the release is not to be trusted.
    """
    from edgeml.engine import runs
    from edgeml.registry import release, store

    found = runs.find("", run_folder)
    released = release.of(found) if release.folder_of(found) is not None else None
    metrics = {"run.seconds": float(found.record["seconds"])}
    metrics |= {f"seconds.{step['node']}": float(step["seconds"]) for step in found.record["steps"]}
    tags = {"run": str(found.record["run"]), "pipeline": str(found.record.get("pipeline") or "")}
    params: dict[str, str] = {}
    if released is not None:
        from edgeml.registry.models import lineage

        tags = lineage(found, released)
        metrics |= {key.removeprefix("metric."): float(value) for key, value in tags.items() if _is_metric(key, value)}
        signature = released.document("signature.json")
        params = {key: str(value)[:_TEXT] for key, value in signature.items() if isinstance(value, (str, int, float))}
    made = Content(
        job=str(found.record["run"]),
        experiment=str(found.record.get("experiment") or found.record.get("name") or store.DEFAULT),
        status=_STATUS.get(str(found.record["status"]), "FAILED"),
        start=_milliseconds(found),
        end=_milliseconds(found) + int(float(found.record["seconds"]) * 1000),
        digest=released.sha256 if released else "none",
        metrics=metrics,
        params=params,
        tags={key: value for key, value in tags.items() if not key.startswith("metric.")},
    )
    if "'" in made.job or "`" in made.job:
        raise EdgemlError(f"the run's name {made.job} holds a quote; name it by letters, digits, '.', '_' and '-'")
    return made, released


def filter_of(job: str) -> str:
    """By which MLflow finds the run of a job again."""
    return f"tags.`{JOB_TAG}` = '{job}'"


def report(run_folder: str, tracking_uri: str) -> str:
    """Log a run to a tracking store and return its id there; a run that is there whole is left as it is.

    Raises EdgemlError where the folder holds no run, the release is not to be trusted or the store refuses.
    """
    from edgeml.registry import store

    made, released = content(run_folder)
    with store.lock():
        store.create(tracking_uri, made.experiment)
        with store.writing(tracking_uri) as client:
            where = client.get_experiment_by_name(made.experiment).experiment_id
            found = client.search_runs([where], filter_string=filter_of(made.job), max_results=1)
            known = found[0] if found else None
            if known is not None and known.data.tags.get(DIGEST_TAG) == made.digest:
                return str(known.info.run_id)
            run = known or client.create_run(where, run_name=made.job, start_time=made.start, tags={JOB_TAG: made.job})
            _log(client, run.info.run_id, made, released)
            client.set_terminated(run.info.run_id, made.status, made.end)
            client.set_tag(run.info.run_id, DIGEST_TAG, made.digest)  # last: with it the run is whole
            return str(run.info.run_id)


def _log(client: Any, run: str, made: Content, released: Release | None) -> None:
    from mlflow.entities import Metric, Param, RunTag

    if released is not None:
        _log_files(client, run, released)
    client.log_batch(
        run,
        metrics=[Metric(name, value, made.end, 0) for name, value in made.metrics.items()],
        params=[Param(name, value) for name, value in made.params.items()],  # type: ignore[no-untyped-call]
        tags=[RunTag(key, value) for key, value in made.tags.items()],  # type: ignore[no-untyped-call]
    )


def _log_files(client: Any, run: str, released: Release) -> None:
    """The released files as they were verified, not as they may lie in the folder by now."""
    folder = tempfile.mkdtemp(prefix="edgeml-")
    try:
        for name, data in released.files.items():
            with open(os.path.join(folder, name), "wb") as stream:
                stream.write(data)
        client.log_artifacts(run, folder, "release")
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _is_metric(key: str, value: str) -> bool:
    import math

    try:
        return key.startswith("metric.") and math.isfinite(float(value))
    except ValueError:
        return False


def _milliseconds(found: Run) -> int:
    from datetime import datetime

    return int(datetime.fromisoformat(found.record["started"]).timestamp() * 1000)
