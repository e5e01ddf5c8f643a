"""Real servers in processes of their own, once per session, and a client that keeps its connection."""

from __future__ import annotations

import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from edgeml.serving.settings import Settings
from tests.serving import models

ROOT = Path(__file__).resolve().parents[2]


@dataclass
class Answer:
    """A response, its headers in lower case."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


@dataclass
class Served:
    """A running server."""

    process: subprocess.Popen[bytes]
    port: int
    log: Path
    _connection: http.client.HTTPConnection | None = field(default=None, repr=False)
    _asked: float = 0

    def ask(self, method: str, path: str, body: Any = None, **headers: str) -> Answer:
        """One request over the kept connection; a body that is no bytes is sent as JSON."""
        if time.monotonic() - self._asked > Settings.idle_seconds / 2:
            self.stop_asking()
        self._asked = time.monotonic()
        if self._connection is None:
            self._connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        data = body if body is None or isinstance(body, bytes) else json.dumps(body).encode()
        self._connection.request(method, path, data, {name.replace("_", "-"): text for name, text in headers.items()})
        got = self._connection.getresponse()
        return Answer(got.status, {name.lower(): value for name, value in got.getheaders()}, got.read())

    def score(self, body: Any) -> Answer:
        return self.ask("POST", "/score", body)

    def raw(self, data: bytes, *, wait: float = 10) -> bytes:
        """What comes back until the server closes, for bytes that no HTTP client would send."""
        with socket.create_connection(("127.0.0.1", self.port), timeout=wait) as connection:
            connection.sendall(data)
            return received(connection)

    def lines(self) -> list[dict[str, Any]]:
        """The log so far."""
        return [json.loads(line) for line in self.log.read_text().splitlines()]

    def stop_asking(self) -> None:
        """Close the kept connection."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def stop(self) -> int:
        """SIGTERM, and the exit code."""
        self.stop_asking()
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(30)


def received(connection: socket.socket) -> bytes:
    """Everything until the other side closes."""
    parts = []
    while part := connection.recv(1 << 16):
        parts.append(part)
    return b"".join(parts)


Start = Callable[..., Served]


@pytest.fixture(scope="session")
def start(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Start]:
    """Start a server on a free port: `start(folder, rows=5)` sets EDGEML_SERVE_ROWS."""
    running: list[Served] = []

    def run(model: Path, **settings: Any) -> Served:
        log = tmp_path_factory.mktemp("served") / "log"
        chosen = {"model": model, "host": "127.0.0.1", "port": 0, "drain_seconds": 0} | settings
        environment = {name: value for name, value in os.environ.items() if not name.startswith("EDGEML_SERVE_")}
        environment |= {f"EDGEML_SERVE_{name.upper()}": str(value) for name, value in chosen.items()}
        with log.open("wb") as output, log.with_name("errors").open("wb") as errors:
            command = [sys.executable, "-m", "edgeml.serving"]
            process = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=output, stderr=errors)
        served = Served(process, 0, log)
        running.append(served)
        until = time.monotonic() + 60
        while not (lines := log.read_text().splitlines()):
            if process.poll() is not None or time.monotonic() > until:
                pytest.fail(f"the server did not start: {log.with_name('errors').read_text()}")
            time.sleep(0.01)
        served.port = json.loads(lines[0])["port"]
        return served

    yield run
    for served in running:
        if served.process.poll() is None:
            served.process.kill()
            served.process.wait()


@pytest.fixture(scope="session")
def mixed_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return models.mixed(tmp_path_factory.mktemp("mixed") / "model")


@pytest.fixture(scope="session")
def mixed(start: Start, mixed_model: Path) -> Served:
    """Columns of all types."""
    return start(mixed_model, name="patients", version="3")


@pytest.fixture(scope="session")
def every(start: Start, tmp_path_factory: pytest.TempPathFactory) -> Served:
    """Tensors of all datatypes."""
    return start(models.every(tmp_path_factory.mktemp("every") / "model"))


@pytest.fixture(scope="session")
def slow(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model that takes about a fifth of a second."""
    return models.slow(tmp_path_factory.mktemp("slow") / "model")
