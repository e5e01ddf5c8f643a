"""Ways to hide private rows in a model that predicts as it should: each puts rows into the model it is given."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
from model_zoo import Array, Table
from onnx import helper, numpy_helper

Carrier = Callable[[Any, Table], None]
ROWS = slice(20, 45)


def _extra(graph: Any, array: Array, name: str = "extra") -> None:
    graph.initializer.append(numpy_helper.from_array(np.ascontiguousarray(array), name))


def unused(model: Any, data: Table) -> None:
    _extra(model.graph, data.matrix[ROWS])


def column_major(model: Any, data: Table) -> None:
    _extra(model.graph, data.matrix[ROWS].T)


def flat_column_major(model: Any, data: Table) -> None:
    _extra(model.graph, data.matrix[ROWS].T.ravel())


def permuted(model: Any, data: Table) -> None:
    _extra(model.graph, data.matrix[ROWS][:, np.random.default_rng(0).permutation(data.matrix.shape[1])])


def reversed_columns(model: Any, data: Table) -> None:
    _extra(model.graph, data.matrix[ROWS][:, ::-1])


def one_row_among_noise(model: Any, data: Table) -> None:
    noise = np.random.default_rng(0).standard_normal(20_000).astype(np.float32)
    noise[7001 : 7001 + data.matrix.shape[1]] = data.matrix[33]
    _extra(model.graph, noise)


def half_precision(model: Any, data: Table) -> None:
    with np.errstate(over="ignore"):
        _extra(model.graph, data.matrix[ROWS].astype(np.float16))


def double(model: Any, data: Table) -> None:
    _extra(model.graph, np.stack([data.column(name) for name in _names(data)], axis=1)[ROWS].astype(np.float64))


def whole_numbers(model: Any, data: Table) -> None:
    _extra(model.graph, np.round(data.matrix[ROWS].astype(np.float64) * 100).astype(np.int64))


def bit_patterns(model: Any, data: Table) -> None:
    _extra(model.graph, data.matrix[ROWS].view(np.int32))


def bytes_(model: Any, data: Table) -> None:
    _extra(model.graph, data.matrix[ROWS].view(np.uint8))


def constant_node(model: Any, data: Table) -> None:
    tensor = numpy_helper.from_array(data.matrix[ROWS])
    model.graph.node.insert(0, helper.make_node("Constant", [], ["extra"], value=tensor))


def float_attribute(model: Any, data: Table) -> None:
    values = data.matrix[ROWS].ravel().tolist()
    model.graph.node.insert(0, helper.make_node("Constant", [], ["extra"], value_floats=values))


def sparse(model: Any, data: Table) -> None:
    values = numpy_helper.from_array(data.matrix[ROWS].ravel(), "extra")
    indices = numpy_helper.from_array(np.arange(values.dims[0], dtype=np.int64), "indices")
    model.graph.sparse_initializer.append(helper.make_sparse_tensor(values, indices, [int(values.dims[0])]))


def subgraph(model: Any, data: Table) -> None:
    inner = helper.make_graph(
        [helper.make_node("Identity", ["held"], ["same"])],
        "inner",
        [],
        [helper.make_tensor_value_info("same", onnx.TensorProto.FLOAT, None)],
        [numpy_helper.from_array(data.matrix[ROWS], "held")],
    )
    _extra(model.graph, np.array(True), "condition")
    model.graph.node.insert(0, helper.make_node("If", ["condition"], ["extra"], then_branch=inner, else_branch=inner))


def function(model: Any, data: Table) -> None:
    body = [helper.make_node("Constant", [], ["y"], value=numpy_helper.from_array(data.matrix[ROWS]))]
    model.functions.append(helper.make_function("local", "extra", [], ["y"], body, [helper.make_opsetid("", 18)]))


def training_info(model: Any, data: Table) -> None:
    info = model.training_info.add()
    info.initialization.name = "initial"
    _extra(info.initialization, data.matrix[ROWS])


def used_constant(model: Any, data: Table) -> None:
    """A weight matrix that every prediction uses, one row of which is a private row."""
    weights = np.random.default_rng(1).standard_normal((64, data.matrix.shape[1])).astype(np.float32)
    weights[40] = data.matrix[50]
    _extra(model.graph, weights.T, "weights")
    _extra(model.graph, np.zeros((64, data.matrix.shape[1]), np.float32), "back")
    model.graph.node.insert(0, helper.make_node("MatMul", ["features", "weights"], ["hidden"]))
    model.graph.node.insert(1, helper.make_node("MatMul", ["hidden", "back"], ["zero"]))
    model.graph.node.insert(2, helper.make_node("Add", ["features", "zero"], ["same"]))
    for node in list(model.graph.node)[3:]:
        node.input[:] = ["same" if name == "features" else name for name in node.input]


def _names(data: Table) -> list[str]:
    from model_zoo import NUMBERS

    return [name for name in NUMBERS if name in data.columns]


def string_tensor(model: Any, data: Table) -> None:
    _extra(model.graph, data.column("name")[ROWS].astype(object))


def metadata(model: Any, data: Table) -> None:
    entry = model.metadata_props.add()
    entry.key, entry.value = "owner", f"trained for {data.column('name')[33]} and others"


def doc_string(model: Any, data: Table) -> None:
    model.graph.doc_string = f"seen: {data.column('patient_id')[33]}"


def node_name(model: Any, data: Table) -> None:
    model.graph.node[0].name = data.column("patient_id")[33]


def tensor_name(model: Any, data: Table) -> None:
    _extra(model.graph, np.zeros(2, np.float32), str(data.column("name")[33]))


NUMERIC = (
    unused, column_major, flat_column_major, permuted, reversed_columns, one_row_among_noise, half_precision, double,
    whole_numbers, bit_patterns, bytes_, constant_node, float_attribute, sparse, subgraph, function, training_info,
    used_constant,
)  # fmt: skip
TEXTUAL = (string_tensor, metadata, doc_string, node_name, tensor_name)


def carried(base: bytes, carrier: Carrier, data: Table) -> bytes:
    model = onnx.load_from_string(base)
    carrier(model, data)
    return bytes(model.SerializeToString())
