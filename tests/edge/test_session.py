"""Who is let in, by which key, to which machine; each refusal is one sentence."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from edgeml.edge import executor, session
from edgeml.errors import EdgemlError
from tests.edge.vm import Vm, machine


def hello(patience: float = 0.0) -> dict:
    with executor.reached("edge") as (host, edge):
        question = {"verb": "hello", "folder": edge.folder, "environment": "0" * 32}
        return session.told(host, question, patience=patience)[-1]


def refused() -> str:
    with pytest.raises(EdgemlError) as caught:
        hello()
    assert "\n" not in str(caught.value)
    return str(caught.value)


def changed(monkeypatch: pytest.MonkeyPatch, vm: Vm, **values: object) -> None:
    target = json.loads(vm.environment["EDGEML_COMPUTE"])
    target["edge"].update(values)
    monkeypatch.setenv("EDGEML_COMPUTE", json.dumps(target))


def test_the_key_and_the_pinned_host_let_in(vm: Vm) -> None:
    assert hello()["machine"]
    assert vm.run("hostname").strip() == "edge-vm"
    assert "edgeml" in vm.run("id -un")


def test_a_changed_host_key_is_refused(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with machine(prepared=False) as other:
        before = other.environment
        other.stop()
        other.new_host_key()
        other.start()
        for name, value in before.items():
            monkeypatch.setenv(name, value)
        assert refused().startswith("the host key of edge (127.0.0.1:")
        assert "is not compute.edge.host_key: the VM was made anew, or somebody is in between" in refused()


@pytest.mark.parametrize(
    ("host_key", "sentence"),
    [
        ("", "compute.edge.host_key is empty, so the VM could be anybody"),
        ("ssh-ed25519 nonsense", "compute.edge.host_key is no public key; write it as"),
    ],
)
def test_a_host_that_is_not_pinned_is_not_asked(
    vm: Vm, monkeypatch: pytest.MonkeyPatch, host_key: str, sentence: str
) -> None:
    changed(monkeypatch, vm, host_key=host_key)
    assert refused().startswith(sentence)


def test_a_key_with_a_passphrase(vm: Vm, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    locked = tmp_path / "locked"
    locked.write_bytes(vm.key.read_bytes())
    locked.chmod(0o600)
    keygen("-p", "-N", "correct horse", "-f", str(locked))
    monkeypatch.setenv("EDGEML_SSH_KEY_FILE", str(locked))
    assert refused() == f"the SSH key {locked} has a passphrase and none is given; set EDGEML_SSH_PASSPHRASE"
    monkeypatch.setenv("EDGEML_SSH_PASSPHRASE", "battery staple")
    assert refused() == f"EDGEML_SSH_PASSPHRASE does not open the SSH key {locked}; give the right one"
    monkeypatch.setenv("EDGEML_SSH_PASSPHRASE", "correct horse")
    assert hello()["machine"]
    monkeypatch.setenv("EDGEML_SSH_KEY", locked.read_text())
    monkeypatch.delenv("EDGEML_SSH_KEY_FILE")
    assert hello()["machine"], "a workflow gives the content"


def test_keys_that_are_none(vm: Vm, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    path = tmp_path / "key"
    monkeypatch.setenv("EDGEML_SSH_KEY_FILE", str(path))
    assert "cannot be read (No such file or directory); correct EDGEML_SSH_KEY_FILE" in refused()
    path.write_text("nothing\n")
    path.chmod(0o600)
    assert refused() == f"{path} is no private SSH key; make one with `ssh-keygen -t ed25519`"
    path.chmod(0o644)
    assert refused() == f"the SSH key {path} can be read by others; call `chmod 600` on it"
    monkeypatch.delenv("EDGEML_SSH_KEY_FILE")
    assert refused().startswith("no SSH key is given; name its file in EDGEML_SSH_KEY_FILE")


def test_a_strange_key_or_user_is_not_let_in(vm: Vm, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    keygen("-t", "ed25519", "-N", "", "-f", str(tmp_path / "strange"))
    monkeypatch.setenv("EDGEML_SSH_KEY_FILE", str(tmp_path / "strange"))
    assert "does not let the key in as user edgeml; add its public half to that user's" in refused()


def test_a_vm_that_is_off(vm: Vm, monkeypatch: pytest.MonkeyPatch) -> None:
    changed(monkeypatch, vm, port=9)
    assert refused().startswith("edge does not answer at 127.0.0.1:9 (")


def test_targets_that_are_none(vm: Vm) -> None:
    with pytest.raises(EdgemlError, match=r"is no compute target of kind edge in edgeml\.toml; there are: edge"):
        executor.target_of("cloud")


def test_what_a_login_prints_is_no_answer(vm: Vm) -> None:
    vm.run("echo 'echo Welcome' > ~/.bashrc")
    try:
        assert refused() == "the VM answers what is no answer of edgeml; see what its shell prints at login"
    finally:
        vm.run("rm ~/.bashrc")


def keygen(*words: str) -> None:
    subprocess.run(["ssh-keygen", "-q", *words], check=True, stdin=subprocess.DEVNULL)
