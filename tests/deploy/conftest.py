"""A site on this machine: a real docker daemon and registry, two real images of ours in it, and two broken ones."""

from __future__ import annotations

import json
import os
import random
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from edgeml.cli import main
from edgeml.image import golden, oci, packaging, runtime, signature, verification
from edgeml.image.remote import Remote
from edgeml.infra import template
from tests.azure import loop
from tests.azure.server import Cloud
from tests.azure.service import Service
from tests.engine.daemon import Daemon, started
from tests.images import Released, Running, inside
from tests.infra.conftest import GIVEN
from tests.release_builder import run_folder

ROOT = Path(__file__).parents[2]
MODEL = "breast-cancer"
NOW = "{health_seconds: 0}"


@dataclass(frozen=True)
class World:
    """What deployments need. `first` and `second` are good images, `dies` ends at once, all signed."""

    daemon: Daemon
    registry: str
    project: Path
    first: str
    second: str
    dies: str
    unsigned: str
    golden: dict[str, dict[str, Any]]
    key: str
    environment: dict[str, str]


def free_port(run: int = 1) -> int:
    """A port with as many free ones after it as asked for, below those that the system gives to whoever wants any: a
    site's rule leads all of this machine's requests to its port elsewhere."""
    while True:
        port = random.randrange(20_000, 32_000)
        if all(_is_free(port + more) for more in range(run)):
            return port


def _is_free(port: int) -> bool:
    with socket.socket() as tried:
        try:
            tried.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


@pytest.fixture
def world(made_once: World, monkeypatch: pytest.MonkeyPatch) -> World:
    """The session's world, with its project as the working directory and its variables."""
    monkeypatch.chdir(made_once.project)
    for name, value in made_once.environment.items():
        monkeypatch.setenv(name, value)
    return made_once


@pytest.fixture(scope="session")
def made_once(start_registry: Callable[[Path], Running], tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    if not shutil.which("nft"):
        install = ["apt-get", "install", "--yes", "--no-install-recommends", "nftables"]
        subprocess.run(install, env={**os.environ, "DEBIAN_FRONTEND": "noninteractive"}, capture_output=True)
    if not shutil.which("nft") or os.geteuid() != 0:
        pytest.skip("leading traffic from one container to another needs nftables and root")
    folder = tmp_path_factory.mktemp("world")
    project = folder / "project"
    parts = ROOT / ".edgeml/image/parts"  # what images are made of: fetched once for a checkout
    parts.mkdir(parents=True, exist_ok=True)
    (project / ".edgeml/image").mkdir(parents=True)
    (project / ".edgeml/image/parts").symlink_to(parts)
    (project / "edgeml.toml").write_text(f'[registry]\nmodel = "{MODEL}"\n')
    shutil.copytree(ROOT / "environments", project / "environments")
    host = start_registry(folder / "registry").host
    with started() as daemon:
        environment = daemon.environment | {"EDGEML_TRUSTED": str(folder / "trusted"), "HOME": str(folder)}
        with pytest.MonkeyPatch.context() as patch:
            patch.chdir(project)
            for name, value in environment.items():
                patch.setenv(name, value)
            made = [_packaged(project, host, task) for task in ("classification", "regression")]
            shutil.copytree(_keys(project), folder / "trusted")
            goldens = {image.reference: _golden(image) for image in made}
            first, second = goldens
            dies = _pushed(daemon, host, "dies", 'ENTRYPOINT ["bash", "-c", "exit 3"]', sign=True)
            unsigned = _pushed(daemon, host, "unsigned", 'ENTRYPOINT ["bash", "-c", "exit 0"]', sign=False)
        key = (folder / "trusted" / "key.pub").read_text()
        yield World(daemon, host, project, first, second, dies, unsigned, goldens, key, environment)


def _packaged(project: Path, host: str, task: str) -> packaging.Packaged:
    from edgeml import registry as models

    run = run_folder(project / ".edgeml" / "runs" / task, task=task)
    version, _ = models.register(str(run))
    return packaging.package(str(version), registry=host, say=lambda line: print(line, file=sys.stderr))


def _keys(project: Path) -> Path:
    folder = project / "deployments" / "trusted"
    folder.mkdir(parents=True)
    shutil.copy(project / ".edgeml" / "image" / signature.PUBLIC_KEY, folder)
    return folder


def _golden(image: packaging.Packaged) -> dict[str, Any]:
    where = verification.store(image.reference.partition("@")[0])
    (document,) = oci.attached(where, image.digest, verification.GOLDEN)
    found = golden.of(document).document()
    return {"model": image.model.partition(":")[0], "inputs": found["inputs"], "outputs": found["outputs"]}


def _pushed(daemon: Daemon, host: str, name: str, change: str, *, sign: bool) -> str:
    tag = f"{host}/test/{name}:1"
    daemon.add_image(tag, change)
    daemon.docker("push", "--quiet", tag)
    (reference,) = daemon.docker("inspect", '--format={{join .RepoDigests " "}}', tag).split()
    daemon.docker("rmi", "--force", tag)
    if sign:
        signature.sign(Remote(host, f"test/{name}"), reference.partition("@")[2], signature.key(""))
    return reference


@dataclass(frozen=True)
class InAzure:
    """The loopback Azure, and the scoring servers that images of it are, HOST:PORT by reference."""

    cloud: Cloud
    service: Service
    servers: dict[str, str]


@pytest.fixture(scope="session")
def azure_once(released: Released, tmp_path_factory: pytest.TempPathFactory) -> Iterator[InAzure]:
    service = Service("")
    cloud = Cloud(service, tmp_path_factory.mktemp("cloud"), 0)
    with ExitStack() as servers:
        servers.callback(cloud.close)
        addresses = {}
        for image in (released.first, released.second):
            with inside(released.project):
                from edgeml import registry as models

                folder, port = models.path(models.find(image.model)), free_port()
                servers.enter_context(runtime.serving(None, folder, image.model.partition(":")[0], port))
            addresses[image.reference] = f"127.0.0.1:{port}"
        yield InAzure(cloud, service, addresses)


@pytest.fixture
def in_azure(
    azure_once: InAzure, released: Released, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[InAzure]:
    """An empty workspace, and a project that trusts who signed the images; the working directory."""
    for name in [name for name in os.environ if name.startswith(("EDGEML_", "GITHUB_", "ACTIONS_"))]:
        monkeypatch.delenv(name)
    for name, value in azure_once.cloud.environment().items():
        monkeypatch.setenv(name, value)
    for module in ("edgeml.azure.arm", "edgeml.gitops.sites.azure"):
        monkeypatch.setattr(f"{module}.PAUSE", 0.01)
    (tmp_path / "deployments/trusted").mkdir(parents=True)
    shutil.copy(released.key, tmp_path / "deployments/trusted")
    monkeypatch.chdir(tmp_path)
    azure_once.cloud.clear()
    azure_once.service.reset()
    yield azure_once
    assert azure_once.service.wrong == [], "a body that the service's own models do not have"
    golden_requests = [each for each in azure_once.cloud.requests if each.path == "/score"]
    assert all(each.json()["id"] == golden.ID for each in golden_requests), "counted as a prediction of a patient"
    assert azure_once.cloud.strangers == [], "something outside of the loopback cloud was asked for"


def granted(role: str, **parameters: Any) -> frozenset[str]:
    """The actions of a role of infra/azure/main.json; none where these parameters do not make it."""
    main, values = template.load(ROOT / "infra/azure/main.json"), {"workspace": loop.WORKSPACE, **GIVEN["azure"]}
    made = template.evaluate(main, values | parameters, template.Place(loop.SUBSCRIPTION, loop.GROUP, loop.LOCATION))
    for one in made.resources:
        facts = one.body.get("properties", {})
        if one.type.endswith("/roleDefinitions") and facts["roleName"] == f"edgeml {role} {loop.WORKSPACE}":
            return frozenset(facts["permissions"][0]["actions"])
    return frozenset()


class AzureSite:
    """A project with one site in the loopback Azure, and `edgeml` as users call it. Kinds add what they look at."""

    name: str
    kind: str

    def __init__(self, world: InAzure, released: Released, capsys: pytest.CaptureFixture[str]) -> None:
        self.world, self.released, self.capsys = world, released, capsys
        self.first, self.second = released.first, released.second

    def edgeml(self, *arguments: str, json_too: bool = True) -> tuple[int, Any, str]:
        self.capsys.readouterr()
        code = main([*arguments, *(["--json"] if json_too else [])])
        said = self.capsys.readouterr()
        return code, json.loads(said.out or "{}") if json_too else said.out, said.err

    def wants(self, packaged: packaging.Packaged, rollout: str = NOW) -> None:
        record = self.released.record(self.name, self.kind, packaged, rollout)
        Path(f"deployments/{self.name}.yml").write_text(record)

    def deploy(self, packaged: packaging.Packaged, rollout: str = NOW) -> tuple[int, Any, str]:
        self.wants(packaged, rollout)
        return self.edgeml("deploy", self.name, "--ungated")
