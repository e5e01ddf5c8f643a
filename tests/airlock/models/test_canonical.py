"""The canonical form: weights trimmed, decisions exact, and what that does to the predictions."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from model_zoo import Table, legitimate, regression_legitimate, table
from onnx import numpy_helper

from edgeml.airlock.intake.strict_json import Refused
from edgeml.airlock.models import canonical, trimming

TRIMMED = ["lr", "std+lr", "mlp", "hgb", "forest-leaf-20", "naive-bayes"]


def made(name: str) -> tuple[bytes, Table, list[str]]:
    kind = regression_legitimate() if name in regression_legitimate() else legitimate()
    data = table(2000, 2, "regression" if name in regression_legitimate() else "classification")
    model = kind[name](data)
    return model, data, [port.name for port in onnx.load_from_string(model).graph.output]


@pytest.mark.parametrize("name", [*TRIMMED, "ridge", "forest-regressor-leaf-20"])
def test_ten_bits_of_mantissa_change_no_prediction_by_a_thousandth(name: str) -> None:
    model, data, outputs = made(name)
    after = canonical.rewrite(model, ["features"], outputs, {}, canonical.MANTISSA_BITS)
    assert after != canonical.rewrite(model, ["features"], outputs, {}, None)
    assert canonical.deviation(model, after, [{"features": data.matrix}]) < 1e-3


def test_without_trimming_predictions_stay_exactly_the_same() -> None:
    model, data, outputs = made("hgb")
    after = canonical.rewrite(model, ["features"], outputs, {"a": "b"}, None)
    assert canonical.deviation(model, after, [{"features": data.matrix}]) == 0


def test_trimming_too_much_shows_in_the_deviation() -> None:
    model, data, outputs = made("std+lr")
    after = canonical.rewrite(model, ["features"], outputs, {}, 1)
    assert canonical.deviation(model, after, [{"features": data.matrix}]) > 1e-2


def test_thresholds_of_trees_keep_all_their_bits() -> None:
    model, _, outputs = made("hgb")
    after = canonical.rewrite(model, ["features"], outputs, {}, 7)

    def attribute(data: bytes, name: str) -> list[float]:
        nodes = onnx.load_from_string(data).graph.node
        return [value for node in nodes for a in node.attribute if a.name == name for value in a.floats]

    assert attribute(model, "nodes_values") == attribute(after, "nodes_values")
    weights = np.array(attribute(after, "class_weights"), dtype=np.float32)
    assert (weights.view(np.uint32) % (1 << 16) == 0).all()
    assert attribute(model, "class_weights") != weights.tolist()


def graph_of(nodes: list[onnx.NodeProto], **constants: object) -> onnx.ModelProto:
    ports = (("features", [None, 1]), ("prediction", [None, 1]))
    inputs, outputs = ([onnx.helper.make_tensor_value_info(n, onnx.TensorProto.FLOAT, s)] for n, s in ports)
    tensors = [numpy_helper.from_array(np.array(value, np.float32), name) for name, value in constants.items()]
    graph = onnx.helper.make_graph(nodes, "graph", inputs, outputs, tensors)
    opsets = [onnx.helper.make_opsetid("", 18), onnx.helper.make_opsetid("ai.onnx.ml", 3)]
    return onnx.helper.make_model(graph, opset_imports=opsets, ir_version=8)


def stump(threshold: float) -> onnx.NodeProto:
    """A tree of one decision, whose leaves say 1/3 and 2/3."""
    return onnx.helper.make_node(
        "TreeEnsembleRegressor", ["scaled"], ["prediction"], domain="ai.onnx.ml", n_targets=1, nodes_treeids=[0, 0, 0],
        nodes_nodeids=[0, 1, 2], nodes_featureids=[0, 0, 0], nodes_modes=["BRANCH_LEQ", "LEAF", "LEAF"],
        nodes_values=[threshold, 0.0, 0.0], nodes_truenodeids=[1, 0, 0], nodes_falsenodeids=[2, 0, 0],
        target_treeids=[0, 0], target_nodeids=[1, 2], target_ids=[0, 0], target_weights=[1 / 3, 2 / 3],
    )  # fmt: skip


def test_what_a_tree_is_fed_through_keeps_all_its_bits() -> None:
    """Else a row at a threshold would go the other way, and no leaf be trimmed for the sake of the scale."""
    model = graph_of([onnx.helper.make_node("Mul", ["features", "scale"], ["scaled"]), stump(0.1234567)], scale=0.1)
    assert canonical.trim(model.graph, 7) == 2
    assert numpy_helper.to_array(model.graph.initializer[0]) == np.float32(0.1)
    weights = {a.name: list(a.floats) for a in model.graph.node[1].attribute}
    assert weights["nodes_values"][0] == np.float32(0.1234567)
    assert weights["target_weights"] == canonical.rounded_to(np.float32([1 / 3, 2 / 3]), 7).tolist()


def measured(
    model: onnx.ModelProto, values: np.ndarray, truth: np.ndarray, least: int | None = None
) -> trimming.Change:
    trials = trimming.Trimming(model, [], trimming.steps_from(least))
    rows = {"features": values.reshape(-1, 1).astype(np.float32)}
    before = trimming.session(model, everything=False).run(None, rows)
    trials.feed(rows, {"prediction": before[0]}, truth)
    return trimming.chosen(trials.changes())


def linear(scale: float, offset: float) -> onnx.ModelProto:
    nodes = [("Mul", ["features", "scale"], ["scaled"]), ("Add", ["scaled", "offset"], ["prediction"])]
    return graph_of([onnx.helper.make_node(*node) for node in nodes], scale=scale, offset=offset)


def test_more_bits_leave_where_predictions_or_the_metric_ask_for_them() -> None:
    rng = np.random.default_rng(1)
    x, noise = rng.normal(size=500), rng.normal(size=500)
    plain = measured(linear(1.2345, 0.5), x, 1.2345 * x + 0.5 + noise)
    assert plain.bits == canonical.MANTISSA_BITS and 0 < plain.prediction <= trimming.TOLERANCE
    assert plain.metric == "rmse" and abs(plain.metric_change) <= trimming.TOLERANCE
    assert plain.document()["largest_change"] == float(f"{plain.prediction:.2g}")
    # All predictions lie near a million: a thousandth of that is a thousand times the error of the model.
    offset = measured(linear(1.2345, 1_000_300.0), x, 1.2345 * x + 1_000_300 + noise)
    assert offset.bits in (16, 23) and abs(offset.metric_change) <= trimming.TOLERANCE
    # The input is large and what comes out small, so that the last bits of the weights decide.
    assert measured(linear(0.7001, -7001.0), 1e4 + x, x).bits == 23
    assert measured(linear(1.2345, 0.5), x, x, least=12).bits == 12


def test_a_model_that_no_step_is_good_enough_for_keeps_all_its_bits() -> None:
    bad = [trimming.Change(bits, 9, 0.5, "rmse", 0.0) for bits in trimming.STEPS]
    assert trimming.chosen(bad).document() == {
        "mantissa_bits": 52, "weights": 0, "tolerance": trimming.TOLERANCE, "largest_change": 0.0
    }  # fmt: skip
    assert trimming.chosen([bad[0], bad[1]._replace(prediction=0.0)]).bits == 13
    assert trimming.chosen([bad[0]._replace(prediction=0.0, metric_change=-0.5), bad[1]]).bits == 52


@pytest.mark.parametrize("kind", ["float16", "float32", "float64"])
def test_rounding_is_to_the_nearest_and_leaves_what_is_not_finite(kind: str) -> None:
    values = np.array([1.0, -1.0, 1.0009, 0.0, np.inf, -np.inf, np.nan, 3.14159, np.finfo(kind).max], dtype=kind)
    rounded = canonical.rounded_to(values, 7)
    finite = np.isfinite(values)
    assert np.array_equal(np.isfinite(rounded), finite)
    assert (np.abs(rounded[finite] - values[finite]) <= np.abs(values[finite]) * 2.0**-8 + 0)[:-1].all()
    assert np.array_equal(canonical.rounded_to(rounded, 7), rounded, equal_nan=True)


def test_a_message_in_the_last_bits_does_not_survive() -> None:
    """Two models whose weights differ in what trimming takes away come out as the same bytes."""
    model, _, outputs = made("mlp")
    marked = onnx.load_from_string(model)
    for tensor in marked.graph.initializer:
        array = numpy_helper.to_array(tensor).copy()
        if array.dtype == np.float32 and array.size > 100:
            bits = array.view(np.uint32)
            cut = bits & np.uint32(0x1FFF) != np.uint32(0x1000)  # not where a bit decides the rounding
            bits[cut] ^= np.uint32(1)
            tensor.CopyFrom(numpy_helper.from_array(array, tensor.name))
    one, other = (
        canonical.rewrite(data, ["features"], outputs, {}, 10) for data in (model, marked.SerializeToString())
    )
    assert np.mean(np.frombuffer(one, np.uint8) != np.frombuffer(other, np.uint8)) < 1e-3


@pytest.mark.parametrize("data", [b"", b"nothing"])
def test_what_is_no_model_is_refused(data: bytes) -> None:
    with pytest.raises(Refused):
        canonical.rewrite(data, ["features"], ["label"], {}, 10)
