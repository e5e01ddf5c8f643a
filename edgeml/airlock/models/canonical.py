"""The canonical form of an ONNX model: the same operators, none of its free text and names, its weights trimmed.

The last bits of a weight change no prediction, but could carry anything. `mantissa_bits` says how many
bits of a weight's mantissa leave; the others become zero, rounded to the nearest. What decides by
comparison keeps all its bits, because a row next to it would go another way, and no measurement on the
rows at hand speaks for those to come: thresholds of trees, edges of bins, keys of tables, and what is
subtracted (a mean, whose error a small spread would magnify). Of trees only the values of leaves are
trimmed, and what a tree is fed through (a scale) is not either, for it moves the rows against the
thresholds. `trimming` chooses the bits by what they do to the predictions.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import onnx
from onnx import numpy_helper

from edgeml.airlock.finding import POLICY, Rule
from edgeml.airlock.intake import entropy
from edgeml.airlock.intake.strict_json import OPAQUE_RUN, Refused
from edgeml.airlock.models.hygiene import drop_unused, reads
from edgeml.airlock.models.trees import OPERATORS as TREES

DOMAINS = frozenset({"", "ai.onnx", "ai.onnx.ml", "com.microsoft"})  # "" and "ai.onnx" are the same
MICROSOFT_OPERATORS = frozenset({"Tokenizer"})  # what skl2onnx needs for text features
UNUSED_ELEMENTS = 16  # skl2onnx leaves a short, unused list of classes in some models
COMMENTARY = ["doc_string", "metadata_props", "denotation", "value_info", "quantization_annotation"]
COMMENTARY += ["overload", "device_configurations"]
LONG_TEXT = 48  # letters of a text that may not look encoded; words and categories are shorter
MANTISSA_BITS = 10  # the least at which no model of ours changed by more than 1e-3, see docs/egress-gate.md
# whose constant inputs decide or are subtracted
# fmt: off
EXACT_OPERATORS = frozenset((
    "Sub", "Less", "LessOrEqual", "Greater", "GreaterOrEqual", "Equal", "Where", "Clip", "Floor", "Round", "Cast",
    "Mod", "TreeEnsemble", "Gather", "ScatterND", "QuantizeLinear", "DequantizeLinear", "QLinearMatMul",
    "QLinearConv", "QLinearAdd", "QGemm", "ArrayFeatureExtractor",
))
# fmt: on
# the attributes that are weights
# fmt: off
WEIGHTS = frozenset((
    "coefficients", "intercepts", "scale", "class_weights", "target_weights", "leaf_weights", "base_values", "rho",
    "prob_a", "prob_b", "class_weights_as_tensor", "target_weights_as_tensor", "base_values_as_tensor",
))
# fmt: on
FIELDS = {np.dtype("float16"): ("uint16", 10), np.dtype("float32"): ("uint32", 23), np.dtype("float64"): ("uint64", 52)}

_ANEW = "What cannot be written anew by its meaning does not leave at all."
RULES = (
    Rule("onnx.parse", POLICY, "the file is an ONNX model and nothing else", "Fields that ONNX does not define, and "
         "bytes behind the model, are read by nobody but the one they are meant for.", waivable=False),
    Rule("onnx.check", POLICY, "the model passes ONNX's own checker", _ANEW, waivable=False),
    Rule("onnx.interface", POLICY, "inputs and outputs are those of signature.json", "Their names are the only ones "
         "that survive, so they must be names that the contract knows.", waivable=False),
    Rule("onnx.unused", POLICY, "every number serves an output", "Numbers that no output depends on serve no "
         "prediction.", waivable=False),
    Rule("onnx.domain", POLICY, "operators are ONNX's own", "An operator that is not defined by ONNX can do and hold "
         "anything.", waivable=False),
    Rule("onnx.structure", POLICY, "no functions, training graphs or sparse tensors", "The models of the components "
         "need none, and each is one more place to look into.", waivable=False),
    Rule("onnx.external", POLICY, "all tensors are in the file", _ANEW, waivable=False),
)  # fmt: skip


def rewrite(
    data: bytes, inputs: list[str], outputs: list[str], metadata: dict[str, str], mantissa_bits: int | None = None
) -> bytes:
    """The canonical form of a model: same numbers and operators, none of its free text and names.

    Only the names of its `inputs` and `outputs` survive. `metadata` becomes its only metadata. With
    `mantissa_bits` the weights are trimmed; `trimming` measures what that changes.
    """
    model = onnx.ModelProto()
    try:
        model.ParseFromString(data)
    except Exception:
        raise Refused("onnx.parse", "not an ONNX model") from None
    size = model.ByteSize()
    model.DiscardUnknownFields()
    if model.ByteSize() != size:
        raise Refused("onnx.parse", "holds fields that ONNX does not define")
    everything = list(_messages(model))
    _refuse_carriers(model, everything)
    _check(model)
    initialized = {tensor.name for tensor in model.graph.initializer}
    if [p.name for p in model.graph.input if p.name not in initialized] != inputs:
        raise Refused("onnx.interface", "its inputs are not those of signature.json")
    if [p.name for p in model.graph.output] != outputs:
        raise Refused("onnx.interface", "its outputs are not those of signature.json")
    for port in [p for p in model.graph.input if p.name in initialized]:
        model.graph.input.remove(port)  # a default that a caller could replace: it becomes a constant
    if (unused := drop_unused(model.graph)) > UNUSED_ELEMENTS:
        raise Refused("onnx.unused", f"carries {unused} numbers that no output depends on")
    everything = list(_messages(model))
    _strip(everything)
    if mantissa_bits is not None:
        trim(model.graph, mantissa_bits)
    _rename(model, everything)
    used = {m.domain for m in everything if isinstance(m, onnx.NodeProto)}
    imported = {(_domain(o.domain), o.version) for o in model.opset_import}
    domains = sorted(pair for pair in imported if pair[0] in used)
    canonical = onnx.ModelProto(ir_version=model.ir_version, producer_name="edgeml", graph=model.graph)
    canonical.opset_import.extend(onnx.helper.make_opsetid(domain, version) for domain, version in domains)
    onnx.helper.set_model_props(canonical, metadata)
    _check(canonical)
    if any(entropy.encoded(text) for text in _texts(canonical) if len(text) >= LONG_TEXT):
        raise Refused("text.entropy", "a text of an operator looks like an encoding")
    result: bytes = canonical.SerializeToString(deterministic=True)
    if OPAQUE_RUN.search(result):
        raise Refused("text.opaque", "a run of 512 or more characters that look like an encoding")
    return result


def _texts(model: Any) -> Iterator[str]:
    """The texts of attributes and tensors: categories, vocabularies, patterns."""
    for message in _messages(model):
        if isinstance(message, onnx.AttributeProto):
            yield from (text.decode("utf-8", "replace") for text in (message.s, *message.strings))
        elif isinstance(message, onnx.TensorProto):
            yield from (text.decode("utf-8", "replace") for text in message.string_data)


def _domain(name: str) -> str:
    return "" if name == "ai.onnx" else name


def _check(model: Any) -> None:
    try:
        onnx.checker.check_model(model)
    except Exception:  # its messages quote the model
        raise Refused("onnx.check", "does not pass the checker of ONNX") from None


def _messages(message: Any) -> Iterator[Any]:
    """A protobuf message and all messages within it."""
    yield message
    for descriptor, value in message.ListFields():
        if descriptor.message_type is not None:
            for child in [value] if hasattr(value, "ListFields") else value:
                yield from _messages(child)


def _refuse_carriers(model: Any, everything: list[Any]) -> None:
    """Refuse the parts of ONNX that our models do not need and that could carry anything."""
    if model.functions or model.training_info:
        raise Refused("onnx.structure", "functions and training graphs do not leave")
    for message in everything:
        if isinstance(message, onnx.NodeProto):
            if message.domain not in DOMAINS:
                raise Refused("onnx.domain", "uses an operator of an unknown domain")
            if message.domain == "com.microsoft" and message.op_type not in MICROSOFT_OPERATORS:
                raise Refused("onnx.domain", "uses an operator of com.microsoft that is not on the list")
        elif isinstance(message, onnx.SparseTensorProto):
            raise Refused("onnx.structure", "sparse tensors do not leave")
        elif isinstance(message, onnx.AttributeProto) and message.ref_attr_name:
            raise Refused("onnx.structure", "an attribute refers to a function")
        elif isinstance(message, onnx.TensorProto) and (message.external_data or message.data_location):
            raise Refused("onnx.external", "keeps a tensor outside of the file")


def _strip(everything: list[Any]) -> None:
    """Clear every field that is commentary, and bring tensors to one encoding."""
    for message in everything:
        for name in COMMENTARY:
            if name in message.DESCRIPTOR.fields_by_name:
                message.ClearField(name)
        if isinstance(message, onnx.TensorProto):
            try:
                message.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(message), message.name))
            except Exception:
                raise Refused("onnx.structure", "a tensor's data do not match its shape") from None


def _rename(model: Any, everything: list[Any]) -> None:
    """Give every value, node, graph and axis that is not part of the interface a name of ours."""
    kept = {port.name for port in (*model.graph.input, *model.graph.output)} | {""}
    prefix = "v"
    while any(re.fullmatch(prefix + r"\d+", name) for name in kept):
        prefix += "_"
    values: dict[str, str] = {}
    axes: dict[str, str] = {}

    def renamed(name: str) -> str:
        return name if name in kept else values.setdefault(name, f"{prefix}{len(values)}")

    nodes = 0
    for message in everything:
        if isinstance(message, onnx.GraphProto):
            message.name = "graph"
            for named in (*message.initializer, *message.input, *message.output):
                named.name = renamed(named.name)
        elif isinstance(message, onnx.NodeProto):
            message.name, nodes = f"n{nodes}", nodes + 1
            message.domain = _domain(message.domain)
            message.input[:] = [renamed(name) for name in message.input]
            message.output[:] = [renamed(name) for name in message.output]
        elif isinstance(message, onnx.AttributeProto):
            for tensor in ([message.t] if message.HasField("t") else []) + list(message.tensors):
                tensor.ClearField("name")
        elif isinstance(message, onnx.TensorShapeProto.Dimension) and message.dim_param:
            message.dim_param = axes.setdefault(message.dim_param, f"d{len(axes)}")


# --- the last bits of the weights -----------------------------------------------------------------


def trim(graph: Any, bits: int) -> int:
    """Round the weights of a graph and of its subgraphs to `bits` of mantissa; returns how many there are."""
    exact: set[str] = set()
    nodes = [message for message in _messages(graph) if isinstance(message, onnx.NodeProto)]
    for node in nodes:
        if node.op_type in EXACT_OPERATORS:
            exact |= set(node.input)
    before = _before_trees(nodes)
    exact |= before
    trimmed = 0
    for message in _messages(graph):
        if isinstance(message, onnx.GraphProto):
            for tensor in message.initializer:
                if tensor.name not in exact:
                    trimmed += _trim_tensor(tensor, bits)
        elif isinstance(message, onnx.NodeProto):
            for attribute in message.attribute:
                constant = message.op_type == "Constant"
                kept = exact if constant else before
                if not kept.isdisjoint(message.output) or not (constant or attribute.name in WEIGHTS):
                    continue
                if attribute.HasField("t"):
                    trimmed += _trim_tensor(attribute.t, bits)
                if attribute.floats:
                    rounded = rounded_to(np.array(attribute.floats, dtype=np.float32), bits)
                    attribute.floats[:] = rounded.tolist()
                    trimmed += rounded.size
    return trimmed


def _before_trees(nodes: Sequence[Any]) -> set[str]:
    """The values that the input of a tree is computed from."""
    found = {name for node in nodes if node.op_type in TREES for name in node.input}
    before = 0
    while before != len(found):
        before = len(found)
        for node in nodes:
            if not found.isdisjoint(node.output):
                found |= reads(node)
    return found


def _trim_tensor(tensor: Any, bits: int) -> int:
    array = numpy_helper.to_array(tensor)
    if array.dtype not in FIELDS:
        return 0
    tensor.CopyFrom(numpy_helper.from_array(rounded_to(array, bits), tensor.name))
    return int(array.size)


def rounded_to(values: np.ndarray[Any, Any], bits: int) -> np.ndarray[Any, Any]:
    """Numbers with at most `bits` bits of mantissa, the nearest; what is not finite stays."""
    kind, mantissa = FIELDS[values.dtype]
    spare = mantissa - bits
    if spare <= 0:
        return values
    whole = values.copy().view(kind)  # sign and mantissa as one whole number: its carry is the exponent's
    one = whole.dtype.type(1)
    shift = whole.dtype.type(spare)
    with np.errstate(over="ignore"):
        rounded = ((whole + (one << (shift - one))) >> shift) << shift
    found = rounded.view(values.dtype)
    return np.where(np.isfinite(values) & np.isfinite(found), found, values)


class Deviation:
    """The largest difference between what two models predict of the same rows.

    Absolute for numbers within [-1, 1] (probabilities), else relative to the largest; infinite where one is
    finite and the other not, or where they differ in form.
    """

    def __init__(self) -> None:
        self.largest, self.scale = 0.0, 1.0

    @property
    def value(self) -> float:
        return self.largest / self.scale

    def feed(self, before: Sequence[Any], after: Sequence[Any]) -> None:
        """Take all outputs of both for some rows."""
        for one, other in zip(before, after, strict=True):
            if isinstance(one, list):  # of maps
                one, other = (np.array([list(row.values()) for row in rows]) for rows in (one, other))
            if one.dtype.kind != "f":
                continue  # a label follows from the numbers, and a tie may fall either way
            finite = np.isfinite(one)
            if one.shape != other.shape or (finite != np.isfinite(other)).any():
                self.largest = float("inf")
            elif finite.any():
                self.scale = max(self.scale, float(np.abs(one[finite]).max()))
                self.largest = max(self.largest, float(np.abs(one[finite] - other[finite]).max()))


def deviation(before: bytes, after: bytes, batches: Iterable[Mapping[str, np.ndarray[Any, Any]]]) -> float:
    """The deviation between two models over some batches of inputs (by name).

    Call it with models that were examined: it runs them in this process.
    """
    from edgeml.airlock.models.activations import Failed, session

    try:
        first, second = (session(onnx.load_from_string(data), everything=False) for data in (before, after))
    except Failed:
        raise Refused("onnx.check", "does not run") from None
    found = Deviation()
    for batch in batches:
        try:
            found.feed(*(list(one.run(None, dict(batch))) for one in (first, second)))
        except Exception:  # its message may quote the rows
            raise Refused("onnx.check", "does not run on the rows") from None
    return found.value
