"""One VM for the session, and a committed project that uses it."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

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
    listing = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(listing, cwd=ROOT, capture_output=True, check=True).stdout
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


@dataclass(frozen=True)
class Demo:
    """What `edgeml demo --target edge --json` said, and what it wrote to the terminal."""

    said: dict[str, Any]
    shown: str

    @property
    def run(self) -> Path:
        return Path(self.said["run"])


def demo(project: Path, vm: Vm) -> Demo:
    line = [sys.executable, "-m", "edgeml", "demo", "--target", "edge", "--json"]
    done = subprocess.run(line, cwd=project, env={**os.environ, **vm.environment}, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return Demo(json.loads(done.stdout), done.stderr)


@pytest.fixture(scope="session")
def first_demo(committed: Path, running_vm: Vm) -> Demo:
    """The whole demo through the SSH server of the VM, once."""
    return demo(committed, running_vm)
