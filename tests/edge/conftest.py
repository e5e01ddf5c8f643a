"""One VM for the session, and a committed project that uses it."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.edge.vm import ROOT, Vm, machine

PIPELINES = Path(__file__).parent / "pipelines"


@pytest.fixture(scope="session")
def running_vm() -> Iterator[Vm]:
    with machine() as vm:
        yield vm


@pytest.fixture(scope="session")
def committed(storage_install: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """This checkout as a fork's repository of one commit, with the pipelines of these tests."""
    folder = tmp_path_factory.mktemp("edge") / "project"
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"], cwd=ROOT, capture_output=True, check=True
    ).stdout  # fmt: skip
    for name in filter(None, listed.decode().split("\0")):
        if (ROOT / name).is_file() and not name.startswith(("tests/", "docs/")):
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, folder / name)
    shutil.copytree(PIPELINES, folder / "pipelines/edge")
    commit(folder)
    (folder / ".edgeml").mkdir()
    for part in ("azurite", "node"):
        (folder / ".edgeml" / part).symlink_to(storage_install / part)
    return folder


@pytest.fixture
def project(committed: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The committed project as the working directory."""
    monkeypatch.chdir(committed)
    return committed


@pytest.fixture
def vm(running_vm: Vm, project: Path, monkeypatch: pytest.MonkeyPatch) -> Vm:
    """The session's VM as the compute target `edge`."""
    use(running_vm, monkeypatch)
    return running_vm


def use(vm: Vm, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in vm.environment.items():
        monkeypatch.setenv(name, value)


def commit(folder: Path) -> None:
    who = {"GIT_AUTHOR_NAME": "t", "GIT_AUTHOR_EMAIL": "t@t", "GIT_COMMITTER_NAME": "t", "GIT_COMMITTER_EMAIL": "t@t"}
    for words in (["init", "-q"], ["add", "-A"], ["commit", "-q", "-m", "All of it"]):
        subprocess.run(["git", *words], cwd=folder, check=True, env={**os.environ, **who})
