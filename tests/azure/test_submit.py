"""`edgeml submit`, `wait` and `cancel` with the real SDK against the loopback cloud."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from edgeml.engine import snapshot
from edgeml.pipeline import resolve
from tests.azure import loop
from tests.azure.conftest import Edgeml
from tests.azure.running import Running
from tests.azure.server import Request
from tests.release_builder import run_folder

PIPELINE = "pipelines/train.yml"


def submit(edgeml: Edgeml, *arguments: str) -> str:
    code, out, err = edgeml("submit", PIPELINE, *arguments)
    assert code == 0, err
    return out.strip()


def started(running: Running, kind: str = "jobs") -> list[str]:
    return [r.path.rpartition("/")[2] for r in running.cloud.requests if r.method == "PUT" and f"/{kind}/" in r.path]


# ---- submitting -----------------------------------------------------------------------------------------------


def test_a_pipeline_is_submitted_with_no_request_made_twice(edgeml: Edgeml, running: Running, demo: Path) -> None:
    code, out, err = edgeml("submit", PIPELINE, "--json")
    assert code == 0, err
    told = json.loads(out)
    assert told["created"] and told["state"] == "running" and told["target"] == "edge-vm"
    assert told["studio"].startswith(f"https://ml.azure.{loop.SUFFIX}/runs/{told['job']}")
    assert list(running.service.state.jobs) == [told["job"]]
    # Each token is asked for with an assertion of its own, that is the point of it.
    asked = [r.key for r in running.cloud.requests if not r.host.startswith(("actions.", "login."))]
    assert [key for key, times in Counter(asked).items() if times > 1] == []


def test_what_is_uploaded_is_what_the_snapshot_lists(edgeml: Edgeml, running: Running, demo: Path) -> None:
    (demo / "components/train_model/__pycache__").mkdir()
    (demo / "components/train_model/__pycache__/x.pyc").write_text("x")
    (demo / "data").mkdir()
    (demo / "data/rows.csv").write_text("mrn,age\n1,2\n")
    try:
        submit(edgeml)
    finally:
        shutil.rmtree(demo / "data")
        shutil.rmtree(demo / "components/train_model/__pycache__")
    uploads = [r.path.split("/", 2)[1:] for r in running.cloud.requests if ".blob." in r.host and r.method == "PUT"]
    graph = resolve(PIPELINE)
    allowed = {
        name for s in graph.steps.values() for name, _ in snapshot.contents(s.component.code, s.component.includes)
    }
    code = {name for container, name in uploads if container != loop.CONTAINER}
    assert code == allowed | {"edgeml_stow.py", "blob_client.py"}
    own = {name for container, name in uploads if container == loop.CONTAINER}
    assert {Path(name).name for name in own} == {
        "breast_cancer.yml", "NO_CHAMPION", "Dockerfile", "environment.yml", "requirements.lock",
    }  # fmt: skip
    assert all(name.startswith("edgeml/") for name in own)


def test_the_same_again_is_the_same_job(edgeml: Edgeml, project: Path, running: Running) -> None:
    first = submit(edgeml)
    running.cloud.clear()
    code, out, err = edgeml("submit", PIPELINE)
    assert (code, out.strip()) == (0, first)
    assert "is there already: running" in err
    assert [r for r in running.cloud.requests if r.method != "GET" and not r.host.startswith("login")] == []
    assert submit(edgeml, "--input", "seed=7") != first
    assert len(running.service.state.jobs) == 2


def test_what_failed_is_tried_again_under_the_next_name(edgeml: Edgeml, project: Path, running: Running) -> None:
    running.service.plan = ["Failed"]
    first = submit(edgeml)
    assert edgeml("wait", first, "--poll", "0")[0] == 1
    assert submit(edgeml) == f"{first}-2"
    assert edgeml("wait", f"{first}-2", "--poll", "0")[0] == 1
    assert submit(edgeml) == f"{first}-3"


def test_a_machine_that_went_away_in_the_middle_ends_the_attempt_and_the_next_goes_on(
    edgeml: Edgeml, project: Path, running: Running
) -> None:
    """A VM that reboots under Azure ML's scheduler: the job is NotResponding there, and only a new one can run."""
    running.service.plan = ["Running", "NotResponding"]
    first = submit(edgeml)
    code, _, err = edgeml("wait", first, "--poll", "0")
    assert code == 1 and f"{first}: NotResponding" in err and f"{first}: failed" in err
    running.service.plan = ["Running", "Completed"]
    assert submit(edgeml) == f"{first}-2"
    assert edgeml("wait", f"{first}-2", "--poll", "0")[0] == 0


def sent(running: Running, job: dict[str, Any]) -> list[tuple[dict[str, Any], str]]:
    """Each node of a job with its component's command."""
    components = {
        f"{loop.WORKSPACE_ID}/components/{n}/versions/{v}": body
        for (kind, n, v), body in running.service.state.assets.items()
        if kind == "components"
    }
    nodes = job["jobs"].values()
    return [(node, components[node["componentId"]]["componentSpec"]["command"]) for node in nodes]


def test_private_steps_keep_what_they_print_and_write_in_the_private_storage(
    edgeml: Edgeml, project: Path, running: Running
) -> None:
    job = running.service.state.jobs[submit(edgeml)].body
    assert job["settings"]["default_compute"].endswith("/computes/edge-vm")
    assert "stackhub" not in json.dumps(job), "Azure ML, which may not reach it, is asked for nothing there"
    for _, command in sent(running, job):
        assert command.startswith("exec 3>&2; rm -rf /tmp/edgeml/train-")
    (train, _) = [command for _, command in sent(running, job)]
    assert "--model /tmp/edgeml/train-" in train and 'model="${{outputs.model}}"' in train
    assert {name for name, o in job["outputs"].items()} == {"release"}


def test_or_in_the_private_datastore_where_azure_ml_can_write_it(
    edgeml: Edgeml, project: Path, running: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = submit(edgeml)
    monkeypatch.setenv("EDGEML_COMPUTE_EDGE_VM_OUTPUTS", "datastore")
    other = submit(edgeml)
    assert first != other, "another place is another job"
    job = running.service.state.jobs[other].body
    assert job["settings"]["default_datastore"].endswith("/datastores/stackhub")
    for node, command in sent(running, job):
        assert command.startswith('mkdir -p "${{outputs.edgeml_log}}" && exec >>"${{outputs.edgeml_log}}/log.txt" 2>&1')
        assert node["outputs"]["edgeml_log"]["uri"].startswith("azureml://datastores/stackhub/paths/logs/")
    assert {name for name, o in job["outputs"].items()} == {"release"}


def test_a_release_says_its_commit_without_a_branch_and_without_a_token(
    edgeml: Edgeml, project: Path, running: Running
) -> None:
    properties = running.service.state.jobs[submit(edgeml)].body["properties"]
    assert properties["mlflow.source.git.repoURL"] == "https://github.example/hospital/edge.git"
    assert len(properties["mlflow.source.git.commit"]) == 40
    assert "mlflow.source.git.branch" not in properties
    assert "ghp_token" not in json.dumps([vars(job) for job in running.service.state.jobs.values()])


def test_in_a_workflow_the_ref_is_githubs(
    edgeml: Edgeml, project: Path, running: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GITHUB_REF_NAME", "v1")
    properties = running.service.state.jobs[submit(edgeml)].body["properties"]
    assert properties["mlflow.source.git.branch"] == "v1"


def edit(path: Path, old: str, new: str) -> Callable[[], None]:
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))
    return lambda: path.write_text(text) and None


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("default_datastore: azureml:stackhub", "default_datastore: azureml:workspaceblobstore", "output-outside"),
        (", default_datastore: azureml:stackhub", "", "output-outside"),
        ("${{parent.jobs.train.outputs.model}}", "${{parent.jobs.train.outputs.nothing}}", "no output"),
    ],
)
def test_a_pipeline_with_an_error_is_refused_before_azure_is_asked(
    edgeml: Edgeml, running: Running, project: Path, old: str, new: str, said: str
) -> None:
    undo = edit(project / PIPELINE, old, new)
    try:
        code, _, err = edgeml("submit", PIPELINE)
    finally:
        undo()
    assert code in (1, 2) and said in err
    assert running.cloud.requests == []


def test_a_target_that_the_policy_does_not_name_is_refused(edgeml: Edgeml, project: Path, running: Running) -> None:
    code, _, err = edgeml("submit", PIPELINE, "--target", "old-vm")
    assert code == 1 and "names no compute 'old-vm'; it names edge-vm" in err
    code, _, err = edgeml("submit", PIPELINE, "--target", "nobody")
    assert code == 2 and "has no [compute.nobody]; it has: edge-vm, old-vm" in err
    assert running.cloud.requests == []


def test_a_compute_that_is_not_attached_is_named_with_the_command(
    edgeml: Edgeml, project: Path, running: Running
) -> None:
    running.service.state.computes.clear()
    code, _, err = edgeml("submit", PIPELINE)
    assert code == 1 and "has no compute 'edge-vm'; run `edgeml compute attach edge-vm`" in err


def test_other_jobs_of_the_pipeline_are_cancelled_when_asked(edgeml: Edgeml, project: Path, running: Running) -> None:
    running.service.plan = ["Running"]
    old, new = submit(edgeml), submit(edgeml, "--input", "seed=7", "--supersede")
    assert running.service.state.jobs[old].plan == ["CancelRequested", "Canceled"]
    assert running.service.state.jobs[new].plan != ["CancelRequested", "Canceled"]


# ---- waiting ----------------------------------------------------------------------------------------------------


def release_on_completion(running: Running, project: Path) -> None:
    """What a finished job leaves in the workspace's storage: the files that the gate let out."""
    made = run_folder(project / ".edgeml/made/train-a")

    def put(name: str, job: Any) -> None:
        for file in (made / "outputs/release").resolve().iterdir():
            running.container().upload_blob(f"release/{name}/{file.name}", file.read_bytes(), overwrite=True)

    running.service.on_completed = put


def test_a_job_is_followed_to_its_end_and_its_release_registered(
    edgeml: Edgeml, running: Running, project: Path
) -> None:
    release_on_completion(running, project)
    running.service.plan = ["Queued", "Running", "Running", "Completed"]
    job = submit(edgeml)
    code, out, err = edgeml("wait", job, "--poll", "0")
    assert code == 0, err
    assert f"{job}: Running" in err and "  train: Completed" in err and f"{job}: completed" in err
    assert Path(out.strip()) == project / ".edgeml/runs" / job
    code, out, err = edgeml("register", job, "--to", "azureml", "--json")
    assert code == 0, err
    told = json.loads(out)
    (key,) = [key for key in running.service.state.assets if key[0] == "models"]
    assert key == ("models", "breast-cancer", told["sha256"][:16])
    model = running.service.state.assets[key]
    tags = model["tags"]
    assert tags["job"] == job and tags["model.sha256"] == told["sha256"] and tags["promotion.promote"] == "true"
    assert {"data.fingerprint", "contract.sha256", "egress.sha256", "git.commit", "metric.roc_auc"} <= tags.keys()
    assert tags["sandbox"] == "none"  # Azure ML ran it, and no sandbox of ours
    stored = {b.name.rpartition("/")[2] for b in running.container().list_blobs(f"edgeml/models/{told['sha256']}/")}
    assert {"model.onnx", "egress.json", "egress.sig"} <= stored
    # Once more: the same version, here and there.
    running.cloud.clear()
    code, out, _ = edgeml("register", job, "--to", "azureml", "--json")
    assert code == 0 and json.loads(out)["azureml_created"] is False
    assert started(running, "models") == []
    code, out, _ = edgeml("models", "trace", told["sha256"][:12], "--json")
    (traced,) = json.loads(out)
    assert (traced["model"], traced["job"]) == ("breast-cancer:1", job)
    assert traced["azureml"].endswith(f"/models/breast-cancer/versions/{told['sha256'][:16]}")
    for back in (job, traced["commit"][:10], traced["data"], "breast-cancer:1"):
        assert json.loads(edgeml("models", "trace", back, "--json")[1]) == [traced]
    code, _, err = edgeml("models", "trace", "f" * 12)
    assert code == 1 and "nothing here belongs to" in err


def test_at_the_deadline_waiting_ends_with_its_own_code_and_goes_on_the_next_time(
    edgeml: Edgeml, project: Path, running: Running
) -> None:
    running.service.plan = ["Running"]
    job = submit(edgeml)
    code, _, err = edgeml("wait", job, "--deadline", "0", "--poll", "0.01")
    assert code == 75 and f"`edgeml wait {job}` finds it again (exit code 75)" in err
    running.service.state.jobs[job].plan = ["Failed"]
    assert edgeml("wait", job, "--poll", "0")[0] == 1


def test_a_runner_that_did_not_submit_the_job_names_its_target(edgeml: Edgeml, running: Running, project: Path) -> None:
    running.service.plan = ["Failed"]
    job = submit(edgeml)
    shutil.rmtree(project / ".edgeml/jobs")
    code, _, err = edgeml("wait", job)
    assert code == 2 and "--target NAME" in err
    assert edgeml("wait", job, "--target", "edge-vm", "--poll", "0")[0] == 1
    assert edgeml("wait", "../x")[0] == 2
    code, _, err = edgeml("wait", "train-nobody", "--target", "edge-vm", "--poll", "0")
    assert code == 1 and "the workspace has no job train-nobody" in err


def jobs_only(request: Request) -> bool:
    return "/jobs/" in request.path


@pytest.mark.parametrize("kind", ["401", "404", "429", "500", "503", "reset", "lost", "half"])
def test_what_passes_is_waited_out(edgeml: Edgeml, project: Path, running: Running, kind: str) -> None:
    running.service.plan = ["Running", "Failed"]
    job = submit(edgeml)
    running.cloud.fail(kind, jobs_only, 2)
    assert edgeml("wait", job, "--poll", "0")[0] == 1
    assert running.cloud.thrown == [kind] * 2
    assert running.service.state.jobs[job].status == "Failed"


def test_a_busy_service_is_asked_again_when_it_says(edgeml: Edgeml, project: Path, running: Running) -> None:
    import time

    job = submit(edgeml)
    running.service.state.jobs[job].plan = ["Failed"]
    running.cloud.fail("429", jobs_only, 1, Retry_After="1")
    began = time.monotonic()
    assert edgeml("wait", job, "--poll", "0")[0] == 1
    assert time.monotonic() - began >= 1


def test_tokens_that_live_for_a_moment_are_asked_for_anew(edgeml: Edgeml, project: Path, running: Running) -> None:
    running.service.plan = ["Running", "Running", "Running", "Failed"]
    job = submit(edgeml)
    running.service.token_seconds = 2
    before = running.service.state.asked_github
    assert edgeml("wait", job, "--poll", "2.1")[0] == 1, "each look finds the token of the one before expired"
    assert running.service.state.asked_github >= before + 3


def test_without_the_right_to_an_identity_nothing_is_tried(
    edgeml: Edgeml, project: Path, running: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GITHUB_ACTIONS", "true")
    monkeypatch.delenv("ACTIONS_ID_TOKEN_REQUEST_URL")
    code, _, err = edgeml("submit", PIPELINE)
    assert code == 2 and "permissions: id-token: write" in err


def test_on_a_laptop_that_is_not_signed_in_one_sentence_says_so(
    edgeml: Edgeml, project: Path, running: Running, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for name in ("ACTIONS_ID_TOKEN_REQUEST_URL", "ACTIONS_ID_TOKEN_REQUEST_TOKEN"):
        monkeypatch.delenv(name)
    az = tmp_path / "az"
    az.write_text("#!/bin/sh\necho 'Please run az login to setup account.' >&2\nexit 1\n")
    az.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    code, _, err = edgeml("submit", PIPELINE)
    assert code == 1 and "signing in failed" in err and "run `az login`" in err
    assert running.service.state.jobs == {}


def test_a_job_is_cancelled(edgeml: Edgeml, project: Path, running: Running) -> None:
    running.service.plan = ["Running", "Running"]
    job = submit(edgeml)
    code, _, err = edgeml("cancel", job)
    assert code == 0 and f"{job}: cancelled" in err
    assert edgeml("wait", job, "--poll", "0")[0] == 1
    assert running.service.state.jobs[job].status == "Canceled"
    code, _, err = edgeml("cancel", job)
    assert code == 0 and "cancelled" not in err.replace("has ended", "")


# ---- bad input ---------------------------------------------------------------------------------------------------

SENTENCES = {
    "wrong subscription": "there is no subscription 99999999-9999-9999-9999-999999999999 that this identity sees",
    "no permission": "this identity may not do 'Microsoft.MachineLearningServices/workspaces/jobs/write'",
    "workspace gone": "there is no workspace 'edge-training' in 'edge'; check azure.workspace",
    "no such application": "signing in failed",
}


@pytest.mark.parametrize("title", SENTENCES)
def test_what_is_wrong_with_the_workspace_is_one_sentence(
    edgeml: Edgeml, project: Path, running: Running, monkeypatch: pytest.MonkeyPatch, title: str
) -> None:
    if title == "wrong subscription":
        monkeypatch.setenv("EDGEML_AZURE_SUBSCRIPTION_ID", "99999999-9999-9999-9999-999999999999")
    elif title == "no permission":
        running.service.denied = ("PUT", "jobs")
    elif title == "workspace gone":
        running.service.gone = True
    else:
        monkeypatch.setenv("EDGEML_AZURE_CLIENT_ID", "66666666-6666-6666-6666-666666666666")
    code, _, err = edgeml("submit", PIPELINE)
    assert code == 1
    assert SENTENCES[title] in err.replace("may not do Micro", "may not do 'Micro").replace("write;", "write';")
    assert "Traceback" not in err and running.service.state.jobs == {}
