"""`edgeml compute attach|rotate|detach|list` and `edgeml data register`: what the workspace is told, and by whom."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ed25519

from tests.azure import loop
from tests.azure.conftest import Edgeml
from tests.azure.running import Running
from tests.azure.sshd import Sshd, sshd

VM = "/subscriptions/s/resourceGroups/r/providers/Microsoft.Compute/virtualMachines/trainer"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sshd]:
    with sshd(tmp_path_factory.mktemp("sshd")) as running:
        yield running


@pytest.fixture
def pinned(server: Sshd, project: Path, monkeypatch: pytest.MonkeyPatch) -> Sshd:
    """The VM of the target `old-vm`, whose host key the settings have."""
    for key, value in (("ADDRESS", "127.0.0.1"), ("PORT", str(server.port)), ("HOST_KEY", server.host_key)):
        monkeypatch.setenv(f"EDGEML_COMPUTE_OLD_VM_{key}", value)
    return server


@pytest.fixture
def key(pinned: Sshd, monkeypatch: pytest.MonkeyPatch) -> str:
    text = make_key()
    monkeypatch.setenv("EDGEML_SSH_KEY", text)
    return text


def make_key(passphrase: bytes = b"") -> str:
    private = serialization.BestAvailableEncryption(passphrase) if passphrase else serialization.NoEncryption()
    made = ed25519.Ed25519PrivateKey.generate()
    form = serialization.PrivateFormat.PKCS8 if passphrase else serialization.PrivateFormat.OpenSSH
    return made.private_bytes(serialization.Encoding.PEM, form, private).decode()


def bodies(running: Running) -> list[Any]:
    return [r.json() for r in running.cloud.requests if r.method == "PUT" and "/computes/" in r.path]


def test_a_vm_is_attached_by_its_address_and_once(
    edgeml: Edgeml, project: Path, running: Running, key: str, pinned: Sshd
) -> None:
    running.service.slow_operations = 2
    assert edgeml("compute", "attach", "old-vm") == (0, "", "old-vm was attached\n")
    (body,) = bodies(running)
    inner = body["properties"]["properties"]
    assert body["location"] == loop.LOCATION and body["properties"]["computeType"] == "VirtualMachine"
    assert (inner["address"], inner["sshPort"]) == ("127.0.0.1", pinned.port)
    assert inner["administratorAccount"]["username"] == "trainer"
    assert inner["administratorAccount"]["privateKeyData"] == key
    assert inner["administratorAccount"]["publicKeyData"].startswith("ssh-ed25519 ")
    assert "resourceId" not in body["properties"] and "password" not in inner["administratorAccount"]
    assert edgeml("compute", "attach", "old-vm") == (0, "", "old-vm is attached already\n")
    assert len(bodies(running)) == 1
    _, out, _ = edgeml("compute", "list", "--json")
    assert json.loads(out) == [
        {"name": "edge-vm", "kind": "kubernetes", "state": "Succeeded"},
        {"name": "old-vm", "kind": "vm", "state": "Succeeded"},
    ]


def test_a_vm_is_attached_by_its_id(
    edgeml: Edgeml, project: Path, running: Running, key: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EDGEML_COMPUTE_OLD_VM_ADDRESS", "")
    monkeypatch.setenv("EDGEML_COMPUTE_OLD_VM_RESOURCE_ID", VM)
    assert edgeml("compute", "attach", "old-vm")[0] == 0
    (body,) = bodies(running)
    assert body["properties"]["resourceId"] == VM and "address" not in body["properties"]["properties"]


def test_a_new_key_is_sent_and_the_compute_detached(
    edgeml: Edgeml, project: Path, running: Running, key: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert edgeml("compute", "attach", "old-vm")[0] == 0
    monkeypatch.setenv("EDGEML_SSH_KEY", make_key())
    assert edgeml("compute", "rotate", "old-vm") == (0, "", "old-vm was attached anew\n")
    first, second = (body["properties"]["properties"]["administratorAccount"] for body in bodies(running))
    assert first["privateKeyData"] != second["privateKeyData"]
    assert edgeml("compute", "detach", "old-vm") == (0, "", "old-vm was detached\n")
    assert "old-vm" not in running.service.state.computes
    assert edgeml("compute", "detach", "old-vm") == (0, "", "old-vm is not attached\n")


OTHER = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIBQ7nVbXLdDl3mAzMfqHVuDXvg1S0uOtYy7VqkDBnqJc"
STRANGERS = {
    "another": (OTHER, "is not compute.old-vm.host_key: the VM was made anew, or somebody is in between; read the key"),
    "none": ("", "compute.old-vm.host_key is empty, so the VM could be anybody; read it at the VM's own console"),
    "no key": ("ssh-ed25519 nonsense", "compute.old-vm.host_key is no public key; write it as `ssh-ed25519 AAAA...`"),
}


@pytest.mark.parametrize("action", ["attach", "rotate"])
@pytest.mark.parametrize("title", STRANGERS)
def test_no_key_is_given_away_for_a_vm_that_is_not_the_pinned_one(
    edgeml: Edgeml, running: Running, key: str, monkeypatch: pytest.MonkeyPatch, title: str, action: str
) -> None:
    host_key, sentence = STRANGERS[title]
    monkeypatch.setenv("EDGEML_COMPUTE_OLD_VM_HOST_KEY", host_key)
    code, _, err = edgeml("compute", action, "old-vm")
    assert code in (1, 2) and sentence in err and err.count("\n") == 1
    assert running.cloud.requests == []


def test_a_vm_that_is_off_is_not_attached(
    edgeml: Edgeml, running: Running, key: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EDGEML_COMPUTE_OLD_VM_PORT", "9")
    code, _, err = edgeml("compute", "attach", "old-vm")
    assert code == 1 and "old-vm does not answer at 127.0.0.1:9 (" in err and err.count("\n") == 1
    assert running.cloud.requests == []


def test_a_cluster_is_attached(edgeml: Edgeml, project: Path, running: Running) -> None:
    assert edgeml("compute", "attach", "edge-vm") == (0, "", "edge-vm is attached already\n")
    running.service.state.computes.clear()
    assert edgeml("compute", "attach", "edge-vm")[0] == 0
    (body,) = bodies(running)
    assert body["properties"]["computeType"] == "Kubernetes"
    assert body["properties"]["properties"] == {"namespace": "default"}


def test_a_name_that_a_machine_has_is_no_clusters(edgeml: Edgeml, project: Path, running: Running) -> None:
    running.service.state.computes["edge-vm"] = {"computeType": "VirtualMachine", "provisioningState": "Succeeded"}
    code, _, err = edgeml("compute", "attach", "edge-vm")
    assert code == 1 and "has a compute 'edge-vm' of another kind, VirtualMachine; give the target another name" in err
    assert bodies(running) == []


@pytest.mark.parametrize("kind", ["429", "500", "reset", "lost", "half"])
def test_attaching_survives_what_passes(edgeml: Edgeml, project: Path, running: Running, key: str, kind: str) -> None:
    running.service.slow_operations = 1
    running.cloud.fail(kind, lambda r: "/computes/" in r.path, 1)
    running.cloud.fail(kind, lambda r: "operationsStatus" in r.path, 1)
    assert edgeml("compute", "attach", "old-vm")[0] == 0
    assert running.cloud.thrown == [kind, kind]
    assert running.service.state.computes["old-vm"]["provisioningState"] == "Succeeded"


BAD = {
    "a name taken by another kind": "has a compute 'old-vm' of another kind, AmlCompute; give the target another name",
    "a key with a passphrase": "has a passphrase, which Azure ML could not give; make one for this target alone",
    "no key": "no key for old-vm: put it into EDGEML_SSH_KEY",
    "half a key": "EDGEML_SSH_KEY holds no private key",
    "a weak password": "of 4 (zxcvbn); take a key, or a stronger one",
    "an address and an id": "needs an address or a resource_id, one of the two",
    "no permission": "this identity may not do Microsoft.MachineLearningServices/workspaces/computes/write",
    "wrong subscription": "there is no subscription 99999999-9999-9999-9999-999999999999",
    "workspace gone": "there is no workspace 'edge-training' in 'edge'",
}


@pytest.mark.parametrize("title", BAD)
def test_what_cannot_be_attached_is_one_sentence(
    edgeml: Edgeml, project: Path, running: Running, key: str, monkeypatch: pytest.MonkeyPatch, title: str
) -> None:
    more = []
    if title == "a name taken by another kind":
        running.service.state.computes["old-vm"] = {"computeType": "AmlCompute", "provisioningState": "Succeeded"}
    elif title == "a key with a passphrase":
        monkeypatch.setenv("EDGEML_SSH_KEY", make_key(b"secret words"))
    elif title == "no key":
        monkeypatch.delenv("EDGEML_SSH_KEY")
    elif title == "half a key":
        monkeypatch.setenv("EDGEML_SSH_KEY", key[: len(key) // 2])
    elif title == "a weak password":
        monkeypatch.setenv("EDGEML_SSH_PASSWORD", "Hospital2026!")
        more = ["--password"]
    elif title == "an address and an id":
        monkeypatch.setenv("EDGEML_COMPUTE_OLD_VM_RESOURCE_ID", VM)
    elif title == "no permission":
        running.service.denied = ("PUT", "computes")
    elif title == "wrong subscription":
        monkeypatch.setenv("EDGEML_AZURE_SUBSCRIPTION_ID", "99999999-9999-9999-9999-999999999999")
    else:
        running.service.gone = True
    code, _, err = edgeml("compute", "attach", "old-vm", *more)
    assert code in (1, 2) and BAD[title] in err and err.count("\n") == 1
    assert "secret words" not in err and "Hospital2026!" not in err and "BEGIN" not in err
    assert running.service.state.computes.get("old-vm", {}).get("computeType") != "VirtualMachine"


def test_a_strong_password_is_taken_when_forced(
    edgeml: Edgeml, project: Path, running: Running, pinned: Sshd, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EDGEML_SSH_PASSWORD", "ukulele-7-thicket-orbit-Margrave")
    assert edgeml("compute", "attach", "old-vm", "--password")[0] == 0
    account = bodies(running)[0]["properties"]["properties"]["administratorAccount"]
    assert account == {"username": "trainer", "password": "ukulele-7-thicket-orbit-Margrave"}


def test_the_rows_are_registered_by_reference_only(
    edgeml: Edgeml, project: Path, running: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EDGEML_STORAGE_ACCOUNT_URL", "https://rows.blob.region.stamp.example")
    monkeypatch.setenv("EDGEML_STORAGE_ACCOUNT_KEY", "bm90IGZvciBBenVyZQ==")
    running.service.state.datastores.pop("stackhub")
    data = ["data", "register", "stackhub", "--prefix", "patients/", "--fingerprint", "sha256:" + "a" * 64]
    code, out, err = edgeml(*data)
    assert (code, out) == (0, f"azureml:rows:{'a' * 16}\n"), err
    store = running.service.state.datastores["stackhub"]
    assert (store["accountName"], store["endpoint"]) == ("rows", "region.stamp.example")
    assert store["credentials"] == {"credentialsType": "None"}
    asset = running.service.state.assets["data", "rows", "a" * 16]
    assert asset["dataUri"] == "azureml://datastores/stackhub/paths/patients/"
    code, _, err = edgeml(*data)
    assert (
        code == 0 and err == "datastore stackhub is there already\ndata asset rows:aaaaaaaaaaaaaaaa is there already\n"
    )
    assert not any(b"bm90IGZvciBBenVyZQ" in request.body for request in running.cloud.requests)
    code, _, err = edgeml("data", "register", "stackhub", "--fingerprint", "sha256:xyz")
    assert code == 2 and "is no fingerprint" in err


def test_doctor_tests_in_order_and_says_what_mends_it(
    edgeml: Edgeml, project: Path, running: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    code, out, _ = edgeml("doctor", "--target", "edge-vm", "--json")
    names = [one["name"] for one in json.loads(out)]
    assert names == ["check", "storage", "cloud", "sign-in", "workspace", "jobs", "datastores", "edge-vm"]
    assert code == 0, out
    code, out, _ = edgeml("doctor", "--target", "old-vm")
    assert code == 1 and out.splitlines()[-2:] == [
        "WRONG  old-vm: vm, not attached",
        "       mend it: edgeml compute attach old-vm",
    ]
    running.service.denied = ("GET", "jobs")
    code, out, _ = edgeml("doctor", "--target", "edge-vm")
    assert code == 1 and "WRONG  jobs: this identity may not do" in out and "role AzureML Data Scientist" in out
    running.service.gone = True
    code, out, _ = edgeml("doctor", "--target", "edge-vm")
    assert code == 1 and "WRONG  workspace: there is no workspace 'edge-training'" in out
    monkeypatch.setenv("EDGEML_AZURE_WORKSPACE", "")
    code, out, _ = edgeml("doctor", "--target", "edge-vm")
    assert code == 1 and "mend it: set azure.workspace in edgeml.toml, or EDGEML_AZURE_WORKSPACE" in out
    code, _, err = edgeml("doctor", "--target", "nobody")
    assert code == 2 and "has no [compute.nobody]" in err
