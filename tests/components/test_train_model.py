"""Training and export: parity with ONNX, determinism, what may be stored, what is logged."""

from __future__ import annotations

import json
import os
import re
import sqlite3
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import onnx
import onnxruntime
import polars as pl
import pytest
from onnx import numpy_helper

ROOT = Path(__file__).parents[2]
CASES = [
    *((kind, algorithm) for kind in ("binary", "three") for algorithm in ("gradient_boosting", "random_forest")),
    *((kind, algorithm) for kind in ("binary", "three") for algorithm in ("mlp", "logistic_regression")),
    *(("regression", algorithm) for algorithm in ("gradient_boosting", "random_forest", "mlp", "ridge")),
    ("boolean", "gradient_boosting"),
]


def feeds(model: Path, test: pl.DataFrame) -> dict[str, np.ndarray]:
    """Inputs as a caller makes them from the signature alone."""
    signature = json.loads((model / "signature.json").read_text())
    made = {}
    for port in signature["inputs"]:
        values = test[port["name"]].to_list()
        if port["dtype"] == "string":
            made[port["name"]] = np.array([value or "" for value in values], dtype=object).reshape(-1, 1)
        else:
            made[port["name"]] = np.array(
                [np.nan if value is None else value for value in values], dtype="float32"
            ).reshape(-1, 1)
    return made


def run(model: Path, test: pl.DataFrame) -> dict[str, np.ndarray]:
    session = onnxruntime.InferenceSession(model / "model.onnx")
    names = [port.name for port in session.get_outputs()]
    return dict(zip(names, session.run(None, feeds(model, test)), strict=True))


@pytest.mark.parametrize(("kind", "algorithm"), CASES)
def test_every_algorithm_and_task(kind: str, algorithm: str, chain: Any) -> None:
    """Nulls, categories, booleans and a column far from zero, through each algorithm and its ONNX model."""
    done = chain(kind, "--algorithm", algorithm, "--max-iter", "60")
    parity = json.loads((done.model / "parity.json").read_text())
    test = pl.read_parquet(done.test / "*.parquet")
    assert parity["rows"] == test.height and parity["max_difference"] < 5e-6
    signature = json.loads((done.model / "signature.json").read_text())
    assert [feature["name"] for feature in signature["features"]] == ["dose", "smoker", "ward", "year"]
    assert signature["algorithm"] == algorithm
    answers = run(done.model, test)
    assert list(answers) == [port["name"] for port in signature["outputs"]]
    if kind == "regression":
        actual = test["outcome"].to_numpy()
        assert 1 - ((actual - answers["prediction"].ravel()) ** 2).mean() / actual.var() > 0.5
    else:
        truth = np.array([str(value).lower() for value in test["outcome"]], dtype=object)
        assert signature["classes"] == sorted(set(truth))
        assert (answers["label"] == truth).mean() > (0.5 if kind == "three" else 0.75)
        np.testing.assert_allclose(answers["probabilities"].sum(axis=1), 1, atol=1e-5)


@pytest.mark.parametrize("size", [0, 1])
def test_batches_of_any_size(size: int, chain: Any) -> None:
    done = chain("binary", "--algorithm", "gradient_boosting", "--max-iter", "60")
    assert len(run(done.model, pl.read_parquet(done.test / "*.parquet").head(size))["label"]) == size


def train(step: Any, sample: Any, model: Path, **more: Any) -> Any:
    return step("train_model", train=sample.train, test=sample.test, contract=sample.contract, model=model, **more)


@pytest.mark.parametrize("algorithm", ["gradient_boosting", "random_forest", "mlp"])
def test_same_inputs_same_bytes(algorithm: str, step: Any, sample: Any, tmp_path: Path) -> None:
    for name in "ab":
        train(step, sample, tmp_path / name, algorithm=algorithm, folds=0, max_iter=20)
    files = sorted(path.name for path in (tmp_path / "a").iterdir())
    assert files == ["model.onnx", "parity.json", "signature.json"]
    for name in files:
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()
    train(step, sample, tmp_path / "c", algorithm=algorithm, folds=0, max_iter=20, seed=1)
    same = (tmp_path / "a" / "model.onnx").read_bytes() == (tmp_path / "c" / "model.onnx").read_bytes()
    assert same == (algorithm == "gradient_boosting")  # binning draws nothing from so few rows


def test_model_says_nothing_of_its_making(sample: Any, sample_table: pl.DataFrame) -> None:
    model = onnx.load(sample.model / "model.onnx")
    assert (model.producer_name, model.producer_version, model.domain) == ("edgeml", "1", "")
    assert not model.doc_string and not model.graph.doc_string and not model.metadata_props
    assert not any(node.doc_string for node in model.graph.node)
    names = {port.name for port in model.graph.input}
    assert names == set(sample_table.columns) - {"patient_id", "diagnosis"}
    content = (sample.model / "model.onnx").read_bytes()
    assert b"P000" not in content and b"patient_id" not in content


def test_every_leaf_holds_k_rows(sample: Any) -> None:
    """Counted through the exported trees, as the egress gate will."""
    model = onnx.load(sample.model / "model.onnx")
    ensemble = next(node for node in model.graph.node if node.op_type == "TreeEnsembleClassifier")
    array = {a.name: onnx.helper.get_attribute_value(a) for a in ensemble.attribute}
    columns = sorted(port.name for port in model.graph.input)
    rows = pl.read_parquet(sample.train / "*.parquet").select(columns).to_numpy().astype("float32")
    nodes = {
        (tree, node): index
        for index, (tree, node) in enumerate(zip(array["nodes_treeids"], array["nodes_nodeids"], strict=True))
    }
    counts: dict[int, int] = {}
    for tree in set(array["nodes_treeids"]):
        pending = [(nodes[tree, 0], np.arange(len(rows)))]
        while pending:
            index, inside = pending.pop()
            if array["nodes_modes"][index] == b"LEAF":
                counts[index] = len(inside)
                continue
            left = rows[inside, array["nodes_featureids"][index]] <= np.float32(array["nodes_values"][index])
            pending.append((nodes[tree, array["nodes_truenodeids"][index]], inside[left]))
            pending.append((nodes[tree, array["nodes_falsenodeids"][index]], inside[~left]))
    assert len(counts) > 500 and min(counts.values()) >= 20


def tampered(model: bytes) -> bytes:
    """One leaf of one tree, a little heavier."""
    proto = onnx.load_from_string(model)
    ensemble = next(node for node in proto.graph.node if node.op_type.startswith("TreeEnsemble"))
    weights = next(
        attribute for attribute in ensemble.attribute if attribute.name in ("class_weights", "target_weights")
    )
    for index in range(0, len(weights.floats), 7):
        weights.floats[index] += 1e-3
    return bytes(proto.SerializeToString())


@pytest.mark.parametrize("way", ["leaf", "label", "nan"])
def test_tampered_model_fails_the_step(
    way: str, step: Any, script: Callable[..., ModuleType], sample: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    module = script("train_model")
    export = module.export

    def damaged(*arguments: Any) -> bytes:
        model: bytes = export(*arguments)
        if way == "leaf":
            return tampered(model)
        proto = onnx.load_from_string(model)
        if way == "label":
            ensemble = next(node for node in proto.graph.node if node.op_type == "TreeEnsembleClassifier")
            labels = next(a for a in ensemble.attribute if a.name.startswith("classlabels_"))
            for field in (labels.strings, labels.ints):
                field[:] = list(reversed(field))
        else:
            proto.graph.node[0].input[0] = proto.graph.node[0].input[1]
            constant = numpy_helper.from_array(np.full((1, 1), np.nan, "float32"), "/poison")
            proto.graph.initializer.append(constant)
            last = next(node for node in proto.graph.node if "probabilities" in node.output)
            last.output[list(last.output).index("probabilities")] = "/clean"
            proto.graph.node.append(onnx.helper.make_node("Add", ["/clean", "/poison"], ["probabilities"]))
        return bytes(proto.SerializeToString())

    monkeypatch.setattr(module, "export", damaged)
    outcome = train(step, sample, tmp_path / "model", folds=0)
    assert outcome.code == 1 and "differs from the estimator" in outcome.err
    assert not (tmp_path / "model").exists()


@pytest.mark.parametrize("algorithm", ["gradient_boosting", "random_forest"])
def test_thresholds_between_neighbouring_floats(
    algorithm: str, script: Callable[..., ModuleType], tmp_path: Path
) -> None:
    """Features that are equal, adjacent and midway in float32: where a careless export sends rows astray."""
    module, contract = script("train_model"), script("contract", "train_model")
    generator = np.random.default_rng(0)
    base = np.float32(1) + generator.integers(0, 6, (400, 3)).astype("float64") * np.finfo("float32").eps
    base += generator.uniform(-0.5, 0.5, base.shape) * np.finfo("float32").eps
    target = (base[:, 0] + base[:, 1] > 2 + 5 * np.finfo("float32").eps).astype(int)
    table = pl.DataFrame({f"c{index}": base[:, index] for index in range(3)} | {"y": target})
    path = tmp_path / "c.yml"
    columns = "".join(f"  c{index}: {{type: number}}\n" for index in range(3))
    path.write_text(
        "name: n\nversion: 1\nkey: id\ntarget: y\ntask: classification\npositive: 1\ncolumns:\n  id: {type: string}\n"
        f"{columns}  y: {{type: integer, allowed: [0, 1], public: true}}\n"
    )
    agreed = contract.load(path)
    options = module.argparse.Namespace(
        algorithm=algorithm,
        learning_rate=0.1,
        max_iter=50,
        max_leaf_nodes=31,
        min_samples_leaf=10,
        l2=0.0,
        seed=0,
    )
    matrix, classes = module.encode(table, agreed.features), module.target_of(table, agreed)
    fitted = module.fit(matrix, classes, agreed.features, options)
    assert module.parity(module.export(fitted, agreed.features), fitted, table, agreed.features) < 2e-6
    assert (fitted.predict(matrix).argmax(axis=1) == target).mean() > 0.9


@pytest.mark.parametrize(
    ("change", "options", "reason"),
    [
        ({}, {"min_samples_leaf": 9}, "min_samples_leaf must be 10"),
        ({"k: 10": "k: 25"}, {}, "min_samples_leaf must be 25"),
        ({}, {"algorithm": "random_forest", "min_samples_leaf": 19}, "min_samples_leaf must be 20"),
        ({}, {"algorithm": "ridge"}, "ridge is not for classification; choose one of gradient_boosting"),
        ({}, {"folds": 1}, "give 0 for no cross-validation"),
        ({"{type: string, unique: true": "{type: string"}, {"max_iter": 1}, None),
        (
            {"mean_radius: {type: number": "ward: {type: string}\n  mean_radius: {type: number"},
            {},
            "column ward is text",
        ),
        (
            {"mean_radius: {type: number": "ward: {type: string, allowed: [x]}\n  mean_radius: {type: number"},
            {},
            "declare its allowed values with public: true in the contract, or keep it out with feature: false",
        ),
        ({"mean_radius: {": "label: {type: boolean}\n  mean_radius: {"}, {}, "named like an output"),
        ({"mean_radius:": "mean_girth:"}, {}, "column mean_girth is missing"),
        ({"[benign, malignant]": "[benign, malignant, other]"}, {}, "every class of the contract"),
    ],
)
def test_refusals(
    change: dict[str, str], options: dict[str, Any], reason: str | None, step: Any, sample: Any, tmp_path: Path
) -> None:
    text = sample.contract.read_text()
    for old, new in change.items():
        assert old in text
        text = text.replace(old, new)
    contract = tmp_path / "contract.yml"
    contract.write_text(text)
    arguments = {"train": sample.train, "test": sample.test, "contract": contract, "model": tmp_path / "m"}
    outcome = step("train_model", **arguments, **{"folds": 0, **options})
    assert outcome.code == (1 if reason else 0), outcome.err
    if reason:
        assert reason in outcome.err and not (tmp_path / "m").exists()


def test_text_outside_the_contract_is_no_feature(
    step: Any, mixed: Callable[..., tuple[pl.DataFrame, Path]], chain: Any, tmp_path: Path
) -> None:
    """A rare value that slips past the contract, and a column it does not declare, are not in the model."""
    done = chain("binary")
    odd = pl.read_parquet(done.train / "*.parquet").with_columns(
        pl.when(pl.int_range(pl.len()) < 30).then(pl.lit("Ripon")).otherwise(pl.col("ward")).alias("ward"),
        pl.lit("Zebulon").alias("nickname"),
    )
    (tmp_path / "train").mkdir()
    odd.write_parquet(tmp_path / "train" / "part-00000.parquet")
    outcome = step(
        "train_model", train=tmp_path / "train", test=done.test, contract=done.contract, model=tmp_path / "m", folds=0
    )
    assert outcome.code == 0, outcome.err
    for path in (tmp_path / "m").iterdir():
        content = path.read_bytes()
        assert b"Ripon" not in content and b"Zebulon" not in content and b"nickname" not in content
        assert path.name != "model.onnx" or b"north" in content


def test_log_holds_parameters_and_metrics_alone(
    step: Any, sample: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    database = tmp_path / "mlflow.db"
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{database}")
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", "trial")
    monkeypatch.setenv("AZUREML_ROOT_RUN_ID", "train-20260101-000000-abcd")
    outcome = train(step, sample, tmp_path / "model", folds=3, max_iter=30)
    assert outcome.code == 0 and "nothing is logged" not in outcome.err, outcome.err
    with sqlite3.connect(database) as connection:
        rows = {name: connection.execute(f"select * from {name}").fetchall() for name in ("params", "metrics", "tags")}
        assert connection.execute("select name, status from runs").fetchall() == [("train_model", "FINISHED")]
        for table in ("datasets", "inputs", "logged_models"):
            assert connection.execute(f"select count(*) from {table}").fetchone() == (0,)
    params = {row[0]: row[1] for row in rows["params"]}
    assert params["algorithm"] == "gradient_boosting" and params["max_iter"] == "30"
    metrics = {row[0]: row[1] for row in rows["metrics"]}
    assert 0.97 < metrics["cv_roc_auc"] < 1 and set(metrics) == {
        "cv_roc_auc",
        "cv_roc_auc_std",
        "parity",
        "test_rows",
        "train_rows",
    }
    assert ("azureml_root_run_id", "train-20260101-000000-abcd") in {row[:2] for row in rows["tags"]}
    assert sorted(
        path.name for path in tmp_path.rglob("*") if path.is_file() and path.parent != tmp_path / "model"
    ) == ["mlflow.db"]


def test_log_that_is_not_taken_fails_the_step(
    step: Any, sample: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:////{tmp_path}/absent/secret/mlflow.db")
    (tmp_path / "absent").write_text("a file where a folder should be")
    outcome = train(step, sample, tmp_path / "model", folds=0, max_iter=5)
    assert outcome.code == 1 and "mend or unset MLFLOW_TRACKING_URI" in outcome.err and "secret" not in outcome.err


def test_as_an_executor_runs_it(command: Any, sample: Any, tmp_path: Path) -> None:
    done = command(
        "train_model", train=sample.train, test=sample.test, contract=sample.contract, model=tmp_path / "m", folds=0
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == "MLFLOW_TRACKING_URI is not set: nothing is logged\n"
    assert (tmp_path / "m" / "model.onnx").read_bytes() == (sample.model / "model.onnx").read_bytes()


def pins(path: Path) -> set[str]:
    return set(re.findall(r"^[a-z0-9._-]+==[^\\\n]+", path.read_text(), re.MULTILINE | re.IGNORECASE))


def test_the_training_image_holds_what_the_project_is_tested_with() -> None:
    lock = ROOT / "environments" / "training" / "requirements.lock"
    assert len(pins(lock)) > 40
    assert pins(lock) <= pins(ROOT / "requirements" / "runtime.lock")
    assert "://" not in lock.read_text() and os.sep + "tmp" not in lock.read_text()
