"""Workflows that are started through the API, because what GITHUB_TOKEN pushes starts none."""

from __future__ import annotations

import pytest

from edgeml.errors import EdgemlError
from edgeml.gitops import start
from tests.gitops.conftest import Story

DISPATCHED = "on: {workflow_dispatch: {inputs: {job: {}}}}\n"


def test_a_workflow_starts_on_a_branch_with_its_inputs(story: Story) -> None:
    story.hub.push("ada", {".github/workflows/train.yml": DISPATCHED})
    story.hub.push("ada", {"x": "y"}, "change")
    start.workflow("train.yml", "change", {"job": "train-1"})
    start.workflow("train.yml")
    assert story.hub.dispatched == [("train.yml", "change", {"job": "train-1"}), ("train.yml", "main", {})]


@pytest.mark.parametrize(
    ("name", "ref", "code", "said"),
    [
        ("nothing.yml", "", 1, "GitHub knows no workflow nothing.yml"),
        ("train.yml", "no-branch", 1, "GitHub knows no workflow"),
        ("push.yml", "", 1, "does not have 'workflow_dispatch' trigger"),
        ("../train.yml", "", 2, "is no file of .github/workflows"),
    ],
)
def test_what_cannot_be_started_is_one_sentence(story: Story, name: str, ref: str, code: int, said: str) -> None:
    files = {".github/workflows/train.yml": DISPATCHED, ".github/workflows/push.yml": "on: push\n"}
    story.hub.push("ada", files)
    with pytest.raises(EdgemlError, match=said) as refused:
        start.workflow(name, ref)
    assert refused.value.exit_code == code
    assert story.hub.dispatched == []
