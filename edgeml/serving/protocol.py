"""The Open Inference Protocol, version 2: POST /v2/models/{name}[/versions/{version}]/infer.

Tensors by name, each with its shape and datatype, `data` flat in row-major order or nested. Without extensions: no
binary tensor data. `parameters` are read and have no meaning here. Beyond the protocol, `null` stands for NaN in
tensors of floats, in both directions, because JSON has no NaN.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache
from typing import Annotated, Any

import msgspec
import numpy as np
from msgspec import Raw

from edgeml.serving import cells
from edgeml.serving.model import Model, Question
from edgeml.serving.refusal import Refusal
from edgeml.serving.signature import ANY, DATATYPES, Tensor
from edgeml.serving.window import GOLDEN

_NUMPY = {datatype.v2: datatype.numpy for datatype in DATATYPES}
_Size = Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)]


class _Input(msgspec.Struct, forbid_unknown_fields=True):
    name: str
    shape: list[_Size]
    datatype: str
    data: Raw
    parameters: dict[str, Any] | None = None


class _Output(msgspec.Struct, forbid_unknown_fields=True):
    name: str
    parameters: dict[str, Any] | None = None


class _Request(msgspec.Struct, forbid_unknown_fields=True):
    inputs: list[_Input]
    id: str | None = None
    outputs: list[_Output] | None = None
    parameters: dict[str, Any] | None = None


_REQUEST = msgspec.json.Decoder(_Request)
_ENCODER = msgspec.json.Encoder()


class Protocol:
    """The inference of one model."""

    def __init__(self, model: Model, most_rows: int) -> None:
        self._model = model
        self._most = most_rows
        self._inputs = {tensor.name: tensor for tensor in model.signature.inputs}
        self._outputs = {tensor.name: tensor for tensor in model.signature.outputs}
        self._usual = _usual_decoder(model.signature.inputs)

    def read(self, body: bytes) -> Question:
        """The question in a body. Raises Refusal."""
        request, feed, rows = self._usually(body) or self._any(body)
        return Question(feed, rows, (self._wanted(request), request.id))

    def answer(self, question: Question, found: list[np.ndarray]) -> bytes:
        """The answer to a question, of the model's outputs."""
        wanted, name = question.asked
        if name != GOLDEN:
            self._model.count(found)
        answers = dict(zip(self._outputs, found, strict=True))
        outputs = [
            {
                "name": output,
                "shape": answers[output].shape,
                "datatype": self._outputs[output].datatype,
                "data": answers[output].ravel().tolist(),
            }
            for output in wanted
        ]
        answer = {"model_name": self._model.name, "model_version": self._model.version}
        if name is not None:
            answer["id"] = name
        return _ENCODER.encode(answer | {"outputs": outputs})

    def metadata(self) -> dict[str, Any]:
        """The answer to GET /v2/models/{name}."""
        return {
            "name": self._model.name,
            "versions": [self._model.version],
            "platform": "onnx_onnxruntime",
            "inputs": [_told(tensor) for tensor in self._model.signature.inputs],
            "outputs": [_told(tensor) for tensor in self._model.signature.outputs],
        }

    def _usually(self, body: bytes) -> tuple[Any, dict[str, np.ndarray], int] | None:
        """As `_any`, for what nearly every client sends; None for anything else, also for what is wrong."""
        if self._usual is None:
            return None
        try:
            request = self._usual.decode(body)
        except ValueError:
            return None
        inputs, tensor = request.inputs, next(iter(self._inputs.values()))
        if [given.name for given in inputs] != list(self._inputs):
            return None
        shape, size = inputs[0].shape, len(inputs[0].data)
        rows = shape[0] if tensor.shape and tensor.shape[0] == ANY and shape else 1
        fits = _fits(shape, tensor) and size == math.prod(shape) > 0 and rows <= self._most
        alike = all(
            given.shape == shape and len(given.data) == size and given.datatype == tensor.datatype for given in inputs
        )
        if not (fits and alike):
            return None
        block = np.array([given.data for given in inputs], dtype=tensor.dtype)
        return request, dict(zip(self._inputs, block.reshape(len(inputs), *shape), strict=True)), rows

    def _any(self, body: bytes) -> tuple[_Request, dict[str, np.ndarray], int]:
        """The request in a body, what the model is fed, and the number of rows. Raises Refusal."""
        request = self.request(body)
        return request, *self.feed(request.inputs)

    def request(self, body: bytes) -> _Request:
        """The request in a body, its tensors unread. Raises Refusal."""
        try:
            return _REQUEST.decode(body)
        except msgspec.ValidationError as error:
            found, path = cells.split(error)
            raise Refusal(400, f"{found} at {path.lstrip('.') or 'the top'}", path.lstrip(".")) from None
        except cells.BROKEN as error:
            raise cells.broken(error) from None

    def _wanted(self, request: _Request) -> list[str]:
        if not request.outputs:
            return list(self._outputs)
        names = [output.name for output in request.outputs]
        for name in names:
            if name not in self._outputs:
                raise Refusal(400, f"the model has no output '{name[:64]}'", name[:64])
        return names

    def feed(self, inputs: list[_Input]) -> tuple[dict[str, np.ndarray], int]:
        """What the model is fed, and the number of rows. Raises Refusal naming the tensor."""
        feed: dict[str, np.ndarray] = {}
        rows = 0
        for given in inputs:
            tensor = self._inputs.get(given.name)
            if tensor is None:
                raise Refusal(400, f"the model has no input '{given.name[:64]}'", given.name[:64])
            if given.name in feed:
                raise Refusal(400, f"input '{given.name}' is given twice", given.name)
            feed[given.name] = self._array(given, tensor)
            if tensor.shape and tensor.shape[0] == ANY:
                if rows and given.shape[0] != rows:
                    raise Refusal(
                        400, f"input '{given.name}' has {given.shape[0]} rows, others have {rows}", given.name
                    )
                rows = given.shape[0]
        for name in self._inputs:
            if name not in feed:
                raise Refusal(400, f"input '{name}' is missing", name)
        return feed, rows or 1

    def _array(self, given: _Input, tensor: Tensor) -> np.ndarray:
        name, shape = given.name, given.shape
        if given.datatype != tensor.datatype:
            raise Refusal(400, f"input '{name}' must be of datatype {tensor.datatype}", name)
        if not _fits(shape, tensor):
            raise Refusal(400, f"input '{name}' must be of shape {list(tensor.shape)}, -1 meaning any size", name)
        if 0 in shape:
            raise Refusal(400, f"input '{name}' is empty; give at least one row", name)
        if shape and tensor.shape[0] == ANY and shape[0] > self._most:
            raise Refusal(413, f"input '{name}' has more than {self._most} rows; send them in parts", name)
        nested = bytes(memoryview(given.data)[:64]).lstrip(b" \t\r\n")[1:].lstrip(b" \t\r\n")[:1] == b"["
        try:
            values = _decoder(given.datatype, len(shape) if nested else 1).decode(given.data)
            made = cells.array(values, tensor.dtype)
        except msgspec.ValidationError as error:
            found, path = cells.split(error)
            raise Refusal(400, f"input '{name}': {found} at data{path}", name) from None
        except (ValueError, OverflowError):  # also msgspec's DecodeError, which cannot be: the body was parsed already
            raise Refusal(400, f"input '{name}' has data that does not fit its shape", name) from None
        if list(made.shape) != shape if nested else made.size != math.prod(shape):
            raise Refusal(400, f"input '{name}' has data that does not fit its shape {shape}", name)
        return made.reshape(shape)


def _fits(shape: list[int], tensor: Tensor) -> bool:
    return len(shape) == len(tensor.shape) and all(
        size in (ANY, found) for size, found in zip(tensor.shape, shape, strict=True)
    )


def _usual_decoder(inputs: Sequence[Tensor]) -> msgspec.json.Decoder[Any] | None:
    """For floats of one datatype and shape, each with flat data: parsed at once, not tensor by tensor."""
    first = inputs[0]
    if not first.datatype.startswith("FP") or {(each.datatype, each.shape) for each in inputs} != {
        (first.datatype, first.shape)
    }:
        return None
    numbers = list[cells.of_dtype(first.dtype) | None]  # type: ignore[misc, valid-type]
    unused = ("parameters", dict[str, Any] | None, None)
    tensor = msgspec.defstruct(
        "UsualInput",
        [("name", str), ("shape", list[_Size]), ("datatype", str), ("data", numbers), unused],
        forbid_unknown_fields=True,
    )
    request = msgspec.defstruct(
        "UsualRequest",
        [
            ("inputs", list[tensor]),  # type: ignore[valid-type]
            ("id", str | None, None),
            ("outputs", list[_Output] | None, None),
            unused,
        ],
        forbid_unknown_fields=True,
    )
    return msgspec.json.Decoder(request)


def _told(tensor: Tensor) -> dict[str, Any]:
    return {"name": tensor.name, "datatype": tensor.datatype, "shape": list(tensor.shape)}


@lru_cache(maxsize=128)  # datatypes of this model, by the ranks of its inputs
def _decoder(datatype: str, depth: int) -> msgspec.json.Decoder[Any]:
    cell = cells.of_dtype(_NUMPY[datatype])
    cell = cell | None if datatype.startswith("FP") else cell
    for _ in range(depth):
        cell = list[cell]  # type: ignore[valid-type]
    return msgspec.json.Decoder(cell)
