"""What holds for any table and any bytes: the model gets what the client meant, or the client gets a refusal."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edgeml.serving.app import App
from edgeml.serving.model import Model
from edgeml.serving.protocol import Protocol
from edgeml.serving.settings import Settings
from edgeml.serving.table import Table
from tests.serving import models

NAMES = [name for name, _ in models.MIXED]
FLOATS = st.floats(width=32, allow_nan=False, allow_infinity=False)
CELLS = {
    "number": st.none() | FLOATS | st.integers(-(2**60), 2**60),
    "integer": st.none() | st.integers(-(2**63), 2**63 - 1),
    "boolean": st.none() | st.booleans(),
    "string": st.none() | st.text(st.characters(exclude_categories=["Cs"]), max_size=20),
}
ROWS = st.lists(st.tuples(*(CELLS[kind] for _, kind in models.MIXED)), min_size=1, max_size=5)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text() | st.sampled_from(NAMES), inner, max_size=4),
    max_leaves=20,
)
KEYS = ("input_data", "data", "columns", "index", "inputs", "outputs", "name", "shape", "datatype", "id", "parameters")
LIKELY = st.recursive(
    st.none() | st.sampled_from([0, 1, 2, -1, 1.5, 10**400, "", "age", "FP32", "BYTES", True, *NAMES]),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from([*KEYS, *NAMES]), inner, max_size=5),
    max_leaves=25,
)
thorough = settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))


@pytest.fixture(scope="module")
def model(mixed_model: Path) -> Model:
    return Model(Settings(model=str(mixed_model)))


@pytest.fixture(scope="module")
def app(model: Model) -> App:
    return App(model, Settings(rows=1000))


@thorough
@given(rows=ROWS, order=st.permutations(range(4)), form=st.integers(0, 3), indent=st.none() | st.just(2))
def test_the_model_is_fed_what_the_table_says(
    model: Model, rows: list[tuple[Any, ...]], order: list[int], form: int, indent: int | None
) -> None:
    records = [{NAMES[index]: row[index] for index in order} for row in rows]
    names = [NAMES[index] for index in order]
    split = {"columns": names, "data": [[row[index] for index in order] for row in rows]}
    body = [{"input_data": split}, {"data": rows}, {"input_data": records}, records][form]
    feed, count, _ = Table(model, 10).parse(json.dumps(body, indent=indent).encode())
    assert count == len(rows)
    assert list(feed) == NAMES
    for place, (name, kind) in enumerate(models.MIXED):
        meant = [row[place] for row in rows]
        if kind == "string":
            assert feed[name].tolist() == [[value or ""] for value in meant]
        else:
            numbers = [math.nan if value is None else value for value in meant]
            assert feed[name].dtype == np.float32
            np.testing.assert_array_equal(feed[name], np.array(numbers, dtype="float64").astype("float32")[:, None])


@thorough
@given(rows=ROWS, nested=st.booleans(), order=st.permutations(range(4)))
def test_the_model_is_fed_what_the_tensors_say(
    model: Model, rows: list[tuple[Any, ...]], nested: bool, order: list[int]
) -> None:
    inputs, meant = [], {}
    for place in order:
        name, kind = models.MIXED[place]
        text = kind == "string"
        values = [(row[place] or "") if text else None if row[place] is None else float(row[place]) for row in rows]
        meant[name] = values
        inputs.append(
            {
                "name": name,
                "shape": [len(rows), 1],
                "datatype": "BYTES" if text else "FP32",
                "data": [[value] for value in values] if nested else values,
            }
        )
    protocol = Protocol(model, 10)
    feed, count = protocol.feed(protocol.request(json.dumps({"inputs": inputs}).encode()).inputs)
    assert count == len(rows)
    for name, values in meant.items():
        if name == "city":
            assert feed[name].tolist() == [[value] for value in values]
        else:
            numbers = [math.nan if value is None else value for value in values]
            np.testing.assert_array_equal(feed[name], np.array(numbers, dtype="float64").astype("float32")[:, None])


def refused_or_answered(app: App, body: bytes) -> None:
    for path in ("/score", "/v2/models/model/infer"):
        answer = app.answer("POST", path, body)
        assert answer.status in (200, 400, 413), (answer.status, answer.body)
        told = json.loads(answer.body)
        assert ("error" in told) == (answer.status != 200)


@thorough
@given(content=JSON | LIKELY)
def test_any_json_is_answered_or_refused(app: App, content: Any) -> None:
    refused_or_answered(app, json.dumps(content).encode())


@thorough
@given(content=LIKELY)
def test_any_table_or_request_is_answered_or_refused(app: App, content: Any) -> None:
    refused_or_answered(app, json.dumps({"data": content}).encode())
    refused_or_answered(app, json.dumps({"input_data": {"columns": content, "data": [[1, 1, True, ""]]}}).encode())
    refused_or_answered(app, json.dumps({"inputs": content}).encode())
    tensor = {"name": "age", "shape": [1, 1], "datatype": "FP32", "data": content}
    refused_or_answered(app, json.dumps({"inputs": [tensor]}).encode())


GOOD = json.dumps({"input_data": {"columns": NAMES, "data": [[1.5, 2, True, "Ulm"], [None, 3, False, ""]]}}).encode()


@thorough
@given(body=st.binary(max_size=50), place=st.integers(0, len(GOOD)), cut=st.integers(0, 9))
def test_any_bytes_are_answered_or_refused(app: App, body: bytes, place: int, cut: int) -> None:
    refused_or_answered(app, body)
    refused_or_answered(app, GOOD[:place] + body + GOOD[place + cut :])
    refused_or_answered(app, GOOD[:place] + GOOD[place + cut :])


@thorough
@given(text=st.sampled_from([r"\ud800", r"\udfff\ud800", r"\u0000", "\\", r"\x", "\x7f", "é", "\U0010ffff"]))
def test_any_text_is_answered_or_refused(app: App, text: str) -> None:
    for body in (
        '{"data": [[1, 1, true, "TEXT"]]}',
        '[{"TEXT": 1}]',
        '{"input_data": {"columns": ["TEXT"], "data": []}}',
        '{"id": "TEXT", "inputs": [{"name": "TEXT"}]}',
    ):
        refused_or_answered(app, body.replace("TEXT", text).encode())
