"""Expressions as the interpreter of `follow` sees them: what it can work out, and unknown for all else."""

from __future__ import annotations

import ast
from typing import Any

from edgeml.check.script import Files
from edgeml.check.values import (
    ARGV,
    UNKNOWN,
    Class,
    External,
    Function,
    Items,
    Literal,
    Method,
    Object,
    Scope,
    Table,
    Tracked,
    Unknown,
    is_text,
)

STEPS, LOOPS, TEXT = 20_000, 200, 1000


class TooMuchError(Exception):
    """The program is too long to be followed."""


class Expressions:
    """The half of the interpreter that reads expressions; `follow` has statements and calls."""

    def __init__(self, files: Files) -> None:
        self.files = files
        self.steps = 0

    def call(self, node: ast.Call, scope: Scope) -> Any:
        raise NotImplementedError

    def assign(self, target: ast.expr, value: Any, scope: Scope, *, anew: bool = False) -> None:
        raise NotImplementedError

    def load(self, path: str, name: str) -> Scope | None:
        raise NotImplementedError

    def lose(self, value: Any, seen: int = 0) -> None:
        raise NotImplementedError

    def part(self, owner: Tracked, name: str) -> Any:
        raise NotImplementedError

    def tick(self) -> None:
        self.steps += 1
        if self.steps > STEPS:
            raise TooMuchError

    def value(self, node: ast.expr, scope: Scope) -> Any:
        self.tick()
        match node:
            case ast.Constant():
                return Literal(node.value)
            case ast.Name():
                return scope.find(node.id)
            case ast.Attribute():
                return self.attribute(self.value(node.value, scope), node.attr)
            case ast.Call():
                return self.call(node, scope)
            case ast.Tuple() | ast.List() | ast.Set():
                return self.sequence(node.elts, scope)
            case ast.Dict():
                return self.table(node, scope)
            case ast.JoinedStr():
                return self.joined(node, scope)
            case ast.BinOp():
                return self.binary(node, scope)
            case ast.BoolOp():
                return self.boolean(node, scope)
            case ast.UnaryOp():
                return self.unary(node, scope)
            case ast.Compare() if len(node.ops) == 1:
                return self.compare(node, scope)
            case ast.IfExp():
                truth = self.truth(self.value(node.test, scope))
                if truth is not None:
                    return self.value(node.body if truth else node.orelse, scope)
                for made in (self.value(node.body, scope), self.value(node.orelse, scope)):
                    self.lose(made)
                return UNKNOWN
            case ast.Subscript():
                return self.subscript(node, scope)
            case ast.NamedExpr():
                value = self.value(node.value, scope)
                self.assign(node.target, value, scope)
                return value
            case ast.Await():
                return self.value(node.value, scope)
            case ast.ListComp() | ast.SetComp() | ast.GeneratorExp():
                return self.comprehension(node, scope)
            case ast.Lambda():
                for name in ast.walk(node.body):
                    if isinstance(name, ast.Name):
                        self.lose(scope.find(name.id))
                return UNKNOWN
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.expr):
                self.lose(self.value(child, scope))
        return UNKNOWN

    def sequence(self, elements: list[ast.expr], scope: Scope) -> Any:
        made: list[Any] = []
        for element in elements:
            if isinstance(element, ast.Starred):
                inner = self.items(self.value(element.value, scope))
                if inner is None:
                    return UNKNOWN
                made += inner
            else:
                made.append(self.value(element, scope))
        return Items(made)

    def table(self, node: ast.Dict, scope: Scope) -> Any:
        pairs: list[tuple[Any, Any]] = []
        known = True
        for key, value in zip(node.keys, node.values, strict=True):
            made = self.value(value, scope)
            if key is not None:
                pairs.append((self.value(key, scope), made))
            elif isinstance(made, Table):
                pairs += made.pairs
            else:
                known = False
        return Table(pairs) if known else UNKNOWN

    def joined(self, node: ast.JoinedStr, scope: Scope) -> Any:
        text = ""
        for part in node.values:
            value = self.value(part.value if isinstance(part, ast.FormattedValue) else part, scope)
            plain = not isinstance(part, ast.FormattedValue) or (part.conversion == -1 and part.format_spec is None)
            if not plain or not isinstance(value, Literal):
                return UNKNOWN
            text += str(value.value)[:TEXT]
        return Literal(text)

    def binary(self, node: ast.BinOp, scope: Scope) -> Any:
        left, right = self.value(node.left, scope), self.value(node.right, scope)
        if isinstance(node.op, ast.Add):
            if isinstance(left, Items) and isinstance(right, Items):
                return Items((left.items + right.items)[: 2 * LOOPS])
            if is_text(left) and is_text(right):
                return Literal((left.value + right.value)[: 4 * TEXT])
        if isinstance(node.op, ast.BitOr) and isinstance(left, Table) and isinstance(right, Table):
            return Table(left.pairs + right.pairs)
        return UNKNOWN

    def boolean(self, node: ast.BoolOp, scope: Scope) -> Any:
        wanted = isinstance(node.op, ast.Or)
        made: Any = UNKNOWN
        for number, part in enumerate(node.values):
            made = self.value(part, scope)
            truth = self.truth(made)
            if truth is None and number < len(node.values) - 1:
                for rest in node.values[number + 1 :]:
                    self.lose(self.value(rest, scope))
                return UNKNOWN
            if truth is wanted:
                return made
        return made

    def unary(self, node: ast.UnaryOp, scope: Scope) -> Any:
        value = self.value(node.operand, scope)
        if isinstance(node.op, ast.Not):
            truth = self.truth(value)
            return UNKNOWN if truth is None else Literal(not truth)
        if isinstance(node.op, ast.USub) and isinstance(value, Literal) and isinstance(value.value, (int, float)):
            return Literal(-value.value)
        return UNKNOWN

    def compare(self, node: ast.Compare, scope: Scope) -> Any:
        left, right = self.value(node.left, scope), self.value(node.comparators[0], scope)
        operator = node.ops[0]
        if isinstance(right, Literal) and right.value is None and not isinstance(left, (Unknown, External)):
            is_none = isinstance(left, Literal) and left.value is None
            if isinstance(operator, (ast.Is, ast.Eq)):
                return Literal(is_none)
            if isinstance(operator, (ast.IsNot, ast.NotEq)):
                return Literal(not is_none)
        if isinstance(left, Literal) and isinstance(right, Literal):
            if isinstance(operator, ast.Eq):
                return Literal(left.value == right.value)
            if isinstance(operator, ast.NotEq):
                return Literal(left.value != right.value)
        return UNKNOWN

    def truth(self, value: Any) -> bool | None:
        if isinstance(value, Literal):
            return bool(value.value)
        if isinstance(value, (Items, Table)):
            return bool(value.items if isinstance(value, Items) else value.pairs)
        return True if isinstance(value, (Tracked, Object, Function, Class)) else None

    def subscript(self, node: ast.Subscript, scope: Scope) -> Any:
        owner = self.value(node.value, scope)
        if isinstance(owner, External) and owner.name == "sys.argv":
            part = node.slice
            start = part.lower if isinstance(part, ast.Slice) and part.upper is None and part.step is None else None
            return ARGV if isinstance(start, ast.Constant) and start.value == 1 else UNKNOWN
        index = UNKNOWN if isinstance(node.slice, ast.Slice) else self.value(node.slice, scope)
        if isinstance(index, Literal):
            if isinstance(owner, Items) and isinstance(index.value, int) and -1 <= index.value < len(owner.items):
                return owner.items[index.value] if owner.items else UNKNOWN
            if isinstance(owner, Table):
                for key, value in owner.pairs:
                    if isinstance(key, Literal) and key.value == index.value:
                        return value
        self.lose(owner)
        return UNKNOWN

    def comprehension(self, node: ast.ListComp | ast.SetComp | ast.GeneratorExp, scope: Scope) -> Any:
        inner = Scope(scope.file, above=scope, package=scope.package)
        first = node.generators[0]
        items = self.items(self.value(first.iter, scope))
        if items is None or len(node.generators) > 1 or first.ifs:
            for generator in node.generators:
                self.lose(self.value(generator.iter, inner))
                self.assign(generator.target, UNKNOWN, inner, anew=True)
            self.lose(self.value(node.elt, inner))
            return UNKNOWN
        made = []
        for item in items[:LOOPS]:
            self.assign(first.target, item, inner, anew=True)
            made.append(self.value(node.elt, inner))
        return Items(made)

    def items(self, value: Any) -> list[Any] | None:
        """The items of what a loop runs over, None where they are not known."""
        if isinstance(value, Items):
            return value.items
        if isinstance(value, Table):
            return [key for key, _ in value.pairs]
        if isinstance(value, Literal) and isinstance(value.value, str):
            return [Literal(letter) for letter in value.value[:LOOPS]]
        return None

    def attribute(self, owner: Any, name: str) -> Any:
        if isinstance(owner, External):
            return External(f"{owner.name}.{name}")
        if isinstance(owner, Scope):
            if name in owner.names:
                return owner.names[name]
            base = owner.package if owner.file.endswith("__init__.py") or not owner.file else ""
            path = self.files.module(name, (base,)) if base or not owner.file else ""
            inner = self.load(path, name) if path else None
            return UNKNOWN if inner is None else inner
        if isinstance(owner, (Object, Class)):
            return self.member(owner, name)
        return self.part(owner, name) if isinstance(owner, Tracked) else Method(owner, name)

    def member(self, owner: Object | Class, name: str) -> Any:
        if isinstance(owner, Object) and name in owner.names:
            return owner.names[name]
        waiting: list[Any] = [owner.of if isinstance(owner, Object) else owner]
        while waiting:
            here = waiting.pop(0)
            if isinstance(here, Class):
                found = here.inside.names.get(name)
                if isinstance(found, Function):
                    decorators = {it.id for it in found.node.decorator_list if isinstance(it, ast.Name)}
                    if "staticmethod" in decorators:
                        return found
                    if "classmethod" in decorators:
                        return Function(found.node, found.scope, owner.of if isinstance(owner, Object) else owner)
                    return Function(found.node, found.scope, owner) if isinstance(owner, Object) else found
                if found is not None:
                    return found
                waiting += here.bases
            elif isinstance(owner, Object) and not (isinstance(here, External) and here.name == "object"):
                return Method(owner, name)  # of a foreign class
        return UNKNOWN
