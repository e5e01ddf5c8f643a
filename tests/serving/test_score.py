"""POST /score: every form of a table, and everything that is wrong with one, named by its column."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.serving import models
from tests.serving.conftest import Served, Start

NAMES = [name for name, _ in models.MIXED]
ROW = [2.5, 1, True, "Ulm"]
OTHER = [-3, 0, False, "Aachen"]
RECORD = dict(zip(NAMES, ROW, strict=True))


def expected(*rows: list[Any]) -> list[dict[str, Any]]:
    made = []
    for row in rows:
        yes = models.probability(*row)
        label = "yes" if yes > 0.5 else "no"
        made.append({"label": label, "probabilities": {"no": pytest.approx(1 - yes), "yes": pytest.approx(yes)}})
    return made


@pytest.mark.parametrize(
    "body",
    [
        {"input_data": {"columns": NAMES, "data": [ROW, OTHER]}},
        {"input_data": {"columns": NAMES, "data": [ROW, OTHER], "index": [7, 8]}},
        {"input_data": {"columns": NAMES[::-1], "data": [ROW[::-1], OTHER[::-1]]}},
        {"input_data": [ROW, OTHER]},
        {"data": [ROW, OTHER]},
        [ROW, OTHER],
        {"input_data": [RECORD, dict(zip(NAMES, OTHER, strict=True))]},
        {"data": [dict(reversed(RECORD.items())), dict(zip(NAMES, OTHER, strict=True))]},
        [RECORD, dict(zip(NAMES, OTHER, strict=True))],
    ],
    ids=["columns", "index", "another order", "rows", "data", "bare rows", "records", "data records", "bare records"],
)
def test_every_form_of_a_table_has_the_same_answer(mixed: Served, body: Any) -> None:
    got = mixed.score(body)
    assert got.status == 200
    assert got.json == {"model_name": "patients", "model_version": "3", "predictions": expected(ROW, OTHER)}
    spaced = mixed.score(b" \n\t" + json.dumps(body, indent=3).encode() + b"\r\n ")
    assert spaced.body == got.body


def test_a_missing_number_is_null_and_a_missing_text_is_empty(mixed: Served) -> None:
    got = mixed.score([[None, 1, True, "Ulm"], [2.0, 0, False, None], [2.0, 0, False, ""]]).json["predictions"]
    assert got[0]["probabilities"] == {"no": None, "yes": None}  # NaN has no other form in JSON
    assert got[1] == got[2] == expected([2.0, 0, False, ""])[0]


def without(*names: str) -> dict[str, Any]:
    return {name: value for name, value in RECORD.items() if name not in names}


@pytest.mark.parametrize(
    ("body", "field", "words"),
    [
        ([[2.5, 1, True, 7]], "city", "row 0"),
        ([ROW, ["2.5", 1, True, "Ulm"]], "age", "row 1"),
        ([[True, 1, True, "Ulm"]], "age", "row 0"),
        ([[2.5, 1.5, True, "Ulm"]], "visits", "row 0"),
        ([[2.5, 1, 1, "Ulm"]], "smoker", "row 0"),
        ([[[2.5], 1, True, "Ulm"]], "age", "row 0"),
        ([[1e39, 1, True, "Ulm"]], "age", "row 0"),
        ([[-1e39, 1, True, "Ulm"]], "age", "row 0"),
        ([[2.5, 2**70, True, "Ulm"]], "visits", "row 0"),
        ([RECORD | {"age": "old"}], "age", "row 0"),
        ([RECORD, without("smoker")], "smoker", "row 1"),
        ([RECORD | {"weight": 80}], "weight", "row 0"),
        ({"input_data": {"columns": NAMES[1:], "data": [ROW[1:]]}}, "age", "missing"),
        ({"input_data": {"columns": [*NAMES, "weight"], "data": [[*ROW, 80]]}}, "weight", "no column"),
        ({"input_data": {"columns": [*NAMES, "age"], "data": [[*ROW, 3]]}}, "age", "twice"),
        ({"input_data": {"columns": NAMES[::-1], "data": [["Ulm", True, "1", 2.5]]}}, "visits", "row 0"),
        ({"input_data": {"columns": "age", "data": [ROW]}}, "columns", "list of names"),
        ({"input_data": {"columns": [1, 2], "data": [ROW]}}, "columns", "list of names"),
        ({"input_data": {"columns": NAMES}}, "data", "missing required"),
        ({"input_data": {"columns": NAMES, "data": [ROW], "rows": 1}}, "rows", "unknown"),
        ([ROW[:3]], "", "length 4"),
        ([[*ROW, 1]], "", "length 4"),
        ([ROW, 7], "", "row 1"),
        ([], "", "at least one"),
        ({"data": []}, "", "at least one"),
        ({"data": 7}, "", "object or a list"),
        ({"data": None}, "", "object or a list"),
        ({}, "", "input_data"),
        ({"data": [ROW], "input_data": [ROW]}, "", "exactly one"),
        ({"dataframe_split": {}}, "dataframe_split", "input_data"),
        ({"data": [ROW], "id": "job-7"}, "", "job-7"),
        (7, "", "input_data"),
        (None, "", "input_data"),
    ],
)
def test_what_is_wrong_is_told_with_the_columns_name(mixed: Served, body: Any, field: str, words: str) -> None:
    got = mixed.score(json.dumps(body).encode())
    assert got.status == 400
    assert got.json.get("field", "") == field
    assert words in got.json["error"]


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"[[1, 2",
        b'{"data": [[NaN, 1, true, "Ulm"]]}',
        b'{"data": [[Infinity, 1, true, "Ulm"]]}',
        b'{"data": [[-Infinity, 1, true, "Ulm"]]}',
        b'{"data": [[1, 1, true, "\xff"]]}',
        b'{"data": [[1, 1, true, "Ulm"]]} more',
        b"[" * 100_000,
        b'{"data": ' + b"[" * 100_000,
        b'{"data": [[1e400, 1, true, "Ulm"]]}',
        b'{"data": [[' + b"9" * 5_000 + b', 1, true, "Ulm"]]}',
        b"\x00\x01\x02",
    ],
)
def test_what_is_no_json_is_refused(mixed: Served, body: bytes) -> None:
    got = mixed.score(body)
    assert got.status == 400, got.body
    assert got.json["error"]


def test_ten_thousand_rows_have_ten_thousand_right_answers(mixed: Served) -> None:
    rows = [[index / 1000 - 5, index % 3, False, "Aachen"] for index in range(10_000)]
    got = mixed.score({"input_data": {"columns": NAMES, "data": rows}})
    assert got.status == 200
    found = [prediction["probabilities"]["yes"] for prediction in got.json["predictions"]]
    assert found == pytest.approx([models.probability(*row) for row in rows], abs=1e-6)


def test_more_rows_than_allowed_are_refused(mixed: Served) -> None:
    got = mixed.score([[1, 1, True, ""]] * 10_001)
    assert (got.status, "10000" in got.json["error"]) == (413, True)


def test_the_features_of_a_signature_are_the_columns_of_its_matrix(start: Start, tmp_path: Path) -> None:
    served = start(models.matrix(tmp_path))
    for body in (
        {"input_data": {"columns": ["c", "a", "b"], "data": [[True, 0.5, 3], [False, -1, 2]]}},
        [{"b": 3, "a": 0.5, "c": True}, {"a": -1, "b": 2, "c": False}],
        {"data": [[0.5, 3, True], [-1, 2, False]]},
    ):
        assert served.score(body).json["predictions"] == [{"prediction": 130.5}, {"prediction": 19.0}]
    got = served.score([[0.5, 3, 1]])
    assert (got.status, got.json["field"]) == (400, "c")


def test_a_matrix_that_nobody_described_takes_rows(start: Start, tmp_path: Path) -> None:
    served = start(models.matrix(tmp_path, signature=False))
    assert served.score([[0.5, 3, 1]]).json["predictions"] == [{"prediction": 130.5}]
    assert served.score([[0.5, "3", 1]]).json["field"] == "features_1"


def test_a_model_of_more_dimensions_takes_nested_lists(start: Start, tmp_path: Path) -> None:
    served = start(models.image(tmp_path) / "model.onnx")
    picture = [[1.0, 2.0, 3.0], [4.0, 5.0, 6.5]]
    assert served.score([{"pixels": picture}]).json["predictions"] == [{"sum": 21.5}]
    assert served.score({"data": [[picture], [[[0, 0, 0], [0, 0, 1]]]]}).json["predictions"] == [
        {"sum": 21.5},
        {"sum": 1.0},
    ]
    for wrong in ([[1.0, 2.0], [3.0, 4.0]], [[1.0], [2.0, 3.0, 4.0]], [1.0, 2.0], 7, [[1, 2, "x"], [4, 5, 6]]):
        got = served.score([{"pixels": wrong}])
        assert (got.status, got.json["field"]) == (400, "pixels")
