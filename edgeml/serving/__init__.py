"""The scoring server: one released ONNX model behind HTTP, started as `python -m edgeml.serving`.

A room of its own: it imports the standard library, numpy, onnxruntime, msgspec, httptools and uvloop, and nothing else
of edgeml, because it is all of edgeml that the scoring image holds.

    run(settings, ready)   serve until SIGTERM or SIGINT

    settings.py    what the environment says, strictly read
    signature.py   what the model takes and gives: from the ONNX file, held against signature.json
    model.py       the session, warmed up and measured
    cells.py       JSON values of a tensor or column, as types that msgspec checks while it parses
    table.py       POST /score: named columns, rows or records in, predictions out
    protocol.py    the Open Inference Protocol (V2): tensors in, tensors out
    app.py         routes: method, path and body in, status and body out; knows nothing of sockets
    http.py        connections: parsing by llhttp, limits, deadlines, order of answers
    server.py      the listening socket, the clock, the graceful end
    metrics.py     counters in Prometheus' text format
    window.py      how often which prediction is given, told in full windows and never below k
    log.py         JSON lines on standard output, without any value of a request
    openapi.py     the OpenAPI document and the page at /
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from edgeml.serving.app import App
    from edgeml.serving.settings import Settings


def run(settings: Settings, ready: Callable[[App, str, int], None] | None = None) -> None:
    """Serve until SIGTERM or SIGINT; `ready` hears of the application, its host and its port. Raises Unusable."""
    began = time.perf_counter()
    import uvloop

    from edgeml.serving.app import App
    from edgeml.serving.log import Log
    from edgeml.serving.model import Model
    from edgeml.serving.server import Server, bind

    listening = bind(settings)
    app = App(Model(settings), settings)
    log = Log()

    def listens() -> None:
        host, port = listening.getsockname()[:2]
        model = {"name": app.model.name, "version": app.model.version, "sha256": app.model.sha256}
        log.add("ready", host=host, port=port, seconds=round(time.perf_counter() - began, 3), **model)
        log.flush()
        if ready is not None:
            ready(app, host, port)

    async def serve() -> None:
        await Server(app, settings, log).serve(listening, listens)

    uvloop.run(serve())
    log.close()
