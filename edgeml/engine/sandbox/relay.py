"""Brings the one address that a step may reach into a sandbox that has no network.

Outside, in the engine, a `Relay` listens on a socket in a private folder and connects to that address and to nothing
else. Inside, this file is the program that the sandbox starts: it listens where the address is expected, on the
sandbox's own loopback, hands every connection to the socket, and runs the step's command. Bytes pass as they are:
TLS is between the step and the storage, so its certificate is verified as ever.

    relay.py SOCKET ADDRESS PORT COMMAND...

Inside it is executed alone, by the step's interpreter; it must not import anything of edgeml.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import sys
import threading
from collections.abc import Callable

_BLOCK = 1 << 20
_PR_CAP_AMBIENT, _CLEAR_ALL = 47, 4


class Relay:
    """The outer end: whoever connects to `path` is connected to one host and port."""

    def __init__(self, path: str, host: str, port: int) -> None:
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(path)
        self._listener.listen(64)
        serve(self._listener, lambda: socket.create_connection((host, port), timeout=30))

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)  # wakes the thread that waits for the next connection
        self._listener.close()


def serve(listener: socket.socket, connect: Callable[[], socket.socket]) -> None:
    """Join each connection to one that `connect` makes, in threads of its own, until the listener is closed."""

    def accept() -> None:
        while True:
            try:
                near, _ = listener.accept()
            except OSError:
                return
            threading.Thread(target=join, args=(near, connect), daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()


def join(near: socket.socket, connect: Callable[[], socket.socket]) -> None:
    """Carry bytes both ways until both sides have ended."""
    with near:
        try:
            far = connect()
        except OSError:
            return  # the step sees a connection that is closed at once
        with far:
            far.settimeout(None)
            back = threading.Thread(target=carry, args=(far, near), daemon=True)
            back.start()
            carry(near, far)
            back.join()


def carry(source: socket.socket, target: socket.socket) -> None:
    """Bytes one way, through a pipe and so without copying them, until the source ends."""
    reading, writing = os.pipe()
    try:
        while count := os.splice(source.fileno(), writing, _BLOCK):
            while count:
                count -= os.splice(reading, target.fileno(), count)
    except OSError:
        with contextlib.suppress(OSError):
            source.shutdown(socket.SHUT_RD)
    finally:
        os.close(reading)
        os.close(writing)
        with contextlib.suppress(OSError):
            target.shutdown(socket.SHUT_WR)


def main(argv: list[str]) -> int:
    """The inner end: listen, run the command, return its exit code (128 and the signal's number for a signal)."""
    path, address, port, *command = argv
    listener = socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind((address, int(port)))
    listener.listen(64)
    _drop_capabilities()
    child = os.fork()  # before there are threads
    if child == 0:
        listener.close()
        try:
            os.execvp(command[0], command)  # noqa: S606 - what the step's shell is started by
        except OSError as error:
            print(f"{command[0]}: {error.strerror}", file=sys.stderr)
            os._exit(127)

    def connect() -> socket.socket:
        far = socket.socket(socket.AF_UNIX)
        far.connect(path)
        return far

    serve(listener, connect)
    signal.signal(signal.SIGTERM, lambda *_: os.kill(child, signal.SIGTERM))
    _, status = os.waitpid(child, 0)
    code = os.waitstatus_to_exitcode(status)
    return code if code >= 0 else 128 - code


def _drop_capabilities() -> None:
    """Low ports need a capability; what is started from here must not have it."""
    import ctypes

    ctypes.CDLL(None).prctl(_PR_CAP_AMBIENT, _CLEAR_ALL, 0, 0, 0)


if __name__ == "__main__":
    code = main(sys.argv[1:])
    sys.stdout.flush()
    os._exit(code)  # threads may still carry what nobody waits for
