"""Small ONNX models whose answers can be told without running them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from onnx import TensorProto, checker, helper, numpy_helper
from onnx.helper import make_node, make_tensor_value_info

from edgeml.serving.signature import DATATYPES

CITIES = ("Aachen", "Ulm")
MIXED = (("age", "number"), ("visits", "integer"), ("smoker", "boolean"), ("city", "string"))
_ONNX = {datatype.v2: helper.np_dtype_to_tensor_dtype(np.dtype(datatype.numpy)) for datatype in DATATYPES[:-1]}
_ONNX["BYTES"] = TensorProto.STRING


def mixed(folder: Path) -> Path:
    """Four named columns of four types. P(yes) = sigmoid(age + 10 visits + 100 smoker - 1000 if in Ulm)."""
    inputs = [
        make_tensor_value_info(name, TensorProto.STRING if kind == "string" else TensorProto.FLOAT, [None, 1])
        for name, kind in MIXED
    ]
    outputs = [
        make_tensor_value_info("label", TensorProto.STRING, [None]),
        make_tensor_value_info("probabilities", TensorProto.FLOAT, [None, 2]),
    ]
    constants = {
        "/weights": np.array([[1], [10], [100], [0], [-1000]], "float32"),
        "/one": np.array([1], "float32"),
        "/flat": np.array([0, 2]),
        "/classes": np.array(["no", "yes"], dtype=object),
    }
    nodes = [
        make_node("OneHotEncoder", ["city"], ["/hot"], domain="ai.onnx.ml", cats_strings=list(CITIES), zeros=1),
        make_node("Reshape", ["/hot", "/flat"], ["/cities"]),
        make_node("Concat", ["age", "visits", "smoker", "/cities"], ["/all"], axis=1),
        make_node("MatMul", ["/all", "/weights"], ["/sum"]),
        make_node("Sigmoid", ["/sum"], ["/yes"]),
        make_node("Sub", ["/one", "/yes"], ["/no"]),
        make_node("Concat", ["/no", "/yes"], ["probabilities"], axis=1),
        make_node("ArgMax", ["probabilities"], ["/best"], axis=1, keepdims=0),
        make_node("Gather", ["/classes", "/best"], ["label"]),
    ]
    _write(folder, nodes, inputs, outputs, constants)
    document = {
        "version": 1,
        "classes": ["no", "yes"],
        "features": [{"name": name, "type": kind} for name, kind in MIXED],
        "inputs": [
            {"name": name, "dtype": "string" if kind == "string" else "float32", "shape": [None, 1]}
            for name, kind in MIXED
        ],
        "outputs": [
            {"name": "label", "dtype": "string", "shape": [None]},
            {"name": "probabilities", "dtype": "float32", "shape": [None, 2]},
        ],
    }
    (folder / "signature.json").write_text(json.dumps(document))
    return folder


def watched(folder: Path, released: tuple[int, ...] = (40, 20, 40), k: int = 10) -> Path:
    """`mixed` as its release has it: so many test rows had a P(yes) of each third."""
    edges = [0, 0.3, 0.7, 1]
    bins = [{"low": edges[i], "high": edges[i + 1], "count": count} for i, count in enumerate(released)]
    signature = mixed(folder) / "signature.json"
    signature.write_text(json.dumps({**json.loads(signature.read_text()), "positive": "yes"}))
    (folder / "curves.json").write_text(json.dumps({"version": 1, "distribution": bins}))
    (folder / "lineage.json").write_text(json.dumps({"version": 1, "egress": {"k": k}}))
    return folder


def rows(low: int, middle: int, high: int) -> list[list[Any]]:
    """Rows to which `mixed` gives a P(yes) near 0, one half and 1, so many of each."""
    return [[age, 0, False, "Aachen"] for age, count in ((-9, low), (0, middle), (9, high)) for _ in range(count)]


def probability(age: float | None, visits: int | None, smoker: bool | None, city: str | None) -> float:
    """What `mixed` answers for one row; NaN where a number is missing."""
    missing = [float("nan") if value is None else float(value) for value in (age, visits, smoker)]
    total = missing[0] + 10 * missing[1] + 100 * missing[2] - (1000 if city == "Ulm" else 0)
    with np.errstate(over="ignore"):
        return float(1 / (1 + np.exp(-np.float64(total))))


def matrix(folder: Path, signature: bool = True) -> Path:
    """Three named features as the columns of one input; the answer is their weighted sum."""
    inputs = [make_tensor_value_info("features", TensorProto.FLOAT, [None, 3])]
    outputs = [make_tensor_value_info("prediction", TensorProto.FLOAT, [None, 1])]
    weights = np.array([[1], [10], [100]], "float32")
    _write(folder, [make_node("MatMul", ["features", "/w"], ["prediction"])], inputs, outputs, {"/w": weights})
    if signature:
        features = [
            {"name": name, "type": kind} for name, kind in (("a", "number"), ("b", "integer"), ("c", "boolean"))
        ]
        ports = {
            "inputs": [{"name": "features", "dtype": "float32", "shape": [None, 3]}],
            "outputs": [{"name": "prediction", "dtype": "float32", "shape": [None, 1]}],
        }
        (folder / "signature.json").write_text(json.dumps({"features": features, **ports}))
    return folder


def columns(folder: Path, names: Sequence[str]) -> Path:
    """An input of one number for each name, and their sum."""
    inputs = [make_tensor_value_info(name, TensorProto.FLOAT, [None, 1]) for name in names]
    outputs = [make_tensor_value_info("sum", TensorProto.FLOAT, [None, 1])]
    return _write(folder, [make_node("Sum", list(names), ["sum"])], inputs, outputs, {})


def every(folder: Path) -> Path:
    """One input of each datatype and of shape (any, 2), given back as it is."""
    inputs, outputs, nodes = [], [], []
    for name, kind in _ONNX.items():
        inputs.append(make_tensor_value_info(f"in_{name}", kind, [None, 2]))
        outputs.append(make_tensor_value_info(f"out_{name}", kind, [None, 2]))
        nodes.append(make_node("Identity", [f"in_{name}"], [f"out_{name}"]))
    return _write(folder, nodes, inputs, outputs, {})


def image(folder: Path) -> Path:
    """A tensor of three dimensions per row, and its sum; no signature beside it."""
    inputs = [make_tensor_value_info("pixels", TensorProto.FLOAT, [None, 2, 3])]
    outputs = [make_tensor_value_info("sum", TensorProto.FLOAT, [None, 1])]
    nodes = [
        make_node("ReduceSum", ["pixels", "/axes"], ["/sum"], keepdims=0),
        make_node("Reshape", ["/sum", "/shape"], ["sum"]),
    ]
    return _write(folder, nodes, inputs, outputs, {"/axes": np.array([1, 2]), "/shape": np.array([-1, 1])})


def slow(folder: Path, milliseconds: int = 200) -> Path:
    """One number in, itself out, after so many milliseconds of work on any machine: see `calibrated`."""
    return _write(folder, *_loop(_calibrated(milliseconds)))


def _loop(turns: int) -> tuple[list[Any], list[Any], list[Any], dict[str, np.ndarray]]:
    matrix = [make_tensor_value_info(name, TensorProto.FLOAT, [256, 256]) for name in ("state_in", "state_out")]
    body = helper.make_graph(
        [make_node("MatMul", ["state_in", "/unit"], ["state_out"]), make_node("Identity", ["go_in"], ["go_out"])],
        "body",
        [
            make_tensor_value_info("turn", TensorProto.INT64, []),
            make_tensor_value_info("go_in", TensorProto.BOOL, []),
            matrix[0],
        ],
        [make_tensor_value_info("go_out", TensorProto.BOOL, []), matrix[1]],
    )
    nodes = [
        make_node("Loop", ["/turns", "", "/unit"], ["/end"], body=body),
        make_node("ReduceMin", ["/end"], ["/zero"], keepdims=0),
        make_node("Add", ["x", "/zero"], ["y"]),
    ]
    inputs = [make_tensor_value_info("x", TensorProto.FLOAT, [None, 1])]
    outputs = [make_tensor_value_info("y", TensorProto.FLOAT, [None, 1])]
    return nodes, inputs, outputs, {"/turns": np.array(turns), "/unit": np.eye(256, dtype="float32")}


def _calibrated(milliseconds: int) -> int:
    import tempfile
    import time

    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    with tempfile.TemporaryDirectory() as temporary:
        file = _write(Path(temporary), *_loop(20)) / "model.onnx"
        session = onnxruntime.InferenceSession(str(file), options)
    feed = {"x": np.zeros((1, 1), "float32")}
    session.run(None, feed)
    began = time.perf_counter()
    session.run(None, feed)
    return max(1, int(20 * milliseconds / 1000 / (time.perf_counter() - began)))


def _write(
    folder: Path, nodes: list[Any], inputs: list[Any], outputs: list[Any], constants: dict[str, np.ndarray]
) -> Path:
    tensors = [numpy_helper.from_array(value, name) for name, value in constants.items()]
    graph = helper.make_graph(nodes, "test", inputs, outputs, tensors)
    opsets = [helper.make_opsetid("", 18), helper.make_opsetid("ai.onnx.ml", 3)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=8)
    checker.check_model(model, full_check=True)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "model.onnx").write_bytes(model.SerializeToString())
    return folder
