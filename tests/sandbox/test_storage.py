"""The one step that needs the storage reaches that address, by TLS of its own, and nothing else."""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from edgeml.engine.sandbox.relay import Relay
from edgeml.engine.sandbox.storage import Gate, gate_of
from edgeml.engine.step import StepFailed
from tests.conftest import RunningStorage
from tests.sandbox.conftest import Ears
from tests.sandbox.private import SECRET, Private

LIST = """
sys.path.insert(0, {package!r})
from blob_client import service
return [c.name for c in service().list_containers()]
"""


class Reading(Private):
    """A project whose trainer's component asks for the storage."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        text = (folder / "pipeline.yml").read_text()
        job = text.partition("  train:\n")[2].replace("\n    ", "\n").removeprefix("    ")
        inputs = job.replace('path: "azureml://datastores/stackhub/paths/rows.csv"', "").replace(
            "uri_file, }", "uri_file}"
        )
        self.write("component.yml", inputs + "name: reader\ntags: {edgeml.needs: storage}\n")
        self.write(
            "pipeline.yml",
            "jobs:\n  train:\n    component: ./component.yml\n"
            '    inputs: {rows: {type: uri_file, path: "azureml://datastores/stackhub/paths/rows.csv"}}\n',
        )


@pytest.fixture
def reading(bubblewrap: None, tmp_path: Path) -> Reading:
    return Reading(tmp_path)


def environment(storage: RunningStorage, **changed: str) -> dict[str, str]:
    """The storage's address and key, as settings of a project that names its account."""
    return {**storage.environment, **changed}


def test_the_storage_is_reached_and_its_certificate_verified(reading: Reading, storage: RunningStorage) -> None:
    here = str(Path(__file__).parents[2] / "edgeml/storage")
    reading.write("src/blob_client.py", (Path(here) / "blob_client.py").read_text())
    reading.trainer(LIST.format(package="."))
    assert reading.attempt(**environment(storage)).startswith("through [")
    import certifi  # the public authorities, none of which signed it

    outcome = reading.attempt(**environment(storage, EDGEML_STORAGE_CA_BUNDLE=certifi.where()))
    assert outcome.startswith("refused") and "CERTIFICATE_VERIFY_FAILED" in outcome


def test_nothing_else_is_reached(reading: Reading, storage: RunningStorage, ears: Ears) -> None:
    reading.trainer(
        f"""
        reached = []
        for family, address in ((socket.AF_INET, ('127.0.0.1', {ears.tcp})), (socket.AF_INET6, ('::1', {ears.tcp})),
                                (socket.AF_INET, ('10.0.0.1', 443)), (socket.AF_UNIX, {ears.abstract!r}),
                                (socket.AF_UNIX, {ears.path!r})):
            try:
                s = socket.socket(family); s.settimeout(1); s.connect(address); s.sendall(secret.encode())
                reached.append(str(address)); time.sleep(0.05)
            except OSError:
                pass
        try:
            reached.append(socket.getaddrinfo('edgeml.example', 443))
        except OSError:
            pass
        for kind in ('AF_VSOCK', 'AF_PACKET', 'AF_NETLINK'):
            try:
                socket.socket(getattr(socket, kind), socket.SOCK_RAW if kind != 'AF_VSOCK' else socket.SOCK_STREAM)
                reached.append(kind)
            except OSError:
                pass
        if not reached:
            raise ConnectionError('nothing')
        return reached
        """
    )
    ears.told(SECRET)
    assert reading.attempt("--no-sandbox", **environment(storage)).startswith("through")
    assert ears.told(SECRET)
    assert reading.attempt(**environment(storage)) == "refused ConnectionError nothing"
    assert not ears.heard


def test_the_key_is_in_no_arguments_and_in_no_other_step(reading: Reading, storage: RunningStorage) -> None:
    key = storage.environment["EDGEML_STORAGE_ACCOUNT_KEY"]
    text = (reading.folder / "pipeline.yml").read_text()
    reading.write("pipeline.yml", text + """
  after:
    command: env > ${{outputs.o}}
    inputs: {i: "${{parent.jobs.train.outputs.o}}"}
    outputs: {o: {type: uri_file}}
""")  # fmt: skip
    reading.trainer("assert os.environ['EDGEML_STORAGE_ACCOUNT_KEY']; time.sleep(1.5)")
    seen: list[str] = []
    done = threading.Event()

    def look() -> None:
        while not done.wait(0.02):
            for process in Path("/proc").glob("[0-9]*/cmdline"):
                try:
                    line = process.read_bytes()
                except OSError:
                    continue
                if b"trainer.py" in line:
                    seen.append(line.decode("utf-8", "replace"))

    watcher = threading.Thread(target=look)
    watcher.start()
    try:
        assert reading.attempt(**environment(storage)).startswith("through")
    finally:
        done.set()
        watcher.join()
    assert seen and not any(key in line for line in seen)
    after = (reading.folder / "out/jobs/after/outputs/o").read_text()
    assert "EDGEML_STORAGE" not in after and key not in after


@contextmanager
def echo(port: int = 0, address: str = "127.0.0.1") -> Iterator[int]:
    """A server that answers what it hears, until the other side ends."""
    with socket.create_server((address, port)) as server:

        def serve() -> None:
            while True:
                try:
                    near = server.accept()[0]
                except OSError:
                    return
                with near:
                    while block := near.recv(1 << 16):
                        near.sendall(block)

        threading.Thread(target=serve, daemon=True).start()
        yield server.getsockname()[1]
        server.shutdown(socket.SHUT_RDWR)


TALK = """
s = socket.create_connection(({host!r}, {port}), 5)
peer = s.getpeername()[0]
import threading
threading.Thread(target=lambda: (s.sendall(b'x' * 5_000_000), s.shutdown(socket.SHUT_WR))).start()
count = 0
while block := s.recv(1 << 16):
    count += len(block)
used = ('CapEff', 'CapPrm', 'CapAmb')
capabilities = [line.split()[1] for line in open('/proc/self/status') if line.startswith(used)]
return count, peer, set(capabilities) == {{'0' * 16}}
"""


@pytest.mark.parametrize("low", [False, True])
def test_a_name_and_a_low_port_lead_to_the_storage(reading: Reading, low: bool) -> None:
    """A real account is a name and port 443: both are met on the sandbox's loopback, without a capability left."""
    name = socket.gethostname()
    try:
        address = socket.gethostbyname(name)
    except OSError:
        pytest.skip("this machine does not know its own name")
    if low and os.geteuid() != 0:
        pytest.skip("only root listens on a low port")
    with echo(943 if low else 0, address) as port:
        reading.trainer(TALK.format(host=name, port=port))
        url = {"EDGEML_STORAGE_ACCOUNT_URL": f"https://{name}:{port}", "EDGEML_STORAGE_ACCOUNT_KEY": "a2V5"}
        assert reading.attempt(**url) == "through (5000000, '127.0.0.1', True)"


def test_bytes_pass_both_ways_and_a_dead_end_is_closed(tmp_path: Path) -> None:
    with echo() as port:
        relay = Relay(str(tmp_path / "s"), "127.0.0.1", port)
        ends = [socket.socket(socket.AF_UNIX) for _ in range(8)]
        for i, end in enumerate(ends):
            end.connect(str(tmp_path / "s"))
            end.sendall(bytes([i]) * 1000)
            end.shutdown(socket.SHUT_WR)
        for i, end in enumerate(ends):
            with end, end.makefile("rb") as stream:
                assert stream.read() == bytes([i]) * 1000
        relay.close()
    relay = Relay(str(tmp_path / "t"), "127.0.0.1", port)  # nobody listens there any more
    with socket.socket(socket.AF_UNIX) as end:
        end.connect(str(tmp_path / "t"))
        assert end.recv(1) == b""
    relay.close()


def test_addresses_that_cannot_be_met_are_refused() -> None:
    assert gate_of({}) is None
    for url in ("http://account.example", "https://", "https://a:99999999", "nonsense"):
        with pytest.raises(StepFailed, match="is no https:// address"):
            gate_of({"EDGEML_STORAGE_ACCOUNT_URL": url})
    with pytest.raises(StepFailed, match="give the host's name"):
        gate_of({"EDGEML_STORAGE_ACCOUNT_URL": "https://10.1.2.3/account"})
    gate = Gate("account.blob.site.example", 443)
    try:
        assert gate.hosts == "127.0.0.1 account.blob.site.example\n"
        assert Path(gate.socket).parent.stat().st_mode & 0o777 == 0o700
    finally:
        gate.close()
    assert not Path(gate.socket).parent.exists()
