"""The expressions of ARM templates: the part of Microsoft's template language that our templates use, and no more.

A string in brackets is an expression: function calls, literals, `.property` and `[index]`. What only the deployment
itself can know (`reference()`, `listKeys()`) evaluates to `Unknown`, and so does what is made of it.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from edgeml.errors import EdgemlError

# The namespace of `guid()`: a name-based UUID (version 5) of the arguments, joined by hyphens.
GUID_NAMESPACE = uuid.UUID("11fb06fb-712d-4ddd-98c7-e71bbd588830")
MAX_LENGTH = 24_576  # characters of an expression; Resource Manager's own limit
_TOKEN = re.compile(r"\s*(?:(?P<text>'(?:[^']|'')*')|(?P<number>-?\d+)|(?P<name>[A-Za-z_]\w*)|(?P<sign>[()\[\],.]))")


class ExpressionError(EdgemlError):
    """An expression that Resource Manager would not accept, or that is outside the part known here."""


@dataclass(frozen=True)
class Unknown:
    """A value that is known after the deployment only; `of` is the id of the resource that gives it, if one does."""

    of: str = ""


@dataclass
class Scope:
    """What an expression may ask for: parameters, variables (evaluated on demand), and where it is deployed."""

    parameters: Mapping[str, Any]
    variables: Mapping[str, Any]
    subscription: str
    group: str
    location: str
    tenant: str
    copies: dict[str, int] = field(default_factory=dict)
    at_run_time: bool = True
    """Whether `reference()` may be asked: nowhere but in properties and outputs."""
    _open: list[str] = field(default_factory=list)

    @property
    def group_id(self) -> str:
        return f"/subscriptions/{self.subscription}/resourceGroups/{self.group}"

    def variable(self, name: str) -> Any:
        if name not in self.variables:
            raise ExpressionError(
                f"there is no variable '{name}'; the template has {', '.join(self.variables) or 'none'}"
            )
        if name in self._open:
            raise ExpressionError(f"the variable '{name}' is made of itself; break the circle")
        self._open.append(name)
        try:
            return resolve(self.variables[name], self)
        finally:
            self._open.pop()

    def parameter(self, name: str) -> Any:
        if name not in self.parameters:
            raise ExpressionError(f"there is no parameter '{name}'; the template has {', '.join(self.parameters)}")
        return self.parameters[name]


def resolve(value: Any, scope: Scope) -> Any:
    """A value of a template with every expression in it evaluated. Raises ExpressionError."""
    if isinstance(value, str):
        return evaluate(value, scope)
    if isinstance(value, Mapping):
        return {str(evaluate(key, scope)): resolve(item, scope) for key, item in value.items()}
    if isinstance(value, list):
        return [resolve(item, scope) for item in value]
    return value


def evaluate(text: str, scope: Scope) -> Any:
    """The value of one string: itself, unless it is an expression in brackets. Raises ExpressionError."""
    if not (text.startswith("[") and text.endswith("]")):
        return text
    if text.startswith("[["):
        return text[1:]
    if len(text) > MAX_LENGTH:
        raise ExpressionError(f"an expression has {len(text)} characters; Resource Manager takes {MAX_LENGTH}")
    tokens = _tokens(text[1:-1])
    try:
        value = _Reader(tokens, scope).whole()
    except RecursionError:
        raise ExpressionError(f"{_shown(text)} is nested too deeply; simplify it") from None
    except ExpressionError as error:
        raise ExpressionError(f"{_shown(text)}: {error}") from None
    return value


def _shown(text: str) -> str:
    return text if len(text) <= 120 else text[:117] + "..."


def _tokens(text: str) -> list[tuple[str, str]]:
    found, at = [], 0
    text = text.rstrip()
    while at < len(text):
        match = _TOKEN.match(text, at)
        if not match:
            raise ExpressionError(f"'{_shown(text[at:])}' is not of the template language; mend the expression")
        found.append((str(match.lastgroup), match[str(match.lastgroup)]))
        at = match.end()
    return found


class _Reader:
    """Reads and evaluates in one pass; `if()` alone needs its branches unevaluated, so they are skipped by need."""

    def __init__(self, tokens: Sequence[tuple[str, str]], scope: Scope) -> None:
        self.tokens = tokens
        self.scope = scope
        self.at = 0

    def whole(self) -> Any:
        value = self.expression()
        if self.at != len(self.tokens):
            raise ExpressionError(f"'{self.tokens[self.at][1]}' is too much; end the expression before it")
        return value

    def next(self, wanted: str = "") -> tuple[str, str]:
        if self.at == len(self.tokens):
            raise ExpressionError(f"it ends where {wanted or 'a value'} is missing; complete it")
        token = self.tokens[self.at]
        if wanted and token != ("sign", wanted):
            raise ExpressionError(f"'{token[1]}' stands where '{wanted}' is missing; complete it")
        self.at += 1
        return token

    def sees(self, sign: str) -> bool:
        return self.at < len(self.tokens) and self.tokens[self.at] == ("sign", sign)

    def expression(self) -> Any:
        kind, text = self.next()
        value: Any
        if kind == "text":
            value = text[1:-1].replace("''", "'")
        elif kind == "number":
            value = int(text)
        elif kind == "name":
            self.next("(")
            value = self.call(text)
        else:
            raise ExpressionError(f"'{text}' stands where a value is missing; complete it")
        while self.sees(".") or self.sees("["):
            value = self.part(value)
        return value

    def part(self, value: Any) -> Any:
        key: Any
        if self.next()[1] == ".":
            kind, key = self.next()
            if kind != "name":
                raise ExpressionError(f"'{key}' is no name of a property; write one after the dot")
        else:
            key = self.expression()
            self.next("]")
        if isinstance(value, Unknown):
            return value
        try:
            return value[key]
        except (KeyError, IndexError, TypeError):
            raise ExpressionError(f"there is no '{key}' in it; check the name") from None

    def arguments(self) -> list[Any]:
        found: list[Any] = []
        while not self.sees(")"):
            if found:
                self.next(",")
            found.append(self.expression())
        self.next(")")
        return found

    def call(self, name: str) -> Any:
        if name.lower() == "if":
            return self.choice()
        function = _FUNCTIONS.get(name.lower())
        if function is None:
            raise ExpressionError(f"the function {name}() is not known; use one of {', '.join(sorted(_FUNCTIONS))}, if")
        arguments = self.arguments()
        unknown = next((argument for argument in arguments if isinstance(argument, Unknown)), None)
        if unknown is not None:
            return unknown
        try:
            return function(self.scope, *arguments)
        except (TypeError, ValueError, AttributeError, IndexError) as error:
            if isinstance(error, ExpressionError):
                raise
            raise ExpressionError(f"{name}() does not take these arguments ({error}); see its reference") from None

    def choice(self) -> Any:
        """`if(condition, then, else)`: only the branch that is taken is evaluated, as Resource Manager does."""
        condition = self.expression()
        self.next(",")
        if not isinstance(condition, bool):
            raise ExpressionError("if() needs a condition that is true or false; use equals() or a bool parameter")
        if condition:
            value = self.expression()
            self.next(",")
            self.skip()
        else:
            self.skip()
            self.next(",")
            value = self.expression()
        self.next(")")
        return value

    def skip(self) -> None:
        """Passes over one argument without evaluating it; what it names must be there all the same."""
        depth = 0
        while self.at < len(self.tokens):
            kind, text = self.tokens[self.at]
            if kind == "sign" and depth == 0 and text in ",)":
                return
            if kind == "name" and text.lower() in ("parameters", "variables") and self.at + 2 < len(self.tokens):
                named = self.tokens[self.at + 2][1].strip("'")
                if named not in getattr(self.scope, text.lower()):
                    raise ExpressionError(f"there is nothing named '{named}' among the {text.lower()}; check the name")
            depth += (kind == "sign" and text in "([") - (kind == "sign" and text in ")]")
            self.at += 1


def _concat(_: Scope, *parts: Any) -> Any:
    if parts and all(isinstance(part, list) for part in parts):
        return [item for part in parts for item in part]
    if any(isinstance(part, list | Mapping) for part in parts):
        raise ValueError("lists and text are mixed")
    return "".join(_text(part) for part in parts)


def _text(value: Any) -> str:
    return ("True" if value else "False") if isinstance(value, bool) else str(value)


def _format(_: Scope, pattern: str, *values: Any) -> str:
    def put(match: re.Match[str]) -> str:
        return _text(values[int(match[1])])

    return re.sub(r"\{(\d+)\}", put, pattern).replace("{{", "{").replace("}}", "}")


def resource_id(base: str, kind: str, *names: str) -> str:
    """The id of a resource below `base`: its type and its names, one name for each part of the type."""
    provider, *types = kind.split("/")
    if not types or len(types) != len(names) or "." not in provider:
        raise ValueError(f"'{kind}' needs {len(types)} name(s), not {len(names)}")
    return f"{base}/providers/{provider}/" + "/".join(f"{one}/{name}" for one, name in zip(types, names, strict=True))


def _resource_id(scope: Scope, *arguments: str) -> str:
    if arguments and "/" not in arguments[0]:
        raise ValueError("another group or subscription is not named here")
    return resource_id(scope.group_id, *arguments)


def _reference(scope: Scope, target: str, *_: str) -> Unknown:
    if not scope.at_run_time:
        raise ExpressionError("reference() is for properties and outputs; names, conditions and variables come earlier")
    return Unknown(target)


def _guid(_: Scope, *parts: str) -> str:
    return str(uuid.uuid5(GUID_NAMESPACE, "-".join(parts)))


def _unique_string(_: Scope, *parts: str) -> str:
    """A stand-in of the same form (13 small letters and digits); Resource Manager's own digest is not published."""
    digest = hashlib.sha256("-".join(parts).encode()).digest()
    return base64.b32encode(digest).decode().lower()[:13]


def _copy_index(scope: Scope, name: str | int = "", offset: int = 0) -> int:
    if isinstance(name, int):
        return _copy_index(scope, "", name)
    if not scope.copies or (name and name not in scope.copies):
        raise ExpressionError("copyIndex() is for what is copied; name the loop that surrounds it")
    return (scope.copies[name] if name else list(scope.copies.values())[-1]) + offset


def _equals(_: Scope, one: Any, other: Any) -> bool:
    return bool(one == other)


def _all(_: Scope, *values: bool) -> bool:
    return all(_bool(value) for value in values)


def _any(_: Scope, *values: bool) -> bool:
    return any(_bool(value) for value in values)


def _bool(value: Any) -> bool:
    if not isinstance(value, bool):
        raise ValueError(f"{value!r} is neither true nor false")
    return value


_FUNCTIONS: dict[str, Callable[..., Any]] = {
    "and": _all,
    "base64": lambda _, text: base64.b64encode(text.encode()).decode(),
    "concat": _concat,
    "copyindex": _copy_index,
    "empty": lambda _, value: not value,
    "equals": _equals,
    "extensionresourceid": lambda _, base, *rest: resource_id(base, *rest),
    "format": _format,
    "guid": _guid,
    "json": lambda _, text: json.loads(text),
    "length": lambda _, value: len(value),
    "listkeys": _reference,
    "not": lambda _, value: not _bool(value),
    "or": _any,
    "parameters": lambda scope, name: scope.parameter(name),
    "reference": _reference,
    "resourcegroup": lambda scope: {"id": scope.group_id, "name": scope.group, "location": scope.location},
    "resourceid": _resource_id,
    "string": lambda _, value: _text(value),
    "subscription": lambda scope: {
        "id": f"/subscriptions/{scope.subscription}",
        "subscriptionId": scope.subscription,
        "tenantId": scope.tenant,
    },
    "subscriptionresourceid": lambda scope, *rest: resource_id(f"/subscriptions/{scope.subscription}", *rest),
    "tolower": lambda _, text: text.lower(),
    "uniquestring": _unique_string,
    "variables": lambda scope, name: scope.variable(name),
}
