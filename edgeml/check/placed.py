"""A document's values as the resolver reads them, in mappings that know the composed nodes of their keys."""

from __future__ import annotations

import os
import re
from typing import Any, Self

from edgeml.check.document import Document
from edgeml.check.finding import Place
from edgeml.pipeline.libyaml import yaml
from edgeml.pipeline.source import Builder, Mapping, PipelineError


class Placed(Mapping):
    """A mapping of a document; `nodes` has the nodes of the key and of the value by key."""

    __slots__ = ("document", "node", "nodes")

    def __init__(self, file: str, line: int) -> None:
        super().__init__(file, line)
        self.document: Document | None = None
        self.node: yaml.MappingNode | None = None
        self.nodes: dict[Any, tuple[yaml.Node, yaml.Node]] = {}

    def copied(self) -> Self:
        made = super().copied()
        made.document, made.node, made.nodes = self.document, self.node, self.nodes
        return made


class _Builder(Builder):
    def __init__(self, document: Document) -> None:
        super().__init__(yaml.constructor.SafeConstructor(), os.path.abspath(document.path))
        self.document = document

    def empty(self, node: yaml.MappingNode) -> Placed:
        made = Placed(self.file, node.start_mark.line + 1)
        made.document, made.node = self.document, node
        for pair in node.value:
            if isinstance(pair[0], yaml.ScalarNode):
                made.nodes[pair[0].value] = pair
        return made


def mapping_of(document: Document) -> Placed | None:
    """The document's outermost mapping; None where it is none or holds values that YAML cannot make."""
    if not isinstance(document.root, yaml.MappingNode):
        return None
    try:
        made = _Builder(document).build(document.root)
    except (yaml.YAMLError, PipelineError, ValueError, TypeError):
        return None
    return made if isinstance(made, Placed) else None


_AT_KEY = frozenset({"undeclared-input", "unbound-output", "unknown-output", "search-space", "cycle", "unused-input"})


def place_of(error: PipelineError) -> Place:
    """Where exactly an error lies: its part of the value, the value, or the key where the key itself is wrong."""
    path, mapping = os.path.relpath(error.file), error.mapping
    if not isinstance(mapping, Placed) or mapping.document is None or mapping.node is None:
        return Place(path, error.line or 1, 1)
    document = mapping.document
    if error.key not in mapping.nodes:
        made_up = error.line != mapping.node.start_mark.line + 1 and 0 < error.line <= len(document.lines)
        if not made_up:
            return document.place(mapping.node)
        line = document.lines[error.line - 1]
        return Place(path, error.line, len(line) - len(line.lstrip()) + 1)
    key, value = mapping.nodes[error.key]
    if error.part:
        return next((place for place, _ in occurrences(document, value, _pattern(error.part))), document.place(value))
    here = isinstance(value, yaml.ScalarNode) and value.start_mark.line == key.start_mark.line
    return document.place(value if here and error.rule not in _AT_KEY else key)


def occurrences(document: Document, node: yaml.Node, pattern: re.Pattern[str]) -> list[tuple[Place, re.Match[str]]]:
    """Where a pattern matches within the lines that a value stands on."""
    found: list[tuple[Place, re.Match[str]]] = []
    first, last = node.start_mark, node.end_mark
    for number in range(first.line, min(last.line + 1, len(document.lines))):
        line = document.lines[number]
        start = first.column if number == first.line else 0
        end = last.column if number == last.line else len(line)
        found += [
            (Place(document.path, number + 1, match.start() + 1), match) for match in pattern.finditer(line, start, end)
        ]
    return found


def _pattern(part: str) -> re.Pattern[str]:
    """A part of a value as it may be written: in a binding, spaces are free."""
    if not part.startswith("${{"):
        return re.compile(re.escape(part))
    names = r"\s*\.\s*".join(map(re.escape, part[3:-2].split(".")))
    return re.compile(r"\$\{\{\s*" + names + r"\s*\}\}")
