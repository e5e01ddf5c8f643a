"""Jobs on a real machine of their own: started, watched, lost and found again, ended, and what comes back of them."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from edgeml.edge import executor, session, tree
from edgeml.errors import EdgemlError
from edgeml.storage import blob_client, sas, transfer
from tests.conftest import RunningStorage
from tests.edge.conftest import commit, use
from tests.edge.vm import Vm, machine
from tests.whole import whole

TWO, FAILS, STREAM, GIVEN = (f"pipelines/edge/{name}.yml" for name in ("two", "fails", "stream", "given"))
SECONDS = 120.0


class Heard(list[str]):
    """What was said, and a way to wait until a step is in some state."""

    def __call__(self, line: str) -> None:
        self.append(line)

    def states(self, node: str) -> list[str]:
        return [line.split()[1] for line in self if line.split()[:1] == [node]]


def submit(pipeline: str, job: str, **inputs: str) -> executor.Submitted:
    return executor.submit("edge", pipeline, job, {"turn": job, **inputs} if pipeline == TWO else inputs, Heard())


def wait(job: str) -> tuple[executor.Finished, Heard]:
    heard = Heard()
    return executor.wait("edge", job, heard, SECONDS), heard


def until(vm: Vm, job: str, words: str) -> None:
    """Wait until the job's progress on the VM holds the words."""
    deadline = time.monotonic() + SECONDS
    while words not in vm.run(f"cat ~/edgeml/jobs/{job}/progress.jsonl 2>/dev/null || true"):
        assert time.monotonic() < deadline, vm.run(f"cat ~/edgeml/jobs/{job}/*.log")
        time.sleep(0.05)


@pytest.fixture
def go(vm: Vm) -> str:
    """The command that lets the second step of `two` end, undone afterwards."""
    vm.run("rm -f ~/go")
    return "touch ~/go"


SECOND = '"second", "status": "running"'


def test_a_vm_that_reboots_in_the_middle_goes_on_from_its_finished_steps(vm: Vm, go: str) -> None:
    assert submit(TWO, "reboot") == ("reboot", "running", False)
    until(vm, "reboot", SECOND)
    heard = Heard()
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(executor.wait, "edge", "reboot", heard, SECONDS)
        while "running" not in heard.states("second"):
            time.sleep(0.05)
        vm.stop()
        time.sleep(0.5)
        vm.start()
        vm.run(go)
        finished = waiting.result(SECONDS)
    assert (finished.state, finished.failures) == ("completed", {})
    assert "the connection was lost; the job goes on without it, trying again" in heard
    assert "edge was restarted, or the job ended with its session; it goes on from its finished steps" in heard
    assert heard.states("first") == ["running", "completed", "cached"]
    assert heard.states("second") == ["running", "running", "completed"]


def test_a_lost_connection_does_not_touch_the_job(vm: Vm, go: str) -> None:
    submit(TWO, "lost")
    until(vm, "lost", SECOND)
    heard = Heard()
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(executor.wait, "edge", "lost", heard, SECONDS)
        while "running" not in heard.states("second"):
            time.sleep(0.05)
        vm.run("pkill -KILL -f '^sshd: edgeml'", root=True)
        while "the connection was lost; the job goes on without it, trying again" not in heard:
            time.sleep(0.05)
        vm.run(go)
        finished = waiting.result(SECONDS)
    assert finished.state == "completed"
    assert heard.states("first") == ["running", "completed"], "nothing was started again"
    assert heard.states("second") == ["running", "completed"]


def test_two_submits_of_the_same_job_are_one_run(vm: Vm, go: str) -> None:
    with ThreadPoolExecutor(2) as pool:
        both = list(pool.map(lambda _: submit(TWO, "twice"), range(2)))
    assert sorted(submitted.attached for submitted in both) == [False, True]
    until(vm, "twice", SECOND)
    assert submit(TWO, "twice") == ("twice", "running", True), "also later"
    with pytest.raises(EdgemlError, match="a job of this name is there already, of other code or inputs"):
        submit(FAILS, "twice")
    vm.run(go)
    finished, heard = wait("twice")
    assert finished.state == "completed"
    assert heard.states("second") == ["running", "completed"]
    assert submit(TWO, "twice") == ("twice", "completed", True)

    record = json.loads((Path(finished.path) / "run.json").read_text())
    head = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True, check=True).stdout.strip()
    assert record["git"] == {"commit": head, "dirty": False}
    assert (record["run"], record["experiment"], record["status"]) == ("twice", "edge-tests", "completed")
    assert {step["command"] + step["message"] for step in record["steps"]} == {""}


def test_a_job_can_be_cancelled_and_taken_up_again(vm: Vm, go: str) -> None:
    submit(TWO, "cancelled")
    until(vm, "cancelled", SECOND)
    assert executor.follow("edge", "cancelled", Heard(), 0.5).state == "running", "the time was up"
    assert executor.cancel("edge", "cancelled") == "cancelled"
    assert "sleep 0.1" not in vm.run("ps -eo args"), "its steps are gone"
    assert wait("cancelled")[0].state == "cancelled"
    vm.run(go)
    assert submit(TWO, "cancelled").attached is False
    assert wait("cancelled")[0].state == "completed"


def test_of_a_step_that_fails_neither_words_nor_numbers_are_told(vm: Vm) -> None:
    submit(FAILS, "fails")
    finished, heard = wait("fails")
    assert finished.state == "failed"
    assert finished.failures == {"speaks": "it failed; its log stays on the VM, in the job's folder"}
    assert "Margaret" in vm.run("cat ~/edgeml/jobs/fails/run/jobs/speaks/log.txt"), "it did speak"
    assert not any("Margaret" in line or "94" in line for line in [*heard, repr(finished)])
    assert executor.submit("edge", FAILS, "fails", {}, Heard()).attached is False, "submitted again it runs again"


def test_what_the_engine_refuses_before_any_step_is_told(vm: Vm, go: str) -> None:
    vm.run(go)
    submit(TWO, "refused")
    assert wait("refused")[0].state == "completed"
    vm.run("rm ~/edgeml/jobs/refused/result.json; chmod 500 ~/edgeml/jobs/refused/run")
    try:
        submit(TWO, "refused")
        finished, _ = wait("refused")
    finally:
        vm.run("chmod 700 ~/edgeml/jobs/refused/run")
    assert finished.state == "failed"
    (why,) = finished.failures.values()
    assert why.startswith("no permission to write or read at /home/edgeml/edgeml/jobs/refused/run")


def test_a_job_that_is_not_there(vm: Vm) -> None:
    with pytest.raises(EdgemlError, match="there is no job nowhere on edge; submit it first"):
        wait("nowhere")


def test_files_go_there_as_inputs_and_only_once(vm: Vm, tmp_path: Path) -> None:
    (tmp_path / "some table.csv").write_text("a,b\n1,2\n")
    submit(GIVEN, "given", table=str(tmp_path / "some table.csv"))
    assert wait("given")[0].state == "completed"
    assert vm.run("cat ~/edgeml/jobs/given/run/*/copies/made") == "a,b\n1,2\n"
    heard = Heard()
    executor.submit("edge", GIVEN, "given", {"table": str(tmp_path / "some table.csv")}, heard)
    assert heard == [], "nothing is sent again"


def test_a_file_that_was_changed_on_the_vm_is_put_right(vm: Vm) -> None:
    submit(FAILS, "fails")
    code, _ = tree.committed(str(Path.cwd()))
    place = f"~/edgeml/code/{code.identity}"
    vm.run(f"echo 'import evil' > {place}/edgeml/cli.py; echo > {place}/edgeml/more.py")
    submit(FAILS, "fails")
    assert vm.run(f"cat {place}/edgeml/cli.py") == Path("edgeml/cli.py").read_text()
    assert vm.run(f"ls {place}/edgeml/more.py 2>/dev/null || true") == ""


def test_only_what_is_committed_runs(vm: Vm, project: Path) -> None:
    (project / "pipelines/new.yml").write_text("jobs:\n  a: {command: echo}\n")
    try:
        with pytest.raises(EdgemlError, match=r"pipelines/new\.yml is not in the commit"):
            submit("pipelines/new.yml", "new")
    finally:
        (project / "pipelines/new.yml").unlink()


def test_a_full_disk_is_told_and_nothing_done_is_lost(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    full = r"no space is left on the VM's disk; free some there and submit the same job again"
    fill = "head -c 200m /dev/zero > ~/ballast 2>/dev/null || true"
    with machine(home="48m") as vm:
        use(vm, monkeypatch)
        vm.run(fill)
        with pytest.raises(EdgemlError, match=full):
            submit(TWO, "full")
        vm.run("rm ~/ballast")
        submit(TWO, "full")
        until(vm, "full", SECOND)
        vm.run(fill)
        vm.run("touch ~/go")
        finished, _ = wait("full")
        assert finished.state == "failed"
        assert [why for why in finished.failures.values() if why.startswith("no space is left on the VM's disk")]
        vm.run("rm ~/ballast")
        assert submit(TWO, "full").attached is False
        finished, heard = wait("full")
        assert finished.state == "completed"
        assert "cached" in heard.states("first")


def test_a_credential_that_expires_in_the_middle_of_a_stream(
    vm: Vm, storage: RunningStorage, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "rows.csv").write_text("id,age\n" + "Margaret,94\n" * 1000)
    with blob_client.container("private", storage.environment) as client:
        transfer.push(client, transfer.sources([tmp_path / "rows.csv"], "edge/"))
    for name, value in storage.environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("EDGEML_STORAGE_ACCOUNT_KEY")
    rows = "~/edgeml/jobs/expires/run/edge/stream/rows"
    for seconds in (6, 24, 90):  # on a busy machine it may have expired before the stream begins: that is another case
        monkeypatch.setenv("EDGEML_STORAGE_SAS_TOKEN", token(storage, seconds))
        submit(STREAM, "expires")
        finished, heard = wait("expires")
        if vm.run(f"ls {rows} 2>/dev/null || true"):
            break
    assert finished.state == "failed"
    assert list(finished.failures) == ["stream"]
    assert finished.failures["stream"].startswith(
        "the storage account refuses the credential, or it expired while the rows were read; give a fresh one in "
        "EDGEML_STORAGE_SAS_TOKEN"
    )
    half = int(vm.run(f"stat -c %s {rows}"))
    assert 1000 <= half < 12_000, "it had begun"

    fresh = token(storage, 600)
    monkeypatch.setenv("EDGEML_STORAGE_SAS_TOKEN", fresh)
    assert submit(STREAM, "expires").attached is False
    assert wait("expires")[0].state == "completed"
    signature = fresh.partition("sig=")[2]
    assert vm.run(f"grep -rlF '{signature}' ~/edgeml || true") == "", "the credential is on no disk"
    assert not any("Margaret" in line for line in heard)


def token(storage: RunningStorage, seconds: float) -> str:
    account, key = (storage.environment[f"EDGEML_STORAGE_ACCOUNT_{name}"] for name in ("NAME", "KEY"))
    return sas.container_sas(account, key, "private", expires=datetime.now(UTC) + timedelta(seconds=seconds))


@whole("makes an environment over SSH in 30 s")
def test_a_machine_without_packages_gets_them_from_here(
    project: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    small = tmp_path / "small"
    subprocess.run(["cp", "-r", str(project), str(small)], check=True)
    lock = small / "requirements/runtime.lock"
    lock.write_text(entries(lock.read_text(), ("pyyaml", "pathspec")))
    subprocess.run(["rm", "-rf", str(small / ".git")], check=True)
    commit(small)
    monkeypatch.chdir(small)
    with machine(prepared=False) as vm:
        use(vm, monkeypatch)
        vm.run("mkdir ~/edgeml; touch ~/go")
        heard = Heard()
        assert executor.submit("edge", TWO, "bare", {}, heard).attached is False
        assert "sending 2 of 2 packages" in heard
        assert wait("bare")[0].state == "completed"
        assert vm.run("ls ~/edgeml/environments/*/lib/python*/site-packages | grep -c ^yaml$").strip() == "1"

        # A lock that does not agree with a wheel installs nothing.
        with executor.reached("edge") as (host, edge):
            question = {"verb": "environment", "folder": edge.folder, "environment": "ab" * 16, "wheels": []}
            answer = session.told(host, {**question, "lock": "pyyaml==6.0.3 --hash=sha256:" + "0" * 64})[-1]
            assert answer["refused"] == "pip"
            answer = session.told(host, {"verb": "put", "folder": edge.folder}, lambda: [b'{"name": "' + b"a" * 40
                                  + b'", "size": 2}\n', b"xx"])[-1]  # fmt: skip
            assert answer["refused"] == "damaged"


def entries(lock: str, names: tuple[str, ...]) -> str:
    kept = [entry for entry in lock.split("\n\n")[0].split("\n") if entry]
    chosen, keep = [], False
    for line in kept:
        if not line.startswith(" "):
            keep = line.split("==")[0] in names
        if keep:
            chosen.append(line)
    return "\n".join(chosen) + "\n"


def test_on_the_vm_itself_there_is_no_connection(
    project: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("EDGEML_COMPUTE", json.dumps({"edge": {"kind": "edge", "folder": "work"}}))
    (tmp_path / "go").touch()
    assert submit(TWO, "here").state == "running"
    finished, heard = wait("here")
    assert finished.state == "completed"
    assert heard.states("second") == ["running", "completed"]
    assert json.loads((tmp_path / "work/jobs/here/job.json").read_text())["python"] == sys.executable

    (tmp_path / "edgeml").mkdir()
    (tmp_path / "edgeml/edgeml.toml").touch()
    monkeypatch.setenv("EDGEML_COMPUTE", json.dumps({"edge": {"kind": "edge"}}))
    with pytest.raises(EdgemlError, match="its folder for jobs is a project of its own; name another one"):
        submit(TWO, "here")
