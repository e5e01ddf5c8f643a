"""The scoring server: one released ONNX model behind HTTP, started as `python -m edgeml.serving`.

A room of its own: it imports the standard library, numpy, onnxruntime, msgspec, httptools and uvloop, and nothing else
of edgeml, because it is all of edgeml that the scoring image holds.

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
    log.py         JSON lines on standard output, without any value of a request
    openapi.py     the OpenAPI document and the page at /
"""
