"""YAML files with the line of every key, so that each error can name its place."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any, ParamSpec, Self, TypeVar

from edgeml.errors import EdgemlError
from edgeml.pipeline.libyaml import Loader, yaml

MAX_DEPTH = 200
_SHORT = 4096  # characters
_TIMESTAMP = "tag:yaml.org,2002:timestamp"

P = ParamSpec("P")
T = TypeVar("T")


class Mapping(dict[Any, Any]):
    """A YAML mapping that knows its file, its own line and the line of each key (both from 1)."""

    __slots__ = ("file", "key_lines", "line")

    def __init__(self, file: str, line: int) -> None:
        super().__init__()
        self.file = file
        self.line = line
        self.key_lines: dict[Any, int] = {}

    def line_of(self, key: Any) -> int:
        """The line of a key, or of the mapping where the key is absent."""
        return self.key_lines.get(key, self.line)

    def copied(self) -> Self:
        """A mapping of the same values at the same places, to be changed."""
        made = type(self)(self.file, self.line)
        made.update(self)
        made.key_lines = dict(self.key_lines)
        return made


class PipelineError(EdgemlError):
    """Something in a YAML file that must be mended before anything can run.

    `rule` is the id of the rule of `edgeml check` that it breaks, where it has one of its own; `mapping` and `key`
    say where exactly, and `part` which text of the value there.
    """

    def __init__(
        self,
        message: str,
        file: str,
        line: int = 0,
        *,
        rule: str = "",
        mapping: Mapping | None = None,
        key: Any = None,
        part: object = "",
    ) -> None:
        place = os.path.relpath(file) if file else ""
        super().__init__(f"{place}:{line}: {message}" if line else f"{place}: {message}")
        self.message = message
        self.file = file
        self.line = line
        self.rule = rule
        self.mapping = mapping
        self.key = key
        self.part = str(part)


def at(mapping: Mapping, key: Any, message: str, rule: str = "", part: object = "") -> PipelineError:
    """An error at one key of a mapping."""
    line = mapping.line_of(key)
    return PipelineError(message, mapping.file, line, rule=rule, mapping=mapping, key=key, part=part)


Refuse = Callable[[PipelineError], None]
"""What is done about an error: raise it, or note it and go on with a stand-in."""


def halt(error: PipelineError) -> None:
    raise error


def tried(refuse: Refuse, instead: T, read: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """What `read` gives, or `instead` where its error is refused without being raised."""
    try:
        return read(*args, **kwargs)
    except PipelineError as error:
        refuse(error)
        return instead


def read(path: str, *, unique: bool = False) -> Mapping:
    """The mapping in a YAML file, read as Azure ML's SDK reads it (YAML 1.1, the last of equal keys wins).

    Where keys must be `unique`, equal ones are refused. Raises PipelineError for whatever cannot be read.
    """
    try:
        with open(path, encoding="utf-8-sig") as stream:
            text = stream.read()
    except FileNotFoundError:
        raise PipelineError("no such file; check the path", path) from None
    except IsADirectoryError:
        raise PipelineError("a folder, where a YAML file is expected; name the file in it", path) from None
    except UnicodeDecodeError:
        raise PipelineError("not UTF-8 text; save it as UTF-8", path) from None
    except OSError as error:
        raise PipelineError(f"cannot be read ({error.strerror}); check its permissions", path) from None
    try:
        if is_too_deep(text):
            raise PipelineError(f"more than {MAX_DEPTH} levels lie within each other", path)
        loader = Loader(text)
        try:
            node = loader.get_single_node()
            content = Builder(loader, path, unique=unique).build(node) if node is not None else None
        finally:
            loader.dispose()
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        problem = " ".join(filter(None, (error.problem, error.context)))
        raise PipelineError(f"not valid YAML: {problem}", path, mark.line + 1 if mark else 0) from None
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        raise PipelineError(f"not valid YAML: {' '.join(str(error).split())}", path) from None
    if not isinstance(content, Mapping):
        raise PipelineError("not a YAML mapping of keys to values; is it a pipeline or component file?", path, 1)
    return content


def is_too_deep(text: str, limit: int = MAX_DEPTH) -> bool:
    """Whether a YAML text nests more than so many levels. libyaml's composer recurses, and ends the process then.

    Short texts are not looked at: they cannot nest deep enough for that. Raises YAMLError where the text is none.
    """
    if len(text) < _SHORT:
        return False
    depth = 0
    for event in yaml.parse(text, Loader=Loader):
        if isinstance(event, (yaml.MappingStartEvent, yaml.SequenceStartEvent)):
            depth += 1
            if depth > limit:
                return True
        elif isinstance(event, (yaml.MappingEndEvent, yaml.SequenceEndEvent)):
            depth -= 1
    return False


class Builder:
    """Turns composed YAML nodes into values, keeping lines that PyYAML's own constructor drops."""

    def __init__(self, loader: Any, file: str, *, unique: bool = False) -> None:
        self.loader = loader
        self.file = file
        self.unique = unique
        self.built: dict[int, Any] = {}  # by node: an alias is the same object, and a bomb of aliases stays small

    def build(self, node: yaml.Node) -> Any:
        if isinstance(node, yaml.ScalarNode):
            # Dates stay text: no input type of Azure ML is a date, and `str(date)` may differ from what was written.
            return node.value if node.tag == _TIMESTAMP else self.loader.construct_object(node)
        key = id(node)
        if key not in self.built:
            self.built[key] = self.mapping(node) if isinstance(node, yaml.MappingNode) else self.sequence(node)
        return self.built[key]

    def mapping(self, node: yaml.MappingNode) -> Mapping:
        self.loader.flatten_mapping(node)
        result = self.built[id(node)] = self.empty(node)
        for key_node, value_node in node.value:
            if not isinstance(key_node, yaml.ScalarNode):
                raise PipelineError("a mapping key must be a plain value", self.file, key_node.start_mark.line + 1)
            key = key_node.value  # names are text, also where YAML would make a number or nothing of them
            if self.unique and key in result:
                first = result.key_lines[key]
                message = f"'{key}' stands on line {first} already; remove one"
                raise PipelineError(message, self.file, key_node.start_mark.line + 1)
            result[key] = self.build(value_node)
            result.key_lines[key] = key_node.start_mark.line + 1
        return result

    def empty(self, node: yaml.MappingNode) -> Mapping:
        return Mapping(self.file, node.start_mark.line + 1)

    def sequence(self, node: yaml.Node) -> list[Any]:
        result: list[Any] = []
        self.built[id(node)] = result
        result.extend(self.build(item) for item in node.value)
        return result
