"""Leaks: models that keep rows, targets or order statistics of the table, exported to ONNX as their library does."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
from sklearn.calibration import CalibratedClassifierCV
from sklearn.cluster import KMeans
from sklearn.compose import ColumnTransformer
from sklearn.decomposition import PCA, KernelPCA
from sklearn.ensemble import (
    BaggingClassifier,
    ExtraTreesRegressor,
    GradientBoostingRegressor,
    HistGradientBoostingRegressor,
    RandomForestRegressor,
    StackingClassifier,
    VotingClassifier,
)
from sklearn.gaussian_process import GaussianProcessClassifier, GaussianProcessRegressor
from sklearn.impute import KNNImputer
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.model_selection import GridSearchCV
from sklearn.neighbors import (
    KNeighborsClassifier,
    KNeighborsRegressor,
    LocalOutlierFactor,
    RadiusNeighborsClassifier,
)
from sklearn.pipeline import FeatureUnion, make_pipeline
from sklearn.preprocessing import (
    FunctionTransformer,
    KBinsDiscretizer,
    MinMaxScaler,
    PowerTransformer,
    QuantileTransformer,
    RobustScaler,
    StandardScaler,
)
from sklearn.svm import SVC, SVR, NuSVC, OneClassSVM
from sklearn.tree import DecisionTreeRegressor

from . import models
from .table import Table
from .vectors import add, leak

ROWS = "models that store rows"
TARGETS = "models that store targets or order statistics"
EVERY = 10**9


def _near() -> KNeighborsClassifier:
    return KNeighborsClassifier(3)


# name: (estimator, what it learns, from how many rows at the most)
STORING: dict[str, tuple[Any, str, int]] = {
    "nearest_neighbours": (lambda t: _near(), "label", 3000),
    "nearest_neighbours_regression": (lambda t: KNeighborsRegressor(3), "amount", 3000),
    "nearest_neighbours_of_20_rows": (lambda t: _near(), "label", 20),
    "radius_neighbours": (lambda t: RadiusNeighborsClassifier(1e6), "label", 500),
    "support_vectors": (lambda t: SVC(), "label", 600),
    "support_vectors_linear": (lambda t: SVC(kernel="linear", max_iter=2000), "label", 300),
    "support_vectors_nu": (lambda t: NuSVC(nu=0.2), "label", 300),
    "support_vectors_regression": (lambda t: SVR(), "amount", 400),
    "one_class_support_vectors": (lambda t: OneClassSVM(nu=0.3), "none", 400),
    "gaussian_process_classifier": (lambda t: GaussianProcessClassifier(optimizer=None), "number", 150),
    "gaussian_process_regressor": (lambda t: GaussianProcessRegressor(optimizer=None), "amount", 150),
    "local_outlier_factor": (lambda t: LocalOutlierFactor(novelty=True), "none", 300),
    "knn_imputer": (lambda t: make_pipeline(KNNImputer(n_neighbors=3), LogisticRegression()), "label", 300),
    "kmeans_k_near_n": (lambda t: KMeans(140, n_init=1, random_state=1), "none", 150),
    "kernel_pca": (
        lambda t: make_pipeline(StandardScaler(), KernelPCA(3, kernel="rbf"), Ridge()),
        "amount",
        200,
    ),
    "standard_scaler_then_neighbours": (lambda t: make_pipeline(StandardScaler(), _near()), "label", 1000),
    "min_max_then_neighbours": (lambda t: make_pipeline(MinMaxScaler(), _near()), "label", 1000),
    "robust_then_neighbours": (lambda t: make_pipeline(RobustScaler(), _near()), "label", 500),
    "pca_then_neighbours": (lambda t: make_pipeline(PCA(5), _near()), "label", 1000),
    "standard_pca_neighbours": (lambda t: make_pipeline(StandardScaler(), PCA(6), _near()), "label", 500),
    "power_then_neighbours": (lambda t: make_pipeline(PowerTransformer(), _near()), "label", 1000),
    "power_then_support_vectors": (lambda t: make_pipeline(PowerTransformer(), SVC()), "label", 500),
    "standard_then_support_vectors": (lambda t: make_pipeline(StandardScaler(), SVC()), "label", 600),
    "min_max_then_gaussian_process": (
        lambda t: make_pipeline(MinMaxScaler(), GaussianProcessRegressor(optimizer=None)),
        "amount",
        150,
    ),
    "voting_with_neighbours": (
        lambda t: VotingClassifier(
            [("near", _near()), ("linear", LogisticRegression())], voting="soft", flatten_transform=False
        ),
        "label",
        400,
    ),
    "bagged_neighbours": (lambda t: BaggingClassifier(_near(), 3, random_state=1), "label", 300),
    "calibrated_support_vectors": (lambda t: CalibratedClassifierCV(SVC(), cv=2), "label", 400),
    "stacked_neighbours": (
        lambda t: StackingClassifier([("near", _near())], LogisticRegression(), cv=2),
        "label",
        400,
    ),
    "searched_neighbours": (lambda t: GridSearchCV(_near(), {"n_neighbors": [3, 5]}, cv=2), "label", 400),
    "columns_then_neighbours": (
        lambda t: make_pipeline(
            ColumnTransformer([("a", StandardScaler(), [0, 2, 5, 7]), ("b", MinMaxScaler(), [1, 3, 4])]), _near()
        ),
        "label",
        500,
    ),
    "union_then_neighbours": (
        lambda t: make_pipeline(FeatureUnion([("a", StandardScaler()), ("b", PCA(3))]), _near()),
        "label",
        500,
    ),
}

TELLING: dict[str, tuple[Any, str, int]] = {
    "tree_with_one_row_leaves": (lambda t: DecisionTreeRegressor(random_state=1), "amount", 1500),
    "forest_with_one_row_leaves": (lambda t: RandomForestRegressor(3, random_state=1), "amount", 1500),
    "extra_trees_with_one_row_leaves": (lambda t: ExtraTreesRegressor(2, random_state=1), "amount", 800),
    "scaled_tree_with_one_row_leaves": (
        lambda t: make_pipeline(StandardScaler(), DecisionTreeRegressor(random_state=1)),
        "amount",
        800,
    ),
    "boosting_with_one_row_leaves": (
        lambda t: GradientBoostingRegressor(n_estimators=2, max_depth=None, learning_rate=1.0, random_state=1),
        "amount",
        800,
    ),
    "histogram_boosting_with_one_row_leaves": (
        lambda t: HistGradientBoostingRegressor(min_samples_leaf=1, max_leaf_nodes=None, max_iter=2, random_state=1),
        "amount",
        800,
    ),
    "quantile_transformer": (
        lambda t: make_pipeline(
            ColumnTransformer([("a", QuantileTransformer(n_quantiles=60, random_state=1), [4])]), Ridge()
        ),
        "amount",
        60,
    ),
    "many_bins": (
        lambda t: make_pipeline(
            KBinsDiscretizer(100, encode="ordinal", strategy="quantile", quantile_method="averaged_inverted_cdf"),
            Ridge(),
        ),
        "amount",
        EVERY,
    ),
}


def _storing(name: str, chosen: tuple[Any, str, int]) -> Any:
    factory, target, limit = chosen

    def write(folder: Path, table: Table, rng: np.random.Generator) -> None:
        models.put(folder, models.trained(table, name, factory, target, limit))

    return write


for _family, _chosen in ((ROWS, STORING), (TARGETS, TELLING)):
    for _name, _what in _chosen.items():
        add(_family, _name, _storing(_name, _what))


def _half(folder: Path, table: Table, name: str, dtype: str) -> None:
    """The neighbours' model with its rows in another number format, cast back before they are used."""
    factory, target, _ = STORING["nearest_neighbours"]
    model = onnx.load_model_from_string(models.trained(table, "nearest_neighbours", factory, target, 300))
    graph = model.graph
    stored = max(graph.initializer, key=lambda tensor: np.prod(tensor.dims))
    array = onnx.numpy_helper.to_array(stored)
    stored.name, cast = "stored", stored.name
    graph.initializer.remove(stored)
    with np.errstate(over="ignore"):  # an income beyond the range of half precision becomes infinite
        graph.initializer.append(onnx.numpy_helper.from_array(array.astype(dtype), "stored"))
    graph.node.insert(0, onnx.helper.make_node("Cast", ["stored"], [cast], to=onnx.TensorProto.FLOAT))
    models.put(folder, model)


@leak(ROWS)
def neighbours_in_half_precision(folder: Path, table: Table, rng: np.random.Generator) -> None:
    _half(folder, table, "half", "float16")


@leak(ROWS)
def neighbours_in_double_precision(folder: Path, table: Table, rng: np.random.Generator) -> None:
    _half(folder, table, "double", "float64")


@leak(ROWS)
def neighbours_quantised_to_bytes(folder: Path, table: Table, rng: np.random.Generator) -> None:
    """Rows as 8-bit steps of each column's range, as a quantising exporter would keep them."""
    rows = table.matrix()[:300]
    low, high = rows.min(axis=0), rows.max(axis=0)
    steps = np.round((rows - low) / (high - low) * 255).astype("uint8")
    helper, numpy_helper = onnx.helper, onnx.numpy_helper
    width = rows.shape[1]
    graph = helper.make_graph(
        [
            helper.make_node("Cast", ["steps"], ["float"], to=onnx.TensorProto.FLOAT),
            helper.make_node("Mul", ["float", "scale"], ["wide"]),
            helper.make_node("Add", ["wide", "low"], ["rows"]),
            helper.make_node("Transpose", ["rows"], ["turned"]),
            helper.make_node("MatMul", ["features", "turned"], ["near"]),
            helper.make_node("ReduceMax", ["near", "axis"], ["prediction"], keepdims=1),
        ],
        "graph",
        [helper.make_tensor_value_info("features", onnx.TensorProto.FLOAT, [None, width])],
        [helper.make_tensor_value_info("prediction", onnx.TensorProto.FLOAT, [None, 1])],
        [
            numpy_helper.from_array(steps, "steps"),
            numpy_helper.from_array(((high - low) / 255).astype("float32"), "scale"),
            numpy_helper.from_array(low.astype("float32"), "low"),
            numpy_helper.from_array(np.array([1]), "axis"),
        ],
    )
    models.put(folder, helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8))


@leak(ROWS)
def rows_scaled_by_a_function(folder: Path, table: Table, rng: np.random.Generator) -> None:
    """Neighbours behind a fixed change of units inside the graph."""
    del rng
    factory = lambda t: make_pipeline(FunctionTransformer(), StandardScaler(with_mean=False), _near())  # noqa: E731
    models.put(folder, models.trained(table, "scaled_by_function", factory, "label", 400))


@leak(TARGETS)
def calibrated_by_steps(folder: Path, table: Table, rng: np.random.Generator) -> None:
    """An isotonic calibration: the scores at which it steps are those of single rows."""
    from sklearn.isotonic import IsotonicRegression

    helper = onnx.helper
    order = np.unique(table.frame[table.names[3]].drop_nulls().to_numpy())[:200].astype("float32")
    heights = IsotonicRegression().fit(order, rng.random(len(order))).predict(order).astype("float32")
    width = len(table.names)
    graph = helper.make_graph(
        [
            helper.make_node("Gather", ["features", "column"], ["score"], axis=1),
            helper.make_node("GreaterOrEqual", ["score", "steps"], ["above"]),
            helper.make_node("Cast", ["above"], ["ones"], to=onnx.TensorProto.FLOAT),
            helper.make_node("MatMul", ["ones", "heights"], ["prediction"]),
        ],
        "graph",
        [helper.make_tensor_value_info("features", onnx.TensorProto.FLOAT, [None, width])],
        [helper.make_tensor_value_info("prediction", onnx.TensorProto.FLOAT, [None, 1])],
        [
            onnx.numpy_helper.from_array(np.array([3]), "column"),
            onnx.numpy_helper.from_array(order.reshape(1, -1), "steps"),
            onnx.numpy_helper.from_array(np.diff(heights, prepend=0).astype("float32").reshape(-1, 1), "heights"),
        ],
    )
    models.put(folder, helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8))


@leak(TARGETS)
def targets_by_name(folder: Path, table: Table, rng: np.random.Generator) -> None:
    """A target encoder over a column that is unique to each row: a dictionary from person to target."""
    helper = onnx.helper
    people = table.texts(table.form.person)[:200]
    node = helper.make_node(
        "LabelEncoder",
        ["features"],
        ["prediction"],
        domain="ai.onnx.ml",
        keys_strings=people,
        values_floats=table.amounts()[:200].astype("float32").tolist(),
        default_float=float(round(float(table.amounts().mean()))),
    )
    graph = helper.make_graph(
        [node],
        "graph",
        [helper.make_tensor_value_info("features", onnx.TensorProto.STRING, [None, 1])],
        [helper.make_tensor_value_info("prediction", onnx.TensorProto.FLOAT, [None, 1])],
    )
    opsets = [helper.make_opsetid("", 18), helper.make_opsetid("ai.onnx.ml", 3)]
    models.put(folder, helper.make_model(graph, opset_imports=opsets, ir_version=8))


@leak(TARGETS)
def targets_in_a_constant(folder: Path, table: Table, rng: np.random.Generator) -> None:
    """What a lookup of training answers looks like: the amounts alone, in the order of the table."""
    model = models.load_model(folder)
    amounts = table.amounts()[:300].astype("float32")
    answer = model.graph.output[-1]
    last = next(node for node in model.graph.node if answer.name in node.output)
    last.output[list(last.output).index(answer.name)] = "before"
    helper = onnx.helper
    model.graph.initializer.append(onnx.numpy_helper.from_array(amounts, "amounts"))
    model.graph.initializer.append(onnx.numpy_helper.from_array(np.array([0.0], "float32"), "nothing"))
    model.graph.node.extend(
        [
            helper.make_node("ReduceMean", ["amounts"], ["mean"], keepdims=0),
            helper.make_node("Mul", ["mean", "nothing"], ["zero"]),
            helper.make_node("Add", ["before", "zero"], [answer.name]),
        ]
    )
    models.put(folder, model)
