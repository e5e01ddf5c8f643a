"""Connections: what is no proper request, what is too large or too slow, and answers in their order."""

from __future__ import annotations

import json
import re
import socket
import time
from pathlib import Path
from typing import Any

import pytest

from tests.serving.conftest import Served, Start, received
from tests.serving.test_score import OTHER, ROW, expected

BODY = json.dumps({"data": [ROW]}).encode()
LIMITS = {"body_bytes": 4096, "request_seconds": 1, "idle_seconds": 2, "connections": 8, "buffer_bytes": 8192}


def head(path: str = "/score", method: str = "POST", **headers: Any) -> bytes:
    lines = [f"{method} {path} HTTP/1.1", "host: x", *(f"{k.replace('_', '-')}: {v}" for k, v in headers.items())]
    return "\r\n".join(lines).encode() + b"\r\n\r\n"


def request(body: bytes = BODY, **headers: Any) -> bytes:
    return head(content_length=len(body), **headers) + body


def answers(data: bytes) -> list[tuple[int, bytes]]:
    """Status and body of each response in a stream."""
    found = []
    while data:
        top, _, rest = data.partition(b"\r\n\r\n")
        status = int(top.split()[1])
        if status == 100:
            found.append((status, b""))
            data = rest
            continue
        length = int(re.search(rb"content-length: (\d+)", top)[1])  # type: ignore[index]
        found.append((status, rest[:length]))
        data = rest[length:]
    return found


def statuses(data: bytes) -> list[int]:
    return [status for status, _ in answers(data)]


@pytest.fixture(scope="module")
def tight(start: Start, mixed_model: Path) -> Served:
    """A server of small limits."""
    return start(mixed_model, **LIMITS)


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", 400),  # TLS
        (b"GET\r\n\r\n", 400),
        (b"POST /score HTTP/1.1\r\ncontent-length: x\r\n\r\n", 400),
        (b"POST /score HTTP/1.1\r\ncontent-length: -1\r\n\r\n", 400),
        (b"POST /score HTTP/1.1\r\ncontent-length: 3\r\ncontent-length: 4\r\n\r\nabcd", 400),
        (b"POST /score HTTP/1.1\r\ncontent-length: 3\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n", 400),
        (b"POST /score HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n\r\n", 400),
        (b"POST /score HTTP/1.1\r\ntransfer-encoding: gzip\r\n\r\n", 400),
        (b"POST /score HTTP/1.1\r\nhost: a\r\n folded\r\n\r\n", 400),
        (b"POST /score HTTP/1.1\r\nname : value\r\n\r\n", 400),
        (b"CONNECT x:1 HTTP/1.1\r\nhost: x\r\n\r\n", 400),
        (b"GET /v2 HTTP/1.1\r\nhost: x\r\nlong: " + b"x" * 20_000 + b"\r\n\r\n", 431),
        (b"GET /v2 HTTP/1.1\r\nhost: x\r\nlong: " + b"x" * 20_000, 431),
        (b"GET /" + b"x" * 20_000 + b" HTTP/1.1\r\nhost: x\r\n\r\n", 431),
        (b"GET /v2 HTTP/1.1\r\n" + b"a: b\r\n" * 5_000 + b"\r\n", 431),
        (head(content_encoding="gzip", content_length=3) + b"abc", 415),
    ],
)
def test_what_is_no_proper_request_is_refused_and_closed(mixed: Served, data: bytes, status: int) -> None:
    (found,) = answers(mixed.raw(data))
    assert found[0] == status
    assert json.loads(found[1])["error"]


def test_a_body_in_pieces_and_chunks_is_put_together(mixed: Served) -> None:
    chunked = b"".join(b"%x;name=value\r\n%b\r\n" % (1, BODY[i : i + 1]) for i in range(len(BODY))) + b"0\r\n\r\n"
    whole = head(transfer_encoding="chunked", connection="close") + chunked
    with socket.create_connection(("127.0.0.1", mixed.port)) as connection:
        for index in range(len(whole)):
            connection.sendall(whole[index : index + 1])
        ((status, body),) = answers(received(connection))
    assert (status, json.loads(body)["predictions"]) == (200, expected(ROW))


def test_requests_sent_ahead_are_answered_in_their_order(start: Start, slow: Path) -> None:
    served = start(slow, version="1")
    one, two = (json.dumps([[value]]).encode() for value in (1.5, 2.5))
    bad = request(b"{")
    got = answers(served.raw(request(one) + bad + head("/v2/health/live", "GET") + request(two, connection="close")))
    assert [status for status, _ in got] == [200, 400, 200, 200]
    assert [json.loads(body).get("predictions") for _, body in got] == [[{"y": 1.5}], None, None, [{"y": 2.5}]]


def test_while_a_thread_works_the_others_are_answered(start: Start, slow: Path) -> None:
    served = start(slow)
    with socket.create_connection(("127.0.0.1", served.port)) as connection:
        connection.sendall(request(b"[[1]]", connection="close"))
        time.sleep(0.02)
        began = time.monotonic()
        assert served.ask("GET", "/v2/health/live").status == 200
        assert time.monotonic() - began < 0.1
        assert statuses(received(connection)) == [200]


def test_http_1_0_and_close_are_honoured(mixed: Served) -> None:
    assert statuses(mixed.raw(b"GET /v2/health/live HTTP/1.0\r\n\r\n")) == [200]
    got = mixed.raw(b"GET /v2/health/live HTTP/1.0\r\nconnection: keep-alive\r\n\r\n" * 2 + b"GET / HTTP/1.0\r\n\r\n")
    assert statuses(got) == [200, 200, 200]
    assert got.count(b"connection: keep-alive") == 2


def test_head_has_the_headers_of_get_and_no_body(mixed: Served) -> None:
    got = mixed.raw(head("/v2", "HEAD", connection="close"))
    assert got.startswith(b"HTTP/1.1 200 OK\r\n")
    assert got.endswith(b"\r\n\r\n")
    assert b"content-length: 51\r\n" in got


def test_an_offer_of_another_protocol_is_ignored(mixed: Served) -> None:
    offer = {"connection": "Upgrade, HTTP2-Settings", "upgrade": "h2c", "http2_settings": "AAMAAABkAAQAAP__"}
    with socket.create_connection(("127.0.0.1", mixed.port)) as connection:
        connection.sendall(request(**offer)[:-5])
        time.sleep(0.02)
        connection.sendall(request()[-5:] + request(connection="close"))
        got = answers(received(connection))
    assert [(status, json.loads(body)["predictions"]) for status, body in got] == [(200, expected(ROW))] * 2
    with socket.create_connection(("127.0.0.1", mixed.port)) as connection:
        connection.sendall(head("/v2/health/live", "GET", **offer) + head("/v2", "GET", connection="close"))
        assert statuses(received(connection)) == [200, 200]


def test_the_client_that_asks_before_it_sends_is_told_to_go_on_or_not(tight: Served) -> None:
    with socket.create_connection(("127.0.0.1", tight.port)) as connection:
        connection.sendall(head(content_length=len(BODY), expect="100-continue", connection="close"))
        assert connection.recv(1000) == b"HTTP/1.1 100 Continue\r\n\r\n"
        connection.sendall(BODY)
        assert statuses(received(connection)) == [200]
    assert statuses(tight.raw(head(content_length=5_000, expect="100-continue"))) == [413]


@pytest.mark.parametrize("length", ["content-length", "chunked"])
def test_a_body_of_100_mb_is_refused_and_the_refusal_arrives(mixed: Served, length: str) -> None:
    block = b"x" * (1 << 20)
    chunk = b"100000\r\n" + block + b"\r\n"
    with socket.create_connection(("127.0.0.1", mixed.port), timeout=10) as connection:
        if length == "chunked":
            connection.sendall(head(transfer_encoding="chunked"))
        else:
            connection.sendall(head(content_length=100 << 20))
        for _ in range(100):
            connection.sendall(chunk if length == "chunked" else block)
        ((status, body),) = answers(received(connection))
    assert (status, "8388608" in json.loads(body)["error"]) == (413, True)
    assert mixed.score([ROW]).status == 200


def test_a_client_that_is_slow_with_its_request_is_told_and_closed(tight: Served) -> None:
    parts = (b"POST /score", request()[:60], request()[:-1])
    connections = [socket.create_connection(("127.0.0.1", tight.port)) for _ in parts]
    for connection, part in zip(connections, parts, strict=True):
        connection.sendall(part)
    until = time.monotonic() + 1.8
    while time.monotonic() < until:  # a byte now and then does not buy more time
        time.sleep(0.2)
        connections[0].sendall(b"x")
    for connection in connections:
        ((status, body),) = answers(received(connection))
        assert (status, "in time" in json.loads(body)["error"]) == (408, True)
        connection.close()


def test_idle_and_silent_connections_are_closed_without_a_word(tight: Served) -> None:
    with (
        socket.create_connection(("127.0.0.1", tight.port)) as silent,
        socket.create_connection(("127.0.0.1", tight.port)) as idle,
    ):
        idle.sendall(request())
        assert received(silent) == b""
        assert statuses(received(idle)) == [200]


def test_a_client_that_does_not_take_its_answers_is_cut_off(tight: Served) -> None:
    with socket.create_connection(("127.0.0.1", tight.port)) as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        connection.settimeout(10)
        with pytest.raises(OSError, match=r"reset|Broken pipe"):
            while True:
                connection.sendall(head("/openapi.json", "GET") * 20)
    assert tight.score([ROW]).status == 200


def test_more_connections_than_allowed_are_refused_and_then_welcome(tight: Served) -> None:
    tight.stop_asking()
    held = [socket.create_connection(("127.0.0.1", tight.port)) for _ in range(LIMITS["connections"])]
    time.sleep(0.1)
    got = tight.raw(request())
    assert statuses(got) == [503]
    assert b"retry-after: 1\r\n" in got
    for connection in held:
        connection.close()
    time.sleep(0.1)
    assert tight.score([ROW]).status == 200


def test_more_bodies_than_may_be_held_are_refused(tight: Served) -> None:
    held = []
    for _ in range(2):
        connection = socket.create_connection(("127.0.0.1", tight.port))
        connection.sendall(head(content_length=4_000) + b" " * 3_999)
        held.append(connection)
    time.sleep(0.1)
    assert statuses(tight.raw(head(content_length=1_000) + b" " * 1_000)) == [503]
    for connection in held:
        connection.sendall(b"]")
        assert connection.recv(100).startswith(b"HTTP/1.1 400")
        connection.close()
    assert tight.score([ROW, OTHER]).status == 200


def test_a_client_that_leaves_early_leaves_nothing_behind(tight: Served) -> None:
    for _ in range(20):
        with socket.create_connection(("127.0.0.1", tight.port)) as connection:
            connection.sendall(head(content_length=4_000) + b" " * 3_000)
    time.sleep(0.1)
    assert tight.score([ROW]).status == 200


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [("GET", "/score", "POST"), ("POST", "/v2", "GET, HEAD"), ("DELETE", "/", "GET, HEAD")],
)
def test_another_method_is_told_which_are_allowed(mixed: Served, method: str, path: str, allowed: str) -> None:
    got = mixed.ask(method, path)
    assert (got.status, got.headers["allow"]) == (405, allowed)


def test_the_request_id_comes_back_unless_it_is_something_else(mixed: Served) -> None:
    assert mixed.ask("GET", "/v2", x_request_id="a-1.b_2").headers["x-request-id"] == "a-1.b_2"
    for other in ("a b", "x" * 65, "ü", '"'):
        assert "x-request-id" not in mixed.ask("GET", "/v2", x_request_id=other).headers
