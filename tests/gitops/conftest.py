"""A project, its repository on a loopback GitHub, and a registry that holds what the records name."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from edgeml.gitops import github
from edgeml.gitops import images as registries
from edgeml.gitops.gate import Decision, decide
from edgeml.gitops.images import Image
from edgeml.gitops.record import Record
from tests.conftest import ROOT
from tests.gitops.api import Api, description
from tests.gitops.hub import BOT, NAME, OWNER, Hub, Pull
from tests.gitops.serve import TOKEN, serving
from tests.release_builder import read_json, reseal, run_folder, write_json

SETTINGS = '[registry]\nmodel = "breast-cancer"\n[sites]\norder = ["staging", "production"]\n'


@dataclass
class Shelf:
    """Images that are as their records say, where only people are asked; test_images.py has a real registry."""

    images: dict[str, Image] = field(default_factory=dict)

    def put(self, record: Record) -> None:
        self.images[record.image] = Image(registries.labels(record), 175_000_000)

    def find(self, reference: str) -> Image | None:
        return self.images.get(reference)

    def verify(self, reference: str) -> None:
        """Signed, all of them."""


def record_text(site: str, model: int, **changes: str) -> str:
    """A record of a model; all that differs between models is a digit."""
    digit = f"{model:x}"[-1]
    text = (
        f"site: {site}\nkind: edge-vm\nmodel: {{name: breast-cancer, version: '{model}'}}\n"
        f"image: registry.example/scoring@sha256:{digit * 64}\n"
        f"evidence:\n  job: train-{model}\n  commit: '{'c' * 39}{digit}'\n  data: sha256:{'d' * 63}{digit}\n"
        f"  gate: sha256:{'e' * 63}{digit}\n  metrics:\n    roc_auc: {{value: 0.99, low: 0.98, high: 1.0}}\n"
        "  verdict: {promote: true}\n"
    )
    for key, value in changes.items():
        text += f"{key}: {value}\n"
    return text


@dataclass
class Story:
    """A hub, a registry, and the ways in which a change travels through them."""

    hub: Hub
    shelf: Shelf

    def record(self, site: str, model: int) -> Record:
        from edgeml.gitops import remote

        record = remote.read({f"deployments/{site}.yml": record_text(site, model)}, site)
        self.shelf.put(record)
        return record

    def propose(self, site: str, model: int, author: str = BOT, **more: str) -> Pull:
        """A pull request with a record, its checks green, not approved."""
        self.record(site, model)
        self.hub.push(author, {f"deployments/{site}.yml": record_text(site, model), **more}, f"change-{site}-{model}")
        pull = self.hub.open(author, f"change-{site}-{model}")
        self.hub.check(pull)
        self.hub.check(pull, "lint", "neutral")
        return pull

    def release(self, site: str, model: int, tag: str, method: str = "merge") -> Pull:
        """The whole good way: proposed by a bot, approved by a person, merged, tagged."""
        pull = self.propose(site, model)
        self.hub.review("ada", pull)
        self.hub.merge(pull, method)
        self.hub.tag(tag)
        return pull

    def gate(self, site: str, tag: str) -> Decision:
        return decide(site, tag, images=self.shelf)

    def reasons(self, site: str, tag: str) -> list[str]:
        refusals = self.gate(site, tag).refusals
        print(*refusals, sep="\n")  # with their causes, where a test fails
        return [refusal.reason for refusal in refusals]


@pytest.fixture(scope="session")
def api() -> Api:
    """GitHub's description, installed and reduced once."""
    return Api(description(ROOT / ".edgeml"))


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """State of a project in which `train-good` passed and `train-poor` did not, both registered: versions 1 and 2."""
    project = tmp_path_factory.mktemp("trained")
    (project / "edgeml.toml").write_text(SETTINGS)
    begun = Hub(tmp_path_factory.mktemp("begun") / "hub.git").begin(SETTINGS)
    (project / ".edgeml" / "runs").mkdir(parents=True)
    for name in ("train-good", "train-poor"):
        run = run_folder(project / ".edgeml" / "runs" / name)
        write_json(run / "run.json", read_json(run / "run.json") | {"git": {"commit": begun, "dirty": False}})
    _another_model((run / "outputs" / "release").resolve())
    why = "agreed with | the `officer` @all"
    code = f"from edgeml import registry as r; r.register('train-good'); r.register('train-poor', override={why!r})"
    done = subprocess.run([sys.executable, "-c", code], cwd=project, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return project / ".edgeml"


def _another_model(release: Path) -> None:
    """Make of a release that of another model, which no verdict recommends, with its own lineage and seal."""
    import onnx

    model = onnx.load(release / "model.onnx")
    model.metadata_props.add(key="other", value="yes")
    (release / "model.onnx").write_bytes(model.SerializeToString())
    lineage = read_json(release / "lineage.json")
    lineage["model"]["sha256"] = hashlib.sha256((release / "model.onnx").read_bytes()).hexdigest()
    write_json(release / "lineage.json", lineage)
    verdict = read_json(release / "promotion.json") | {"promote": False, "reasons": ["it is not better"]}
    write_json(release / "promotion.json", verdict)
    reseal(release)


@pytest.fixture
def story(api: Api, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Story]:
    """A repository with nothing deployed yet, on a loopback GitHub, and a project that points there."""
    for name in [name for name in os.environ if name.startswith(("EDGEML_", "GITHUB_", "MLFLOW_"))]:
        monkeypatch.delenv(name)
    project = tmp_path / "project"
    project.mkdir()
    (project / "edgeml.toml").write_text(SETTINGS)
    (project / ".edgeml").mkdir()
    hub = Hub(tmp_path / "hub.git")
    hub.begin(SETTINGS)
    monkeypatch.chdir(project)
    made = Story(hub, Shelf())
    monkeypatch.setattr(registries, "default", lambda: made.shelf)
    monkeypatch.setattr(github, "PAUSE", 0.01)
    with serving(hub, api) as url:
        monkeypatch.setenv("GITHUB_TOKEN", TOKEN)
        monkeypatch.setenv("GITHUB_API_URL", url)
        monkeypatch.setenv("GITHUB_REPOSITORY", f"{OWNER}/{NAME}")
        yield made
    assert hub.breaches == []


def broken(status: int, body: Any = b"", headers: dict[str, str] | None = None, path: str = "") -> Any:
    """A fault: this answer to every request whose path holds `path`."""
    return lambda method, where: (status, body, headers) if path in where else None
