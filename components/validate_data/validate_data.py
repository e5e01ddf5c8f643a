"""Check a table against its data contract and write what is wrong with it.

The contract becomes a pandera schema over polars, evaluated lazily so that one run names every
violation. A violation has a column, a rule and a count, never a value: pandera's messages quote the
cells that failed, so none of them is passed on. An invalid table writes its report and exits 1.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import contract as data_contract
from contract import Column, Contract, Refusal

if TYPE_CHECKING:
    import pandera.polars as pa
    import polars as pl

Violation = dict[str, Any]

LARGEST = 3.4028234e38  # models take float32; what is beyond would reach them as infinity
UNDECLARED = "(not in the contract)"  # never by name: a table without a header row has values for names


def schema(contract: Contract) -> pa.DataFrameSchema:
    """The contract in pandera's terms; the checks carry our names of the rules."""
    import pandera.polars as pa

    types = data_contract.polars_types()
    columns = {
        name: pa.Column(
            types[column.type],
            checks(column),
            nullable=column.nullable,
            unique=column.unique,
            required=column.required,
        )
        for name, column in contract.columns.items()
    }
    return pa.DataFrameSchema(columns)


def checks(column: Column) -> list[pa.Check]:
    """The rules on a column's values; nulls pass all of them and are the business of `nullable`."""
    import pandera.polars as pa
    import polars as pl

    found = []
    if column.type == "number":
        found.append(_expression("finite", lambda value: value.abs() <= LARGEST))
    if column.min is not None:
        found.append(pa.Check.ge(column.min, error="min"))
    if column.max is not None:
        found.append(pa.Check.le(column.max, error="max"))
    if column.allowed is not None:
        found.append(pa.Check.isin(column.allowed, error="allowed"))
    if column.pattern is not None:
        whole = f"^(?:{column.pattern})$"
        try:
            pl.Series([""]).str.contains(whole)
        except pl.exceptions.ComputeError:
            raise Refusal(f"columns.{column.name}.pattern: look-around and back references do not work") from None
        found.append(_expression("pattern", lambda value: value.str.contains(whole)))
    return found


def _expression(rule: str, test: Any) -> pa.Check:
    import pandera.polars as pa
    import polars as pl

    return pa.Check(lambda data: data.lazyframe.select(test(pl.col(data.key))), name=rule, error=rule)


def violations(table: pl.DataFrame, contract: Contract) -> list[Violation]:
    """Every violation of the contract, sorted by column and rule."""
    from pandera.errors import SchemaErrors

    found: list[Violation] = []
    if table.height < contract.min_rows:
        found.append({"column": "(rows)", "rule": "min_rows", "count": contract.min_rows - table.height})
    if undeclared := set(table.columns) - set(contract.columns):
        found.append({"column": UNDECLARED, "rule": "unexpected", "count": len(undeclared)})
    try:
        schema(contract).validate(table, lazy=True)
    except SchemaErrors as errors:
        found += [_violation(error, table.height) for error in errors.schema_errors]
    mistyped = {violation["column"] for violation in found if violation["rule"] == "type"}
    found = [violation for violation in found if violation["rule"] == "type" or violation["column"] not in mistyped]
    return sorted(found, key=lambda violation: (violation["column"], violation["rule"]))


def _violation(error: Any, rows: int) -> Violation:
    """One of pandera's errors, reduced to column, rule and count."""
    reason = error.reason_code.name
    if reason == "COLUMN_NOT_IN_DATAFRAME":
        return {"column": str(error.failure_cases), "rule": "missing", "count": rows}
    rules = {"SERIES_CONTAINS_NULLS": "nullable", "SERIES_CONTAINS_DUPLICATES": "unique", "WRONG_DATATYPE": "type"}
    rule = rules.get(reason) or str(getattr(error.check, "error", None) or "check")
    count = rows if isinstance(error.failure_cases, str) else len(error.failure_cases)
    return {"column": str(error.schema.name), "rule": rule, "count": count}


def report(table: pl.DataFrame, contract: Contract) -> dict[str, Any]:
    """The content of validation.json."""
    found = violations(data_contract.normalise(table, contract), contract)
    return {
        "version": 1,
        "valid": not found,
        "contract": contract.identity,
        "rows": table.height,
        "columns": table.width,
        "violations": found,
    }


def validate(table: Path, contract: Path, validation: Path) -> None:
    document = report(data_contract.read_parts(table), data_contract.load(contract))
    data_contract.write_json(validation, document)
    for found in document["violations"]:
        print(f"  {found['column']}: {found['rule']} ({found['count']})", file=sys.stderr)
    if not document["valid"]:
        raise Refusal("the table breaks its contract as listed; correct the data or review the contract")
    print(f"{document['rows']} rows, {document['columns']} columns: valid")


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Check a table against its data contract.")
    parser.add_argument("--table", type=Path, required=True, help="folder of Parquet parts")
    parser.add_argument("--contract", type=Path, required=True, help="data contract, YAML")
    parser.add_argument("--validation", type=Path, required=True, help="report to write, JSON")
    arguments = parser.parse_args(argv)
    code: int = data_contract.guarded("validate_data", lambda: validate(**vars(arguments)))
    return code


if __name__ == "__main__":
    sys.exit(main())
