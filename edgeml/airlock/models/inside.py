"""What a model computes inside of its branches and loops, made outputs of the nodes that hold them.

A value of a branch becomes one more output of its If: what the branch computed where it was taken, else
nothing (an empty tensor, which the other branch gets). A value of a body becomes one more scan output of its
Loop or Scan: what each round computed, stacked. Nested ones come up level by level. Only numbers with a point
are opened, because only these are compared with rows.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import onnx

from edgeml.airlock.models.walk import messages

FLOATS = frozenset({onnx.TensorProto.FLOAT, onnx.TensorProto.DOUBLE, onnx.TensorProto.FLOAT16})
HOLDERS = frozenset({"If", "Loop", "Scan"})


def opened(model: Any) -> Any:
    """The model with every value of its subgraphs as an output of the node that holds the subgraph."""
    if not any(isinstance(m, onnx.AttributeProto) and (m.HasField("g") or m.graphs) for m in messages(model)):
        return model
    copy = _typed(model)
    counter = iter(range(1 << 30))
    for node in copy.graph.node:
        _open(node, counter)
    return copy


def closed(model: Any) -> int:
    """How many nodes hold a subgraph that cannot be opened: other operators, and values without a known type."""
    holders = [m for m in messages(model.graph) if isinstance(m, onnx.NodeProto) and _graphs(m)]
    if not holders:
        return 0
    found = sum(node.op_type not in HOLDERS or node.domain not in ("", "ai.onnx") for node in holders)
    for graph in (g for m in messages(_typed(model).graph) if isinstance(m, onnx.NodeProto) for g in _graphs(m)):
        types = _types(graph)
        found += any(name not in types for node in graph.node for name in node.output if name)
    return int(found)


def _typed(model: Any) -> Any:
    """A copy that says of which type every value is, as far as ONNX can tell."""
    try:
        return onnx.shape_inference.infer_shapes(model)
    except Exception:  # its message quotes names
        copy = onnx.ModelProto()
        copy.CopyFrom(model)
        return copy


def _graphs(node: Any) -> list[Any]:
    return [g for a in node.attribute for g in ([a.g] if a.HasField("g") else []) + list(a.graphs)]


def _types(graph: Any) -> dict[str, int]:
    """The element type by name; 0 for what is no tensor."""
    ports = [*graph.value_info, *graph.output]
    return {port.name: port.type.tensor_type.elem_type for port in ports if port.type.WhichOneof("value")}


def _open(node: Any, counter: Iterator[int]) -> list[Any]:
    """Open the subgraphs of a node, innermost first; the outputs that this gives it."""
    graphs = _graphs(node)
    given: list[Any] = []
    if node.op_type not in HOLDERS:
        return given
    for graph in graphs:
        graph.value_info.extend(port for inner in list(graph.node) for port in _open(inner, counter))
    first = len(graphs[0].output) - (node.op_type == "Loop")  # whose first output is the condition
    node.output.extend([""] * (first - len(node.output)))
    for graph in graphs:
        types, told = _types(graph), {port.name for port in graph.output}
        for name in [name for inner in graph.node for name in inner.output if name not in told]:
            if (kind := types.get(name, 0)) in FLOATS:
                given.append(_port(f"opened {next(counter)}", kind))
                graph.output.append(_port(name, kind))
                for other in (one for one in graphs if one is not graph):
                    empty, port = onnx.TensorProto(data_type=kind, dims=[0]), _port(f"{given[-1].name} empty", kind)
                    other.node.append(onnx.helper.make_node("Constant", [], [port.name], value=empty))
                    other.output.append(port)
    for graph in graphs:
        del graph.value_info[:]  # a size that was inferred may not hold for every number of rows
    node.output.extend(port.name for port in given)
    for attribute in node.attribute:
        if attribute.name in ("scan_output_axes", "scan_output_directions"):
            attribute.ints.extend([0] * len(given))
    return given


def _port(name: str, kind: int) -> Any:
    return onnx.ValueInfoProto(name=name, type=onnx.TypeProto(tensor_type=onnx.TypeProto.Tensor(elem_type=kind)))
