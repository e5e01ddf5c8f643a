"""What tests of several capabilities share."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from xdist.remote import Producer
from xdist.scheduler import LoadScopeScheduling

from edgeml.storage import server
from tests.images import docker_registry, image_project, packaged, parts, published, released, start_registry

__all__ = ["docker_registry", "image_project", "packaged", "parts", "published", "released", "start_registry"]

ROOT = Path(__file__).resolve().parents[1]


# Folders whose tests share costly servers, and under which name: one worker takes all of a name.
SHARED = {"edge": "edge", "deploy": "image", "image": "image", "gitops": "gitops", "infra": "infra"}
LONG = (*SHARED, "test_demo.py", "test_docs.py", "engine", "check")  # begun first, so that no worker ends alone


def place(path: Path) -> str:
    """The folder of `tests/`, or the file in it, that a test belongs to."""
    return path.relative_to(ROOT / "tests").parts[0]


class Places(LoadScopeScheduling):
    """Gives the tests of a file to one worker, and those of a folder whose tests share servers."""

    def _split_scope(self, nodeid: str) -> str:
        file = nodeid.partition("::")[0]
        return SHARED.get(place(ROOT / file), file)


def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> Places:
    return Places(config, log)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=lambda item: LONG.index(place(item.path)) if place(item.path) in LONG else len(LONG))


@dataclass(frozen=True)
class RunningStorage:
    """A started embedded server: the root of its project and the `EDGEML_STORAGE_*` variables that reach it."""

    root: Path
    environment: dict[str, str]


@pytest.fixture(scope="session")
def storage_install() -> Path:
    """The project's own installation of the embedded server, made once."""
    server.prepare(ROOT / ".edgeml")
    return ROOT / ".edgeml"


@pytest.fixture(scope="session")
def storage(storage_install: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningStorage]:
    """A server of its own in a temporary project, which shares the installation."""
    root = storage_project(tmp_path_factory.mktemp("storage"), storage_install)
    with server.session(root / ".edgeml") as started:
        yield RunningStorage(root, server.environment(root / ".edgeml", started))


def storage_project(root: Path, install: Path) -> Path:
    """An empty project whose embedded server needs no installation."""
    (root / "edgeml.toml").write_text('[storage]\ncontainer = "private"\n')
    (root / ".edgeml").mkdir()
    for part in ("azurite", "node"):
        (root / ".edgeml" / part).symlink_to(install / part)
    return root


@pytest.fixture
def checkout(storage_install: Path, tmp_path: Path) -> Path:
    """A copy of this checkout as a fork would have it, sharing what is installed and nothing else."""
    return copied(storage_install, tmp_path / "checkout")


def copied(install: Path, folder: Path) -> Path:
    """This checkout's files, with what is installed and what images are made of as links."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        check=True,
    ).stdout
    for name in filter(None, listed.decode().split("\0")):
        if (ROOT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, folder / name)
    parts = install / "image/parts"  # fetched once
    parts.mkdir(parents=True, exist_ok=True)
    (folder / ".edgeml/image").mkdir(parents=True)
    (folder / ".edgeml/image/parts").symlink_to(parts)
    for part in ("azurite", "node"):
        (folder / ".edgeml" / part).symlink_to(install / part)
    (folder / ".venv").symlink_to(sys.prefix)
    return folder
