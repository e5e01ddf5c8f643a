"""The shared images under the names that the tests here have for them, and a docker daemon."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.engine.daemon import Daemon, started
from tests.images import Running, inside


@pytest.fixture(scope="session")
def project(image_project: Path) -> Path:
    return image_project


@pytest.fixture(scope="session")
def hub(docker_registry: Running) -> Running:
    return docker_registry


@pytest.fixture
def here(project: Path) -> Iterator[Path]:
    with inside(project):
        yield project


@pytest.fixture(scope="session")
def daemon() -> Iterator[Daemon]:
    with started() as running:
        yield running
