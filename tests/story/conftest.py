"""One fork with its machines for the session."""

from __future__ import annotations

import os
from collections.abc import Callable, Generator, Iterator
from pathlib import Path

import pytest

from tests.conftest import ROOT, RunningStorage
from tests.gitops.api import Api, description
from tests.images import Running
from tests.story import fork as forks
from tests.story.fork import Fork


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Whoever asked for the story is not told that it went well where a part of it could not be played."""
    report = yield
    if report.skipped and "EDGEML_TEST_STORY" in os.environ:
        report.outcome, report.longrepr = "failed", f"the story was not played: {report.longrepr}"
    return report


@pytest.fixture(scope="session")
def fork(
    storage: RunningStorage, start_registry: Callable[[Path], Running], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Fork]:
    folder = tmp_path_factory.mktemp("story")
    api = Api(description(ROOT / ".edgeml"))
    with forks.made(folder, storage, api, start_registry(folder / "registry")) as made:
        yield made
    assert made.hub.breaches == []
