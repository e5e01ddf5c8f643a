"""The Open Inference Protocol: every datatype there and back, and refusals that name the tensor."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from edgeml.serving.signature import DATATYPES
from tests.serving import models
from tests.serving.conftest import Answer, Served

INFER = "/v2/models/model/infer"
NEUTRAL = {datatype.v2: {"BYTES": "", "BOOL": False}.get(datatype.v2, 0) for datatype in DATATYPES}
EXTREMES: dict[str, list[Any]] = {
    **{
        datatype.v2: [int(np.iinfo(datatype.numpy).min), int(np.iinfo(datatype.numpy).max)]
        for datatype in DATATYPES
        if "INT" in datatype.v2
    },
    **{
        datatype.v2: [float(np.finfo(datatype.numpy).max), float(np.finfo(datatype.numpy).tiny)]
        for datatype in DATATYPES
        if datatype.v2.startswith("FP")
    },
    "BOOL": [True, False],
    "BYTES": ["", 'ümlaut "quoted" \U0001f600'],
}


def tensors(**changed: dict[str, Any]) -> dict[str, Any]:
    """A request for `every`, with the tensors of some datatypes changed."""
    inputs = []
    for name, value in NEUTRAL.items():
        tensor = {"name": f"in_{name}", "shape": [1, 2], "datatype": name, "data": [value, value]}
        inputs.append(tensor | changed.get(name, {}))
    return {"inputs": inputs}


def infer(served: Served, body: Any) -> Answer:
    return served.ask("POST", INFER, body)


def test_every_datatype_keeps_its_extremes(every: Served) -> None:
    got = infer(every, tensors(**{name: {"data": values} for name, values in EXTREMES.items()}))
    assert got.status == 200, got.body
    outputs = {output["name"].removeprefix("out_"): output for output in got.json["outputs"]}
    assert set(outputs) == set(EXTREMES)
    for name, values in EXTREMES.items():
        assert outputs[name] == {"name": f"out_{name}", "datatype": name, "shape": [1, 2], "data": values}


def test_nested_data_means_the_same_as_flat(every: Served) -> None:
    def of(data: Any) -> Any:
        changed = {name: {"shape": [2, 2], "data": [v, v, v, v]} for name, v in NEUTRAL.items()}
        return infer(every, tensors(**changed | {"INT16": {"shape": [2, 2], "data": data}})).json["outputs"]

    assert of([1, 2, 3, 4]) == of([[1, 2], [3, 4]])


def test_null_is_nan_in_floats_and_only_there(every: Served) -> None:
    got = infer(every, tensors(FP64={"data": [None, 1.5]}))
    assert next(o for o in got.json["outputs"] if o["name"] == "out_FP64")["data"] == [None, 1.5]
    for name in ("INT64", "BOOL", "BYTES"):
        refused = infer(every, tensors(**{name: {"data": [None, NEUTRAL[name]]}}))
        assert (refused.status, refused.json["field"]) == (400, f"in_{name}")


def test_the_id_and_the_asked_outputs_come_back(mixed: Served) -> None:
    body = {
        "id": "42",
        "parameters": {"any": 1},
        "inputs": [
            {"name": "city", "shape": [1, 1], "datatype": "BYTES", "data": ["Ulm"], "parameters": {}},
            {"name": "age", "shape": [1, 1], "datatype": "FP32", "data": [2.5]},
            {"name": "visits", "shape": [1, 1], "datatype": "FP32", "data": [1]},
            {"name": "smoker", "shape": [1, 1], "datatype": "FP32", "data": [1.0]},
        ],
        "outputs": [{"name": "probabilities"}],
    }
    yes = models.probability(2.5, 1, True, "Ulm")
    for path in ("/v2/models/patients/infer", "/v2/models/patients/versions/3/infer"):
        got = mixed.ask("POST", path, body).json
        output = got["outputs"].pop()
        assert got == {"model_name": "patients", "model_version": "3", "id": "42", "outputs": []}
        assert output["data"] == pytest.approx([1 - yes, yes])


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"datatype": "FP64"}, "datatype INT8"),
        ({"datatype": "int8"}, "datatype INT8"),
        ({"shape": [2]}, "shape [-1, 2]"),
        ({"shape": [1, 3], "data": [1, 2, 3]}, "shape [-1, 2]"),
        ({"shape": [2, 2], "data": [1, 2, 3, 4]}, "rows"),
        ({"shape": [0, 2], "data": []}, "empty"),
        ({"shape": [1, 2], "data": [1]}, "does not fit"),
        ({"shape": [1, 2], "data": [[1], [2]]}, "does not fit"),
        ({"shape": [1, 2], "data": [[1, 2], [3]]}, "does not fit"),
        ({"shape": [1, 2], "data": [[[1, 2]]]}, "Expected"),
        ({"shape": [1, 2], "data": [1, 128]}, "<= 127"),
        ({"shape": [1, 2], "data": [1.5, 1]}, "Expected `int`"),
        ({"shape": [1, 2], "data": ["1", 1]}, "Expected `int`"),
        ({"shape": [1, 2], "data": [True, 1]}, "Expected `int`"),
        ({"shape": [1, 2], "data": 1}, "Expected `array`"),
        ({"shape": [1, 2], "data": "AQI="}, "Expected `array`"),
        ({"shape": [10**18, 2]}, "more than 10000 rows"),
    ],
)
def test_what_is_wrong_is_told_with_the_tensors_name(every: Served, changed: dict[str, Any], words: str) -> None:
    got = infer(every, tensors(INT8=changed))
    assert got.status == (413 if "10000" in words else 400)
    assert words in got.json["error"]
    assert "rows" in words or got.json["field"] == "in_INT8"


def test_an_unsigned_integer_of_65_bits_is_refused(every: Served) -> None:
    got = infer(every, tensors(UINT64={"data": [2**64, 0]}))
    assert (got.status, got.json["field"]) == (400, "in_UINT64")


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"inputs": tensors()["inputs"][1:]}, "in_FP32"),
        ({"inputs": [*tensors()["inputs"], tensors()["inputs"][0]]}, "in_FP32"),
        (
            {"inputs": [*tensors()["inputs"], {"name": "more", "shape": [1], "datatype": "BOOL", "data": [True]}]},
            "more",
        ),
        (tensors() | {"outputs": [{"name": "in_FP32"}]}, "in_FP32"),
        (tensors(FP32={"shape": [-1, 2]}), "inputs[0].shape[0]"),
        (tensors(FP32={"shape": [1.5, 2]}), "inputs[0].shape[0]"),
        (tensors(FP32={"name": 3}), "inputs[0].name"),
        (tensors(FP32={"more": 3}), "inputs[0]"),
        (tensors() | {"id": 42}, "id"),
        (tensors() | {"inputs": {}}, "inputs"),
        ({}, None),
        ([], None),
    ],
)
def test_what_is_wrong_with_the_request_is_told_with_its_place(every: Served, body: Any, field: str | None) -> None:
    got = infer(every, body)
    assert (got.status, got.json.get("field")) == (400, field)
    assert got.json["error"]


def test_metadata_tells_the_tensors(mixed: Served) -> None:
    got = mixed.ask("GET", "/v2/models/patients").json
    assert got == mixed.ask("GET", "/v2/models/patients/versions/3").json
    assert got["name"] == "patients"
    assert got["versions"] == ["3"]
    assert got["inputs"][3] == {"name": "city", "datatype": "BYTES", "shape": [-1, 1]}
    assert got["outputs"] == [
        {"name": "label", "datatype": "BYTES", "shape": [-1]},
        {"name": "probabilities", "datatype": "FP32", "shape": [-1, 2]},
    ]
    server = mixed.ask("GET", "/v2").json
    assert (server["name"], server["extensions"]) == ("edgeml", [])
    assert mixed.ask("GET", "/v2/").json == server


@pytest.mark.parametrize("path", ["/v2/models/other", "/v2/models/patients/versions/4", "/v2/models/other/infer", "/x"])
def test_another_model_or_version_is_not_found(mixed: Served, path: str) -> None:
    for method in ("GET", "POST"):
        got = mixed.ask(method, path)
        assert (got.status, set(got.json)) == (404, {"error"})


def test_health_is_told_by_status_and_body(mixed: Served) -> None:
    assert mixed.ask("GET", "/v2/health/live").json == {"live": True}
    assert mixed.ask("GET", "/v2/health/ready").json == {"ready": True}
    assert mixed.ask("GET", "/v2/models/patients/ready").json == {"name": "patients", "ready": True}
