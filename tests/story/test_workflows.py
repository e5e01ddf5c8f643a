"""Workflows beside the story: the cloud half's, what becomes of a failure, and what act cannot enforce."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.azure import loop
from tests.azure.conftest import TARGETS, committed
from tests.azure.running import Running, started
from tests.azure.sshd import sshd
from tests.conftest import ROOT
from tests.story.act import Ran, Runner, furnish
from tests.story.fork import deploy_key
from tests.whole import whole

WORKFLOWS = {
    path.name: yaml.load(path.read_text(), yaml.BaseLoader) for path in (ROOT / ".github/workflows").glob("*.yml")
}
PARTS = (".github", "Makefile", "components", "contracts", "edgeml", "environments", "pipelines", "pyproject.toml",
         "requirements", "tests/fork")  # fmt: skip
CACHES = shutil.ignore_patterns("__pycache__")
ON_THIS_MACHINE = TARGETS.replace("203.0.113.7", "127.0.0.1")


class Cloud:
    """A fork whose targets are Azure ML's, on the loopback Azure."""

    def __init__(self, folder: Path, running: Running, port: int, host_key: str) -> None:
        self.folder, self.running = folder, running
        self.runner = Runner(
            folder / "runner",
            environment=running.cloud.environment(),
            secrets={"EDGEML_SSH_KEY": deploy_key(folder), "GITHUB_TOKEN": "ghs_" + "t" * 36},
            variables={"EDGEML_TARGET": "edge-vm"},
        )
        self.project = folder / "project"
        self.project.mkdir()
        for name in PARTS:
            source, target = ROOT / name, self.project / name
            target.parent.mkdir(exist_ok=True)
            (shutil.copytree(source, target, ignore=CACHES) if source.is_dir() else shutil.copy2(source, target))
        committed(self.project, ON_THIS_MACHINE + f'port = {port}\nhost_key = "{host_key}"\n')
        furnish(self.project, self.runner, ROOT / ".edgeml")

    def act(self, workflow: str, event: str, **inputs: str) -> Ran:
        given = {key: loop.SETTINGS[key] for key in loop.SETTINGS if key.startswith("ACTIONS_")}
        payload = {"ref": "refs/heads/main", "inputs": inputs}
        return self.runner.run(self.project, workflow, event, payload, **given)


@pytest.fixture(scope="module")
def cloud(storage_install: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cloud]:
    folder = tmp_path_factory.mktemp("cloud")
    with started(storage_install, folder) as running, sshd(folder) as server:
        running.provide()
        yield Cloud(folder, running, server.port, server.host_key)
        assert (running.service.wrong, running.cloud.strangers) == ([], [])


def test_a_target_is_attached_given_another_key_looked_at_and_detached_by_hand(cloud: Cloud) -> None:
    computes = cloud.running.service.state.computes
    for action, said in (("attach", "was attached"), ("rotate", "was attached anew"), ("detach", "was detached")):
        ran = cloud.act("edge.yml", "workflow_dispatch", action=action, target="old-vm")
        assert ran.jobs == {"edge": "success"} and f"old-vm {said}" in ran.said("edge"), ran.raw
        assert ("old-vm" in computes) == (action != "detach")
    ran = cloud.act("edge.yml", "workflow_dispatch", action="check", target="old-vm")
    assert ran.jobs == {"edge": "failure"} and "no compute target of kind edge" in ran.said("edge"), ran.raw
    private = cloud.runner.secrets["EDGEML_SSH_KEY"].splitlines()[1]
    assert private not in ran.raw
    lines = {step["run"] for step in WORKFLOWS["edge.yml"]["jobs"]["edge"]["steps"] if "run" in step}
    assert lines <= {line for workflow, _, line in cloud.runner.succeeded if workflow == "edge.yml"}


@whole("takes 25 s by act")
def test_a_training_that_fails_in_azure_releases_nothing(cloud: Cloud) -> None:
    cloud.running.service.plan = ["Running", "Failed"]
    ran = cloud.act("train.yml", "push")
    assert ran.jobs == {"submit": "success", "wait": "failure"}, ran.raw
    (job,) = cloud.running.service.state.jobs
    assert f"{job}: failed" in ran.said("wait") and ran.code != 0


def test_a_fork_without_a_target_trains_nothing(cloud: Cloud, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cloud.runner, "variables", {})
    before = len(cloud.running.cloud.requests)
    for workflow, event in (("train.yml", "push"), ("monitor.yml", "schedule")):
        ran = cloud.act(workflow, event)
        assert (ran.code, ran.steps) == (0, []), ran.raw
    assert len(cloud.running.cloud.requests) == before


def test_one_line_that_breaks_turns_the_required_check_red(cloud: Cloud) -> None:
    """Also where it is the last of a job, and the other jobs are green."""
    checkout = cloud.folder / "broken"
    shutil.copytree(cloud.project, checkout, symlinks=True)
    every = ("setup", "lint", "test", "demo", "story", "test-whole")
    for target in ("lint", "test", "demo"):  # their work is the story's; here only what becomes of them counts
        lines = [f"{each}:\n\t@{'false' if each == target else 'true'}\n" for each in every]
        (checkout / "Makefile").write_text("\n".join(lines))
        payload = {"ref": "refs/heads/main", "pull_request": {"number": 1}}
        ran = cloud.runner.run(checkout, "check.yml", "pull_request", payload)
        red = {name for name, result in ran.jobs.items() if result == "failure"}
        assert set(ran.jobs) == {"lint", "test", "demo", "pass"} and red == {target, "pass"}, ran.raw
        assert ran.code != 0


# --- what act does not enforce, read from the YAML -----------------------------------------------------


def jobs() -> Iterator[tuple[str, str, dict[str, Any]]]:
    for workflow, document in WORKFLOWS.items():
        for name, job in document["jobs"].items():
            yield workflow, name, job


def test_each_job_has_the_rights_that_it_needs_and_no_more() -> None:
    assert {name: document["permissions"] for name, document in WORKFLOWS.items()} == {name: {} for name in WORKFLOWS}
    read, write = "read", "write"
    base = {"contents": read}
    expected = {
        ("check.yml", "lint"): base,
        ("check.yml", "test"): base,
        ("check.yml", "demo"): base,
        ("deploy.yml", "sites"): base,
        ("deploy.yml", "deploy"): {
            **base, "checks": read, "deployments": write, "id-token": write, "pull-requests": read, "statuses": read,
        },
        ("edge.yml", "edge"): {**base, "id-token": write},
        ("monitor.yml", "sites"): {**base, "issues": write},
        **{("template.yml", name): base for name in ("fork", "story", "whole")},
        ("train.yml", "submit"): {**base, "id-token": write},
        ("train.yml", "wait"): {**base, "actions": write, "id-token": write},
        ("train.yml", "release"): {
            "actions": write, "contents": write, "deployments": read, "id-token": write, "pull-requests": write,
        },
    }  # fmt: skip
    assert {(w, n): job["permissions"] for w, n, job in jobs() if "permissions" in job} == expected


def test_whoever_signs_in_or_holds_a_secret_is_in_an_environment() -> None:
    for workflow, name, job in jobs():
        confidential = "secrets." in str(job) or job.get("permissions", {}).get("id-token") == "write"
        assert ("environment" in job) == confidential, f"{workflow}: {name}"
    assert WORKFLOWS["deploy.yml"]["jobs"]["deploy"]["environment"] == "${{ matrix.site }}"


def test_no_deployment_is_cancelled_and_sites_take_turns() -> None:
    for name in ("train.yml", "deploy.yml", "edge.yml", "monitor.yml"):
        assert WORKFLOWS[name]["concurrency"]["cancel-in-progress"] == "false"
    assert WORKFLOWS["deploy.yml"]["concurrency"]["group"] == "deploy"
    strategy = WORKFLOWS["deploy.yml"]["jobs"]["deploy"]["strategy"]
    assert (strategy["fail-fast"], strategy["max-parallel"]) == ("true", "1")


def test_what_starts_each_workflow() -> None:
    starts = {name: document["on"] for name, document in WORKFLOWS.items()}
    assert set(starts["check.yml"]) == {"pull_request", "push", "workflow_dispatch"}
    assert starts["check.yml"]["pull_request"] == "", "every pull request, whatever it touches"
    assert starts["deploy.yml"] == {"push": {"tags": ["v[0-9]+.[0-9]+.[0-9]+"]}}
    assert starts["train.yml"]["push"]["branches"] == ["main"]
    assert "deployments/**" not in starts["train.yml"]["push"]["paths"], "a promotion trains nothing"
    assert set(starts["edge.yml"]) == {"workflow_dispatch"}
    assert set(starts["monitor.yml"]) == {"schedule", "workflow_dispatch"}


def test_every_job_ends_by_itself_and_pass_needs_all_others() -> None:
    assert [f"{w}: {n}" for w, n, job in jobs() if not 1 <= int(job["timeout-minutes"]) <= 360] == []
    check = WORKFLOWS["check.yml"]["jobs"]
    assert set(check["pass"]["needs"]) == set(check) - {"pass"} and check["pass"]["if"] == "always()"
