"""A project of its own, a loopback Resource Manager, and an `az` that hands out its token."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from edgeml import cli
from tests.infra.arm_server import TOKEN, ArmServer

ROOT = Path(__file__).resolve().parents[2]
SUBSCRIPTION = "11111111-1111-1111-1111-111111111111"
PUBLIC_KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIKq2cJ0b2y5v1Yj7b0mQkqk1n0o0i3m6J8n4tq7b9XyZ"
GIVEN = {
    "stack-hub": {
        "storageAccount": "edgemlrows",
        "adminKey": PUBLIC_KEY,
        "sshSources": ["192.0.2.0/24"],
    },
    "azure": {
        "location": "local",  # where the loopback puts everything, whatever a fork's region is
        "storageAccount": "edgemlcloud",
        "vault": "edgeml-vault",
        "registry": "edgemlacr",
        "owner": "Acme",
        "repository": "train",
        "ownerId": "12",
        "repositoryId": "34",
    },
}
Run = Callable[..., tuple[int, str, str]]


def parameters(target: str) -> Path:
    """The parameters of this project's template."""
    return Path("infra") / target / "parameters.json"


def fill(folder: Path, target: str, values: dict[str, Any]) -> None:
    """Sets parameters in a project's file, as a person would."""
    file = folder / parameters(target)
    document = json.loads(file.read_text())
    for name, value in values.items():
        document["parameters"][name] = {"value": value}
    file.write_text(json.dumps(document))


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project whose infra/ is this one's, filled in; signed in by the Azure CLI."""
    project = tmp_path / "project"
    shutil.copytree(ROOT / "infra", project / "infra")
    (project / "edgeml.toml").write_text('# ours\n[storage]\ncontainer = "private"  # of the rows\n')
    for target, values in GIVEN.items():
        fill(project, target, values)
    tools = tmp_path / "tools"
    tools.mkdir()
    token = {"accessToken": TOKEN, "expiresOn": "2099-01-01 00:00:00.000000", "expires_on": 4070908800}
    (tools / "az").write_text(f"#!/bin/sh\necho '{json.dumps({**token, 'tokenType': 'Bearer'})}'\n")
    (tools / "az").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tools}:{os.environ['PATH']}")
    monkeypatch.chdir(project)
    return project


@pytest.fixture(params=["stack-hub"])
def arm(folder: Path, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[ArmServer]:
    """The Resource Manager that the settings name: a stamp's, or for `azure` a cloud's."""
    certs = folder.parent / "certs"
    certs.mkdir()
    server = ArmServer(certs, request.param)
    section = "STACKHUB" if request.param == "stack-hub" else "AZURE"
    settings = {"TENANT_ID": "tenant", "SUBSCRIPTION_ID": SUBSCRIPTION, "RESOURCE_GROUP": "edge"}
    if section == "STACKHUB":
        settings["ARM_URL"] = server.url
        monkeypatch.setenv("EDGEML_STORAGE_CA_BUNDLE", str(server.cert))
    else:
        settings |= {"METADATA_URL": f"{server.url}/metadata/endpoints", "CLOUD": "Loop"}
        monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(server.cert))
    for key, value in settings.items():
        monkeypatch.setenv(f"EDGEML_{section}_{key}", value)
    server.groups["edge"] = {"name": "edge", "location": "local"}
    yield server
    server.close()
    assert not server.bad, server.bad


@pytest.fixture
def infra(capsys: pytest.CaptureFixture[str]) -> Run:
    """`edgeml infra …` in this process: exit code, what is printed, what is said on the side."""

    def run(*words: str) -> tuple[int, str, str]:
        code = cli.main(["infra", *words])
        printed = capsys.readouterr()
        return code, printed.out, printed.err

    return run
