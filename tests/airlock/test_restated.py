"""Statistics of single rows as people print them, told by the rules of disclosure."""

from __future__ import annotations

import json

import pytest

from edgeml.airlock import disclosure, restated
from edgeml.airlock.finding import Artifact
from edgeml.airlock.private import Private
from tests.airlock import private_table

ROWS = 200


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Private:
    return private_table.private(private_table.table(ROWS), tmp_path_factory.mktemp("restated"))


def rules(table: Private, text: str, form: str = "text") -> set[str]:
    artifact = Artifact("run.log", form, text.encode())
    told = restated.of([artifact], table)
    assert all(json.loads(one.data) for one in told)
    return {finding.rule for finding in disclosure.check(told, table)}


INCOME = int(private_table.table(ROWS)["income"].max())  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "line",
    [
        f"INFO income max {INCOME}",
        f"The largest of income is {INCOME}.",
        f"maximum income: {INCOME}\n",
        f"| Income (max) = {INCOME} |",
    ],
)
def test_an_extreme_in_a_sentence_is_told(table: Private, line: str) -> None:
    assert rules(table, f"epoch 1 loss 0.5\n{line}\nepoch 2 loss 0.4") == {"extreme-of-individuals"}


@pytest.mark.parametrize(
    "line",
    [
        "INFO income max 1000000",  # nobody's
        "age min 18, age max 120",  # declared by the contract
        f"INFO rows max {INCOME}",
        f"INFO income 17 max_depth {INCOME}",
        "max loss 0.5",
    ],
)
def test_other_sentences_with_an_extreme_are_not(table: Private, line: str) -> None:
    assert rules(table, line) == set()


@pytest.mark.parametrize("matrix", ["[[61, 4], [1, 53]]", "[[61 4]\n [ 1 53]]"])
def test_a_confusion_matrix_in_a_log_is_told(table: Private, matrix: str) -> None:
    assert rules(table, f"done\nconfusion matrix:\n{matrix}\n") == {"small-count"}
    safe = matrix.replace("61", "11").replace("4", "14").replace("1, 53", "0, 53").replace(" 1 53", " 0 53")
    assert rules(table, f"done\nconfusion matrix:\n{safe}\n") == set()
    assert rules(table, f"weights: {matrix}") == set()


def test_extremes_beside_a_list_of_names_are_told(table: Private) -> None:
    scaler = {"features": ["age", "income"], "data_max_": [120, INCOME], "mean_": [50, 31000.5]}
    assert rules(table, json.dumps({"scalers": [scaler]}), "json") == {"extreme-of-individuals"}
    assert rules(table, json.dumps({**scaler, "data_max_": [120, 1_000_000]}), "json") == set()


@pytest.mark.parametrize("header", ["", "id,score\n"])
def test_a_file_of_numbers_with_a_line_for_each_row_is_told(table: Private, header: str) -> None:
    lines = [f"{n},{n / 7:.4f}" for n in range(ROWS)]
    assert rules(table, header + "\n".join(lines)) == {"per-record-output"}
    assert rules(table, header + "\n".join(lines[:-3])) == set()
    assert rules(table, header + "\n".join([*lines[:-1], "done"])) == set()
    assert rules(table, "second,load\n" + "\n".join(lines)) == set()


def test_a_large_log_takes_no_time_to_speak_of(table: Private) -> None:
    import time

    text = private_table.log(1_000_000).replace("loss=", "max loss=")
    started = time.process_time()
    restated.of([Artifact("run.log", "text", text.encode())], table)
    assert time.process_time() - started < 1
