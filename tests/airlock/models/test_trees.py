"""The tree operator of ai.onnx.ml 5, which no converter here writes yet: made by hand, and held against the runtime."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
from model_verdicts import examine
from model_zoo import NUMBERS, Table, table
from onnx import TensorProto, helper, numpy_helper
from sklearn.tree import DecisionTreeRegressor

from edgeml.airlock.finding import Artifact
from edgeml.airlock.models import canonical
from edgeml.airlock.models.activations import session
from edgeml.airlock.models.trees import Leaves

LEQ, EQ, MEMBER = 0, 4, 6


def version_5(trees: list[Any]) -> dict[str, Any]:
    """The attributes of a TreeEnsemble that says the sum of some scikit-learn trees."""
    a: dict[str, list[Any]] = {
        name: []
        for name in [
            "nodes_featureids",
            "nodes_modes",
            "nodes_splits",
            "nodes_truenodeids",
            "nodes_trueleafs",
            "nodes_falsenodeids",
            "nodes_falseleafs",
            "leaf_targetids",
            "leaf_weights",
            "tree_roots",
        ]
    }
    for tree in trees:
        inner = np.flatnonzero(tree.children_left >= 0)
        leaves = np.flatnonzero(tree.children_left < 0)
        at = {int(n): len(a["nodes_modes"]) + i for i, n in enumerate(inner)}
        at |= {int(n): len(a["leaf_weights"]) + i for i, n in enumerate(leaves)}
        a["tree_roots"].append(at[0])
        for node in inner:
            a["nodes_featureids"].append(int(tree.feature[node]))
            a["nodes_modes"].append(LEQ)
            a["nodes_splits"].append(np.nextafter(np.float32(tree.threshold[node]), np.float32(-np.inf)))
            for side, child in (("true", tree.children_left[node]), ("false", tree.children_right[node])):
                a[f"nodes_{side}nodeids"].append(at[int(child)])
                a[f"nodes_{side}leafs"].append(int(tree.children_left[child] < 0))
        a["leaf_targetids"] += [0] * len(leaves)
        a["leaf_weights"] += [float(tree.value[n].ravel()[0]) for n in leaves]
    return a


def model_of(attributes: dict[str, Any]) -> Any:
    attributes = dict(attributes)
    for name in ("nodes_splits", "leaf_weights", "membership_values"):
        if name in attributes:
            attributes[name] = numpy_helper.from_array(np.array(attributes[name], np.float32))
    attributes["nodes_modes"] = numpy_helper.from_array(np.array(attributes["nodes_modes"], np.uint8))
    node = helper.make_node(
        "TreeEnsemble", ["features"], ["prediction"], domain="ai.onnx.ml", n_targets=1, aggregate_function=1,
        **attributes,
    )  # fmt: skip
    graph = helper.make_graph(
        [node],
        "graph",
        [helper.make_tensor_value_info("features", TensorProto.FLOAT, [None, len(NUMBERS)])],
        [helper.make_tensor_value_info("prediction", TensorProto.FLOAT, [None, 1])],
    )
    opsets = [helper.make_opsetid("", 21), helper.make_opsetid("ai.onnx.ml", 5)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=10)


def grown(data: Table, trees: int, leaf: int) -> Any:
    target = data.column("cost").astype(np.float64)
    made = [
        DecisionTreeRegressor(min_samples_leaf=leaf, random_state=n, max_features=6).fit(data.matrix, target / trees)
        for n in range(trees)
    ]
    return model_of(version_5([one.tree_ for one in made]))


def rules(model: Any, data: Table) -> set[str]:
    found = examine([Artifact("model.onnx", "onnx", model.SerializeToString())], data).findings()
    return {finding.rule for finding in found}


@pytest.fixture(scope="module")
def data() -> Table:
    return table(2000, 2, "regression")


def predicted(model: Any, data: Table) -> np.ndarray:
    made: np.ndarray = session(model, everything=False).run(None, {"features": data.matrix})[0]
    return made


@pytest.mark.parametrize("trees", [1, 5])
def test_leaves_of_one_row_and_their_targets_are_found(data: Table, trees: int) -> None:
    model = grown(data, trees, leaf=1)
    assert np.abs(predicted(model, data)[:, 0] - data.column("cost")).max() < 0.01  # it does keep them
    assert rules(model, data) >= {"model.leaves", "model.leaf-targets"}


@pytest.mark.parametrize("trees", [1, 5])
def test_leaves_of_twenty_rows_pass_and_only_their_values_are_trimmed(data: Table, trees: int) -> None:
    model = grown(data, trees, leaf=20)
    assert rules(model, data) == set()
    after = canonical.rewrite(model.SerializeToString(), ["features"], ["prediction"], {}, canonical.MANTISSA_BITS)
    assert 0 < canonical.deviation(model.SerializeToString(), after, [{"features": data.matrix}]) < 1e-3
    kept, left = (
        {a.name: numpy_helper.to_array(a.t) for a in m.graph.node[0].attribute if a.HasField("t")}
        for m in (model, onnx.load_from_string(after))
    )
    assert np.array_equal(kept["nodes_splits"], left["nodes_splits"])
    assert not np.array_equal(kept["leaf_weights"], left["leaf_weights"])


def test_every_row_takes_the_way_that_the_runtime_sends_it(data: Table) -> None:
    """With missing cells, a test for equality and one for membership."""
    pulse, age = NUMBERS.index("pulse"), NUMBERS.index("age")
    members = [60.0, 61.0, 75.0, 90.0]
    model = model_of({
        "nodes_featureids": [pulse, age, pulse], "nodes_modes": [MEMBER, LEQ, EQ], "nodes_splits": [0.0, 58.0, 80.0],
        "nodes_truenodeids": [0, 1, 3], "nodes_trueleafs": [1, 1, 1],
        "nodes_falsenodeids": [1, 2, 2], "nodes_falseleafs": [0, 0, 1],
        "nodes_missing_value_tracks_true": [0, 1, 0], "tree_roots": [0], "leaf_targetids": [0, 0, 0, 0],
        "leaf_weights": [1.0, 2.0, 3.0, 4.0], "membership_values": members,
    })  # fmt: skip
    rows = data.matrix.copy()
    rows[::7, age] = np.nan
    answers = session(model, everything=False).run(None, {"features": rows})[0][:, 0]
    leaves = Leaves(model, 10**6)
    leaves.feed({"features": rows}, None)
    ((_, forest),) = leaves.forests
    counts = dict(zip(forest.weights.tolist(), forest.reached[forest.leaf_of].tolist(), strict=True))
    assert counts == {weight: int((answers == weight).sum()) for weight in (1.0, 2.0, 3.0, 4.0)}
    assert counts[1.0] == np.isin(rows[:, pulse], members).sum() > 0 and min(counts.values()) > 0


BROKEN = {
    "a child that is not there": {"nodes_truenodeids": [7, 1]},
    "a circle": {"nodes_falseleafs": [0, 0], "nodes_falsenodeids": [0, 0]},
    "no set of members": {"nodes_modes": [MEMBER, LEQ]},
    "more sets than tests": {"nodes_modes": [MEMBER, LEQ], "membership_values": [1.0, np.nan, 2.0]},
    "arrays of different lengths": {"leaf_targetids": [0, 0]},
}


@pytest.mark.parametrize("spoil", BROKEN)
def test_arrays_that_make_no_trees_are_refused(data: Table, spoil: str) -> None:
    attributes = {
        "nodes_featureids": [0, 1], "nodes_modes": [LEQ, LEQ], "nodes_splits": [58.0, 40.0],
        "nodes_truenodeids": [0, 1], "nodes_trueleafs": [1, 1], "nodes_falsenodeids": [1, 2],
        "nodes_falseleafs": [0, 1], "tree_roots": [0], "leaf_targetids": [0, 0, 0], "leaf_weights": [1.0, 2.0, 3.0],
    }  # fmt: skip
    assert not Leaves(model_of(attributes), 10).malformed
    leaves = Leaves(model_of({**attributes, **BROKEN[spoil]}), 10)
    leaves.feed({"features": data.matrix}, None)
    assert leaves.malformed
    assert {finding.rule for finding in leaves.findings("model.onnx", True)} == {"model.trees-unfollowed"}
