"""The model: an ONNX session, warmed up and measured before the first request."""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Mapping
from typing import Any

import numpy as np
import onnxruntime

from edgeml.serving import signature
from edgeml.serving.refusal import Refusal
from edgeml.serving.settings import Settings, Unusable
from edgeml.serving.signature import ANY, Signature, Tensor

MODEL, SIGNATURE = "model.onnx", "signature.json"
ROWS = (1, 64)  # of the two warm-up sizes, from which the cost of a call and of a row follow
Feed = Mapping[str, np.ndarray]


class Model:
    """A loaded model under the name and version that it is served as.

    `call_seconds` and `row_seconds` are what a call and each of its rows took at the start.
    """

    def __init__(self, settings: Settings) -> None:
        path, document = _locate(settings.model)
        data = _read(path)
        self.name = settings.name
        self.sha256 = hashlib.sha256(data).hexdigest()
        self.version = settings.version or self.sha256[:12]
        self.bytes = len(data)
        self._session = _session(path, data, settings.threads)
        self.signature: Signature = signature.of(self._session.get_inputs(), self._session.get_outputs(), document)
        # InferenceSession.run looks for each input's name anew in each call, which costs a small model of many inputs
        # as much as its own work; here all are checked already. The version of onnxruntime is pinned.
        self._run = self._session._sess.run
        self._outputs = [tensor.name for tensor in self.signature.outputs]
        self.call_seconds, self.row_seconds = self._warm_up()

    def run(self, feed: Feed) -> list[np.ndarray]:
        """All outputs, in the signature's order, of inputs whose types and shapes are right.

        Raises Refusal where the model itself does not take these values; what onnxruntime says of them may quote them.
        """
        try:
            answers: list[np.ndarray] = self._run(self._outputs, feed, None)
        except (_INVALID, _RUNTIME):
            raise Refusal(400, "the model cannot compute with these values; compare them with its signature") from None
        return answers

    def _warm_up(self) -> tuple[float, float]:
        """Run the model on neutral rows, so that nobody waits for its first allocation."""
        took = []
        for rows in ROWS if self.signature.by_row else ROWS[:1]:
            feed = {tensor.name: _neutral(tensor, rows) for tensor in self.signature.inputs}
            try:
                runs = []
                for _ in range(3):
                    began = time.perf_counter()
                    self._run(self._outputs, feed, None)
                    runs.append(time.perf_counter() - began)
            except (_INVALID, _RUNTIME):
                return 0.0, 0.0  # zeros need not be an input that every model can compute with
            took.append(min(runs))
        return took[0], max(0.0, took[-1] - took[0]) / (ROWS[-1] - ROWS[0])


def _locate(path: str) -> tuple[str, Any]:
    """The ONNX file that a setting names, and the content of the signature beside it."""
    if os.path.isfile(path):
        return path, None
    model, beside = os.path.join(path, MODEL), os.path.join(path, SIGNATURE)
    if not os.path.isfile(model):
        raise Unusable(f"there is no {MODEL} in {path}; name the folder of a release, or an ONNX file")
    if not os.path.isfile(beside):
        return model, None
    try:
        return model, json.loads(_read(beside))
    except ValueError:
        raise Unusable(f"{beside} is not valid JSON; take it from the release") from None


def _read(path: str) -> bytes:
    try:
        with open(path, "rb") as file:
            return file.read()
    except OSError as error:
        raise Unusable(f"{path} cannot be read: {error.strerror}; let the server's user read it") from None


def _session(path: str, data: bytes, threads: int) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 4  # what it says of an input may quote it
    options.enable_cpu_mem_arena = True  # it keeps the largest batch's memory for ever, and is no faster here
    try:
        return onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime has no common class; whatever it is, there is nothing to serve
        raise Unusable(f"{path} is no model that onnxruntime can load ({type(error).__name__})") from None


def _neutral(tensor: Tensor, rows: int) -> np.ndarray:
    shape = [rows if index == 0 and size == ANY else abs(size) for index, size in enumerate(tensor.shape)]
    return np.full(shape, "", dtype=object) if tensor.dtype == "object" else np.zeros(shape, dtype=tensor.dtype)


_INVALID = onnxruntime.capi.onnxruntime_pybind11_state.InvalidArgument
_RUNTIME = onnxruntime.capi.onnxruntime_pybind11_state.RuntimeException
