"""What an honest project lets out: a gate that stops one of these will be switched off, and then stops nothing."""

from __future__ import annotations

import hashlib
import json
import uuid
import warnings
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import onnx
import polars as pl
from sklearn.cluster import KMeans
from sklearn.decomposition import PCA
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.ensemble import (
    GradientBoostingRegressor,
    HistGradientBoostingClassifier,
    HistGradientBoostingRegressor,
    RandomForestClassifier,
    RandomForestRegressor,
)
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.mixture import GaussianMixture
from sklearn.naive_bayes import GaussianNB
from sklearn.neural_network import MLPClassifier, MLPRegressor
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, PolynomialFeatures, RobustScaler, StandardScaler
from sklearn.tree import DecisionTreeClassifier

from . import models
from .files import log_lines
from .release import algorithms, copy_release
from .table import Table
from .vectors import generator

Write = Callable[[Path, Table, np.random.Generator], None]
EVERY = 10**9


class Output(NamedTuple):
    """A legitimate output. `listed` is False for a file that content rules pass and the list of names does not."""

    name: str
    write: Write
    listed: bool = False


OUTPUTS: list[Output] = []


def passes(name: str, listed: bool = False) -> Callable[[Write], Write]:
    def added(write: Write) -> Write:
        OUTPUTS.append(Output(name, write, listed))
        return write

    return added


def build(output: Output, table: Table, destination: Path) -> Path:
    """The folder that wants to leave; a file that is no part of a release lies there alone."""
    destination.mkdir()
    output.write(destination, table, generator(output.name, table))
    return destination


# --- releases -------------------------------------------------------------------------------------


def _release(folder: Path, table: Table, algorithm: str = "") -> None:
    folder.rmdir()
    copy_release(table, folder, algorithm)


def _component(place: int) -> Write:
    return lambda folder, table, rng: _release(folder, table, algorithms(table)[place])


for _place, _title in enumerate(("linear", "gradient_boosting", "random_forest", "mlp")):
    passes(f"release_{_title}", listed=True)(_component(_place))


# --- models ---------------------------------------------------------------------------------------

MODELS: dict[str, tuple[models.Factory, str]] = {
    "logistic_regression": (lambda t: LogisticRegression(max_iter=100), "label"),
    "scaled_logistic_regression": (lambda t: make_pipeline(StandardScaler(), LogisticRegression()), "label"),
    "pca_logistic_regression": (lambda t: make_pipeline(StandardScaler(), PCA(5), LogisticRegression()), "label"),
    "mean_imputer": (lambda t: make_pipeline(SimpleImputer(), StandardScaler(), LogisticRegression()), "label"),
    "naive_bayes": (lambda t: GaussianNB(), "label"),
    "discriminant_analysis": (lambda t: LinearDiscriminantAnalysis(), "label"),
    "histogram_boosting": (lambda t: HistGradientBoostingClassifier(max_iter=20), "label"),
    "histogram_boosting_regression": (lambda t: HistGradientBoostingRegressor(max_iter=20), "amount"),
    "forest": (lambda t: RandomForestClassifier(20, min_samples_leaf=20, random_state=1), "label"),
    "forest_regression": (
        lambda t: RandomForestRegressor(20, min_samples_leaf=20, bootstrap=False, max_features=5, random_state=1),
        "amount",
    ),
    "gradient_boosting_regression": (
        lambda t: GradientBoostingRegressor(n_estimators=20, min_samples_leaf=20),
        "amount",
    ),
    "decision_tree": (lambda t: DecisionTreeClassifier(min_samples_leaf=20), "label"),
    "ridge": (lambda t: Ridge(), "amount"),
    "robust_scaler_ridge": (lambda t: make_pipeline(RobustScaler(), Ridge()), "amount"),
    "polynomial_ridge": (lambda t: make_pipeline(StandardScaler(), PolynomialFeatures(2), Ridge()), "amount"),
    "kmeans_of_8": (
        lambda t: make_pipeline(StandardScaler(), KMeans(8 if t.rows > 3000 else 4, n_init=1, random_state=1)),
        "none",
    ),
    "gaussian_mixture": (lambda t: make_pipeline(StandardScaler(), GaussianMixture(3, random_state=1)), "none"),
    "perceptron": (
        lambda t: make_pipeline(StandardScaler(), MLPClassifier((64, 64), max_iter=20, random_state=1)),
        "label",
    ),
    "large_perceptron": (
        lambda t: make_pipeline(
            StandardScaler(), MLPRegressor(hidden_layer_sizes=(256, 256), max_iter=3, random_state=1)
        ),
        "amount",
    ),
}
FITTED_ON = 20_000  # rows at the most, so that a table of 200,000 does not take hours


def _model(name: str) -> Write:
    factory, target = MODELS[name]

    def write(folder: Path, table: Table, rng: np.random.Generator) -> None:
        _release(folder, table)
        models.put(folder, models.trained(table, f"passes {name}", factory, target, FITTED_ON))

    return write


for _name in MODELS:
    passes(f"model_{_name}")(_model(_name))


@passes("model_quantised")
def quantised(folder: Path, table: Table, rng: np.random.Generator) -> None:
    """Weights as bytes with a scale, as a deployment on a small device has them."""
    _release(folder, table)
    factory, target = MODELS["perceptron"]
    models.put(folder, _quantised(models.trained(table, "passes perceptron", factory, target, FITTED_ON)))


@cache
def _quantised(model: bytes) -> bytes:
    import tempfile

    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from onnxruntime.quantization import quantize_dynamic

        source, target = Path(folder) / "a.onnx", Path(folder) / "b.onnx"
        source.write_bytes(model)
        quantize_dynamic(source, target)
        return target.read_bytes()


@passes("model_in_half_precision")
def halved(folder: Path, table: Table, rng: np.random.Generator) -> None:
    _release(folder, table)
    factory, target = MODELS["perceptron"]
    model = onnx.load_model_from_string(models.trained(table, "passes perceptron", factory, target, FITTED_ON))
    for tensor in [t for t in model.graph.initializer if t.data_type == onnx.TensorProto.FLOAT]:
        array = onnx.numpy_helper.to_array(tensor).astype("float16")
        model.graph.initializer.remove(tensor)
        model.graph.initializer.append(onnx.numpy_helper.from_array(array, f"half_{tensor.name}"))
        cast = onnx.helper.make_node("Cast", [f"half_{tensor.name}"], [tensor.name], to=onnx.TensorProto.FLOAT)
        model.graph.node.insert(0, cast)
    models.put(folder, model)


@passes("model_of_public_categories")
def public_categories(folder: Path, table: Table, rng: np.random.Generator) -> None:
    _release(folder, table)
    columns = list(table.form.public)
    factory = lambda t: make_pipeline(OneHotEncoder(handle_unknown="ignore"), LogisticRegression())  # noqa: E731
    models.put(folder, models.trained_on_text(table, columns, factory))


@passes("model_of_frequent_words")
def frequent_words(folder: Path, table: Table, rng: np.random.Generator) -> None:
    """TF-IDF of words that stand in many notes."""
    from skl2onnx import to_onnx
    from skl2onnx.common.data_types import StringTensorType

    _release(folder, table)
    notes, labels = np.array(table.texts(table.form.note)[:FITTED_ON]), table.labels()[:FITTED_ON]
    words = TfidfVectorizer(min_df=50, token_pattern="[a-z]{3,}")
    estimator = make_pipeline(words, LogisticRegression()).fit(notes, labels)
    types = [("features", StringTensorType([None, 1]))]
    options = {id(estimator): {"zipmap": False}}
    models.put(folder, to_onnx(estimator, initial_types=types, options=options).SerializeToString())


# --- reports --------------------------------------------------------------------------------------


def _write(file: str, text: Callable[[Table, np.random.Generator], str]) -> Write:
    def write(folder: Path, table: Table, rng: np.random.Generator) -> None:
        (folder / file).write_text(text(table, rng))

    return write


def _json(document: Any) -> str:
    return json.dumps(document, indent=1) + "\n"


def _rounded(values: Any, digits: int = 4) -> list[float]:
    return [float(f"{value:.{digits}g}") for value in values]


def _metrics(table: Table, rng: np.random.Generator) -> str:
    names = ("roc_auc", "accuracy", "f1", "precision", "recall", "brier", "log_loss", "balanced_accuracy")
    return _json({"rows": table.rows, "metrics": {name: float(f"{rng.random():.5f}") for name in names}})


def _curve(table: Table, rng: np.random.Generator) -> str:
    grid = np.linspace(0, 1, 51)
    return _json({"roc": [_rounded(point) for point in zip(grid, grid ** rng.uniform(0.1, 0.6), strict=True)]})


def _scaler(table: Table, rng: np.random.Generator) -> str:
    matrix = table.matrix().astype("float64")
    mean, scale = (_rounded(values, 6) for values in (matrix.mean(axis=0), matrix.std(axis=0)))
    return _json({"features": table.names, "mean_": mean, "scale_": scale, "n_samples_seen_": table.rows})


def _log(lines: int) -> Callable[[Table, np.random.Generator], str]:
    return lambda table, rng: "\n".join(log_lines(rng, lines)) + "\n"


def _busy_log(lines: int) -> Callable[[Table, np.random.Generator], str]:
    """A long log with times, request ids and durations."""

    def text(table: Table, rng: np.random.Generator) -> str:
        ids = rng.bytes(16 * lines)
        spans, sizes = rng.gamma(2, 40, lines), rng.integers(200, 90_000, lines)
        told = []
        for line in range(lines):
            name = uuid.UUID(bytes=ids[16 * line : 16 * line + 16])
            clock = f"{line // 3600 % 24:02d}:{line // 60 % 60:02d}:{line % 60:02d}.{line % 997:03d}"
            told.append(f"2026-11-24 {clock} INFO {name} step {line} took {spans[line]:.2f} ms, {sizes[line]} bytes")
        return "\n".join(told) + "\n"

    return text


def _lineage(table: Table, rng: np.random.Generator) -> str:
    digests = {
        name: f"sha256:{hashlib.sha256(rng.bytes(8)).hexdigest()}" for name in ("data", "contract", "model", "code")
    }
    return _json({"version": 1, "rows": table.rows, "run": str(uuid.UUID(bytes=rng.bytes(16))), **digests})


def _schema(table: Table, rng: np.random.Generator) -> str:
    return _json({"columns": [{"name": name, "type": str(kind)} for name, kind in table.frame.schema.items()]})


def _importances(table: Table, rng: np.random.Generator) -> str:
    shares = rng.dirichlet(np.ones(len(table.names)))
    return _json(dict(zip(table.names, _rounded(shares), strict=True)))


def _groups(table: Table, rng: np.random.Generator) -> str:
    """Figures of every group that has enough rows."""
    column = next(iter(table.form.public))
    grouped = table.frame.group_by(column).agg(pl.len().alias("n"), pl.col(table.form.amount.name).mean().alias("mean"))
    kept = grouped.filter(pl.col("n") >= 10).sort(column)
    return _json([{column: name, "n": n, "mean": float(f"{mean:.4g}")} for name, n, mean in kept.rows()])


def _histogram(table: Table, rng: np.random.Generator) -> str:
    number = table.form.numbers[0]
    counts, edges = np.histogram(
        table.frame[number.name].to_numpy(), np.linspace(number.centre - 30, number.centre + 30, 7)
    )
    return _json(
        {"column": number.name, "edges": _rounded(edges, 3), "counts": [int(c) if c >= 10 else None for c in counts]}
    )


def _card(table: Table, rng: np.random.Generator) -> str:
    return (
        f"# Model card: {table.form.title}\n\nTrained on {table.rows} rows with {len(table.names)} numeric columns.\n"
        f"Intended for decision support. Area under the curve {rng.uniform(0.7, 0.95):.3f} "
        f"(95 % interval {rng.uniform(0.6, 0.7):.3f} to {rng.uniform(0.95, 1):.3f}).\nNot for persons under 18.\n"
    )


def _folds(table: Table, rng: np.random.Generator) -> str:
    kinds = ("fit_time", "score_time", "test_roc_auc", "test_accuracy", "train_roc_auc")
    return _json({kind: [float(f"{value:.8f}") for value in rng.random(10)] for kind in kinds})


def _trace(table: Table, rng: np.random.Generator) -> str:
    return (
        'Traceback (most recent call last):\n  File "/opt/train/train.py", line 118, in <module>\n    main()\n'
        '  File "/opt/train/train.py", line 97, in main\n    model.fit(x, y)\n'
        f"ValueError: Found input variables with inconsistent numbers of samples: [{table.rows}, {table.rows - 60}]\n"
    )


def _commas(table: Table, rng: np.random.Generator) -> str:
    lines = [f"{epoch};{a:.4f};{b:.4f}".replace(".", ",") for epoch, (a, b) in enumerate(rng.random((60, 2)))]
    return "Epoche;Verlust;Genauigkeit\n" + "\n".join(lines) + "\n"


def _drift(table: Table, rng: np.random.Generator) -> str:
    """Population stability of every column over ten wide bins with enough rows in each."""
    document = {}
    for name in table.names:
        shares = rng.dirichlet(np.full(10, 60))
        counts = np.maximum((shares * table.rows).astype(int), 10).tolist()
        document[name] = {"psi": float(f"{rng.gamma(1, 0.02):.4f}"), "bins": counts}
    return _json(document)


def _bill(table: Table, rng: np.random.Generator) -> str:
    """A software bill of materials."""
    names = ("numpy", "scipy", "polars", "onnx", "onnxruntime", "scikit-learn", "joblib", "threadpoolctl", "protobuf")
    parts = [
        {
            "name": name,
            "version": ".".join(map(str, rng.integers(0, 40, 3))),
            "hashes": [{"alg": "SHA-256", "content": hashlib.sha256(rng.bytes(9)).hexdigest()}],
        }
        for name in names * 12
    ]
    return _json(
        {
            "bomFormat": "CycloneDX",
            "specVersion": "1.6",
            "serialNumber": str(uuid.UUID(bytes=rng.bytes(16))),
            "components": parts,
        }
    )


def _images(table: Table, rng: np.random.Generator) -> str:
    lines = [
        f"scoring-{i}@sha256:{hashlib.sha256(rng.bytes(9)).hexdigest()} {s} bytes"
        for i, s in enumerate(rng.integers(1e6, 9e8, 40))
    ]
    return "\n".join(lines) + "\n"


def _search(table: Table, rng: np.random.Generator) -> str:
    """The results of a search for hyper-parameters."""
    lines = ["trial,learning_rate,max_depth,l2,roc_auc,seconds"]
    for trial in range(120):
        rate, penalty, score, seconds = (
            10 ** rng.uniform(-3, 0),
            10 ** rng.uniform(-4, 1),
            rng.uniform(0.6, 0.95),
            rng.gamma(3, 2),
        )
        lines.append(f"{trial},{rate:.6f},{rng.integers(2, 9)},{penalty:.6f},{score:.6f},{seconds:.2f}")
    return "\n".join(lines) + "\n"


def _lock(table: Table, rng: np.random.Generator) -> str:
    lines = [
        f"package-{i}=={a}.{b}.{c} \\\n    --hash=sha256:{hashlib.sha256(rng.bytes(9)).hexdigest()}"
        for i, (a, b, c) in enumerate(rng.integers(0, 30, (60, 3)))
    ]
    return "\n".join(lines) + "\n"


def _settings(table: Table, rng: np.random.Generator) -> str:
    return (
        f"algorithm: gradient_boosting\nlearning_rate: 0.05\nmax_iter: 400\nseed: {rng.integers(1, 10**8)}\n"
        f"features: [{', '.join(table.names)}]\nquantiles: [0.01, 0.05, 0.25, 0.5, 0.75, 0.95, 0.99]\n"
    )


def _confusion(table: Table, rng: np.random.Generator) -> str:
    """A confusion matrix with the small cells suppressed, and others."""
    return _json(
        {
            "labels": list(table.form.classes),
            "matrix": [[int(rng.integers(40, 400)), None], [None, int(rng.integers(40, 400))]],
        }
    )


def _intervals(table: Table, rng: np.random.Generator) -> str:
    draws = np.sort(rng.normal(0.85, 0.01, (40, 3)), axis=1)
    return _json(
        {f"slice {i}": dict(zip(("low", "value", "high"), _rounded(d, 6), strict=True)) for i, d in enumerate(draws)}
    )


def _plot(table: Table, rng: np.random.Generator) -> str:
    """The specification of a plot of smoothed losses."""
    points = [
        {"epoch": epoch, "loss": float(f"{np.exp(-epoch / 30) + rng.normal(scale=0.01):.5f}")} for epoch in range(150)
    ]
    return _json(
        {"mark": "line", "encoding": {"x": {"field": "epoch"}, "y": {"field": "loss"}}, "data": {"values": points}}
    )


def _counts_of_places(table: Table, rng: np.random.Generator) -> str:
    """Places with ten rows or more, counts rounded to tens."""
    counted = table.frame[table.form.place].value_counts().filter(pl.col("count") >= 10)
    return _json({place: round(n, -1) for place, n in sorted(counted.rows())})


def _gpu(table: Table, rng: np.random.Generator) -> str:
    lines = [
        f"{second},{u},{m},{t},{p:.2f}"
        for second, (u, m, t, p) in enumerate(
            zip(*rng.integers(0, 100, (3, 300)), rng.uniform(40, 250, 300), strict=True)
        )
    ]
    return "second,cpu_percent,memory_percent,temperature,watts\n" + "\n".join(lines) + "\n"


REPORTS: dict[str, tuple[str, Callable[[Table, np.random.Generator], str]]] = {
    "metrics": ("metrics.json", _metrics),
    "curve_of_51_points": ("curves.json", _curve),
    "scaler_statistics": ("scaler.json", _scaler),
    "epoch_log": ("train.log", _log(300)),
    "log_of_1_mb": ("service.log", _busy_log(9_500)),
    "lineage": ("lineage.json", _lineage),
    "schema": ("schema.json", _schema),
    "feature_importances": ("importance.json", _importances),
    "grouped_metrics": ("groups.json", _groups),
    "binned_histogram": ("histogram.json", _histogram),
    "model_card": ("card.md", _card),
    "cross_validation": ("folds.json", _folds),
    "traceback_without_data": ("error.log", _trace),
    "decimal_commas": ("verlauf.csv", _commas),
    "drift_report": ("drift.json", _drift),
    "bill_of_materials": ("sbom.json", _bill),
    "image_digests": ("images.txt", _images),
    "search_results": ("trials.csv", _search),
    "lock_with_hashes": ("requirements.txt", _lock),
    "settings": ("settings.yml", _settings),
    "suppressed_confusion": ("confusion.json", _confusion),
    "bootstrap_intervals": ("intervals.json", _intervals),
    "plot_of_losses": ("loss.vl.json", _plot),
    "counts_of_frequent_places": ("places.json", _counts_of_places),
    "machine_load": ("load.csv", _gpu),
}
for _name, (_file, _text) in REPORTS.items():
    passes(_name)(_write(_file, _text))


@passes("log_of_10_mb")
def long_log(folder: Path, table: Table, rng: np.random.Generator) -> None:
    (folder / "service.log").write_text(_busy_log(95_000)(table, rng))
