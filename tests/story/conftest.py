"""One fork with its machines for the session."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.conftest import ROOT, RunningStorage
from tests.gitops.api import Api, description
from tests.images import Running
from tests.story import fork as forks
from tests.story.fork import Fork


@pytest.fixture(scope="session")
def fork(
    storage: RunningStorage, start_registry: Callable[[Path], Running], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Fork]:
    folder = tmp_path_factory.mktemp("story")
    api = Api(description(ROOT / ".edgeml"))
    with forks.made(folder, storage, api, start_registry(folder / "registry")) as made:
        yield made
    assert made.hub.breaches == []
