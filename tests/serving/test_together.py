"""Requests that come together, cut anywhere or with one head again and again: each is answered as if it came alone."""

from __future__ import annotations

import asyncio
import json
import os
import socket
from contextlib import suppress
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edgeml.serving.app import Answer, App
from edgeml.serving.http import Request
from edgeml.serving.log import Log
from edgeml.serving.model import Model
from edgeml.serving.protocol import Protocol
from edgeml.serving.refusal import Refusal
from edgeml.serving.server import Server
from edgeml.serving.settings import Settings
from tests.serving import models
from tests.serving.conftest import Served, received
from tests.serving.test_http import answers, head, request
from tests.serving.test_score import OTHER, ROW

MANY = json.dumps({"data": [ROW, OTHER] * 900}).encode()  # worked on by a thread
CHUNKED = head(transfer_encoding="chunked")


def rows(*given: Any) -> bytes:
    return json.dumps({"data": given}).encode()


# Of some, the heads are alike and the bodies are not; of others, the lengths are alike and the heads are not.
MESSAGES = (
    request(rows(ROW)),
    request(rows(ROW).replace(b"3", b"4")),
    request(rows(OTHER).ljust(len(rows(ROW)))),
    request(b"{" * len(rows(ROW))),
    request(rows(ROW), x_request_id="one"),
    request(rows(ROW), x_request_id="two"),
    head("/v2", "GET"),
    head("/v3", "GET"),
    head("/v2", "PUT"),
    CHUNKED + b"3\r\n[[1\r\n3\r\n]]\n\r\n0\r\n\r\n",
    CHUNKED + b"5\r\n[[1,2\r\n1\r\n]\r\n0\r\n\r\n",
    request(rows(ROW), expect="100-continue"),
    request(MANY),
    b"\r\n" + request(rows(OTHER)),
    request(b""),
    request(rows(ROW) + b"\r\n\r\n"),
)


NAMES = ("a", "b", "c")


def exchange(served: Served, parts: list[bytes]) -> list[tuple[int, bytes]]:
    """The answers to what is sent in these parts over one connection, a little time between two."""
    got = b""
    with socket.create_connection(("127.0.0.1", served.port), timeout=30) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for part in parts:
            connection.sendall(part)
            connection.settimeout(0.002)
            with suppress(TimeoutError):
                got += connection.recv(1 << 20)
            connection.settimeout(30)
        connection.sendall(head("/v2", "GET", connection="close"))
        got += received(connection)
    return [(status, body) for status, body in answers(got) if status != 100][:-1]


@pytest.fixture(scope="module")
def alone(mixed: Served) -> list[tuple[int, bytes]]:
    """What each of the messages is answered over a connection of its own."""
    found = [exchange(mixed, [message]) for message in MESSAGES]
    assert all(len(each) == 1 for each in found)
    assert {each[0][0] for each in found} == {200, 400, 404, 405}
    return [each[0] for each in found]


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(chosen=st.lists(st.integers(0, len(MESSAGES) - 1), min_size=1, max_size=12), data=st.data())
def test_each_is_answered_as_if_it_came_alone(
    mixed: Served, alone: list[tuple[int, bytes]], chosen: list[int], data: st.DataObject
) -> None:
    messages = [MESSAGES[index] for index in chosen]
    if data.draw(st.booleans(), label="one by one"):
        parts = messages
    else:
        stream = b"".join(messages)
        cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=6), label="cuts"))
        parts = [stream[a:b] for a, b in pairwise([0, *cuts, len(stream)])]
    assert exchange(mixed, parts) == [alone[index] for index in chosen]


def test_a_body_is_no_request(mixed: Served) -> None:
    """Also where the rest of it is, byte for byte, the request before."""
    before = request(rows(ROW))
    first, rest = head(content_length=1 + len(before)) + b"[", before
    found = exchange(mixed, [before, first, rest, before])
    assert [status for status, _ in found] == [200, 400, 200]
    assert found[0] == found[2]


def test_an_identity_is_given_back_to_its_own_request(mixed: Served) -> None:
    """Also where only it differs from the head before."""
    with socket.create_connection(("127.0.0.1", mixed.port), timeout=30) as connection:
        for name in ("one", "one", "two", "two"):
            connection.sendall(request(rows(ROW), x_request_id=name))
            assert f"x-request-id: {name}\r\n".encode() in connection.recv(1 << 16)


def tensors(values: list[list[Any]], nested: bool, **more: Any) -> bytes:
    """A request of float tensors of shape (n, 1), which is read at once unless its data are nested."""
    given = [[[value] for value in each] if nested else each for each in values]
    return json.dumps(
        {
            "inputs": [
                {"name": name, "shape": [len(each), 1], "datatype": "FP32", "data": each}
                for name, each in zip(NAMES, given, strict=False)
            ],
            **more,
        }
    ).encode()


@pytest.fixture(scope="module")
def protocol(tmp_path_factory: pytest.TempPathFactory) -> Protocol:
    return Protocol(Model(Settings(model=str(models.columns(tmp_path_factory.mktemp("columns"), NAMES)))), 4)


def told(protocol: Protocol, body: bytes) -> Any:
    """What a model is fed for a request and what is asked of it, or the status and field of the refusal."""
    try:
        feed, count, asked = protocol.read(body)
    except Refusal as refusal:
        return refusal.status, refusal.field
    return {name: each.tolist() for name, each in feed.items()}, {e.dtype.str for e in feed.values()}, count, asked


NUMBER = st.none() | st.integers(-9, 9) | st.floats(width=32, allow_nan=False)
COLUMN = st.lists(NUMBER | st.sampled_from(["x", 1e39, True]), max_size=5)


@settings(max_examples=200, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    values=st.integers(1, 4).flatmap(lambda size: st.lists(st.lists(NUMBER, min_size=size, max_size=size), max_size=3))
    | st.lists(COLUMN, max_size=3),
    more=st.fixed_dictionaries({}, optional={"id": st.text(), "outputs": st.just([{"name": "sum"}]), "x": st.just(1)}),
)
def test_what_is_read_at_once_is_what_is_read_tensor_by_tensor(
    protocol: Protocol, values: list[list[Any]], more: dict[str, Any]
) -> None:
    flat, nested = (told(protocol, tensors(values, nested, **more)) for nested in (False, True))
    assert repr(flat) == repr(nested)  # NaN is no other NaN's equal


@pytest.mark.parametrize(
    ("change", "refused"),
    [
        ({"name": "d"}, (400, "d")),
        ({"name": "a"}, (400, "a")),
        ({"shape": [1, 2]}, (400, "b")),
        ({"shape": [2]}, (400, "b")),
        ({"shape": []}, (400, "b")),
        ({"shape": [0, 1], "data": []}, (400, "b")),
        ({"shape": [1, 1], "data": [1]}, (400, "b")),
        ({"datatype": "FP64"}, (400, "b")),
        ({"data": [1]}, (400, "b")),
        ({"data": [1, 2, 3]}, (400, "b")),
    ],
)
def test_what_does_not_fit_is_refused_by_its_field(
    protocol: Protocol, change: dict[str, Any], refused: tuple[int, str]
) -> None:
    asked = json.loads(tensors([[1, 2]] * 3, nested=False))
    assert told(protocol, json.dumps(asked).encode())[2] == 2
    asked["inputs"][1] |= change
    assert told(protocol, json.dumps(asked).encode()) == refused


class Answered:
    """Stands where a connection stands, and may have a defect."""

    def __init__(self, broken: bool) -> None:
        self.broken, self.statuses = broken, list[int]()

    def worked(self, request: Request, answer: Answer) -> None:
        if self.broken:
            raise ZeroDivisionError
        self.statuses.append(answer.status)


def test_a_defect_in_giving_one_answer_takes_no_other(mixed_model: Path, tmp_path: Path) -> None:
    told = tmp_path / "log"

    async def gathered() -> list[Answered]:
        wanted = Settings(model=str(mixed_model))
        log = Log(os.open(told, os.O_CREAT | os.O_WRONLY))
        server = Server(App(Model(wanted), wanted), wanted, log)
        asked = [Answered(broken) for broken in (False, True, False)]
        for each in asked:
            server.gather(each, Request("POST", "/score", True, False, "", rows(ROW), 0.0))  # type: ignore[arg-type]
        await asyncio.sleep(0.1)
        log.close()
        return asked

    assert [each.statuses for each in asyncio.run(gathered())] == [[200], [], [200]]
    assert '"event":"defect","kind":"ZeroDivisionError"' in told.read_text()
