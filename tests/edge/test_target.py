"""Kind `edge` behind the face of all targets: submit, wait, report and register, over the VM's real SSH server.

The workspace is the loopback Azure; what reaches it is what the gate released.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from edgeml import settings, targets
from edgeml.cli import main
from tests.azure.running import Running, started
from tests.conftest import RunningStorage
from tests.edge.conftest import Demo
from tests.edge.vm import Vm
from tests.release_builder import read_json

TRAIN, TWO = "pipelines/train.yml", "pipelines/edge/submitted.yml"
SECONDS = 120.0


@pytest.fixture(scope="module")
def cloud(storage_install: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    with started(storage_install, tmp_path_factory.mktemp("cloud")) as running:
        yield running


@pytest.fixture
def workspace(cloud: Running, vm: Vm, storage: RunningStorage, monkeypatch: pytest.MonkeyPatch) -> Iterator[Running]:
    """An empty workspace, a storage account, and the VM as the target that the residency policy names."""
    target = json.loads(vm.environment["EDGEML_COMPUTE"])["edge"]
    monkeypatch.setenv("EDGEML_COMPUTE", json.dumps({"edge-vm": target}))
    for name, value in {**storage.environment, **cloud.cloud.environment()}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("AZUREML_CURRENT_CLOUD", "")  # the SDK sets it, and every test after would be in this cloud
    monkeypatch.delenv("AZUREML_CURRENT_CLOUD")
    cloud.reset()
    yield cloud
    assert cloud.service.wrong == []
    assert cloud.cloud.strangers == []


def test_a_run_is_submitted_followed_reported_and_registered(
    workspace: Running, vm: Vm, first_demo: Demo, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The demo has run this very job on the VM: whoever submits it attaches, and its release goes to the workspace."""
    key = read_json(first_demo.run / "outputs/release/egress.sig")["public_key"]
    monkeypatch.setenv("EDGEML_AIRLOCK_PUBLIC_KEYS", json.dumps([key]))
    assert main(["submit", TRAIN, "--target", "edge-vm"]) == 0
    said = capsys.readouterr()
    job = said.out.strip()
    assert job == first_demo.said["record"]["run"] and "is there already: completed, on edge-vm" in said.err

    # The network breaks off in the middle of the report for good; the verb is run again and goes on.
    workspace.service.denied = ("POST", "mlflow")
    assert main(["wait", job]) == 1
    assert "edgeml: reporting" in capsys.readouterr().err
    workspace.service.denied = None
    for _ in range(2):
        assert main(["wait", job]) == 0
        assert f"{job} is in the workspace's experiment breast-cancer" in capsys.readouterr().err
    (run,) = workspace.service.state.experiments.alive()
    release = first_demo.run / "outputs/release"
    metrics = {one.key: one.value for one in run.data.metrics}
    released = {name: each["value"] for name, each in read_json(release / "metrics.json")["metrics"].items()}
    seconds = {f"seconds.{step['node']}": step["seconds"] for step in first_demo.said["record"]["steps"]}
    assert metrics.items() >= (released | seconds).items()
    assert {name.partition(".")[0] for name in metrics} == {*released, "seconds", "run"}, "and their intervals"
    assert len(run.data.metrics) == len(metrics), "each once"
    tags = {one.key: one.value for one in run.data.tags}
    assert tags["data.fingerprint"] == read_json(release / "lineage.json")["data"]["fingerprint"]
    assert (tags["edgeml.job"], tags["git.commit"]) == (job, first_demo.said["record"]["git"]["commit"])

    assert main(["register", job, "--to", "azureml", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    (asset,) = [value for key, value in workspace.service.state.assets.items() if key[0] == "models"]
    assert asset["tags"]["model.sha256"] == told["sha256"] == tags["model.sha256"]
    assert asset["tags"]["job"] == job


def test_no_row_reaches_the_workspace(
    workspace: Running, first_demo: Demo, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    key = read_json(first_demo.run / "outputs/release/egress.sig")["public_key"]
    monkeypatch.setenv("EDGEML_AIRLOCK_PUBLIC_KEYS", json.dumps([key]))
    job = first_demo.said["record"]["run"]
    assert main(["wait", job, "--target", "edge-vm"]) == 0
    rows = [line.partition(",")[0].encode() for part in first_demo.run.parents[1].glob("sample/*.csv")
            for line in part.read_text().splitlines()[1:]]  # fmt: skip
    sent = b"\n".join(request.body for request in workspace.cloud.requests if "/mlflow/" in request.path)
    assert len(rows) == 569 and b"roc_auc" in sent
    assert [row for row in rows if row in sent] == []


def test_a_second_submit_attaches_and_a_job_is_cancelled(workspace: Running, vm: Vm) -> None:
    vm.run("rm -f ~/go")
    heard: list[str] = []
    target = targets.of("edge-vm", settings.load())
    first = target.submit(TWO, {"turn": "target"}, heard.append)
    assert (first.created, first.state) == (True, "running")
    again = targets.of("edge-vm", settings.load()).submit(TWO, {"turn": "target"}, heard.append)
    assert again == first._replace(created=False)
    assert target.wait(first.job, heard.append, seconds=0.5, poll=0).state == "running", "the time was up"
    assert target.cancel(first.job, heard.append) == "cancelled"
    assert target.wait(first.job, heard.append, seconds=SECONDS, poll=0) == (first.job, "cancelled", "")
    vm.run("touch ~/go")
    assert target.submit(TWO, {"turn": "target"}, heard.append).created is True, "taken up again"
    ended = target.wait(first.job, heard.append, seconds=SECONDS, poll=0)
    assert (ended.state, Path(ended.run).name) == ("completed", first.job)
    (run,) = workspace.service.state.experiments.alive()
    assert {one.key: one.value for one in run.data.tags}["edgeml.job"] == first.job
    began = time.monotonic()
    assert target.wait(first.job, heard.append, seconds=SECONDS, poll=15).state == "completed"
    assert time.monotonic() - began < 15, "what has ended is not waited for"
