"""The server: a listening socket, a clock for deadlines, and an end that loses no request."""

from __future__ import annotations

import asyncio
import ctypes
import gc
import os
import signal
import socket
import struct
import traceback
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from email.utils import formatdate
from typing import TYPE_CHECKING, Any

from edgeml.serving.app import Answer, App
from edgeml.serving.http import Connection, Request
from edgeml.serving.log import Log
from edgeml.serving.settings import Settings, Unusable

if TYPE_CHECKING:
    from collections.abc import Iterable

TICK_SECONDS = 0.25  # how exact deadlines are, and how long a line of the log waits
BACKLOG = 1024
TOGETHER = 16  # requests of one round that are worked on stage by stage, before the first of them is answered
SO_ATTACH_FILTER = 26  # of Linux's asm-generic/socket.h; Python does not name it


class Server:
    """What all connections share. Its attributes are changed by the event loop's thread alone."""

    def __init__(self, app: App, settings: Settings, log: Log) -> None:
        self.app = app
        self.settings = settings
        self.connections: set[Connection] = set()
        self.buffered = 0  # bytes of bodies
        self.draining = False
        self.now = 0.0  # the loop's time, as of the last tick
        self.date = ""
        self._gathered: list[tuple[Connection, Request]] = []
        self._log = log
        self._logs_all = settings.log == "all"
        self._threads = ThreadPoolExecutor(max_workers=os.cpu_count() or 1, thread_name_prefix="score")
        self._stop = asyncio.Event()
        self._loop = asyncio.get_running_loop()

    async def serve(self, listening: socket.socket, ready: Callable[[], None]) -> None:
        """Serve until SIGTERM or SIGINT, then end gracefully; a second signal ends at once."""
        for number in (signal.SIGTERM, signal.SIGINT):
            self._loop.add_signal_handler(number, self._signalled)
        self._loop.set_exception_handler(self._failed)
        self._tick()
        acceptor = await self._loop.create_server(lambda: Connection(self), sock=listening, backlog=BACKLOG)
        gc.collect()
        gc.freeze()  # what was loaded stays; the collector need not look at it again
        ready()
        await self._stop.wait()
        self._log.add("stopping", connections=len(self.connections))
        self.app.ready = False
        self.draining = True
        await asyncio.sleep(self.settings.drain_seconds)
        await _close(acceptor, listening)
        await self._finish()
        self._log.add("stopped", dropped=len(self.connections))
        for connection in list(self.connections):
            connection.drop()

    async def _finish(self) -> None:
        """Wait for what is in progress, as long as settings allow."""
        until = self._loop.time() + self.settings.stop_seconds
        while self.connections and self._loop.time() < until:
            for connection in list(self.connections):
                connection.finish()
            await asyncio.sleep(0.01)

    def _signalled(self) -> None:
        if self._stop.is_set():
            self._log.close()
            os._exit(1)
        self._stop.set()

    def _failed(self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        """A defect of ours in a callback: told by its type and place, because its text may quote a value."""
        error = context.get("exception")
        frames = traceback.extract_tb(error.__traceback__) if error else []
        place = [f"{os.path.basename(frame.filename)}:{frame.lineno}" for frame in frames[-3:]]
        self._log.add("defect", kind=type(error).__name__, place=place)
        if isinstance(connection := context.get("protocol"), Connection):
            connection.drop()

    def _tick(self) -> None:
        self.now = self._loop.time()
        self.date = f"date: {formatdate(usegmt=True)}\r\n"
        for connection in [one for one in self.connections if one.deadline < self.now]:
            connection.expired()
        self.app.metrics.connections = len(self.connections)
        self.app.metrics.dropped = self._log.dropped
        self._log.flush()
        self._loop.call_later(TICK_SECONDS, self._tick)

    # ---- what connections call ----

    def opened(self, connection: Connection) -> None:
        self.connections.add(connection)

    def closed(self, connection: Connection) -> None:
        self.connections.discard(connection)

    def gather(self, connection: Connection, request: Request) -> None:
        """Work on a request once everything that has arrived by now was read."""
        if not self._gathered:
            self._loop.call_soon(self._round)
        self._gathered.append((connection, request))

    def _round(self) -> None:
        gathered, self._gathered = self._gathered, []
        for start in range(0, len(gathered), TOGETHER):
            part = gathered[start : start + TOGETHER]
            answers = self.app.answers([(request.method, request.path, request.body) for _, request in part])
            for (connection, request), answer in zip(part, answers, strict=True):
                try:
                    connection.worked(request, answer)
                except Exception as error:  # a defect of ours, which must not take the answers of the others
                    self._failed(self._loop, {"exception": error, "protocol": connection})

    def submit(self, work: Callable[[str, str, bytes], Answer], *given: object) -> asyncio.Future[Answer]:
        return self._loop.run_in_executor(self._threads, work, *given)  # type: ignore[arg-type]

    def answered(self, request: Request, answer: Answer, seconds: float) -> None:
        self.app.metrics.count(answer.route, answer.status, seconds, answer.rows)
        if self._logs_all or answer.status >= 400:
            self._log.request(answer.route, answer.status, seconds, answer.rows, answer.field, request.id)


def bind(settings: Settings) -> socket.socket:
    """A bound socket. Raises Unusable."""
    try:
        family, kind, _, _, address = socket.getaddrinfo(
            settings.host, settings.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        made = socket.socket(family, kind)
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        made.bind(address)
    except OSError as error:
        where = f"{settings.host}:{settings.port}"
        raise Unusable(f"cannot listen on {where} ({error.strerror or error}); give another port or host") from None
    made.setblocking(False)
    return made


async def _close(acceptor: asyncio.Server, listening: socket.socket) -> None:
    """Stop listening without resetting connections that the kernel has accepted and we have not.

    A filter in the kernel lets new connections no longer begin; those begun complete and are accepted; then the
    socket is closed. Who comes in between is told by the kernel, on the next try, that nobody listens.
    """
    _let_none_begin(listening)
    for _ in range(5):  # not at once: a process that had to wait so long would close before it has accepted
        await asyncio.sleep(0.01)
    acceptor.close()


def _let_none_begin(listening: socket.socket) -> None:
    """Drop every SYN by a classic BPF program; where the system has none, the gap is a few microseconds wide."""
    program: Iterable[tuple[int, int, int, int]] = (
        (0x30, 0, 0, 13),  # A = byte 13 of the TCP header: the flags
        (0x45, 0, 1, 0x02),  # if A & SYN
        (0x06, 0, 0, 0),  # drop
        (0x06, 0, 0, 0xFFFFFFFF),  # take whole
    )
    code = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *line) for line in program))
    try:
        listening.setsockopt(socket.SOL_SOCKET, SO_ATTACH_FILTER, struct.pack("HL", 4, ctypes.addressof(code)))
    except OSError:
        return
