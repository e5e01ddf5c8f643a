"""The loopback cloud: one proxy on 127.0.0.1 behind which Azure's hosts answer over TLS.

A client that is given `HTTPS_PROXY` and `REQUESTS_CA_BUNDLE` needs no other preparation: real host names, real TLS, the
real SDK. Hosts of the loopback cloud end here, its blob hosts in Azurite, and any other host is refused and remembered
in `strangers`, so that a test can say that nothing else was asked for.

Faults happen on demand. `fail(...)` names the next ones; `chaos(...)` throws them by a seeded die.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import random
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import parse_qs, urlsplit

from tests.azure import loop


class Request(NamedTuple):
    """One request as it arrived; `key` is what must not be asked for twice."""

    host: str
    method: str
    path: str
    query: dict[str, str]
    headers: dict[str, str]
    body: bytes

    @property
    def key(self) -> tuple[str, str, str, str]:
        return (self.method, self.host, self.path, "&".join(f"{k}={v}" for k, v in sorted(self.query.items())))

    def json(self) -> Any:
        return json.loads(self.body) if self.body else None


@dataclass
class Answer:
    status: int
    body: Any = None
    headers: dict[str, str] = field(default_factory=dict)

    def bytes(self) -> bytes:
        if isinstance(self.body, bytes):
            return self.body
        return b"" if self.body is None else json.dumps(self.body).encode()


def refusal(status: int, code: str, message: str, **headers: str) -> Answer:
    """An error as Azure Resource Manager words it."""
    return Answer(
        status, {"error": {"code": code, "message": message}}, {k.replace("_", "-"): v for k, v in headers.items()}
    )


BEFORE: dict[str, Callable[[], Answer]] = {
    "401": lambda: refusal(401, "ExpiredAuthenticationToken", "The access token expiry UTC time is earlier than now."),
    "404": lambda: refusal(404, "NotFound", "The resource is not there yet."),
    "409": lambda: refusal(409, "Conflict", "Another operation is in progress on this resource."),
    "429": lambda: refusal(429, "TooManyRequests", "Too many requests.", Retry_After="0"),
    "500": lambda: refusal(500, "InternalServerError", "An internal error occurred."),
    "503": lambda: refusal(503, "ServiceUnavailable", "Try again later."),
}
# `reset`: the request never arrives. `lost`: it is done, but the answer never arrives. `half`: only half of the answer.
AFTER = ("lost", "half")
KINDS = (*BEFORE, "reset", *AFTER)


@dataclass
class Fault:
    """What goes wrong with the next `times` requests that `wanted` picks."""

    kind: str
    wanted: Callable[[Request], bool]
    times: int = 1
    headers: dict[str, str] = field(default_factory=dict)


class Cloud:
    """The running server. `service(request) -> Answer` is asked for every request to one of its own hosts."""

    def __init__(self, service: Callable[[Request], Answer], folder: Path, blobs: int) -> None:
        self._service, self._blobs = service, blobs
        self.requests: list[Request] = []
        self.strangers: list[str] = []
        self.thrown: list[str] = []
        self._faults: list[Fault] = []
        self._die: tuple[random.Random, float, Callable[[Request], bool]] | None = None
        self._lock = threading.Lock()
        certificate, key = make_certificate(folder)
        self.ca_bundle = str(certificate)
        self._tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._tls.load_cert_chain(certificate, key)
        self._http = _Server(("127.0.0.1", 0), _Handler)
        self._http.cloud = self
        self.port = int(self._http.server_address[1])
        threading.Thread(target=self._http.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()

    def environment(self) -> dict[str, str]:
        """The variables that lead a process here."""
        return {
            **loop.SETTINGS,
            "HTTPS_PROXY": f"http://127.0.0.1:{self.port}",
            "NO_PROXY": "127.0.0.1,localhost",
            "REQUESTS_CA_BUNDLE": self.ca_bundle,
            "PYTHONWARNINGS": "ignore",
        }

    def fail(
        self, kind: str, wanted: Callable[[Request], bool] = lambda _: True, times: int = 1, **headers: str
    ) -> None:
        """Let the next requests that `wanted` picks go wrong."""
        assert kind in KINDS
        self._faults.append(Fault(kind, wanted, times, headers))

    def chaos(self, seed: int | None, rate: float = 0.0, wanted: Callable[[Request], bool] = lambda _: True) -> None:
        """From now on let each request that `wanted` picks go wrong with this probability; None ends it."""
        self._die = None if seed is None else (random.Random(seed), rate, wanted)

    def clear(self) -> None:
        """Forget requests and faults; what the service knows stays."""
        self.requests, self.strangers, self.thrown, self._faults, self._die = [], [], [], [], None

    def close(self) -> None:
        self._http.shutdown()
        self._http.server_close()

    def fault(self, request: Request) -> Fault | None:
        with self._lock:
            for fault in self._faults:
                if fault.times and fault.wanted(request):
                    fault.times -= 1
                    self.thrown.append(fault.kind)
                    return fault
            if self._die is None or not self._die[2](request):
                return None
            die, rate, wanted = self._die
            if die.random() >= rate:
                return None
            kind = die.choice(_plausible(request))
            self.thrown.append(kind)
            return Fault(kind, wanted)

    def answer(self, request: Request) -> Answer:
        if request.host.endswith(f".blob.{loop.STORAGE}"):
            return self._forward(request)
        return self._service(request)

    def _forward(self, request: Request) -> Answer:
        """Azurite's answer; it takes the account from the host's name, as Azure does."""
        connection = http.client.HTTPConnection("127.0.0.1", self._blobs, timeout=30)
        target = request.path + ("?" + request.headers["-query"] if request.headers["-query"] else "")
        headers = {k: v for k, v in request.headers.items() if k not in ("-query", "connection", "transfer-encoding")}
        with contextlib.closing(connection):
            connection.request(request.method, target, request.body or None, headers)
            response = connection.getresponse()
            body = response.read()
            kept = {
                k: v
                for k, v in response.getheaders()
                if k.lower() not in ("connection", "transfer-encoding", "keep-alive")
            }
            return Answer(response.status, body, kept)


def _plausible(request: Request) -> list[str]:
    """The faults that a request can meet. A 404 for what is there happens just after it was made, a 409 on writing."""
    kinds = ["429", "500", "503", "reset", "lost", "half"]
    if not request.host.startswith("login") and ".blob." not in request.host:
        kinds.append("401")
    if "/jobs/" in request.path or "/models/" in request.path:
        kinds.append({"GET": "404", "PUT": "409"}.get(request.method, "500"))
    return kinds


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    cloud: Cloud

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that goes away in the middle is part of the game."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    host = ""
    server: _Server

    def do_CONNECT(self) -> None:
        host = self.path.partition(":")[0]
        if not host.endswith(f".{loop.SUFFIX}"):
            self.server.cloud.strangers.append(host)
            self.send_error(403, "not a host of the loopback cloud")
            self.close_connection = True
            return
        self.wfile.write(b"HTTP/1.1 200 Connection established\r\n\r\n")
        self.connection = self.server.cloud._tls.wrap_socket(self.connection, server_side=True)
        self.rfile = self.connection.makefile("rb", -1)
        self.wfile = self.connection.makefile("wb", -1)  # type: ignore[assignment]
        self.host = host
        self.close_connection = False

    def _any(self) -> None:
        if not self.host:
            self.send_error(403, "only by CONNECT")
            return
        cloud, request = self.server.cloud, self._request()
        cloud.requests.append(request)
        fault = cloud.fault(request)
        if fault is not None and fault.kind == "reset":
            self._break()
            return
        if fault is not None and fault.kind in BEFORE:
            answer = BEFORE[fault.kind]()
            answer.headers |= {k.replace("_", "-"): v for k, v in fault.headers.items()}
        else:
            answer = cloud.answer(request)
        body = answer.bytes()
        if fault is not None and fault.kind == "lost":
            self._break()
            return
        head = [f"HTTP/1.1 {answer.status} {http.client.responses.get(answer.status, '')}"]
        headers = {"Content-Type": "application/json", **answer.headers}
        if not any(name.lower() == "content-length" for name in headers):
            headers["Content-Length"] = str(len(body))
        head += [f"{name}: {value}" for name, value in headers.items()]
        whole = ("\r\n".join(head) + "\r\n\r\n").encode() + (b"" if request.method == "HEAD" else body)
        if fault is not None and fault.kind == "half":
            self.wfile.write(whole[: len(whole) - max(1, len(body) // 2)])
            self.wfile.flush()
            self._break()
            return
        self.wfile.write(whole)
        self.wfile.flush()

    do_GET = do_PUT = do_POST = do_DELETE = do_HEAD = do_PATCH = _any  # noqa: N815

    def _request(self) -> Request:
        parts = urlsplit(self.path)
        headers = {name.lower(): value for name, value in self.headers.items()}
        if "chunked" in headers.get("transfer-encoding", ""):
            body = b"".join(self._chunks())
        else:
            body = self.rfile.read(int(headers.get("content-length") or 0))
        query = {name: values[0] for name, values in parse_qs(parts.query, keep_blank_values=True).items()}
        return Request(self.host, self.command, parts.path, query, {**headers, "-query": parts.query}, body)

    def _chunks(self) -> Iterator[bytes]:
        while size := int(self.rfile.readline().split(b";")[0], 16):
            yield self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()

    def _break(self) -> None:
        self.close_connection = True
        with contextlib.suppress(OSError):
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
            self.connection.close()

    def log_message(self, *_: Any) -> None:
        """`requests` is the log."""


def make_certificate(folder: Path) -> tuple[Path, Path]:
    """A certificate for every host of the loopback cloud, its own authority, and its key."""
    import datetime

    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "edgeml loopback cloud")])
    hosts = [f"*.{loop.SUFFIX}", f"*.blob.{loop.STORAGE}", f"*.api.{loop.SUFFIX}", f"*.azure.{loop.SUFFIX}"]
    hosts += [f"*.inference.{loop.SUFFIX}", f"*.azurewebsites.{loop.SUFFIX}"]
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=30))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(host) for host in hosts]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(key, hashes.SHA256())
    )
    pem = serialization.Encoding.PEM
    files = folder / "loop-cert.pem", folder / "loop-key.pem"
    files[0].write_bytes(certificate.public_bytes(pem))
    files[1].write_bytes(key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()))
    return files


@contextlib.contextmanager
def azurite(command: list[str], folder: Path, account: str, key: str) -> Iterator[int]:
    """Azurite without TLS for one account, behind the proxy; yields its port."""
    import os
    import subprocess

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = int(probe.getsockname()[1])
    options = ["--blobHost", "127.0.0.1", "--blobPort", str(port), "--inMemoryPersistence"]
    options += ["--skipApiVersionCheck", "--disableTelemetry", "--silent"]
    process = subprocess.Popen(
        [*command, *options],
        cwd=folder,
        env={**os.environ, "AZURITE_ACCOUNTS": f"{account}:{key}"},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        deadline = time.monotonic() + 60
        while True:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
                break
            assert process.poll() is None and time.monotonic() < deadline, "Azurite did not start"
            time.sleep(0.05)
        yield port
    finally:
        process.terminate()
        process.wait()
