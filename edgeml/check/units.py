"""What has a command in a document: components, jobs, nodes, trials and the tasks of parallel nodes, with its ports."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import NamedTuple

from edgeml.check.document import Document, entries, scalar, walk
from edgeml.check.finding import Place
from edgeml.pipeline import load
from edgeml.pipeline.expressions import references
from edgeml.pipeline.libyaml import yaml

Keys = dict[str, tuple[yaml.Node, yaml.Node]]
_TAG = "tag:yaml.org,2002:"


class Port(NamedTuple):
    """An input or output: its type (empty where only the pipeline knows it) and the texts known to arrive.

    `may_lack`: it is optional and has no default, so it may have no value.
    """

    key: yaml.Node
    type: str = ""
    may_lack: bool = False
    values: tuple[str, ...] = ()


class Unit(NamedTuple):
    """`keys` are those beside the command; `varied` names what a sweep gives, `whole` all that may use a port.

    `function` is what Azure ML calls in an entry script that it imports.
    """

    document: Document
    name: str
    keys: Keys
    command: yaml.Node
    text: str
    inputs: dict[str, Port]
    outputs: dict[str, Port]
    whole: yaml.Node
    varied: frozenset[str] = frozenset()
    function: str = ""

    def place(self, start: int, end: int) -> Place:
        """Where a part of the command stands in the file, as near as that can be told."""
        return locate(self.document, self.command, start, end)

    @property
    def code(self) -> str:
        """The absolute path of the code folder, empty where there is none on this machine."""
        written = scalar(self.keys["code"][1]) if "code" in self.keys else None
        if not written or load.is_remote(written) or "${{" in written:
            return ""
        return load.local_path(written, self.document.path)

    @property
    def remote(self) -> bool:
        written = scalar(self.keys["code"][1]) if "code" in self.keys else None
        return bool(written) and not self.code

    @property
    def includes(self) -> tuple[str, ...] | None:
        """The absolute paths of what is included besides; None where one is not on this machine."""
        if "additional_includes" in self.keys:
            node = self.keys["additional_includes"][1]
            items = node.value if isinstance(node, yaml.SequenceNode) else []
            listed: list[str | None] = [scalar(item) for item in items]
        else:
            listed = list(load.listed_beside(self.document.path))
        if any(item is None or load.is_remote(item) for item in listed):
            return None
        return tuple(load.local_path(item, self.document.path) for item in listed if item is not None)


def units(document: Document) -> Iterator[Unit]:
    """Every unit of a document, in the order of the file."""
    present = entries(document.root)
    schema = (scalar(present["$schema"][1]) if "$schema" in present else None) or ""
    declared = "Component.schema.json" in schema or ("name" in present and "Job.schema.json" not in schema)
    name = (scalar(present["name"][1]) if "name" in present else None) or os.path.basename(document.path)
    yield from _units(document, document.root, name, declared=declared, seen=0)


def _units(document: Document, node: yaml.Node | None, name: str, *, declared: bool, seen: int) -> Iterator[Unit]:
    present = entries(node)
    if node is None or seen > 16:
        return
    type_ = (scalar(present["type"][1]) if "type" in present else None) or ""
    if "jobs" in present:
        for job, (_, inner) in entries(present["jobs"][1]).items():
            yield from _units(document, inner, job, declared=False, seen=seen + 1)
    elif type_.lower() == "sweep" and "trial" in present:
        trial = entries(present["trial"][1])
        if "inputs" in trial:
            yield from _units(document, present["trial"][1], name, declared=True, seen=seen + 1)
        elif "command" in trial:
            varied = frozenset(entries(present["search_space"][1])) if "search_space" in present else frozenset()
            outputs = trial if "outputs" in trial else present
            yield from _command(
                document, node, name, trial, _ports(present, "inputs"), _ports(outputs, "outputs"), varied
            )
    elif isinstance(present["component"][1] if "component" in present else None, yaml.MappingNode):
        yield from _units(document, present["component"][1], name, declared=True, seen=seen + 1)
    elif "task" in present:
        yield from _task(document, node, name, present, declared=declared)
    elif "command" in present:
        inputs = _ports(present, "inputs", declared=declared)
        yield from _command(document, node, name, present, inputs, _ports(present, "outputs", declared=True))


def _command(
    document: Document,
    whole: yaml.Node,
    name: str,
    keys: Keys,
    inputs: dict[str, Port],
    outputs: dict[str, Port],
    varied: frozenset[str] = frozenset(),
) -> Iterator[Unit]:
    command = keys["command"][1]
    text = scalar(command)
    if text:
        yield Unit(document, name, keys, command, text, inputs, outputs, whole, varied)


def _task(document: Document, node: yaml.Node, name: str, present: Keys, *, declared: bool) -> Iterator[Unit]:
    """A parallel component or node: its entry script, started with the program arguments."""
    task = entries(present["task"][1])
    script = scalar(task["entry_script"][1]) if "entry_script" in task else None
    if not script:
        return
    given = task["program_arguments"][1] if "program_arguments" in task else task["entry_script"][1]
    text = (scalar(given) or "") if "program_arguments" in task else ""
    inputs = _ports(present, "inputs", declared=declared)
    outputs = _ports(present, "outputs", declared=True)
    yield Unit(document, name, task, given, text, inputs, outputs, node, function="init")


def _ports(keys: Keys, section: str, *, declared: bool = False) -> dict[str, Port]:
    if section not in keys:
        return {}
    found = entries(keys[section][1])
    return {name: _port(key, value, declared=declared) for name, (key, value) in found.items()}


def _port(key: yaml.Node, node: yaml.Node, *, declared: bool) -> Port:
    """A port as declared by a component (`declared`), or as the value that a node gives."""
    if isinstance(node, yaml.ScalarNode):
        written = scalar(node) or ""
        if declared:
            return Port(key, "" if "${{" in written else written)
        return Port(key) if "${{" in written or not written else Port(key, _type_of(node), False, (_arrives(node),))
    spec = entries(node)
    type_ = (scalar(spec["type"][1]) if "type" in spec else None) or ""
    if "path" in spec and not type_:
        type_ = "uri_folder"
    optional = "optional" in spec and (scalar(spec["optional"][1]) or "").lower() == "true" and "default" not in spec
    texts = []
    if "enum" in spec and isinstance(spec["enum"][1], yaml.SequenceNode):
        texts = [item for item in spec["enum"][1].value if scalar(item) is not None]
    else:
        texts = [spec[word][1] for word in ("default", "value") if word in spec and scalar(spec[word][1]) is not None]
    if any("${{" in (scalar(item) or "") for item in texts):
        return Port(key, type_, optional)
    return Port(key, type_, optional, tuple(_arrives(item, type_) for item in texts))


def _type_of(node: yaml.Node) -> str:
    return {"int": "integer", "float": "number", "bool": "boolean"}.get(node.tag.removeprefix(_TAG), "string")


def _arrives(node: yaml.Node, type_: str = "") -> str:
    """A value as a command receives it: the text of the typed value, as Python writes it."""
    text = scalar(node) or ""
    kind = node.tag.removeprefix(_TAG)
    try:
        if type_ == "number" or (not type_ and kind == "float"):
            return str(float(text))
        if type_ == "integer" or (not type_ and kind == "int"):
            return str(int(text))
    except ValueError:
        return text
    if type_ == "boolean" or kind == "bool":
        return str(text.lower() in ("true", "yes", "on")) if type_ != "string" else text
    return text


def used(unit: Unit) -> set[tuple[str, str]]:
    """All `inputs.x` and `outputs.x` that any value of the unit is made of."""
    found = set()
    for node in walk(unit.whole):
        if isinstance(node, yaml.ScalarNode) and "${{" in node.value:
            found |= {(it.path[0], ".".join(it.path[1:])) for it in references(node.value)}
    return found


def locate(document: Document, node: yaml.Node, start: int, end: int) -> Place:
    """The place of a part of a scalar: its first word is looked for as often as it stands before in the value."""
    text = str(node.value)
    words = text[start:end].split()
    if not words:
        return document.place(node)
    left = text[: text.find(words[0], start)].count(words[0])
    first, last = node.start_mark.line, min(node.end_mark.line, len(document.lines) - 1)
    for number in range(first, last + 1):
        line = document.lines[number]
        column = node.start_mark.column if number == first else 0
        stop = node.end_mark.column if number == node.end_mark.line else len(line)
        while (column := line.find(words[0], column, stop)) >= 0:
            if left == 0:
                return Place(document.path, number + 1, column + 1)
            left -= 1
            column += len(words[0])
    return document.place(node)
