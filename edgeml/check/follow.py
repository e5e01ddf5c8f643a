"""Following a program by its syntax tree: an interpreter that knows literals, functions, objects and tracked values.

Everything else is unknown to it. Modules of the code folder are entered, functions called with what they are given,
loops over literals unrolled. Branches whose condition is unknown are both followed (`unsure` is then above zero), and
a tracked value that gets out of sight is reported to `lost`. Nothing is imported or executed.
"""

from __future__ import annotations

import ast
import posixpath
import re
from collections.abc import Iterator
from typing import Any

from edgeml.check.evaluate import LOOPS, TEXT, Expressions
from edgeml.check.script import Files
from edgeml.check.values import (
    UNKNOWN,
    Class,
    External,
    Frame,
    Function,
    Items,
    Literal,
    Method,
    Object,
    Scope,
    Table,
    Tracked,
    holds_tracked,
)

_DEPTH = 24
_WORD = re.compile(r"[A-Za-z_]\w*")
_LOOKS_ONLY = frozenset(["isinstance", "print", "vars", "len", "id", "type", "repr", "str", "argcomplete.autocomplete"])
_SAME = frozenset(["list", "tuple", "sorted", "set", "frozenset", "iter", "reversed"])
_TEXT_METHODS = frozenset(
    ["replace", "lower", "upper", "strip", "lstrip", "rstrip", "title", "removeprefix", "removesuffix"]
)


class Program(Expressions):
    """One program being followed. `seeds` are the words without which a function does not matter."""

    seeds: frozenset[str] = frozenset()

    def __init__(self, files: Files, roots: tuple[str, ...]) -> None:
        super().__init__(files)
        self.roots = roots
        self.modules: dict[str, Scope] = {}
        self.opaque = False  # something cannot be followed that may change any parser, or the command line
        self.unsure = 0
        self.depth = 0
        self.uses: dict[str, set[str]] = {}
        self.relevant: set[str] | None = None

    # Modules

    def load(self, path: str, name: str) -> Scope | None:
        if path in self.modules:
            return self.modules[path]
        module = self.files.parse(self.files.paths[path])
        if module.tree is None:
            return None
        scope = self.modules[path] = Scope(path, package=posixpath.dirname(path))
        scope.names["__name__"] = Literal(name)
        lines = module.text.splitlines()
        for node in _definitions(module.tree):
            used = set(_WORD.findall("\n".join(lines[node.lineno - 1 : node.end_lineno])))
            self.uses[node.name] = self.uses.get(node.name, set()) | used - {node.name}
        self.relevant = None
        unsure, self.unsure = self.unsure, 0
        self.block(module.tree.body, scope, Frame())
        self.unsure = unsure
        return scope

    def matters(self, name: str) -> bool:
        """Whether a function or class of this name can have anything to do with a command line."""
        if self.relevant is None:
            users: dict[str, list[str]] = {}
            for user, used in self.uses.items():
                for one in used:
                    users.setdefault(one, []).append(user)
            self.relevant, waiting = set(self.seeds), list(self.seeds)
            while waiting:
                more = [user for user in users.get(waiting.pop(), ()) if user not in self.relevant]
                self.relevant.update(more)
                waiting += more
        return name in self.relevant

    def module(self, dotted: str, level: int, scope: Scope) -> Any:
        roots = self.roots
        if level:
            base = scope.package
            for _ in range(level - 1):
                base = posixpath.dirname(base)
            roots = (base,)
        path = self.files.module(dotted, roots) if dotted else posixpath.join(roots[0], "__init__.py").lstrip("/")
        if path in self.files.paths:
            return self.load(path, dotted)
        inside = any(
            name.startswith(posixpath.normpath(posixpath.join(root, dotted.replace(".", "/"))) + "/")
            for root in roots
            for name in self.files.paths
        )
        if inside or (level and not dotted):  # a package without __init__.py
            return Scope("", package=posixpath.normpath(posixpath.join(roots[0], dotted.replace(".", "/"))))
        return External(dotted)

    def import_(self, node: ast.Import | ast.ImportFrom, scope: Scope) -> None:
        if isinstance(node, ast.Import):
            for alias in node.names:
                top = alias.name.partition(".")[0]
                value = self.module(alias.name, 0, scope)
                if not alias.asname and alias.name != top:
                    value = self.module(top, 0, scope)
                scope.names[alias.asname or top] = UNKNOWN if value is None else value
            return
        source = self.module(node.module or "", node.level, scope)
        for alias in node.names:
            if alias.name == "*":
                if isinstance(source, Scope):
                    scope.names.update({k: v for k, v in source.names.items() if not k.startswith("_")})
                elif isinstance(source, External) and source.name == "argparse":
                    scope.names["ArgumentParser"] = External("argparse.ArgumentParser")
                continue
            scope.names[alias.asname or alias.name] = self.attribute(source, alias.name)

    # Statements

    def block(self, body: list[ast.stmt], scope: Scope, frame: Frame) -> None:
        for statement in body:
            if frame.ended:
                return
            self.statement(statement, scope, frame)

    def branch(self, body: list[ast.stmt], scope: Scope, frame: Frame) -> None:
        """A part that may be passed over; what follows a return in it may be too."""
        self.unsure += 1
        before = len(frame.returned)
        self.block(body, scope, frame)
        frame.ended = False
        self.unsure -= 1
        if len(frame.returned) > before and not frame.early:
            frame.early = 1
            self.unsure += 1

    def statement(self, node: ast.stmt, scope: Scope, frame: Frame) -> None:
        self.tick()
        match node:
            case ast.FunctionDef() | ast.AsyncFunctionDef():
                scope.names[node.name] = Function(node, scope)
            case ast.ClassDef():
                inside = Scope(scope.file, above=scope, package=scope.package)
                bases = [self.value(base, scope) for base in node.bases]
                scope.names[node.name] = Class(bases, inside)
                self.block(node.body, inside, Frame())
            case ast.Import() | ast.ImportFrom():
                self.import_(node, scope)
            case ast.Return():
                frame.returned.append(UNKNOWN if node.value is None else self.value(node.value, scope))
                frame.ended = True
            case ast.Assign():
                value = self.value(node.value, scope)
                for target in node.targets:
                    self.assign(target, value, scope)
            case ast.AnnAssign() if node.value is not None:
                self.assign(node.target, self.value(node.value, scope), scope)
            case ast.AugAssign():
                old, new = self.value(node.target, scope), self.value(node.value, scope)
                both = isinstance(old, Items) and isinstance(new, Items) and isinstance(node.op, ast.Add)
                self.assign(node.target, Items(old.items + new.items) if both else UNKNOWN, scope)
            case ast.If():
                truth = self.truth(self.value(node.test, scope))
                if truth is None:
                    self.branch(node.body, scope, frame)
                    self.branch(node.orelse, scope, frame)
                else:
                    self.block(node.body if truth else node.orelse, scope, frame)
            case ast.For() | ast.AsyncFor():
                self.loop(node, scope, frame)
            case ast.While():
                self.value(node.test, scope)
                self.branch(node.body, scope, frame)
            case ast.With() | ast.AsyncWith():
                for item in node.items:
                    value = self.value(item.context_expr, scope)
                    if item.optional_vars is not None:
                        self.assign(item.optional_vars, value, scope)
                self.block(node.body, scope, frame)
            case ast.Try() | ast.TryStar():
                self.block(node.body, scope, frame)
                for handler in node.handlers:
                    self.branch(handler.body, scope, frame)
                self.block(node.orelse, scope, frame)
                self.block(node.finalbody, scope, frame)
            case ast.Match():
                self.value(node.subject, scope)
                for case_ in node.cases:
                    self.branch(case_.body, scope, frame)
            case ast.Delete():
                for target in node.targets:
                    self.changed(target, scope)
            case _:
                for child in ast.iter_child_nodes(node):
                    if isinstance(child, ast.expr):
                        self.value(child, scope)

    def loop(self, node: ast.For | ast.AsyncFor, scope: Scope, frame: Frame) -> None:
        run_over = self.value(node.iter, scope)
        items = self.items(run_over)
        if items is None:
            self.lose(run_over)
            self.assign(node.target, UNKNOWN, scope)
            self.branch(node.body, scope, frame)
            return
        for item in items[:LOOPS]:
            self.assign(node.target, item, scope, anew=True)
            self.block(node.body, scope, frame)
            if frame.ended:
                return
        self.block(node.orelse, scope, frame)

    def assign(self, target: ast.expr, value: Any, scope: Scope, *, anew: bool = False) -> None:
        match target:
            case ast.Name():
                old = scope.names.get(target.id)
                if self.unsure and not anew and old is not None and old is not value:
                    self.lose(old)
                    self.lose(value)
                    value = UNKNOWN
                scope.names[target.id] = value
            case ast.Tuple() | ast.List():
                items = self.items(value)
                fits = items is not None and len(items) == len(target.elts)
                for number, inner in enumerate(target.elts):
                    if isinstance(inner, ast.Starred):
                        inner, fits = inner.value, False
                    self.assign(inner, items[number] if fits and items else UNKNOWN, scope, anew=anew)
                if not fits:
                    self.lose(value)
            case ast.Attribute():
                owner = self.value(target.value, scope)
                if isinstance(owner, Object):
                    owner.names[target.attr] = value
                else:
                    self.changed(target, scope)
                    self.lose(value)
            case _:
                self.changed(target, scope)
                self.lose(value)

    def changed(self, target: ast.expr, scope: Scope) -> None:
        """What is assigned to or deleted in place; of interest is only the command line."""
        value = self.value(target, scope)
        inner = self.value(target.value, scope) if isinstance(target, ast.Subscript) else None
        if any(isinstance(it, External) and it.name == "sys.argv" for it in (value, inner)):
            self.opaque = True

    # Calls

    def call(self, node: ast.Call, scope: Scope) -> Any:
        called = self.value(node.func, scope)
        args: list[Any] = []
        known = True
        for arg in node.args:
            value = self.value(arg.value if isinstance(arg, ast.Starred) else arg, scope)
            if not isinstance(arg, ast.Starred):
                args.append(value)
                continue
            inner = self.items(value)
            known = known and inner is not None
            args += inner or []
        named: dict[str, Any] = {}
        for keyword in node.keywords:
            value = self.value(keyword.value, scope)
            if keyword.arg is not None:
                named[keyword.arg] = value
            elif isinstance(value, Table) and all(isinstance(key, Literal) for key, _ in value.pairs):
                named.update({str(key.value): inner for key, inner in value.pairs})
            else:
                known = False
        return self.call_value(called, args, named, known=known)

    def call_value(self, called: Any, args: list[Any], named: dict[str, Any], *, known: bool = True) -> Any:
        if isinstance(called, Function):
            return self.enter(called, args, named)
        if isinstance(called, Class):
            return self.construct(called, args, named)
        if isinstance(called, Method):
            return self.method(called.of, called.name, args, named, known=known)
        if isinstance(called, External):
            return self.external(called.name, args, named, known=known)
        for value in (*args, *named.values()):
            self.lose(value)
        return UNKNOWN

    def enter(self, function: Function, args: list[Any], named: dict[str, Any]) -> Any:
        body = function.node.body
        given = [*args, *named.values()]
        tiny = len(body) <= 2 and isinstance(body[-1], ast.Return)
        if not tiny and not self.matters(function.node.name) and not any(map(holds_tracked, given)):
            return UNKNOWN
        if self.depth > _DEPTH:
            for value in given:
                self.lose(value)
            return UNKNOWN
        scope = Scope(function.scope.file, above=function.scope, package=function.scope.package)
        self.bind(function, args if function.owner is None else [function.owner, *args], named, scope)
        frame = Frame()
        self.depth += 1
        self.block(body, scope, frame)
        self.depth -= 1
        self.unsure -= frame.early
        if len(frame.returned) == 1:
            return frame.returned[0]
        different = {id(value) for value in frame.returned}
        if len(different) == 1:
            return frame.returned[0]
        for value in frame.returned:
            self.lose(value)
        return UNKNOWN

    def bind(self, function: Function, args: list[Any], named: dict[str, Any], scope: Scope) -> None:
        declared = function.node.args
        plain = [*declared.posonlyargs, *declared.args]
        for parameter, default in zip(reversed(plain), reversed(declared.defaults), strict=False):
            scope.names[parameter.arg] = self.value(default, function.scope)
        for parameter, maybe in zip(declared.kwonlyargs, declared.kw_defaults, strict=True):
            scope.names[parameter.arg] = UNKNOWN if maybe is None else self.value(maybe, function.scope)
        for number, parameter in enumerate(plain):
            if number < len(args):
                scope.names[parameter.arg] = args[number]
            scope.names.setdefault(parameter.arg, UNKNOWN)
        names = {parameter.arg for parameter in (*plain, *declared.kwonlyargs)}
        rest = {name: value for name, value in named.items() if name not in names}
        scope.names.update({name: value for name, value in named.items() if name in names})
        if declared.vararg is not None:
            scope.names[declared.vararg.arg] = Items(args[len(plain) :])
        if declared.kwarg is not None:
            scope.names[declared.kwarg.arg] = Table([(Literal(name), value) for name, value in rest.items()])

    def construct(self, made: Class, args: list[Any], named: dict[str, Any]) -> Any:
        tracked = self.instance(made)
        if tracked is not None:
            return tracked
        instance = Object(made)
        start = self.member(instance, "__init__")
        if isinstance(start, Function):
            self.enter(start, args, named)
        else:
            for value in (*args, *named.values()):
                self.lose(value)
        return instance

    def external(self, name: str, args: list[Any], named: dict[str, Any], *, known: bool) -> Any:
        tracked = self.foreign(name, args, named, known=known)
        if tracked is not None:
            return tracked
        if name.startswith("sys.argv."):
            self.opaque = self.opaque or not name.endswith((".copy", ".index", ".count"))
            return UNKNOWN
        if name == "super":
            self.opaque = True  # which method that is depends on the classes around
            return UNKNOWN
        if name in _SAME and len(args) == 1:
            items = self.items(args[0])
            return UNKNOWN if items is None else Items(list(items))
        if name == "range" and all(isinstance(arg, Literal) and isinstance(arg.value, int) for arg in args) and args:
            numbers = range(*(arg.value for arg in args[:3])) if len(args) < 3 or args[2].value else range(0)
            return Items([Literal(number) for number in numbers[:LOOPS]]) if len(numbers) <= LOOPS else UNKNOWN
        if name in ("enumerate", "zip") and args:
            lists = [self.items(arg) for arg in args]
            if all(items is not None for items in lists):
                if name == "enumerate":
                    return Items([Items([Literal(n), item]) for n, item in enumerate(lists[0] or [])])
                return Items([Items(list(row)) for row in zip(*(items or [] for items in lists), strict=False)])
        if name == "dict" and not args:
            return Table([(Literal(key), value) for key, value in named.items()])
        if name not in _LOOKS_ONLY:
            for value in (*args, *named.values()):
                self.lose(value)
        return UNKNOWN

    def method(self, owner: Any, name: str, args: list[Any], named: dict[str, Any], *, known: bool) -> Any:
        if isinstance(owner, Tracked):
            return self.tracked(owner, name, args, named, known=known)
        if isinstance(owner, Table) and not args:
            if name == "keys":
                return Items([key for key, _ in owner.pairs])
            if name == "values":
                return Items([value for _, value in owner.pairs])
            if name == "items":
                return Items([Items([key, value]) for key, value in owner.pairs])
        if isinstance(owner, Items) and name in ("append", "extend", "insert", "remove", "pop", "clear"):
            for value in (*owner.items, *args):
                self.lose(value)
            if name == "append" and len(args) == 1 and not self.unsure:
                owner.items.append(args[0])
                return UNKNOWN
            owner.items = [UNKNOWN]
            return UNKNOWN
        texts = [arg.value for arg in args if isinstance(arg, Literal) and isinstance(arg.value, str)]
        if isinstance(owner, Literal) and isinstance(owner.value, str) and len(texts) == len(args):
            short = len(owner.value) < TEXT and all(len(text) < 100 for text in texts)
            if short and name in _TEXT_METHODS:
                try:
                    return Literal(getattr(owner.value, name)(*texts))
                except TypeError:
                    return UNKNOWN
            if short and name == "split":
                return Items([Literal(part) for part in owner.value.split(texts[0] if texts and texts[0] else None)])
        for value in (owner, *args, *named.values()):
            self.lose(value)
        return UNKNOWN

    # What a use of this interpreter tracks

    def lose(self, value: Any, seen: int = 0) -> None:
        """Note that a value got out of sight, where anything may be done to it."""
        if isinstance(value, Tracked):
            self.lost(value)
        elif isinstance(value, Method):
            self.lose(value.of, seen + 1)
        elif isinstance(value, Function):
            self.opaque = self.opaque or self.matters(value.node.name)
        elif seen < 4 and isinstance(value, Items):
            for item in value.items:
                self.lose(item, seen + 1)
        elif seen < 4 and isinstance(value, Table):
            for _, item in value.pairs:
                self.lose(item, seen + 1)
        elif seen < 4 and isinstance(value, Object):
            for item in value.names.values():
                self.lose(item, seen + 1)

    def lost(self, value: Tracked) -> None:
        """Note that a tracked value got out of sight."""

    def part(self, owner: Tracked, name: str) -> Any:
        """An attribute of a tracked value."""
        return Method(owner, name)

    def instance(self, made: Class) -> Any:
        """The tracked value that an object of a class is, or None."""

    def foreign(self, name: str, args: list[Any], named: dict[str, Any], *, known: bool) -> Any:
        """The tracked value that a call of foreign code makes, or None."""

    def tracked(self, owner: Tracked, name: str, args: list[Any], named: dict[str, Any], *, known: bool) -> Any:
        """What a method of a tracked value gives; `known` is false where not all arguments are."""
        return UNKNOWN


def _definitions(tree: ast.Module) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef]:
    """Functions and classes, wherever statements may hold them."""
    waiting: list[Any] = [tree]
    while waiting:
        node = waiting.pop()
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            yield node
        for part in ("body", "orelse", "finalbody", "handlers", "cases"):
            inner = getattr(node, part, None)
            if isinstance(inner, list):
                waiting += inner
