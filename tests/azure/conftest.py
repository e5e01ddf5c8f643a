"""One loopback cloud for all tests of the cloud half, and a project that is a fork's checkout."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.azure.running import Running, started

ROOT = Path(__file__).resolve().parents[2]
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


@pytest.fixture(scope="session")
def running(storage_install: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    with started(storage_install, tmp_path_factory.mktemp("cloud")) as made:
        yield made


@pytest.fixture(scope="session")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What a pipeline is made of, committed, with a tag and without a branch as a release's checkout has it."""
    folder = tmp_path_factory.mktemp("repository")
    for name in ("pipelines", "components", "contracts", "environments", "edgeml"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__", "*.egg-info"))
    # The gate's snapshot is a hundred files; what is uploaded is tested with the few at its top.
    (folder / "edgeml/.amlignore").write_text("*/\n")
    (folder / "edgeml.toml").write_text(TARGETS)
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
def project(repository: Path, running: Running, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The repository with nothing run yet, signed in to a new workspace that has the pipeline's target and datastore."""
    shutil.rmtree(repository / ".edgeml", ignore_errors=True)
    (repository / ".edgeml").mkdir()
    for name in [name for name in os.environ if name.startswith(("EDGEML_", "GITHUB_", "ACTIONS_", "MLFLOW_"))]:
        monkeypatch.delenv(name)
    for name, value in running.cloud.environment().items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("AZUREML_CURRENT_CLOUD", "")  # the SDK sets it, and every test after would be in this cloud
    monkeypatch.delenv("AZUREML_CURRENT_CLOUD")
    monkeypatch.chdir(repository)
    running.reset(keep=("codes", "environments"))  # uploaded once: what they are follows from their content
    running.provide()
    yield repository
    assert running.service.wrong == [], "the SDK was made to send what the service's own models do not have"
    assert running.cloud.strangers == [], "something outside of the loopback cloud was asked for"
