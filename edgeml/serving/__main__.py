"""A stand-in until the scoring server is merged: health and inference of the Open Inference Protocol, no more."""

from __future__ import annotations

import json
import os
import signal
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import numpy as np
import onnxruntime

TYPES = {"FP32": "float32", "FP64": "float64", "INT64": "int64", "BYTES": "object"}
SESSION = onnxruntime.InferenceSession(os.path.join(os.environ.get("EDGEML_SERVE_MODEL", "/model"), "model.onnx"))


class Handler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self._answer(200 if self.path == "/v2/health/ready" else 404, {})

    def do_POST(self) -> None:
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if self.path == "/score":
            asked = asked["input_data"]
            rows = [list(column) for column in zip(*asked["data"], strict=True)]
            columns = dict(zip(asked["columns"], rows, strict=True))
            feeds = {i.name: np.array(columns[i.name], "float32").reshape(-1, 1) for i in SESSION.get_inputs()}
        else:
            feeds = {i["name"]: np.array(i["data"], TYPES[i["datatype"]]).reshape(i["shape"]) for i in asked["inputs"]}
        names = [port.name for port in SESSION.get_outputs()]
        answers = [np.asarray(answer) for answer in SESSION.run(None, feeds)]
        outputs = [
            {"name": name, "shape": list(answer.shape), "datatype": "FP32", "data": answer.ravel().tolist()}
            for name, answer in zip(names, answers, strict=True)
        ]
        self._answer(200, {"model_name": "model", "outputs": outputs})

    def _answer(self, code: int, document: Any) -> None:
        body = json.dumps(document).encode()
        self.send_response(code)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *unused: object) -> None: ...


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    address = (os.environ.get("EDGEML_SERVE_HOST", "0.0.0.0"), int(os.environ.get("EDGEML_SERVE_PORT", "8080")))  # noqa: S104
    ThreadingHTTPServer(address, Handler).serve_forever()
