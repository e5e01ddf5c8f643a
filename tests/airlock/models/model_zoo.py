"""A private table, and estimators trained on it and converted to ONNX: those that leak and those that do not."""

from __future__ import annotations

import tempfile
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from edgeml.contract import Column, Contract

Array = np.ndarray[Any, Any]
NUMBERS = (
    "age", "albumin", "bmi", "creatinine", "crp", "glucose", "haemoglobin", "income", "platelets", "pulse",
    "sodium", "weight",
)  # fmt: skip
CITIES = ("Leeds", "York", "Hull", "Bradford")
WORDS = [
    "patient",
    "reports",
    "mild",
    "pain",
    "after",
    "walking",
    "and",
    "sleeps",
    "well",
    "without",
    "further",
    "complaints",
    "today",
    "follow",
    "planned",
    "review",
    "next",
    "month",
    "stable",
    "condition",
    "no",
    "fever",
    "given",
    "oral",
    "treatment",
    "twice",
    "daily",
    "seen",
    "by",
    "nurse",
]


@dataclass(frozen=True)
class Table:
    """What `edgeml.airlock.private.Private` offers of a table, from memory."""

    contract: Contract
    batch: pa.RecordBatch

    @property
    def rows(self) -> int:
        return int(self.batch.num_rows)

    @property
    def columns(self) -> dict[str, Any]:
        return dict.fromkeys(self.batch.schema.names)

    def batches(self, size: int = 700) -> Iterator[pa.RecordBatch]:
        for start in range(0, self.rows, size):
            yield self.batch.slice(start, size)

    def column(self, name: str) -> Array:
        return np.array(self.batch.column(name).to_pylist())

    @property
    def matrix(self) -> Array:
        return np.stack([self.column(name) for name in NUMBERS], axis=1).astype(np.float32)


def contract(task: str) -> Contract:
    columns = {"patient_id": Column("patient_id", "string", unique=True)}
    for name in NUMBERS:
        columns[name] = Column(name, "integer" if name in ("age", "income", "platelets", "pulse") else "number")
    columns["sex"] = Column("sex", "string", allowed=("female", "male"), public=True)
    columns["name"] = Column("name", "string")
    columns["city"] = Column("city", "string")
    columns["note"] = Column("note", "string")
    columns["cost"] = Column("cost", "number", feature=task == "regression")
    columns["outcome"] = Column("outcome", "string", allowed=("bad", "good"), public=True, feature=task != "regression")
    target, positive = ("cost", None) if task == "regression" else ("outcome", "bad")
    return Contract("clinic", 1, "patient_id", target, task, columns, positive, 10, (), {}, 100, "0" * 64)


@cache
def table(rows: int, seed: int, task: str = "classification") -> Table:
    r = np.random.default_rng(seed)
    severity = r.standard_normal(rows)
    columns: dict[str, Any] = {"patient_id": [f"P-{n:07d}" for n in r.choice(10**7, rows, replace=False)]}
    numbers = {
        "age": np.clip(r.normal(58 + 4 * severity, 15), 18, 99).round(),
        "albumin": r.normal(41 - severity, 4).round(1),
        "bmi": r.gamma(20, 1.35, rows).round(2),
        "creatinine": r.lognormal(4.3 + 0.1 * severity, 0.3).round(2),
        "crp": r.lognormal(1.5 + 0.4 * severity, 1.0).round(4),
        "glucose": r.normal(5.8 + 0.3 * severity, 1.3).round(3),
        "haemoglobin": r.normal(13.5 - 0.4 * severity, 1.6).round(1),
        "income": r.lognormal(10.2, 0.6, rows).round(),
        "platelets": r.normal(260, 60, rows).round(),
        "pulse": r.normal(76 + 3 * severity, 11).round(),
        "sodium": r.normal(139, 3, rows),
        "weight": r.normal(78, 15, rows).round(1),
    }
    columns |= numbers
    columns["sex"] = r.choice(["female", "male"], rows)
    first, last = r.integers(0, 60, rows), r.integers(0, 4000, rows)
    columns["name"] = [f"{_syllables(f)} {_syllables(100 + s)}" for f, s in zip(first, last, strict=True)]
    city = r.choice(CITIES, rows)
    city[r.choice(rows, 4, replace=False)] = "Ripon"
    columns["city"] = city
    columns["note"] = [
        " ".join(r.choice(WORDS, 12)) + (f" daughter {_syllables(100 + s)} visits" if s % 3 == 0 else "") for s in last
    ]
    columns["cost"] = (2000 + 400 * severity + 3 * numbers["age"] + r.gamma(2, 150, rows)).round(2)
    columns["outcome"] = np.where(severity + r.standard_normal(rows) * 0.7 > 0, "bad", "good")
    batch = pa.RecordBatch.from_pydict(
        {k: pa.array(list(v), pa.float64() if k in (*NUMBERS, "cost") else pa.string()) for k, v in columns.items()}
    )
    return Table(contract(task), batch)


def _syllables(number: int) -> str:
    parts = ("ba", "ke", "mi", "do", "ru", "sel", "tan", "vor", "wyn", "lo", "har", "quen", "fi", "zu", "gar", "po")
    text = ""
    for _ in range(3):
        number, rest = divmod(number, 16)
        text += parts[rest]
    return text.capitalize()


def convert(estimator: Any, width: int = len(NUMBERS), text: str = "", plain: bool = False) -> bytes:
    """An estimator over one matrix `features`, or over one column of text, as ONNX."""
    from skl2onnx import convert_sklearn
    from skl2onnx.common.data_types import FloatTensorType, StringTensorType

    inputs = [(text, StringTensorType([None, 1]))] if text else [("features", FloatTensorType([None, width]))]
    options = {"zipmap": False} if hasattr(estimator, "classes_") and not plain else None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = convert_sklearn(
            estimator, name="edgeml", initial_types=inputs, options=options, target_opset={"": 18, "ai.onnx.ml": 3}
        )
    return bytes(model.SerializeToString())


def fitted(estimator: Any, data: Table, rows: slice = slice(None)) -> Any:
    target = data.column(data.contract.target)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return estimator.fit(data.matrix[rows].astype(np.float64), target[rows])


def ordinary(data: Table) -> Array:
    """The rows without the outliers, each of which would be a cluster of its own: a centroid of one row is that row."""
    low, high = np.percentile(data.matrix, [2, 98], axis=0)
    return data.matrix[((data.matrix >= low) & (data.matrix <= high)).all(axis=1)]


def quantised(model: bytes) -> bytes:
    """The model with its weights as int8."""
    from onnxruntime.quantization import quantize_dynamic

    with tempfile.TemporaryDirectory() as folder:
        before, after = Path(folder, "before.onnx"), Path(folder, "after.onnx")
        before.write_bytes(model)
        quantize_dynamic(before, after)
        return after.read_bytes()


Made = dict[str, Callable[[Table], bytes]]


def _of(make: Callable[[], Any], plain: bool = False) -> Callable[[Table], bytes]:
    return lambda data: convert(fitted(make(), data, slice(0, data.rows * 7 // 10)), plain=plain)


def _on_few(make: Callable[[], Any]) -> Callable[[Table], bytes]:
    # The converter's time grows with the square of the quantiles: 150 of them took it 40 s.
    return lambda data: convert(fitted(make(), data, slice(0, 80)))


def _texts(make: Callable[[], Any], column: str) -> Callable[[Table], bytes]:
    def build(data: Table) -> bytes:
        return convert(make().fit(data.column(column).reshape(-1, 1), data.column(data.contract.target)), text=column)

    return build


def _documents(make: Callable[[], Any]) -> Callable[[Table], bytes]:
    from skl2onnx import convert_sklearn
    from skl2onnx.common.data_types import StringTensorType

    def build(data: Table) -> bytes:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            pipe = make().fit(data.column("note"), data.column("outcome"))
            model = convert_sklearn(
                pipe, name="edgeml", initial_types=[("note", StringTensorType([None]))], options={"zipmap": False},
                target_opset={"": 18, "ai.onnx.ml": 3},
            )  # fmt: skip
        return bytes(model.SerializeToString())

    return build


def leaks() -> Made:
    """Classifiers and others that hold private rows, cells or texts."""
    from sklearn.cluster import KMeans
    from sklearn.decomposition import PCA
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.gaussian_process import GaussianProcessClassifier
    from sklearn.impute import KNNImputer
    from sklearn.linear_model import LogisticRegression
    from sklearn.neighbors import KNeighborsClassifier, LocalOutlierFactor
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import (
        MinMaxScaler,
        OneHotEncoder,
        OrdinalEncoder,
        PowerTransformer,
        QuantileTransformer,
        StandardScaler,
    )  # fmt: skip
    from sklearn.svm import SVC, OneClassSVM
    from sklearn.tree import DecisionTreeClassifier

    few = slice(0, 150)
    return {
        "knn": _of(lambda: KNeighborsClassifier(5)),
        "svc": _of(lambda: SVC()),
        "one-class-svm": lambda data: convert(OneClassSVM().fit(data.matrix)),
        "gpc": lambda data: convert(
            GaussianProcessClassifier(optimizer=None).fit(data.matrix[few], data.column("outcome")[few] == "bad")
        ),
        "lof": lambda data: convert(LocalOutlierFactor(novelty=True).fit(data.matrix)),
        "knn-imputer": lambda data: convert(KNNImputer().fit(data.matrix[few])),
        "kmeans-n": lambda data: convert(KMeans(150, n_init=1).fit(data.matrix[few])),
        "std+knn": _of(lambda: make_pipeline(StandardScaler(), KNeighborsClassifier(5))),
        "minmax+svc": _of(lambda: make_pipeline(MinMaxScaler(), SVC())),
        "pca5+knn": _of(lambda: make_pipeline(PCA(5), KNeighborsClassifier(5))),
        "std+pca2+knn": _of(lambda: make_pipeline(StandardScaler(), PCA(2), KNeighborsClassifier(5))),
        "power+knn": _of(lambda: make_pipeline(PowerTransformer(), KNeighborsClassifier(5))),
        "quantile+lr": _on_few(lambda: make_pipeline(QuantileTransformer(n_quantiles=80), LogisticRegression())),
        "tree-leaf-1": _of(lambda: DecisionTreeClassifier()),
        "one-hot-names": _texts(lambda: make_pipeline(OneHotEncoder(), LogisticRegression()), "name"),
        "ordinal-city": _texts(lambda: make_pipeline(OrdinalEncoder(), LogisticRegression()), "city"),
        "tfidf-bigrams": _documents(
            lambda: make_pipeline(TfidfVectorizer(ngram_range=(1, 2), max_features=3000), LogisticRegression())
        ),
    }  # fmt: skip


def regression_leaks() -> Made:
    from sklearn.ensemble import ExtraTreesRegressor, RandomForestRegressor
    from sklearn.gaussian_process import GaussianProcessRegressor
    from sklearn.gaussian_process.kernels import RBF
    from sklearn.neighbors import KNeighborsRegressor
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import RobustScaler, StandardScaler
    from sklearn.svm import SVR
    from sklearn.tree import DecisionTreeRegressor

    few = slice(0, 150)
    return {
        "knn-regressor": _of(lambda: KNeighborsRegressor(5)),
        "svr": _of(lambda: SVR(C=1000)),
        "robust+svr": _of(lambda: make_pipeline(RobustScaler(), SVR(C=1000))),
        "gpr": lambda data: convert(fitted(GaussianProcessRegressor(RBF(30.0), optimizer=None, alpha=1.0), data, few)),
        "std+gpr": lambda data: convert(
            fitted(make_pipeline(StandardScaler(), GaussianProcessRegressor(RBF(3.0), optimizer=None)), data, few)
        ),
        "forest-leaf-1": _of(lambda: RandomForestRegressor(10, random_state=0)),
        "extra-trees-leaf-1": _of(lambda: ExtraTreesRegressor(10, random_state=0)),
        "tree-regressor-leaf-1": _of(lambda: DecisionTreeRegressor(random_state=0)),
    }  # fmt: skip


def legitimate() -> Made:
    from sklearn.cluster import KMeans
    from sklearn.decomposition import PCA
    from sklearn.ensemble import HistGradientBoostingClassifier, RandomForestClassifier, VotingClassifier
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.impute import SimpleImputer
    from sklearn.linear_model import LogisticRegression
    from sklearn.naive_bayes import GaussianNB
    from sklearn.neural_network import MLPClassifier
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import KBinsDiscretizer, MinMaxScaler, OneHotEncoder, StandardScaler

    return {
        "lr": _of(lambda: LogisticRegression(max_iter=50)),
        "std+lr": _of(lambda: make_pipeline(StandardScaler(), LogisticRegression())),
        "minmax+lr": _of(lambda: make_pipeline(MinMaxScaler(), LogisticRegression())),
        "hgb": _of(lambda: HistGradientBoostingClassifier(max_iter=60)),
        "mlp": _of(lambda: make_pipeline(StandardScaler(), MLPClassifier((64, 64), max_iter=30))),
        "wide-mlp": _of(lambda: make_pipeline(StandardScaler(), MLPClassifier((256, 256), max_iter=3))),
        "forest-leaf-20": _of(lambda: RandomForestClassifier(40, min_samples_leaf=20, random_state=0)),
        "voting": _of(
            lambda: VotingClassifier(
                [("lr", LogisticRegression()), ("nb", GaussianNB())], voting="soft", flatten_transform=False
            )
        ),
        "quantised-mlp": lambda data: quantised(
            _of(lambda: make_pipeline(StandardScaler(), MLPClassifier((64,), max_iter=30)))(data)
        ),
        "naive-bayes": _of(lambda: GaussianNB()),
        "pca+lr": _of(lambda: make_pipeline(StandardScaler(), PCA(5), LogisticRegression())),
        "std+kmeans-8": lambda data: convert(make_pipeline(StandardScaler(), KMeans(8, n_init=1)).fit(ordinary(data))),
        "mean-imputer+lr": _of(lambda: make_pipeline(SimpleImputer(), StandardScaler(), LogisticRegression())),
        "median-imputer+lr": _of(
            lambda: make_pipeline(SimpleImputer(strategy="median"), StandardScaler(), LogisticRegression())
        ),
        "bins+lr": _of(lambda: make_pipeline(KBinsDiscretizer(5, encode="onehot-dense"), LogisticRegression())),
        "one-hot-sex": _texts(lambda: make_pipeline(OneHotEncoder(), LogisticRegression()), "sex"),
        "tfidf-frequent": _documents(lambda: make_pipeline(TfidfVectorizer(min_df=50), LogisticRegression())),
    }  # fmt: skip


def regression_legitimate() -> Made:
    from sklearn.ensemble import HistGradientBoostingRegressor, RandomForestRegressor
    from sklearn.linear_model import Ridge
    from sklearn.neural_network import MLPRegressor
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import RobustScaler, StandardScaler

    return {
        "ridge": _of(lambda: Ridge()),
        "robust+ridge": _of(lambda: make_pipeline(RobustScaler(), Ridge())),
        "hgb-regressor": _of(lambda: HistGradientBoostingRegressor(max_iter=60)),
        "forest-regressor-leaf-20": _of(lambda: RandomForestRegressor(20, min_samples_leaf=20, random_state=0)),
        "mlp-regressor": _of(
            lambda: make_pipeline(StandardScaler(), MLPRegressor(hidden_layer_sizes=(64,), max_iter=30))
        ),
    }
