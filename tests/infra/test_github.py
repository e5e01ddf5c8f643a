"""`edgeml infra --target github` against GitHub's REST API on loopback."""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from edgeml.infra import github
from tests.conftest import ROOT
from tests.infra.conftest import Run
from tests.infra.hub_server import TOKEN, HubServer

GITHUB = ("--target", "github")
KEY = "-----BEGIN OPENSSH PRIVATE KEY-----\nnobody may see this\n"


@pytest.fixture
def hub(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[HubServer]:
    server = HubServer()
    monkeypatch.setenv("GITHUB_API_URL", server.url)
    monkeypatch.setenv("GITHUB_REPOSITORY", "acme/train")
    monkeypatch.setenv("GITHUB_TOKEN", TOKEN)
    monkeypatch.delenv("EDGEML_SSH_KEY", raising=False)
    yield server
    server.close()


def test_what_the_workflows_ask_of_an_environment_is_declared(folder: Path) -> None:
    wanted = github.load()
    declared: dict[str, set[str]] = {name: set(wanted["secrets"].get(name, [])) for name in wanted["environments"]}
    sites = tomllib.loads((ROOT / "edgeml.toml").read_text())["sites"]["order"]
    asked: dict[str, set[str]] = {}
    for file in sorted((ROOT / ".github/workflows").glob("*.yml")):
        for job in yaml.safe_load(file.read_text())["jobs"].values():
            if "environment" in job:
                names = sites if "matrix.site" in job["environment"] else [job["environment"]]
                for name in names:
                    asked.setdefault(name, set()).update(re.findall(r"secrets\.(\w+)", json.dumps(job)))
    assert len(asked) > 2 and asked.keys() <= declared.keys()
    assert {name: found - declared[name] for name, found in asked.items() if found - declared[name]} == {}


def edit(folder: Path, old: str, new: str) -> None:
    file = folder / "infra/github/repository.yml"
    text = file.read_text()
    assert old in text
    file.write_text(text.replace(old, new, 1))


def test_a_plan_names_every_step_and_only_reads(hub: HubServer, infra: Run) -> None:
    code, printed, _ = infra("plan", *GITHUB)
    assert code == 3
    for line in (
        "~ workflows default_workflow_permissions: write -> read",
        "+ environment production",
        "+ environment training lets branch main in",
        "+ environment production lets tag v* in",
        "! variable training/EDGEML_AZURE_CLIENT_ID has no value in infra/github/repository.yml yet",
        "! secret training/EDGEML_SSH_KEY is not set; give its value as the variable EDGEML_SSH_KEY and apply",
        "+ ruleset main",
        "+ ruleset release tags",
    ):
        assert line in printed.splitlines(), line
    assert hub.writes() == []


def test_apply_makes_it_and_the_second_time_there_is_nothing_to_make(hub: HubServer, infra: Run) -> None:
    assert infra("apply", *GITHUB)[0] == 0
    assert hub.workflows == {"default_workflow_permissions": "read", "can_approve_pull_request_reviews": False}
    assert [one["name"] for one in hub.rulesets.values()] == ["main", "release tags"]
    assert {name: [one["name"] for one in held] for name, held in hub.policies.items()} == {
        "training": ["main"],
        "monitor": ["main"],
        "staging": ["v*"],
        "production": ["v*"],
    }
    before = len(hub.writes())
    code, printed, _ = infra("apply", *GITHUB)
    assert (code, printed) == (0, "acme/train: 0 made\n")
    assert len(hub.writes()) == before
    assert infra("plan", *GITHUB)[0] == 0


def test_a_rule_that_somebody_loosened_is_shown_and_put_back(hub: HubServer, infra: Run) -> None:
    assert infra("apply", *GITHUB)[0] == 0
    main = next(one for one in hub.rulesets.values() if one["name"] == "main")
    main["enforcement"] = "disabled"
    main["rules"] = [one for one in main["rules"] if one["type"] != "required_linear_history"]
    main["bypass_actors"] = [{"actor_id": 5, "actor_type": "RepositoryRole", "bypass_mode": "always"}]
    hub.policies["production"].append({"id": 999, "node_id": "x", "name": "feature/*", "type": "branch"})
    code, printed, _ = infra("plan", *GITHUB)
    assert code == 3
    assert "enforcement: disabled -> active" in printed
    assert "rules[required_linear_history]: nothing ->" in printed
    assert "bypass_actors:" in printed
    assert "~ environment production no longer lets branch feature/* in" in printed
    assert infra("apply", *GITHUB)[0] == 0
    assert infra("plan", *GITHUB)[0] == 0


def test_what_is_not_in_the_file_is_named_and_left(hub: HubServer, infra: Run) -> None:
    hub.environments["old"] = {"deployment_branch_policy": None}
    hub.rulesets[7] = {"name": "theirs", "target": "branch", "enforcement": "active"}
    assert infra("apply", *GITHUB)[0] == 0
    code, printed, _ = infra("plan", *GITHUB)
    assert code == 0
    assert "! environment old is not in infra/github/repository.yml; who made it?" in printed
    assert "! ruleset theirs is not in infra/github/repository.yml; who made it?" in printed
    assert "old" in hub.environments
    assert 7 in hub.rulesets


def test_a_secret_is_sealed_for_github_and_shown_to_nobody(
    hub: HubServer, infra: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EDGEML_SSH_KEY", KEY)
    code, printed, said = infra("apply", *GITHUB)
    assert code == 0
    assert hub.secrets == {name: {"EDGEML_SSH_KEY": KEY} for name in ("training", "monitor", "staging", "production")}
    assert "nobody may see this" not in printed + said
    assert TOKEN not in printed + said
    code, printed, _ = infra("plan", *GITHUB)
    assert code == 0
    assert "~ secret training/EDGEML_SSH_KEY, which cannot be compared, anew" in printed


def test_variables_are_set_and_changed(hub: HubServer, infra: Run, folder: Path) -> None:
    edit(folder, 'EDGEML_AZURE_CLIENT_ID: ""', "EDGEML_AZURE_CLIENT_ID: first")
    assert infra("apply", *GITHUB)[0] == 0
    assert hub.variables["training"] == {"EDGEML_AZURE_CLIENT_ID": "first"}
    edit(folder, "EDGEML_AZURE_CLIENT_ID: first", "EDGEML_AZURE_CLIENT_ID: second")
    assert "variable training/EDGEML_AZURE_CLIENT_ID: first -> second" in infra("plan", *GITHUB)[1]
    assert infra("apply", *GITHUB)[0] == 0
    assert hub.variables["training"] == {"EDGEML_AZURE_CLIENT_ID": "second"}


def test_reviewers_are_found_by_name(hub: HubServer, infra: Run, folder: Path) -> None:
    edit(folder, "reviewers: []", "reviewers: [ada]")
    assert infra("apply", *GITHUB)[0] == 0
    assert hub.environments["production"]["reviewers"] == [{"type": "User", "id": 7}]
    assert hub.environments["production"]["prevent_self_review"] is True
    assert infra("plan", *GITHUB)[0] == 0
    edit(folder, "reviewers: [ada]", "reviewers: [nobody]")
    assert infra("apply", *GITHUB)[0] == 1


def test_an_apply_that_was_refused_half_way_is_gone_on_with(hub: HubServer, infra: Run) -> None:
    hub.refused = {"POST /repos/acme/train/rulesets": (403, "Upgrade to GitHub Pro or make this repository public")}
    code, _, said = infra("apply", *GITHUB)
    assert code == 1
    assert "Upgrade to GitHub Pro" in said
    hub.refused = {}
    assert infra("apply", *GITHUB)[0] == 0
    assert infra("plan", *GITHUB)[0] == 0


@pytest.mark.parametrize(
    ("old", "new", "sentence"),
    [
        ("branches: [main]", "branches: ['*']", "environments.training lets every ref in"),
        ("branches: [main]", "reviewers: [ada]", "environments.training names no branches or tags"),
        ("enforcement: active", "enforcement: sometimes", "rulesets[0].enforcement"),
        ("- type: deletion", "- type: demolition", "rulesets[0].rules"),
        ("secrets:\n  training:", "secrets:\n  trainig:", "secrets.trainig is for an environment that is not declared"),
        ("[EDGEML_SSH_KEY]", "[GITHUB_TOKEN]", "'GITHUB_TOKEN' is no name that GitHub takes"),
        ("workflows:", "workflow:", "the file has the key 'workflow'"),
        ("environments:\n", "environments: [\n", "is no valid YAML"),
    ],
)
def test_a_file_that_protects_nothing_is_refused(
    hub: HubServer, infra: Run, folder: Path, old: str, new: str, sentence: str
) -> None:
    edit(folder, old, new)
    code, _, said = infra("plan", *GITHUB)
    assert code == 2
    assert sentence in said
    assert hub.asked == []


def test_protection_is_not_destroyed(hub: HubServer, infra: Run) -> None:
    assert infra("destroy", *GITHUB)[0] == 2
    assert hub.asked == []
