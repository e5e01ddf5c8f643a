"""`edgeml infra` against Resource Manager on loopback: plan, apply, resume, hand over, destroy, and what goes wrong."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from edgeml.infra import template
from tests.conftest import RunningStorage
from tests.infra.arm_server import KEY, TOKEN, ArmServer
from tests.infra.conftest import PUBLIC_KEY, Run, fill

STACK_HUB = ("--target", "stack-hub")
VM = "Microsoft.Compute/virtualMachines"


@pytest.fixture
def rows(arm: ArmServer, storage: RunningStorage, folder: Path, monkeypatch: pytest.MonkeyPatch) -> ArmServer:
    """A stamp whose storage answers: Azurite, whose key only the stamp's listKeys tells."""
    bundle = folder.parent / "both.pem"
    bundle.write_text(arm.cert.read_text() + Path(storage.environment["EDGEML_STORAGE_CA_BUNDLE"]).read_text())
    monkeypatch.setenv("EDGEML_STORAGE_CA_BUNDLE", str(bundle))
    monkeypatch.setenv("EDGEML_STORAGE_CONTAINER", f"rows-{time.monotonic_ns()}")
    arm.blob = storage.environment["EDGEML_STORAGE_ACCOUNT_URL"]
    arm.account_key = storage.environment["EDGEML_STORAGE_ACCOUNT_KEY"]
    return arm


def test_a_plan_only_reads_and_says_what_would_be_made(arm: ArmServer, infra: Run) -> None:
    code, printed, said = infra("plan", *STACK_HUB)
    assert code == 3, said
    assert "+ Compute/virtualMachines edge" in printed
    assert "8 to create, 0 to change, 0 as written" in printed
    assert "Standard_DS3_v2 (4 processors, 14 GiB): rows of up to 2.0 GiB" in said
    assert arm.writes() == []


def test_apply_makes_it_and_hands_over_and_the_second_time_does_nothing(
    rows: ArmServer, infra: Run, folder: Path
) -> None:
    code, printed, said = infra("apply", *STACK_HUB)
    assert code == 0, said
    assert "made Compute/virtualMachines edge" in said
    settings = (folder / "edgeml.toml").read_text()
    assert settings.startswith("# ours\n[storage]\n")
    assert "# of the rows" in settings
    assert '[compute.edge-vm]\nkind = "edge"\nuser = "edgeml"\naddress = "198.51.100.10"\n' in settings
    assert f'host_key = "{KEY}"' in settings
    assert rows.account_key not in settings + printed + said
    assert TOKEN not in settings + printed + said
    before = len(rows.writes())
    code, printed, said = infra("apply", *STACK_HUB)
    assert (code, printed) == (0, "edgeml.toml: as it was\n")
    assert [one for one in rows.writes()[before:] if "listKeys" not in one] == []
    assert infra("plan", *STACK_HUB)[0] == 0


def test_what_somebody_changed_by_hand_is_shown_and_put_right(rows: ArmServer, infra: Run) -> None:
    assert infra("apply", *STACK_HUB)[0] == 0
    group = next(one for name, one in rows.resources.items() if name.endswith("/edge-ssh"))
    rule = group["properties"]["securityRules"][0]
    rule["properties"]["sourceAddressPrefixes"] = ["0.0.0.0/0"]
    group["properties"]["securityRules"].append({**rule, "name": "for-a-moment"})
    code, printed, _ = infra("plan", *STACK_HUB)
    assert code == 3
    assert "securityRules[ssh].properties.sourceAddressPrefixes: ['0.0.0.0/0'] -> ['192.0.2.0/24']" in printed
    assert "securityRules[for-a-moment]:" in printed
    assert "0 to create, 1 to change, 7 as written" in printed
    assert infra("apply", *STACK_HUB)[0] == 0
    assert infra("plan", *STACK_HUB)[0] == 0


def test_a_new_bootstrap_is_a_change_of_the_extension_alone(rows: ArmServer, infra: Run, folder: Path) -> None:
    assert infra("apply", *STACK_HUB)[0] == 0
    script = folder / "infra/stack-hub/bootstrap.sh"
    script.write_text(script.read_text() + "# one line more\n")
    code, printed, _ = infra("plan", *STACK_HUB)
    assert code == 3
    assert [line for line in printed.splitlines() if line.startswith("~")] == [
        "~ Compute/virtualMachines/extensions edge/bootstrap"
    ]


def test_a_killed_apply_is_gone_on_with_and_nothing_is_started_twice(rows: ArmServer, infra: Run) -> None:
    rows.frozen = True
    command = [sys.executable, "-m", "edgeml", "infra", "apply", *STACK_HUB]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    assert any("started edgeml-" in line for line in process.stderr)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    process.stderr.close()
    rows.frozen = False
    code, _, said = infra("apply", *STACK_HUB)
    assert code == 0
    assert "is running already; waiting for it" in said
    assert len([one for one in rows.writes() if "/deployments/" in one]) == 1


def test_waiting_ends_and_says_how_to_go_on(rows: ArmServer, infra: Run) -> None:
    rows.frozen = True
    code, _, said = infra("apply", *STACK_HUB, "--minutes", "0.01")
    assert code == 1
    assert "is still running; run the same command again, it goes on waiting" in said


def test_a_failed_deployment_says_which_resource_and_why_and_is_tried_again(rows: ArmServer, infra: Run) -> None:
    rows.failing = {VM: "Standard_DS3_v2 is not available in the capacity of this region."}
    code, _, said = infra("apply", *STACK_HUB)
    assert code == 1
    assert "Compute/virtualMachines edge: Conflict: Standard_DS3_v2 is not available" in said
    rows.failing = {}
    assert infra("apply", *STACK_HUB)[0] == 0


@pytest.mark.parametrize("status", [429, 500, 503])
def test_a_busy_resource_manager_is_asked_again(rows: ArmServer, infra: Run, status: int) -> None:
    busy = {"error": {"code": "Busy", "message": "later"}}
    rows.faults = [(method, "/deployments/", status, busy, {"Retry-After": "0.01"}) for method in ("GET", "PUT", "GET")]
    code, _, said = infra("apply", *STACK_HUB)
    assert code == 0, said
    assert len({one for one in rows.writes() if "/deployments/" in one}) == 1


@pytest.mark.parametrize(
    ("code", "message", "status", "sentence"),
    [
        ("AuthorizationFailed", "does not have authorization to perform action 'x'.", 403, "give this identity a role"),
        ("SubscriptionNotFound", "The subscription 's' could not be found.", 404, "check the subscription"),
        ("InvalidAuthenticationToken", "The access token expired.", 401, "sign in again"),
    ],
)
def test_a_refusal_is_one_sentence(
    arm: ArmServer, infra: Run, code: str, message: str, status: int, sentence: str
) -> None:
    arm.faults = [("GET", "/resourcegroups/", status, {"error": {"code": code, "message": message}}, {})]
    exit_code, _, said = infra("plan", *STACK_HUB)
    assert exit_code == 1
    assert sentence in said
    assert said.startswith("edgeml: ")
    assert said.count("\n") == 1


def test_an_image_that_is_not_offered_is_found_before_anything_is_made(arm: ArmServer, infra: Run) -> None:
    arm.skus = ["20_04-lts"]
    code, _, said = infra("apply", *STACK_HUB)
    assert code == 1
    assert (
        "offers no image Canonical/0001-com-ubuntu-server-jammy/22_04-lts: it has 20_04-lts; ask its operator" in said
    )
    assert arm.writes() == []


def test_a_vm_too_small_for_the_rows_is_refused_with_the_size_to_take(arm: ArmServer, infra: Run) -> None:
    code, _, said = infra("plan", *STACK_HUB, "--rows", "4GiB")
    assert code == 2
    assert "Standard_DS3_v2 is too small" in said
    assert "take Standard_DS4_v2" in said
    assert infra("plan", *STACK_HUB, "--rows", "2 GiB")[0] == 3


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ({"adminKey": ""}, "the parameter 'adminKey' is empty; set it in infra/stack-hub/parameters.json"),
        ({"adminKey": "ssh-ed25519 " + "-----BEGIN " * 8}, "adminKey is no public SSH key"),
        ({"sshSources": ["0.0.0.0/0"]}, "0.0.0.0/0 lets 4,294,967,296 addresses in"),
        ({"sshSources": ["0.0.0.0/1", "128.0.0.0/1"]}, "0.0.0.0/1 lets 2,147,483,648 addresses in"),
        ({"sshSources": ["*"]}, "'*' is no IPv4 range"),
        ({"sshSources": ["Internet"]}, "'Internet' is no IPv4 range"),
        ({"sshSources": ["192.0.2.0/24'; reboot; '"]}, "is no IPv4 range"),
        ({"storageAccount": "edge-data2019"}, "'edge-data2019' is no name for Microsoft.Storage/storageAccounts"),
        ({"adminUser": "root"}, "'root' is no user name that Azure and Linux take"),
        ({"adminUser": "a;b"}, "'a;b' is no user name"),
        ({"dataDiskGiB": 4096}, "the parameter 'dataDiskGiB' must have 32 to 1023, not 4096"),
        ({"strange": 1}, "the template has no parameter 'strange'"),
        ({"publicAddress": "yes"}, "the parameter 'publicAddress' must be of type bool"),
    ],
)
def test_bad_parameters_are_refused_before_anybody_signs_in(
    arm: ArmServer, infra: Run, folder: Path, values: dict[str, object], sentence: str
) -> None:
    fill(folder, "stack-hub", values)
    code, _, said = infra("plan", *STACK_HUB)
    assert code == 2
    assert sentence in said
    assert arm.asked == []


def test_egress_that_is_no_host_and_port_never_reaches_the_shell(
    arm: ArmServer, infra: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EDGEML_STACKHUB_EGRESS", json.dumps(["example.org:443'; reboot"]))
    code, _, said = infra("plan", *STACK_HUB)
    assert code == 2
    assert "is no host:port" in said


def test_without_a_public_address_nothing_waits_for_one(rows: ArmServer, infra: Run, folder: Path) -> None:
    code, _, said = infra("apply", *STACK_HUB, "--set", "publicAddress=false", "--set", "sshSources=[]")
    assert code == 0, said
    assert not [name for name in rows.resources if "publicipaddresses" in name]
    interface = next(one for name, one in rows.resources.items() if "networkinterfaces" in name)
    assert interface["properties"]["ipConfigurations"][0]["properties"]["publicIPAddress"] is None
    assert "address" not in (folder / "edgeml.toml").read_text().replace("account", "")


def test_a_host_key_that_is_not_told_is_asked_of_a_person(rows: ArmServer, infra: Run, folder: Path) -> None:
    rows.prints = "echo edgeml-host-key: forged by another line\n"
    code, _, said = infra("apply", *STACK_HUB)
    assert code == 0
    assert "the VM's host key is not told" in said
    assert "host_key" not in (folder / "edgeml.toml").read_text()


def test_the_resource_group_is_made_where_its_region_is_named(rows: ArmServer, infra: Run) -> None:
    rows.groups.clear()
    code, _, said = infra("plan", *STACK_HUB)
    assert code == 2
    assert "there is no resource group 'edge'; name its region" in said
    assert infra("apply", *STACK_HUB, "--set", "location=local")[0] == 0
    assert rows.groups["edge"]["location"] == "local"


def test_destroy_keeps_the_rows_and_asks_for_the_name(rows: ArmServer, infra: Run) -> None:
    assert infra("apply", *STACK_HUB)[0] == 0
    before = len(rows.writes())
    code, printed, said = infra("destroy", *STACK_HUB)
    assert code == 2
    assert "nobody can be asked here" in said
    assert "- Compute/disks edge-os  (billed: its whole size, whether or not the VM runs)" in printed
    assert "  Storage/storageAccounts edgemlrows  stays: the private rows lie there" in printed
    code, _, said = infra("destroy", *STACK_HUB, "--name", "edg")
    assert code == 1
    assert rows.writes()[before:] == []
    assert infra("destroy", *STACK_HUB, "--name", "edge")[0] == 0
    assert [name.rpartition("/")[2] for name in rows.resources] == ["edgemlrows"]
    assert infra("destroy", *STACK_HUB, "--name", "edge")[0] == 0


def test_the_rows_go_only_when_told_twice(rows: ArmServer, infra: Run) -> None:
    assert infra("apply", *STACK_HUB)[0] == 0
    for words in (["--private-rows"], ["--private-rows", "--account", "edgemlrow"], ["--account", "edgemlrows"]):
        infra("destroy", *STACK_HUB, "--name", "edge", *words)
        assert any(name.endswith("/edgemlrows") for name in rows.resources), words
    assert infra("destroy", *STACK_HUB, "--name", "edge", "--private-rows", "--account", "edgemlrows")[0] == 0
    assert rows.resources == {}


def test_a_destroy_that_failed_is_gone_on_with(rows: ArmServer, infra: Run) -> None:
    assert infra("apply", *STACK_HUB)[0] == 0
    locked = {"error": {"code": "ScopeLocked", "message": "The scope is locked."}}
    rows.faults = [("DELETE", "/networkInterfaces/", 409, locked, {})]
    code, _, said = infra("destroy", *STACK_HUB, "--name", "edge")
    assert code == 1
    assert "ScopeLocked" in said
    assert infra("destroy", *STACK_HUB, "--name", "edge")[0] == 0
    assert len(rows.resources) == 1


@pytest.mark.parametrize("sites", [(), ("--set", "endpointAuth=key", "--set", 'webApps=["ward"]')], ids=["", "sites"])
@pytest.mark.parametrize("arm", ["azure"], indirect=True)
def test_the_cloud_side_is_made_and_handed_over(
    arm: ArmServer, infra: Run, folder: Path, sites: tuple[str, ...]
) -> None:
    code, _, said = infra("apply", "--target", "azure", *sites)
    assert code == 0, said
    settings = (folder / "edgeml.toml").read_text()
    workspace = template.values_of(folder / "infra/azure/parameters.json")["workspace"]  # a fork's own
    assert f'[azure]\nworkspace = "{workspace}"\nclient_id = "44444444-4444-4444-4444-444444444444"\n' in settings
    assert "deploying identity 55555555-5555-5555-5555-555555555555" in said
    assert infra("plan", "--target", "azure", *sites)[0] == 0
    assert any(one.lower().endswith(f"/{workspace}-pull") for one in arm.resources) == bool(sites)
    subjects = {
        one["properties"]["subject"] for one in arm.resources.values() if "subject" in one.get("properties", {})
    }
    assert subjects == {
        f"repo:{repository}:environment:{name}"
        for repository in ("Acme/train", "Acme@12/train@34")
        for name in ("training", "staging", "production")
    }


def test_settings_that_are_missing_are_named(folder: Path, infra: Run) -> None:
    assert "stackhub.tenant_id is empty" in infra("plan", *STACK_HUB)[2]
    assert "azure.tenant_id is empty" in infra("plan", "--target", "azure")[2]


def test_a_deployment_is_named_by_its_content(arm: ArmServer, infra: Run, folder: Path) -> None:
    first = json.loads(infra("plan", *STACK_HUB, "--json")[1])
    again = json.loads(infra("plan", *STACK_HUB, "--json")[1])
    other = json.loads(infra("plan", *STACK_HUB, "--json", "--set", "dataDiskGiB=512")[1])
    assert first["deployment"] == again["deployment"] != other["deployment"]
    assert len(first["deployment"]) <= 64
    assert PUBLIC_KEY in json.dumps(template.values_of(folder / "infra/stack-hub/parameters.json"))
