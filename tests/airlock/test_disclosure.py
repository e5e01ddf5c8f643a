"""Statistics of single rows are told, those of k rows and more pass."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgeml.airlock.disclosure import RULES, check
from edgeml.airlock.finding import Artifact, Finding
from edgeml.airlock.private import Private
from tests.airlock.private_table import NUMBERS, private, rules, table

ROWS = 400
FRAME = table(ROWS, seed=2)
RANDOM = np.random.default_rng(1)


@pytest.fixture(scope="module")
def given(tmp_path_factory: pytest.TempPathFactory) -> Private:
    return private(FRAME, tmp_path_factory.mktemp("private"))


def told(given: Private, document: Any, name: str = "metrics.json") -> list[Finding]:
    text = document if isinstance(document, str) else json.dumps(document)
    return check([Artifact(name, "json", text.encode())], given)


def described(digits: int = 17) -> dict[str, dict[str, float]]:
    quantile = {"min": 0.0, "25%": 0.25, "50%": 0.5, "75%": 0.75, "max": 1.0}
    return {
        name: {
            "count": ROWS,
            "mean": float(FRAME[name].mean()),
            **{key: float(f"{FRAME[name].quantile(part, 'linear'):.{digits}g}") for key, part in quantile.items()},
        }
        for name in NUMBERS
    }


BAD: dict[str, tuple[str, Any]] = {
    "a small group": ("small-count", {"groups": {"one": {"n": 4, "mean": 3.2}}}),
    "rows as a float": ("small-count", {"n_rows": 3.0}),
    "a confusion matrix": ("small-count", {"confusion_matrix": [[120, 3], [11, 80]]}),
    "true positives": ("small-count", {"tp": 3, "fp": 0, "fn": 20}),
    "counts by value": ("small-count", {"town_counts": {"Leeds": 40, "Ripon": 4}}),
    "a histogram": ("small-count", {"age": {"counts": [40, 30, 9]}}),
    "as many as rows": ("per-record-output", {"x": list(range(ROWS))}),
    "a key for each row": ("per-record-output", {str(row): 0.5 for row in range(ROWS)}),
    "predictions": ("per-record-output", {"predictions": RANDOM.random(60).tolist()}),
    "y_pred": ("per-record-output", {"test": {"y_pred": RANDOM.random(60).tolist()}}),
    "rows on each line": ("per-record-output", "\n".join(json.dumps({"p": row / 7}) for row in range(ROWS))),
    "a maximum": ("extreme-of-individuals", {"income": {"max": FRAME["income"].max()}}),
    "a maximum by one key": ("extreme-of-individuals", {"bmi.max": FRAME["bmi"].max()}),
    "a minimum in a list": ("extreme-of-individuals", {"score": {"range": [FRAME["score"].min(), 10]}}),
    "a description": ("extreme-of-individuals", described()),
    "a median": ("extreme-of-individuals", {"score": {"median": float(FRAME["score"].sort()[200])}}),
    "a dominated total": ("dominated-total", {"site": {"sum": 1000.0, "max": 950.0, "n": 20}}),
    "a full fit": ("degrees-of-freedom", {"fit": {"df_resid": 3}}),
    "a full curve": ("full-curve", {"roc": {"thresholds": RANDOM.random(300).tolist()}}),
}
GOOD: dict[str, Any] = {
    "metrics": {"roc_auc": 0.91, "n_train": 300, "n_test": 100, "epochs": 5, "n_estimators": 5, "min_samples_leaf": 5},
    "settings": {"n_jobs": 2, "batch_size": 8, "warnings_count": 2, "n_features": 7, "max_depth": 3, "k": 5, "seed": 1},
    "zero": {"confusion_matrix": [[120, 13], [0, 80]], "n_missing": 0},
    "a report": {"ill": {"precision": 0.9, "recall": 0.8, "f1-score": 0.85, "support": 80}},
    "a curve": {"roc": {"fpr": RANDOM.random(51).tolist(), "tpr": RANDOM.random(51).tolist()}},
    "losses": {"loss": RANDOM.random(100).tolist()},
    "scaler": {name: {"mean": float(FRAME[name].mean()), "std": float(FRAME[name].std())} for name in NUMBERS},
    "bounds of the contract": {"age": {"min": 18, "max": 120}},
    "a schema": {"columns": {name: {"type": "number", "min": 0, "max": 100000} for name in NUMBERS}},
    "rounded": {"income": {"max": 200000}, "age": {"min": 20, "max": 90}},
    "quantiles of many": {"age": {"median": 56}, "bmi": {"quantiles": [21.0, 26.0, 31.0]}},
    "a histogram": {"age": {"edges": [18, 30, 45, 60, 75, 95], "counts": [60, 70, 60, 50, 60]}},
    "a large total": {"site": {"sum": 1000.0, "max": 90.0, "n": 20}},
    "a fit": {"df_resid": 370},
    "folds": [{"fold": fold, "auc": 0.9} for fold in range(10)],
    "empty": {},
}


@pytest.mark.parametrize("kind", BAD)
def test_statistics_of_single_rows_are_told(given: Private, kind: str) -> None:
    rule, document = BAD[kind]
    assert rule in rules(told(given, document))


@pytest.mark.parametrize("kind", GOOD)
def test_statistics_of_many_rows_pass(given: Private, kind: str) -> None:
    assert told(given, GOOD[kind]) == []


def test_a_printed_description_is_read(given: Private) -> None:
    rows = described()
    lines = ["      " + "".join(f"{name:>16}" for name in NUMBERS)]
    lines += [f"{key:6}" + "".join(f"{rows[name][key]:16.6f}" for name in NUMBERS) for key in rows["age"]]
    found = told(given, "\n".join(lines), "out.txt")
    assert {finding.column for finding in found} >= {"income", "score", "bmi", "weight"}
    assert {finding.place for finding in found} >= {"line 4", "line 8"}


def test_places_tell_no_key_that_could_be_a_value(given: Private) -> None:
    found = told(given, {"groups": {FRAME["name"][3]: {"n": 4}}})
    assert [finding.place for finding in found] == ["$.groups.*.n"]


@pytest.mark.parametrize(
    "text", ["", "{", "[" * 100_000, "not json", '{"n": NaN}', '{"n": 1e999999}', "\ufeff{}", "[1,2"]
)
def test_what_is_no_json_is_no_error(given: Private, text: str) -> None:
    told(given, text)


def test_k_is_the_contracts(given: Private, tmp_path: Path) -> None:
    other = private(FRAME, tmp_path)
    text = (tmp_path / "contract.yml").read_text() + "k: 5\n"
    (tmp_path / "contract.yml").write_text(text)
    from edgeml.airlock.private import open_private
    from edgeml.contract import load

    five = open_private([tmp_path / "table.parquet"], load(tmp_path / "contract.yml"))
    assert told(other, {"n_rows": 7}) and not told(five, {"n_rows": 7}) and told(five, {"n_rows": 4})


def test_every_rule_has_a_bad_example() -> None:
    assert {rule for rule, _ in BAD.values()} == {rule.id for rule in RULES}
