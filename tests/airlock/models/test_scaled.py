"""Rows that were scaled before they came into the model, and weights that only look near them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from model_verdicts import examine
from model_zoo import NUMBERS, Table, table
from onnx import TensorProto, helper, numpy_helper

from edgeml.airlock.finding import Artifact, Finding
from edgeml.airlock.models import scaled
from edgeml.airlock.models.walk import Place

Array = np.ndarray[Any, Any]
SIZES = [(300, 1), (6000, 3)]


def examined(array: Array, data: Table) -> list[Finding]:
    seen = scaled.Scaled(
        [("model.onnx", Place("a tensor", "initializer", "", array.astype(np.float32)))], data.contract
    )
    for batch in data.batches():
        seen.feed(batch)
    return list(seen.findings())


def cells(data: Table) -> Array:
    return np.stack([data.column(name) for name in NUMBERS], axis=1).astype(np.float64)


def of_a_part(rows: Array) -> Array:
    return rows[np.random.default_rng(7).permutation(len(rows))[: len(rows) * 7 // 10]]


SCALINGS: dict[str, Callable[[Array], tuple[Array, Array]]] = {
    "mean and deviation": lambda x: (x.mean(axis=0), x.std(axis=0)),
    "of a sample": lambda x: (x.mean(axis=0), x.std(axis=0, ddof=1)),
    "range": lambda x: (x.min(axis=0), np.ptp(x, axis=0)),
    "median and quartiles": lambda x: (np.median(x, axis=0), np.diff(np.percentile(x, [25, 75], axis=0), axis=0)[0]),
    "largest": lambda x: (0 * x[0], np.abs(x).max(axis=0)),
}


@pytest.mark.parametrize(("rows", "seed"), SIZES)
@pytest.mark.parametrize("scaling", SCALINGS)
def test_one_row_is_found_under_the_scalings_of_the_table(scaling: str, rows: int, seed: int) -> None:
    data = table(rows, seed)
    whole = cells(data)
    shift, scale = SCALINGS[scaling](whole)
    (finding,) = examined((whole[77:78] - shift) / scale, data)
    assert (finding.rule, finding.rows) == ("model.stored-rows", 1) and finding.bits > 60


@pytest.mark.parametrize(("rows", "seed"), SIZES)
@pytest.mark.parametrize("scaling", SCALINGS)
@pytest.mark.parametrize("turned", [False, True])
def test_some_rows_are_found_under_the_scaling_of_any_part(scaling: str, turned: bool, rows: int, seed: int) -> None:
    """As a scaler that was fitted on the training part leaves them."""
    data = table(rows, seed)
    part = of_a_part(cells(data))
    shift, scale = SCALINGS[scaling](part)
    stored = (part[:9] - shift) / scale
    (finding,) = examined(stored.T if turned else stored, data)
    assert finding.rule == "model.stored-rows" and finding.rows >= 8


def test_other_columns_behind_the_row_do_not_hide_it() -> None:
    data = table(300, 1)
    part = of_a_part(cells(data))
    shift, scale = SCALINGS["mean and deviation"](part)
    wide = np.hstack([(part[:20] - shift) / scale, np.random.default_rng(0).integers(0, 2, (20, 5))])
    assert [finding.rule for finding in examined(wide, data)] == ["model.stored-rows"]


def test_missing_cells_that_an_imputer_filled_do_not_hide_the_row() -> None:
    import pyarrow as pa

    data = table(300, 1)
    known = cells(data)
    known[::3, 2] = np.nan
    columns = {name: data.batch.column(name) for name in data.batch.schema.names}
    columns[NUMBERS[2]] = pa.array(known[:, 2], from_pandas=True)
    holed = Table(data.contract, pa.RecordBatch.from_pydict(columns))
    filled = np.where(np.isnan(known), np.nanmean(known, axis=0), known)
    shift, scale = SCALINGS["mean and deviation"](filled)
    assert [f.rows for f in examined((filled[30:32] - shift) / scale, holed)] == [2]


def test_rows_of_other_people_and_weights_are_none_of_ours() -> None:
    for rows, seed in SIZES:
        data, r = table(rows, seed), np.random.default_rng(seed)
        whole = cells(data)
        shift, scale = SCALINGS["mean and deviation"](whole)
        standard = (whole - shift) / scale
        others = (cells(table(300, 11)) - shift) / scale
        groups = np.stack([standard[r.choice(rows, 40)].mean(axis=0) for _ in range(8)])
        honest = [others[:40], r.normal(size=(64, 12)), r.normal(size=(12, 12)) / 9, groups, np.cov(standard.T)]
        assert [examined(array, data) for array in honest] == [[]] * len(honest)


def test_a_large_table_is_sampled_evenly(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scaled, "KEPT", 500)
    data = table(6000, 3)
    seen = scaled.Scaled([], data.contract)
    for batch in data.batches():
        seen.feed(batch)
    kept = np.concatenate(seen.kept["sodium"])
    assert seen.rows == 6000 and 500 <= len(kept) <= 1000
    assert np.array_equal(kept, data.column("sodium")[:: seen.stride])


def test_a_few_rows_far_out_do_not_make_weights_into_rows() -> None:
    """The tolerance follows the spread; where that is a million, small weights are all alike to it."""
    data, r = table(300, 1), np.random.default_rng(1)
    sodium = np.zeros((len(NUMBERS), 3), np.float32)
    sodium[NUMBERS.index("sodium")] = 1e6 * np.array([1, 2, -1])
    middle = data.matrix[5, NUMBERS.index("sodium")] * sodium[NUMBERS.index("sodium")]
    weights = r.normal(size=(len(NUMBERS), len(NUMBERS))).astype(np.float32)
    nodes = [
        helper.make_node("MatMul", ["features", "steep"], ["far"]),
        helper.make_node("Sub", ["far", "middle"], ["scores"]),
        helper.make_node("MatMul", ["features", "weights"], ["mixed"]),
        helper.make_node("Concat", ["scores", "mixed"], ["out"], axis=1),
    ]
    graph = helper.make_graph(
        nodes, "graph", [helper.make_tensor_value_info("features", TensorProto.FLOAT, [None, len(NUMBERS)])],
        [helper.make_tensor_value_info("out", TensorProto.FLOAT, [None, 15])],
        [numpy_helper.from_array(a, n) for n, a in (("steep", sodium), ("middle", middle), ("weights", weights))],
    )  # fmt: skip
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)
    assert examine([Artifact("model.onnx", "onnx", model.SerializeToString())], data).findings() == []
