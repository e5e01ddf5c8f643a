"""One connection: requests parsed by llhttp, held to limits and deadlines, answered in their order.

A connection that has done wrong, or that the server closes, is closed lingering: the answer is written, the sending
side shut, and what the client still sends is read and thrown away for a while. Closed at once, the kernel would reset
the connection, and the client might never see its answer.
"""

from __future__ import annotations

import asyncio
import math
import re
from collections import deque
from http import HTTPStatus
from time import perf_counter
from typing import TYPE_CHECKING, NamedTuple, cast

import httptools

from edgeml.serving.app import Answer, refused
from edgeml.serving.refusal import Refusal

if TYPE_CHECKING:
    from edgeml.serving.server import Server

HEAD_BYTES = 16 << 10  # of a request line and its headers
LINGER_SECONDS = 5
FRESH_SECONDS = 1  # between a connection and its first request; so long it is not closed as idle
_REQUEST_ID = re.compile(rb"[A-Za-z0-9_.-]{1,64}")
_LINES = {status.value: f"HTTP/1.1 {status.value} {status.phrase}\r\n" for status in HTTPStatus}
_LENGTHS = frozenset(map(len, ("content-length", "transfer-encoding", "expect", "content-encoding", "x-request-id")))
_END = b"\r\n\r\n"  # of a head
_CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"


class Request(NamedTuple):
    method: str
    path: str
    keep: bool
    old: bool  # HTTP/1.0, which must be told that the connection is kept
    id: str
    body: bytes
    arrived: float
    refusal: Refusal | None = None


class Connection(asyncio.Protocol):
    """Reads on the event loop. Light requests are worked on in the server's next round, a heavy one by a thread, with
    no other of its connection beside it; `_waiting` are those behind it.

    Most clients send the same head again and again, so that llhttp need not read what it has read: `_head_before` are
    the bytes of the last head, and `_like` what they said. Only a message that came alone and whole is compared, with
    a head that gave its body's length, and only at the start of a message.
    """

    def __init__(self, server: Server) -> None:
        self._server = server
        self._parser = httptools.HttpRequestParser(self)
        self._transport: asyncio.Transport = None  # type: ignore[assignment]
        self._waiting: deque[Request] = deque()
        self.deadline = math.inf
        self.working = 0  # requests whose answers are to come
        self._alone = False  # one of them, by a thread
        self._fresh_until = math.inf
        self.closing = False  # the last answer was given
        self._deaf = False  # what comes in is thrown away
        self._ended = False  # the client sends no more
        self._stalled = False  # the client does not take its answers
        self._in_head = False
        self._data = b""  # what llhttp was given last, if a message began with it
        self._head_before, self._whole = b"", -1
        self._like: tuple[str, str, bool, bool, str] = ("", "", False, False, "")
        self._reset()

    def _reset(self) -> None:
        self._url = b""
        self._body: list[bytes] = []
        self._size = 0
        self._head = 0
        self._length = 0
        self._chunked = False
        self._expects = False
        self._encoded = False
        self._id = b""
        self._refusal: Refusal | None = None

    @property
    def idle(self) -> bool:
        """Between two requests, with nothing to answer."""
        return not (self.working or self._in_head or self._size or self._url or self._stalled)

    # ---- asyncio ----

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)  # uvloop's is one without saying so
        self._fresh_until = self._server.now + FRESH_SECONDS
        self.deadline = self._server.now + self._server.settings.request_seconds
        self._server.opened(self)
        if len(self._server.connections) > self._server.settings.connections:
            if len(self._server.connections) > 2 * self._server.settings.connections:
                self._transport.abort()
            else:
                self._refuse(Refusal(503, "the server has as many connections as it may; try again"))

    def connection_lost(self, error: Exception | None) -> None:
        self.closing = True
        self._release()
        for request in self._waiting:
            self._server.buffered -= len(request.body)
        self._waiting.clear()
        self._server.closed(self)

    def eof_received(self) -> bool:
        """Whether to keep the other direction open: an answer is still to be written."""
        self._ended = True
        return self.working > 0

    def data_received(self, data: bytes) -> None:
        if self._deaf:
            return
        between = not (self._in_head or self._url)
        if between and len(data) == self._whole and data.startswith(self._head_before):
            body = data[len(self._head_before) :]
            if self._server.buffered + len(body) <= self._server.settings.buffer_bytes:
                self._server.buffered += len(body)
                self._take(Request(*self._like, body, perf_counter()))
                return
        self._data = data if between else b""
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade as upgrade:
            self._ignore_upgrade(data[upgrade.args[0] :])
            return
        except httptools.HttpParserCallbackError:
            raise  # a defect of ours, not of the request
        except httptools.HttpParserError:
            self._refuse(self._refusal or Refusal(400, "this is no valid HTTP request"))
            return
        if self._refusal is not None and not self._deaf:
            self._refuse(self._refusal)
        elif self._in_head:
            self._head += len(data)
            if self._head > HEAD_BYTES:
                self._refuse(Refusal(431, f"the headers are longer than {HEAD_BYTES} bytes"))

    def _ignore_upgrade(self, rest: bytes) -> None:
        """Go on in HTTP/1.1 with a request that offered another protocol, as Java's client does with each first one.

        llhttp takes what follows such a head for the other protocol; one that has not seen the offer reads the body.
        """
        if self._refusal is not None:
            self._refuse(self._refusal)
            return
        head = self._parser.get_method() + b" " + self._url + b" HTTP/1.1\r\n"
        if self._chunked:
            head += b"transfer-encoding: chunked\r\n"
        elif self._length:
            head += b"content-length: %d\r\n" % self._length
        if self._id:
            head += b"x-request-id: " + self._id + b"\r\n"
        self._parser = httptools.HttpRequestParser(self)
        self._reset()
        self.data_received(head + b"\r\n" + rest)

    def pause_writing(self) -> None:
        self._stalled = True
        self._transport.pause_reading()
        self.deadline = self._server.now + self._server.settings.request_seconds

    def resume_writing(self) -> None:
        self._stalled = False
        self.deadline = self._server.now + self._server.settings.idle_seconds
        if not self._alone:
            self._transport.resume_reading()

    # ---- llhttp ----

    def on_message_begin(self) -> None:
        self._in_head = True
        if not self.working:
            self.deadline = self._server.now + self._server.settings.request_seconds

    def on_url(self, part: bytes) -> None:
        self._url += part

    def on_header(self, name: bytes, value: bytes) -> None:
        self._head += len(name) + len(value) + 4  # colon, space and the end of the line
        if len(name) not in _LENGTHS:
            return
        match name.lower():
            case b"content-length":
                self._length = int(value)  # llhttp has refused what is no number
            case b"transfer-encoding":
                self._chunked = True  # llhttp has refused any other
            case b"expect":
                self._expects = value.lower() == b"100-continue"
            case b"content-encoding":
                self._encoded = value.lower() not in (b"", b"identity")
            case b"x-request-id":
                self._id = value

    def on_headers_complete(self) -> None:
        self._in_head = False
        if self._head + len(self._url) > HEAD_BYTES:
            self._refusal = Refusal(431, f"the headers are longer than {HEAD_BYTES} bytes")
        elif self._length > self._server.settings.body_bytes:
            self._refusal = self._too_large()
        elif self._encoded:
            self._refusal = Refusal(415, "the body must not be compressed")
        elif self._parser.get_method() == b"CONNECT":
            self._refusal = Refusal(400, "this server is no proxy")
        elif self._expects and not (self.working or self.closing):
            self._transport.write(_CONTINUE)

    def on_body(self, part: bytes) -> None:
        if self._refusal is not None or self._deaf:
            return
        self._size += len(part)
        self._server.buffered += len(part)
        self._body.append(part)
        if self._size > self._server.settings.body_bytes:
            self._refusal = self._too_large()
        elif self._server.buffered > self._server.settings.buffer_bytes:
            self._refusal = Refusal(503, "the server holds as many bodies as it may; try again")

    def on_message_complete(self) -> None:
        if self._refusal is not None or self._deaf or self._parser.should_upgrade():
            return
        body = self._body[0] if len(self._body) == 1 else b"".join(self._body)
        self._like = (
            self._parser.get_method().decode("ascii"),
            self._url.partition(b"?")[0].decode("latin-1"),
            self._parser.should_keep_alive(),
            self._parser.get_http_version() == "1.0",
            self._id.decode() if _REQUEST_ID.fullmatch(self._id) else "",
        )
        self._remember(len(body))
        self._reset()
        self._take(Request(*self._like, body, perf_counter()))

    def _remember(self, size: int) -> None:
        """Keep the head of a message that was all of what came, if a message of the same bytes means the same."""
        data, self._data = self._data, b""
        head = len(data) - size
        alone = head > 0 and data.find(_END) == head - len(_END)
        self._head_before, self._whole = (data[:head], len(data)) if alone else (b"", -1)

    # ---- answers ----

    def _take(self, request: Request) -> None:
        if self._waiting or not self._may_begin(request):
            self._waiting.append(request)
        else:
            self._begin(request)

    def _may_begin(self, request: Request) -> bool:
        return not self.working or (self._light(request) and not self._alone)

    def _light(self, request: Request) -> bool:
        """Whether the event loop works on a request itself."""
        light = request.method != "POST" or len(request.body) <= self._server.app.light_bytes
        return light and request.refusal is None

    def _begin(self, request: Request) -> None:
        if request.refusal is not None:
            self._last(request, refused(request.refusal))
            return
        self.working += 1
        if self._light(request):
            self._server.gather(self, request)
            return
        self._alone = True
        self.deadline = math.inf
        self._transport.pause_reading()
        work = self._server.submit(self._server.app.answer, request.method, request.path, request.body)
        work.add_done_callback(lambda done: self.worked(request, done.result()))

    def worked(self, request: Request, answer: Answer) -> None:
        """Write an answer, and begin with what has waited for it."""
        self.working -= 1
        if self.closing or self._transport.is_closing():
            self._server.buffered -= len(request.body)
            return
        self._write(request, answer)
        paused, self._alone = self._alone, False
        while self._waiting and not self.closing and self._may_begin(self._waiting[0]):
            self._begin(self._waiting.popleft())
        if paused and not self._alone and not self._stalled and not self.closing:
            self._transport.resume_reading()

    def _write(self, request: Request, answer: Answer) -> None:
        keep = request.keep and not self._server.draining and not self._ended
        self._send(request, answer, keep)
        self._fresh_until = 0.0
        self.deadline = self._server.now + self._server.settings.idle_seconds
        if not keep:
            self._linger()

    def _send(self, request: Request, answer: Answer, keep: bool) -> None:
        self._server.buffered -= len(request.body)
        more = answer.headers
        if request.id:
            more += f"x-request-id: {request.id}\r\n"
        if not keep:
            more += "connection: close\r\n"
        elif request.old:
            more += "connection: keep-alive\r\n"
        head = (
            f"{_LINES[answer.status]}{self._server.date}content-type: {answer.content_type}\r\n"
            f"content-length: {len(answer.body)}\r\n{more}\r\n"
        )
        self._transport.write(head.encode() if request.method == "HEAD" else head.encode() + answer.body)
        self._server.answered(request, answer, perf_counter() - request.arrived)

    def _refuse(self, refusal: Refusal) -> None:
        """Answer what is no whole request, after those before it, and close."""
        self._release()
        self._reset()
        self._in_head = False
        self._deaf = True
        self._take(Request("", "", False, False, "", b"", perf_counter(), refusal))

    def _last(self, request: Request, answer: Answer) -> None:
        self._send(request, answer, keep=False)
        self._linger()

    def _release(self) -> None:
        """Give back the part of the buffer that an unfinished body holds."""
        self._server.buffered -= self._size
        self._size = 0
        self._body = []

    def _too_large(self) -> Refusal:
        return Refusal(413, f"the body is larger than {self._server.settings.body_bytes} bytes; send the rows in parts")

    def _linger(self) -> None:
        self.closing = self._deaf = True
        for request in self._waiting:
            self._server.buffered -= len(request.body)
        self._waiting.clear()
        self.deadline = self._server.now + LINGER_SECONDS
        if self._ended or not self._transport.can_write_eof():
            self._transport.close()
            return
        self._transport.write_eof()
        self._transport.resume_reading()

    # ---- the clock, and the end ----

    def expired(self) -> None:
        """Called once the deadline has passed."""
        if self.closing or self._stalled:
            self._transport.abort()
        elif self.working:
            return  # its answer comes with the next round
        elif self.idle:
            self._linger()
        else:
            self._refuse(Refusal(408, "the request did not arrive in time"))

    def finish(self) -> None:
        """No request will come that could be answered: close if none is in progress."""
        if self.idle and not self.closing and self._server.now >= self._fresh_until:
            self._linger()

    def drop(self) -> None:
        self._transport.abort()
