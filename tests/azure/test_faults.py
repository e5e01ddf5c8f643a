"""Many faults, seeded: no job submitted twice, no model registered twice, none lost. A thousand: the benchmark."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.azure import contract, cycles
from tests.azure.running import Running

SEEDS = (1, 2, 3)


@pytest.mark.parametrize("seed", SEEDS)
def test_cycles_of_submit_wait_and_register_survive_faults(running: Running, project: Path, seed: int) -> None:
    done = cycles.run(running, project, cycles=2, rate=0.15, seed=seed)
    assert done.thrown >= 3, "a die that throws nothing tests nothing"
    assert done.problems == []


@pytest.mark.parametrize("kind", ["401", "429", "500", "half"])
def test_a_refused_discovery_is_asked_for_again(running: Running, project: Path, kind: str) -> None:
    """The SDK reads the refusal as the list of endpoints and raises KeyError."""
    from edgeml.cli import main

    with cycles.hurried():
        running.cloud.fail(kind, lambda request: request.path == "/discovery", 2)
        assert main(["submit", "pipelines/train.yml"]) == 0
        job = next(iter(running.service.state.jobs))
        assert main(["wait", job, "--poll", "0"]) == 0
    assert set(running.cloud.thrown) == {kind}


def test_the_contract_finds_what_the_models_do_not_have() -> None:
    good = {
        "location": "x",
        "properties": {"computeType": "VirtualMachine", "properties": {"address": "a", "sshPort": 22}},
    }
    assert contract.errors("computes", "PUT", good) == []
    inner = good["properties"]["properties"]  # type: ignore[index]
    for change, said in (
        ({"adress": "a"}, "has no field 'adress'"),
        ({"sshPort": "22"}, "must be int, not str"),
        ({"sshPort": True}, "must be int, not bool"),
        ({"administratorAccount": "root"}, "must be an object, not str"),
    ):
        found = contract.errors(
            "computes", "PUT", {**good, "properties": {**good["properties"], "properties": {**inner, **change}}}
        )  # type: ignore[dict-item]
        assert len(found) == 1 and said in found[0]
    assert (
        "only the service writes it"
        in contract.errors("jobs", "PUT", {"properties": {"jobType": "Pipeline", "status": "Running"}})[0]
    )
    assert "lacks 'dataUri'" in contract.errors("data", "PUT", {"properties": {"dataType": "uri_folder"}})[0]
    assert contract.errors("jobs", "PATCH", {"a": 1}) != []


def test_an_upload_that_met_another_conflict_is_made_again(running: Running, project: Path, tmp_path: Path) -> None:
    """A blob that is there answers 409; so does a lease, or a container on its way out, and then nothing is there."""
    from edgeml import settings
    from edgeml.azure import models
    from edgeml.azure.workspace import Workspace

    (tmp_path / "model.onnx").write_bytes(b"a model of this test")
    sha256 = cycles.digest(tmp_path / "model.onnx")
    running.cloud.fail("409", lambda request: request.path.endswith("/model.onnx"))
    for created in (True, False):
        done = models.publish(
            Workspace(settings.load()), "m", sha256, str(tmp_path), {"model.sha256": sha256}, lambda _: None
        )
        assert done.created is created
    assert running.cloud.thrown == ["409"]
    assert running.container().download_blob(f"edgeml/models/{sha256}/model.onnx").readall() == b"a model of this test"
