"""Estimators that scikit-learn really trained and skl2onnx really converted, put into a release as its model."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from .table import Table

Factory = Callable[[Table], Any]


@cache
def trained(table: Table, name: str, factory: Factory, target: str, limit: int) -> bytes:
    """The ONNX bytes of an estimator trained on the first `limit` rows; the cache is by name."""
    from skl2onnx import to_onnx
    from skl2onnx.common.data_types import FloatTensorType

    matrix = table.matrix()[:limit]
    labels = table.labels()[:limit]
    numbers = (labels == table.form.classes[1]).astype(int)
    answers = {"label": labels, "number": numbers, "amount": table.amounts()[:limit], "none": None}[target]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        estimator = factory(table).fit(matrix.astype("float64"), answers)
        final = estimator.steps[-1][1] if hasattr(estimator, "steps") else estimator
        options: dict[int, dict[str, Any]] = {}
        if hasattr(estimator, "classes_") or hasattr(final, "classes_"):
            options[id(estimator)] = {"zipmap": False}
        types = [("features", FloatTensorType([None, matrix.shape[1]]))]
        model = to_onnx(estimator, initial_types=types, options=options or None, target_opset={"": 18, "ai.onnx.ml": 3})
    return bytes(model.SerializeToString())


def trained_on_text(table: Table, columns: list[str], factory: Factory) -> bytes:
    """The ONNX bytes of a pipeline over text columns, one input each."""
    from skl2onnx import to_onnx
    from skl2onnx.common.data_types import StringTensorType

    texts = np.array([table.texts(column) for column in columns], dtype=object).T
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        estimator = factory(table).fit(texts, table.labels())
        model = to_onnx(
            estimator,
            initial_types=[("features", StringTensorType([None, len(columns)]))],
            options={id(estimator): {"zipmap": False}},
            target_opset={"": 18, "ai.onnx.ml": 3},
        )
    return bytes(model.SerializeToString())


def load_model(folder: Path) -> Any:
    return onnx.load_model(folder / "model.onnx", load_external_data=False)


def put(folder: Path, model: Any) -> None:
    """Make `model` (bytes or a ModelProto) the release's, with a signature that agrees with it."""
    if isinstance(model, bytes):
        model = onnx.load_model_from_string(model)
    _name_outputs(model)
    (folder / "model.onnx").write_bytes(model.SerializeToString())
    signature = json.loads((folder / "signature.json").read_text())
    signature["inputs"] = [_port(port) for port in model.graph.input]
    signature["outputs"] = [_port(port) for port in model.graph.output]
    (folder / "signature.json").write_text(json.dumps(signature, indent=2, sort_keys=True) + "\n")


def _name_outputs(model: Any) -> None:
    """Call the outputs as train_model does, so that nothing but the leak is unusual."""
    ports = list(model.graph.output)
    known = {"label", "probabilities", "prediction"}
    if all(port.name in known for port in ports):
        return
    names = ["prediction"] if len(ports) == 1 else ["label", "probabilities"]
    del model.graph.output[len(names) :]
    for port, name in zip(ports, names, strict=False):
        for node in model.graph.node:
            node.output[:] = [name if value == port.name else value for value in node.output]
            node.input[:] = [name if value == port.name else value for value in node.input]
        port.name = name


def _port(port: Any) -> dict[str, Any]:
    tensor = port.type.tensor_type
    dtype = {1: "float32", 7: "int64", 8: "string", 10: "float16", 11: "float64"}.get(tensor.elem_type, "float32")
    return {"name": port.name, "dtype": dtype, "shape": [d.dim_value or None for d in tensor.shape.dim]}
