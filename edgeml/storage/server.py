"""The embedded blob server of a project: Azurite on loopback, with TLS, a key of its own and durable data.

Everything lies under `.edgeml/storage/`: `server.json` (replaced atomically), `account.key` and `key.pem` (readable
by the owner only), `cert.pem`, `data/` and `server.log`. Two locks, which the system drops with their process, keep
concurrent commands apart: `lock` is held while the server is started or stopped, `users` is shared by all sessions,
and the last of them stops a server that nobody asked to keep.
"""

from __future__ import annotations

import base64
import contextlib
import fcntl
import json
import os
import secrets
import signal
import socket
import ssl
import subprocess
import time
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from http.client import HTTPException, HTTPSConnection
from pathlib import Path
from typing import TYPE_CHECKING

from edgeml.errors import EdgemlError
from edgeml.storage import install

if TYPE_CHECKING:
    from collections.abc import Iterator

ACCOUNT = "edgeml"
HOST = "127.0.0.1"
READY_SECONDS = 60.0
STOP_SECONDS = 20.0


@dataclass(frozen=True)
class Server:
    """What `server.json` remembers. The port outlives the process, so that addresses stay the same."""

    port: int = 0
    pid: int = 0
    keep: bool = False
    """Started by `edgeml storage start`: stays until `edgeml storage stop`."""

    @property
    def url(self) -> str:
        return f"https://{HOST}:{self.port}/{ACCOUNT}"


def start(state: Path, port: int = 0, *, keep: bool = True) -> Server:
    """Start the server, or find it running; returns once it answers.

    `port` 0 takes the one used before, else a free one.
    """
    with _locked(state, "lock"):
        server = running(state)
        if server:
            if port and port != server.port:
                raise EdgemlError(
                    f"the embedded storage already runs on port {server.port}; `edgeml storage stop` it before "
                    f"starting it on port {port}"
                )
            if keep and not server.keep:
                server = Server(server.port, server.pid, keep=True)
                _remember(state, server)
            return server
        return _launch(state, _port(state, port), keep)


def prepare(state: Path) -> None:
    """Install what the server needs, where it is not, without starting it."""
    with _locked(state, "lock"):
        install.azurite(state)


def stop(state: Path) -> bool:
    """Stop the server and wait until it is gone; False if it was not running."""
    with _locked(state, "lock"):
        return _stop(state)


def running(state: Path) -> Server | None:
    """The server, if it runs. A state file whose process is gone, or has become another program, counts as stopped."""
    server = _recall(state)
    return server if server.pid and str(_folder(state) / "data") in _command_line(server.pid) else None


@contextmanager
def session(state: Path, port: int = 0) -> Iterator[Server]:
    """The running server for as long as the block lasts.

    A server that was not running is stopped at the end, unless another session still uses it (then the last one
    stops it) or `edgeml storage start` asked to keep it.
    """
    try:
        with _locked(state, "users", fcntl.LOCK_SH):
            yield start(state, port, keep=False)
    finally:
        with _locked(state, "lock"):
            now = running(state)
            if now and not now.keep:
                with contextlib.suppress(BlockingIOError), _locked(state, "users", fcntl.LOCK_EX | fcntl.LOCK_NB):
                    _stop(state)


def environment(state: Path, server: Server) -> dict[str, str]:
    """The variables by which a process reaches the server."""
    return {
        "EDGEML_STORAGE_ACCOUNT_URL": server.url,
        "EDGEML_STORAGE_ACCOUNT_NAME": ACCOUNT,
        "EDGEML_STORAGE_ACCOUNT_KEY": _account_key(state),
        "EDGEML_STORAGE_CA_BUNDLE": str(_folder(state) / "cert.pem"),
    }


def _launch(state: Path, port: int, keep: bool) -> Server:
    command = install.azurite(state)
    folder = _folder(state)
    (folder / "data").mkdir(parents=True, exist_ok=True)
    _certificate(folder)
    options = {"blobHost": HOST, "blobPort": port, "location": folder / "data"}
    options |= {"cert": folder / "cert.pem", "key": folder / "key.pem"}
    arguments = [word for name, value in options.items() for word in (f"--{name}", str(value))]
    # The key goes by the environment: the arguments of a process are everybody's to read.
    secret = {"AZURITE_ACCOUNTS": f"{ACCOUNT}:{_account_key(state)}"}
    log = folder / "server.log"
    with log.open("wb") as out:
        process = subprocess.Popen(
            [*command, *arguments, "--disableTelemetry", "--silent"],
            cwd=folder,
            env={**os.environ, **secret},
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    server = Server(port, process.pid, keep)
    _remember(state, server)
    try:
        _wait_until_ready(process, server, log, folder / "cert.pem")
    except BaseException:
        process.kill()
        process.wait()
        _remember(state, Server(port))
        raise
    return server


def _wait_until_ready(process: subprocess.Popen[bytes], server: Server, log: Path, certificate: Path) -> None:
    deadline = time.monotonic() + READY_SECONDS
    while time.monotonic() < deadline:
        if process.poll() is not None:
            said = log.read_text("utf-8", "replace")
            if "EADDRINUSE" in said:
                raise _taken(server.port)
            last = (said.strip().splitlines() or ["without a word"])[-1]
            raise EdgemlError(f"the embedded storage stopped at once ({last[:200]}); {log} has all of it", 1)
        if _answers(server.port, certificate):
            return
        time.sleep(0.05)
    raise EdgemlError(f"the embedded storage did not answer within {READY_SECONDS:.0f} s; {log} may say why", 1)


def _answers(port: int, certificate: Path) -> bool:
    """Whether a server with our certificate answers on the port (any answer will do, a refusal too)."""
    try:
        connection = HTTPSConnection(HOST, port, timeout=5, context=ssl.create_default_context(cafile=str(certificate)))
        with contextlib.closing(connection):
            connection.request("GET", f"/{ACCOUNT}?comp=list")
            connection.getresponse().read()
        return True
    except (OSError, HTTPException):
        return False


def _stop(state: Path) -> bool:
    server = running(state)
    if server is None:
        return False
    deadline = time.monotonic() + STOP_SECONDS
    os.kill(server.pid, signal.SIGTERM)  # it writes its index before it goes
    while running(state):
        if time.monotonic() > deadline:
            os.kill(server.pid, signal.SIGKILL)
            deadline += STOP_SECONDS
        with contextlib.suppress(ChildProcessError):
            os.waitpid(server.pid, os.WNOHANG)  # where it is our own child
        time.sleep(0.02)
    _remember(state, Server(server.port))
    return True


def _port(state: Path, asked: int) -> int:
    """The port to listen on: the one asked for, which must be free; else the remembered one, if free; else any."""
    if asked:
        if not _free(asked):
            raise _taken(asked)
        return asked
    remembered = _recall(state).port
    if remembered and _free(remembered):
        return remembered
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        return int(probe.getsockname()[1])


def _free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except PermissionError:
            raise EdgemlError(f"port {port} is reserved for the system; choose one above 1023") from None
        except (OSError, OverflowError):
            return False
        return True


def _taken(port: int) -> EdgemlError:
    return EdgemlError(f"port {port} is in use by another program; choose another with `edgeml storage start --port N`")


def _folder(state: Path) -> Path:
    return state.resolve() / "storage"


def _recall(state: Path) -> Server:
    try:
        return Server(**json.loads((_folder(state) / "server.json").read_text("utf-8")))
    except (OSError, ValueError, TypeError):
        return Server()


def _remember(state: Path, server: Server) -> None:
    _write_whole(_folder(state) / "server.json", json.dumps(asdict(server)).encode(), 0o644)


def _write_whole(path: Path, content: bytes, mode: int) -> None:
    new = path.with_name(path.name + ".new")
    new.unlink(missing_ok=True)
    with open(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "wb") as stream:
        stream.write(content)
    new.replace(path)


@contextmanager
def _locked(state: Path, name: str, how: int = fcntl.LOCK_EX) -> Iterator[None]:
    folder = _folder(state)
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    with (folder / name).open("ab") as stream:
        fcntl.flock(stream, how)
        yield


def _command_line(pid: int) -> str:
    """The command line of a process, empty if there is none."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode("utf-8", "replace")
    except FileNotFoundError:
        if Path("/proc/self").exists():
            return ""
    except OSError:
        return ""
    return subprocess.run(["ps", "-ww", "-o", "command=", "-p", str(pid)], capture_output=True, text=True).stdout


def _account_key(state: Path) -> str:
    file = _folder(state) / "account.key"
    if not file.is_file():
        _write_whole(file, base64.b64encode(secrets.token_bytes(64)), 0o600)
    return file.read_text("ascii")


def _certificate(folder: Path) -> None:
    """Make the self-signed certificate of the loopback address, once."""
    if (folder / "cert.pem").is_file():
        return
    import datetime
    import ipaddress

    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "edgeml embedded storage")])
    names = [x509.DNSName("localhost"), x509.IPAddress(ipaddress.ip_address(HOST))]
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=3650))
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(key, hashes.SHA256())
    )
    pem = serialization.Encoding.PEM
    private = key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    _write_whole(folder / "key.pem", private, 0o600)
    _write_whole(folder / "cert.pem", certificate.public_bytes(pem), 0o644)
