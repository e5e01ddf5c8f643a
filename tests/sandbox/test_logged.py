"""What private steps log to MLflow: numbers and their own words arrive, values do not."""

from __future__ import annotations

import os
import sqlite3
from pathlib import Path

import pytest

from edgeml.engine.sandbox import metrics
from edgeml.engine.sandbox.words import of
from tests.sandbox.private import ROWS, SECRET, Private


@pytest.fixture(scope="module")
def logging(bubblewrap: None, tmp_path_factory: pytest.TempPathFactory) -> Private:
    """One project for all, because making MLflow's store takes seconds."""
    return Private(tmp_path_factory.mktemp("logging"))


def test_what_is_logged_arrives_filtered(logging: Private) -> None:
    logging.write(
        "src/trainer.py",
        """
        import os, sys
        import mlflow
        secret = open(sys.argv[1]).read().splitlines()[-1].partition(",")[0]
        with mlflow.start_run(run_name="train_model"):
            mlflow.log_params({"algorithm": "gradient_boosting", "rate": 0.123456789, "patient": secret})
            mlflow.log_metrics({"cv_roc_auc": 0.98765432123, secret: 1.0})
            for step in range(2000):
                mlflow.log_metric("loss", 1 / (step + 1), step=step * 1931) if step % 20 == 0 else None
            mlflow.set_tag("note", secret)
            mlflow.log_text(secret, "rows.txt")
            mlflow.log_metric("bad", float("nan"))
        open(sys.argv[2], "w").write("done")
        """,
    )
    logging.go()
    with sqlite3.connect(logging.folder / ".edgeml/mlflow.db") as store:
        dump = "\n".join(store.iterdump())
        params = dict(store.execute("SELECT key, value FROM params"))
        found = store.execute("SELECT key, value, step FROM metrics ORDER BY step").fetchall()
        named = store.execute("SELECT name, status FROM runs").fetchall()
    assert SECRET not in dump
    assert params == {"algorithm": "gradient_boosting", "rate": "0.123457"}
    assert named == [("train_model", "FINISHED")]
    assert [row for row in found if row[0] != "loss"] == [("cv_roc_auc", 0.987654, 0)]
    losses = [row for row in found if row[0] == "loss"]
    assert len(losses) == 100 and losses[-1][2] < 100, "steps are counted anew: their numbers could be values"
    log = (logging.folder / "out/jobs/train/log.txt").read_text()
    assert "logged names or values are not taken over" in log
    assert not (logging.folder / "out/jobs/train/mlruns").exists()


def test_a_sweep_over_private_rows_chooses_by_what_its_trials_log(logging: Private) -> None:
    logging.write(
        "src/trial.py",
        """
        import argparse, mlflow
        parser = argparse.ArgumentParser()
        for name in ("rows", "lr", "out"):
            parser.add_argument("--" + name)
        args = parser.parse_args()
        with mlflow.start_run():
            mlflow.log_metric("auc", -abs(float(args.lr) - 0.3))
        open(args.out, "w").write(args.lr + open(args.rows).readline())
    """,
    )
    logging.write(
        "train.yml",
        """
        type: command
        name: train
        inputs: {rows: {type: uri_file}, lr: {type: number}}
        outputs: {model: {type: uri_file}}
        code: ./src
        command: python trial.py --rows ${{inputs.rows}} --lr ${{inputs.lr}} --out ${{outputs.model}}
    """,
    )
    logging.write(
        "sweep.yml",
        f"""
        jobs:
          search:
            type: sweep
            trial: ./train.yml
            inputs: {{rows: {{type: uri_file, path: "{ROWS}"}}}}
            outputs: {{model: {{type: uri_file}}}}
            sampling_algorithm: grid
            search_space: {{lr: {{type: choice, values: [0.1, 0.3]}}}}
            objective: {{goal: maximize, primary_metric: auc}}
            limits: {{max_concurrent_trials: 1}}
    """,
    )
    logging.edgeml("run", "sweep.yml", "--map", f"{ROWS}=rows.csv", "--output-dir", "swept")
    assert (logging.folder / "swept/jobs/search/outputs/model").read_text() == "0.3name,age\n"
    assert {"search.1", "search.2"} <= {path.name for path in (logging.folder / "swept/quarantine").iterdir()}
    with sqlite3.connect(logging.folder / ".edgeml/mlflow.db") as store:
        trials = store.execute("SELECT name FROM runs JOIN metrics USING (run_uuid) WHERE key = 'auc'").fetchall()
    assert sorted(trials) == [("search_1",), ("search_2",)]


def store(folder: Path) -> Path:
    run = folder / "mlruns/0/run"
    for part in ("metrics", "params", "tags"):
        (run / part).mkdir(parents=True)
    return run


def test_a_store_that_was_tampered_with_gives_nothing(tmp_path: Path) -> None:
    run = store(tmp_path)
    (tmp_path / "secret").write_text("0 0.5 0\n")
    (run / "metrics/auc").symlink_to(tmp_path / "secret")
    (run / "metrics/loss").mkdir()
    (run / "metrics/loss/loss").symlink_to(tmp_path)
    os.mkfifo(run / "metrics/accuracy")
    (run / "metrics/error").write_bytes(b"\xff\x00 \xff")
    (run / "metrics/score").write_text("0 inf 0\n0 1e400 1\n0 x 2\n")
    (run / "params/depth").write_text("../../etc\n" + SECRET)
    (tmp_path / "mlruns/1").symlink_to(tmp_path / "mlruns/0")
    found = metrics.read(str(tmp_path / "mlruns"), frozenset(), frozenset())
    assert [(logged.params, logged.metrics) for logged in found] == [({}, [])]


def test_what_passes_is_little(tmp_path: Path) -> None:
    run = store(tmp_path)
    for i in range(60):
        (run / f"metrics/loss_{i}").write_text("".join(f"0 {i + j / 7919} {j}\n" for j in range(1000)))
    for name in ("loss_1931", "Margaret", "loss; drop", "a" * 200, "mean_" * 40):
        (run / "metrics" / name).write_text("0 1 0\n")
    for i in range(90):
        (run / f"params/depth_{i}").write_text(str(i / 3))
    (logged,) = metrics.read(str(tmp_path / "mlruns"), frozenset(), frozenset())
    assert len(logged.metrics) <= metrics.POINTS and len(logged.params) == metrics.NAMES
    assert {name for name, _, _ in logged.metrics} == {f"loss_{i}" for i in range(60)}
    assert all(len(f"{value:.17g}".replace(".", "").strip("0")) <= 17 and value == float(f"{value:.6g}")
               for _, value, _ in logged.metrics)  # fmt: skip


def test_a_parameter_is_a_number_a_word_or_an_input(tmp_path: Path) -> None:
    run = store(tmp_path)
    (tmp_path / "t.py").write_text("log('gradient_boosting')\n")
    values = {"algorithm": "gradient_boosting", "seed": "20260101", "rate": "0.1", "depth": "12345678", "label": SECRET}
    for name, value in values.items():
        (run / "params" / name).write_text(value)
    words = of({"t.py": str(tmp_path / "t.py")}, keys=["algorithm", "seed"])
    (logged,) = metrics.read(str(tmp_path / "mlruns"), words.names, frozenset({"20260101"}))
    assert logged.params == {
        "algorithm": "gradient_boosting",
        "seed": "20260101",
        "rate": "0.1",
        "depth": "1.23457e+07",
    }
