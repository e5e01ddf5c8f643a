"""Evidence among numbers, at sizes where chance begins to matter."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from edgeml.airlock.finding import Finding
from edgeml.airlock.models.tensors import Tensors
from edgeml.airlock.models.walk import Place

ROWS, WEIGHTS = 50_000, 100_001
Array = np.ndarray[Any, Any]


@cache
def batch() -> pa.RecordBatch:
    """Z-scores, lattices of 0 to 2 decimals, sparse and dense whole numbers, and cents of a skewed amount."""
    r = np.random.default_rng(0)
    columns = {f"z{i}": r.standard_normal(ROWS) for i in range(3)}
    columns |= {f"lattice{i}": r.normal(50, 10, ROWS).round(i) for i in range(3)}
    columns |= {"small": r.standard_normal(ROWS) * 0.1, "cents": r.lognormal(7, 1, ROWS).round(2)}
    columns |= {"sparse": r.permutation(10 * ROWS)[:ROWS].astype(float), "level": r.integers(0, 30, ROWS).astype(float)}
    return pa.RecordBatch.from_pydict(columns)


def examined(array: Array, role: str = "initializer") -> list[Finding]:
    tensors = Tensors([("model.onnx", Place("a tensor", role, "", array))], batch().schema.names, 10)
    for start in range(0, ROWS, 1 << 14):
        tensors.feed(batch().slice(start, 1 << 14))
    if tensors.again():
        for start in range(0, ROWS, 1 << 14):
            tensors.feed_again(batch().slice(start, 1 << 14))
    return tensors.findings()


def weights() -> Array:
    return (np.random.default_rng(1).standard_normal(WEIGHTS) * 0.1).astype(np.float32)


def row(number: int) -> Array:
    return np.array([column[number].as_py() for column in batch().columns], dtype=np.float32)


@pytest.mark.parametrize(
    "array",
    [
        weights(),  # as close to 0 as the z-scores are
        weights().astype(np.float16),
        weights().astype(np.float64),
        np.round(weights(), 2),
        (weights() * 500).astype(np.int8),
        np.arange(5000),
        np.zeros(WEIGHTS, np.float32),
        np.linspace(0, 100, 20_001, dtype=np.float32),
        np.random.default_rng(2).normal(50, 10, 20_001).round(1).astype(np.float32),
        np.random.default_rng(2).integers(0, 30, 20_001),
        np.tile(np.arange(30), 500),
        np.arange(20, 80, 0.01, dtype=np.float32),
    ],
    ids=[
        "weights",
        "half",
        "double",
        "rounded",
        "int8",
        "range",
        "zeros",
        "grid",
        "same lattice",
        "same levels",
        "cycle",
        "fine grid",
    ],
)
def test_numbers_that_know_nothing_of_the_table_pass(array: Array) -> None:
    assert examined(array) == []


def test_thresholds_of_trees_are_midpoints_of_a_lattice_and_pass() -> None:
    column = np.unique(batch().column("lattice1").to_numpy())
    assert examined(((column[:-1] + column[1:]) / 2).astype(np.float32), "nodes_values") == []


def test_one_row_in_a_large_tensor_is_found() -> None:
    hidden = weights()
    hidden[5000 : 5000 + len(row(77))] = row(77)
    assert [(finding.rule, finding.rows) for finding in examined(hidden)] == [("model.rows", 1)]


def test_a_row_among_thresholds_is_found() -> None:
    hidden = np.random.default_rng(3).normal(50, 10, 3000).round(2).astype(np.float32)
    hidden[100 : 100 + len(row(77))] = row(77)
    assert [finding.rule for finding in examined(hidden, "nodes_values")] == ["model.rows"]


@pytest.mark.parametrize("name", ["z0", "cents", "sparse"])
def test_a_dump_of_a_column_is_found(name: str) -> None:
    values = np.sort(batch().column(name).to_numpy()[500:700]).astype(np.float32)
    assert name in {finding.column for finding in examined(values)}


def test_nine_values_of_a_column_are_no_dump() -> None:
    assert examined(batch().column("z0").to_numpy()[500:509].astype(np.float32)) == []


def test_one_number_for_each_row_is_found() -> None:
    assert [f.rule for f in examined(np.random.default_rng(4).random((ROWS, 1), np.float32))] == ["model.per-record"]


@pytest.mark.parametrize("name", ["level", "lattice1"])
@pytest.mark.parametrize("start", [700, (1 << 14) - 20])  # the second goes on in the next batch
def test_values_in_the_order_of_the_rows_are_found(name: str, start: int) -> None:
    values = batch().column(name).to_numpy()[start : start + 40].astype(np.float32)
    among = np.random.default_rng(2).normal(50, 10, 20_001).round(1).astype(np.float32)
    among[100:140] = values
    for array in (among, np.stack([values, values[::-1]], axis=1)):
        (found,) = [each for each in examined(array) if each.column == name]
        assert found.rule == "model.column" and found.bits > 60 and "order of the rows" in found.message
        assert 20 <= found.cells <= 43


def test_the_same_values_in_another_order_say_nothing() -> None:
    values = batch().column("level").to_numpy()[700:900].astype(np.float32)
    assert examined(np.random.default_rng(5).permutation(values)) == []
