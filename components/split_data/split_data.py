"""Divide a validated table into a training and a test part, for good.

The rule. What may not be torn apart is a *unit*: where the contract declares the key `unique`, the
row's features, so that identical rows go together whatever their keys; otherwise the key, so that all
rows of one patient go together. A unit lies in the test part if and only if

    BLAKE2b(unit, keyed with the seed), read as a fraction of 2^64, < test_fraction.

Why so. A row may not change sides when other rows arrive, and that is possible only if its side
depends on nothing but the row itself (were it to depend on the others, some set of newcomers would move
it). Hence one fixed threshold, and no quota that is filled row by row.

What it guarantees.
- Growth: adding rows, in any order and in any number of parts, moves no row to the other side.
- No duplicate on both sides: features are compared as float32 and text, as the model sees them. Where
  units are keys, a training row whose features also lie in the test part is left out, and counted.
- Strata: the hash knows nothing of the target, which is no feature, so in every class the test share is
  binomial around test_fraction. The step refuses a share of the units more than 4.5 standard deviations off
  (by chance 1 in 150,000) and a class with fewer than k rows on either side.
- A larger test_fraction only moves rows from training to test; another seed is another division.
- The rows of a part are in the order of their hash, so the same rows give the same bytes.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import math
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import contract as data_contract
from contract import Contract, Refusal

if TYPE_CHECKING:
    import polars as pl

DEVIATIONS = 4.5
ROW_GROUP = 65_536


def contents(table: pl.DataFrame, contract: Contract) -> list[bytes]:
    """The features of each row as bytes, equal exactly if a model cannot tell the rows apart."""
    import numpy as np

    arrays = data_contract.model_inputs(table, ((column.name, column.type) for column in contract.features))
    numbers = [array for array in arrays.values() if array.dtype != object]
    texts = [array for array in arrays.values() if array.dtype == object]
    # Adding zero makes -0.0 and 0.0 one; the byte order is fixed so that every machine agrees.
    block = np.hstack(numbers).astype("<f4") + np.float32(0) if numbers else np.empty((table.height, 0), "<f4")
    rows = [row.tobytes() for row in block]
    if texts:
        rows = [row + json.dumps(list(text)).encode() for row, text in zip(rows, np.hstack(texts), strict=True)]
    return rows


def fractions(units: list[bytes], seed: int) -> list[float]:
    """A number in [0, 1) for each unit, uniform and independent of everything but the unit and the seed."""
    key = str(seed).encode()
    digests = (hashlib.blake2b(unit, digest_size=8, key=key).digest() for unit in units)
    return [(int.from_bytes(digest, "big") >> 11) / 2**53 for digest in digests]


def place(table: pl.DataFrame, contract: Contract, fraction: float, seed: int) -> pl.DataFrame:
    """The rows with their place in [0, 1) and their side, in the order of their place.

    The two columns are called `(place)` and `(test)`, as no column of a contract can be.
    """
    import polars as pl

    content = contents(table, contract)
    by_key = not contract.columns[contract.key].unique
    places = fractions([str(key).encode() for key in table[contract.key]] if by_key else content, seed)
    within = [value < fraction for value in places]
    tested = {row for row, test in zip(content, within, strict=True) if test} if by_key else set()
    kept = [test or row not in tested for row, test in zip(content, within, strict=True)]
    # The remaining columns break ties, so that the order of arrival never shows.
    order = ["(place)", contract.key, *(name for name in table.columns if name != contract.key)]
    placed = table.with_columns(pl.Series("(place)", places), pl.Series("(test)", within))
    return placed.filter(pl.Series(kept, dtype=pl.Boolean)).sort(order, nulls_last=True)


def split(table: pl.DataFrame, contract: Contract, fraction: float, seed: int) -> tuple[pl.DataFrame, pl.DataFrame]:
    """The training and the test part by the rule above, refused where a class does not survive it."""
    import polars as pl

    placed = place(table, contract, fraction, seed)
    check_strata(placed, contract, fraction)
    train, test = (placed.filter(pl.col("(test)") == side).select(table.columns) for side in (False, True))
    return train, test


def check_strata(placed: pl.DataFrame, contract: Contract, fraction: float) -> None:
    """Refuse a division that leaves too little of a class; a regression has one stratum, all rows."""
    import polars as pl

    strata = {"the table": placed}
    if contract.classes:
        target = placed[contract.target].cast(pl.String)
        strata = {f"class {name}": placed.filter(target == name) for name in contract.classes}
    for name, rows in strata.items():
        tested = int(rows["(test)"].sum())
        if min(tested, rows.height - tested) < contract.k:
            raise Refusal(f"{name} has fewer than k={contract.k} rows on a side; bring more rows or another fraction")
        units = rows.unique("(place)")
        share, spread = units["(test)"].mean(), math.sqrt(fraction * (1 - fraction) / units.height)
        if not isinstance(share, float) or abs(share - fraction) > DEVIATIONS * spread:
            raise Refusal(f"the test part holds a share of {name} that is far from its fraction; use another seed")


def check_validation(validation: Path, contract: Contract, rows: int) -> None:
    """Refuse unless this very contract was found to hold for a table of this size."""
    try:
        report = json.loads(validation.read_text(encoding="utf-8"))
        valid, sha256, counted = report["valid"], report["contract"]["sha256"], report["rows"]
    except (OSError, ValueError, KeyError, TypeError):
        raise Refusal("the validation report cannot be read; run validate_data first") from None
    if valid is not True:
        raise Refusal("the validation report says that the table breaks its contract; mend the data first")
    if sha256 != contract.sha256:
        raise Refusal("the table was validated against another contract; validate it against this one")
    if counted != rows:
        raise Refusal("the validation report is about another table; validate this one")


def run(
    table: Path, validation: Path, contract: Path, train: Path, test: Path, test_fraction: float, seed: int
) -> None:
    if not 0.05 <= test_fraction <= 0.5:
        raise Refusal("the test fraction must lie between 0.05 and 0.5")
    agreed = data_contract.load(contract)
    rows = data_contract.read_table(table, agreed)
    check_validation(validation, agreed, rows.height)
    parts = split(rows, agreed, test_fraction, seed)
    for part, folder in zip(parts, (train, test), strict=True):
        folder.mkdir(parents=True, exist_ok=True)
        part.write_parquet(folder / "part-00000.parquet", compression="zstd", row_group_size=ROW_GROUP)
    left_out = rows.height - sum(part.height for part in parts)
    few = f"fewer than {agreed.k}" if 0 < left_out < agreed.k else str(left_out)
    print(f"train {parts[0].height} rows, test {parts[1].height} rows, left out of train as duplicates: {few}")


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Divide a validated table into a training and a test part.")
    parser.add_argument("--table", type=Path, required=True, help="folder of Parquet parts")
    parser.add_argument("--validation", type=Path, required=True, help="report of validate_data, JSON")
    parser.add_argument("--contract", type=Path, required=True, help="data contract, YAML")
    parser.add_argument("--train", type=Path, required=True, help="folder to write the training part to")
    parser.add_argument("--test", type=Path, required=True, help="folder to write the test part to")
    parser.add_argument("--test-fraction", type=float, default=0.2, help="share of the rows held out")
    parser.add_argument("--seed", type=int, default=20260101, help="key of the hash")
    arguments = parser.parse_args(argv)
    code: int = data_contract.guarded("split_data", lambda: run(**vars(arguments)))
    return code


if __name__ == "__main__":
    sys.exit(main())
