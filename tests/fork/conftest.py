"""Templates and forks of them, in repositories of their own."""

from __future__ import annotations

import os
import shutil
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest

from edgeml import cli
from edgeml.fork import record
from edgeml.fork.git import Git
from tests.conftest import ROOT
from tests.fork.button import begin_history, git, press

LATER = "v1.1.0"


@pytest.fixture(autouse=True)
def nobody_else(monkeypatch: pytest.MonkeyPatch) -> None:
    """A person with a name, no configuration of this machine, no repository of a workflow."""
    for role in ("AUTHOR", "COMMITTER"):
        monkeypatch.setenv(f"GIT_{role}_NAME", "dora")
        monkeypatch.setenv(f"GIT_{role}_EMAIL", "dora@clinic.example")
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", os.devnull)
    monkeypatch.setenv("GIT_CONFIG_NOSYSTEM", "1")
    monkeypatch.delenv("GITHUB_REPOSITORY", raising=False)


@pytest.fixture(scope="session")
def pressed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The template as the button makes it, of this very checkout or, in a fork, as the fork got it; tests clone it."""
    folder = tmp_path_factory.mktemp("fork") / "pressed"
    if not (ROOT / record.FILE).is_file():
        return press(ROOT, folder)
    tree = record.parse((ROOT / record.FILE).read_text()).tree
    if not Git(ROOT).ask("cat-file", "-t", tree):
        pytest.skip(f"this clone of a fork holds nothing of the template's version {tree[:12]}")
    archive = folder.with_suffix(".tar")
    git(ROOT, "archive", "--output", str(archive), tree)
    folder.mkdir()
    with tarfile.open(archive) as packed:
        packed.extractall(folder, filter="data")
    begin_history(folder)
    assert git(folder, "rev-parse", "HEAD^{tree}") == tree
    return folder


@pytest.fixture
def whole(pressed: Path, tmp_path: Path) -> Path:
    """A fork of this very checkout, to be written to."""
    git(tmp_path, "clone", "--quiet", "--no-tags", str(pressed), "Ward")
    git(tmp_path / "Ward", "remote", "set-url", "origin", "https://github.com/Clinic/Ward.git")
    return tmp_path / "Ward"


@pytest.fixture(scope="session")
def seed(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A template of a few files with two versions, v1.0.0 and v1.1.0, and a fork of the first; not to be written to."""
    template = tmp_path_factory.mktemp("fork") / "template"
    for path, text in {
        "template.toml": (ROOT / "template.toml").read_text(),
        "edgeml.toml": '[sites]\norder = ["staging"]\n',
        "components/train/train.py": "print('sample')\n",
        "edgeml/code.py": "".join(f"line_{number} = {number}\n" for number in range(20)),
        "docs/page.md": "# A page\n\nof the template.\n",
        "README.md": "# edgeml\n\nSample.\n",
    }.items():
        write(template, path, text)
    git(template, "init", "--quiet", "--template=", "--initial-branch", "main")
    commit(template, "One", "v1.0.0")
    fork = press(template, template.parent / "fork")
    text = (template / "edgeml/code.py").read_text()
    write(template, "edgeml/code.py", text.replace("line_3 = 3", "line_3 = 'later'"))
    write(template, "components/train/train.py", "print('a better sample')\n")
    write(template, "docs/fresh.md", "Fresh.\n")
    commit(template, "Two", LATER)
    return template, fork


@pytest.fixture
def small(seed: tuple[Path, Path], tmp_path: Path) -> tuple[Path, Path]:
    """A copy of `seed`, to be written to."""
    return shutil.copytree(seed[0], tmp_path / "template"), shutil.copytree(seed[1], tmp_path / "fork")


@pytest.fixture
def begun(small: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch) -> tuple[Path, Path]:
    """`small`, its fork begun and committed, and the working directory."""
    monkeypatch.chdir(small[1])
    assert cli.main(["init", "--yes", "--name", "ward", "--owner", "@clinic/ml"]) == 0
    commit(small[1], "Begin")
    return small


@pytest.fixture
def edgeml(capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    """The command: exit code, output, errors."""

    def call(*arguments: str) -> tuple[int, str, str]:
        capsys.readouterr()
        code = cli.main(list(arguments))
        return code, *capsys.readouterr()

    return call


def write(folder: Path, path: str, text: str | bytes) -> None:
    file = folder / path
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(text.encode() if isinstance(text, str) else text)


def commit(folder: Path, message: str, tag: str = "") -> str:
    git(folder, "add", "--all")
    git(folder, "commit", "--quiet", "--message", message)
    if tag:
        git(folder, "tag", tag)
    return git(folder, "rev-parse", "HEAD")
