"""One loopback cloud for all tests of the cloud half."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.azure.running import Running, started


@pytest.fixture(scope="session")
def running(storage_install: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    with started(storage_install, tmp_path_factory.mktemp("cloud")) as cloud:
        yield cloud
