from __future__ import annotations

import os
import socket
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from tests.engine.daemon import Daemon, started
from tests.sandbox.private import Private, install


@pytest.fixture(scope="session")
def bubblewrap() -> None:
    install()


@pytest.fixture
def private(bubblewrap: None, tmp_path: Path) -> Private:
    return Private(tmp_path)


class Ears:
    """Everything on this machine that a trainer might tell its rows to; `heard` is what arrived."""

    def __init__(self, folder: Path) -> None:
        self.heard: list[bytes] = []
        self.abstract, self.path = f"\0edgeml-test-{os.getpid()}", str(folder / "ear.sock")
        self._sockets = [
            self._listen(socket.socket(socket.AF_INET), ("127.0.0.1", 0)),
            self._listen(socket.socket(socket.AF_UNIX), self.abstract),
            self._listen(socket.socket(socket.AF_UNIX), self.path),
            self._listen(socket.socket(socket.AF_INET, socket.SOCK_DGRAM), ("127.0.0.1", 0)),
        ]
        self.tcp = self._sockets[0].getsockname()[1]
        self.udp = self._sockets[3].getsockname()[1]
        heard = self.heard

        class Handler(BaseHTTPRequestHandler):
            def answer(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                heard.append(f"{self.requestline}\n{self.headers}".encode() + body)
                self.send_response({"PUT": 201, "POST": 200}.get(self.command, 404))
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", "2")
                self.end_headers()
                self.wfile.write(b"{}")

            do_GET = do_POST = do_PUT = do_PATCH = answer  # noqa: N815 - the names that http.server asks for

            def log_message(self, *unused: object) -> None: ...

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.http = self._server.server_address[1]
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()

    def _listen(self, ear: socket.socket, address: object) -> socket.socket:
        ear.bind(address)
        datagrams = ear.type == socket.SOCK_DGRAM
        if not datagrams:
            ear.listen()

        def hear() -> None:
            while True:
                try:
                    if datagrams:
                        self.heard.append(ear.recv(65536))
                        continue
                    with ear.accept()[0] as connection:
                        self.heard.append(connection.recv(65536))
                        connection.sendall(b"ok")
                except OSError:
                    return

        threading.Thread(target=hear, daemon=True).start()
        return ear

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        for ear in self._sockets:
            if ear.type == socket.SOCK_STREAM:
                ear.shutdown(socket.SHUT_RDWR)
            ear.close()

    def told(self, secret: str) -> bool:
        """Whether the secret arrived since the last question."""
        heard = b"\n".join(self.heard)
        self.heard.clear()
        return secret.encode() in heard or secret.lower().encode() in heard


@pytest.fixture(scope="session")
def ears(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ears]:
    listening = Ears(tmp_path_factory.mktemp("e"))
    yield listening
    listening.close()


@pytest.fixture(scope="session")
def daemon() -> Iterator[Daemon]:
    with started() as running:
        yield running
