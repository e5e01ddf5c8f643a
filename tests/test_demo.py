"""The whole loop as a newcomer runs it: first, again, after a change, and when it goes wrong."""

from __future__ import annotations

import json
import os
import signal
import socket
import sqlite3
import subprocess
import sys
import time
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.conftest import ROOT, copied
from tests.test_docs import commands, run_commands

EDGEML = [sys.executable, "-m", "edgeml"]


def edgeml(folder: Path, *args: str, **env: str) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        [*EDGEML, *args], cwd=folder, env={**os.environ, **env}, capture_output=True, text=True, timeout=300
    )
    assert "Traceback" not in done.stderr.replace("| Traceback", ""), done.stderr
    return done


def demo(folder: Path) -> dict:
    done = edgeml(folder, "demo", "--json")
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def statuses(done: dict) -> dict[str, str]:
    return {step["node"]: step["status"] for step in done["record"]["steps"]}


class First(NamedTuple):
    """A newcomer's first demo, which was interrupted and called again."""

    folder: Path
    code: int
    message: str
    left: str
    done: dict


@pytest.fixture(scope="module")
def first(storage_install: Path, tmp_path_factory: pytest.TempPathFactory) -> First:
    folder = copied(storage_install, tmp_path_factory.mktemp("first") / "checkout")
    engine = subprocess.Popen([*EDGEML, "demo"], cwd=folder, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 120
    while not list(folder.glob(".edgeml/runs/*/jobs/split_data")):
        assert time.monotonic() < deadline
        assert engine.poll() is None
        time.sleep(0.05)
    engine.send_signal(signal.SIGINT)
    message = engine.communicate(timeout=60)[1]
    left = edgeml(folder, "storage", "status").stdout
    return First(folder, engine.returncode, message, left, demo(folder))


def test_an_interrupted_first_run_is_taken_up_by_the_next(first: First) -> None:
    assert first.code == 130
    assert "Traceback" not in first.message
    assert first.message.splitlines()[-1] == "edgeml: interrupted"
    assert first.left.startswith("stopped")
    assert statuses(first.done)["validate_data"] == "cached"


def test_no_private_value_reaches_the_cloud_zone_or_the_report(first: First) -> None:
    parts = [path.read_text().splitlines()[1:] for path in (first.folder / ".edgeml/sample").glob("*.csv")]
    ids = [line.partition(",")[0] for part in parts for line in part]
    assert len(ids) == 569
    leaving = [path for path in (Path(first.done["run"]) / "cloud").rglob("*") if path.is_file()]
    assert leaving
    for path in [*leaving, Path(first.done["report"])]:
        content = path.read_bytes()
        assert not any(key.encode() in content for key in ids), f"{path.name} holds a patient's id"


def test_the_loop_ends_in_a_registered_model_and_is_not_done_twice(first: First) -> None:
    checkout, made = first.folder, first.done
    assert set(statuses(made).values()) == {"completed", "cached"}
    assert (made["model"], made["created"]) == ("breast-cancer:1", True)
    assert made["metrics"]["roc_auc"]["low"] > 0.9
    assert Path(made["report"]).stat().st_size > 50_000
    assert edgeml(checkout, "storage", "status").stdout.startswith("stopped"), "nothing is left running"

    database = sqlite3.connect(checkout / ".edgeml/mlflow.db")
    logged = "SELECT DISTINCT experiments.name FROM experiments JOIN runs USING (experiment_id)"
    assert database.execute(logged).fetchall() == [("breast-cancer",)], "the pipeline's own experiment"

    second = demo(checkout)
    assert statuses(second) == {name: "completed" if name == "ingest_blobs" else "cached" for name in statuses(made)}, (
        "only the container is read again: it might have changed"
    )
    assert (second["model"], second["created"]) == ("breast-cancer:1", False)

    # It is packaged and asked, from its image where this machine can make one, and the same image again.
    assert made["image"] == second["image"]
    assert made["score"]["answer"]["predictions"][0]["label"] in ("benign", "malignant")
    assert made["score"]["answer"] == second["score"]["answer"]

    outputs = [
        (step["node"], name, o["zone"]) for step in made["record"]["steps"] for name, o in step["outputs"].items()
    ]
    assert [(node, name) for node, name, zone in outputs if zone == "cloud"] == [("release_artifacts", "release")]

    # A change to one component runs that one and what comes after it; the champion is compared with.
    assert edgeml(checkout, "models", "alias", "breast-cancer:1", "champion").returncode == 0
    pipeline = checkout / "pipelines/train.yml"
    pipeline.write_text(pipeline.read_text().replace("max_iter: 100", "max_iter: 60"))
    third = demo(checkout)
    assert {name for name, status in statuses(third).items() if status == "cached"} == {"validate_data", "split_data"}
    assert third["model"] == "breast-cancer:2"
    verdict = json.loads((Path(third["run"]) / "outputs/release/promotion.json").read_text())
    assert len(verdict["champion"]["model_sha256"]) >= 64
    assert verdict["champion"]["difference"]["low"] <= verdict["champion"]["difference"]["value"]


def test_the_readme_s_commands_run(first: First) -> None:
    assert "make demo" in commands(ROOT / "README.md")
    run_commands(ROOT / "README.md", first.folder)


def test_a_port_in_use_is_one_sentence(checkout: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        done = edgeml(checkout, "demo", EDGEML_STORAGE_PORT=port)
    assert done.returncode != 0
    assert done.stderr.splitlines()[-1].startswith("edgeml: ")
    assert port in done.stderr.splitlines()[-1]


def test_a_failing_step_ends_the_demo_with_its_cause(checkout: Path) -> None:
    contract = checkout / "contracts/breast_cancer.yml"
    wide, narrow = "mean_radius: {type: number, min: 0, max: 100}", "mean_radius: {type: number, min: 0, max: 20}"
    contract.write_text(contract.read_text().replace(wide, narrow))
    done = edgeml(checkout, "demo")
    assert done.returncode == 1
    assert "step 'validate_data' exited with code 1" in done.stderr
    assert "mean_radius" in done.stderr
    assert done.stderr.splitlines()[-1].startswith("edgeml: the pipeline failed")
    assert edgeml(checkout, "storage", "status").stdout.startswith("stopped")


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting a small file system needs root")
def test_a_full_disk_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "code").mkdir()
    (tmp_path / "code/big").write_bytes(b"x" * (3 << 20))
    (tmp_path / "pipeline.yml").write_text("jobs:\n  a:\n    code: code\n    command: echo\n")
    state = tmp_path / ".edgeml"
    state.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(state)], check=True)
    try:
        done = edgeml(tmp_path, "run", "pipeline.yml")
    finally:
        subprocess.run(["umount", "-l", str(state)], check=True)
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].startswith("edgeml: no space is left on the disk")


def test_outside_of_the_repository_the_demo_says_so(tmp_path: Path) -> None:
    done = edgeml(tmp_path, "demo")
    assert (done.returncode, "inside the repository" in done.stderr) == (2, True)
