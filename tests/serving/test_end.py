"""SIGTERM: whoever was accepted is answered, and then the process ends."""

from __future__ import annotations

import signal
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.serving.conftest import Served, Start, received
from tests.serving.test_http import answers, head, request, statuses

CLIENTS = 12


def one_answer(connection: socket.socket) -> tuple[int, bool]:
    """The status of the next answer, and whether the connection is kept; status 0 where none comes."""
    data = b""
    while b"\r\n\r\n" not in data or len(data.partition(b"\r\n\r\n")[2]) < length(data):
        part = connection.recv(1 << 16)
        if not part:
            return 0, False
        data += part
    return int(data.split()[1]), b"connection: close" not in data


def length(data: bytes) -> int:
    return int(data.partition(b"content-length: ")[2].partition(b"\r\n")[0])


def client(served: Served, kept: bool, seen: Counter[str]) -> None:
    """Ask again and again until nobody listens; what was sent over an open connection counts as lost if unanswered."""
    connection: socket.socket | None = None
    while True:
        try:
            if connection is None:
                connection = socket.create_connection(("127.0.0.1", served.port), timeout=30)
        except ConnectionRefusedError:
            return
        try:
            connection.sendall(request() if kept else request(connection="close"))
            status, open_still = one_answer(connection)
        except OSError as error:
            seen[f"lost: {type(error).__name__}"] += 1
            return
        seen[f"status {status}" if status else "lost: closed"] += 1
        if not open_still:
            connection.close()
            connection = None


@pytest.mark.parametrize("drain", [0, 1])
def test_sigterm_under_load_loses_no_accepted_request(start: Start, mixed_model: Path, drain: int) -> None:
    served = start(mixed_model, drain_seconds=drain, log="errors")
    seen: Counter[str] = Counter()
    threads = [threading.Thread(target=client, args=(served, index % 2 == 0, seen)) for index in range(CLIENTS)]
    for thread in threads:
        thread.start()
    time.sleep(0.5)
    assert served.stop() == 0
    for thread in threads:
        thread.join(30)
    assert set(seen) == {"status 200"}, seen
    assert seen["status 200"] > 100
    assert served.lines()[-1]["event"] == "stopped"


def test_what_is_in_progress_is_finished(start: Start, slow: Path) -> None:
    served = start(slow)
    with (
        socket.create_connection(("127.0.0.1", served.port)) as working,
        socket.create_connection(("127.0.0.1", served.port)) as sending,
        socket.create_connection(("127.0.0.1", served.port)) as idle,
    ):
        working.sendall(request(b"[[1]]") + request(b"[[2]]"))
        sending.sendall(request(b"[[3]]")[:-2])
        time.sleep(0.05)
        served.process.send_signal(signal.SIGTERM)
        assert received(idle) == b""
        sending.sendall(b"]]")
        assert statuses(received(sending)) == [200]
        assert statuses(received(working))[0] == 200
    assert served.process.wait(10) == 0


def test_while_it_drains_the_server_is_not_ready_and_says_goodbye(start: Start, mixed_model: Path) -> None:
    served = start(mixed_model, drain_seconds=1)
    served.process.send_signal(signal.SIGTERM)
    time.sleep(0.2)
    got = served.raw(head("/v2/health/ready", "GET"))
    assert answers(got) == [(503, b'{"ready":false}')]
    assert b"connection: close" in got
    assert statuses(served.raw(request())) == [200]
    assert served.process.wait(10) == 0
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", served.port))


def ended(served: Served, act: Callable[[], None]) -> float:
    began = time.monotonic()
    act()
    served.process.wait(20)
    return time.monotonic() - began


def test_a_client_that_never_finishes_does_not_hold_the_end(start: Start, mixed_model: Path) -> None:
    served = start(mixed_model, stop_seconds=1, request_seconds=60)
    with socket.create_connection(("127.0.0.1", served.port)) as connection:
        connection.sendall(request()[:-1])
        time.sleep(0.05)
        assert ended(served, lambda: served.process.send_signal(signal.SIGINT)) < 5
    assert served.process.returncode == 0
    assert served.lines()[-1] | {"time": ""} == {"time": "", "event": "stopped", "dropped": 1}


def test_a_second_signal_ends_at_once(start: Start, mixed_model: Path) -> None:
    served = start(mixed_model, drain_seconds=60)
    served.process.send_signal(signal.SIGTERM)
    time.sleep(0.3)
    assert ended(served, lambda: served.process.send_signal(signal.SIGTERM)) < 5
    assert served.process.returncode == 1
