"""The Open Inference Protocol, version 2: POST /v2/models/{name}[/versions/{version}]/infer.

Tensors by name, each with its shape and datatype, `data` flat in row-major order or nested. Without extensions: no
binary tensor data. `parameters` are read and have no meaning here. Beyond the protocol, `null` stands for NaN in
tensors of floats, in both directions, because JSON has no NaN.
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Annotated, Any

import msgspec
import numpy as np
from msgspec import Raw

from edgeml.serving import cells
from edgeml.serving.model import Model
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

    def infer(self, body: bytes) -> tuple[bytes, int]:
        """The answer to a request, and its rows. Raises Refusal."""
        request = self.request(body)
        wanted = self._wanted(request)
        feed, rows = self.feed(request.inputs)
        found = self._model.run(feed)
        if request.id != GOLDEN:
            self._model.count(found)
        answers = dict(zip(self._outputs, found, strict=True))
        outputs = [
            {
                "name": name,
                "shape": answers[name].shape,
                "datatype": self._outputs[name].datatype,
                "data": answers[name].ravel().tolist(),
            }
            for name in wanted
        ]
        answer = {"model_name": self._model.name, "model_version": self._model.version}
        if request.id is not None:
            answer["id"] = request.id
        return _ENCODER.encode(answer | {"outputs": outputs}), rows

    def metadata(self) -> dict[str, Any]:
        """The answer to GET /v2/models/{name}."""
        return {
            "name": self._model.name,
            "versions": [self._model.version],
            "platform": "onnx_onnxruntime",
            "inputs": [_told(tensor) for tensor in self._model.signature.inputs],
            "outputs": [_told(tensor) for tensor in self._model.signature.outputs],
        }

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
        if len(shape) != len(tensor.shape) or any(
            size not in (ANY, found) for size, found in zip(tensor.shape, shape, strict=True)
        ):
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


def _told(tensor: Tensor) -> dict[str, Any]:
    return {"name": tensor.name, "datatype": tensor.datatype, "shape": list(tensor.shape)}


@lru_cache(maxsize=128)  # datatypes of this model, by the ranks of its inputs
def _decoder(datatype: str, depth: int) -> msgspec.json.Decoder[Any]:
    cell = cells.of_dtype(_NUMPY[datatype])
    cell = cell | None if datatype.startswith("FP") else cell
    for _ in range(depth):
        cell = list[cell]  # type: ignore[valid-type]
    return msgspec.json.Decoder(cell)
