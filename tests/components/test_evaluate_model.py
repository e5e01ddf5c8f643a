"""Metrics, intervals, suppression, and each reason for which a model is not promoted."""

from __future__ import annotations

import itertools
import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import onnx
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from sklearn import metrics as reference


@pytest.fixture(scope="module")
def measures(script: Callable[..., ModuleType]) -> ModuleType:
    return script("measures", "evaluate_model")


def scored(measures: Any, positive: np.ndarray, score: np.ndarray) -> Any:
    predicted = score > 0.5
    return measures.Scored(positive, score, predicted, predicted == positive, np.where(positive, score, 1 - score))


def drawn(seed: int, rows: int, apart: float = 1.5, decimals: int = 2) -> tuple[np.ndarray, np.ndarray]:
    """Truth and probabilities with ties."""
    generator = np.random.default_rng(seed)
    positive = np.arange(rows) < rows * 0.4
    score = 1 / (1 + np.exp(-generator.normal(positive * apart - apart / 2, 1)))
    return positive, np.round(score, decimals)


# --- the numbers ----------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(5))
def test_metrics_are_those_of_scikit_learn(seed: int, measures: Any) -> None:
    positive, score = drawn(seed, 150)
    rows = scored(measures, positive, score)
    found = measures.point(measures.measure(rows), 150)
    assert found == pytest.approx(
        {
            "roc_auc": reference.roc_auc_score(positive, score),
            "average_precision": reference.average_precision_score(positive, score),
            "accuracy": reference.accuracy_score(positive, score > 0.5),
            "f1": reference.f1_score(positive, score > 0.5),
            "brier": reference.brier_score_loss(positive, score),
            "log_loss": reference.log_loss(positive, np.clip(score, 1e-7, 1)),
        },
        rel=1e-4,
    )
    # A resample is weights: the same as repeating rows.
    weights = next(measures.resamples(150, 3, seed))
    at_once = measures.measure(rows)(weights)
    for index, times in enumerate(weights.astype(int)):
        repeated = rows.take(np.repeat(np.arange(150), times))
        alone = measures.point(measures.measure(repeated), len(repeated))
        assert {name: values[index] for name, values in at_once.items()} == pytest.approx(alone)


def test_regression_metrics_are_those_of_scikit_learn(measures: Any) -> None:
    generator = np.random.default_rng(0)
    actual = generator.normal(1e6, 2, 200)
    predicted = actual + generator.normal(0, 1, 200)
    found = measures.point(measures.measure(measures.Valued(actual, predicted)), 200)
    assert found["r2"] == pytest.approx(reference.r2_score(actual, predicted))
    assert found["rmse"] == pytest.approx(reference.root_mean_squared_error(actual, predicted))
    assert found["mae"] == pytest.approx(reference.mean_absolute_error(actual, predicted))


def test_intervals_cover_the_truth(measures: Any) -> None:
    """Of 95 % intervals from 120 rows, about 95 in 100 hold the area that a million rows have."""
    apart, rows, times = 2.0, 120, 150
    truth = reference.roc_auc_score(*drawn(99, 400_000, apart, 6))
    covered = 0
    for seed in range(times):
        part = scored(measures, *drawn(seed, rows, apart, 6))
        values = measures.draws([measures.measure(part)], rows, 300, seed)[0]
        found = measures.estimates(part, values, 0.95)["roc_auc"]
        covered += found["low"] <= truth <= found["high"]
    assert 0.88 * times <= covered < times


def test_a_perfect_score_is_not_certain(measures: Any) -> None:
    positive = np.arange(60) < 20
    rows = scored(measures, positive, np.where(positive, 0.9, 0.1))
    found = measures.estimates(rows, measures.draws([measures.measure(rows)], 60, 200, 0)[0], 0.95)
    assert found["roc_auc"]["value"] == 1 and found["roc_auc"]["low"] == pytest.approx(1 - np.log(40) / 20)
    assert found["accuracy"]["low"] == pytest.approx(1 - np.log(40) / 60)


def test_resamples_do_not_depend_on_the_block(measures: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = np.concatenate(list(measures.resamples(50, 40, 3)))
    assert (whole.sum(axis=1) == 50).all()
    monkeypatch.setattr(measures, "CELLS", 500)
    assert np.array_equal(whole, np.concatenate(list(measures.resamples(50, 40, 3))))


def test_curves_lie_on_a_grid(measures: Any) -> None:
    positive, score = drawn(4, 200, decimals=6)
    found = measures.curves(scored(measures, positive, score), k=10)
    assert len(found["roc"]) == len(found["pr"]) == 51
    for curve in found.values():
        assert np.allclose(np.diff([x for x, _ in curve][1:]), np.diff([x for x, _ in curve][1:])[0])
    x, y = np.array(found["roc"]).T
    assert np.trapezoid(y, x) == pytest.approx(reference.roc_auc_score(positive, score), abs=0.01)
    assert (np.diff(y) >= 0).all() and found["roc"][0] == [0, 0] and found["roc"][-1] == [1, 1]
    assert found["pr"][-1][1] <= 0.5  # recall 1 costs precision
    few = scored(measures, np.arange(200) < 9, score)
    assert measures.curves(few, k=10) == {"roc": [], "pr": []}


def test_precision_is_never_of_fewer_than_k_rows(measures: Any) -> None:
    positive, score = np.arange(100) >= 50, np.linspace(0, 1, 100)
    positive[-1] = False  # the highest score is a mistake: 0 of 1, but 9 of 10
    found = measures.curves(scored(measures, positive, score), k=10)
    assert found["pr"][0][1] == pytest.approx(0.9)


@settings(max_examples=200, deadline=None)
@given(
    counts=hnp.arrays(int, hnp.array_shapes(min_dims=2, max_dims=2, max_side=5), elements=st.integers(0, 40)),
    k=st.integers(5, 12),
)
def test_suppressed_cells_cannot_be_had_by_subtraction(measures: Any, counts: np.ndarray, k: int) -> None:
    hidden = measures.suppress(counts, k)
    assert hidden[(counts > 0) & (counts < k)].all()
    for axis in (0, 1):
        if counts.shape[1 - axis] == 1 and counts.shape[axis] > 1:
            continue  # a line of one cell has no total of its own
        for line, cover in zip(counts if axis else counts.T, hidden if axis else hidden.T, strict=True):
            if len(line) > 1 and cover.any() and not cover.all():
                assert cover.sum() >= 2 and line[cover].sum() >= k
    if not ((counts > 0) & (counts < k)).any():
        assert not hidden.any()


def test_confusion(measures: Any) -> None:
    truth = np.array(["a"] * 40 + ["b"] * 40 + ["c"] * 40)
    guess = truth.copy()
    guess[:3] = "b"
    matrix = measures.confusion(truth, guess, ["a", "b", "c"], 10)
    assert matrix[0][1] is None and matrix[2][2] == 40
    assert sum(cell is None for row in matrix for cell in row) == 4
    assert measures.confusion(truth, truth, ["a", "b", "c"], 10) == [[40, 0, 0], [0, 40, 0], [0, 0, 40]]


def test_calibration_and_residuals_have_k_rows(measures: Any) -> None:
    found = measures.calibration(scored(measures, *drawn(1, 137)), 10)
    assert sum(group["count"] for group in found) == 137 and min(group["count"] for group in found) >= 20
    assert measures.calibration(scored(measures, *drawn(1, 19)), 10) == []
    generator = np.random.default_rng(2)
    values = measures.Valued(generator.normal(size=333), np.zeros(333))
    bins = measures.residuals(values, 10)
    assert sum(one["count"] for one in bins) == 333 and min(one["count"] for one in bins) >= 10
    assert all(left["high"] == right["low"] for left, right in itertools.pairwise(bins))


def test_the_distribution_of_predictions_has_k_rows_in_each_bin(measures: Any) -> None:
    found = measures.distribution(scored(measures, *drawn(1, 137)), 10)
    assert (found[0]["low"], found[-1]["high"]) == (0, 1) and len(found) > 1
    values = measures.Valued(np.zeros(333), np.random.default_rng(2).normal(size=333))
    for bins, rows in ((found, 137), (measures.distribution(values, 10), 333)):
        assert sum(one["count"] for one in bins) == rows and min(one["count"] for one in bins) >= 10
        assert all(left["high"] == right["low"] for left, right in itertools.pairwise(bins))
    assert measures.distribution(scored(measures, *drawn(1, 9)), 10) == []
    assert measures.distribution(measures.Valued(np.zeros(99), np.ones(99)), 10) == []


# --- the step -------------------------------------------------------------------------------------


@pytest.fixture
def evaluate(step: Any, sample: Any, tmp_path: Path) -> Callable[..., Any]:
    """Judge the sample's model; what is given replaces a part. Returns the outcome and the files."""

    def run(**changes: Any) -> tuple[Any, dict[str, Any]]:
        folder = tmp_path / "evaluation"
        parts = {"model": sample.model, "test": sample.test, "contract": sample.contract, "evaluation": folder}
        outcome = step("evaluate_model", **{**parts, "samples": 300, **changes})
        return outcome, {path.stem: json.loads(path.read_text()) for path in folder.glob("*.json")}

    return run


def failed(files: dict[str, Any]) -> dict[str, str]:
    """The checks that did not pass."""
    verdict = files["promotion"]
    assert verdict["promote"] is False and verdict["reasons"]
    return {check["name"]: check["detail"] for check in verdict["checks"] if not check["passed"]}


def test_good_model_is_promoted(evaluate: Any, sample: Any) -> None:
    outcome, files = evaluate()
    assert outcome.code == 0 and outcome.out == "promote: true\n"
    assert sorted(files) == ["confusion", "curves", "importance", "metrics", "promotion", "slices"]
    verdict, found = files["promotion"], files["metrics"]["metrics"]
    assert verdict["promote"] is True and verdict["champion"] is None
    assert len(verdict["reasons"]) == len(verdict["checks"]) == 7
    assert all(one["low"] <= one["value"] <= one["high"] for one in found.values())
    assert found["roc_auc"]["low"] > 0.97 and found["brier"]["high"] < 0.1
    assert files["importance"]["features"][0]["mean"] > 0.001 and len(files["importance"]["features"]) == 30
    assert {(item["column"], item["slice"]) for item in files["slices"]["slices"]} >= {
        ("mean_texture", "lowest quarter"),
        ("mean_symmetry", "highest quarter"),
    }
    assert min(item["rows"] for item in files["slices"]["slices"]) >= 10


def test_same_inputs_same_bytes(evaluate: Any, sample: Any, tmp_path: Path) -> None:
    for folder in "ab":
        evaluate(evaluation=tmp_path / folder, champion=sample.model)
    for path in (tmp_path / "a").iterdir():
        assert path.read_bytes() == (tmp_path / "b" / path.name).read_bytes()


def test_nothing_is_of_one_row(evaluate: Any, sample: Any) -> None:
    """No list as long as the test part, no key, no cell of the table, six digits, counts of k or more."""
    _, files = evaluate(champion=sample.model)
    test = pl.read_parquet(sample.test / "*.parquet")
    text = json.dumps(files)
    assert not [key for key in test["patient_id"] if key in text]

    def walk(value: Any) -> list[float]:
        if isinstance(value, dict | list):
            assert len(value) not in (test.height, 569, 569 - test.height)
            return [number for item in (value.values() if isinstance(value, dict) else value) for number in walk(item)]
        return [value] if isinstance(value, float) else []

    numbers = walk(files)
    assert all(number == float(f"{number:.6g}") for number in numbers)
    cells = {f"{cell:.6g}" for name in test.columns[2:] for cell in test[name] if isinstance(cell, float)}
    common = {f"{number:.6g}" for number in numbers if len(f"{number:.6g}") > 6} & cells
    assert not common
    counts = [group["count"] for group in files["curves"]["calibration"]]
    assert sum(one["count"] for one in files["curves"]["distribution"]) == sum(counts)
    assert min(counts) >= 10


def test_slices_hide_small_groups_and_what_would_give_them_away(step: Any, chain: Any, tmp_path: Path) -> None:
    done = chain("binary")
    test = pl.read_parquet(done.test / "*.parquet")
    rare = (
        pl.when(pl.int_range(pl.len()) < 4).then(pl.lit("north")).when(pl.col("ward") == "north").then(pl.lit("east"))
    )
    test = test.with_columns(rare.otherwise(pl.col("ward").fill_null("west")).alias("ward"))
    (tmp_path / "test").mkdir()
    test.write_parquet(tmp_path / "test" / "part-00000.parquet")
    out = tmp_path / "e"
    assert (
        step("evaluate_model", model=done.model, test=tmp_path / "test", contract=done.contract, evaluation=out).code
        == 0
    )
    document = json.loads((out / "slices.json").read_text())
    wards = {item["slice"]: item["rows"] for item in document["slices"] if item["column"] == "ward"}
    assert "north" not in wards and len(wards) <= 2 and document["suppressed"] >= 2
    assert test.height - sum(wards.values()) >= 10
    assert {item["slice"] for item in document["slices"] if item["column"] == "smoker"} <= {"true", "false"}


@pytest.mark.parametrize("kind", ["three", "boolean", "regression"])
def test_every_task(kind: str, step: Any, chain: Any, tmp_path: Path) -> None:
    done = chain(kind)
    more = {"champion": done.model, "evaluation": tmp_path / "e"}
    outcome = step("evaluate_model", model=done.model, test=done.test, contract=done.contract, **more)
    assert outcome.code == 0, outcome.err
    files = {path.stem: json.loads(path.read_text()) for path in (tmp_path / "e").iterdir()}
    assert files["promotion"]["champion"]["difference"]["value"] == 0
    if kind == "regression":
        assert set(files["metrics"]["metrics"]) == {"r2", "rmse", "mae"} and "confusion" not in files
        assert min(one["count"] for one in files["curves"]["residuals"]) >= 10
    else:
        assert files["confusion"]["labels"] == (["0", "1", "2"] if kind == "three" else ["false", "true"])
    assert files["importance"]["features"][0]["name"] == "dose"


# --- every reason to refuse -----------------------------------------------------------------------


def edited(sample: Any, folder: Path, *replacements: tuple[str, str]) -> Path:
    """The sample's contract, changed."""
    text = sample.contract.read_text()
    for pattern, new in replacements:
        text, count = re.subn(pattern, new, text)
        assert count == 1
    path = folder / "contract.yml"
    path.write_text(text)
    return path


def copied(sample: Any, folder: Path) -> Path:
    return Path(shutil.copytree(sample.model, folder / "copy"))


def weaken(model: Path, how: Callable[[np.ndarray], np.ndarray]) -> None:
    """Change the leaves of a model, and with them what it predicts."""
    proto = onnx.load(model / "model.onnx")
    ensemble = next(node for node in proto.graph.node if node.op_type == "TreeEnsembleClassifier")
    weights = next(attribute for attribute in ensemble.attribute if attribute.name == "class_weights")
    weights.floats[:] = how(np.array(weights.floats)).tolist()
    onnx.save(proto, model / "model.onnx")


def test_below_threshold_at_the_low_end(evaluate: Any, sample: Any, tmp_path: Path) -> None:
    """The value is above the threshold, the low end of its interval is not."""
    contract = edited(sample, tmp_path, ("roc_auc: 0.95", "roc_auc: 0.997"))
    _, files = evaluate(contract=contract)
    assert files["metrics"]["metrics"]["roc_auc"]["value"] > 0.997
    assert "low end at least 0.997" in failed(files)["threshold roc_auc"]


def test_above_threshold_at_the_high_end_of_a_loss(evaluate: Any, sample: Any, tmp_path: Path) -> None:
    contract = edited(sample, tmp_path, ("brier: 0.1", "brier: 0.02"))
    _, files = evaluate(contract=contract)
    assert files["metrics"]["metrics"]["brier"]["value"] < 0.02
    assert list(failed(files)) == ["threshold brier"]


def test_missing_threshold(evaluate: Any, sample: Any, tmp_path: Path) -> None:
    _, files = evaluate(contract=edited(sample, tmp_path, (" +roc_auc: 0.95\n", "")))
    assert failed(files) == {"threshold roc_auc": "the contract sets no threshold for roc_auc"}


def test_too_few_rows(evaluate: Any) -> None:
    _, files = evaluate(min_rows=500)
    assert "500 needed" in failed(files)["rows"]


def test_too_few_rows_of_a_class(evaluate: Any, sample: Any, tmp_path: Path) -> None:
    test = pl.read_parquet(sample.test / "*.parquet")
    positive = test.filter(pl.col("diagnosis") == "malignant").head(9)
    (tmp_path / "t").mkdir()
    pl.concat([test.filter(pl.col("diagnosis") == "benign"), positive]).write_parquet(tmp_path / "t" / "p.parquet")
    _, files = evaluate(test=tmp_path / "t")
    assert "rows" in failed(files) and files["curves"]["roc"] == []


def test_fewer_than_k_rows_tell_nothing(evaluate: Any, sample: Any, tmp_path: Path) -> None:
    (tmp_path / "t").mkdir()
    pl.read_parquet(sample.test / "*.parquet").head(9).write_parquet(tmp_path / "t" / "p.parquet")
    outcome, files = evaluate(test=tmp_path / "t")
    assert outcome.code == 1 and list(files) == ["promotion"] and not files["promotion"]["promote"]
    assert "fewer than k=10 rows" in files["promotion"]["reasons"][0]


def test_a_class_that_is_absent(evaluate: Any, sample: Any, tmp_path: Path) -> None:
    (tmp_path / "t").mkdir()
    benign = pl.read_parquet(sample.test / "*.parquet").filter(pl.col("diagnosis") == "benign")
    benign.write_parquet(tmp_path / "t" / "p.parquet")
    outcome, files = evaluate(test=tmp_path / "t")
    assert outcome.code == 0 and "roc_auc" not in files["metrics"]["metrics"]
    assert "could not be estimated" in failed(files)["threshold roc_auc"]


def test_worse_than_the_champion(evaluate: Any, sample: Any, tmp_path: Path) -> None:
    challenger = copied(sample, tmp_path)
    generator = np.random.default_rng(0)
    weaken(challenger, lambda weights: weights + generator.normal(0, 3, weights.shape).astype("float32"))
    contract = edited(sample, tmp_path, ("roc_auc: 0.95", "roc_auc: 0.1"))
    _, files = evaluate(model=challenger, champion=sample.model, contract=contract)
    difference = files["promotion"]["champion"]["difference"]
    assert difference["value"] < -0.01 and difference["low"] < -0.01 and difference["p_value"] > 0.05
    assert "champion" in failed(files)


def test_not_worse_than_the_champion(evaluate: Any, sample: Any, tmp_path: Path) -> None:
    """An equal is promoted, and a better one; a margin of nothing asks for an equal to be better."""
    _, files = evaluate(champion=sample.model)
    champion = files["promotion"]["champion"]
    assert files["promotion"]["promote"] is True
    assert champion["difference"]["value"] == champion["difference"]["low"] == 0 < champion["difference"]["margin"]
    assert champion["metrics"] == files["metrics"]["metrics"] and len(champion["model_sha256"]) == 64
    _, files = evaluate(champion=sample.model, margin=0)
    assert list(failed(files)) == ["champion"]


@pytest.mark.parametrize(
    "damage", ["no folder", "empty", "no model", "not a model", "other target", "unknown feature", "nan"]
)
def test_champion_that_cannot_be_compared(damage: str, evaluate: Any, sample: Any, tmp_path: Path) -> None:
    champion = copied(sample, tmp_path)
    signature = json.loads((champion / "signature.json").read_text())
    if damage == "no folder":
        champion = tmp_path / "absent"
    elif damage == "empty":
        champion = tmp_path / "empty"
        champion.mkdir()
    elif damage == "no model":
        (champion / "model.onnx").unlink()
    elif damage == "not a model":
        (champion / "model.onnx").write_bytes(b"\x00garbage")
    elif damage == "other target":
        (champion / "signature.json").write_text(json.dumps({**signature, "target": "relapse"}))
    elif damage == "unknown feature":
        signature["features"].append({"name": "mean_girth", "type": "number"})
        (champion / "signature.json").write_text(json.dumps(signature))
    else:
        weaken(champion, lambda weights: np.full_like(weights, np.nan))
    outcome, files = evaluate(champion=champion)
    assert outcome.code == 0 and "the champion cannot be compared" in failed(files)["champion"]
    assert files["promotion"]["champion"] is None and set(failed(files)) == {"champion"}


def test_a_folder_that_says_there_is_no_champion(evaluate: Any, tmp_path: Path) -> None:
    nobody = Path(__file__).parents[2] / "pipelines" / "no_champion"
    _, files = evaluate(champion=nobody)
    assert files["promotion"]["promote"] is True and files["promotion"]["champion"] is None
    half = Path(shutil.copytree(nobody, tmp_path / "half"))
    (half / "model.onnx").write_bytes(b"half a model")
    _, files = evaluate(champion=half)
    assert "champion" in failed(files)


def test_a_slice_much_worse(step: Any, chain: Any, tmp_path: Path) -> None:
    """One ward whose truth is turned round: the whole suffers little, the ward much."""
    done = chain("binary")
    test = pl.read_parquet(done.test / "*.parquet")
    turned = pl.when(pl.col("outcome") == "ill").then(pl.lit("well")).otherwise(pl.lit("ill"))
    test = test.with_columns(pl.when(pl.col("ward") == "west").then(turned).otherwise("outcome").alias("outcome"))
    (tmp_path / "t").mkdir()
    test.write_parquet(tmp_path / "t" / "p.parquet")
    step("evaluate_model", model=done.model, test=tmp_path / "t", contract=done.contract, evaluation=tmp_path / "e")
    files = {path.stem: json.loads(path.read_text()) for path in (tmp_path / "e").iterdir()}
    assert "ward west (at best" in failed(files)["slices"]


@pytest.mark.parametrize("damage", ["missing", "beyond", "not a number"])
def test_parity_must_be_shown(damage: str, evaluate: Any, sample: Any, tmp_path: Path) -> None:
    model = copied(sample, tmp_path)
    report = {"missing": None, "beyond": 1e-3, "not a number": float("nan")}[damage]
    (model / "parity.json").unlink()
    if report is not None:
        (model / "parity.json").write_text(json.dumps({"max_difference": report, "tolerance": 1e-5}))
    _, files = evaluate(model=model)
    assert list(failed(files)) == ["parity"]


@pytest.mark.parametrize(
    ("damage", "reason"), [("nan", "not all finite"), ("garbage", "cannot be read"), ("target", "another target")]
)
def test_a_model_that_cannot_be_judged_fails_the_step(
    damage: str, reason: str, evaluate: Any, sample: Any, tmp_path: Path
) -> None:
    model = copied(sample, tmp_path)
    if damage == "nan":
        weaken(model, lambda weights: np.full_like(weights, np.nan))
    elif damage == "garbage":
        (model / "model.onnx").write_bytes(b"garbage")
    else:
        text = (model / "signature.json").read_text()
        (model / "signature.json").write_text(text.replace('"target": "diagnosis"', '"target": "relapse"'))
    outcome, files = evaluate(model=model)
    assert outcome.code == 1 and reason in outcome.err and outcome.err.count("\n") == 1
    assert list(files) == ["promotion"] and files["promotion"]["promote"] is False
    assert reason in files["promotion"]["reasons"][0]


def test_an_error_leaves_a_refusal(evaluate: Any, script: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise ZeroDivisionError("Zebulon")

    monkeypatch.setattr(script("evaluate_model"), "importance", fail)
    outcome, files = evaluate()
    assert outcome.code == 1 and "ZeroDivisionError at" in outcome.err and "Zebulon" not in outcome.err
    assert files["promotion"]["promote"] is False
    assert files["promotion"]["reasons"] == ["the evaluation did not finish"]


def test_verdict_of_nothing_is_no(script: Any) -> None:
    assert script("evaluate_model").verdict([], None)["promote"] is False


def test_as_an_executor_runs_it(command: Any, sample: Any, tmp_path: Path) -> None:
    parts = {"model": sample.model, "test": sample.test, "contract": sample.contract, "evaluation": tmp_path / "e"}
    for more in ({}, {"champion": sample.model}):
        done = command("evaluate_model", **parts, **more)
        assert done.returncode == 0 and done.stdout == "promote: true\n", done.stderr
        champion = json.loads((tmp_path / "e" / "promotion.json").read_text())["champion"]
        assert (champion is None) == (not more)
