"""Real material for the tests of what comes after training: a small model, its evaluation, a run folder.

The model is trained on scikit-learn's breast-cancer table and exported to ONNX; the JSON files have the
forms that the components write; the release is made by the component itself. Built once per process,
copied for each test, so a test may spoil its copy.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from edgeml.airlock.keeping import seal

COMPONENTS = Path(__file__).parents[1] / "components"
COMPONENT = COMPONENTS / "release_artifacts" / "component.yml"
QUARTERS = ("lowest quarter", "second quarter", "third quarter", "highest quarter")
SLICED = ("mean_radius", "mean_texture")
K = 10

_folder = tempfile.TemporaryDirectory(prefix="edgeml-release-")


@dataclass(frozen=True)
class Artifacts:
    """The inputs of release_artifacts, in one folder."""

    folder: Path

    @property
    def model(self) -> Path:
        return self.folder / "model"

    @property
    def evaluation(self) -> Path:
        return self.folder / "evaluation"

    def edit(self, file: str, **changes: Any) -> None:
        """Set keys of one of the JSON files; `contract__sha256` reaches inwards."""
        document = read_json(self.folder / file)
        for path, value in changes.items():
            *parents, last = path.split("__")
            place = document
            for parent in parents:
                place = place[int(parent)] if isinstance(place, list) else place[parent]
            place[int(last) if isinstance(place, list) else last] = value
        write_json(self.folder / file, document)


def read_json(path: Path) -> Any:
    return json.loads(path.read_text("utf-8"))


def write_json(path: Path, document: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(document, indent=2, sort_keys=True) + "\n", "utf-8")


def artifacts(destination: Path, task: str = "classification") -> Artifacts:
    """A fresh copy of what a training run hands to release_artifacts."""
    shutil.copytree(_classification() if task == "classification" else _regression(), destination)
    return Artifacts(destination)


def airlock_state() -> Path:
    """The folder of the gate that released what is built here, with the key that signed it."""
    return Path(_folder.name) / "airlock"


def release(
    made: Artifacts, destination: Path, *more: str, state: Path | None = None
) -> subprocess.CompletedProcess[str]:
    """Run the component's command as the engine would: a process of its own, in a snapshot of the package."""
    paths = {"model": made.model, "evaluation": made.evaluation, "table": made.folder / "table"}
    paths |= {name: made.folder / f"{name}.json" for name in ("manifest", "validation")}
    paths |= {"contract": made.folder / "contract.yml", "release": destination}
    line = re.sub(r"\$\[\[.*?\]\]", "", yaml.safe_load(COMPONENT.read_text())["command"])
    for name, path in paths.items():
        line = re.sub(r"\$\{\{(inputs|outputs)\." + name + r"\}\}", shlex.quote(str(path)), line)
    line = line.replace("python ", shlex.quote(sys.executable) + " ", 1) + "".join(f" {word}" for word in more)
    environment = {**os.environ, "EDGEML_AIRLOCK_STATE": str(state or airlock_state())}
    return subprocess.run(
        ["bash", "-c", line], cwd=COMPONENTS.parent, env=environment, capture_output=True, text=True, check=False
    )


def run_folder(
    destination: Path,
    *,
    task: str = "classification",
    promote: bool = True,
    started: str = "2026-11-23T10:00:00Z",
    status: str = "completed",
) -> Path:
    """A run folder as the engine leaves it, with a release made by the component."""
    source = _run(task, promote)
    shutil.copytree(source, destination, symlinks=True)
    for folder in destination.parents:
        if (folder / ".edgeml").is_dir():
            trust(folder / ".edgeml" / "airlock")
            break
    record = read_json(destination / "run.json")
    record |= {"run": destination.name, "started": started, "status": status}
    if status == "failed":
        _fail(destination, record)
    write_json(destination / "run.json", record)
    return destination


def trust(state: Path) -> None:
    """Let a project believe the gate that released what is built here, as if it were its own."""
    state.mkdir(exist_ok=True)
    seal.publish(state, seal.public(seal.key_of(airlock_state())))


def reseal(release_folder: Path) -> None:
    """Write egress.json anew for what the folder holds: a release that differs, not one tampered with."""
    papers = ("egress.json", "egress.sig")
    files = sorted(path for path in release_folder.iterdir() if path.name not in papers)
    verdict = read_json(release_folder / "egress.json")
    verdict["files"] = [
        {"name": path.name, "bytes": path.stat().st_size, "sha256": _sha256(path.read_bytes())} for path in files
    ]
    write_json(release_folder / "egress.json", verdict)
    sign(release_folder)


def sign(release_folder: Path) -> None:
    """Sign egress.json, whatever it says, as the gate would."""
    signature = seal.sign((release_folder / "egress.json").read_bytes(), seal.key_of(airlock_state()))
    (release_folder / "egress.sig").write_bytes(signature)


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


@cache
def _run(task: str, promote: bool) -> Path:
    run = Path(_folder.name) / f"run-{task}-{promote}"
    made = artifacts(Path(_folder.name) / f"inputs-{task}-{promote}", task)
    if not promote:
        reasons = ["roc_auc: the challenger is not better than the champion: difference -0.0021 [-0.0093, 0.0048]"]
        made.edit("evaluation/promotion.json", promote=False, reasons=reasons)
        made.edit("evaluation/promotion.json", checks__0__passed=False)
    folder = run / "cloud" / "release_artifacts" / "release"
    folder.mkdir(parents=True)
    done = release(made, folder)
    assert done.returncode == 0, done.stderr
    for link, target in (
        (run / "outputs" / "release", "../cloud/release_artifacts/release"),
        (run / "jobs/release_artifacts/outputs/release", "../../../cloud/release_artifacts/release"),
    ):
        link.parent.mkdir(parents=True)
        link.symlink_to(target)
    (run / "jobs/release_artifacts/log.txt").write_text("a log line that no report may show\n")
    write_json(run / "run.json", _record())
    return run


def _record() -> dict[str, Any]:
    """run.json of a completed run of pipelines/train.yml."""
    graph: list[tuple[str, list[str], float, float, list[tuple[str, str]]]] = [
        ("ingest_blobs", [], 0.02, 1.9, [("table", "uri_folder"), ("manifest", "uri_file")]),
        ("validate_data", ["ingest_blobs"], 1.93, 1.2, [("validation", "uri_file")]),
        ("split_data", ["ingest_blobs", "validate_data"], 3.15, 0.8, [("train", "uri_folder"), ("test", "uri_folder")]),
        ("train_model", ["split_data"], 3.97, 4.4, [("model", "custom_model")]),
        ("evaluate_model", ["train_model", "split_data"], 8.4, 3.1, [("evaluation", "uri_folder")]),
        (
            "release_artifacts",
            ["train_model", "evaluate_model", "ingest_blobs", "validate_data"],
            11.5,
            0.6,
            [("release", "uri_folder")],
        ),
    ]
    steps = []
    for node, needs, started, seconds, outputs in graph:
        zone = "cloud" if node == "release_artifacts" else "edge"
        steps.append(
            {
                "node": node,
                "component": node,
                "status": "cached" if node == "validate_data" else "completed",
                "seconds": seconds,
                "started": started,
                "exit_code": 0,
                "needs": needs,
                "key": _sha256(node.encode()),
                "outputs": {
                    name: {
                        "type": kind,
                        "zone": zone,
                        "path": f"{zone}/{node}/{name}",
                        "digest": "sha256:" + _sha256(f"{node}/{name}".encode()),
                    }
                    for name, kind in outputs
                },
            }
        )
    return {
        "version": 1,
        "run": "",
        "pipeline": "pipelines/train.yml",
        "status": "completed",
        "pipeline_digest": "sha256:" + _sha256(b"train.yml"),
        "git": {"commit": "a" * 40, "dirty": False},
        "started": "2026-11-23T10:00:00Z",
        "seconds": 12.14,
        "python": "3.11.7",
        "inputs": {"container": "private", "prefix": "patients/", "seed": 20260101},
        "steps": steps,
        "outputs": {
            "release": {"type": "uri_folder", "zone": "cloud", "path": "cloud/release_artifacts/release"},
        },
    }


def _fail(run: Path, record: dict[str, Any]) -> None:
    """Make of a completed run one in which train_model failed."""
    shutil.rmtree(run / "cloud")
    shutil.rmtree(run / "outputs")
    shutil.rmtree(run / "jobs/release_artifacts/outputs")
    record["outputs"] = {}
    for step in record["steps"]:
        if step["node"] == "train_model":
            step |= {"status": "failed", "exit_code": 1, "outputs": {}}
        elif step["node"] in ("evaluate_model", "release_artifacts"):
            step |= {"status": "skipped", "exit_code": None, "seconds": 0.0, "outputs": {}}


# --- the training itself --------------------------------------------------------------------------


def _lineage(folder: Path, contract: str, table: dict[str, Any]) -> None:
    """The private rows, and what ingest_blobs and validate_data say of them."""
    import polars as pl

    frame = pl.DataFrame({"patient_id": [f"P{row:06d}" for row in range(len(next(iter(table.values()))))]} | table)
    columns, rows = frame.columns, frame.height
    (folder / "table").mkdir()
    frame.write_parquet(folder / "table" / "part-00000.parquet")
    blobs = [{"name": "patients/part-0.csv", "bytes": 120_000, "rows": rows, "sha256": _sha256(b"part-0")}]
    write_json(
        folder / "manifest.json",
        {
            "version": 1,
            "container": "private",
            "prefix": "patients/",
            "blobs": blobs,
            "rows": rows,
            "bytes": 120_000,
            "columns": [{"name": name, "type": "double"} for name in columns],
            "fingerprint": "sha256:" + _sha256(b"the data"),
        },
    )
    (folder / "contract.yml").write_text(contract, "utf-8")
    name, version = (line.split(": ")[1] for line in contract.splitlines()[:2])
    write_json(
        folder / "validation.json",
        {
            "version": 1,
            "valid": True,
            "contract": {"name": name, "version": int(version), "sha256": _sha256(contract.encode())},
            "rows": rows,
            "columns": len(columns),
            "violations": [],
        },
    )


def _contract(name: str, target: str, task: str, columns: list[str], slices: tuple[str, ...]) -> str:
    types = "".join(f"  {column}: {{type: number}}\n" for column in columns)
    if task == "classification":
        types += f"  {target}: {{type: string, allowed: [benign, malignant], public: true}}\n"
        extra, thresholds = "positive: malignant\n", "thresholds: {roc_auc: 0.9}"
    else:
        types += f"  {target}: {{type: number}}\n"
        extra, thresholds = "", "thresholds: {r2: 0.3}"
    return (
        f"name: {name}\nversion: 1\nkey: patient_id\ntarget: {target}\ntask: {task}\n{extra}k: {K}\n"
        f"columns:\n  patient_id: {{type: string, unique: true}}\n{types}"
        f"slices: [{', '.join(slices)}]\n{thresholds}\nrows: {{min_rows: 100}}\n"
    )


def _model_folder(folder: Path, onnx_model: Any, signature: dict[str, Any]) -> None:
    (folder / "model").mkdir(parents=True)
    (folder / "model" / "model.onnx").write_bytes(onnx_model.SerializeToString())
    write_json(folder / "model" / "signature.json", signature)
    write_json(folder / "model" / "parity.json", {"rows": 200, "max_difference": 1.2e-7, "tolerance": 1e-5})


def _interval(draws: Any, value: float) -> dict[str, float]:
    import numpy as np

    low, high = np.percentile(draws, [2.5, 97.5])
    return {name: float(f"{number:.6g}") for name, number in (("value", value), ("low", low), ("high", high))}


def _thirds(predictions: Any, edges: list[float]) -> list[dict[str, float]]:
    """Counts of predictions between edges; the outermost hold what lies beyond."""
    import numpy as np

    cells = np.searchsorted(edges[1:-1], predictions, side="right")
    return [
        {"low": low, "high": high, "count": int((cells == cell).sum())}
        for cell, (low, high) in enumerate(itertools.pairwise(edges))
    ]


@cache
def _classification() -> Path:
    import numpy as np
    from skl2onnx import to_onnx
    from skl2onnx.common.data_types import FloatTensorType
    from sklearn.calibration import calibration_curve
    from sklearn.datasets import load_breast_cancer
    from sklearn.linear_model import LogisticRegression
    from sklearn.metrics import (
        accuracy_score,
        average_precision_score,
        brier_score_loss,
        confusion_matrix,
        f1_score,
        log_loss,
        precision_recall_curve,
        roc_auc_score,
        roc_curve,
    )  # fmt: skip
    from sklearn.model_selection import train_test_split
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    folder = Path(_folder.name) / "classification"
    data = load_breast_cancer()
    names = [str(name).replace(" ", "_") for name in data.feature_names]
    x, y = data.data.astype("float32"), np.where(data.target == 0, "malignant", "benign")
    x_train, x_test, y_train, y_test = train_test_split(x, y, test_size=0.4, stratify=y, random_state=1)
    estimator = make_pipeline(StandardScaler(), LogisticRegression(C=0.05)).fit(x_train, y_train)
    weak = make_pipeline(StandardScaler(), LogisticRegression(C=0.001)).fit(x_train, y_train)
    types = [("features", FloatTensorType([None, len(names)]))]
    _model_folder(
        folder,
        to_onnx(estimator, initial_types=types, options={"zipmap": False}),
        {
            "version": 1,
            "task": "classification",
            "target": "diagnosis",
            "classes": ["benign", "malignant"],
            "positive": "malignant",
            "features": [{"name": name, "type": "number"} for name in names],
            "inputs": [{"name": "features", "dtype": "float32", "shape": [None, len(names)]}],
            "outputs": [
                {"name": "label", "dtype": "string", "shape": [None]},
                {"name": "probabilities", "dtype": "float32", "shape": [None, 2]},
            ],
            "algorithm": "logistic_regression",
            "parameters": {"C": 0.05, "penalty": "l2", "max_iter": 100, "seed": 20260101},
        },
    )
    truth = (y_test == "malignant").astype(int)
    chance, weaker = estimator.predict_proba(x_test)[:, 1], weak.predict_proba(x_test)[:, 1]
    scores: dict[str, Any] = {
        "roc_auc": roc_auc_score,
        "average_precision": average_precision_score,
        "accuracy": lambda t, p: accuracy_score(t, p >= 0.5),
        "f1": lambda t, p: f1_score(t, p >= 0.5),
        "brier": brier_score_loss,
        "log_loss": log_loss,
    }
    generator = np.random.default_rng(7)
    draws = [generator.integers(0, len(truth), len(truth)) for _ in range(60)]

    def measure(p: Any, rows: Any = slice(None), picked: Any = tuple(scores)) -> dict[str, Any]:
        t, p = truth[rows], p[rows]
        mine = [d[d < len(t)] for d in draws]
        mine = [d for d in mine if 0 < t[d].sum() < len(d)]
        return {m: _interval([scores[m](t[d], p[d]) for d in mine], scores[m](t, p)) for m in picked}

    evaluation = folder / "evaluation"
    write_json(
        evaluation / "metrics.json",
        {
            "version": 1,
            "rows": len(truth),
            "metrics": measure(chance),
            "bootstrap": {"samples": 1000, "confidence": 0.95, "seed": 20260101},
        },
    )
    grid = np.linspace(0, 1, 51)
    fpr, tpr, _ = roc_curve(truth, chance)
    precision, recall, _ = precision_recall_curve(truth, chance)
    fraction, mean = calibration_curve(truth, chance, n_bins=6, strategy="quantile")
    write_json(
        evaluation / "curves.json",
        {
            "version": 1,
            "roc": [[float(a), float(b)] for a, b in zip(grid, np.interp(grid, fpr, tpr), strict=True)],
            "pr": [
                [float(a), float(b)] for a, b in zip(grid, np.interp(grid, recall[::-1], precision[::-1]), strict=True)
            ],
            "calibration": [
                {"mean_predicted": float(m), "fraction_positive": float(f), "count": len(truth) // 6}
                for m, f in zip(mean, fraction, strict=True)
            ],
            "distribution": _thirds(chance, [0, 0.3, 0.7, 1]),
        },
    )
    matrix = confusion_matrix(truth, chance >= 0.5).tolist()
    write_json(
        evaluation / "confusion.json",
        {
            "version": 1,
            "labels": ["benign", "malignant"],
            "matrix": [[n if i == j else None for j, n in enumerate(row)] for i, row in enumerate(matrix)],
        },
    )
    slices = []
    for column in SLICED:
        values = x_test[:, names.index(column)]
        part = np.searchsorted(np.quantile(values, [0.25, 0.5, 0.75]), values)
        for quartile in range(4):
            rows = part == quartile
            slices.append(
                {
                    "column": column,
                    "slice": QUARTERS[quartile],
                    "rows": int(rows.sum()),
                    "metrics": measure(chance, rows, ("accuracy", "brier")),
                }
            )
    write_json(evaluation / "slices.json", {"version": 1, "k": K, "slices": slices, "suppressed": 0})
    drops = []
    for i, name in enumerate(names):
        shuffled = []
        for _ in range(3):
            other = x_test.copy()
            other[:, i] = generator.permutation(other[:, i])
            shuffled.append(
                scores["roc_auc"](truth, chance) - roc_auc_score(truth, estimator.predict_proba(other)[:, 1])
            )
        drops.append({"name": name, "mean": float(np.mean(shuffled)), "std": float(np.std(shuffled))})
    write_json(
        evaluation / "importance.json",
        {
            "version": 1,
            "method": "permutation of the test part through the ONNX model, drop in roc_auc",
            "features": sorted(drops, key=lambda d: -d["mean"]),
        },
    )
    difference = [roc_auc_score(truth[d], chance[d]) - roc_auc_score(truth[d], weaker[d]) for d in draws]
    gain = scores["roc_auc"](truth, chance) - scores["roc_auc"](truth, weaker)
    write_json(
        evaluation / "promotion.json",
        {
            "version": 1,
            "promote": True,
            "reasons": ["every check passed"],
            "checks": [
                {"name": "not worse than the champion", "passed": True, "detail": "roc_auc: margin 0.01"},
                {"name": "threshold roc_auc", "passed": True, "detail": "0.98 [0.96, 0.99] is at least 0.9"},
            ],
            "champion": {
                "model_sha256": _sha256(b"champion"),
                "metrics": measure(weaker),
                "difference": {"metric": "roc_auc", **_interval(difference, gain), "p_value": 0.003, "margin": 0.01},
            },
        },
    )
    table = {name: data.data[:, index] for index, name in enumerate(names)} | {"diagnosis": y.tolist()}
    _lineage(folder, _contract("breast_cancer", "diagnosis", "classification", names, SLICED), table)
    return folder


@cache
def _regression() -> Path:
    import numpy as np
    from skl2onnx import to_onnx
    from skl2onnx.common.data_types import FloatTensorType
    from sklearn.datasets import load_diabetes
    from sklearn.linear_model import Ridge
    from sklearn.metrics import mean_absolute_error, r2_score, root_mean_squared_error

    folder = Path(_folder.name) / "regression"
    data = load_diabetes()
    names = [str(name) for name in data.feature_names]
    x, y = data.data.astype("float32"), data.target
    estimator = Ridge(alpha=0.01).fit(x[:250], y[:250])
    model = to_onnx(estimator, initial_types=[("features", FloatTensorType([None, len(names)]))], final_types=None)
    model.graph.output[0].name = "prediction"
    model.graph.node[-1].output[0] = "prediction"
    _model_folder(
        folder,
        model,
        {
            "version": 1,
            "task": "regression",
            "target": "progression",
            "features": [{"name": name, "type": "number"} for name in names],
            "inputs": [{"name": "features", "dtype": "float32", "shape": [None, len(names)]}],
            "outputs": [{"name": "prediction", "dtype": "float32", "shape": [None, 1]}],
            "algorithm": "ridge",
            "parameters": {"alpha": 0.01},
        },
    )
    truth, predicted = y[250:], estimator.predict(x[250:])
    generator = np.random.default_rng(7)
    draws = [generator.integers(0, len(truth), len(truth)) for _ in range(60)]
    scores = {"rmse": root_mean_squared_error, "mae": mean_absolute_error, "r2": r2_score}
    evaluation = folder / "evaluation"
    metrics = {m: _interval([s(truth[d], predicted[d]) for d in draws], s(truth, predicted)) for m, s in scores.items()}
    bootstrap = {"samples": 1000, "confidence": 0.95, "seed": 20260101}
    write_json(
        evaluation / "metrics.json", {"version": 1, "rows": len(truth), "metrics": metrics, "bootstrap": bootstrap}
    )
    counts, edges = np.histogram(truth - predicted, bins=9, range=(-135, 135))
    bins = [
        {"low": float(a), "high": float(b), "count": int(n)}
        for n, a, b in zip(counts, edges[:-1], edges[1:], strict=True)
        if n >= K
    ]
    spread = _thirds(predicted, [100, 130, 170, 250])
    write_json(evaluation / "curves.json", {"version": 1, "residuals": bins, "distribution": spread})
    write_json(evaluation / "slices.json", {"version": 1, "k": K, "slices": [], "suppressed": 0})
    features = [
        {"name": n, "mean": float(abs(c)) / 100, "std": 0.1} for n, c in zip(names, estimator.coef_, strict=True)
    ]
    write_json(
        evaluation / "importance.json",
        {"version": 1, "method": "rise in rmse", "features": sorted(features, key=lambda f: -f["mean"])},
    )
    write_json(
        evaluation / "promotion.json",
        {
            "version": 1,
            "promote": True,
            "reasons": ["every check passed"],
            "checks": [{"name": "threshold r2", "passed": True, "detail": "0.48 is at least 0.3"}],
            "champion": None,
        },
    )
    table = {name: data.data[:, index] for index, name in enumerate(names)} | {"progression": y}
    _lineage(folder, _contract("diabetes", "progression", "regression", names, ()), table)
    return folder
