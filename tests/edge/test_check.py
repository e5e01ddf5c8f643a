"""What `edgeml compute check` finds on VMs that are right, and on VMs that are wrong in one way each."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from edgeml.edge import check, sizing
from edgeml.storage import blob_client, transfer
from tests.conftest import RunningStorage
from tests.edge.conftest import use
from tests.edge.vm import Vm, machine

GIB = sizing.GIB


def by_name(findings: list[check.Finding]) -> dict[str, check.Finding]:
    assert len({finding.name for finding in findings}) == len(findings)
    assert all(finding.ok or (finding.cause and finding.fix) for finding in findings)
    return {finding.name: finding for finding in findings}


@pytest.fixture
def rows(storage: RunningStorage, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> RunningStorage:
    """The storage as the settings' account, with some rows in it."""
    (tmp_path / "rows.csv").write_bytes(b"x" * 4096)
    with blob_client.container("private", storage.environment) as client:
        transfer.push(client, transfer.sources([tmp_path / "rows.csv"], "check/"))
    for name, value in storage.environment.items():
        monkeypatch.setenv(name, value)
    return storage


def test_a_vm_that_is_right(vm: Vm, rows: RunningStorage) -> None:
    found = by_name(check.examine("edge", data=1, forbidden=["127.0.0.1:9"]))
    assert [name for name, finding in found.items() if not finding.ok and name not in ("disk", "system")] == []
    assert found["passwords"].cause == "the server offers none"
    assert found["forwarding"].cause == "the server carries no connections on"
    assert "answers from the VM under its certificate" in found["storage"].cause
    assert "bubblewrap" in found["sandbox"].cause
    assert sizing.RULE in found["memory"].cause
    assert "Standard_DS2_v2 or larger" in found["memory"].cause
    measured = by_name(check.examine("edge", forbidden=[]))["memory"].cause
    assert measured.startswith(found["memory"].cause.partition(";")[0]), "the rows were measured from the VM"


def test_passwords_and_forwarding_are_seen_in_how_the_server_behaves(
    project: Path, monkeypatch: pytest.MonkeyPatch, rows: RunningStorage
) -> None:
    with machine(prepared=False, passwords=True, forwarding=True) as vm:
        use(vm, monkeypatch)
        done = subprocess.run(
            [sys.executable, "-m", "edgeml", "compute", "check", "edge"], capture_output=True, text=True, env=os.environ
        )
    lines = {line.split()[1]: line for line in done.stdout.splitlines()}
    assert done.returncode == 1
    assert lines["ssh"].startswith("ok ")
    assert lines["passwords"].startswith("wrong")
    assert "the server offers password; set PasswordAuthentication" in lines["passwords"]
    assert "carries local and remote connections on, past every rule of the network; set" in lines["forwarding"]
    assert done.stderr.endswith("edgeml: edge is not ready; mend what is wrong above and check again\n")


def test_places_that_must_not_be_reached(vm: Vm, rows: RunningStorage) -> None:
    with socket.socket() as outside, socket.socket() as closed:
        outside.bind(("127.0.0.1", 0))
        outside.listen()
        closed.bind(("127.0.0.1", 0))
        open_, shut = (f"127.0.0.1:{one.getsockname()[1]}" for one in (outside, closed))
        found = by_name(check.examine("edge", data=1, forbidden=[open_, shut, "localhost", "nowhere.invalid"]))
    assert found["network"] == check.Finding(
        "network",
        False,
        f"the VM reaches {open_}, localhost",
        "deny outbound traffic in its network security group but for the storage endpoint",
    )


def test_a_storage_that_the_vm_cannot_use(vm: Vm, rows: RunningStorage, monkeypatch: pytest.MonkeyPatch) -> None:
    def storage(**changes: str) -> check.Finding:
        with monkeypatch.context() as patched:
            for name, value in changes.items():
                patched.setenv(f"EDGEML_STORAGE_{name}", value)
            found = by_name(check.examine("edge", forbidden=[]))
            assert "rows that were not measured" in found["memory"].cause
            return found["storage"]

    assert storage(CA_BUNDLE="").cause == "asked from the VM, its certificate is not trusted"
    assert storage(ACCOUNT_URL="https://127.0.0.1:9/edgeml").cause == "asked from the VM, it does not answer"
    assert storage(ACCOUNT_URL="https://a.invalid/edgeml").cause == "asked from the VM, its name cannot be looked up"
    assert storage(ACCOUNT_KEY="aHVzaA==").cause == "asked from the VM, it refuses the credential"
    assert storage(CONTAINER="absent").cause == "asked from the VM, the container does not exist"
    assert storage(SAS_TOKEN="sv=1").cause.endswith("EDGEML_STORAGE_SAS_TOKEN must be set")


def test_a_clock_that_is_off(vm: Vm, rows: RunningStorage, monkeypatch: pytest.MonkeyPatch) -> None:
    real = time.time
    monkeypatch.setattr(check.time, "time", lambda: real() + 400)
    clock = by_name(check.examine("edge", data=1, forbidden=[]))["clock"]
    assert (clock.ok, clock.fix) == (False, "let the VM ask a time server (apt install chrony)")
    assert "off, so signatures look expired or unborn" in clock.cause


def test_what_the_data_need(vm: Vm, rows: RunningStorage) -> None:
    found = by_name(check.examine("edge", data=100_000 * GIB, cards=3, forbidden=[]))
    assert (found["memory"].ok, found["disk"].ok, found["gpu"].ok) == (False, False, False)
    assert found["memory"].fix == "no size of one machine has that; train on a sample"
    assert sizing.need(0).size == sizing.Size("Standard_DS2_v2", 2, 7)
    assert sizing.need(2 * GIB).size == sizing.Size("Standard_DS3_v2", 4, 14)
    assert sizing.need(2 * GIB, cards=2).size == sizing.Size("Standard_NC12s_v3", 12, 224, 2)


def test_the_key_of_a_gate_must_be_known(vm: Vm, rows: RunningStorage, monkeypatch: pytest.MonkeyPatch) -> None:
    vm.run("mkdir -p ~/edgeml/state/airlock; test -e ~/edgeml/state/airlock/key.pub || "
           f"echo {'ab' * 32} > ~/edgeml/state/airlock/key.pub")  # fmt: skip
    key = vm.run("cat ~/edgeml/state/airlock/key.pub").strip()
    gate = by_name(check.examine("edge", data=1, forbidden=[]))["gate"]
    assert (gate.ok, gate.fix) == (
        False,
        f'add "{key}" to airlock.public_keys in edgeml.toml, so that its releases are taken',
    )
    monkeypatch.setenv("EDGEML_AIRLOCK_PUBLIC_KEYS", json.dumps([key]))
    assert by_name(check.examine("edge", data=1, forbidden=[]))["gate"].ok


def test_a_vm_that_is_not_reached_is_one_finding(vm: Vm, rows: RunningStorage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDGEML_SSH_KEY_FILE", "/nowhere")
    (only,) = check.examine("edge")
    assert (only.name, only.ok, only.fix) == ("ssh", False, "correct EDGEML_SSH_KEY_FILE")
