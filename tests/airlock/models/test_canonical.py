"""The canonical form: weights trimmed, decisions exact, and what that does to the predictions."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from model_zoo import Table, legitimate, regression_legitimate, table
from onnx import numpy_helper

from edgeml.airlock.intake.strict_json import Refused
from edgeml.airlock.models import canonical

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
