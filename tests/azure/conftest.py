"""One loopback cloud for all tests of the cloud half, and projects that are a fork's checkout."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from edgeml.cli import main
from tests.azure.running import Running, started

ROOT = Path(__file__).resolve().parents[2]
Edgeml = Callable[..., tuple[int, str, str]]
TARGETS = """
[registry]
model = "breast-cancer"

[compute.edge-vm]
kind = "kubernetes"
resource_id = "/subscriptions/s/resourceGroups/stamp/providers/Microsoft.Kubernetes/connectedClusters/hub"

[compute.old-vm]
kind = "vm"
address = "203.0.113.7"
user = "trainer"
"""
# The least that has a private step, a gate, a local input, code, an environment and a cloud output.
SMALL = {
    "contracts/residency.yml": (
        "private: [stackhub]\ncloud: [workspaceblobstore]\nrelease: [release_artifacts]\ncomputes: [edge-vm]\n"
        "regions: [westeurope]\nregistries: [docker.io]\n"
    ),
    "pipelines/limits.yml": "k: 10\n",
    "pipelines/train.yml": """type: pipeline
display_name: Small
experiment_name: small
settings: {default_compute: azureml:edge-vm, default_datastore: azureml:stackhub}
inputs:
  seed: 1
  limits: {type: uri_file, path: ./limits.yml}
outputs:
  release: {type: uri_folder, path: "azureml://datastores/workspaceblobstore/paths/release/${{name}}"}
jobs:
  train:
    type: command
    component: ../components/train/component.yml
    inputs: {seed: "${{parent.inputs.seed}}", limits: "${{parent.inputs.limits}}"}
  release_artifacts:
    type: command
    component: ../components/release_artifacts/component.yml
    inputs: {model: "${{parent.jobs.train.outputs.model}}"}
    outputs: {release: "${{parent.outputs.release}}"}
""",
    "components/train/component.yml": """type: command
name: train
version: "1"
tags: {edgeml.needs: storage}
inputs: {seed: {type: integer}, limits: {type: uri_file}}
outputs: {model: {type: uri_folder}}
code: .
environment: azureml:edgeml-training:VERSION
command: python train.py --seed ${{inputs.seed}} --limits ${{inputs.limits}} --model ${{outputs.model}}
""",
    "components/train/train.py": """import argparse

parser = argparse.ArgumentParser()
for name in ("--seed", "--limits", "--model"):
    parser.add_argument(name)
parser.parse_args()
""",
    "components/release_artifacts/component.yml": """type: command
name: release_artifacts
version: "1"
inputs: {model: {type: uri_folder}}
outputs: {release: {type: uri_folder}}
environment: azureml:edgeml-training:VERSION
command: cp -r ${{inputs.model}}/. ${{outputs.release}}
""",
}


@pytest.fixture(scope="session")
def running(storage_install: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    with started(storage_install, tmp_path_factory.mktemp("cloud")) as made:
        yield made


@pytest.fixture(scope="session")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("small")
    shutil.copytree(ROOT / "environments", folder / "environments")
    lines = (ROOT / "environments/training/environment.yml").read_text().splitlines()
    version = next(line.split('"')[1] for line in lines if line.startswith("version:"))
    for name, text in SMALL.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text.replace("VERSION", version))
    return committed(folder)


@pytest.fixture(scope="session")
def full(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The pipeline of the demo, and all that it is made of."""
    folder = tmp_path_factory.mktemp("full")
    for name in ("pipelines", "components", "contracts", "environments", "edgeml"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__", "*.egg-info"))
    return committed(folder)


def committed(folder: Path, targets: str = TARGETS) -> Path:
    """The folder as a release's checkout has it: a tag, no branch, and a remote with a token in it."""
    (folder / "edgeml.toml").write_text(targets)
    (folder / ".gitignore").write_text(".edgeml/\n__pycache__/\n")
    for command in (
        ["init", "-q", "-b", "main"],
        ["remote", "add", "origin", "https://user:ghp_token@github.example/hospital/edge.git"],
        ["add", "-A"],
        ["-c", "user.name=t", "-c", "user.email=t@example.org", "commit", "-qm", "all"],
        ["tag", "v1"],
        ["checkout", "-q", "v1"],
    ):
        subprocess.run(["git", "-C", str(folder), *command], check=True)
    return folder


@pytest.fixture
def project(small: Path, running: Running, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The small project with nothing run yet, signed in to a new workspace that has its target and its datastore."""
    yield from entered(small, running, monkeypatch)


@pytest.fixture
def demo(full: Path, running: Running, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The same with the demo's pipeline."""
    yield from entered(full, running, monkeypatch)


def entered(folder: Path, running: Running, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    shutil.rmtree(folder / ".edgeml", ignore_errors=True)
    (folder / ".edgeml").mkdir()
    for name in [name for name in os.environ if name.startswith(("EDGEML_", "GITHUB_", "ACTIONS_", "MLFLOW_"))]:
        monkeypatch.delenv(name)
    for name, value in running.cloud.environment().items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("AZUREML_CURRENT_CLOUD", "")  # the SDK sets it, and every test after would be in this cloud
    monkeypatch.delenv("AZUREML_CURRENT_CLOUD")
    monkeypatch.chdir(folder)
    running.reset()
    running.provide()
    yield folder
    assert running.service.wrong == [], "the SDK was made to send what the service's own models do not have"
    assert running.cloud.strangers == [], "something outside of the loopback cloud was asked for"


@pytest.fixture
def edgeml(capsys: pytest.CaptureFixture[str]) -> Edgeml:
    """The command: exit code, standard output, standard error."""

    def call(*arguments: str) -> tuple[int, str, str]:
        capsys.readouterr()
        code = main(list(arguments))
        said = capsys.readouterr()
        return code, said.out, said.err

    return call
