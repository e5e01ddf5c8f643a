"""What the interpreter of `follow` knows of values: literals, functions, objects and names of foreign code."""

from __future__ import annotations

import ast
from typing import Any


class Unknown:
    """Anything else."""


UNKNOWN = Unknown()
ARGV = Unknown()  # the command line, less the script's own name


class Tracked:
    """A value that is followed wherever it goes."""


class Literal:
    def __init__(self, value: Any) -> None:
        self.value = value


class Items:
    """A list, tuple or set."""

    def __init__(self, items: list[Any]) -> None:
        self.items = items


class Table:
    """A dictionary."""

    def __init__(self, pairs: list[tuple[Any, Any]]) -> None:
        self.pairs = pairs


class External:
    """A name of foreign code, in full."""

    def __init__(self, name: str) -> None:
        self.name = name


class Scope:
    """The names of a module, function or class; `file` is the module's relative path."""

    def __init__(self, file: str, above: Scope | None = None, package: str = "") -> None:
        self.file = file
        self.names: dict[str, Any] = {}
        self.above = above
        self.package = package

    def find(self, name: str) -> Any:
        scope: Scope | None = self
        while scope is not None:
            if name in scope.names:
                return scope.names[name]
            scope = scope.above
        return External(name)


class Function:
    """A function, with the object or class that it is a method of."""

    def __init__(self, node: ast.FunctionDef | ast.AsyncFunctionDef, scope: Scope, owner: Any = None) -> None:
        self.node = node
        self.scope = scope
        self.owner = owner


class Class:
    def __init__(self, bases: list[Any], inside: Scope) -> None:
        self.bases = bases
        self.inside = inside


class Object:
    def __init__(self, of: Class) -> None:
        self.of = of
        self.names: dict[str, Any] = {}


class Method:
    """A method of a value that has no source here."""

    def __init__(self, of: Any, name: str) -> None:
        self.of = of
        self.name = name


class Frame:
    """A call being followed: what it may return, and whether it has."""

    def __init__(self) -> None:
        self.returned: list[Any] = []
        self.ended = False
        self.early = 0


def is_text(value: Any) -> bool:
    return isinstance(value, Literal) and isinstance(value.value, str)


def text_of(value: Any) -> str:
    """The text of a literal, empty for anything else."""
    return value.value if isinstance(value, Literal) and isinstance(value.value, str) else ""


def name_of(value: Any) -> str:
    """The full name of what is foreign, empty for anything else."""
    return value.name if isinstance(value, External) else ""


def holds_tracked(value: Any) -> bool:
    """Whether a value is tracked, or holds one at hand."""
    if isinstance(value, (Items, Object)):
        inner = value.items if isinstance(value, Items) else list(value.names.values())
        return any(isinstance(item, (Tracked, Method)) for item in inner)
    return isinstance(value, Tracked) or (isinstance(value, Method) and isinstance(value.of, Tracked))
