"""The whole demo through a real SSH server: what comes back, what stays, and that it is not done twice."""

from __future__ import annotations

import json
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from edgeml.edge import executor
from edgeml.errors import EdgemlError
from tests.edge.conftest import Demo, demo
from tests.edge.vm import Vm

STEPS = ["ingest_blobs", "validate_data", "split_data", "train_model", "evaluate_model", "release_artifacts"]


def test_the_demo_ends_in_a_registered_model(first_demo: Demo, committed: Path) -> None:
    said = first_demo.said
    assert (said["model"], said["created"]) == ("breast-cancer:1", True)
    assert said["metrics"]["roc_auc"]["low"] > 0.9
    assert [(step["node"], step["status"]) for step in said["record"]["steps"]] == [(s, "completed") for s in STEPS]
    assert {step["sandbox"] for step in said["record"]["steps"]} == {"bwrap"}, "in the sandbox, on the VM"
    for step in STEPS:
        assert [line.split()[1] for line in first_demo.shown.splitlines() if line.split()[:1] == [step]] == [
            "running",
            "completed",
        ]
    with sqlite3.connect(committed / ".edgeml/mlflow.db") as database:
        job = database.execute("SELECT value FROM tags WHERE key = 'edgeml.job'").fetchall()
        lineage = database.execute("SELECT value FROM model_version_tags WHERE key = 'git.commit'").fetchall()
    assert job == [(said["record"]["run"],)], "reported, once"
    assert lineage == [(said["record"]["git"]["commit"],)]
    assert len(lineage[0][0]) == 40


def test_nothing_comes_back_but_the_release_and_a_record_without_values(first_demo: Demo, vm: Vm) -> None:
    there = f"~/edgeml/jobs/{first_demo.run.name}/run"
    assert vm.run(f"ls {there}/quarantine/train_model/log.txt"), "logs lie there"
    came = sorted(str(path.relative_to(first_demo.run)) for path in first_demo.run.rglob("*") if path.is_file())
    release = "cloud/release_artifacts/release/"
    assert [name for name in came if not name.startswith((release, "report/", "outputs/"))] == ["run.json"]
    ids = [line.partition(",")[0] for part in first_demo.run.parents[1].glob("sample/*.csv")
           for line in part.read_text().splitlines()[1:]]  # fmt: skip
    assert len(ids) == 569
    for content in [*(path.read_bytes() for path in first_demo.run.rglob("*.json")), first_demo.shown.encode()]:
        assert not any(key.encode() in content for key in ids)


def test_again_it_is_found_done(first_demo: Demo, committed: Path, vm: Vm) -> None:
    again = demo(committed, vm)
    assert again.said["model"] == "breast-cancer:1"
    assert again.said["created"] is False
    assert "as before" in again.shown
    with sqlite3.connect(committed / ".edgeml/mlflow.db") as database:
        assert database.execute("SELECT count(*) FROM tags WHERE key = 'edgeml.job'").fetchone() == (1,)


def test_a_release_of_an_unknown_gate_is_not_taken(first_demo: Demo, vm: Vm, project: Path) -> None:
    before = sorted(path.name for path in first_demo.run.parent.iterdir())
    with pytest.raises(EdgemlError, match="is signed by a key that is not trusted here; if its gate is yours, add"):
        executor.wait("edge", first_demo.run.name, print)
    assert sorted(path.name for path in first_demo.run.parent.iterdir()) == before, "nothing of it is left here"


def test_a_release_that_was_changed_on_the_vm_is_not_taken(first_demo: Demo, vm: Vm) -> None:
    file = f"~/edgeml/jobs/{first_demo.run.name}/run/outputs/release/metrics.json"
    kept = vm.run(f"cp {file} ~/kept; cat {file}")
    changed = json.loads(kept)
    changed["metrics"]["roc_auc"]["value"] = 1.0
    vm.run(f"rm {file}; printf %s '{json.dumps(changed)}' > {file}")
    try:
        with pytest.raises(EdgemlError, match=r"metrics\.json"):
            executor.fetch("edge", first_demo.run.name, [executor.gate_key("edge")])
        vm.run(f"rm {file}; ln -s /etc/passwd {file}")
        with pytest.raises(EdgemlError, match="edge: it refuses: release"):
            executor.fetch("edge", first_demo.run.name, [executor.gate_key("edge")])
    finally:
        vm.run(f"rm {file}; cp ~/kept {file}")
    assert executor.fetch("edge", first_demo.run.name, [executor.gate_key("edge")]) == str(first_demo.run)


def test_a_target_that_is_none_is_one_sentence(committed: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "edgeml", "demo", "--target", "cloud"], cwd=committed, capture_output=True, text=True
    )
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1].startswith("edgeml: 'cloud' is no compute target of kind edge in edgeml.toml")
