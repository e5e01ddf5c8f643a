"""The data contract, and the check of a table against it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import polars as pl
import pytest

DATA = Path(__file__).parent / "data"
CLINIC = DATA / "contracts" / "clinic.yml"
BAD_CONTRACTS = sorted((DATA / "contracts" / "bad").glob("*.yml"))
BAD_TABLES: dict[str, list[list[Any]]] = json.loads((DATA / "tables" / "bad" / "expected.json").read_text())


@pytest.fixture
def from_csv(tmp_path: Path, parts: Callable[..., Path]) -> Callable[[Path], Path]:
    return lambda path: parts(pl.read_csv(path), tmp_path / "table", 2)


def test_the_corpus_is_whole() -> None:
    assert len(BAD_CONTRACTS) >= 25
    assert {path.stem for path in (DATA / "tables" / "bad").glob("*.csv")} == set(BAD_TABLES)


@pytest.mark.parametrize("path", [CLINIC, DATA.parents[2] / "contracts" / "breast_cancer.yml"], ids=lambda p: p.stem)
def test_good_contract(path: Path, script: Callable[..., ModuleType]) -> None:
    contract = script("contract", "validate_data").load(path)
    assert contract.key not in {column.name for column in contract.features}
    assert contract.target not in {column.name for column in contract.features}
    assert contract.positive in contract.classes and len(contract.sha256) == 64


@pytest.mark.parametrize("path", BAD_CONTRACTS, ids=lambda path: path.stem)
def test_bad_contract_is_refused_by_file_and_key(path: Path, script: Callable[..., ModuleType]) -> None:
    expected = path.read_text().splitlines()[0].removeprefix("# expect: ")
    module = script("contract", "validate_data")
    with pytest.raises(module.Refusal) as refusal:
        module.load(path)
    assert str(refusal.value).startswith(f"{path.name}: ") and expected in str(refusal.value)


def test_good_table(step: Any, from_csv: Callable[[Path], Path], tmp_path: Path) -> None:
    table = from_csv(DATA / "tables" / "good.csv")
    assert step("validate_data", table=table, contract=CLINIC, validation=tmp_path / "v.json").code == 0
    report = json.loads((tmp_path / "v.json").read_text())
    assert report["valid"] is True and report["violations"] == []
    assert (report["rows"], report["columns"]) == (10, 7)
    assert report["contract"]["name"] == "clinic" and report["contract"]["version"] == 3


@pytest.mark.parametrize("name", sorted(BAD_TABLES))
def test_bad_table_is_told_by_column_rule_and_count(
    name: str, step: Any, from_csv: Callable[[Path], Path], tmp_path: Path
) -> None:
    source = DATA / "tables" / "bad" / f"{name}.csv"
    outcome = step("validate_data", table=from_csv(source), contract=CLINIC, validation=tmp_path / "v.json")
    assert outcome.code == 1
    report = json.loads((tmp_path / "v.json").read_text())
    assert report["valid"] is False
    assert [[v["column"], v["rule"], v["count"]] for v in report["violations"]] == BAD_TABLES[name]
    told = (tmp_path / "v.json").read_text() + outcome.out + outcome.err
    planted = (
        "Zebulon atlantis undecided Quentin nickname fortyone sings 913 73 7.125 41.625 1e39 1e+39 C001 C009 118.5"
    )
    assert [value for value in planted.split() if value in told.replace(report["contract"]["sha256"], "")] == []


def test_report_is_a_function_of_the_rows(step: Any, parts: Callable[..., Path], tmp_path: Path) -> None:
    table = pl.read_csv(DATA / "tables" / "bad" / "everything.csv")
    reports = []
    for count in (1, 4):
        folder = parts(table, tmp_path / f"table{count}", count)
        step("validate_data", table=folder, contract=CLINIC, validation=tmp_path / f"{count}.json")
        reports.append((tmp_path / f"{count}.json").read_bytes())
    assert reports[0] == reports[1]


def test_absent_optional_column_and_nan_are_nulls(step: Any, parts: Callable[..., Path], tmp_path: Path) -> None:
    table = (
        pl.read_csv(DATA / "tables" / "good.csv").drop("note").with_columns(pl.col("pressure").fill_null(float("nan")))
    )
    outcome = step("validate_data", table=parts(table, tmp_path / "t"), contract=CLINIC, validation=tmp_path / "v.json")
    assert outcome.code == 0, outcome.err


@pytest.mark.parametrize("damage", ["empty", "broken", "parts that differ"])
def test_unreadable_table(damage: str, step: Any, tmp_path: Path) -> None:
    (tmp_path / "t").mkdir()
    if damage == "broken":
        (tmp_path / "t" / "part-00000.parquet").write_bytes(b"PAR1 Zebulon PAR1")
    if damage == "parts that differ":
        pl.DataFrame({"Zebulon": [1]}).write_parquet(tmp_path / "t" / "part-00000.parquet")
        pl.DataFrame({"Zebulon": ["x"]}).write_parquet(tmp_path / "t" / "part-00001.parquet")
    outcome = step("validate_data", table=tmp_path / "t", contract=CLINIC, validation=tmp_path / "v.json")
    assert outcome.code == 1 and outcome.err.startswith("validate_data: ") and outcome.err.count("\n") == 1
    assert "Zebulon" not in outcome.err and not (tmp_path / "v.json").exists()


def test_pattern_that_the_engine_lacks(step: Any, from_csv: Callable[[Path], Path], tmp_path: Path) -> None:
    contract = tmp_path / "c.yml"
    contract.write_text(CLINIC.read_text().replace('"C[0-9]{3}"', '"C(?=0).*"'))
    table = from_csv(DATA / "tables" / "good.csv")
    outcome = step("validate_data", table=table, contract=contract, validation=tmp_path / "v.json")
    assert outcome.code == 1 and "columns.id.pattern" in outcome.err


def test_unforeseen_error_says_where_but_not_what(
    step: Any, script: Callable[..., ModuleType], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def fail(*_: object) -> None:
        raise ValueError("the cell holds Zebulon")

    monkeypatch.setattr(script("validate_data"), "report", fail)
    table = pl.read_csv(DATA / "tables" / "good.csv")
    (tmp_path / "t").mkdir()
    table.write_parquet(tmp_path / "t" / "part-00000.parquet")
    outcome = step("validate_data", table=tmp_path / "t", contract=CLINIC, validation=tmp_path / "v.json")
    assert outcome.code == 1 and "ValueError at" in outcome.err and "Zebulon" not in outcome.err


def test_as_an_executor_runs_it(command: Any, from_csv: Callable[[Path], Path], tmp_path: Path) -> None:
    for name, code in (("good", 0), ("bad/everything", 1)):
        table = from_csv(DATA / "tables" / f"{name}.csv")
        done = command("validate_data", table=table, contract=CLINIC, validation=tmp_path / "v.json")
        assert done.returncode == code, done.stderr
        assert "Zebulon" not in done.stdout + done.stderr and "Traceback" not in done.stderr
        for part in table.iterdir():
            part.unlink()
        table.rmdir()
