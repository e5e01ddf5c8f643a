"""Rows, cells and names hidden in a model that predicts as it should, and files that are no proper model."""

from __future__ import annotations

import json
from functools import cache

import numpy as np
import onnx
import pytest
from model_carriers import NUMERIC, TEXTUAL, Carrier, carried, one_row_among_noise, unused
from model_verdicts import by_file, examine
from model_zoo import NUMBERS, convert, fitted, table
from onnx import TensorProto, helper, numpy_helper

from edgeml.airlock.finding import Artifact, Finding


@cache
def base(rows: int, seed: int) -> bytes:
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    return convert(fitted(make_pipeline(StandardScaler(), LogisticRegression()), table(rows, seed)))


@cache
def found(rows: int, seed: int) -> dict[str, list[Finding]]:
    data = table(rows, seed)
    artifacts = [Artifact(c.__name__, "onnx", carried(base(rows, seed), c, data)) for c in NUMERIC + TEXTUAL]
    return by_file(examine(artifacts, data).findings())


@pytest.mark.parametrize(("rows", "seed"), [(300, 1), (2000, 2)])
@pytest.mark.parametrize("carrier", NUMERIC)
def test_rows_are_found_wherever_they_are_hidden(carrier: Carrier, rows: int, seed: int) -> None:
    assert "model.rows" in {finding.rule for finding in found(rows, seed)[carrier.__name__]}


@pytest.mark.parametrize(("rows", "seed"), [(300, 1), (2000, 2)])
@pytest.mark.parametrize("carrier", TEXTUAL)
def test_names_are_found_wherever_they_are_hidden(carrier: Carrier, rows: int, seed: int) -> None:
    assert "model.vocabulary" in {finding.rule for finding in found(rows, seed)[carrier.__name__]}


@pytest.mark.parametrize(
    ("carrier", "rule"),
    [
        ("unused", "model.unused"), ("sparse", "model.sparse"), ("subgraph", "model.unused"),
        ("function", "model.functions"), ("training_info", "model.functions"), ("string_tensor", "model.unused"),
    ],
)  # fmt: skip
def test_the_policy_refuses_carriers_too(carrier: str, rule: str) -> None:
    assert rule in {finding.rule for finding in found(300, 1)[carrier]}


def test_the_same_numbers_of_other_people_are_no_finding_of_content() -> None:
    """The hidden rows of another table are strangers here: only the policy may object."""
    data, other = table(300, 1), table(300, 9)
    artifacts = [Artifact(c.__name__, "onnx", carried(base(300, 1), c, other)) for c in (unused, one_row_among_noise)]
    assert {finding.rule for finding in examine(artifacts, data).findings()} == {"model.unused"}


def _one(data: bytes, name: str = "model.onnx", seconds: float = 60, beside: list[Artifact] | None = None) -> set[str]:
    examiner = examine([Artifact(name, "onnx", data), *(beside or [])], table(300, 1), seconds=seconds)
    return {finding.rule for finding in examiner.findings()}


def test_what_is_no_model_or_has_bytes_behind_it_does_not_pass() -> None:
    files = [b"", b"no model at all", b"\x08\x08" + b"\xff" * 64, base(300, 1) + b"\xfa\x3f\x04rows"]
    artifacts = [Artifact(f"{number}.onnx", "onnx", data) for number, data in enumerate(files)]
    findings = by_file(examine(artifacts, table(300, 1)).findings())
    assert [[f.rule for f in findings[artifact.name]] for artifact in artifacts] == [["model.parse"]] * len(files)


def test_a_tensor_in_another_file_is_neither_read_nor_passed() -> None:
    model = onnx.load_from_string(base(300, 1))
    tensor = TensorProto(name="outside", data_type=TensorProto.FLOAT, dims=[4], data_location=TensorProto.EXTERNAL)
    entry = tensor.external_data.add()
    entry.key, entry.value = "location", "/etc/hostname"
    model.graph.initializer.append(tensor)
    assert {"model.external", "model.unexamined"} <= _one(model.SerializeToString())


def test_inputs_that_are_no_columns_are_not_examined() -> None:
    from sklearn.linear_model import LogisticRegression

    estimator = LogisticRegression().fit(np.eye(5), [0, 1, 0, 1, 0])
    assert _one(convert(estimator, width=5)) == {"model.unexamined"}


def _endless() -> bytes:
    body = helper.make_graph(
        [helper.make_node("Identity", ["on"], ["still"]), helper.make_node("Identity", ["x"], ["y"])],
        "body",
        [
            helper.make_tensor_value_info("i", TensorProto.INT64, []),
            helper.make_tensor_value_info("on", TensorProto.BOOL, []),
            helper.make_tensor_value_info("x", TensorProto.FLOAT, None),
        ],
        [
            helper.make_tensor_value_info("still", TensorProto.BOOL, []),
            helper.make_tensor_value_info("y", TensorProto.FLOAT, None),
        ],
    )
    graph = helper.make_graph(
        [helper.make_node("Loop", ["", "true", "features"], ["out"], body=body)],
        "graph",
        [helper.make_tensor_value_info("features", TensorProto.FLOAT, [None, len(NUMBERS)])],
        [helper.make_tensor_value_info("out", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(np.array(True), "true")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)
    return bytes(model.SerializeToString())


def test_a_model_that_never_ends_is_stopped() -> None:
    assert _one(_endless(), seconds=3) == {"model.unexamined"}


def test_an_examination_that_is_killed_is_a_finding() -> None:
    examiner = examine([Artifact("model.onnx", "onnx", base(300, 1))], table(300, 1))
    assert examiner._child is not None
    examiner._child.kill()
    assert [finding.rule for finding in examiner.findings()] == ["model.unexamined"]


def test_no_model_is_no_finding_and_no_process() -> None:
    examiner = examine([Artifact("metrics.json", "json", b"{}")], table(300, 1))
    assert examiner._child is None and examiner.findings() == []


def test_the_signature_tells_the_order_of_columns() -> None:
    """Rows behind a scaler, in an order of columns that only signature.json knows."""
    from sklearn.neighbors import KNeighborsClassifier
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    data, order = table(300, 1), np.random.default_rng(3).permutation(len(NUMBERS))
    matrix = data.matrix[:, order].astype(np.float64)
    model = convert(make_pipeline(StandardScaler(), KNeighborsClassifier()).fit(matrix, data.column("outcome")))
    signature = json.dumps({"features": [{"name": NUMBERS[i], "type": "number"} for i in order]}).encode()
    beside = [Artifact("release/signature.json", "json", signature)]
    assert "model.stored-rows" in _one(model, "release/model.onnx", beside=beside)


def test_columns_as_inputs_of_their_names_are_examined() -> None:
    """One input per column, as train_model exports them: rows behind a scaler are found."""
    from sklearn.neighbors import KNeighborsClassifier
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    model = onnx.load_from_string(
        convert(fitted(make_pipeline(StandardScaler(), KNeighborsClassifier()), table(300, 1)))
    )
    del model.graph.input[:]
    model.graph.input.extend(helper.make_tensor_value_info(name, TensorProto.FLOAT, [None, 1]) for name in NUMBERS)
    model.graph.node.insert(0, helper.make_node("Concat", list(NUMBERS), ["features"], axis=1))
    assert "model.stored-rows" in _one(model.SerializeToString())


def test_a_centroid_of_one_row_is_that_row() -> None:
    from sklearn.cluster import KMeans

    data = table(300, 1)
    rows = data.matrix.copy()
    model = convert(KMeans(2, n_init=1, random_state=0).fit(np.vstack([rows[:200], rows[200:201] + [0] * 12])))
    assert "model.rows" not in _one(model)
    lonely = convert(KMeans(8, init=rows[:8], n_init=1, max_iter=1).fit(rows[:9]))
    assert "model.rows" in _one(lonely)
