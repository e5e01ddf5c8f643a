"""A project with registered models, their images, and a registry that holds them: each made once a session, for all."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from edgeml import image, registry
from edgeml.errors import EdgemlError
from edgeml.image import base, signature, verification
from edgeml.image.golden import Golden
from edgeml.image.packaging import Packaged, layout
from tests.release_builder import run_folder
from tests.sandbox.private import install

ROOT = Path(__file__).resolve().parents[1]
MODEL, OTHER = "breast-cancer:1", "stay:1"


@contextlib.contextmanager
def inside(folder: Path) -> Iterator[None]:
    """Work in a project, without a docker daemon unless a test names one."""
    kept, docker = Path.cwd(), os.environ.get("DOCKER_HOST")
    os.chdir(folder)
    os.environ.setdefault("DOCKER_HOST", "unix:///nonexistent")
    try:
        yield
    finally:
        os.chdir(kept)
        if docker is None:
            del os.environ["DOCKER_HOST"]


def empty_project(folder: Path, parts: Path) -> Path:
    """A project as a fork has it, which shares what images are made of."""
    (folder / ".edgeml/image").mkdir(parents=True)
    (folder / ".edgeml/image/parts").symlink_to(parts)
    (folder / "edgeml.toml").write_text('[registry]\nmodel = "breast-cancer"\n')
    shutil.copytree(ROOT / "environments", folder / "environments")
    shutil.copytree(ROOT / "contracts", folder / "contracts")
    return folder


@pytest.fixture(scope="session")
def parts() -> Path:
    """This checkout's own parts: the wheels and the base are fetched once, not once for each session."""
    folder = ROOT / ".edgeml/image/parts"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


@pytest.fixture(scope="session")
def image_project(parts: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two registered models, of classification and of regression, and a base that can be made on this machine."""
    install()
    folder = empty_project(tmp_path_factory.mktemp("images"), parts)
    with inside(folder):
        for name, task in (("breast-cancer", "classification"), ("stay", "regression")):
            run_folder(folder / f".edgeml/runs/{task}", task=task)
            registry.register(task, name)
        try:
            base.of("", layout(), print)
        except EdgemlError as error:
            print(f"{error}: taking the versions of today")
            subprocess.run(["apt-get", "update"], stdin=subprocess.DEVNULL, capture_output=True)
            try:
                base.renew()
                base.of("", layout(), print)
            except EdgemlError as again:
                pytest.skip(f"no base can be made here: {again}")
    return folder


@pytest.fixture(scope="session")
def packaged(image_project: Path) -> Packaged:
    with inside(image_project):
        return image.package(MODEL)


@dataclass(frozen=True)
class Running:
    """Debian's docker-registry on loopback."""

    host: str
    folder: Path

    def blob(self, digest: str) -> Path:
        return self.folder / f"docker/registry/v2/blobs/sha256/{digest[7:9]}/{digest[7:]}/data"


@pytest.fixture(scope="session")
def start_registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[Path], Running]]:
    """Starts a registry that keeps its files in a folder."""
    _install_registry()
    processes = []

    def start(folder: Path) -> Running:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            host = f"127.0.0.1:{free.getsockname()[1]}"
        config = tmp_path_factory.mktemp("registry") / "config.yml"
        config.write_text(
            f"version: 0.1\nlog: {{level: error, accesslog: {{disabled: true}}}}\n"
            f"storage: {{filesystem: {{rootdirectory: {folder}}}}}\nhttp: {{addr: '{host}'}}\n"
        )
        quiet = subprocess.DEVNULL
        processes.append(
            subprocess.Popen(["docker-registry", "serve", str(config)], stdin=quiet, stdout=quiet, stderr=quiet)
        )
        deadline = time.monotonic() + 20
        while time.monotonic() < deadline:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", int(host[10:])), 1):
                return Running(host, folder)
            time.sleep(0.02)
        pytest.fail(f"docker-registry does not start: {processes[-1].poll()}")

    yield start
    for process in processes:
        process.terminate()
        process.wait(20)


@pytest.fixture(scope="session")
def docker_registry(start_registry: Callable[[Path], Running], tmp_path_factory: pytest.TempPathFactory) -> Running:
    return start_registry(tmp_path_factory.mktemp("hub"))


@pytest.fixture(scope="session")
def published(image_project: Path, packaged: Packaged, docker_registry: Running) -> Packaged:
    """The image in the registry; tests that spoil it use a registry of their own."""
    with inside(image_project):
        return image.package(MODEL, registry=docker_registry.host)


@dataclass(frozen=True)
class Released:
    """Two signed images in a registry, as sites get them, and a project that trusts who signed them."""

    project: Path
    host: str
    first: Packaged
    second: Packaged

    @property
    def key(self) -> Path:
        return self.project / ".edgeml/image" / signature.PUBLIC_KEY

    def golden(self, packaged: Packaged) -> Golden:
        return verification.verify(packaged.reference, self.key.read_text()).golden

    def record(self, site: str, kind: str, packaged: Packaged, rollout: str = "{}") -> str:
        """The text of a record that says what the labels of an image say."""
        found = verification.verify(packaged.reference, self.key.read_text()).labels
        return (
            f"site: {site}\nkind: {kind}\nimage: {packaged.reference}\n"
            f"model: {{name: {found['edgeml.model.name']}, version: '{found['edgeml.model.version']}'}}\n"
            f"evidence:\n  job: train-1\n  commit: '{found['org.opencontainers.image.revision']}'\n"
            f"  data: {found['edgeml.data.fingerprint']}\n  gate: sha256:{found['edgeml.egress.sha256']}\n"
            f"  metrics:\n    roc_auc: {{value: 0.99, low: 0.98, high: 1.0}}\n  verdict: {{promote: true}}\n"
            f"rollout: {rollout}\n"
        )


@pytest.fixture(scope="session")
def released(image_project: Path, published: Packaged, docker_registry: Running) -> Released:
    with inside(image_project):
        return Released(
            image_project, docker_registry.host, published, image.package(OTHER, registry=docker_registry.host)
        )


def _install_registry() -> None:
    if shutil.which("docker-registry"):
        return
    if os.geteuid() != 0 or not shutil.which("apt-get"):
        pytest.skip("there is no docker-registry, and it cannot be installed without apt-get and root")
    line = ["apt-get", "install", "--yes", "--no-install-recommends", "docker-registry"]
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    for command in (line, ["apt-get", "update"], line):
        subprocess.run(command, env=environment, stdin=subprocess.DEVNULL, capture_output=True)
        if shutil.which("docker-registry"):
            return
    pytest.skip("docker-registry cannot be installed")
