"""Train a model and export it to ONNX, with its preprocessing inside.

Parity by construction. The features are rounded to float32 before anything else, because that is what
the ONNX model is fed; a tree's threshold is then exported as the largest float32 not above it, which
sends every float32 the same way. Scaling is one subtraction and one multiplication in float32, done
here with the very constants and order of the exported graph, and estimators are trained on the result.
What is left is the order of summation, about 1e-7. The step then compares both models on every row
of the test part, and writes nothing if they differ by more than the tolerance.

What may be in the model: categories come from the contract's `allowed` of public columns and never
from the data, no leaf has fewer than k training rows, and the key is not a feature.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import contract as data_contract
from contract import Column, Contract, Refusal

if TYPE_CHECKING:
    import numpy as np
    import polars as pl

ALGORITHMS = {
    "classification": ("gradient_boosting", "random_forest", "mlp", "logistic_regression"),
    "regression": ("gradient_boosting", "random_forest", "mlp", "ridge"),
}
OUTPUTS = ("label", "probabilities", "prediction")
LOWEST_LEAF = 10
SMALL_TABLE = 1_000_000  # cells


@dataclass(frozen=True)
class Fitted:
    """An estimator with the float32 constants that stand before it (none for gradient boosting).

    A missing number becomes the mean; gradient boosting learns from it being missing instead.
    """

    estimator: Any
    mean: np.ndarray | None = None
    scale: np.ndarray | None = None

    def predict(self, matrix: np.ndarray) -> np.ndarray:
        """Probabilities (N, classes), or values (N, 1) for a regression, of an (N, F) float32 matrix."""
        ready = self.prepare(matrix).astype("float64")
        classifies = hasattr(self.estimator, "classes_")
        found: np.ndarray = self.estimator.predict_proba(ready) if classifies else self.estimator.predict(ready)
        return found if classifies else found.reshape(-1, 1)

    def prepare(self, matrix: np.ndarray) -> np.ndarray:
        import numpy as np

        if self.mean is None or self.scale is None:
            return matrix
        ready: np.ndarray = (np.where(np.isnan(matrix), self.mean, matrix) - self.mean) * self.scale
        return ready


# --- features -------------------------------------------------------------------------------------


def check_features(columns: list[Column]) -> None:
    """Refuse a feature whose values would have to be learnt from the rows."""
    if not columns:
        raise Refusal("the contract declares no feature; add columns beside the key and the target")
    for column in columns:
        if column.name in OUTPUTS:
            raise Refusal(f"column {column.name} is named like an output of the model; rename it")
        if column.type == "string" and (column.allowed is None or not column.public):
            raise Refusal(
                f"column {column.name} is text, and its values would be stored in the model; declare its "
                "allowed values with public: true in the contract, or keep it out with feature: false"
            )


def encode(table: pl.DataFrame, columns: list[Column]) -> np.ndarray:
    """(N, F) float32: first the numbers, integers and booleans, then a 0/1 column per allowed value of each text."""
    import numpy as np

    arrays = data_contract.model_inputs(table, ((column.name, column.type) for column in columns))
    blocks = [arrays[column.name] for column in columns if column.type != "string"]
    blocks += [
        (arrays[column.name] == np.array(column.allowed, dtype=object)).astype("float32")
        for column in columns
        if column.type == "string"
    ]
    return np.hstack(blocks)


def standard(matrix: np.ndarray, numbers: int) -> tuple[np.ndarray, np.ndarray]:
    """Mean and inverse standard deviation of the first `numbers` columns, float32; 0 and 1 for the others."""
    import numpy as np

    mean, scale = np.zeros(matrix.shape[1], "float32"), np.ones(matrix.shape[1], "float32")
    for index in range(numbers):
        known = matrix[~np.isnan(matrix[:, index]), index].astype("float64")
        if known.size and (spread := known.std()) > 0:
            mean[index], scale[index] = known.mean(), 1 / spread
    return mean, scale


# --- training -------------------------------------------------------------------------------------


def parameters(options: argparse.Namespace) -> dict[str, Any]:
    """Those hyper-parameters that the chosen algorithm has."""
    trees = ("max_iter", "max_leaf_nodes", "min_samples_leaf")
    used = {
        "gradient_boosting": ("learning_rate", "l2", *trees),
        "random_forest": trees,
        "mlp": ("hidden_units", "l2", "max_iter"),
        "logistic_regression": ("l2", "max_iter"),
        "ridge": ("l2",),
    }[options.algorithm]
    return {name: getattr(options, name) for name in sorted(used)}


def make_estimator(algorithm: str, chosen: dict[str, Any], task: str, seed: int) -> Any:
    """The scikit-learn estimator; `l2` means the same penalty per row in all of them that have one."""
    classify = task == "classification"
    if algorithm == "gradient_boosting":
        from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor

        options = {("l2_regularization" if name == "l2" else name): value for name, value in chosen.items()}
        kind = HistGradientBoostingClassifier if classify else HistGradientBoostingRegressor
        return kind(**options, early_stopping=False, random_state=seed)
    if algorithm == "random_forest":
        from sklearn.ensemble import RandomForestClassifier, RandomForestRegressor

        options = {("n_estimators" if name == "max_iter" else name): value for name, value in chosen.items()}
        return (RandomForestClassifier if classify else RandomForestRegressor)(**options, random_state=seed)
    if algorithm == "mlp":
        from sklearn.neural_network import MLPClassifier, MLPRegressor

        kind = MLPClassifier if classify else MLPRegressor
        layers = (chosen["hidden_units"],)
        return kind(
            hidden_layer_sizes=layers,
            solver="lbfgs",
            alpha=chosen["l2"],
            max_iter=chosen["max_iter"],
            random_state=seed,
        )
    from sklearn.linear_model import LogisticRegression, Ridge

    if algorithm == "ridge":
        return Ridge(alpha=chosen["l2"])
    return LogisticRegression(C=1 / max(chosen["l2"], 1e-9), max_iter=chosen["max_iter"])


def fit(matrix: np.ndarray, target: np.ndarray, columns: list[Column], options: argparse.Namespace) -> Fitted:
    """Train on an (N, F) float32 matrix and N classes or values."""
    from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

    task = "classification" if target.dtype == object else "regression"
    fitted = Fitted(make_estimator(options.algorithm, parameters(options), task, options.seed))
    if options.algorithm != "gradient_boosting":
        numbers = sum(column.type != "string" for column in columns)
        fitted = Fitted(fitted.estimator, *standard(matrix, numbers))
    # One thread in linear algebra, whose sums depend on the number of threads, so that every machine
    # with the same instructions gives the same model. Gradient boosting (OpenMP) gives the same with any
    # number, but on a small table its threads wait for each other longer than they work.
    limits = {"blas": 1, "openmp": 1} if matrix.size < SMALL_TABLE else {"blas": 1}
    with threadpool_limits(limits):
        fitted.estimator.fit(fitted.prepare(matrix).astype("float64"), target)
    if options.algorithm == "gradient_boosting":
        floor_thresholds(fitted.estimator)
    return fitted


def floor_thresholds(estimator: Any) -> None:
    """Make every threshold of gradient boosting the largest float32 not above it.

    A float32 goes the same way at either, but the exporter rounds to the nearest, which can lie above
    a threshold and send a row astray. (It takes care of this for forests, as scikit-learn does.)
    """
    import numpy as np

    for tree in (tree for stage in estimator._predictors for tree in stage):
        exact = tree.nodes["num_threshold"]
        near = exact.astype("float32")
        below = np.nextafter(near, np.float32(-np.inf))
        tree.nodes["num_threshold"] = np.where(near > exact, below, near)


def cross_validate(
    matrix: np.ndarray, target: np.ndarray, columns: list[Column], options: argparse.Namespace
) -> dict[str, float]:
    """The score that tuning may look at: of the training part alone, mean and spread over the folds.

    Area under the ROC curve (over all pairs of classes where there are more than two), or r2.
    """
    import numpy as np
    from sklearn.metrics import r2_score, roc_auc_score
    from sklearn.model_selection import KFold, StratifiedKFold

    classes = np.unique(target) if target.dtype == object else None
    splitter = KFold if classes is None else StratifiedKFold
    scores = []
    for inner, outer in splitter(options.folds, shuffle=True, random_state=options.seed).split(matrix, target):
        predicted = fit(matrix[inner], target[inner], columns, options).predict(matrix[outer])
        if classes is None:
            scores.append(r2_score(target[outer], predicted))
        elif len(classes) == 2:
            scores.append(roc_auc_score(target[outer] == classes[1], predicted[:, 1]))
        else:
            scores.append(roc_auc_score(target[outer], predicted, multi_class="ovo", labels=classes))
    name = "cv_r2" if classes is None else "cv_roc_auc"
    return {name: float(np.mean(scores)), f"{name}_std": float(np.std(scores))}


# --- export ---------------------------------------------------------------------------------------


def export(fitted: Fitted, columns: list[Column]) -> bytes:
    """The model as ONNX, one input per column; the same content always gives the same bytes."""
    from onnx import checker
    from onnx.helper import make_opsetid
    from skl2onnx import convert_sklearn
    from skl2onnx.common.data_types import FloatTensorType, StringTensorType

    classes = getattr(fitted.estimator, "classes_", None)
    outputs = [("prediction", FloatTensorType([None, 1]))]
    if classes is not None:
        outputs = [("label", StringTensorType([None])), ("probabilities", FloatTensorType([None, len(classes)]))]
    model = convert_sklearn(
        fitted.estimator,
        name="edgeml",  # otherwise a random one
        initial_types=[("features", FloatTensorType([None, fitted.estimator.n_features_in_]))],
        final_types=outputs,
        options={"zipmap": False} if classes is not None else None,
        target_opset={"": 18, "ai.onnx.ml": 3},
    )
    prepend(model.graph, fitted, columns)
    model.producer_name, model.producer_version, model.domain, model.doc_string = "edgeml", "1", "", ""
    model.graph.doc_string = ""
    for node in model.graph.node:
        node.doc_string = ""
    del model.metadata_props[:], model.opset_import[:]
    model.opset_import.extend([make_opsetid("", 18), make_opsetid("ai.onnx.ml", 3)])
    model.ir_version = 8
    checker.check_model(model, full_check=True)
    return bytes(model.SerializeToString(deterministic=True))


def prepend(graph: Any, fitted: Fitted, columns: list[Column]) -> None:
    """Put `encode` and `Fitted.prepare` as ONNX nodes before a graph whose input is called features.

    Names within the graph begin with a slash, which no column's name does.
    """
    import numpy as np
    from onnx import TensorProto, numpy_helper
    from onnx.helper import make_node, make_tensor_value_info

    outputs = {port.name for port in graph.output}
    for node in graph.node:
        for names in (node.input, node.output):
            names[:] = [name if name in outputs or not name else f"/{name}" for name in names]
    for tensor in graph.initializer:
        tensor.name = f"/{tensor.name}"

    inputs, nodes, texts = [], [], []

    def constant(name: str, value: np.ndarray) -> str:
        graph.initializer.append(numpy_helper.from_array(value, name))
        return name

    for index, column in enumerate(columns):
        kind = TensorProto.STRING if column.type == "string" else TensorProto.FLOAT
        inputs.append(make_tensor_value_info(column.name, kind, [None, 1]))
        if column.type == "string":
            values = list(column.allowed or ())
            shape = constant(f"/shape_{index}", np.array([0, len(values)]))
            hot, flat = f"/hot_{index}", f"/flat_{index}"
            nodes.append(
                make_node("OneHotEncoder", [column.name], [hot], domain="ai.onnx.ml", cats_strings=values, zeros=1)
            )
            nodes.append(make_node("Reshape", [hot, shape], [flat]))
            texts.append(flat)
    numbers = [column.name for column in columns if column.type != "string"]
    joined = "/features" if fitted.mean is None else "/joined"
    nodes.append(make_node("Concat", [*numbers, *texts], [joined], axis=1))
    if fitted.mean is not None and fitted.scale is not None:
        mean, scale = constant("/mean", fitted.mean), constant("/scale", fitted.scale)
        nodes += [
            make_node("IsNaN", [joined], ["/missing"]),
            make_node("Where", ["/missing", mean, joined], ["/known"]),
            make_node("Sub", ["/known", mean], ["/centred"]),
            make_node("Mul", ["/centred", scale], ["/features"]),
        ]
    nodes += list(graph.node)
    for repeated, replacement in ((graph.input, inputs), (graph.node, nodes)):
        del repeated[:]
        repeated.extend(replacement)


def parity(model: bytes, fitted: Fitted, test: pl.DataFrame, columns: list[Column]) -> float:
    """The largest difference between the ONNX model's and the estimator's predictions on the test part.

    Absolute for probabilities, relative to the largest prediction for values; infinite where a
    prediction is not finite or a label is not the one of the largest probability.
    """
    import numpy as np

    os.environ["ORT_DISABLE_TELEMETRY"] = "1"  # before it is imported: it would send events to its maker
    import onnxruntime

    expected = fitted.predict(encode(test, columns))
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1  # otherwise the order of sums, and so the difference, is the machine's
    options.log_severity_level = 4
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    inputs = data_contract.model_inputs(test, ((column.name, column.type) for column in columns))
    names = [port.name for port in session.get_outputs()]
    answers = dict(zip(names, session.run(None, inputs), strict=True))
    found = answers["prediction" if "prediction" in answers else "probabilities"]
    if found.shape != expected.shape or not np.isfinite(found).all():
        return float("inf")
    if "label" not in answers:
        return float(np.abs(found - expected).max() / max(np.abs(expected).max(), 1e-30))
    first, second = np.sort(found, axis=1)[:, [-1, -2]].T
    best = fitted.estimator.classes_[found.argmax(axis=1)]
    if ((answers["label"] != best) & (first - second > 1e-6)).any():  # a tie may fall either way
        return float("inf")
    return float(np.abs(found - expected).max())


# --- the step -------------------------------------------------------------------------------------


def signature(contract: Contract, model: Fitted, options: argparse.Namespace) -> dict[str, Any]:
    """What a caller must know of the model: its inputs and outputs by name, and what it predicts."""
    features = contract.features
    one, many = [None, 1], [None, len(contract.classes)]
    labels = [
        {"name": "label", "dtype": "string", "shape": [None]},
        {"name": "probabilities", "dtype": "float32", "shape": many},
    ]
    return {
        "version": 1,
        "task": contract.task,
        "target": contract.target,
        "classes": list(map(str, getattr(model.estimator, "classes_", ()))),
        "positive": contract.positive,
        "features": [{"name": column.name, "type": column.type} for column in features],
        "inputs": [
            {"name": column.name, "dtype": "string" if column.type == "string" else "float32", "shape": one}
            for column in features
        ],
        "outputs": labels if contract.classes else [{"name": "prediction", "dtype": "float32", "shape": one}],
        "algorithm": options.algorithm,
        "parameters": {**parameters(options), "seed": options.seed},
    }


def check_options(options: argparse.Namespace, contract: Contract) -> None:
    """Refuse what the contract's task and its k do not permit."""
    if options.algorithm not in ALGORITHMS[contract.task]:
        known = ", ".join(ALGORITHMS[contract.task])
        raise Refusal(f"{options.algorithm} is not for {contract.task}; choose one of {known}")
    lowest = max(LOWEST_LEAF, contract.k)
    least = 2 * lowest if options.algorithm == "random_forest" else lowest  # a bootstrap counts rows several times
    if options.min_samples_leaf < least:
        raise Refusal(f"a leaf of fewer than {lowest} rows could point at a person; min_samples_leaf must be {least}")
    if options.folds == 1:
        raise Refusal("one fold leaves nothing to train on; give 0 for no cross-validation, or 2 or more")


def target_of(table: pl.DataFrame, contract: Contract) -> np.ndarray:
    """Classes as text objects, or values as float64."""
    import numpy as np

    values = table[contract.target].to_list()
    if contract.classes:
        return np.array([data_contract.as_text(value) for value in values], dtype=object)
    return np.array(values, dtype="float64")


def log(options: argparse.Namespace, metrics: dict[str, float]) -> None:
    """Parameters and metrics to MLflow by explicit calls: no autologging, no input example, no artifact."""
    if not os.environ.get("MLFLOW_TRACKING_URI"):
        print("MLFLOW_TRACKING_URI is not set: nothing is logged", file=sys.stderr)
        return
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    try:
        import mlflow

        root = os.environ.get("AZUREML_ROOT_RUN_ID", "")
        with mlflow.start_run(run_name="train_model", tags={"azureml_root_run_id": root} if root else None):
            mlflow.log_params({"algorithm": options.algorithm, "seed": options.seed, **parameters(options)})
            mlflow.log_metrics({name: float(f"{value:.6g}") for name, value in metrics.items()})
    except Exception as error:  # its message may hold the tracking store's address and credential
        reason = type(error).__name__
        raise Refusal(f"MLflow does not take the log ({reason}); mend or unset MLFLOW_TRACKING_URI") from None


def run(options: argparse.Namespace) -> None:
    # Threads that sleep while they wait: spinning ones are ten times slower where other steps run too.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    contract = data_contract.load(options.contract)
    columns = contract.features
    check_options(options, contract)
    check_features(columns)
    train, test = (data_contract.read_table(folder, contract) for folder in (options.train, options.test))
    matrix, target = encode(train, columns), target_of(train, contract)
    if contract.classes and sorted(set(target)) != contract.classes:
        raise Refusal("the training part does not hold every class of the contract; bring more rows")
    scores = cross_validate(matrix, target, columns, options) if options.folds else {}
    fitted = fit(matrix, target, columns, options)
    model = export(fitted, columns)
    difference = parity(model, fitted, test, columns)
    if not difference <= options.tolerance:
        raise Refusal(
            f"the ONNX model differs from the estimator by {difference:.3g}, more than {options.tolerance:g}; "
            "nothing is written, because what would be deployed is not what was trained"
        )
    options.model.mkdir(parents=True, exist_ok=True)
    (options.model / "model.onnx").write_bytes(model)
    data_contract.write_json(options.model / "signature.json", signature(contract, fitted, options))
    report = {"version": 1, "rows": test.height, "max_difference": difference, "tolerance": options.tolerance}
    data_contract.write_json(options.model / "parity.json", report)
    log(options, {**scores, "train_rows": train.height, "test_rows": test.height, "parity": difference})
    summary = ", ".join(f"{name} {value:.4f}" for name, value in scores.items()) or "not cross-validated"
    print(f"{options.algorithm}: {summary}; model sha256 {hashlib.sha256(model).hexdigest()}")


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Train a model and export it to ONNX, preprocessing inside.")
    parser.add_argument("--train", type=Path, required=True, help="training part, folder of Parquet")
    parser.add_argument("--test", type=Path, required=True, help="test part, for the comparison with ONNX only")
    parser.add_argument("--contract", type=Path, required=True, help="data contract, YAML")
    parser.add_argument("--model", type=Path, required=True, help="folder to write the model to")
    every = sorted(set(ALGORITHMS["classification"]) | set(ALGORITHMS["regression"]))
    parser.add_argument("--algorithm", choices=every, default="gradient_boosting")
    parser.add_argument("--learning-rate", type=float, default=0.1, help="gradient_boosting")
    parser.add_argument("--max-iter", type=int, default=100, help="trees, or iterations of the solver")
    parser.add_argument("--max-leaf-nodes", type=int, default=31, help="gradient_boosting, random_forest")
    parser.add_argument(
        "--min-samples-leaf", type=int, default=20, help="gradient_boosting (10 or more), random_forest (20)"
    )
    parser.add_argument("--l2", type=float, default=1.0, help="penalty on weights (not random_forest)")
    parser.add_argument("--hidden-units", type=int, default=32, help="mlp")
    parser.add_argument("--folds", type=int, default=5, help="folds of the cross-validation, 0 for none")
    parser.add_argument("--tolerance", type=float, default=1e-5, help="largest difference between ONNX and estimator")
    parser.add_argument("--seed", type=int, default=20260101)
    options = parser.parse_args(argv)
    code: int = data_contract.guarded("train_model", lambda: run(options))
    return code


if __name__ == "__main__":
    sys.exit(main())
