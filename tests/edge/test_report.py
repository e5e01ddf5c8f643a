"""A run of the edge in a tracking store: there once, with what the gate released of it and nothing else."""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
from pathlib import Path
from typing import Any

import pytest

from edgeml.edge.report import report
from edgeml.errors import EdgemlError
from tests.edge.conftest import Demo
from tests.release_builder import read_json, write_json


@pytest.fixture
def project(first_demo: Demo, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project with a tracking store in which nothing is, and that knows the gate of the edge."""
    for name in [name for name in os.environ if name.startswith(("EDGEML_", "MLFLOW_"))]:
        monkeypatch.delenv(name)
    verdict = read_json(first_demo.run / "outputs/release/egress.sig")
    (tmp_path / "edgeml.toml").write_text(f'[airlock]\npublic_keys = ["{verdict["public_key"]}"]\n')
    (tmp_path / ".edgeml/runs").mkdir(parents=True)
    shutil.copy(first_demo.run.parents[1] / "mlflow.db", tmp_path / "tracking.db")  # made once: it takes seconds
    with sqlite3.connect(tmp_path / "tracking.db") as database:
        for table in ("metrics", "latest_metrics", "params", "tags", "runs", "experiments"):
            database.execute(f"DELETE FROM {table} WHERE 1")
        database.execute("INSERT INTO experiments (experiment_id, name, artifact_location, lifecycle_stage) VALUES "
                         f"(1, 'breast-cancer', 'file://{tmp_path}/artifacts', 'active')")  # fmt: skip
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def run(first_demo: Demo, project: Path) -> Path:
    return Path(shutil.copytree(first_demo.run, project / ".edgeml/runs" / first_demo.run.name, symlinks=True))


def asked(project: Path, query: str) -> list[tuple[Any, ...]]:
    with sqlite3.connect(project / "tracking.db") as database:
        return database.execute(query).fetchall()


def test_a_run_is_reported_once(project: Path, run: Path) -> None:
    uri = f"sqlite:///{project}/tracking.db"
    first = report(str(run), uri)
    assert report(str(run), uri) == first, "again it is the same"
    assert asked(project, "SELECT run_uuid, status FROM runs") == [(first, "FINISHED")]

    metrics = dict(asked(project, "SELECT key, value FROM metrics"))
    released = read_json(run / "outputs/release/metrics.json")["metrics"]
    assert {name: metrics[name] for name in released} == {name: each["value"] for name, each in released.items()}
    tags = dict(asked(project, "SELECT key, value FROM tags"))
    lineage = read_json(run / "outputs/release/lineage.json")
    assert tags["edgeml.job"] == read_json(run / "run.json")["run"]
    assert tags["data.fingerprint"] == lineage["data"]["fingerprint"]
    assert tags["edgeml.release"] == tags["model.sha256"]
    kept = sorted(path.name for path in (project / "artifacts").rglob("release/*"))
    assert kept == sorted(path.name for path in (run / "outputs/release").iterdir())


def test_a_report_that_was_interrupted_is_made_whole(project: Path, run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from mlflow import MlflowClient

    uri = f"sqlite:///{project}/tracking.db"
    with monkeypatch.context() as broken:
        broken.setattr(MlflowClient, "log_artifacts", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            report(str(run), uri)
    assert asked(project, "SELECT status FROM runs") == [("RUNNING",)]
    assert report(str(run), uri)
    assert asked(project, "SELECT status FROM runs") == [("FINISHED",)]


def test_what_cannot_be_trusted_is_not_reported(project: Path, run: Path) -> None:
    metrics = run / "outputs/release/metrics.json"
    document = read_json(metrics)
    document["metrics"]["roc_auc"]["value"] = 1.0
    write_json(metrics, document)
    with pytest.raises(EdgemlError, match=r"metrics\.json"):
        report(str(run), f"sqlite:///{project}/tracking.db")
    assert asked(project, "SELECT * FROM runs") == []


def test_a_folder_that_holds_no_run(project: Path) -> None:
    (project / "empty").mkdir()
    with pytest.raises(EdgemlError, match=r"holds no readable run\.json"):
        report(str(project / "empty"), f"sqlite:///{project}/tracking.db")


def test_a_run_without_a_release_has_its_times(project: Path, run: Path) -> None:
    record = read_json(run / "run.json")
    record |= {"status": "failed", "outputs": {}}
    for step in record["steps"]:
        step["outputs"] = {}
    (run / "run.json").write_text(json.dumps(record))
    report(str(run), f"sqlite:///{project}/tracking.db")
    assert asked(project, "SELECT status FROM runs") == [("FAILED",)]
    names = {name for (name,) in asked(project, "SELECT key FROM metrics")}
    assert {"run.seconds", *(f"seconds.{step['node']}" for step in record["steps"])} == names
