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


@pytest.fixture
def runner(tmp_path: Path) -> Runner:
    return Runner(tmp_path / "runner", {"RUFF_CACHE_DIR": str(ROOT / ".ruff_cache")})


def act(runner: Runner, template: Path, **repository: Any) -> Ran:
    """What GitHub does at a push to the default branch of a repository, once what a new machine fetches lies there."""
    checkout, fetched = runner.folder / "template", runner.folder / "fetched"
    git(runner.folder, "clone", "--quiet", "--no-tags", str(template), str(checkout))
    git(checkout, "remote", "set-url", "origin", "https://github.com/acme/edgeml.git")
    fetched.mkdir()
    (fetched / "mypy.ini").write_text("[mypy]\nfiles = edgeml/errors.py\n")
    furnish(fetched, runner, ROOT / ".edgeml")
    text = (checkout / FILE).read_text()
    assert BUTTON in text
    (checkout / FILE).write_text(text.replace(BUTTON, f"{BUTTON}      - run: cp -R {fetched}/. .\n"))
    whole = {"full_name": "acme/edgeml", "name": "edgeml", "default_branch": "main", "owner": {"login": "acme"}}
    payload = {"ref": "refs/heads/main", "repository": {**whole, **repository}}
    return runner.run(checkout, "template.yml", "push", payload, PYTEST_ARGS=SMALL_TEST)


def test_a_copy_under_another_name_passes_every_line(runner: Runner, pressed: Path) -> None:
    ran = act(runner, pressed, is_template=True)
    assert ran.jobs == {"fork": "success"} and ran.code == 0, ran.raw
    steps = yaml.safe_load((ROOT / FILE).read_text())["jobs"]["fork"]["steps"]
    lines = {step["run"] for step in steps if "run" in step}
    assert lines <= {line for _, line in ran.lines()}
    assert "passed" in ran.said("fork") and "edgeml init" in " ".join(lines)


def test_a_line_that_breaks_turns_it_red(runner: Runner, pressed: Path, tmp_path: Path) -> None:
    git(tmp_path, "clone", "--quiet", "--no-tags", str(pressed), "broken")
    pipeline = tmp_path / "broken/pipelines/train.yml"
    pipeline.write_text(pipeline.read_text() + "no_such_key: 1\n")
    git(tmp_path / "broken", "-c", "user.name=a", "-c", "user.email=a@b", "commit", "-qam", "Break it")
    ran = act(runner, tmp_path / "broken", is_template=True)
    assert ran.jobs == {"fork": "failure"} and ran.code != 0, ran.raw
    assert [step.line for step in ran.steps if step.result == "failure"] == [".venv/bin/edgeml check --format github"]


@pytest.mark.parametrize("repository", [{"is_template": False}, {}], ids=["a-fork", "an-event-that-does-not-say"])
def test_a_fork_runs_nothing_of_it(runner: Runner, pressed: Path, repository: dict[str, bool]) -> None:
    ran = act(runner, pressed, **repository)
    assert (ran.code, ran.steps, ran.jobs) == (0, [], {}), ran.raw
