"""Other checkers asked by `edgeml check`, the settings' keys, and SARIF against its schema."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import jsonschema
import pytest

from edgeml.check import RULES, check, render, settings, tools
from edgeml.settings import SECRET_NAMES, SECRETS, Edge, Kubernetes, Settings, Site, VirtualMachine

BAD = Path(__file__).parents[1] / "corpus/bad"
SCHEMA = Path(__file__).parent / "sarif-2.1.0.schema.json"

WORKFLOW = """\
on: push
permissions: {}
jobs:
  a:
    runs-on: ubuntu-latest
    timeout-minutes: 5
    steps:
      - uses: actions/checkout@3d3c42e5aac5ba805825da76410c181273ba90b1  # v7.0.1
      - run: echo ${{ github.event.issue.title }}
"""


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / ".github/workflows").mkdir(parents=True)
    return tmp_path


def rules(**files: str) -> dict[str, tuple[str, int]]:
    """The findings of other tools over files, by rule."""
    for name, text in files.items():
        path = Path(".github/workflows/a.yml" if name == "workflow" else name)
        path.write_text(text)
    found = check(["."], with_tools=True)
    return {finding.rule: (finding.path, finding.line) for finding in found if "/" in finding.rule}


def test_each_tool_is_asked_and_its_findings_keep_their_places(here: Path) -> None:
    Path("script.py").write_text("import os\n")
    assert rules(workflow=WORKFLOW) == {
        "zizmor/artipacked": (".github/workflows/a.yml", 8),
        "zizmor/template-injection": (".github/workflows/a.yml", 9),
        "actionlint/expression": (".github/workflows/a.yml", 9),
        "ruff/F401": ("script.py", 1),
    }


def test_a_workflow_that_breaks_githubs_schema_is_said_so(here: Path) -> None:
    found = rules(workflow=WORKFLOW + "    stps: []\n")
    assert "schema/github-workflows" in found and "actionlint/syntax-check" in found


def test_yaml_style_is_yamllints(here: Path) -> None:
    Path("pipeline.yml").write_text("jobs:\n  a: {command: x} \n")
    assert rules(workflow=WORKFLOW)["yamllint/trailing-spaces"] == ("pipeline.yml", 2)


def test_a_tool_that_is_not_there_or_breaks_stops_the_check(
    here: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (here / "pipeline.yml").write_text("jobs: {a: {command: x}}\n")
    (yamllint,) = (tool for tool in tools.TOOLS if tool.program == "yamllint")
    for program, said in (
        ("not-a-checker", "--with-tools needs not-a-checker"),
        ("false", "false ended with exit code"),
    ):
        monkeypatch.setattr(tools, "TOOLS", (yamllint._replace(program=program),))
        with pytest.raises(Exception, match=said):
            check(["."], with_tools=True)


@pytest.mark.parametrize("name", ["record-image", "settings-key-secret", "azure-ai-ml", "workflow-command-module"])
def test_sarif_keeps_its_schema(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(shutil.copytree(BAD / name, tmp_path / name))
    found = check(["."], with_sdk=name == "azure-ai-ml", with_tools=name == "workflow-command-module")
    report = json.loads(render(found, RULES, "sarif"))
    jsonschema.validate(report, json.loads(SCHEMA.read_text()))
    assert len(report["runs"][0]["results"]) == len(found) > 0
    named = [rule["id"] for rule in report["runs"][0]["tool"]["driver"]["rules"]]
    assert all(named[result["ruleIndex"]] == result["ruleId"] for result in report["runs"][0]["results"])
    report["runs"][0]["results"][0]["level"] = "loud"
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(report, json.loads(SCHEMA.read_text()))


def test_the_settings_keys_are_those_of_the_settings() -> None:
    model = {
        section: {key for key in field.annotation.model_fields if key not in SECRETS.get(section, ())}
        for section, field in Settings.model_fields.items()
        if section not in settings.TABLES
    }
    assert {section: set(keys) for section, keys in settings.KEYS.items()} == model
    assert settings.SECRETS == SECRETS
    assert set(settings.SITE_KEYS) == set(Site.model_fields)
    kinds = {"kubernetes": Kubernetes, "vm": VirtualMachine, "edge": Edge}
    assert {kind: set(keys) for kind, keys in settings.KINDS.items()} == {
        kind: set(model.model_fields) for kind, model in kinds.items()
    }
    assert settings._SECRET.pattern == SECRET_NAMES.pattern


def test_what_azure_needs_can_come_from_the_environment(tmp_path: Path) -> None:
    (tmp_path / "edgeml.toml").write_text('[storage]\naccount_url = ""\n')
    command = [sys.executable, "-m", "edgeml", "check", "--ready", "azure", "edgeml.toml"]
    given = {
        "EDGEML_STORAGE_ACCOUNT_URL": "https://rows.blob.region.stamp.example",
        **{
            f"EDGEML_AZURE_{key}": "x"
            for key in ("TENANT_ID", "CLIENT_ID", "SUBSCRIPTION_ID", "RESOURCE_GROUP", "WORKSPACE")
        },
    }
    assert subprocess.run(command, cwd=tmp_path, env=given, capture_output=True).returncode == 0
    del given["EDGEML_STORAGE_ACCOUNT_URL"]
    done = subprocess.run(command, cwd=tmp_path, env=given, capture_output=True, text=True)
    assert done.returncode == 1 and "set it here or as EDGEML_STORAGE_ACCOUNT_URL" in done.stdout
