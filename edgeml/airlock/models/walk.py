"""Every place of an ONNX file where bytes can hide: numbers, texts and strings, wherever they lie.

The walk follows the protobuf description and not a list of fields, so that a field which nobody thought of
is read too: attributes, initializers, sparse tensors, subgraphs, function bodies, training graphs, shapes,
names and metadata. A place is told by positions and by the names that ONNX itself defines, never by the
names that the file gives, which could hold a private value.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import onnx
from onnx import numpy_helper

LARGEST = 1 << 28  # bytes of a model
MESSAGES = 1_000_000
TENSOR_DATA = ("float_data", "int32_data", "string_data", "int64_data", "raw_data", "double_data", "uint64_data")
Array = np.ndarray[Any, Any]


class Unreadable(Exception):  # noqa: N818 - a refusal is a decision, not an error
    """The bytes are no model that can be examined; the text says why in a few words."""


class Place(NamedTuple):
    """Where numbers (`array`) or texts (`strings`) lie. `op` is the operator, `role` the attribute or field."""

    where: str
    role: str
    op: str
    array: Array | None = None
    strings: tuple[str, ...] = ()


def parse(data: bytes) -> Any:
    """The model, or Unreadable: too large, no protobuf, no graph, or bytes that ONNX does not define."""
    if len(data) > LARGEST:
        raise Unreadable(f"is larger than {LARGEST >> 20} MiB")
    model = onnx.ModelProto()
    try:
        model.ParseFromString(data)
    except Exception:  # protobuf's DecodeError quotes the bytes
        raise Unreadable("is not an ONNX model") from None
    if not model.HasField("graph"):
        raise Unreadable("has no graph")
    size = model.ByteSize()
    bare = onnx.ModelProto()
    bare.CopyFrom(model)
    bare.DiscardUnknownFields()
    if bare.ByteSize() != size or size != len(data):
        raise Unreadable("holds bytes that ONNX does not define")
    for number, _ in enumerate(messages(model)):
        if number > MESSAGES:
            raise Unreadable(f"has more than {MESSAGES} parts")
    return model


def messages(message: Any) -> Iterator[Any]:
    """A protobuf message and all messages within it."""
    yield message
    for descriptor, value in message.ListFields():
        if descriptor.message_type is not None:
            for child in [value] if hasattr(value, "ListFields") else value:
                yield from messages(child)


def places(model: Any) -> Iterator[Place]:
    """Every array and every text of a model; a tensor that cannot be decoded gives its raw bytes."""
    yield from _walk(model, "model", "", "")
    sizes = [m.dim_value for m in messages(model) if isinstance(m, onnx.TensorShapeProto.Dimension) and m.dim_value]
    if sizes:
        yield Place("shapes", "dims", "", np.array(sizes, dtype=np.int64))


def _walk(message: Any, where: str, op: str, role: str) -> Iterator[Place]:
    if isinstance(message, onnx.TensorProto):
        yield from _tensor(message, where, op, role)
        return
    if isinstance(message, onnx.NodeProto):
        op = operator(message)
        where = f"{where} ({op})"
    if isinstance(message, onnx.AttributeProto):
        role = attribute_name(message.name, op)
    for descriptor, value in message.ListFields():
        name = descriptor.name
        if descriptor.message_type is not None:
            if hasattr(value, "ListFields"):
                yield from _walk(value, f"{where} {name}", op, role or name)
            else:
                for index, child in enumerate(value):
                    short = role if isinstance(message, onnx.AttributeProto) else name
                    place = f"{where} {short} {index}"
                    if isinstance(child, onnx.AttributeProto):
                        place = f"{where} {attribute_name(child.name, op)}"
                    yield from _walk(child, place, op, role or name)
        elif descriptor.type in (descriptor.TYPE_STRING, descriptor.TYPE_BYTES):
            texts = (value,) if isinstance(value, str | bytes) else tuple(value)
            field = role if isinstance(message, onnx.AttributeProto) and name in ("s", "strings") else name
            yield Place(where, field, op, strings=tuple(map(_text, texts)))
        elif isinstance(message, onnx.AttributeProto) and name in ("floats", "ints", "f", "i"):
            kind = np.float32 if name in ("floats", "f") else np.int64
            yield Place(where, role, op, np.array(value if name in ("floats", "ints") else [value], dtype=kind))


def _tensor(tensor: Any, where: str, op: str, role: str) -> Iterator[Place]:
    for text in ("name", "doc_string"):
        if getattr(tensor, text):
            yield Place(where, text, op, strings=(getattr(tensor, text),))
    for prop in [*tensor.metadata_props, *tensor.external_data]:
        yield Place(where, "metadata_props", op, strings=(prop.key, prop.value))
    filled = [field for field in TENSOR_DATA if getattr(tensor, field)]
    if len(filled) == 1 and tensor.data_location != onnx.TensorProto.EXTERNAL:
        try:
            array = numpy_helper.to_array(tensor)
        except Exception:
            array = None
        if array is not None:
            if array.dtype == object or array.dtype.kind in "SU":
                yield Place(where, role, op, strings=tuple(_text(item) for item in array.ravel()))
            else:
                yield Place(where, role, op, np.asarray(array))
            return
    for field in filled:  # more than one encoding, or one that does not fit the shape: each as it lies there
        value = getattr(tensor, field)
        if field == "string_data":
            yield Place(where, role, op, strings=tuple(map(_text, value)))
        elif field == "raw_data":
            yield Place(where, role, op, np.frombuffer(value, dtype=np.uint8))
        else:
            yield Place(where, role, op, np.array(value))


def _text(value: Any) -> str:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)


def operator(node: Any) -> str:
    """The operator's name if ONNX or the runtime defines it; any other name could be a private value."""
    return node.op_type if known_operator(node.op_type, node.domain) else "unknown operator"


def attribute_name(name: str, op: str) -> str:
    """An attribute's name if a known operator has one of that name."""
    return name if name in _attribute_names() else "attribute"


def known_operator(op_type: str, domain: str) -> bool:
    domain = "" if domain == "ai.onnx" else domain
    if domain == "com.microsoft":
        return op_type in MICROSOFT
    return domain in ("", "ai.onnx.ml") and bool(onnx.defs.has(op_type, domain))


MICROSOFT = frozenset(  # of com.microsoft: texts and distances (skl2onnx), and the quantisation of onnxruntime
    {
        "CDist",
        "DequantizeLinear",
        "DynamicQuantizeMatMul",
        "FusedGemm",
        "FusedMatMul",
        "Gelu",
        "MatMulIntegerToFloat",
        "QGemm",
        "QLinearAdd",
        "QLinearConcat",
        "QLinearLeakyRelu",
        "QLinearMul",
        "QLinearSigmoid",
        "QLinearSoftmax",
        "QuantizeLinear",
        "Tokenizer",
    }
)
_NAMES: set[str] = set()


def _attribute_names() -> set[str]:
    if not _NAMES:
        for schema in onnx.defs.get_all_schemas_with_history():
            _NAMES.update(schema.attributes)
        _NAMES.update(("separators", "tokenexp", "pad_value", "mark", "mincharnum", "stopwords", "metric"))
    return _NAMES


def is_model(name: str, kind: str) -> bool:
    """Whether an artifact is to be examined as a model: by what its bytes show, or by its name."""
    return kind == "onnx" or os.path.splitext(name)[1].lower() in (".onnx", ".ort")
