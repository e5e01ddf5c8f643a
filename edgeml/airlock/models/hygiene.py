"""What a model need not have, and what could carry anything: the policy of ONNX files.

Free text and names are no reason to refuse a model: exporters leave comments, versions and traces of source
code everywhere, none of it leaves (`canonical`), and what it says is compared with the private rows
(`vocabularies`) like any other text, so that a leak is still told as one. Refused is what stays in a model
that is written anew and could not be examined: numbers outside of the file, unknown operators, functions,
sparse tensors, and loops and branches whose inside cannot be followed.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import onnx

from edgeml.airlock.finding import POLICY, Finding, Rule
from edgeml.airlock.models.inside import closed
from edgeml.airlock.models.walk import TENSOR_DATA, known_operator, messages

UNUSED = Rule("model.unused", POLICY, "unused numbers", "numbers that no output depends on serve no prediction")
OPERATOR = Rule("model.operator", POLICY, "unknown operators", "an operator that ONNX does not define can do anything")
CONTROL = Rule(
    "model.control-flow", POLICY, "loops and branches that cannot be followed",
    "what is computed inside of them cannot be compared with the private rows",
)  # fmt: skip
FUNCTIONS = Rule("model.functions", POLICY, "functions and training graphs", "our models need none")
EXTERNAL = Rule("model.external", POLICY, "tensors outside of the file", "what was not examined may not leave", False)
SPARSE = Rule("model.sparse", POLICY, "sparse tensors", "our models need none")
TENSOR = Rule("model.tensor", POLICY, "a tensor with data in several places", "one of them would not be read", False)
RULES = (UNUSED, OPERATOR, CONTROL, FUNCTIONS, EXTERNAL, SPARSE, TENSOR)

UNUSED_ELEMENTS = 16  # skl2onnx leaves a short, unused list of classes in some models


def findings(file: str, model: Any) -> Iterator[Finding]:
    """Every rule that the model breaks, once."""
    everything = list(messages(model))

    def finding(rule: Rule, message: str, fix: str, cells: int = 0) -> Finding:
        return Finding(rule.id, file, "graph", message, fix, cells=cells)

    if (unused := unused_elements(model.graph)) > UNUSED_ELEMENTS:
        yield finding(UNUSED, f"holds {unused} numbers that no output depends on", "remove them", unused)
    nodes = [m for m in everything if isinstance(m, onnx.NodeProto)]
    if unknown := sum(not known_operator(node.op_type, node.domain) for node in nodes):
        yield finding(OPERATOR, f"has {unknown} operators that are not on the list", "use operators of ONNX", unknown)
    if closed_ := closed(model):
        fix = "export the estimator without (skl2onnx: optim='cdist')"
        yield finding(CONTROL, f"has {closed_} loops or branches that cannot be followed", fix, closed_)
    if model.functions or model.training_info:
        yield finding(FUNCTIONS, "defines functions or a training graph", "export a plain graph for inference")
    tensors = [m for m in everything if isinstance(m, onnx.TensorProto)]
    if any(tensor.external_data or tensor.data_location for tensor in tensors):
        yield finding(EXTERNAL, "keeps a tensor outside of the file", "save the model with its tensors inside")
    if any(isinstance(m, onnx.SparseTensorProto) for m in everything):
        yield finding(SPARSE, "has a sparse tensor", "store the tensor densely")
    if any(sum(bool(getattr(tensor, field)) for field in TENSOR_DATA) > 1 for tensor in tensors):
        yield finding(TENSOR, "keeps the data of a tensor in more than one field", "save the model anew")


def unused_elements(graph: Any) -> int:
    """How many numbers and texts no output of the graph depends on; the graph is left as it is."""
    copy = onnx.GraphProto()
    copy.CopyFrom(graph)
    return drop_unused(copy)


def drop_unused(graph: Any) -> int:
    """Remove what no output depends on, and return how many elements that was."""
    needed = {port.name for port in graph.output}
    dropped = 0
    for node in reversed(list(graph.node)):
        if needed.isdisjoint(node.output):
            dropped += sum(_elements(attribute) for attribute in node.attribute)
            graph.node.remove(node)
        else:
            needed |= reads(node)
            dropped += sum(drop_unused(inner) for inner in subgraphs(node))
    for tensor in list(graph.initializer):
        if tensor.name not in needed:
            dropped += math.prod(tensor.dims)
            graph.initializer.remove(tensor)
    for sparse in list(graph.sparse_initializer):
        if sparse.values.name not in needed:
            dropped += math.prod(sparse.values.dims)
            graph.sparse_initializer.remove(sparse)
    return dropped


def subgraphs(node: Any) -> list[Any]:
    return [g for a in node.attribute for g in ([a.g] if a.HasField("g") else []) + list(a.graphs)]


def reads(node: Any) -> set[str]:
    """The names that a node depends on, with those that its subgraphs take from outside."""
    inner = [set().union(*map(reads, g.node), (port.name for port in g.output)) for g in subgraphs(node)]
    names: set[str] = set(node.input).union(*inner)
    return names


def _elements(attribute: Any) -> int:
    plain = len(attribute.floats) + len(attribute.ints) + len(attribute.strings) + len(attribute.s)
    tensors = [message for message in messages(attribute) if isinstance(message, onnx.TensorProto)]
    return int(plain + sum(math.prod(tensor.dims) for tensor in tensors))
