"""`template.toml`: every file of the template is on one side of the line."""

from __future__ import annotations

import subprocess

import pytest

from edgeml.errors import EdgemlError
from edgeml.fork import line
from tests.conftest import ROOT


def tracked() -> list[str]:
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=True).stdout
    return [path for path in listed.decode().split("\0") if path]


def test_every_file_of_the_template_is_on_exactly_one_side() -> None:
    drawn = line.parse((ROOT / "template.toml").read_text())
    sides = {path: drawn.sides(path) for path in tracked()}
    assert len(sides) > 1000
    assert {path for path, found in sides.items() if len(found) > 1} == set()
    if not (ROOT / ".template.json").exists():  # what a fork adds beside both sides is its own
        assert {path for path, found in sides.items() if not found} == set(), "give them a side in template.toml"


def test_no_pattern_is_dead() -> None:
    import tomllib

    from pathspec import GitIgnoreSpec

    made_later = {"/deployments/", "/.github/CODEOWNERS", "/.template.json"}
    paths = [*tracked(), "template.toml"]
    patterns = [one for side in tomllib.loads((ROOT / "template.toml").read_text()).values() for one in side]
    dead = {one for one in patterns if not any(GitIgnoreSpec.from_lines([one.lstrip("!")]).match_files(paths))}
    assert dead <= made_later


@pytest.mark.parametrize(
    ("path", "side"),
    [
        ("components/train_model/train_model.py", line.TEAM),
        ("pipelines/new/deep.yml", line.TEAM),
        ("contracts/residency.yml", line.TEAM),
        ("deployments/staging.yml", line.TEAM),
        ("edgeml.toml", line.TEAM),
        (".github/CODEOWNERS", line.TEAM),
        ("tests/components/test_training.py", line.TEAM),
        ("infra/azure/parameters.json", line.TEAM),
        ("infra/azure/main.json", line.TEMPLATE),
        ("edgeml/edgeml.toml", line.TEMPLATE),
        ("tests/conftest.py", line.TEMPLATE),
        ("tests/new/test_new.py", line.TEMPLATE),
        ("template.toml", line.TEMPLATE),
        (".github/workflows/check.yml", line.TEMPLATE),
    ],
)
def test_where_the_line_runs(path: str, side: str) -> None:
    assert line.parse((ROOT / "template.toml").read_text()).sides(path) == [side]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "must hold two lists"),
        ("team = []\ntemplate = ['/x']", "must hold two lists"),
        ("team = ['/y']\ntemplate = ['/x']\nthird = ['/z']", "must hold two lists"),
        ("team = '/y'\ntemplate = ['/x']", "must hold two lists"),
        ("team = [1]\ntemplate = ['/x']", "must hold two lists"),
        ("team = ['/y'\n", "is not valid TOML"),
        ("# " + "x" * (65 << 10), "is too large"),
    ],
)
def test_a_line_that_is_not_of_its_form_is_refused(text: str, message: str) -> None:
    with pytest.raises(EdgemlError, match=message):
        line.parse(text)
