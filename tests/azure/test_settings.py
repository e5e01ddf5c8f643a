"""The settings of workspace and compute targets, from the file and from the environment."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgeml import settings
from edgeml.errors import EdgemlError

FILE = (
    '[compute.edge-vm]\nkind = "edge"\naddress = "a.example"\n[compute.edge-vm-2]\nkind = "vm"\naddress = "b.example"\n'
)


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "edgeml.toml").write_text(FILE)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_every_key_of_a_target_comes_from_the_environment(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDGEML_COMPUTE_EDGE_VM_ADDRESS", "c.example")
    monkeypatch.setenv("EDGEML_COMPUTE_EDGE_VM_HOST_KEY", "ssh-ed25519 AAAA")
    monkeypatch.setenv("EDGEML_COMPUTE_EDGE_VM_2_PORT", "2222")
    monkeypatch.setenv("EDGEML_AZURE_SUBSCRIPTION_ID", "s")
    read = settings.load()
    one, two = read.compute["edge-vm"], read.compute["edge-vm-2"]
    assert isinstance(one, settings.Edge) and isinstance(two, settings.VirtualMachine)
    assert (one.address, one.host_key, one.port) == ("c.example", "ssh-ed25519 AAAA", 22)
    assert (two.address, two.port) == ("b.example", 2222)
    assert read.azure.subscription_id == "s"


def test_targets_that_no_file_has_come_as_json(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDGEML_COMPUTE", '{"hub": {"kind": "kubernetes", "resource_id": "/x"}}')
    monkeypatch.setenv("EDGEML_COMPUTE_HUB_NAMESPACE", "ml")
    hub = settings.load().compute["hub"]
    assert isinstance(hub, settings.Kubernetes) and (hub.resource_id, hub.namespace) == ("/x", "ml")


@pytest.mark.parametrize(
    ("variable", "value", "said"),
    [
        ("EDGEML_COMPUTE_NOBODY_PORT", "22", "is for no compute target of edgeml.toml; there are: edge-vm, edge-vm-2"),
        ("EDGEML_COMPUTE_EDGE_VM_PORT", "0", "compute.edge-vm.edge.port"),
        ("EDGEML_COMPUTE_EDGE_VM_ADRESS", "x", "compute.edge-vm.edge.adress"),
        ("EDGEML_COMPUTE_EDGE_VM_KIND", "tpu", "compute.edge-vm"),
        ("EDGEML_AZURE_WORKSPAC", "x", "azure.workspac"),
    ],
)
def test_what_is_no_setting_is_refused(
    here: Path, monkeypatch: pytest.MonkeyPatch, variable: str, value: str, said: str
) -> None:
    monkeypatch.setenv(variable, value)
    with pytest.raises(EdgemlError) as refused:
        settings.load()
    assert said in str(refused.value)


@pytest.mark.parametrize(
    "line",
    [
        '[azure]\nclient_secret = "x"\n',
        '[compute.edge-vm-3]\nkind = "edge"\npassword = "x"\n',
        '[compute.edge-vm-3]\nkind = "edge"\nprivate_key = "x"\n',
        '[storage]\naccount_key = "x"\n',
    ],
)
def test_a_secret_in_the_file_is_refused_wherever_it_stands(here: Path, line: str) -> None:
    (here / "edgeml.toml").write_text(FILE + line)
    with pytest.raises(EdgemlError, match=r"holds the secret .*; remove it, renew the secret"):
        settings.load()
    from edgeml.check import check

    found = [finding for finding in check(["edgeml.toml"]) if finding.rule == "settings-key"]
    assert len(found) == 1 and "is a secret" in found[0].message
