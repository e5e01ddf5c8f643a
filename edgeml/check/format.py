"""The format rules: known keys, required keys, plain values of the right type, names that Azure ML takes."""

from __future__ import annotations

from collections.abc import Iterator

from edgeml.check import kinds
from edgeml.check.document import Document, entries, scalar
from edgeml.check.finding import ERROR, Finding, Rule, found
from edgeml.check.kinds import Fields, Items, Names, OneOf, Open, Scalar, Shape
from edgeml.errors import nearest
from edgeml.pipeline.libyaml import yaml

UNKNOWN_KEY = Rule(
    "unknown-key",
    ERROR,
    "Every key is one that Azure ML knows",
    "A misspelt key is refused by the service minutes later, or ignored without a word.",
    "$schema: https://azuremlschemas.azureedge.net/latest/pipelineJob.schema.json\n"
    "type: pipeline\njobs:\n  a: {type: command, command: echo a, envirnment: azureml:e:1}\n",
    "$schema: https://azuremlschemas.azureedge.net/latest/pipelineJob.schema.json\n"
    "type: pipeline\njobs:\n  a: {type: command, command: echo a, environment: azureml:e:1}\n",
)
MISSING_KEY = Rule(
    "missing-key",
    ERROR,
    "Every required key is there",
    "Azure ML refuses the file without it.",
    "type: command\nname: c\nversion: 1\ninputs: {rows: {description: the rows}}\ncommand: echo ${{inputs.rows}}\n",
    "type: command\nname: c\nversion: 1\ninputs: {rows: {type: uri_file}}\ncommand: echo ${{inputs.rows}}\n",
)
WRONG_VALUE = Rule(
    "wrong-value",
    ERROR,
    "A value is of the type, or one of the words, that its key takes",
    "The service converts some and refuses others; what stands in the file should be what is meant.",
    "type: pipeline\nsettings: {force_rerun: sometimes}\njobs:\n  a: {command: echo a}\n",
    "type: pipeline\nsettings: {force_rerun: true}\njobs:\n  a: {command: echo a}\n",
)
BAD_NAME = Rule(
    "bad-name",
    ERROR,
    "Names of nodes, inputs and outputs are identifiers, and no output is called `default`",
    "Azure ML puts them into code and paths: a hyphen, once taken, is refused today, and `default` is its own output.",
    "type: pipeline\njobs:\n  train-model: {command: echo a}\n",
    "type: pipeline\njobs:\n  train_model: {command: echo a}\n",
)
RULES = (UNKNOWN_KEY, MISSING_KEY, WRONG_VALUE, BAD_NAME)

_TAG = "tag:yaml.org,2002:"
_WORDS = {"integer": "a whole number", "number": "a number", "boolean": "true or false", "text": "text"}
_BOOLEANS = frozenset({"true", "false"})


def check(document: Document, kind: Fields) -> Iterator[Finding]:
    """The findings of a document of one kind."""
    yield from _check(document, document.root, kind, kind.name)


def _check(document: Document, node: yaml.Node | None, shape: Shape, what: str) -> Iterator[Finding]:
    if node is None or isinstance(shape, Open) or _is_null(node):
        return
    if isinstance(shape, OneOf):
        shape = shape.mapping if isinstance(node, yaml.MappingNode) else shape.plain
    if isinstance(shape, Scalar):
        yield from _scalar(document, node, shape, what)
    elif isinstance(shape, Items):
        if not isinstance(node, yaml.SequenceNode):
            yield found(WRONG_VALUE, document.place(node), f"'{what}' must be a list")
            return
        for item in node.value:
            yield from _check(document, item, shape.of, what)
    elif not isinstance(node, yaml.MappingNode):
        if not _is_binding(node):
            yield found(WRONG_VALUE, document.place(node), f"'{what}' must be a mapping of keys to values")
    elif isinstance(shape, Names):
        yield from _names(document, node, shape, what)
    elif isinstance(shape, Fields):
        yield from _fields(document, node, shape)


def _fields(document: Document, node: yaml.Node, shape: Fields) -> Iterator[Finding]:
    present = entries(node)
    for name, (key, value) in present.items():
        if name in shape.known:
            yield from _check(document, value, shape.known[name], name)
            continue
        near = nearest(name, shape.known)
        hint = f"; did you mean '{near}'?" if near else f"; it takes {', '.join(sorted(shape.known))}"
        yield found(UNKNOWN_KEY, document.place(key), f"a {shape.name} has no key '{name}'{hint}")
    for name in shape.required:
        if name not in present:
            yield found(MISSING_KEY, document.place(node), f"this {shape.name} has no '{name}'; add it")
    if "jobs" in shape.known and "jobs" in present:
        yield from _jobs(document, present["jobs"][1])


def _jobs(document: Document, jobs: yaml.Node) -> Iterator[Finding]:
    for name, (_, node) in entries(jobs).items():
        present = entries(node)
        nested = entries(present["component"][1]) if "component" in present else {}
        default = "pipeline" if {"jobs"} & {*present, *nested} else "command"
        kind = (scalar(present["type"][1]) if "type" in present else None) or default
        shape = kinds.NODES.get(kind.lower())
        if shape is not None:  # what cannot be run is refused elsewhere, by name
            yield from _check(document, node, shape, name)
        if "jobs" in present:
            yield from _jobs(document, present["jobs"][1])


def _names(document: Document, node: yaml.Node, shape: Names, what: str) -> Iterator[Finding]:
    for name, (key, value) in entries(node).items():
        if shape.identifiers and not name.isidentifier():
            better = "".join(letter if letter.isalnum() else "_" for letter in name)
            message = f"'{name}' in '{what}' is no identifier, which Azure ML asks for; call it '{better}'"
            yield found(BAD_NAME, document.place(key), message)
        elif what == "outputs" and name == "default":
            yield found(BAD_NAME, document.place(key), "'default' is an output of Azure ML's own; call yours otherwise")
        yield from _check(document, value, shape.of, name)


def _scalar(document: Document, node: yaml.Node, shape: Scalar, what: str) -> Iterator[Finding]:
    text = scalar(node)
    if text is None:
        yield found(WRONG_VALUE, document.place(node), f"'{what}' must be a plain value, not a list or a mapping")
        return
    if _is_binding(node):
        if shape.exact:
            yield found(WRONG_VALUE, document.place(node), f"'{what}' cannot be bound; write its value")
        return
    if shape.choices and text.lower() not in {choice.lower() for choice in shape.choices}:
        near = nearest(text, shape.choices)
        hint = f"; did you mean '{near}'?" if near else ""
        message = f"'{what}' is '{text}', which is none of {', '.join(shape.choices)}{hint}"
        yield found(WRONG_VALUE, document.place(node), message)
    elif not _fits(node, text, shape.kind):
        yield found(WRONG_VALUE, document.place(node), f"'{what}' must be {_WORDS[shape.kind]}, not '{text}'")


def _fits(node: yaml.Node, text: str, kind: str) -> bool:
    """Whether a plain value is, or can be read as, one of a kind. A number is text only where it is quoted."""
    tag = node.tag.removeprefix(_TAG)
    if kind == "boolean":
        return tag == "bool" or text.strip().lower() in _BOOLEANS
    if kind in ("integer", "number"):
        try:
            return tag != "bool" and (int(text) if kind == "integer" else float(text)) is not None
        except ValueError:
            return False
    return True


def _is_null(node: yaml.Node) -> bool:
    return node.tag == _TAG + "null"


def _is_binding(node: yaml.Node) -> bool:
    return "${{" in (scalar(node) or "")
