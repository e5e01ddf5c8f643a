"""Models as other exporters write them: comments, odd names, branches and loops, and what is hidden in these."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
from model_verdicts import examine
from model_zoo import NUMBERS, table
from onnx import TensorProto, helper, numpy_helper

from edgeml.airlock.finding import Artifact
from edgeml.airlock.models import canonical

Array = np.ndarray[Any, Any]
WIDTH = len(NUMBERS)
RNG = np.random.default_rng(5)


def model_of(nodes: list[Any], width: int = 1, **constants: Array) -> Any:
    graph = helper.make_graph(
        nodes,
        "main_graph",
        [helper.make_tensor_value_info("features", TensorProto.FLOAT, ["batch_size", WIDTH])],
        [helper.make_tensor_value_info("prediction", TensorProto.FLOAT, ["batch_size", width])],
        [numpy_helper.from_array(np.asarray(array), name) for name, array in constants.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)


def branch(nodes: list[Any], output: str, **constants: Array) -> Any:
    tensors = [numpy_helper.from_array(np.asarray(array), name) for name, array in constants.items()]
    return helper.make_graph(nodes, "sub_graph", [], [helper.make_tensor_value_info(output, 1, None)], tensors)


def exported_by_torch() -> Any:
    """A perceptron as `torch.onnx.export` writes one: traces of the source everywhere, and an If for a squeeze."""
    squeezed = branch([helper.make_node("Squeeze", ["/fc2/out", "/axes"], ["/Squeeze_output_0"])], "/Squeeze_output_0",
                      **{"/axes": np.array([1])})  # fmt: skip
    whole = branch([helper.make_node("Identity", ["/fc2/out"], ["/Identity_output_0"])], "/Identity_output_0")
    nodes = [
        helper.make_node("Gemm", ["features", "fc1.weight", "fc1.bias"], ["/fc1/out"], "/fc1/Gemm", transB=1),
        helper.make_node("Relu", ["/fc1/out"], ["/Relu_output_0"], "/Relu"),
        helper.make_node("Gemm", ["/Relu_output_0", "fc2.weight", "fc2.bias"], ["/fc2/out"], "/fc2/Gemm", transB=1),
        helper.make_node("Shape", ["/fc2/out"], ["/shape"], start=1, end=2),
        helper.make_node("Equal", ["/shape", "/one"], ["/is_one"]),
        helper.make_node("Squeeze", ["/is_one"], ["/condition"]),
        helper.make_node("If", ["/condition"], ["/squeezed"], "/If", then_branch=squeezed, else_branch=whole),
        helper.make_node("Reshape", ["/squeezed", "/column"], ["prediction"], "/Reshape"),
    ]
    weights = {"fc1.weight": RNG.normal(size=(16, WIDTH)), "fc1.bias": RNG.normal(size=16)}
    weights |= {"fc2.weight": RNG.normal(size=(1, 16)), "fc2.bias": RNG.normal(size=1)}
    constants: dict[str, Array] = {name: array.astype(np.float32) for name, array in weights.items()}
    model = model_of(nodes, **constants, **{"/one": np.array([1]), "/column": np.array([-1, 1])})
    model.producer_name, model.producer_version = "pytorch", "2.9.0+cu128"
    model.doc_string = "Exported on 2026-11-20 by build-7"
    for node in model.graph.node:
        node.doc_string = f"/usr/lib/python3.11/site-packages/torch/nn/modules/linear.py(125): forward {node.op_type}\n"
        prop = node.metadata_props.add()
        prop.key, prop.value = "pkg.torch.onnx.stack_trace", f"File 'train.py', line 12, in forward\n  x = {node.name}"
    model.opset_import.append(helper.make_opsetid("pkg.onnxscript.torch_lib.common", 1))
    return model


def found(model: Any) -> set[str]:
    examiner = examine([Artifact("model.onnx", "onnx", model.SerializeToString())], table(300, 1))
    return {finding.rule for finding in examiner.findings()}


def test_what_torch_writes_beside_a_model_is_no_reason_to_refuse_it_and_does_not_leave() -> None:
    model = exported_by_torch()
    assert found(model) == set()
    data = table(300, 1)
    after = canonical.rewrite(model.SerializeToString(), ["features"], ["prediction"], {})
    for word in (
        b"torch",
        b"forward",
        b"train.py",
        b"fc1",
        b"build-7",
        b"Squeeze_output",
        b"batch_size",
        b"main_graph",
    ):
        assert word in model.SerializeToString() and word not in after
    assert canonical.deviation(model.SerializeToString(), after, [{"features": data.matrix}]) == 0


@pytest.mark.parametrize("place", ["doc_string", "metadata", "name", "domain"])
def test_a_private_text_beside_a_model_is_still_told(place: str) -> None:
    model, person = exported_by_torch(), str(table(300, 1).column("patient_id")[33])
    node = model.graph.node[0]
    if place == "doc_string":
        node.doc_string = f"row {person} failed"
    elif place == "metadata":
        node.metadata_props[0].value = person
    elif place == "name":
        node.name = person
    else:
        model.opset_import[-1].domain = person
    assert found(model) == {"model.vocabulary"}


# --- rows that are compared within a branch or a loop, in a space of the model's own -----------------------

TURN = np.linalg.qr(RNG.normal(size=(WIDTH, WIDTH)))[0].astype(np.float32)


def turned(rows: Array) -> Array:
    """Scaled and rotated: neither as the table has them nor column by column."""
    whole = table(300, 1).matrix
    scaled = (rows - whole.mean(axis=0)) / whole.std(axis=0)
    return np.asarray(scaled @ TURN, dtype=np.float32)


def prepared(nodes: list[Any], **constants: Array) -> Any:
    whole = table(300, 1).matrix
    before = [
        helper.make_node("Sub", ["features", "mean"], ["centred"]),
        helper.make_node("Div", ["centred", "spread"], ["scaled"]),
    ]
    return model_of([*before, *nodes], mean=whole.mean(axis=0), spread=whole.std(axis=0), **constants)


def nearest(space: str, stored: str) -> list[Any]:
    """The largest product of what is in `space` with any stored row."""
    return [
        helper.make_node("MatMul", [space, stored], ["products"]),
        helper.make_node("ReduceMax", ["products", "axis"], ["near"], keepdims=1),
    ]


def in_a_branch(rows: Array) -> Any:
    inner = [helper.make_node("MatMul", ["scaled", "turn"], ["space"]), *nearest("space", "stored")]
    then = branch(inner, "near", turn=TURN, stored=turned(rows).T)
    other = branch([helper.make_node("Slice", ["scaled", "zero", "axis", "axis"], ["first"])], "first")
    node = helper.make_node("If", ["yes"], ["prediction"], then_branch=then, else_branch=other)
    return prepared([node], yes=np.array(True), axis=np.array([1]), zero=np.array([0]))


def in_a_branch_of_a_branch(rows: Array) -> Any:
    model = in_a_branch(rows)
    inner = model.graph.node[-1]
    inner.output[:] = ["held"]
    then = branch([inner], "held")
    other = branch([helper.make_node("Slice", ["scaled", "zero", "axis", "axis"], ["one"])], "one")
    model.graph.node.pop()
    model.graph.node.append(helper.make_node("If", ["yes"], ["prediction"], then_branch=then, else_branch=other))
    return model


def in_a_loop(rows: Array) -> Any:
    body = helper.make_graph(
        [
            helper.make_node("MatMul", ["scaled", "turn"], ["space"]),
            *nearest("space", "stored"),
            helper.make_node("Add", ["so_far", "near"], ["sum"]),
            helper.make_node("Identity", ["on"], ["still"]),
        ],
        "body",
        [
            helper.make_tensor_value_info("i", TensorProto.INT64, []),
            helper.make_tensor_value_info("on", TensorProto.BOOL, []),
            helper.make_tensor_value_info("so_far", TensorProto.FLOAT, None),
        ],
        [
            helper.make_tensor_value_info("still", TensorProto.BOOL, []),
            helper.make_tensor_value_info("sum", TensorProto.FLOAT, None),
        ],
        [numpy_helper.from_array(TURN, "turn"), numpy_helper.from_array(turned(rows).T, "stored")],
    )
    node = helper.make_node("Loop", ["times", "yes", "start"], ["prediction"], body=body)
    constants = {"times": np.array(2), "yes": np.array(True), "start": np.zeros((1, 1), np.float32)}
    return prepared([node], axis=np.array([1]), **constants)


def in_a_scan(rows: Array) -> Any:
    """One private row a round, as skl2onnx computes distances."""
    body = helper.make_graph(
        [
            helper.make_node("Unsqueeze", ["row", "zero"], ["flat"]),
            helper.make_node("MatMul", ["flat", "turn"], ["wide"]),
            helper.make_node("Squeeze", ["wide", "zero"], ["space"]),
            helper.make_node("MatMul", ["space", "stored"], ["products"]),
            helper.make_node("ReduceMax", ["products", "zero"], ["near"], keepdims=1),
        ],
        "body",
        [helper.make_tensor_value_info("row", TensorProto.FLOAT, [WIDTH])],
        [helper.make_tensor_value_info("near", TensorProto.FLOAT, [1])],
        [numpy_helper.from_array(TURN, "turn"), numpy_helper.from_array(turned(rows).T, "stored")],
    )
    node = helper.make_node("Scan", ["scaled"], ["prediction"], body=body, num_scan_inputs=1,
                            scan_output_axes=[0])  # fmt: skip
    return prepared([node], zero=np.array([0]))


WITHIN = [in_a_branch, in_a_branch_of_a_branch, in_a_loop, in_a_scan]


@pytest.mark.parametrize("hide", WITHIN)
def test_rows_that_are_compared_within_a_branch_or_a_loop_are_found(hide: Any) -> None:
    assert "model.stored-rows" in found(hide(table(300, 1).matrix[40:70]))


@pytest.mark.parametrize("hide", WITHIN)
def test_a_branch_or_a_loop_by_itself_passes_and_leaves(hide: Any) -> None:
    data = table(300, 1)
    model = hide(table(300, 11).matrix[40:70])  # of other people
    onnx.checker.check_model(model)
    assert found(model) == set()
    after = canonical.rewrite(model.SerializeToString(), ["features"], ["prediction"], {})
    assert canonical.deviation(model.SerializeToString(), after, [{"features": data.matrix}]) == 0


def test_what_cannot_be_followed_is_refused() -> None:
    """A SequenceMap, and a tree within a branch, which only some rows reach."""
    body = helper.make_graph(
        [helper.make_node("Identity", ["part"], ["same"])], "body",
        [helper.make_tensor_value_info("part", TensorProto.FLOAT, None)],
        [helper.make_tensor_value_info("same", TensorProto.FLOAT, None)],
    )  # fmt: skip
    nodes = [
        helper.make_node("SequenceConstruct", ["features"], ["sequence"]),
        helper.make_node("SequenceMap", ["sequence"], ["mapped"], body=body),
        helper.make_node("ConcatFromSequence", ["mapped"], ["prediction"], axis=0),
    ]
    assert "model.control-flow" in found(model_of(nodes, WIDTH))
    tree = helper.make_node(
        "TreeEnsembleRegressor", ["features"], ["answer"], domain="ai.onnx.ml", n_targets=1, nodes_treeids=[0],
        nodes_nodeids=[0], nodes_featureids=[0], nodes_modes=["LEAF"], nodes_values=[0.0], nodes_truenodeids=[0],
        nodes_falsenodeids=[0], target_treeids=[0], target_nodeids=[0], target_ids=[0], target_weights=[1.0],
    )  # fmt: skip
    held = branch([tree], "answer")
    node = helper.make_node("If", ["yes"], ["prediction"], then_branch=held, else_branch=held)
    model = model_of([node], yes=np.array(True))
    model.opset_import.append(helper.make_opsetid("ai.onnx.ml", 3))
    assert "model.trees-unfollowed" in found(model)
