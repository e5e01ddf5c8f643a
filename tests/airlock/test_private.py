"""The private table: Parquet and CSV, in batches, and what one pass tells of it."""

from __future__ import annotations

from pathlib import Path

import polars as pl
import pytest

from edgeml.airlock.private import Private, open_private
from edgeml.contract import Contract, load
from edgeml.errors import EdgemlError
from tests.airlock.private_table import CONTRACT, private, table


@pytest.fixture
def contract(tmp_path: Path) -> Contract:
    (tmp_path / "contract.yml").write_text(CONTRACT)
    return load(tmp_path / "contract.yml")


def _rows(given: Private) -> list[dict[str, object]]:
    return [row for batch in given.batches(size=100) for row in batch.to_pylist()]


def test_parquet_and_csv_give_the_same_rows(tmp_path: Path, contract: Contract) -> None:
    frame = table(300)
    frame.write_parquet(tmp_path / "a.parquet")
    frame.write_csv(tmp_path / "b.csv")
    one, other = (open_private([tmp_path / name], contract) for name in ("a.parquet", "b.csv"))
    assert _rows(one) == _rows(other)
    assert one.columns == other.columns
    assert one.rows == other.rows == 300
    assert one.columns["outcome"].public and not one.columns["name"].public and not one.columns["age"].public


def test_tables_stream_one_after_the_other_with_the_columns_of_all(tmp_path: Path, contract: Contract) -> None:
    frame = table(300)
    (tmp_path / "parts").mkdir()
    frame.head(200).write_parquet(tmp_path / "parts" / "part-0.parquet")
    frame.slice(200, 50).write_parquet(tmp_path / "parts" / "part-1.parquet")
    frame.tail(50).drop("age").with_columns(pl.lit(1.5).alias("extra")).write_csv(tmp_path / "rest.csv")
    given = open_private([tmp_path / "parts", tmp_path / "rest.csv"], contract)
    assert [named.rows for named in given.tables] == [250, 50]
    rows = _rows(given)
    assert len(rows) == 300 and rows == _rows(given)
    assert (rows[0]["extra"], rows[-1]["extra"], rows[-1]["age"]) == (None, 1.5, None)


def test_all_kinds_of_columns(tmp_path: Path, contract: Contract) -> None:
    frame = table(50).with_columns(
        pl.col("town").cast(pl.Categorical),
        (pl.col("age") > 40).alias("old"),
        pl.lit("2024-03-05T10:00:00").str.to_datetime().alias("seen"),
        pl.Series("tags", [["a"]] * 50),
        pl.col("bmi").cast(pl.Float32),
    )
    given = private(frame, tmp_path / "kinds")
    kinds = {name: column.kind for name, column in given.columns.items()}
    assert [kinds[name] for name in ("town", "old", "seen", "tags", "bmi")] == [
        "string",
        "boolean",
        "time",
        "string",
        "number",
    ]
    assert given.profile.numbers["seen"].low == 1709632800
    assert len(_rows(given)) == 50


def test_the_profile_tells_levels_lattice_and_rarity(tmp_path: Path) -> None:
    given = private(table(6000), tmp_path / "t")
    numbers, strings = given.profile
    assert (numbers["age"].lattice, numbers["age"].low, numbers["age"].high) == (1.0, 18.0, 94.0)
    assert (numbers["bmi"].lattice, numbers["score"].lattice) == (0.01, 0.0)
    assert numbers["age"].occupancy > 0.9 > 0.2 > numbers["income"].occupancy
    assert numbers["sex"].weights.sum() == pytest.approx(1)
    assert strings["town"].counts is not None and strings["town"].counts["Ripon"] == 4
    assert given.count(["Ripon", "Leeds", "absent"])["town"].keys() == {"Ripon", "Leeds"}


def test_nulls_and_infinities_do_not_disturb_the_profile(tmp_path: Path) -> None:
    frame = table(100).with_columns(pl.Series("score", [None, float("nan"), float("inf"), *[0.5] * 97]))
    numbers = private(frame, tmp_path / "t").profile.numbers["score"]
    assert (numbers.low, numbers.high) == (0.5, 0.5)
    empty = private(frame.with_columns(pl.lit(None).cast(pl.Float64).alias("score")), tmp_path / "u")
    assert empty.profile.numbers["score"].count == 0


def test_what_cannot_be_read_is_told_without_a_value(tmp_path: Path, contract: Contract) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "broken.parquet").write_bytes(b"PAR1 secret-value")
    (tmp_path / "broken.csv").write_text("patient_id,age\nP1,secret-value\n")
    table(5).clear().write_parquet(tmp_path / "none.parquet")
    (tmp_path / "mixed").mkdir()
    table(5).write_parquet(tmp_path / "mixed" / "a.parquet")
    table(5).write_csv(tmp_path / "mixed" / "b.csv")
    for name in ("absent.parquet", "empty", "broken.parquet", "broken.csv", "none.parquet", "mixed", "contract.yml"):
        with pytest.raises(EdgemlError) as told:
            open_private([tmp_path / name], contract)
        assert "secret" not in str(told.value)
    with pytest.raises(EdgemlError):
        open_private([], contract)
