"""One fork with its machines for the session."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.conftest import ROOT, RunningStorage
from tests.gitops.api import Api, description
from tests.story import fork as forks
from tests.story.fork import Fork


@pytest.fixture(scope="session")
def fork(storage: RunningStorage, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fork]:
    with forks.made(tmp_path_factory.mktemp("story"), storage, Api(description(ROOT / ".edgeml"))) as made:
        yield made
    assert made.hub.breaches == []
