"""A run of the edge in an MLflow tracking store: what the gate released of it, and nothing else.

Metrics, parameters and lineage come from the verified release and the value-free record; the files are the released
ones. A run is found again by its job's name, so that reporting twice, or going on after being interrupted, makes one.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from typing import TYPE_CHECKING, Any

from edgeml.errors import EdgemlError

if TYPE_CHECKING:
    from edgeml.engine.runs import Run
    from edgeml.registry.release import Release

JOB_TAG = "edgeml.job"
DIGEST_TAG = "edgeml.release"
_STATUS = {"completed": "FINISHED", "failed": "FAILED", "cancelled": "KILLED", "interrupted": "KILLED"}
_TEXT = 500  # characters of a parameter; stores differ in what they take


def report(run_folder: str, tracking_uri: str) -> str:
    """Log a run to a tracking store and return its id there; a run that is there whole is left as it is.

    Raises EdgemlError where the folder holds no run, the release is not to be trusted or the store refuses.
    """
    from edgeml.engine import runs
    from edgeml.registry import release, store

    found = runs.find("", run_folder)
    name = str(found.record["run"])
    released = release.of(found) if release.folder_of(found) is not None else None
    experiment = str(found.record.get("experiment") or found.record.get("name") or store.DEFAULT)
    with store.lock():
        store.create(tracking_uri, experiment)
        with store.writing(tracking_uri) as client:
            where = client.get_experiment_by_name(experiment).experiment_id
            known = _search(client, where, name)
            digest = released.sha256 if released else "none"
            if known is not None and known.data.tags.get(DIGEST_TAG) == digest:
                return str(known.info.run_id)
            run = known or client.create_run(
                where, run_name=name, start_time=_milliseconds(found), tags={JOB_TAG: name}
            )
            _log(client, run.info.run_id, found, released)
            client.set_tag(run.info.run_id, DIGEST_TAG, digest)  # last: with it the run is whole
            client.set_terminated(run.info.run_id, _STATUS.get(str(found.record["status"]), "FAILED"), _end(found))
            return str(run.info.run_id)


def _search(client: Any, experiment: str, name: str) -> Any:
    if "'" in name:
        raise EdgemlError(f"the run's name {name} holds a quote; name the job by letters, digits, '.', '_' and '-'")
    found = client.search_runs([experiment], filter_string=f"tags.`{JOB_TAG}` = '{name}'", max_results=1)
    return found[0] if found else None


def _log(client: Any, run: str, found: Run, released: Release | None) -> None:
    from mlflow.entities import Metric, Param, RunTag

    now = _end(found)
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
        _log_files(client, run, released)
    entries = [Metric(name, value, now, 0) for name, value in metrics.items()]
    client.log_batch(
        run,
        metrics=entries,
        params=[Param(name, value) for name, value in params.items()],  # type: ignore[no-untyped-call]
        tags=[RunTag(key, value) for key, value in tags.items() if not key.startswith("metric.")],  # type: ignore[no-untyped-call]
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


def _end(found: Run) -> int:
    return _milliseconds(found) + int(float(found.record["seconds"]) * 1000)
