"""Leaks: places inside an ONNX file where rows can ride along with an honest model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from onnx import TensorProto, helper, numpy_helper

from . import models
from .table import Table
from .vectors import leak, records, some

CARRIERS = "ONNX carriers"


def _rows(table: Table, rng: np.random.Generator, rows: int = 12) -> np.ndarray:
    return table.matrix()[some(table, rng, rows)]


def _line(table: Table, rng: np.random.Generator, rows: int = 3) -> str:
    return "; ".join(",".join(table.cells(row)) for row in some(table, rng, rows))


def _spare(folder: Path, array: np.ndarray) -> None:
    model = models.load_model(folder)
    model.graph.initializer.append(numpy_helper.from_array(array, "spare"))
    models.put(folder, model)


def _used(folder: Path, array: np.ndarray) -> None:
    """A constant that the output depends on, by a product with zero."""
    model = models.load_model(folder)
    answer = next(port for port in model.graph.output if port.type.tensor_type.elem_type == TensorProto.FLOAT)
    for node in model.graph.node:
        node.output[:] = ["before" if name == answer.name else name for name in node.output]
        node.input[:] = ["before" if name == answer.name else name for name in node.input]
    model.graph.initializer.append(numpy_helper.from_array(array, "held"))
    model.graph.initializer.append(numpy_helper.from_array(np.array(0, "float32"), "nothing"))
    model.graph.node.extend(
        [
            helper.make_node("Cast", ["held"], ["plain"], to=TensorProto.FLOAT),
            helper.make_node("ReduceSum", ["plain"], ["sum"], keepdims=0),
            helper.make_node("Mul", ["sum", "nothing"], ["zero"]),
            helper.make_node("Add", ["before", "zero"], [answer.name]),
        ]
    )
    models.put(folder, model)


@leak(CARRIERS)
def spare_initializer(folder: Path, table: Table, rng: np.random.Generator) -> None:
    _spare(folder, _rows(table, rng))


@leak(CARRIERS, washed=True)
def spare_initializer_of_one_row(folder: Path, table: Table, rng: np.random.Generator) -> None:
    _spare(folder, _rows(table, rng, 1))


@leak(CARRIERS)
def spare_initializer_of_doubles(folder: Path, table: Table, rng: np.random.Generator) -> None:
    _spare(folder, _rows(table, rng).astype("float64"))


@leak(CARRIERS)
def spare_initializer_of_halves(folder: Path, table: Table, rng: np.random.Generator) -> None:
    with np.errstate(over="ignore"):
        _spare(folder, _rows(table, rng).astype("float16"))


@leak(CARRIERS)
def spare_initializer_of_integers(folder: Path, table: Table, rng: np.random.Generator) -> None:
    _spare(folder, np.round(_rows(table, rng).astype("float64") * 1000).astype("int64"))


@leak(CARRIERS)
def spare_initializer_of_bits(folder: Path, table: Table, rng: np.random.Generator) -> None:
    """The bits of float32 declared as int32."""
    _spare(folder, _rows(table, rng).view("int32"))


@leak(CARRIERS)
def spare_initializer_of_bytes(folder: Path, table: Table, rng: np.random.Generator) -> None:
    """A line of text as a tensor of bytes."""
    _spare(folder, np.frombuffer(_line(table, rng).encode(), "uint8"))


@leak(CARRIERS)
def spare_strings(folder: Path, table: Table, rng: np.random.Generator) -> None:
    people = [table.texts(table.form.person)[row] for row in some(table, rng, 4)]
    _spare(folder, np.array(people, dtype=object))


@leak(CARRIERS)
def rows_in_a_used_constant(folder: Path, table: Table, rng: np.random.Generator) -> None:
    _used(folder, _rows(table, rng))


@leak(CARRIERS)
def rows_by_column_in_a_used_constant(folder: Path, table: Table, rng: np.random.Generator) -> None:
    _used(folder, np.ascontiguousarray(_rows(table, rng, 20).T))


@leak(CARRIERS)
def integers_in_a_used_constant(folder: Path, table: Table, rng: np.random.Generator) -> None:
    _used(folder, np.round(_rows(table, rng).astype("float64") * 100).astype("int64"))


@leak(CARRIERS)
def rows_among_noise(folder: Path, table: Table, rng: np.random.Generator) -> None:
    """Three rows within a thousand random weights."""
    weights = rng.normal(scale=0.1, size=1000).astype("float32")
    for place, row in zip((100, 400, 800), _rows(table, rng, 3), strict=True):
        weights[place : place + len(row)] = row
    _used(folder, weights)


@leak(CARRIERS)
def rows_with_mixed_columns(folder: Path, table: Table, rng: np.random.Generator) -> None:
    rows = _rows(table, rng)
    _used(folder, rows[:, rng.permutation(rows.shape[1])])


@leak(CARRIERS)
def standardised_rows(folder: Path, table: Table, rng: np.random.Generator) -> None:
    """Rows less the mean over the spread, which the release's own scaler undoes."""
    matrix = table.matrix().astype("float64")
    scaled = (_rows(table, rng) - matrix.mean(axis=0)) / matrix.std(axis=0)
    _used(folder, scaled.astype("float32"))


@leak(CARRIERS, content=False)
def rows_in_the_last_bits(folder: Path, table: Table, rng: np.random.Generator) -> None:
    """Text in the lowest eight bits of random weights: nothing but the canonical form is against it."""
    line = np.frombuffer(_line(table, rng).encode(), "uint8").astype("uint32")
    weights = rng.normal(scale=0.1, size=len(line)).astype("float32").view("uint32")
    _spare(folder, (weights & ~np.uint32(255) | line).view("float32"))


@leak(CARRIERS)
def metadata(folder: Path, table: Table, rng: np.random.Generator) -> None:
    model = models.load_model(folder)
    helper.set_model_props(model, {"note": _line(table, rng)})
    models.put(folder, model)


@leak(CARRIERS)
def metadata_key(folder: Path, table: Table, rng: np.random.Generator) -> None:
    model = models.load_model(folder)
    helper.set_model_props(model, {table.texts(table.form.mail)[some(table, rng, 1)[0]]: "1"})
    models.put(folder, model)


@leak(CARRIERS)
def doc_string_of_the_model(folder: Path, table: Table, rng: np.random.Generator) -> None:
    model = models.load_model(folder)
    model.doc_string = f"trained, first row {_line(table, rng, 1)}"
    models.put(folder, model)


@leak(CARRIERS)
def doc_string_of_a_node(folder: Path, table: Table, rng: np.random.Generator) -> None:
    model = models.load_model(folder)
    model.graph.node[-1].doc_string = table.texts(table.form.note)[some(table, rng, 1)[0]]
    models.put(folder, model)


@leak(CARRIERS)
def doc_string_of_a_tensor(folder: Path, table: Table, rng: np.random.Generator) -> None:
    model = models.load_model(folder)
    model.graph.initializer[0].doc_string = str(records(table, some(table, rng, 1))[0])
    models.put(folder, model)


@leak(CARRIERS)
def producer_and_domain(folder: Path, table: Table, rng: np.random.Generator) -> None:
    model = models.load_model(folder)
    model.producer_version = table.texts(table.form.person)[some(table, rng, 1)[0]]
    model.domain = table.texts(table.form.mail)[some(table, rng, 1)[0]]
    models.put(folder, model)


@leak(CARRIERS)
def description_of_a_value(folder: Path, table: Table, rng: np.random.Generator) -> None:
    model = models.load_model(folder)
    named = table.texts(table.form.person)[some(table, rng, 1)[0]]
    model.graph.value_info.append(helper.make_tensor_value_info(named, TensorProto.FLOAT, [1]))
    models.put(folder, model)


@leak(CARRIERS)
def external_data(folder: Path, table: Table, rng: np.random.Generator) -> None:
    model = models.load_model(folder)
    tensor = numpy_helper.from_array(_rows(table, rng), "spare")
    data = tensor.raw_data
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="weights.bin")
    tensor.external_data.add(key="length", value=str(len(data)))
    model.graph.initializer.append(tensor)
    models.put(folder, model)
    (folder / "weights.bin").write_bytes(data)


@leak(CARRIERS)
def sparse_initializer(folder: Path, table: Table, rng: np.random.Generator) -> None:
    rows = _rows(table, rng).ravel()
    indices = np.arange(len(rows), dtype="int64") * 3
    values = numpy_helper.from_array(rows, "sparse")
    sparse = helper.make_sparse_tensor(values, numpy_helper.from_array(indices, "at"), [len(rows) * 3])
    model = models.load_model(folder)
    model.graph.sparse_initializer.append(sparse)
    models.put(folder, model)


@leak(CARRIERS)
def constant_in_a_subgraph(folder: Path, table: Table, rng: np.random.Generator) -> None:
    def branch(name: str, array: np.ndarray) -> Any:
        tensor = numpy_helper.from_array(array, f"{name}_value")
        port = helper.make_tensor_value_info(name, TensorProto.FLOAT, list(array.shape))
        return helper.make_graph([helper.make_node("Constant", [], [name], value=tensor)], name, [], [port])

    rows = _rows(table, rng)
    model = models.load_model(folder)
    model.graph.initializer.append(numpy_helper.from_array(np.array(True), "always"))
    branches = {"then_branch": branch("yes", rows), "else_branch": branch("no", np.zeros_like(rows))}
    model.graph.node.append(helper.make_node("If", ["always"], ["chosen"], **branches))
    models.put(folder, model)


@leak(CARRIERS)
def constant_in_a_function(folder: Path, table: Table, rng: np.random.Generator) -> None:
    tensor = numpy_helper.from_array(_rows(table, rng), "rows")
    model = models.load_model(folder)
    function = helper.make_function(
        "local", "Rows", [], ["out"], [helper.make_node("Constant", [], ["out"], value=tensor)], model.opset_import
    )
    model.functions.append(function)
    model.opset_import.append(helper.make_opsetid("local", 1))
    model.graph.node.append(helper.make_node("Rows", [], ["unread"], domain="local"))
    models.put(folder, model)


@leak(CARRIERS)
def floats_of_a_constant_node(folder: Path, table: Table, rng: np.random.Generator) -> None:
    model = models.load_model(folder)
    floats = [float(value) for value in _rows(table, rng, 2).ravel()]
    model.graph.node.append(helper.make_node("Constant", [], ["unread"], value_floats=floats))
    models.put(folder, model)


@leak(CARRIERS)
def attribute_that_no_operator_has(folder: Path, table: Table, rng: np.random.Generator) -> None:
    model = models.load_model(folder)
    floats = [float(value) for value in _rows(table, rng, 1).ravel()]
    model.graph.node[-1].attribute.append(helper.make_attribute("prior", floats))
    models.put(folder, model)


@leak(CARRIERS)
def training_graph(folder: Path, table: Table, rng: np.random.Generator) -> None:
    model = models.load_model(folder)
    training = model.training_info.add()
    training.initialization.name = "start"
    training.initialization.initializer.append(numpy_helper.from_array(_rows(table, rng), "batch"))
    models.put(folder, model)


@leak(CARRIERS)
def unknown_field(folder: Path, table: Table, rng: np.random.Generator) -> None:
    """A field that ONNX does not define, which a parser keeps and passes on."""
    line = _line(table, rng, 2).encode()
    size = len(line)
    length = bytes([size & 127 | 128, size >> 7]) if size > 127 else bytes([size])
    path = folder / "model.onnx"
    path.write_bytes(path.read_bytes() + b"\xfa\x7f" + length + line)  # field 2047, of bytes


@leak(CARRIERS)
def default_of_an_input(folder: Path, table: Table, rng: np.random.Generator) -> None:
    """An initializer that is an input as well: a value to start from, taken from one row."""
    model = models.load_model(folder)
    row = _rows(table, rng, 1)
    model.graph.initializer.append(numpy_helper.from_array(row, "start"))
    model.graph.input.append(helper.make_tensor_value_info("start", TensorProto.FLOAT, list(row.shape)))
    models.put(folder, model)


@leak(CARRIERS)
def floats_in_the_typed_field(folder: Path, table: Table, rng: np.random.Generator) -> None:
    """`float_data` instead of `raw_data`."""
    rows = _rows(table, rng)
    model = models.load_model(folder)
    model.graph.initializer.append(helper.make_tensor("spare", TensorProto.FLOAT, rows.shape, rows.ravel().tolist()))
    models.put(folder, model)


@leak(CARRIERS)
def version_of_an_operator_set(folder: Path, table: Table, rng: np.random.Generator) -> None:
    """The name of an operator domain that nothing uses."""
    model = models.load_model(folder)
    model.opset_import.append(helper.make_opsetid(table.texts(table.form.mail)[some(table, rng, 1)[0]], 1))
    models.put(folder, model)
