"""Private values and rows are found in text however they are printed, and what may leave passes."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from edgeml.airlock.evidence import RULES, examiner
from edgeml.airlock.finding import Text
from edgeml.airlock.private import Private
from tests.airlock.private_table import NUMBERS, examine, examined, legitimate, log, private, rules, table

Row = tuple[float, ...]


class Given:
    """A table as a frame and as the gate opens it."""

    def __init__(self, rows: int, folder: Path) -> None:
        self.frame = table(rows, seed=rows)
        self.numbers = self.frame.select(NUMBERS)
        self.private: Private = private(self.frame, folder)


@pytest.fixture(scope="module", params=[300, 6000])
def given(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Given:
    return Given(request.param, tmp_path_factory.mktemp("private"))


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Given:
    return Given(300, tmp_path_factory.mktemp("private"))


def _inside(text: str, line: str) -> str:
    at = text.index("\n", len(text) // 2) + 1
    return text[:at] + line + "\n" + text[at:]


def _named(frame: pl.DataFrame) -> str:
    return json.dumps(frame.to_dicts(), sort_keys=True)


PRINTED: dict[str, Callable[[pl.DataFrame], str]] = {
    "csv": lambda rows: rows.write_csv(),
    "one line": lambda rows: str(list(rows.row(0))),
    "two decimals": lambda rows: "\n".join("  ".join(f"{cell:.2f}" for cell in row) for row in rows.rows()),
    "three digits": lambda rows: ",".join(f"{cell:.3g}" for cell in rows.row(0)),
    "scientific": lambda rows: " ".join(f"{cell:.3E}" for cell in rows.row(0)),
    "decimal commas": lambda rows: ";".join(str(cell).replace(".", ",") for cell in rows.row(0)),
    "float32": lambda rows: " ".join(str(np.float32(cell)) for cell in rows.row(0)),
    "a percent": lambda rows: " ".join(f"{cell:.1f}" for cell in rows.row(0)[:-1]) + f" {rows.row(0)[-1]:.2%}",
    "full width": lambda rows: " ".join(map(str, rows.row(0))).translate({48 + i: 0xFF10 + i for i in range(10)}),
    "in a log": lambda rows: _inside(log(100_000), f"row {list(rows.row(0))}"),
    "records by name": _named,
    "five named cells": lambda rows: _named(rows.select("score", "bmi", "income", "crp", "age").head(1)),
    "assignments": lambda rows: " ".join(f"{name}={cell}" for name, cell in rows.to_dicts()[0].items()),
    "column by column": lambda rows: json.dumps({name: dict(enumerate(rows[name])) for name in NUMBERS}),
    "lists by column": lambda rows: json.dumps(rows.to_dict(as_series=False), indent=1),
    "transposed": lambda rows: "\n".join(" ".join(map(str, rows[name])) for name in NUMBERS),
    "a number a line": lambda rows: "".join(f"INFO step {at} v {cell}\n" for at, cell in enumerate(rows.row(0))),
    "slow drip": lambda rows: "".join(
        f"INFO step {at} v={cell}\n{log(9000).splitlines()[at]}\n" for at, cell in enumerate(rows.row(0))
    ),
    "shuffled": lambda rows: " ".join(
        str(rows.row(0)[at]) for at in np.random.default_rng(3).permutation(len(NUMBERS))
    ),
    "one long line": lambda rows: log(1_000_000).replace("\n", " ") + ",".join(map(str, rows.row(0))),
}


@pytest.mark.parametrize("how", PRINTED)
def test_rows_are_found_however_printed(given: Given, how: str) -> None:
    found = examine(given.private, PRINTED[how](given.numbers.slice(20, 5)))
    assert rules(found) & {"private-rows", "private-row-in-any-order"}, how
    assert all(finding.bits >= 15 for finding in found if finding.rule == "private-rows")


@pytest.mark.parametrize("seed", range(3))
def test_what_may_leave_passes_with_a_margin(given: Given, seed: int) -> None:
    for kind, text in legitimate(given.frame, seed).items():
        made = examined(given.private, text, file="outputs.txt")
        assert made.findings() == [], kind
        strongest = made.strongest
        if strongest > -math.inf:
            print(f"{given.private.rows} rows, {kind}: strongest evidence {strongest:.1f} bits")
        assert strongest <= 5, kind


def test_rows_of_another_table_pass(given: Given) -> None:
    """Rows of the same clinic's other table are as near to private ones as anything legitimate comes."""
    other = table(2000, seed=77).select(NUMBERS)
    for text in (other.write_csv(), "\n".join(" ".join(f"{cell:.2f}" for cell in row) for row in other.rows())):
        made = examined(given.private, text)
        assert not rules(made.findings()) & {"private-rows", "private-row-in-any-order"}
        print(f"{given.private.rows} rows, another table: strongest evidence {made.strongest:.1f} bits")
        assert made.strongest <= 5


def test_the_weakest_leak_is_far_from_what_may_leave(small: Given) -> None:
    leak = min(
        max(finding.bits for finding in examine(small.private, make(small.numbers.slice(9, 3))))
        for how, make in PRINTED.items()
        if how not in ("shuffled",)
    )
    print(f"weakest printed row: {leak:.1f} bits")
    assert leak >= 35


def test_rows_that_k_rows_share_are_no_ones(tmp_path: Path) -> None:
    frame = table(300)
    same = pl.concat([frame.head(290), *[frame.tail(1)] * 10])
    shared, alone = same.select(NUMBERS).row(299), same.select(NUMBERS).row(7)
    opened = private(same, tmp_path)
    assert examine(opened, " ".join(map(str, shared))) == []
    assert "private-rows" in rules(examine(opened, " ".join(map(str, alone))))


@pytest.mark.parametrize(
    "text",
    [
        "categories: ['Leeds', 'Ripon']",
        '{"x0_Ripon": 0.2}',
        "RIPON",
        '["Leeds","Reading"]',
        "mail to T17.PERSON@MAIL.TEST now",
        "name: aisha testname",
    ],
)
def test_rare_values_are_found(given: Given, text: str) -> None:
    if text.startswith("name"):
        text = f"seen: {given.frame['name'][41]}."
    assert "rare-value" in rules(examine(given.private, text))


@pytest.mark.parametrize(
    "text",
    [
        "Leeds, York and Hull",
        "reading the file",
        "Cedar",
        "ill or well",
        "0001",
        "P99",
        "Testname",
        "mail.test",
        "",
        "\n",
    ],
)
def test_values_of_many_rows_public_ones_and_plain_words_pass(given: Given, text: str) -> None:
    assert examine(given.private, text) == []


def test_rare_values_are_found_in_file_names(given: Given) -> None:
    found = examine(given.private, "", file=f"plots/{given.frame['patient_id'][5]}.json")
    assert [(finding.rule, finding.place) for finding in found] == [("rare-value", "the file's name")]


def test_a_dump_of_all_codes_is_no_chance(given: Given) -> None:
    found = examine(given.private, ",".join(given.frame["patient_id"]))
    assert [(finding.rule, finding.cells) for finding in found] == [("rare-value", given.private.rows)]


def test_short_codes_pass_among_so_many_of_their_shape(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    frame = pl.DataFrame({"patient_id": [f"{code:04x}" for code in random.permutation(65536)[:6000]]})
    assert examine(private(frame, tmp_path), log(200_000)) == []


def test_notes_are_found_by_four_words_but_vocabularies_are_not(given: Given) -> None:
    note = given.frame["note"][3]
    assert rules(examine(given.private, f"free text: {note}")) == {"private-phrase"}
    words = note.split()
    assert examine(given.private, json.dumps(words)) == []
    assert examine(given.private, "\n".join(words)) == []
    assert examine(given.private, ",".join(words)) == []


def test_named_cells_are_found_and_named_means_are_not(given: Given) -> None:
    score = given.frame["score"]
    assert "named-cell" in rules(examine(given.private, f"score_max = {score.max()}"))
    assert "named-cell" in rules(examine(given.private, f'{{"score.median": {score.sort()[7]}}}'))
    assert examine(given.private, f"score_mean = {score.mean()}") == []
    assert examine(given.private, f"loss_max = {score.max()}") == []
    assert examine(given.private, f"age_max = {given.frame['age'].max()}") == []  # ages fill their lattice


@pytest.mark.parametrize("column", ["score", "risk", "income"])
def test_dumped_columns_are_found_in_any_order(given: Given, column: str) -> None:
    values = given.frame[column].shuffle(seed=1)[:60].to_list()
    found = examine(given.private, "\n".join(map(str, values)))
    assert ("column-dump", column) in {(finding.rule, finding.column) for finding in found}
    assert examine(given.private, "\n".join(map(str, values[:6]))) == []


def test_findings_hold_no_value(given: Given) -> None:
    row = given.frame.row(33)
    found = examine(given.private, " ".join(map(str, row)))
    assert found
    told = json.dumps([finding._replace(file="") for finding in found])
    assert not [cell for cell in map(str, row) if len(cell) > 4 and cell in told]


def test_a_null_in_a_row_does_not_hide_it(tmp_path: Path) -> None:
    frame = table(300).with_columns(pl.when(pl.int_range(300) != 40).then(pl.col("bmi")).alias("bmi"))
    cells = ["nan" if cell is None else str(cell) for cell in frame.select(NUMBERS).row(40)]
    found = examine(private(frame, tmp_path), " ".join(cells))
    assert max(finding.cells for finding in found) == len(NUMBERS) - 1


def test_large_texts_and_a_million_numbers_are_examined(small: Given) -> None:
    row = " ".join(map(str, small.numbers.row(8)))
    numbers = " ".join(map(str, np.random.default_rng(0).normal(size=300_000).round(5)))
    assert "private-rows" in rules(
        examine(small.private, log(3_000_000), f"{numbers} {row}", "1" * 1_000_000, "[" * 99_999)
    )


def test_texts_do_not_run_into_one_another(small: Given) -> None:
    row = small.numbers.row(8)
    halves = [" ".join(map(str, row[:3])), " ".join(map(str, row[3:6]))]
    assert "private-rows" not in rules(examine(small.private, *halves))


def test_a_finding_names_file_and_line(small: Given) -> None:
    text = "first\nsecond\n" + " ".join(map(str, small.numbers.row(8)))
    made = examiner([Text("a.log", "", "nothing"), Text("b.log", "stdout", text)], small.private)
    for batch in small.private.batches():
        made.feed(batch)
    found = next(finding for finding in made.findings() if finding.rule == "private-rows")
    assert (found.file, found.place, found.rows) == ("b.log", "stdout, line 3", 1)


def test_no_signature_lets_rows_out() -> None:
    assert {rule.id for rule in RULES if rule.waivable} == {"named-cell"}
    assert len({rule.id for rule in RULES}) == len(RULES)
