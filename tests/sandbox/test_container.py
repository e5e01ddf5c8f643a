"""The same attempts in containers, against a real docker daemon: the profile of `--env docker` for private steps."""

from __future__ import annotations

import io
import json
import os
import platform
import re
import shutil
import socket
import subprocess
import tarfile
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.engine.daemon import BASE, Daemon
from tests.engine.project import EDGEML, wait_until
from tests.sandbox.conftest import Ears
from tests.sandbox.private import POLICY, ROWS, SECRET, Private

IMAGE = "edgeml-test/python:1"
_PYTHON = Path("/usr/bin/python3.11")


@pytest.fixture(scope="session")
def python_image(daemon: Daemon) -> Daemon:
    """The base image with this machine's own Python in it."""
    if not _PYTHON.exists():
        pytest.skip("this machine has no Python of its system to put into an image")
    library = Path("/usr/lib/python3.11")
    needed = [_PYTHON, *library.glob("lib-dynload/_ctypes*.so"), *library.glob("lib-dynload/resource*.so")]
    for program in tuple(needed):
        linked = subprocess.run(["ldd", str(program)], capture_output=True, text=True, check=True).stdout
        needed += [Path(found) for found in re.findall(r"(/\S+) \(0x", linked)]
    unwanted = {"test", "idlelib", "lib2to3", "ensurepip", "tkinter", "__pycache__", "config-3.11-x86_64-linux-gnu"}
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w") as tar:
        for path in {*needed}:
            tar.add(os.path.realpath(path), str(path).lstrip("/"))
        tar.add(_PYTHON, "bin/python")
        tar.add(_PYTHON, "bin/python3")
        for path in library.rglob("*.py"):
            if not unwanted & set(path.parts):
                tar.add(os.path.realpath(path), str(path).lstrip("/"))
    daemon.docker("import", "-", "edgeml-test/library:1", stdin=archive.getvalue())
    context = daemon.folder / "image"
    context.mkdir()
    with tarfile.open(fileobj=io.BytesIO(archive.getvalue())) as tar:
        tar.extractall(context / "root", filter="fully_trusted")
    (context / "Dockerfile").write_text(f"FROM {BASE}\nCOPY root /\n")
    environment = {**os.environ, **daemon.environment, "DOCKER_BUILDKIT": "0"}
    subprocess.run(
        ["docker", "build", "-q", "-t", IMAGE, str(context)], env=environment, check=True, capture_output=True
    )
    return daemon


class Contained(Private):
    """A project whose trainer runs in the image; its control is the same container without the profile."""

    def __init__(self, folder: Path, daemon: Daemon) -> None:
        super().__init__(folder)
        self.daemon = daemon
        text = (folder / "pipeline.yml").read_text()
        self.write(
            "pipeline.yml", text.replace("    code: src\n", f"    environment: {{image: '{IMAGE}'}}\n    code: src\n")
        )

    def go(self, *args: str, check: int | None = 0, **env: str) -> subprocess.CompletedProcess[str]:
        return super().go("--env", "docker", *args, check=check, **self.daemon.environment, **env)


@pytest.fixture
def contained(tmp_path: Path, python_image: Daemon) -> Iterator[Contained]:
    yield Contained(tmp_path, python_image)
    wait_until(lambda: python_image.containers() == "")


def test_it_reads_its_rows_and_writes_its_output(contained: Contained, tmp_path: Path) -> None:
    contained.trainer(
        "open('outputs/plot.txt', 'w').write('p'); return secret, os.environ['DECLARED'], os.environ['HOME']"
    )
    assert contained.attempt() == f"through ('{SECRET}', 'True', '/tmp')"
    record = (tmp_path / "out/run.json").read_text()
    assert '"sandbox": "docker"' in record
    assert (tmp_path / "out/jobs/train/outputs/o").stat().st_uid == os.getuid()


FAMILY, READ_ONLY = "Address family not supported", "Read-only file system"
REFUSED = {
    "socket.socket(socket.AF_INET)": FAMILY,
    "socket.socket(socket.AF_INET6)": FAMILY,
    "socket.socket(socket.AF_VSOCK)": FAMILY,
    "socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 0)": FAMILY,
    "socket.socket(socket.AF_ALG, socket.SOCK_SEQPACKET)": FAMILY,
    "socket.socketpair(socket.AF_INET)": FAMILY,
    "call(425, 4, id(ctypes.create_string_buffer(256)) + 32)": "not implemented",
    "call(272, 0x10000000)": "Operation not permitted",
    "call(101, 0, 0, 0, 0)": "Operation not permitted",
    "call(250, 0, -3, 1)": "Operation not permitted",
    "call(56, 0x10000000 | 17, 0, 0, 0, 0)": "Operation not permitted",
    "open('/etc/mine', 'w')": READ_ONLY,
    "open('/usr/mine', 'w')": READ_ONLY,
    "open(rows, 'a').write('x')": READ_ONLY,
    "os.kill(4000000, 0)": "No such process",
}


def test_the_profile_holds(contained: Contained) -> None:
    if platform.machine() != "x86_64":
        pytest.skip("the numbers of these calls are those of x86_64")
    found = contained.survey({attack: attack for attack in REFUSED})
    wrong = {attack: found[attack] for attack, refusal in REFUSED.items() if refusal not in found[attack]}
    assert wrong == {}


def test_nothing_is_told_to_anybody(contained: Contained, ears: Ears) -> None:
    attack = f"""
        s = socket.socket(socket.AF_UNIX); s.connect({ears.abstract!r}); s.sendall(secret.encode()); s.recv(9)
        """
    contained.trainer(attack)
    ears.told(SECRET)
    # A container with an address on loopback is in the host's network, and sees what the host's processes see.
    contained.attempt("--no-sandbox", MLFLOW_TRACKING_URI="http://127.0.0.1:9")
    assert ears.told(SECRET)
    assert contained.attempt(MLFLOW_TRACKING_URI="http://127.0.0.1:9").startswith("refused")
    assert not ears.heard


def test_it_sees_no_variable_of_the_engine_and_obeys_none_outside(contained: Contained, tmp_path: Path) -> None:
    text = (tmp_path / "pipeline.yml").read_text()
    evil = "BASH_ENV: ./evil.sh, DOCKER_HOST: 'unix:///nowhere', 'BASH_FUNC_exec%%': '() { touch outside; }'"
    contained.write("pipeline.yml", text.replace("DECLARED: yes", evil))
    contained.write("src/evil.sh", f"touch {tmp_path}/outside\n")
    contained.trainer("return sorted(n for n in os.environ if n.startswith(('AZURE', 'MLFLOW_T', 'DOCKER', 'BASH_E')))")
    outcome = contained.attempt(AZURE_CLIENT_SECRET="hunter2", AZUREML_RUN_TOKEN="t")
    assert "TOKEN" not in outcome and "SECRET" not in outcome and "'DOCKER_HOST'" in outcome and "BASH_ENV" in outcome
    assert not list(tmp_path.rglob("outside"))


def test_streams_and_links_are_held_back(contained: Contained, tmp_path: Path) -> None:
    contained.trainer("print(secret); print('all is said'); os.symlink('/etc/passwd', out); os._exit(0)")
    told = contained.go(check=1).stderr
    assert "wrote a link into its output 'o'" in told
    assert (tmp_path / "out/jobs/train/log.txt").read_text().startswith("all is said\n(1 line is withheld")
    assert SECRET in (tmp_path / "out/quarantine/train/log.txt").read_text()


def test_limits_are_set(contained: Contained) -> None:
    contained.trainer(
        """
        import resource
        status = dict(line.split(':', 1) for line in open('/proc/self/status'))
        return [resource.getrlimit(resource.RLIMIT_CORE), status['CapEff'].strip(), status['NoNewPrivs'].strip(),
                status['Seccomp'].strip(), os.listdir('/sys/class/net')]
        """
    )
    assert contained.attempt() == "through [(0, 0), '0000000000000000', '1', '2', ['lo']]"


@pytest.mark.parametrize("host", ["127.0.0.1", "name"])
def test_the_storage_and_nothing_else_is_reached(contained: Contained, ears: Ears, tmp_path: Path, host: str) -> None:
    name = socket.gethostname() if host == "name" else host
    try:
        address = socket.gethostbyname(name)
    except OSError:
        pytest.skip("this machine does not know its own name")
    text = (tmp_path / "pipeline.yml").read_text()
    job = text.partition("  train:\n")[2].replace("\n    ", "\n").removeprefix("    ").replace(f', path: "{ROWS}"', "")
    contained.write("component.yml", job + "name: reader\ntags: {edgeml.needs: storage}\n")
    contained.write(
        "pipeline.yml",
        f"jobs:\n  train:\n    component: ./component.yml\n    inputs: {{rows: {{type: uri_file, path: '{ROWS}'}}}}\n",
    )
    with socket.create_server((address, 0)) as server:
        port = server.getsockname()[1]

        def answer() -> None:
            with server.accept()[0] as near:
                near.sendall(near.recv(99))

        threading.Thread(target=answer, daemon=True).start()
        contained.trainer(
            f"""
            s = socket.create_connection(({name!r}, {port}), 5); s.sendall(b'hello'); answer = s.recv(99)
            try:
                socket.create_connection(('127.0.0.1', {ears.tcp}), 1)
                return 'elsewhere too'
            except OSError:
                return answer, bool(os.environ['EDGEML_STORAGE_ACCOUNT_KEY'])
            """
        )
        url = {"EDGEML_STORAGE_ACCOUNT_URL": f"https://{name}:{port}", "EDGEML_STORAGE_ACCOUNT_KEY": "a2V5"}
        assert contained.attempt(**url) == "through (b'hello', True)"


def test_a_container_of_a_private_step_ends_with_the_engine(contained: Contained, tmp_path: Path) -> None:
    if not shutil.which("setpriv"):
        pytest.skip("without setpriv of util-linux nothing tells the client that the engine was killed")
    contained.trainer("open(os.path.dirname(out) + '/begun', 'w'); time.sleep(600)")
    engine = subprocess.Popen(
        [*EDGEML, "run", "pipeline.yml", "--env", "docker", "--map", f"{ROWS}=rows.csv", "--output-dir", "out"],
        cwd=tmp_path,
        env={**os.environ, **contained.daemon.environment},
        stderr=subprocess.PIPE,
    )
    wait_until(lambda: engine.poll() is not None or list((tmp_path / "out").rglob("begun")))
    assert contained.daemon.containers()
    engine.kill()
    engine.wait(20)
    wait_until(lambda: contained.daemon.containers() == "")


GATE = """
import json, os, sys
state, key = os.environ["EDGEML_AIRLOCK_STATE"], os.environ["EDGEML_AIRLOCK_KEY"]
with open(os.path.join(state, "ledger.jsonl"), "a") as ledger:
    ledger.write("a decision\\n")
try:
    open(key, "a")
    kept = False
except OSError:
    kept = True
told = {"key": open(key).read(), "kept": kept, "mode": oct(os.stat(key).st_mode & 0o777), "state": state}
with open(sys.argv[2], "w") as out:
    json.dump(told, out)
"""


@pytest.mark.parametrize("protection", [(), ("--no-sandbox",)], ids=["sandbox", "no sandbox"])
def test_the_gate_in_a_container_has_its_own_folder_and_key_and_no_other_step_has(
    contained: Contained, tmp_path: Path, protection: tuple[str, ...]
) -> None:
    """The state lasts from one container to the next; the key, from outside of the project, is there to be read."""
    home = tmp_path / "officer"
    (home / "gate").mkdir(parents=True, mode=0o700)
    key = home / "key.pem"
    key.touch(0o600)
    key.write_text("the key")
    contained.write("contracts/residency.yml", POLICY + "cloud: [workspaceblobstore]\nrelease: [release_artifacts]\n")
    contained.write("components/release_artifacts/gate.py", GATE)
    contained.write(
        "components/release_artifacts/component.yml",
        f"name: release_artifacts\ntags: {{edgeml.needs: airlock}}\ncode: .\nenvironment: {{image: '{IMAGE}'}}\n"
        "command: python gate.py ${{inputs.from}} ${{outputs.o}}\n"
        "inputs: {from: {type: uri_file}}\noutputs: {o: {type: uri_file}}\n",
    )
    text = (tmp_path / "pipeline.yml").read_text()
    contained.write(
        "pipeline.yml",
        text + "  release:\n    type: command\n    component: ./components/release_artifacts/component.yml\n"
        "    inputs: {from: '${{parent.jobs.train.outputs.o}}'}\n",
    )
    contained.trainer(
        f"return [n for n in os.environ if 'AIRLOCK' in n], os.path.exists({str(home)!r}), os.path.exists({str(key)!r})"
    )
    variables = {"EDGEML_AIRLOCK_STATE": str(home / "gate"), "EDGEML_AIRLOCK_KEY": str(key)}
    for times in (1, 2):
        assert contained.attempt(*protection, **variables) == "through ([], False, False)"
        told = json.loads((tmp_path / "out/jobs/release/outputs/o").read_text())
        assert told == {"key": "the key", "kept": True, "mode": "0o600", "state": str(home / "gate")}
        assert (home / "gate/ledger.jsonl").read_text() == "a decision\n" * times
    assert (home / "gate/ledger.jsonl").stat().st_uid == os.getuid()


def test_a_step_that_is_no_release_component_gets_no_folder_of_the_gate(contained: Contained, tmp_path: Path) -> None:
    component = "name: mine\ntags: {edgeml.needs: airlock}\ncode: src\ncommand: python trainer.py a b\n"
    contained.write("component.yml", f"{component}environment: {{image: '{IMAGE}'}}\n")
    contained.write("pipeline.yml", "jobs:\n  train:\n    type: command\n    component: ./component.yml\n")
    contained.trainer("return 1")
    assert "which only release components of the residency policy get" in contained.go(check=2).stderr
