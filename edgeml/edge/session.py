"""The way to the edge VM: by SSH, its host key pinned and a key of ours, or no way at all where it is this machine.

A `Host` runs one short program there for each thing that is asked. Nothing is installed for it: the program comes by
standard input, its source first, then one JSON line that says what is wanted, then bytes where there are some. It
answers in JSON lines. So secrets are in nobody's arguments, and what runs there is always of this version.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import json
import os
import shlex
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Awaitable, Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any, Protocol

from edgeml.errors import EdgemlError

if TYPE_CHECKING:
    import asyncssh

    from edgeml.settings import Edge, Site, Ssh

KEY, KEY_FILE, PASSPHRASE = "EDGEML_SSH_KEY", "EDGEML_SSH_KEY_FILE", "EDGEML_SSH_PASSPHRASE"
HERE = frozenset({"", "localhost"})
BOOT = (
    "import os,sys;r=sys.stdin.buffer;p=r.read(int(r.readline()));f=os.memfd_create('edgeml');os.write(f,p);"
    "sys.path.insert(0,'/proc/self/fd/%d'%f);from edgeml.edge.on_vm.main import main;main(p)"
)
PATIENCE = 60.0  # seconds that a lost connection is tried again
_CONNECT = 15.0  # seconds for one attempt
_ALIVE = 10  # seconds between keep-alives; after three without an answer the connection is lost
_FIRST, _LONGEST = 0.2, 10.0  # seconds between attempts
_AT_START = "import sys;from edgeml.edge.on_vm import boot;sys.exit(boot.main())"  # as a file: a site's machine starts
_LINE = 8 << 20  # bytes of one answer
_BLOCK = 1 << 18
_HERE = os.path.dirname(os.path.abspath(__file__))
_CHANGED = (
    "the host key of {} ({}) is not {}: the VM was made anew, or somebody is in between; read the key at the VM's own "
    "console and only then change it"
)
_NO_SUCH_KEY = (
    "{} ({}) has no host key of the kind in {}, or no common cipher; read its key at the VM's own console "
    "(cat /etc/ssh/ssh_host_*.pub)"
)
_SILENT = "{} does not answer at {} ({}); see that it runs and that its network security group lets this machine in"


class Lost(Exception):  # noqa: N818 - the connection, not the work
    """The VM could not be reached, or no longer; the message says why. Worth another try."""


class Host(Protocol):
    """A machine that runs programs for us."""

    def ask(self, question: dict[str, Any], payload: Iterable[bytes] = ()) -> Iterator[dict[str, Any]]:
        """The program's answers as they come. Raises Lost, or EdgemlError for what no second try mends."""
        ...

    def close(self) -> None: ...


def open_host(name: str, target: Edge | Site, section: str = "compute") -> Host:
    """The machine of a compute target, or of a site; the connection is made by the first question."""
    return Here() if target.address in HERE else Remote(name, target, section)


def told(
    host: Host,
    question: dict[str, Any],
    payload: Callable[[], Iterable[bytes]] = tuple,
    patience: float = PATIENCE,
    heard: Callable[[dict[str, Any]], None] = lambda answer: None,
) -> list[dict[str, Any]]:
    """All answers to a question that may be asked again, however often the connection is lost within `patience`.

    `heard` gets each answer as it comes.
    """
    deadline, pause = time.monotonic() + patience, _FIRST
    while True:
        try:
            answers = []
            for answer in host.ask(question, payload()):
                heard(answer)
                answers.append(answer)
            return answers
        except Lost as lost:
            if time.monotonic() + pause > deadline:
                raise EdgemlError(str(lost), 1) from None
            time.sleep(pause)
            pause = min(pause * 2, _LONGEST)


class Here:
    """This machine: a self-hosted runner on the VM itself needs no SSH and no public address."""

    def ask(self, question: dict[str, Any], payload: Iterable[bytes] = ()) -> Iterator[dict[str, Any]]:
        process = subprocess.Popen(
            [sys.executable, "-I", "-c", BOOT],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            cwd=os.path.expanduser("~"),
        )
        assert process.stdin is not None
        assert process.stdout is not None
        stdin = process.stdin

        def write() -> None:
            with contextlib.suppress(BrokenPipeError), stdin:
                for block in _sent(question, payload):
                    stdin.write(block)

        writer = threading.Thread(target=write, daemon=True)
        writer.start()
        try:
            with process.stdout as stream:
                for line in stream:
                    yield _parsed(line)
            writer.join()
            if process.wait():
                raise EdgemlError("the edge program failed on this machine; its own words stand above", 1)
        finally:
            process.kill()
            process.wait()

    def close(self) -> None:
        return


class Remote:
    """A VM by SSH. One connection, made when it is needed and again after it was lost."""

    def __init__(self, name: str, target: Ssh, section: str = "compute") -> None:
        self.name = name
        self.target = target
        self._setting = f"{section}.{name}.host_key"
        self._key = private_key()
        self._hosts, self._algorithm = known_host(self._setting, target)
        self._runner = asyncio.Runner()
        self._connection: asyncssh.SSHClientConnection | None = None

    @property
    def shown(self) -> str:
        return f"{self.target.address}:{self.target.port}"

    def connection(self) -> asyncssh.SSHClientConnection:
        """The open connection. Raises Lost where the VM does not answer, EdgemlError where one of the two refuses."""
        if self._connection is None or self._connection.is_closed():
            self._connection = self.run(self._connect())
        return self._connection

    def run(self, awaitable: Awaitable[Any]) -> Any:
        """Wait for something of asyncssh."""

        async def wait() -> Any:
            return await awaitable

        return self._runner.run(wait())

    def ask(self, question: dict[str, Any], payload: Iterable[bytes] = ()) -> Iterator[dict[str, Any]]:
        import asyncssh

        connection = self.connection()
        try:
            process = self.run(connection.create_process(f"python3 -I -c {shlex.quote(BOOT)}", encoding=None))
            try:
                feeding = self._runner.get_loop().create_task(_feed(process.stdin, _sent(question, payload)))
                while line := self.run(process.stdout.readline()):
                    yield _parsed(line)
                self.run(_end(feeding, process))
            finally:
                process.close()
        except (asyncssh.DisconnectError, asyncssh.ChannelOpenError, OSError) as error:
            self.close_connection()
            raise Lost(f"the connection to {self.name} ({self.shown}) was lost ({error})") from None
        if process.exit_status is None:  # ended by a signal, with the VM or by its administrator
            self.close_connection()
            raise Lost(f"the program on {self.name} ({self.shown}) was ended before its time")
        if process.exit_status:
            said = self.run(process.stderr.read(_BLOCK)).decode("utf-8", "replace").strip().splitlines()
            raise EdgemlError(_explained(self.name, process.exit_status, said), 1)

    def close_connection(self) -> None:
        if self._connection is not None:
            self._connection.abort()
            self._connection = None

    def close(self) -> None:
        self.close_connection()
        self._runner.close()

    async def _connect(self) -> asyncssh.SSHClientConnection:
        import asyncssh

        try:
            return await asyncio.wait_for(
                asyncssh.connect(
                    self.target.address,
                    self.target.port,
                    username=self.target.user,
                    known_hosts=self._hosts,
                    server_host_key_algs=self._algorithm,
                    client_keys=[self._key],
                    preferred_auth="publickey",
                    # Nothing of this machine or its user takes part: no agent, no configuration, no other identity.
                    agent_path=None,
                    config=None,
                    gss_host=None,
                    password=None,
                    keepalive_interval=_ALIVE,
                    keepalive_count_max=3,
                ),
                _CONNECT,
            )
        except asyncssh.HostKeyNotVerifiable:
            raise EdgemlError(_CHANGED.format(self.name, self.shown, self._setting), 1) from None
        except asyncssh.KeyExchangeFailed:
            raise EdgemlError(_NO_SUCH_KEY.format(self.name, self.shown, self._setting), 1) from None
        except asyncssh.PermissionDenied:
            raise EdgemlError(
                f"{self.name} ({self.shown}) does not let the key in as user {self.target.user}; add its public half "
                "to that user's ~/.ssh/authorized_keys, or give the right key in EDGEML_SSH_KEY_FILE",
                1,
            ) from None
        except (asyncssh.Error, OSError, TimeoutError) as error:
            raise Lost(_SILENT.format(self.name, self.shown, _reason(error))) from None


def private_key() -> asyncssh.SSHKey:
    """The key from the environment. Raises EdgemlError for one that is missing, open to others, or locked."""
    import asyncssh

    content, where = os.environ.get(KEY, ""), KEY
    if not content:
        path = os.environ.get(KEY_FILE, "")
        if not path:
            raise EdgemlError(f"no SSH key is given; name its file in {KEY_FILE}, or give its content as {KEY}")
        content, where = _read_key(path), path
    passphrase = os.environ.get(PASSPHRASE)
    try:
        return asyncssh.import_private_key(content, passphrase)
    except (asyncssh.KeyEncryptionError, asyncssh.KeyImportError) as error:
        if "assphrase" in str(error) and not passphrase:
            raise EdgemlError(f"the SSH key {where} has a passphrase and none is given; set {PASSPHRASE}") from None
        if isinstance(error, asyncssh.KeyEncryptionError) or "assphrase" in str(error):
            raise EdgemlError(f"{PASSPHRASE} does not open the SSH key {where}; give the right one") from None
        raise EdgemlError(f"{where} is no private SSH key; make one with `ssh-keygen -t ed25519`") from None


def known_host(setting: str, target: Ssh) -> tuple[Any, list[str]]:
    """The pinned host key as asyncssh takes it, and the algorithms by which the VM may prove that it has it."""
    import asyncssh

    if not target.host_key:
        raise EdgemlError(
            f"{setting} is empty, so the VM could be anybody; read it at the VM's own console "
            "(cat /etc/ssh/ssh_host_ed25519_key.pub) and write it into edgeml.toml"
        )
    try:
        key = asyncssh.import_public_key(target.host_key)
    except asyncssh.KeyImportError:
        raise EdgemlError(f"{setting} is no public key; write it as `ssh-ed25519 AAAA...`") from None
    algorithms = [algorithm.decode("ascii") for algorithm in key.sig_algorithms]
    return ([key], [], []), algorithms


def check_host(name: str, target: Ssh) -> None:
    """See that the machine of a compute target is the pinned one; nobody signs in to it.

    Raises EdgemlError where no key is pinned, it has another one, or it does not answer.
    """
    import asyncssh

    setting, shown = f"compute.{name}.host_key", f"{target.address}:{target.port}"
    (keys, _, _), algorithms = known_host(setting, target)

    async def ask() -> Any:
        asked = asyncssh.get_server_host_key(target.address, target.port, server_host_key_algs=algorithms, config=None)
        return await asyncio.wait_for(asked, _CONNECT)

    try:
        there = asyncio.run(ask())
    except asyncssh.KeyExchangeFailed:
        raise EdgemlError(_NO_SUCH_KEY.format(name, shown, setting), 1) from None
    except (asyncssh.Error, OSError, TimeoutError) as error:
        raise EdgemlError(_SILENT.format(name, shown, _reason(error)), 1) from None
    if there is None or there.public_data != keys[0].public_data:
        raise EdgemlError(_CHANGED.format(name, shown, setting), 1)


def _read_key(path: str) -> str:
    try:
        with open(path, "rb") as stream:
            if stat.S_IMODE(os.fstat(stream.fileno()).st_mode) & 0o077:
                raise EdgemlError(f"the SSH key {path} can be read by others; call `chmod 600` on it")
            return stream.read(1 << 16).decode("utf-8", "replace")
    except OSError as error:
        raise EdgemlError(f"the SSH key {path} cannot be read ({error.strerror}); correct {KEY_FILE}") from None


@functools.cache
def program() -> bytes:
    """What the VM is sent: a few modules as a zip archive, the same for the same sources."""
    import io
    import zipfile

    made = io.BytesIO()
    sources = [os.path.join("edge", "on_vm", name) for name in sorted(os.listdir(os.path.join(_HERE, "on_vm")))]
    with zipfile.ZipFile(made, "w", zipfile.ZIP_DEFLATED) as archive:
        for name in ("__init__.py", "edge/__init__.py", *(name for name in sources if name.endswith(".py"))):
            with open(os.path.join(os.path.dirname(_HERE), name), "rb") as stream:
                archive.writestr(zipfile.ZipInfo(f"edgeml/{name}"), stream.read(), zipfile.ZIP_DEFLATED)
        archive.writestr(zipfile.ZipInfo("__main__.py"), _AT_START)
    return made.getvalue()


def _sent(question: dict[str, Any], payload: Iterable[bytes]) -> Iterator[bytes]:
    question = {**question, "boot": BOOT}
    yield b"%d\n" % len(program()) + program() + json.dumps(question).encode() + b"\n"
    yield from payload


async def _feed(stream: Any, blocks: Iterable[bytes]) -> None:
    """Write all blocks and the end. A program that has heard enough is no error: it says itself what is wrong."""
    with contextlib.suppress(BrokenPipeError, ConnectionResetError):
        for block in blocks:
            stream.write(block)
            await stream.drain()
        stream.write_eof()


async def _end(feeding: asyncio.Task[None], process: Any) -> None:
    feeding.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await feeding
    await process.wait()


def _parsed(line: bytes) -> dict[str, Any]:
    try:
        answer = json.loads(line) if len(line) <= _LINE else None
    except (ValueError, RecursionError):
        answer = None
    if not isinstance(answer, dict):
        raise EdgemlError("the VM answers what is no answer of edgeml; see what its shell prints at login", 1)
    return answer


def _explained(name: str, status: int, said: list[str]) -> str:
    if status == 127:
        return f"there is no python3 on {name}; install it (on Ubuntu: apt install python3 python3-venv)"
    if any("No space left on device" in line for line in said):
        return (
            f"no space is left on the disk of {name}; free some and run the same command again, it goes on from there"
        )
    # The program of ours that failed; its last line names the exception and may hold a path, never a row.
    return f"the program on {name} failed ({said[-1][:200] if said else f'exit code {status}'})"


def _reason(error: BaseException) -> str:
    if isinstance(error, TimeoutError):
        return "no answer in time"
    return str(getattr(error, "strerror", "") or error or type(error).__name__)
