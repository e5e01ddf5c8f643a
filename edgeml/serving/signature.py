"""What the model takes and gives, read from the ONNX file and held against the signature that was released with it."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

from edgeml.serving.settings import Unusable

ANY = -1  # a dimension of any size, as the Open Inference Protocol writes it


class Datatype(NamedTuple):
    """One element type by its three names."""

    onnx: str
    v2: str  # of the Open Inference Protocol
    numpy: str


DATATYPES = (
    Datatype("float", "FP32", "float32"),
    Datatype("double", "FP64", "float64"),
    Datatype("float16", "FP16", "float16"),
    Datatype("int8", "INT8", "int8"),
    Datatype("int16", "INT16", "int16"),
    Datatype("int32", "INT32", "int32"),
    Datatype("int64", "INT64", "int64"),
    Datatype("uint8", "UINT8", "uint8"),
    Datatype("uint16", "UINT16", "uint16"),
    Datatype("uint32", "UINT32", "uint32"),
    Datatype("uint64", "UINT64", "uint64"),
    Datatype("bool", "BOOL", "bool"),
    Datatype("string", "BYTES", "object"),
)
_BY_ONNX = {f"tensor({datatype.onnx})": datatype for datatype in DATATYPES}
_BY_RELEASE = {datatype.numpy if datatype.onnx != "string" else "string": datatype for datatype in DATATYPES}


class Argument(Protocol):
    """An input or output as onnxruntime describes it."""

    name: str
    type: str
    shape: Sequence[int | str | None]


@dataclass(frozen=True)
class Tensor:
    """An input or output of the model."""

    name: str
    datatype: str
    dtype: str
    shape: tuple[int, ...]


@dataclass(frozen=True)
class Column:
    """One value of a row as /score takes it: a feature, or a whole input of the model with the shape it has per row.

    `kind` is number, integer, boolean or string; `dtype` what the model is fed.
    """

    name: str
    kind: str
    dtype: str
    shape: tuple[int, ...] = ()


@dataclass(frozen=True)
class Signature:
    """`matrix`: the columns are those of the one input, and not an input each."""

    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]
    columns: tuple[Column, ...]
    classes: tuple[str, ...]
    matrix: bool

    @property
    def by_row(self) -> bool:
        """Whether the model takes rows and gives one answer for each, as /score needs it."""
        return all(tensor.shape and tensor.shape[0] == ANY for tensor in (*self.inputs, *self.outputs))


def of(inputs: Sequence[Argument], outputs: Sequence[Argument], document: Any) -> Signature:
    """The signature of a model. Raises Unusable where `document` (signature.json, or None) is that of another one."""
    taken, given = tuple(map(_tensor, inputs)), tuple(map(_tensor, outputs))
    features: list[tuple[str, str]] = []
    classes: tuple[str, ...] = ()
    if document is not None:
        try:
            for key, tensors in (("inputs", taken), ("outputs", given)):
                if [_released(port) for port in document[key]] != list(tensors):
                    raise Unusable(f"signature.json and model.onnx differ in their {key}; take both from one release")
            features = [(str(feature["name"]), str(feature["type"])) for feature in document.get("features", ())]
            classes = tuple(map(str, document.get("classes") or ()))
        except (KeyError, TypeError, AttributeError) as error:
            raise Unusable(f"signature.json is not of the known form ({error!r}); take it from the release") from None
    named = dict(features)
    if len(named) != len(features):
        raise Unusable("signature.json names a feature twice; take it from the release")
    width = _width(taken[0]) if len(taken) == 1 else 0
    if width and not features:  # nobody has named the columns: let their places do
        features = [(f"{taken[0].name}_{index}", _kind(taken[0])) for index in range(width)]
    matrix = width > 0 and len(features) == width
    if matrix:
        columns = tuple(Column(name, kind, taken[0].dtype) for name, kind in features)
    else:
        columns = tuple(
            Column(tensor.name, named.get(tensor.name, _kind(tensor)), tensor.dtype, _per_row(tensor))
            for tensor in taken
        )
    for column in columns:
        if column.kind not in ("number", "integer", "boolean", "string"):
            raise Unusable(f"signature.json gives {column.name} the unknown type {column.kind}")
        if (column.kind == "string") != (column.dtype == "object"):
            raise Unusable(f"signature.json calls {column.name} {column.kind}, but the model takes {column.dtype}")
    return Signature(taken, given, columns, classes, matrix)


def _tensor(argument: Argument) -> Tensor:
    datatype = _BY_ONNX.get(argument.type)
    if datatype is None:
        hint = "; export the model without ZipMap" if argument.type.startswith(("seq", "map")) else ""
        raise Unusable(f"{argument.name} is of type {argument.type}, which cannot be served{hint}")
    shape = tuple(size if isinstance(size, int) else ANY for size in argument.shape)
    return Tensor(argument.name, datatype.v2, datatype.numpy, shape)


def _released(port: Any) -> Tensor:
    datatype = _BY_RELEASE[port["dtype"]]
    return Tensor(port["name"], datatype.v2, datatype.numpy, tuple(ANY if n is None else n for n in port["shape"]))


def _width(tensor: Tensor) -> int:
    """The columns of a matrix of any number of rows; 0 if the tensor is something else."""
    return tensor.shape[1] if len(tensor.shape) == 2 and tensor.shape[0] == ANY and tensor.shape[1] > 1 else 0


def _per_row(tensor: Tensor) -> tuple[int, ...]:
    """What one row of an input looks like: a single value for (N,) and (N, 1), else the other dimensions."""
    return () if tensor.shape[1:] == (1,) else tensor.shape[1:]


def _kind(tensor: Tensor) -> str:
    if tensor.datatype in ("BYTES", "BOOL"):
        return {"BYTES": "string", "BOOL": "boolean"}[tensor.datatype]
    return "integer" if re.fullmatch("U?INT[0-9]+", tensor.datatype) else "number"
