"""The workflow in which the template tests itself, executed.

Its `make lint` asks mypy of one file here and its `make test` runs one: the others are this very repository's checks.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.conftest import ROOT
from tests.fork.button import git
from tests.fork.conftest import pressed
from tests.story.act import Ran, Runner, furnish

__all__ = ["pressed"]  # a fixture
FILE = ".github/workflows/template.yml"
SMALL_TEST = "-n 0 -q tests/edge/test_said.py"
BUTTON = "- run: python3 tests/fork/button.py ../ward\n        working-directory: .\n"


@pytest.fixture(scope="module")
def runner(tmp_path_factory: pytest.TempPathFactory) -> Runner:
    return Runner(tmp_path_factory.mktemp("template") / "runner", {"RUFF_CACHE_DIR": str(ROOT / ".ruff_cache")})


@pytest.fixture(scope="module")
def checkout(runner: Runner, pressed: Path) -> Path:
    """The template, its workflow with one line more: what a new machine would fetch is laid into the copy."""
    folder, fetched = runner.folder / "template", runner.folder / "fetched"
    git(runner.folder, "clone", "--quiet", "--no-tags", str(pressed), str(folder))
    git(folder, "remote", "set-url", "origin", "https://github.com/acme/edgeml.git")
    fetched.mkdir()
    (fetched / "mypy.ini").write_text("[mypy]\nfiles = edgeml/errors.py\n")
    furnish(fetched, runner, ROOT / ".edgeml")
    text = (folder / FILE).read_text()
    assert BUTTON in text
    (folder / FILE).write_text(text.replace(BUTTON, f"{BUTTON}      - run: cp -R {fetched}/. .\n"))
    return folder


def act(runner: Runner, checkout: Path, **repository: Any) -> Ran:
    """What GitHub does at a push to the default branch of a repository."""
    whole = {"full_name": "acme/edgeml", "name": "edgeml", "default_branch": "main", "owner": {"login": "acme"}}
    payload = {"ref": "refs/heads/main", "repository": {**whole, **repository}}
    return runner.run(checkout, "template.yml", "push", payload, PYTEST_ARGS=SMALL_TEST)


def test_a_copy_under_another_name_passes_every_line(runner: Runner, checkout: Path) -> None:
    ran = act(runner, checkout, is_template=True)
    assert ran.jobs == {"fork": "success"} and ran.code == 0, ran.raw
    steps = yaml.safe_load((ROOT / FILE).read_text())["jobs"]["fork"]["steps"]
    assert {step["run"] for step in steps if "run" in step} <= {line for _, line in ran.lines()}
    assert "passed" in ran.said("fork")


@pytest.mark.parametrize("repository", [{"is_template": False}, {}], ids=["a-fork", "an-event-that-does-not-say"])
def test_a_fork_runs_nothing_of_it(runner: Runner, checkout: Path, repository: dict[str, bool]) -> None:
    ran = act(runner, checkout, **repository)
    assert (ran.code, ran.steps, ran.jobs) == (0, [], {}), ran.raw
