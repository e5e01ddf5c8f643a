"""`edgeml doctor github`: whether Azure will trust what GitHub says of this repository's jobs."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from edgeml import cli
from edgeml.gitops import github
from edgeml.infra import template
from tests.conftest import ROOT
from tests.gitops.conftest import Story, broken
from tests.gitops.hub import NAME, OWNER


@pytest.fixture
def parameters(story: Story) -> Path:
    shutil.copytree(ROOT / "infra/azure", Path("infra/azure"))
    file = Path("infra/azure/parameters.json")
    content = json.loads(file.read_text())
    repository = github.connect()
    there = repository.ask(repository.rest.repos.get)
    values = {
        "workspace": "ward",
        "storageAccount": "wardml",
        "vault": "ward-kv",
        "registry": "wardimages",
        "owner": OWNER,
        "repository": NAME,
        "ownerId": str(there.owner.id),
        "repositoryId": str(there.id),
        "siteEnvironments": ["staging", "production"],
    }
    content["parameters"] = {key: {"value": value} for key, value in values.items()}
    file.write_text(json.dumps(content))
    return file


def test_the_subjects_are_those_that_the_template_makes(parameters: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["doctor", "github", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    printed = {one["told"].partition(",")[0] for one in found if one["name"].startswith("subject of")}
    place = template.Place("0", "rg", "westeurope")
    deployment = template.evaluate(
        template.load(parameters.with_name("main.json")), template.values_of(parameters), place
    )
    made = {
        one.body["properties"]["subject"]
        for one in deployment.resources
        if one.type.endswith("/federatedIdentityCredentials")
    }
    assert printed == made and len(made) == 6


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("owner", OWNER.upper()),
        ("repository", "other"),
        ("ownerId", ""),
        ("repositoryId", "7"),
        ("siteEnvironments", ["production"]),
    ],
)
def test_what_differs_from_what_github_says_is_named(
    parameters: Path, key: str, value: object, capsys: pytest.CaptureFixture[str]
) -> None:
    content = json.loads(parameters.read_text())
    content["parameters"][key]["value"] = value
    parameters.write_text(json.dumps(content))
    assert cli.main(["doctor", "github"]) == 1
    wrong = [line for line in capsys.readouterr().out.splitlines() if line.startswith("WRONG")]
    assert len(wrong) == 1 and f"{key} is {value!r}, and should be " in wrong[0]


def test_where_github_does_not_answer_nothing_is_said(
    story: Story, parameters: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    story.hub.faults.append(broken(401))
    assert cli.main(["doctor", "github"]) == 1
    out, errors = capsys.readouterr()
    assert out == "" and "GitHub does not accept GITHUB_TOKEN" in errors
