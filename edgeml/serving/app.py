"""Routes: what is asked by method, path and body, and answered by status and body. Knows nothing of sockets."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import msgspec
import numpy as np

from edgeml.serving import metrics, openapi
from edgeml.serving.model import Model, Question
from edgeml.serving.protocol import Protocol
from edgeml.serving.refusal import Refusal
from edgeml.serving.settings import Settings
from edgeml.serving.table import Table

JSON = "application/json"
INLINE_SECONDS = 0.002  # what the event loop may spend on one request; a thread's hand-over costs a twentieth of it
INLINE_BYTES = 32 << 10  # a body that takes about half a millisecond to parse
_ENCODER = msgspec.json.Encoder()


class Answer(NamedTuple):
    """`route` names the kind of request in metrics and log; `headers` are complete lines."""

    status: int
    body: bytes
    content_type: str = JSON
    route: str = "other"
    rows: int = 0
    field: str = ""
    headers: str = ""


class Route(NamedTuple):
    """What answers to a path: `scoring` reads a request and writes the model's outputs; without it, `answer` does."""

    method: str
    name: str
    answer: Callable[[bytes], Answer] | None = None
    scoring: Table | Protocol | None = None


class App:
    """The application over one model; `ready` turns false when the server is asked to end."""

    def __init__(self, model: Model, settings: Settings) -> None:
        self.model = model
        self.metrics = metrics.Metrics()
        self.ready = True
        self._table = Table(model, settings.rows)
        self._protocol = Protocol(model, settings.rows)
        self._settings = settings
        self._fields = {tensor.name for tensor in model.signature.inputs}
        self._fields |= {column.name for column in model.signature.columns}
        self._routes = self._paths()
        self._document = b""
        self.light_bytes = _light_bytes(model)

    def answer(self, method: str, path: str, body: bytes) -> Answer:
        """The answer to a request; never raises."""
        return self.answers([(method, path, body)])[0]

    def answers(self, requests: Sequence[tuple[str, str, bytes]]) -> list[Answer]:
        """The answers to requests that came together, each as if it had come alone; never raises.

        All are parsed, then the model is called for each, then all answers are written: each of these is about as much
        code as a processor's first cache holds, and one request after the other would load it anew each time.
        """
        found: dict[int, Answer] = {}
        read: list[tuple[int, Route, Question]] = []
        for index, (method, path, body) in enumerate(requests):
            route = self._routes.get(path)
            if route is None or (method != route.method and not (method == "HEAD" and route.method == "GET")):
                found[index] = _misdirected(route)
                continue
            try:
                if route.scoring is not None:
                    read.append((index, route, route.scoring.read(body)))
                elif route.answer is not None:
                    found[index] = route.answer(body)
            except Exception as error:
                found[index] = self._failed(error, route)
        ran: list[tuple[int, Route, Question, list[np.ndarray]]] = []
        for index, route, question in read:
            try:
                ran.append((index, route, question, self.model.run(question.feed)))
            except Exception as error:
                found[index] = self._failed(error, route)
        for index, route, question, outputs in ran:
            try:
                body = route.scoring.answer(question, outputs)  # type: ignore[union-attr]
                found[index] = Answer(200, body, JSON, route.name, question.rows)
            except Exception as error:
                found[index] = self._failed(error, route)
        return [found[index] for index in range(len(requests))]

    def _failed(self, error: Exception, route: Route) -> Answer:
        if isinstance(error, Refusal):
            return refused(error, route.name, error.field if error.field in self._fields else "")
        # A defect of ours; told by its type, because its text may quote a value.
        return refused(Refusal(500, f"the server failed ({type(error).__name__})"), route.name)

    def _paths(self) -> dict[str, Route]:
        infer = Route("POST", "infer", scoring=self._protocol)
        model = Route("GET", "metadata", lambda body: _json(self._protocol.metadata(), "metadata"))
        ready = Route("GET", "health", self._model_ready)
        paths = {
            "/": Route("GET", "page", self._page),
            "/score": Route("POST", "score", scoring=self._table),
            "/metrics": Route("GET", "metrics", self._metrics),
            "/openapi.json": Route("GET", "openapi", self._openapi),
            "/v2": Route("GET", "metadata", self._server),
            "/v2/": Route("GET", "metadata", self._server),
            "/v2/health/live": Route("GET", "health", lambda body: _json({"live": True}, "health")),
            "/v2/health/ready": Route("GET", "health", self._server_ready),
        }
        for base in (
            f"/v2/models/{self.model.name}",
            f"/v2/models/{self.model.name}/versions/{self.model.version}",
        ):
            paths |= {base: model, f"{base}/ready": ready, f"{base}/infer": infer}
        return paths

    def _server(self, body: bytes) -> Answer:
        from edgeml import __version__

        return _json({"name": "edgeml", "version": __version__, "extensions": []}, "metadata")

    def _server_ready(self, body: bytes) -> Answer:
        return _json({"ready": self.ready}, "health", 200 if self.ready else 503)

    def _model_ready(self, body: bytes) -> Answer:
        return _json({"name": self.model.name, "ready": self.ready}, "health", 200 if self.ready else 503)

    def _metrics(self, body: bytes) -> Answer:
        info = {"name": self.model.name, "version": self.model.version, "sha256": self.model.sha256}
        return Answer(200, self.metrics.text(info, self.model.window).encode(), metrics.CONTENT_TYPE, "metrics")

    def _openapi(self, body: bytes) -> Answer:
        if not self._document:
            self._document = _ENCODER.encode(openapi.document(self.model, self._settings))
        return Answer(200, self._document, JSON, "openapi")

    def _page(self, body: bytes) -> Answer:
        page, policy = openapi.page(self.model)
        headers = f"content-security-policy: {policy}\r\nx-content-type-options: nosniff\r\n"
        return Answer(200, page, "text/html; charset=utf-8", "page", headers=headers)


def _light_bytes(model: Model) -> int:
    """The longest body that the event loop works on itself, judged by what the model took at the start.

    A value takes two bytes at least, which bounds the rows of a body.
    """
    left = INLINE_SECONDS - model.call_seconds
    if left <= 0:
        return 0
    rows = left / max(model.row_seconds, 1e-9)
    return int(min(INLINE_BYTES, 2 * rows * max(1, len(model.signature.columns))))


def _misdirected(route: Route | None) -> Answer:
    if route is None:
        return refused(Refusal(404, "there is nothing at this path; GET /openapi.json lists what there is"))
    allowed = "GET, HEAD" if route.method == "GET" else route.method
    answer = refused(Refusal(405, f"this path answers to {allowed}"), route.name)
    return answer._replace(headers=f"allow: {allowed}\r\n")


def refused(refusal: Refusal, route: str = "other", field: str = "") -> Answer:
    """A refusal as the protocol's error object, with the field at fault where there is one."""
    told: dict[str, Any] = {"error": refusal.message}
    if refusal.field:
        told["field"] = refusal.field
    headers = "retry-after: 1\r\n" if refusal.status == 503 else ""
    return Answer(refusal.status, _ENCODER.encode(told), JSON, route, 0, field, headers)


def _json(content: dict[str, Any], route: str, status: int = 200) -> Answer:
    return Answer(status, _ENCODER.encode(content), JSON, route)
