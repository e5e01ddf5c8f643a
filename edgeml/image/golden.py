"""A golden request and its answer: rows made up from what is public of a model, scored by bare ONNX Runtime.

The rows come from the contract that the model was trained under: ranges, allowed values, never a row of the data.
Where that very contract is not in `contracts/`, the signature alone tells names and types. The same model has the
same rows.
"""

from __future__ import annotations

import glob
import json
import os
from typing import TYPE_CHECKING, Any, NamedTuple

from edgeml import project
from edgeml.errors import EdgemlError

if TYPE_CHECKING:
    from edgeml.contract import Contract

ROWS = 16
ID = "edgeml-golden"  # of a request that is of no patient: the scoring server counts no prediction of it
TOLERANCE = 1e-5  # absolute and relative: another processor sums in another order
_DATATYPES = {"tensor(float)": "FP32", "tensor(double)": "FP64", "tensor(int64)": "INT64", "tensor(string)": "BYTES"}
_NUMPY = {"FP32": "float32", "FP64": "float64", "INT64": "int64", "BYTES": "object"}


class Golden(NamedTuple):
    """Rows by column, the same as inputs of the Open Inference Protocol, and the outputs that they must give."""

    rows: list[dict[str, Any]]
    inputs: list[dict[str, Any]]
    outputs: list[dict[str, Any]]

    def document(self) -> dict[str, Any]:
        return {"version": 1, "tolerance": TOLERANCE, **self._asdict()}


def record(model: bytes, signature: dict[str, Any], lineage: dict[str, Any], seed: str) -> Golden:
    """Make the rows and let ONNX Runtime answer. Raises EdgemlError where the model cannot be fed by its signature."""
    import numpy as np
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    try:
        session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # its exceptions have no base of their own
        raise EdgemlError(f"ONNX Runtime cannot load the model ({type(error).__name__}); train it again", 1) from None
    rows = made_up(signature, lineage, seed)
    features = [(str(feature["name"]), str(feature["type"])) for feature in signature["features"]]
    inputs = [_input(port, features, rows) for port in session.get_inputs()]
    arrays = {
        entry["name"]: np.array(entry["data"], dtype=_NUMPY[entry["datatype"]]).reshape(entry["shape"])
        for entry in inputs
    }
    try:
        answers = session.run(None, arrays)
    except Exception as error:
        raise EdgemlError(f"the model does not take its own signature's columns ({type(error).__name__})", 1) from None
    outputs = []
    for port, answer in zip(session.get_outputs(), answers, strict=True):
        if isinstance(answer, np.ndarray):
            data = [str(value) if answer.dtype == object else value for value in answer.ravel().tolist()]
            kind = _DATATYPES.get(port.type, "FP32")
            outputs.append({"name": port.name, "datatype": kind, "shape": list(answer.shape), "data": data})
    return Golden(rows, inputs, outputs)


def made_up(signature: dict[str, Any], lineage: dict[str, Any], seed: str) -> list[dict[str, Any]]:
    """Rows within what the contract admits; numbers as the float32 that a model is fed, so that JSON keeps them."""
    import random
    from array import array

    contract = _contract(str((lineage.get("contract") or {}).get("sha256")))
    draw = random.Random(seed)  # noqa: S311 - the rows are no secret

    def value(name: str, kind: str) -> Any:
        column = contract.columns.get(name) if contract else None
        low = 0.0 if column is None or column.min is None else column.min
        high = low + 1.0 if column is None or column.max is None else column.max
        if kind == "string":
            words = [str(word) for word in column.allowed] if column and column.allowed else ["a", "b", "golden row"]
            return draw.choice(words)
        if kind == "boolean":
            return draw.random() < 0.5
        if kind == "integer":
            if column and column.allowed:
                return draw.choice(list(column.allowed))
            return draw.randint(int(low), max(int(low), int(high)))
        # Far within: a plausible range is much wider than what is usual, and every tree would answer alike.
        return array("f", [low + (high - low) * draw.random() ** 3])[0]

    features = signature["features"]
    return [{str(f["name"]): value(str(f["name"]), str(f["type"])) for f in features} for _ in range(ROWS)]


def equal(outputs: Any, golden: Golden) -> bool:
    """Whether an answer of the Open Inference Protocol is the golden one."""
    import math

    if not isinstance(outputs, list):
        return False
    found = {str(entry.get("name")): entry for entry in outputs if isinstance(entry, dict)}
    for wanted in golden.outputs:
        data, given = wanted["data"], found.get(wanted["name"], {}).get("data")
        if not isinstance(given, list) or len(given) != len(data):
            return False
        for one, other in zip(data, given, strict=True):
            if isinstance(one, str) or not isinstance(other, int | float):
                if one != other:
                    return False
            elif not math.isclose(one, other, rel_tol=TOLERANCE, abs_tol=TOLERANCE):
                return False
    return True


def scored(answer: Any) -> list[dict[str, Any]]:
    """The outputs in an answer of `/score`, as `equal` takes them. Raises KeyError, TypeError or AttributeError."""
    outputs: dict[str, list[Any]] = {}
    for prediction in answer["predictions"]:
        for name, value in prediction.items():
            outputs.setdefault(name, []).extend(_flat(value))
    return [{"name": name, "data": data} for name, data in outputs.items()]


def _flat(value: Any) -> list[Any]:
    """A value, or those of a list or by class, in their order."""
    if not isinstance(value, dict | list):
        return [value]
    return [each for inner in (value.values() if isinstance(value, dict) else value) for each in _flat(inner)]


def _input(port: Any, features: list[tuple[str, str]], rows: list[dict[str, Any]]) -> dict[str, Any]:
    """One input of the model: a column of its name, or else all columns that it can hold as one matrix."""
    kind = _DATATYPES.get(port.type)
    if kind is None:
        raise EdgemlError(f"the model's input {port.name} is of {port.type}, which no caller can send", 1)
    named = [name for name, _ in features if name == port.name]
    names = named or [name for name, feature in features if (feature == "string") == (kind == "BYTES")]
    numbers = {"FP32": float, "FP64": float, "INT64": int, "BYTES": str}[kind]
    data = [numbers(row[name]) for row in rows for name in names]
    shape = [len(rows)] if named and len(port.shape) == 1 else [len(rows), len(names)]
    return {"name": port.name, "datatype": kind, "shape": shape, "data": data}


def _contract(sha256: str) -> Contract | None:
    from pathlib import Path

    from edgeml import contract
    from edgeml.image import parts

    for file in sorted(glob.glob(os.path.join(project.root_folder(), "contracts", "*.yml"))):
        if parts.digest(file) == sha256:
            return contract.load(Path(file))
    return None


def of(document: bytes) -> Golden:
    """A golden record read back. Raises EdgemlError for what is none."""
    try:
        read = json.loads(document)
        return Golden(read["rows"], read["inputs"], read["outputs"])
    except (ValueError, KeyError, TypeError):
        raise EdgemlError("the golden request of the image cannot be read; package the model again", 1) from None
