"""Rows stored in arrays are found verbatim, in either order, with the rows that fit counted."""

from __future__ import annotations

import numpy as np
import pytest

from edgeml.airlock.evidence.join import RowIndex

RANDOM = np.random.default_rng(5)
TABLE = RANDOM.normal(size=(5000, 8))


def _matches(numbers: np.ndarray, table: np.ndarray = TABLE, parts: int = 3) -> list[tuple[str, int, int, int, int]]:
    index = RowIndex(numbers, "weights", "model.onnx")
    for part in np.array_split(table, parts):
        index.feed(list(part.T))
    return [tuple(match)[2:] for match in index.matches()]  # type: ignore[misc]


def test_a_stored_row_is_found_where_it_stands() -> None:
    numbers = RANDOM.normal(size=(100, 50)).astype(np.float32)
    numbers[7, 11:19] = TABLE[4321]
    assert _matches(numbers) == [("row", 7 * 50 + 11, 0, 8, 1)]


def test_a_transposed_row_and_part_of_a_row_are_found() -> None:
    numbers = RANDOM.normal(size=(30, 20)).astype(np.float32)
    numbers[4:12, 3] = TABLE[77]
    numbers[20, 5:9] = TABLE[78, 2:6]
    assert _matches(numbers) == [("column", 3 * 30 + 4, 0, 8, 1), ("row", 20 * 20 + 5, 2, 4, 1)]


def test_a_whole_table_is_found_in_any_order_of_its_rows() -> None:
    found = _matches(TABLE[RANDOM.permutation(5000)].astype(np.float32))
    assert len(found) == 5000 and {cells for _, _, _, cells, _ in found} == {8}


def test_rows_that_fit_equally_well_are_counted() -> None:
    table = np.concatenate([TABLE, np.repeat(TABLE[:1], 30, axis=0)])
    numbers = np.concatenate([RANDOM.normal(size=9), TABLE[0], TABLE[1]])
    assert sorted(match[-1] for match in _matches(numbers, table)) == [1, 31]


@pytest.mark.parametrize(
    "numbers", [np.zeros(1000), np.ones((10, 10)), np.array([]), np.full(50, np.nan), np.arange(2)]
)
def test_what_holds_no_row_matches_none(numbers: np.ndarray) -> None:
    assert _matches(numbers) == []
    assert _matches(numbers, np.zeros((100, 8))) == []
    assert _matches(numbers, TABLE[:, :2]) == []


def test_columns_of_few_values_cost_no_more_than_they_tell() -> None:
    table = RANDOM.integers(0, 2, size=(60_000, 6)).astype(float)
    found = _matches(RANDOM.integers(0, 2, size=50_000).astype(np.float32), table, parts=1)
    assert all(rows > 10 for *_, rows in found)


def test_unrelated_weights_do_not_match() -> None:
    assert _matches(RANDOM.normal(size=(1000, 200)).astype(np.float32)) == []
