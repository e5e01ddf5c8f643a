"""The workflow in which the template tests itself, executed.

Its `make lint` asks mypy of one file here, and its `make test`, `make test-whole` and `make story` run one: the others
are this very repository's checks. A sudo that asks nothing stands for GitHub's.
"""

from __future__ import annotations

import os
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
    folder = tmp_path_factory.mktemp("template")
    (folder / "tools").mkdir()
    (folder / "tools/sudo").write_text('#!/bin/sh\nexec "$@"\n')
    (folder / "tools/sudo").chmod(0o755)
    path = f"{folder / 'tools'}{os.pathsep}{os.environ['PATH']}"
    return Runner(folder / "runner", {"RUFF_CACHE_DIR": str(ROOT / ".ruff_cache"), "PATH": path})


@pytest.fixture(scope="module")
def checkout(runner: Runner, pressed: Path) -> Path:
    """The template, its workflow with one line more: what a new machine would fetch is laid into the copy."""
    folder, fetched = runner.folder / "template", runner.folder / "fetched"
    git(runner.folder, "clone", "--quiet", "--no-tags", str(pressed), str(folder))
    git(folder, "remote", "set-url", "origin", "https://github.com/acme/edgeml.git")
    fetched.mkdir()
    (fetched / "mypy.ini").write_text("[mypy]\nfiles = edgeml/errors.py\n")
    for each in (fetched, folder):
        furnish(each, runner, ROOT / ".edgeml")
    text = (folder / FILE).read_text()
    assert BUTTON in text
    (folder / FILE).write_text(text.replace(BUTTON, f"{BUTTON}      - run: cp -R {fetched}/. .\n"))
    return folder


def act(runner: Runner, checkout: Path, event: str = "push", **repository: Any) -> Ran:
    """What GitHub does at a push to the default branch of a repository, or at another event."""
    whole = {"full_name": "acme/edgeml", "name": "edgeml", "default_branch": "main", "owner": {"login": "acme"}}
    payload = {"ref": "refs/heads/main", "repository": {**whole, **repository}}
    narrow = {"PYTEST_ARGS": SMALL_TEST, "STORY": ""}
    return runner.run(checkout, "template.yml", event, payload, **narrow)


def test_a_copy_under_another_name_passes_every_line(runner: Runner, checkout: Path) -> None:
    ran = act(runner, checkout, is_template=True)
    assert ran.jobs == dict.fromkeys(("fork", "story", "whole"), "success") and ran.code == 0, ran.raw
    jobs = yaml.safe_load((ROOT / FILE).read_text())["jobs"]
    assert {(name, step["run"]) for name in jobs for step in jobs[name]["steps"] if "run" in step} <= ran.lines()
    assert all("passed" in ran.said(name) for name in jobs)


def test_a_pull_request_starts_only_what_takes_minutes(runner: Runner, checkout: Path) -> None:
    whole = (checkout / FILE).read_text()
    before, _, jobs = whole.partition("  fork:\n")
    after = jobs.partition("  story:\n")[2]
    try:
        (checkout / FILE).write_text(f"{before}  story:\n{after}")
        ran = act(runner, checkout, "pull_request", is_template=True)
        assert (ran.code, ran.steps, ran.jobs) == (0, [], {}), ran.raw
        assert act(runner, checkout, "push", is_template=True).jobs == dict.fromkeys(("story", "whole"), "success")
    finally:
        (checkout / FILE).write_text(whole)


@pytest.mark.parametrize("repository", [{"is_template": False}, {}], ids=["a-fork", "an-event-that-does-not-say"])
def test_a_fork_runs_nothing_of_it(runner: Runner, checkout: Path, repository: dict[str, bool]) -> None:
    ran = act(runner, checkout, **repository)
    assert (ran.code, ran.steps, ran.jobs) == (0, [], {}), ran.raw
