"""The model: an ONNX session, warmed up and measured before the first request."""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import onnxruntime

from edgeml.serving import signature, window
from edgeml.serving.refusal import Refusal
from edgeml.serving.settings import Settings, Unusable
from edgeml.serving.signature import ANY, Signature, Tensor

MODEL, SIGNATURE, CURVES, LINEAGE = "model.onnx", "signature.json", "curves.json", "lineage.json"
ROWS = (1, 64)  # of the two warm-up sizes, from which the cost of a call and of a row follow
Feed = Mapping[str, np.ndarray]


class Question(NamedTuple):
    """A request that was parsed and checked: what the model is fed, of how many rows, and what the answer needs."""

    feed: Feed
    rows: int
    asked: Any = None


class Model:
    """A loaded model under the name and version that it is served as.

    `call_seconds` and `row_seconds` are what a call and each of its rows took at the start.
    """

    def __init__(self, settings: Settings) -> None:
        path = _locate(settings.model)
        document = _beside(settings.model, SIGNATURE)
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
        self._scored = _scored(self.signature, document)
        curves = _beside(settings.model, CURVES) if self._scored else None
        self.window = window.of(curves, _beside(settings.model, LINEAGE))
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

    def count(self, answers: list[np.ndarray]) -> None:
        """Count what was answered to somebody, for the window of predictions."""
        if self._scored and self.window.expected:
            output, column = self._scored
            self.window.count(answers[output].reshape(len(answers[output]), -1)[:, column])

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


def _locate(path: str) -> str:
    """The ONNX file that a setting names."""
    if os.path.isfile(path):
        return path
    model = os.path.join(path, MODEL)
    if not os.path.isfile(model):
        raise Unusable(f"there is no {MODEL} in {path}; name the folder of a release, or an ONNX file")
    return model


def _beside(path: str, name: str) -> Any:
    """The content of a JSON file of a release's folder; None where there is none."""
    file = os.path.join(path, name)
    if not os.path.isfile(file):
        return None
    try:
        return json.loads(_read(file))
    except ValueError:
        raise Unusable(f"{file} is not valid JSON; take it from the release") from None


def _scored(found: Signature, document: Any) -> tuple[int, int] | None:
    """Which output, and which column of it, is the prediction of a row: the positive class's probability, or the value.

    None where the model gives no such thing for each row.
    """
    if not found.by_row:
        return None
    positive = str((document or {}).get("positive"))
    column, width = (found.classes.index(positive), len(found.classes)) if positive in found.classes else (0, 1)
    for output, tensor in enumerate(found.outputs):
        if tensor.datatype in ("FP32", "FP64") and (tensor.shape[1:] or (1,)) == (width,):
            return output, column
    return None


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
