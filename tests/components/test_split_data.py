"""The division into training and test part: what it promises, as properties."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

CONTRACT = """
name: small
version: 1
key: id
target: outcome
task: classification
positive: b
k: 5
columns:
  id: {{type: string{unique}}}
  x: {{type: number, nullable: true}}
  n: {{type: integer}}
  s: {{type: string, nullable: true}}
  outcome: {{type: string, allowed: [a, b], public: true}}
rows: {{min_rows: 1}}
"""

# Few distinct values, so that identical rows abound.
ROW = st.tuples(
    st.sampled_from([0.0, -0.0, 1.5, math.nan, 1e10, -3.25]), st.integers(0, 2), st.sampled_from(["", "é", None])
)
ROWS = st.lists(st.tuples(ROW, st.sampled_from("ab"), st.integers(0, 60)), max_size=40)


@pytest.fixture(scope="module")
def contracts(script: Callable[..., ModuleType], tmp_path_factory: pytest.TempPathFactory) -> dict[bool, Any]:
    """The small contract, by whether its key is unique."""
    folder, found = tmp_path_factory.mktemp("contracts"), {}
    for unique in (True, False):
        path = folder / f"{unique}.yml"
        path.write_text(CONTRACT.format(unique=", unique: true" if unique else ""))
        found[unique] = script("contract", "split_data").load(path)
    return found


def table_of(rows: list[Any], unique: bool) -> pl.DataFrame:
    """Rows as a table; keys are unique, or few and shared."""
    types = {"id": pl.String, "x": pl.Float64, "n": pl.Int64, "s": pl.String, "outcome": pl.String}
    data = [(f"K{index if unique else key}", x, n, s, outcome) for index, ((x, n, s), outcome, key) in enumerate(rows)]
    return pl.DataFrame(data, schema=types, orient="row").with_columns(pl.col("x").fill_nan(None))


def sides(placed: pl.DataFrame) -> dict[str, set[Any]]:
    """What lies on each side: rows as tuples, in the form in which a model sees them equal."""
    seen = placed.with_columns((pl.col("x").cast(pl.Float32) + 0.0).fill_null(math.inf), pl.col("s").fill_null(""))
    return {
        name: {(row["id"], row["x"], row["n"], row["s"]) for row in seen.filter(pl.col("(test)") == test).to_dicts()}
        for name, test in (("train", False), ("test", True))
    }


@settings(max_examples=60, deadline=None)
@given(old=ROWS, new=ROWS, seed=st.integers(0, 9), fraction=st.sampled_from([0.1, 0.3, 0.5]), unique=st.booleans())
def test_growth_moves_no_row(
    script: Any, contracts: Any, old: list[Any], new: list[Any], seed: int, fraction: float, unique: bool
) -> None:
    place = script("split_data").place
    before = sides(place(table_of(old, unique), contracts[unique], fraction, seed))
    after = sides(place(table_of(old + new, unique), contracts[unique], fraction, seed))
    assert before["test"] <= after["test"]
    assert not before["train"] & after["test"]
    if unique:  # otherwise a newcomer of the test part may oust its double from the training part
        assert before["train"] <= after["train"]


@settings(max_examples=60, deadline=None)
@given(rows=ROWS, seed=st.integers(0, 9), unique=st.booleans())
def test_nothing_lies_on_both_sides(script: Any, contracts: Any, rows: list[Any], seed: int, unique: bool) -> None:
    placed = script("split_data").place(table_of(rows, unique), contracts[unique], 0.4, seed)
    side = sides(placed)
    assert not {row[1:] for row in side["train"]} & {row[1:] for row in side["test"]}
    assert not {row[0] for row in side["train"]} & {row[0] for row in side["test"]}
    if unique:
        assert placed.height == len(rows)


@settings(max_examples=40, deadline=None)
@given(rows=ROWS, seed=st.integers(0, 9), unique=st.booleans(), shuffle=st.randoms())
def test_order_of_arrival_does_not_show(
    script: Any, contracts: Any, rows: list[Any], seed: int, unique: bool, shuffle: Any
) -> None:
    table = table_of(rows, unique)
    order = list(range(len(rows)))
    shuffle.shuffle(order)
    place = script("split_data").place
    assert place(table, contracts[unique], 0.3, seed).equals(place(table[order], contracts[unique], 0.3, seed))


def distinct(rows: int, seed: int, positive: float = 0.3) -> pl.DataFrame:
    generator = np.random.default_rng(seed)
    return table_of(
        [
            ((x, n, None), "b" if b else "a", 0)
            for x, n, b in zip(
                generator.normal(size=rows),
                generator.integers(0, 99, rows),
                generator.random(rows) < positive,
                strict=True,
            )
        ],
        True,
    )


@pytest.mark.parametrize("seed", range(8))
def test_every_class_keeps_its_share(seed: int, script: Any, contracts: Any) -> None:
    table = distinct(4000, seed)
    train, test = script("split_data").split(table, contracts[True], 0.25, seed)
    assert train.height + test.height == 4000
    for name in "ab":
        rows = table.filter(pl.col("outcome") == name).height
        share = test.filter(pl.col("outcome") == name).height / rows
        assert abs(share - 0.25) < 4.5 * math.sqrt(0.25 * 0.75 / rows)


def test_seed_and_fraction(script: Any, contracts: Any) -> None:
    table, split = distinct(2000, 1), script("split_data").split
    tests = {
        (fraction, seed): set(split(table, contracts[True], fraction, seed)[1]["id"])
        for fraction, seed in ((0.2, 1), (0.2, 2), (0.4, 1))
    }
    assert tests[0.2, 1] < tests[0.4, 1]  # more test rows: none comes back
    common = len(tests[0.2, 1] & tests[0.2, 2])
    assert 40 < common < 130  # another seed: as unrelated as chance, 80 of 2000


def test_known_division(script: Any) -> None:
    """The rule is a promise to data that were divided years ago: these numbers never change."""
    fractions = script("split_data").fractions([b"", b"row", "é".encode()], 20260101)
    assert [round(value, 6) for value in fractions] == [0.221985, 0.41143, 0.444821]


@pytest.fixture
def validated(
    step: Any, parts: Callable[..., Path], sample_table: pl.DataFrame, sample_contract: Path, tmp_path: Path
) -> dict[str, Path]:
    table = parts(sample_table, tmp_path / "table")
    files = {"table": table, "contract": sample_contract, "validation": tmp_path / "validation.json"}
    assert step("validate_data", **files).code == 0
    return files | {"train": tmp_path / "train", "test": tmp_path / "test"}


def test_sample_and_its_bytes(
    step: Any, parts: Callable[..., Path], sample_table: pl.DataFrame, validated: dict[str, Path], tmp_path: Path
) -> None:
    written = []
    for table in (validated["table"], parts(sample_table.reverse(), tmp_path / "other", 5)):
        assert step("split_data", **validated | {"table": table}).code == 0
        written.append([(validated[side] / "part-00000.parquet").read_bytes() for side in ("train", "test")])
    assert written[0] == written[1]
    train, test = (pl.read_parquet(validated[side] / "*.parquet") for side in ("train", "test"))
    assert train.height + test.height == 569 and train.columns == test.columns
    share = [part["diagnosis"].eq("malignant").mean() for part in (train, test)]
    assert abs(share[0] - share[1]) < 0.05


def change(path: Path, **values: Any) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        ("invalid", "breaks its contract"),
        ("other contract", "another contract"),
        ("other table", "another table"),
        ("no report", "cannot be read"),
        ("half a report", "cannot be read"),
        ("fraction", "between 0.05 and 0.5"),
        ("k", "fewer than k=300 rows on a side"),
        ("missing column", "column mean_area is missing"),
    ],
)
def test_refusals(
    damage: str, reason: str, step: Any, validated: dict[str, Path], sample_contract: Path, tmp_path: Path
) -> None:
    options: dict[str, Any] = dict(validated)
    if damage == "invalid":
        change(validated["validation"], valid=False)
    elif damage == "other table":
        change(validated["validation"], rows=570)
    elif damage == "no report":
        validated["validation"].unlink()
    elif damage == "half a report":
        validated["validation"].write_text('{"valid": true')
    elif damage == "fraction":
        options["test_fraction"] = 0.9
    elif damage in ("other contract", "k"):
        options["contract"] = tmp_path / "contract.yml"
        text = sample_contract.read_text()
        options["contract"].write_text(text.replace("k: 10", "k: 300") if damage == "k" else text + "\n")
        if damage == "k":
            step(
                "validate_data",
                table=validated["table"],
                contract=options["contract"],
                validation=validated["validation"],
            )
    elif damage == "missing column":
        for part in validated["table"].iterdir():
            pl.read_parquet(part).drop("mean_area").write_parquet(part)
    outcome = step("split_data", **options)
    assert outcome.code == 1 and reason in outcome.err and outcome.err.count("\n") == 1
    assert not (tmp_path / "train").exists() and not (tmp_path / "test").exists()


def test_doubles_of_another_key_are_left_out_and_counted(
    step: Any, script: Any, contracts: Any, parts: Callable[..., Path], tmp_path: Path
) -> None:
    """Where patients have several rows, the key holds them together, and identical rows leave the training part."""
    once = distinct(400, 3)
    table = pl.concat([once, once.with_columns(("again-" + pl.col("id")).alias("id"))])
    contract = tmp_path / "contract.yml"
    contract.write_text(CONTRACT.format(unique=""))
    files = {"table": parts(table, tmp_path / "t"), "contract": contract, "validation": tmp_path / "v.json"}
    assert step("validate_data", **files).code == 0
    outcome = step("split_data", **files, train=tmp_path / "train", test=tmp_path / "test")
    assert outcome.code == 0, outcome.err
    train, test = (pl.read_parquet(tmp_path / side / "*.parquet") for side in ("train", "test"))
    left_out = table.height - train.height - test.height
    assert left_out > 50 and f"duplicates: {left_out}" in outcome.out
    assert train.join(test, on=["x", "n"]).height == 0


def test_as_an_executor_runs_it(command: Any, validated: dict[str, Path]) -> None:
    done = command("split_data", **validated)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("train 4") and pl.read_parquet(validated["test"] / "*.parquet").height > 90
