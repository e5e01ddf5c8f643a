"""How private rows are fed to a model: which column goes to which of its inputs.

A model takes its columns as inputs of their names, or as one matrix of numbers (and perhaps one of
texts). The order of a matrix's columns is told by `signature.json`; without it, the contract's order
and the order of names are both tried, because a wrong order would hide what the model stores.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import onnx
import pyarrow as pa

from edgeml.airlock.models.batch import numbers, strings
from edgeml.contract import Column, Contract

Array = np.ndarray[Any, Any]
Feeds = dict[str, Array]
MOST_PLANS = 6
FLOATS: dict[int, Any] = {
    onnx.TensorProto.FLOAT: np.float32,
    onnx.TensorProto.DOUBLE: np.float64,
    onnx.TensorProto.FLOAT16: np.float16,
    onnx.TensorProto.INT64: np.int64,
    onnx.TensorProto.INT32: np.int32,
    onnx.TensorProto.BOOL: np.bool_,
}


class Port(NamedTuple):
    name: str
    kind: int  # of onnx.TensorProto
    rank: int
    width: int  # 0 if the model does not tell


class Plan(NamedTuple):
    """The columns of each input, in order; a text in a matrix of numbers is one 0/1 column per allowed value."""

    columns: tuple[tuple[Port, tuple[Column, ...]], ...]

    def feeds(self, batch: pa.RecordBatch) -> Feeds:
        values, texts = numbers(batch), strings(batch)
        return {port.name: _matrix(port, columns, values, texts, batch.num_rows) for port, columns in self.columns}


class Mismatch(Exception):  # noqa: N818
    """Why the private table cannot be fed to a model."""


def ports(model: Any) -> list[Port]:
    """The inputs that a caller must feed."""
    initialized = {tensor.name for tensor in model.graph.initializer}
    found = []
    for port in model.graph.input:
        if port.name in initialized:
            continue
        kind = port.type.tensor_type
        dims = list(kind.shape.dim)
        found.append(Port(port.name, kind.elem_type, len(dims), dims[1].dim_value if len(dims) == 2 else 0))
    return found


def plans(model: Any, contract: Contract, signature: bytes | None) -> list[Plan]:
    """The ways to feed the private table to a model, or Mismatch."""
    inputs = ports(model)
    if not inputs:
        raise Mismatch("it takes no input")
    for port in inputs:
        if port.kind != onnx.TensorProto.STRING and port.kind not in FLOATS:
            raise Mismatch("an input is neither of numbers nor of text")
        if port.rank not in (1, 2):
            raise Mismatch("an input is neither a list nor a matrix of rows")
    choices = [_choices(port, contract, _order(signature, contract), len(inputs)) for port in inputs]
    if any(not choice for choice in choices):
        raise Mismatch("an input is no column of the contract, and its width is not that of the features")
    product = itertools.islice(itertools.product(*choices), MOST_PLANS)
    return [Plan(tuple(zip(inputs, chosen, strict=True))) for chosen in product]


def _order(signature: bytes | None, contract: Contract) -> list[Column] | None:
    """The features as `signature.json` lists them, if it is there and makes sense."""
    if signature is None:
        return None
    try:
        names = [feature["name"] for feature in json.loads(signature)["features"]]
    except (ValueError, KeyError, TypeError, RecursionError):
        return None
    return [contract.columns[name] for name in names] if set(names) <= set(contract.columns) else None


def _choices(port: Port, contract: Contract, told: list[Column] | None, inputs: int) -> list[tuple[Column, ...]]:
    texts = port.kind == onnx.TensorProto.STRING
    if port.name in contract.columns and port.width in (0, 1):
        column = contract.columns[port.name]
        return [(column,)] if (column.type == "string") == texts else []
    features = [c for c in contract.columns.values() if c.feature and c.name not in (contract.key, contract.target)]
    others = [c for c in contract.columns.values() if c.name != contract.target]
    orders = [told] if told else []
    for columns in (features, others):
        orders += [columns, sorted(columns, key=lambda column: column.name)]
    found: list[tuple[Column, ...]] = []
    for order in orders:
        plain = tuple(column for column in order if (column.type == "string") == texts)
        encoded = plain if texts else plain + tuple(c for c in order if c.type == "string" and c.allowed)
        for chosen in (plain, encoded):
            fits = sum(map(_width, chosen)) if not texts else len(chosen)
            if chosen and chosen not in found and (port.width == fits or (port.width == 0 and port.rank == 2)):
                found.append(chosen)
    if texts and port.width in (0, 1):
        found += [(column,) for column in others if column.type == "string" and (column,) not in found]
    return found


def _width(column: Column) -> int:
    return len(column.allowed or ()) if column.type == "string" else 1


def _matrix(
    port: Port, columns: tuple[Column, ...], values: dict[str, Array], texts: dict[str, list[str | None]], rows: int
) -> Array:
    if port.kind == onnx.TensorProto.STRING:
        cells = np.empty((rows, len(columns)), dtype=object)
        for index, column in enumerate(columns):
            cells[:, index] = ["" if text is None else text for text in texts.get(column.name, [None] * rows)]
        return cells.ravel() if port.rank == 1 else cells
    parts = []
    for column in columns:
        if column.type == "string":
            column_texts = np.array(texts.get(column.name, [None] * rows), dtype=object)
            parts += [(column_texts == value).astype(np.float64) for value in column.allowed or ()]
        else:
            parts.append(values.get(column.name, np.full(rows, np.nan)))
    matrix = np.stack(parts, axis=1)
    kind = FLOATS[port.kind]
    if np.dtype(kind).kind in "iub":
        matrix = np.nan_to_num(matrix)
    with np.errstate(all="ignore"):
        matrix = matrix.astype(kind)
    return matrix.ravel() if port.rank == 1 else matrix


def batches(plan: Plan, table: Iterator[pa.RecordBatch]) -> Iterator[Feeds]:
    """What `canonical.deviation` is fed."""
    for batch in table:
        yield plan.feeds(batch)
