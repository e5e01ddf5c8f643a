"""YAML files as trees in which every key and value knows its place; read with limits, and without building objects.

A file is data from outside: it may be large, deep, full of aliases or carry tags that other loaders would execute.
Only the composed tree is looked at, so no tag is ever acted on.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from functools import cached_property
from typing import TYPE_CHECKING, Any

from edgeml.check.finding import ERROR, Finding, Place, Rule, found
from edgeml.pipeline.libyaml import Loader, yaml
from edgeml.pipeline.source import is_too_deep

if TYPE_CHECKING:
    from edgeml.check.placed import Placed

MAX_BYTES = 1 << 20
MAX_DEPTH = 64
MAX_NODES = 100_000

SYNTAX = Rule(
    "yaml-syntax",
    ERROR,
    "The file is YAML",
    "Nothing else can be said of a file that cannot be read.",
    "jobs: {train: {command: echo\n",
    "jobs: {train: {command: echo}}\n",
)
DUPLICATE = Rule(
    "yaml-duplicate-key",
    ERROR,
    "A key stands once",
    "Of equal keys YAML keeps the last without a word, so what was written first has no effect.",
    "compute: a\ncompute: b\n",
    "compute: b\n",
)
HOSTILE = Rule(
    "yaml-limits",
    ERROR,
    f"A file is small ({MAX_BYTES >> 20} MiB), shallow ({MAX_DEPTH} levels) and not made of aliases",
    "Pipelines are written by people; what is beyond these limits is data, or meant to exhaust its reader.",
    "a: &a [x, x]\nb: &b [*a, *a]\nc: &c [*b, *b]  # … and so on, twenty times\n",
    "a: [x, x]\n",
)
TAG = Rule(
    "yaml-tag",
    ERROR,
    "No tags that construct objects",
    "A loader that obeys `!!python/object` runs code of the file's author; Azure ML's format has no tags at all.",
    "name: !!python/name:os.system\n",
    "name: train\n",
)
_MERGER: Any = yaml.constructor.SafeConstructor()
_DEEP = f"more than {MAX_DEPTH} levels lie within each other"
RULES = (SYNTAX, DUPLICATE, HOSTILE, TAG)

_KINDS = ("str", "int", "float", "bool", "null", "seq", "map", "timestamp", "merge")
_PLAIN_TAGS = frozenset(f"tag:yaml.org,2002:{kind}" for kind in _KINDS)


class Document:
    """A file's composed tree (None where it is empty or cannot be read) and its lines."""

    def __init__(self, path: str, root: yaml.Node | None, lines: list[str]) -> None:
        self.path = path
        self.root = root
        self.lines = lines

    def place(self, node: yaml.Node) -> Place:
        return Place(self.path, node.start_mark.line + 1, node.start_mark.column + 1)

    @cached_property
    def mapping(self) -> Placed | None:
        """The document's values as the resolver reads them; None where it holds no mapping."""
        from edgeml.check.placed import mapping_of

        return mapping_of(self)


def read(path: str) -> tuple[Document, list[Finding]]:
    """The document in a file and what is wrong with it as YAML."""
    start = Place(path, 1, 1)
    try:
        if os.path.getsize(path) > MAX_BYTES:
            return Document(path, None, []), [found(HOSTILE, start, f"the file has more than {MAX_BYTES >> 20} MiB")]
        with open(path, "rb") as stream:
            content = stream.read()
    except OSError as error:
        problem = f"the file cannot be read ({error.strerror}); restore it, or remove the link to it"
        return Document(path, None, []), [found(SYNTAX, start, problem)]
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError:
        return Document(path, None, []), [found(SYNTAX, start, "the file is not UTF-8; save it as UTF-8")]
    lines = text.splitlines()
    try:
        if is_too_deep(text, MAX_DEPTH):
            return Document(path, None, lines), [found(HOSTILE, start, _DEEP)]
        root = yaml.compose(text, Loader=Loader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        place = Place(path, mark.line + 1, mark.column + 1) if mark else start
        tab = place.line <= len(lines) and lines[place.line - 1].lstrip(" ").startswith("\t")
        problem = (
            "a tab indents this line; use spaces" if tab else " ".join(filter(None, (error.problem, error.context)))
        )
        return Document(path, None, lines), [found(SYNTAX, place, problem)]
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        return Document(path, None, lines), [found(SYNTAX, start, " ".join(str(error).split()))]
    document = Document(path, root, lines)
    limit = _beyond_limits(document)
    if limit is not None:
        return Document(path, None, lines), [limit]
    findings = list(_problems(document))
    try:
        for node in walk(root):
            if isinstance(node, yaml.MappingNode):
                _MERGER.flatten_mapping(node)  # from here on, what `<<` merges stands where it is merged
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        place = Place(path, mark.line + 1, mark.column + 1) if mark else start
        findings.append(found(SYNTAX, place, str(error.problem)))
    return document, findings


def lines_of(path: str) -> list[str]:
    """The lines of any text file; none where it is large, or cannot be read."""
    try:
        if os.path.getsize(path) > MAX_BYTES:
            return []
        with open(path, encoding="utf-8", errors="replace") as stream:
            return stream.read().splitlines()
    except OSError:
        return []


def _beyond_limits(document: Document) -> Finding | None:
    """The finding for a tree that is too deep or, with its aliases followed, too large."""
    count = 0
    waiting = [(document.root, 1)] if document.root is not None else []
    while waiting:
        node, depth = waiting.pop()
        count += 1
        if depth > MAX_DEPTH:
            return found(HOSTILE, document.place(node), _DEEP)
        if count > MAX_NODES:
            return found(HOSTILE, document.place(node), f"with its aliases the file has more than {MAX_NODES} values")
        waiting += [(child, depth + 1) for child in children(node)]
    return None


def _problems(document: Document) -> Iterator[Finding]:
    for node in walk(document.root):
        if node.tag not in _PLAIN_TAGS:
            yield found(TAG, document.place(node), f"the tag {node.tag} is nothing that this format knows; remove it")
        if not isinstance(node, yaml.MappingNode):
            continue
        seen: dict[str, int] = {}
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode):
                yield found(SYNTAX, document.place(key), "a key must be a plain value")
            elif key.value in seen:
                first = seen[key.value]
                yield found(DUPLICATE, document.place(key), f"'{key.value}' stands on line {first} already; remove one")
            else:
                seen[key.value] = key.start_mark.line + 1


def children(node: yaml.Node | None) -> list[yaml.Node]:
    if isinstance(node, yaml.MappingNode):
        return [child for pair in node.value for child in pair]
    return list(node.value) if isinstance(node, yaml.SequenceNode) else []


def walk(node: yaml.Node | None) -> Iterator[yaml.Node]:
    """Every node once, in the order of the file, however often aliases name it."""
    seen: set[int] = set()
    waiting = [node] if node is not None else []
    while waiting:
        here = waiting.pop()
        if id(here) in seen:
            continue
        seen.add(id(here))
        yield here
        waiting += reversed(children(here))


def entries(node: yaml.Node | None) -> dict[str, tuple[yaml.Node, yaml.Node]]:
    """The keys of a mapping with their nodes; empty for anything else."""
    if not isinstance(node, yaml.MappingNode):
        return {}
    return {key.value: (key, value) for key, value in node.value if isinstance(key, yaml.ScalarNode)}


def scalar(node: yaml.Node | None) -> str | None:
    """The text of a scalar that is not null, None for anything else."""
    if isinstance(node, yaml.ScalarNode) and node.tag != "tag:yaml.org,2002:null":
        return str(node.value)
    return None
