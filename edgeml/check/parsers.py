"""argparse by following the program: a small interpreter of the syntax tree that knows parsers, literals and functions.

Everything else is unknown to it. A parser that gets out of its sight (handed to foreign code, given options whose
names are computed) is marked as not completely known. Branches whose condition is unknown are both followed, and what
is added there counts as not required.
"""

from __future__ import annotations

import ast
import posixpath
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

from edgeml.check.script import MANY, Files, Interface, Option

_DEPTH, _STEPS, _LOOPS, _TEXT = 24, 20_000, 200, 1000
_PARSES = {
    "parse_args": False,
    "parse_intermixed_args": False,
    "parse_known_args": True,
    "parse_known_intermixed_args": True,
}
_SEEDS = frozenset(
    {"ArgumentParser", "add_argument", "add_parser", "add_subparsers", "add_argument_group", "argv", *_PARSES}
)
_HARMLESS = frozenset(
    [
        "set_defaults",
        "print_help",
        "print_usage",
        "format_help",
        "format_usage",
        "error",
        "exit",
        "get_default",
        "register",
        "append",
        "remove",
        "convert_arg_line_to_args",
    ]
)
_LOOKS_ONLY = frozenset(["isinstance", "print", "vars", "len", "id", "type", "repr", "str", "argcomplete.autocomplete"])
_SAME = frozenset(["list", "tuple", "sorted", "set", "frozenset", "iter", "reversed"])
_TEXT_METHODS = frozenset(
    ["replace", "lower", "upper", "strip", "lstrip", "rstrip", "title", "removeprefix", "removesuffix"]
)
_ZERO = frozenset(["store_const", "store_true", "store_false", "append_const", "count", "help", "version"])
_NARGS = {"OPTIONAL": "?", "ZERO_OR_MORE": "*", "ONE_OR_MORE": "+", "REMAINDER": "...", "PARSER": "A..."}


class _Unknown:
    pass


UNKNOWN, ARGV = _Unknown(), _Unknown()


@dataclass(eq=False)
class _Literal:
    value: Any


@dataclass(eq=False)
class _Items:
    items: list[Any]


@dataclass(eq=False)
class _Table:
    pairs: list[tuple[Any, Any]]


@dataclass(eq=False)
class _External:
    """A name of foreign code, in full."""

    name: str


@dataclass(eq=False)
class _Scope:
    """The names of a module, function or object; `file` is the module's relative path."""

    file: str
    names: dict[str, Any] = field(default_factory=dict)
    above: _Scope | None = None
    package: str = ""

    def find(self, name: str) -> Any:
        scope: _Scope | None = self
        while scope is not None:
            if name in scope.names:
                return scope.names[name]
            scope = scope.above
        return _External(name)


@dataclass(eq=False)
class _Function:
    node: ast.FunctionDef | ast.AsyncFunctionDef
    scope: _Scope
    owner: Any = None


@dataclass(eq=False)
class _Class:
    node: ast.ClassDef
    scope: _Scope
    bases: list[Any]
    inside: _Scope


@dataclass(eq=False)
class _Object:
    of: _Class
    names: dict[str, Any] = field(default_factory=dict)


@dataclass(eq=False)
class _Method:
    of: Any
    name: str


@dataclass(eq=False)
class _Parser:
    options: list[Option] = field(default_factory=list)
    complete: bool = True
    prefixes: bool = True
    commands: list[tuple[tuple[str, ...], _Parser]] = field(default_factory=list)
    has_commands: bool = False
    commands_required: bool = False
    group_of: _Parser | None = None  # only one of a group may be given, so none is required

    def interface(self, *, lenient: bool = False, seen: int = 0) -> Interface:
        options, complete = list(self.options), self.complete
        if self.has_commands:
            made = []
            for names, parser in self.commands:
                inner = parser.interface(lenient=lenient, seen=seen + 1) if seen < 5 else Interface()
                made += [(name, inner) for name in names]
            options.append(Option("command", required=self.commands_required, most=1, commands=tuple(made)))
        return Interface(tuple(options), complete, lenient, self.prefixes)


@dataclass(eq=False)
class _Commands:
    of: _Parser


class _Frame:
    def __init__(self) -> None:
        self.returned: list[Any] = []
        self.ended = False
        self.early = 0


class _TooMuchError(Exception):
    pass


def read(entry: str, files: Files, roots: tuple[str, ...], function: str = "") -> Interface:
    """The interface of the parser that reads the command line; not complete where none or more than one does."""
    program = _Program(files, roots)
    try:
        scope = program.load(entry, "__main__" if not function else "entry")
        called = scope.names.get(function) if scope is not None and function else None
        if called is not None:
            program.call_value(called, [], {})
    except _TooMuchError:
        return Interface()
    parsers = {id(parser): parser for parser, _ in program.parsed}
    if len(parsers) != 1:
        return Interface()
    (parser,) = parsers.values()
    lenient = all(known for _, known in program.parsed)
    made = parser.interface(lenient=lenient)
    return made._replace(complete=made.complete and not program.rewritten)


class _Program:
    def __init__(self, files: Files, roots: tuple[str, ...]) -> None:
        self.files = files
        self.roots = roots
        self.modules: dict[str, _Scope] = {}
        self.parsed: list[tuple[_Parser, bool]] = []
        self.rewritten = False  # the program changes its own command line
        self.unsure = 0
        self.depth = 0
        self.steps = 0
        self.uses: dict[str, set[str]] = {}
        self.relevant: set[str] | None = None

    # Modules

    def load(self, path: str, name: str) -> _Scope | None:
        if path in self.modules:
            return self.modules[path]
        tree = self.files.parse(self.files.paths[path]).tree
        if tree is None:
            return None
        scope = self.modules[path] = _Scope(path, {"__name__": _Literal(name)}, package=posixpath.dirname(path))
        for node in ast.walk(tree):
            if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
                used = {inner.id for inner in ast.walk(node) if isinstance(inner, ast.Name)}
                used |= {inner.attr for inner in ast.walk(node) if isinstance(inner, ast.Attribute)}
                self.uses[node.name] = self.uses.get(node.name, set()) | used
        self.relevant = None
        unsure, self.unsure = self.unsure, 0
        self.block(tree.body, scope, _Frame())
        self.unsure = unsure
        return scope

    def matters(self, name: str) -> bool:
        """Whether a function or class of this name can have anything to do with a command line."""
        if self.relevant is None:
            self.relevant = set(_SEEDS)
            grown = True
            while grown:
                more = {name for name, used in self.uses.items() if name not in self.relevant and used & self.relevant}
                self.relevant |= more
                grown = bool(more)
        return name in self.relevant

    def module(self, dotted: str, level: int, scope: _Scope) -> Any:
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
            return _Scope("", package=posixpath.normpath(posixpath.join(roots[0], dotted.replace(".", "/"))))
        return _External(dotted)

    def import_(self, node: ast.Import | ast.ImportFrom, scope: _Scope) -> None:
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
                if isinstance(source, _Scope):
                    scope.names.update({k: v for k, v in source.names.items() if not k.startswith("_")})
                elif isinstance(source, _External) and source.name == "argparse":
                    scope.names["ArgumentParser"] = _External("argparse.ArgumentParser")
                continue
            scope.names[alias.asname or alias.name] = self.attribute(source, alias.name)

    # Statements

    def block(self, body: list[ast.stmt], scope: _Scope, frame: _Frame) -> None:
        for statement in body:
            if frame.ended:
                return
            self.statement(statement, scope, frame)

    def branch(self, body: list[ast.stmt], scope: _Scope, frame: _Frame) -> None:
        """A part that may be passed over; what follows a return in it may be too."""
        self.unsure += 1
        before = len(frame.returned)
        self.block(body, scope, frame)
        frame.ended = False
        self.unsure -= 1
        if len(frame.returned) > before and not frame.early:
            frame.early = 1
            self.unsure += 1

    def statement(self, node: ast.stmt, scope: _Scope, frame: _Frame) -> None:
        self.tick()
        match node:
            case ast.FunctionDef() | ast.AsyncFunctionDef():
                scope.names[node.name] = _Function(node, scope)
            case ast.ClassDef():
                inside = _Scope(scope.file, above=scope, package=scope.package)
                bases = [self.value(base, scope) for base in node.bases]
                scope.names[node.name] = _Class(node, scope, bases, inside)
                self.block(node.body, inside, _Frame())
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
                both = isinstance(old, _Items) and isinstance(new, _Items) and isinstance(node.op, ast.Add)
                self.assign(node.target, _Items(old.items + new.items) if both else UNKNOWN, scope)
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

    def loop(self, node: ast.For | ast.AsyncFor, scope: _Scope, frame: _Frame) -> None:
        items = self.items(self.value(node.iter, scope))
        if items is None:
            self.assign(node.target, UNKNOWN, scope)
            self.branch(node.body, scope, frame)
            return
        for item in items[:_LOOPS]:
            self.assign(node.target, item, scope, anew=True)
            self.block(node.body, scope, frame)
            if frame.ended:
                return
        self.block(node.orelse, scope, frame)

    def assign(self, target: ast.expr, value: Any, scope: _Scope, *, anew: bool = False) -> None:
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
                if isinstance(owner, _Object):
                    owner.names[target.attr] = value
                else:
                    self.changed(target, scope)
                    self.lose(value)
            case _:
                self.changed(target, scope)
                self.lose(value)

    def changed(self, target: ast.expr, scope: _Scope) -> None:
        """What is assigned to or deleted in place; of interest is only the command line."""
        value = self.value(target, scope)
        inner = self.value(target.value, scope) if isinstance(target, ast.Subscript) else None
        if any(isinstance(it, _External) and it.name == "sys.argv" for it in (value, inner)):
            self.rewritten = True

    # Expressions

    def tick(self) -> None:
        self.steps += 1
        if self.steps > _STEPS:
            raise _TooMuchError

    def value(self, node: ast.expr, scope: _Scope) -> Any:
        self.tick()
        match node:
            case ast.Constant():
                return _Literal(node.value)
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
                return UNKNOWN
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.expr):
                self.lose(self.value(child, scope))
        return UNKNOWN

    def sequence(self, elements: list[ast.expr], scope: _Scope) -> Any:
        made: list[Any] = []
        for element in elements:
            if isinstance(element, ast.Starred):
                inner = self.items(self.value(element.value, scope))
                if inner is None:
                    return UNKNOWN
                made += inner
            else:
                made.append(self.value(element, scope))
        return _Items(made)

    def table(self, node: ast.Dict, scope: _Scope) -> Any:
        pairs: list[tuple[Any, Any]] = []
        known = True
        for key, value in zip(node.keys, node.values, strict=True):
            made = self.value(value, scope)
            if key is not None:
                pairs.append((self.value(key, scope), made))
            elif isinstance(made, _Table):
                pairs += made.pairs
            else:
                known = False
        return _Table(pairs) if known else UNKNOWN

    def joined(self, node: ast.JoinedStr, scope: _Scope) -> Any:
        text = ""
        for part in node.values:
            value = self.value(part.value if isinstance(part, ast.FormattedValue) else part, scope)
            plain = not isinstance(part, ast.FormattedValue) or (part.conversion == -1 and part.format_spec is None)
            if not plain or not isinstance(value, _Literal):
                return UNKNOWN
            text += str(value.value)[:_TEXT]
        return _Literal(text)

    def binary(self, node: ast.BinOp, scope: _Scope) -> Any:
        left, right = self.value(node.left, scope), self.value(node.right, scope)
        if isinstance(node.op, ast.Add):
            if isinstance(left, _Items) and isinstance(right, _Items):
                return _Items((left.items + right.items)[: 2 * _LOOPS])
            if _is_text(left) and _is_text(right):
                return _Literal((left.value + right.value)[: 4 * _TEXT])
        if isinstance(node.op, ast.BitOr) and isinstance(left, _Table) and isinstance(right, _Table):
            return _Table(left.pairs + right.pairs)
        return UNKNOWN

    def boolean(self, node: ast.BoolOp, scope: _Scope) -> Any:
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

    def unary(self, node: ast.UnaryOp, scope: _Scope) -> Any:
        value = self.value(node.operand, scope)
        if isinstance(node.op, ast.Not):
            truth = self.truth(value)
            return UNKNOWN if truth is None else _Literal(not truth)
        if isinstance(node.op, ast.USub) and isinstance(value, _Literal) and isinstance(value.value, (int, float)):
            return _Literal(-value.value)
        return UNKNOWN

    def compare(self, node: ast.Compare, scope: _Scope) -> Any:
        left, right = self.value(node.left, scope), self.value(node.comparators[0], scope)
        operator = node.ops[0]
        if isinstance(right, _Literal) and right.value is None and not isinstance(left, (_Unknown, _External)):
            is_none = isinstance(left, _Literal) and left.value is None
            if isinstance(operator, (ast.Is, ast.Eq)):
                return _Literal(is_none)
            if isinstance(operator, (ast.IsNot, ast.NotEq)):
                return _Literal(not is_none)
        if isinstance(left, _Literal) and isinstance(right, _Literal):
            if isinstance(operator, ast.Eq):
                return _Literal(left.value == right.value)
            if isinstance(operator, ast.NotEq):
                return _Literal(left.value != right.value)
        return UNKNOWN

    def truth(self, value: Any) -> bool | None:
        if isinstance(value, _Literal):
            return bool(value.value)
        if isinstance(value, (_Items, _Table)):
            return bool(value.items if isinstance(value, _Items) else value.pairs)
        return True if isinstance(value, (_Parser, _Object, _Function, _Class)) else None

    def subscript(self, node: ast.Subscript, scope: _Scope) -> Any:
        owner = self.value(node.value, scope)
        if isinstance(owner, _External) and owner.name == "sys.argv":
            part = node.slice
            start = part.lower if isinstance(part, ast.Slice) and part.upper is None and part.step is None else None
            return ARGV if isinstance(start, ast.Constant) and start.value == 1 else UNKNOWN
        index = UNKNOWN if isinstance(node.slice, ast.Slice) else self.value(node.slice, scope)
        if isinstance(index, _Literal):
            if isinstance(owner, _Items) and isinstance(index.value, int) and -1 <= index.value < len(owner.items):
                return owner.items[index.value] if owner.items else UNKNOWN
            if isinstance(owner, _Table):
                for key, value in owner.pairs:
                    if isinstance(key, _Literal) and key.value == index.value:
                        return value
        self.lose(owner)
        return UNKNOWN

    def comprehension(self, node: ast.ListComp | ast.SetComp | ast.GeneratorExp, scope: _Scope) -> Any:
        inner = _Scope(scope.file, above=scope, package=scope.package)
        first = node.generators[0]
        items = self.items(self.value(first.iter, scope))
        if items is None or len(node.generators) > 1 or first.ifs:
            for generator in node.generators:
                self.value(generator.iter, inner)
                self.assign(generator.target, UNKNOWN, inner, anew=True)
            self.lose(self.value(node.elt, inner))
            return UNKNOWN
        made = []
        for item in items[:_LOOPS]:
            self.assign(first.target, item, inner, anew=True)
            made.append(self.value(node.elt, inner))
        return _Items(made)

    def items(self, value: Any) -> list[Any] | None:
        """The items of what a loop runs over, None where they are not known."""
        if isinstance(value, _Items):
            return value.items
        if isinstance(value, _Table):
            return [key for key, _ in value.pairs]
        if isinstance(value, _Literal) and isinstance(value.value, str):
            return [_Literal(letter) for letter in value.value[:_LOOPS]]
        return None

    def attribute(self, owner: Any, name: str) -> Any:
        if isinstance(owner, _External):
            return _External(f"{owner.name}.{name}")
        if isinstance(owner, _Scope):
            if name in owner.names:
                return owner.names[name]
            base = owner.package if owner.file.endswith("__init__.py") or not owner.file else ""
            path = self.files.module(name, (base,)) if base or not owner.file else ""
            inner = self.load(path, name) if path else None
            return UNKNOWN if inner is None else inner
        if isinstance(owner, (_Object, _Class)):
            return self.member(owner, name)
        if isinstance(owner, _Parser) and name == "_action_groups":
            return owner
        return _Method(owner, name)

    def member(self, owner: _Object | _Class, name: str) -> Any:
        if isinstance(owner, _Object) and name in owner.names:
            return owner.names[name]
        waiting: list[Any] = [owner.of if isinstance(owner, _Object) else owner]
        while waiting:
            here = waiting.pop(0)
            if isinstance(here, _Class):
                found = here.inside.names.get(name)
                if isinstance(found, _Function):
                    decorators = {it.id for it in found.node.decorator_list if isinstance(it, ast.Name)}
                    if "staticmethod" in decorators:
                        return found
                    if "classmethod" in decorators:
                        return _Function(found.node, found.scope, owner.of if isinstance(owner, _Object) else owner)
                    return _Function(found.node, found.scope, owner) if isinstance(owner, _Object) else found
                if found is not None:
                    return found
                waiting += here.bases
        return UNKNOWN

    # Calls

    def call(self, node: ast.Call, scope: _Scope) -> Any:
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
            elif isinstance(value, _Table) and all(isinstance(key, _Literal) for key, _ in value.pairs):
                named.update({str(key.value): inner for key, inner in value.pairs})
            else:
                known = False
        return self.call_value(called, args, named, known=known)

    def call_value(self, called: Any, args: list[Any], named: dict[str, Any], *, known: bool = True) -> Any:
        if isinstance(called, _Function):
            return self.enter(called, args, named)
        if isinstance(called, _Class):
            return self.construct(called, args, named)
        if isinstance(called, _Method):
            return self.method(called.of, called.name, args, named, known=known)
        if isinstance(called, _External):
            return self.external(called.name, args, named, known=known)
        for value in (*args, *named.values()):
            self.lose(value)
        return UNKNOWN

    def enter(self, function: _Function, args: list[Any], named: dict[str, Any]) -> Any:
        body = function.node.body
        given = [*args, *named.values()]
        tiny = len(body) <= 2 and isinstance(body[-1], ast.Return)
        if not tiny and not self.matters(function.node.name) and not any(map(_holds_parser, given)):
            return UNKNOWN
        if self.depth > _DEPTH:
            for value in given:
                self.lose(value)
            return UNKNOWN
        scope = _Scope(function.scope.file, above=function.scope, package=function.scope.package)
        self.bind(function, args if function.owner is None else [function.owner, *args], named, scope)
        frame = _Frame()
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

    def bind(self, function: _Function, args: list[Any], named: dict[str, Any], scope: _Scope) -> None:
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
            scope.names[declared.vararg.arg] = _Items(args[len(plain) :])
        if declared.kwarg is not None:
            scope.names[declared.kwarg.arg] = _Table([(_Literal(name), value) for name, value in rest.items()])

    def construct(self, made: _Class, args: list[Any], named: dict[str, Any]) -> Any:
        if _is_parser_class(made):
            return _Parser(complete=False)
        instance = _Object(made)
        start = self.member(instance, "__init__")
        if isinstance(start, _Function):
            self.enter(start, args, named)
        else:
            for value in (*args, *named.values()):
                self.lose(value)
        return instance

    def external(self, name: str, args: list[Any], named: dict[str, Any], *, known: bool) -> Any:
        if name == "argparse.ArgumentParser":
            return self.parser(named, known=known)
        if name.startswith("sys.argv."):
            self.rewritten = self.rewritten or not name.endswith((".copy", ".index", ".count"))
            return UNKNOWN
        if name in _SAME and len(args) == 1:
            items = self.items(args[0])
            return UNKNOWN if items is None else _Items(list(items))
        if name == "range" and all(isinstance(arg, _Literal) and isinstance(arg.value, int) for arg in args) and args:
            numbers = range(*(arg.value for arg in args[:3])) if len(args) < 3 or args[2].value else range(0)
            return _Items([_Literal(number) for number in numbers[:_LOOPS]]) if len(numbers) <= _LOOPS else UNKNOWN
        if name in ("enumerate", "zip") and args:
            lists = [self.items(arg) for arg in args]
            if all(items is not None for items in lists):
                if name == "enumerate":
                    return _Items([_Items([_Literal(n), item]) for n, item in enumerate(lists[0] or [])])
                return _Items([_Items(list(row)) for row in zip(*(items or [] for items in lists), strict=False)])
        if name == "dict" and not args:
            return _Table([(_Literal(key), value) for key, value in named.items()])
        if name not in _LOOKS_ONLY:
            for value in (*args, *named.values()):
                self.lose(value)
        return UNKNOWN

    def method(self, owner: Any, name: str, args: list[Any], named: dict[str, Any], *, known: bool) -> Any:
        if isinstance(owner, _Parser):
            return self.parser_method(owner, name, args, named, known=known)
        if isinstance(owner, _Commands):
            return self.command(owner.of, name, args, named, known=known)
        if isinstance(owner, _Table) and not args:
            if name == "keys":
                return _Items([key for key, _ in owner.pairs])
            if name == "values":
                return _Items([value for _, value in owner.pairs])
            if name == "items":
                return _Items([_Items([key, value]) for key, value in owner.pairs])
        if isinstance(owner, _Items) and name in ("append", "extend", "insert", "remove", "pop", "clear"):
            for value in (*owner.items, *args):
                self.lose(value)
            if name == "append" and len(args) == 1 and not self.unsure:
                owner.items.append(args[0])
                return UNKNOWN
            owner.items = [UNKNOWN]
            return UNKNOWN
        texts = [arg.value for arg in args if isinstance(arg, _Literal) and isinstance(arg.value, str)]
        if isinstance(owner, _Literal) and isinstance(owner.value, str) and len(texts) == len(args):
            short = len(owner.value) < _TEXT and all(len(text) < 100 for text in texts)
            if short and name in _TEXT_METHODS:
                try:
                    return _Literal(getattr(owner.value, name)(*texts))
                except TypeError:
                    return UNKNOWN
            if short and name == "split":
                return _Items([_Literal(part) for part in owner.value.split(texts[0] if texts and texts[0] else None)])
        for value in (owner, *args, *named.values()):
            self.lose(value)
        return UNKNOWN

    # Parsers

    def lose(self, value: Any, seen: int = 0) -> None:
        """Note that a value got out of sight: a parser may be given any option there."""
        if isinstance(value, _Parser):
            value.complete = False
            if value.group_of is not None:
                value.group_of.complete = False
        elif isinstance(value, _Commands):
            value.of.complete = False
        elif seen < 4 and isinstance(value, (_Items, _Table, _Object)):
            inner: Iterable[Any] = (
                value.items
                if isinstance(value, _Items)
                else [it for pair in value.pairs for it in pair]
                if isinstance(value, _Table)
                else list(value.names.values())
            )
            for item in inner:
                self.lose(item, seen + 1)

    def parser(self, named: dict[str, Any], *, known: bool) -> _Parser:
        made = _Parser(complete=known)
        prefixes, help_ = named.get("allow_abbrev"), named.get("add_help")
        made.prefixes = not (isinstance(prefixes, _Literal) and not prefixes.value)
        if "prefix_chars" in named or "fromfile_prefix_chars" in named:
            made.complete = False
        if not (isinstance(help_, _Literal) and not help_.value):
            made.options.append(Option("help", ("-h", "--help"), fewest=0, most=0))
        if "parents" in named:
            parents = self.items(named["parents"])
            made.complete = made.complete and parents is not None
            for parent in parents or []:
                if isinstance(parent, _Parser):
                    made.options += parent.options
                    made.complete = made.complete and parent.complete
                else:
                    made.complete = False
        return made

    def parser_method(self, owner: _Parser, name: str, args: list[Any], named: dict[str, Any], *, known: bool) -> Any:
        target = owner.group_of or owner
        if name == "add_argument":
            self.argument(owner, args, named, known=known)
        elif name == "add_argument_group":
            return owner
        elif name == "add_mutually_exclusive_group":
            group = _Parser(group_of=target)
            group.options = target.options
            return group
        elif name == "add_subparsers":
            required = named.get("required")
            target.has_commands = True
            target.commands_required = bool(isinstance(required, _Literal) and required.value) and not self.unsure
            return _Commands(target)
        elif name in _PARSES:
            given = args[0] if args else named.get("args")
            if isinstance(given, _Items):
                return UNKNOWN  # not the command line
            if not (given is None or given is ARGV or (isinstance(given, _Literal) and given.value is None)):
                target.complete = False
            self.parsed.append((target, _PARSES[name]))
            return _Items([UNKNOWN, UNKNOWN]) if _PARSES[name] else UNKNOWN
        elif name == "pop":
            return owner  # of its list of groups
        elif name not in _HARMLESS:
            target.complete = False
        return UNKNOWN

    def command(self, owner: _Parser, name: str, args: list[Any], named: dict[str, Any], *, known: bool) -> Any:
        if name != "add_parser":
            owner.complete = False
            return UNKNOWN
        made = self.parser(named, known=known)
        names = [args[0] if args else UNKNOWN, *(self.items(named.get("aliases")) or [])]
        texts = tuple(str(it.value) for it in names if isinstance(it, _Literal))
        if len(texts) != len(names) or ("aliases" in named and self.items(named["aliases"]) is None):
            owner.complete = False
        owner.commands.append((texts, made))
        return made

    def argument(self, owner: _Parser, args: list[Any], named: dict[str, Any], *, known: bool) -> None:
        target = owner.group_of or owner
        flags = [arg.value for arg in args if isinstance(arg, _Literal) and isinstance(arg.value, str)]
        if len(flags) != len(args) or (not known and not args):
            target.complete = False
            return
        sure = not self.unsure and owner.group_of is None
        option = option_of(flags, named, sure=sure, known=known)
        if option is None:
            target.complete = False
        else:
            target.options.append(option)


def option_of(flags: list[str], named: dict[str, Any], *, sure: bool, known: bool) -> Option | None:
    """The option that `add_argument` makes; None where what it takes cannot be told."""
    positional = not flags or not flags[0].startswith("-")
    name = flags[0] if flags else _text(named.get("dest")) or "argument"
    fewest, most = _arity(named)
    if not known:
        return Option(name, () if positional else tuple(flags), "", False, (), 0, MANY)
    if most < 0:
        return None
    if _name(named.get("action")).endswith("BooleanOptionalAction"):
        flags = [*flags, *(f"--no-{flag[2:]}" for flag in flags if flag.startswith("--"))]
    required = named.get("required")
    demanded = (fewest > 0) if positional else bool(isinstance(required, _Literal) and required.value)
    if positional and not sure:
        fewest = 0
    return Option(
        name,
        () if positional else tuple(flags),
        _type(named.get("type")),
        demanded and sure,
        _choices(named.get("choices")),
        fewest,
        most,
    )


def _arity(named: dict[str, Any]) -> tuple[int, int]:
    """Fewest and most values; most is -1 where the option swallows what follows."""
    action, nargs = named.get("action"), named.get("nargs")
    if action is not None:
        word = _text(action)
        if word in _ZERO or _name(action).endswith("BooleanOptionalAction"):
            return 0, 0
        if word not in ("store", "append", "extend"):
            return 0, MANY
    if nargs is None or (isinstance(nargs, _Literal) and nargs.value is None):
        return 1, 1
    if isinstance(nargs, _Literal) and isinstance(nargs.value, int) and not isinstance(nargs.value, bool):
        return nargs.value, nargs.value
    form = _text(nargs) or _NARGS.get(_name(nargs).removeprefix("argparse."), "")
    if form in ("...", "A..."):
        return 0, -1
    return {"?": (0, 1), "*": (0, MANY), "+": (1, MANY)}.get(form, (0, MANY))


def _is_text(value: Any) -> bool:
    return isinstance(value, _Literal) and isinstance(value.value, str)


def _text(value: Any) -> str:
    return value.value if isinstance(value, _Literal) and isinstance(value.value, str) else ""


def _name(value: Any) -> str:
    return value.name if isinstance(value, _External) else ""


def _type(value: Any) -> str:
    if value is None or (isinstance(value, _Literal) and value.value is None):
        return "str"
    return _name(value) if _name(value) in ("int", "float", "str", "bool") else ""


def _choices(value: Any) -> tuple[str, ...]:
    items: Iterator[Any] | list[Any] = []
    if isinstance(value, _Items):
        items = value.items
    elif isinstance(value, _Table):
        items = [key for key, _ in value.pairs]
    made = [str(item.value) for item in items if isinstance(item, _Literal)]
    return tuple(made) if len(made) == len(list(items)) else ()


def _holds_parser(value: Any) -> bool:
    if isinstance(value, _Items):
        return any(isinstance(item, (_Parser, _Commands, _Method)) for item in value.items)
    if isinstance(value, _Object):
        return any(isinstance(item, (_Parser, _Commands)) for item in value.names.values())
    return isinstance(value, (_Parser, _Commands)) or (isinstance(value, _Method) and isinstance(value.of, _Parser))


def _is_parser_class(value: Any, seen: int = 0) -> bool:
    if isinstance(value, _External):
        return value.name.endswith("ArgumentParser")
    return isinstance(value, _Class) and seen < 8 and any(_is_parser_class(base, seen + 1) for base in value.bases)
