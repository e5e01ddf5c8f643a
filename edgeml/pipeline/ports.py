"""Typed inputs and outputs of components, and how a literal is read and rendered.

Azure ML passes a literal to a command as Python's `str()` of its typed value; the rules below are those
that azure-ai-ml applies when it loads a component or a job.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

LITERAL_TYPES = frozenset({"string", "integer", "number", "boolean"})
DATA_TYPES = frozenset({"uri_file", "uri_folder", "mltable", "mlflow_model", "custom_model", "triton_model"})
FILE_TYPES = frozenset({"uri_file"})
ANY = "any"  # the type of an inline job's input that is bound: whatever it is bound to

_TRUE = frozenset({"true", "yes", "on", "y", "1"})
_FALSE = frozenset({"false", "no", "off", "n", "0"})

Literal = str | int | float | bool


class Input(NamedTuple):
    """A declared input: `default` and the bounds are typed values, None where not given."""

    type: str
    optional: bool = False
    default: Any = None
    minimum: float | None = None
    maximum: float | None = None
    enum: tuple[Any, ...] = ()
    mode: str = ""
    line: int = 0

    @property
    def is_literal(self) -> bool:
        return self.type in LITERAL_TYPES


class Output(NamedTuple):
    """A declared output; `type` is empty where only the pipeline's output declares it."""

    type: str = ""
    mode: str = ""
    uri: str = ""
    line: int = 0


def default_value(value: Any, type_: str) -> Literal:
    """A component's default as its declared type: a `number` of 1024 is 1024.0, a `string` of true is "True".

    Raises ValueError where the value is not of the type.
    """
    if type_ == "number":
        return _number(value, as_float=True)
    return typed(value, type_)


def typed(value: Any, type_: str) -> Literal:
    """A value given to an input of a declared type; a number written as an integer stays one.

    Raises ValueError where the value is not of the type.
    """
    if type_ == "string":
        return value if isinstance(value, str) else str(value)
    if type_ == "boolean":
        return _boolean(value)
    if type_ == "integer":
        return _integer(value)
    if type_ == "number":
        return _number(value, as_float=False)
    raise ValueError(f"'{type_}' is not a type of literals")


def render(value: Literal) -> str:
    """The text that a command gets for a literal."""
    return value if isinstance(value, str) else str(value)


def outside(value: Literal, port: Input) -> str:
    """Why a typed value is not within an input's `min`, `max` or `enum`; empty where it is."""
    if port.enum and value not in port.enum and render(value) not in {render(item) for item in port.enum}:
        return "is not one of " + ", ".join(render(item) for item in port.enum)
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        if port.minimum is not None and value < port.minimum:
            return f"is below the minimum {render(port.minimum)}"
        if port.maximum is not None and value > port.maximum:
            return f"is above the maximum {render(port.maximum)}"
    return ""


def literal_type(value: Any) -> str:
    """The type that Azure ML infers for a literal without a declared one."""
    if isinstance(value, bool):
        return "boolean"
    if isinstance(value, int):
        return "integer"
    return "number" if isinstance(value, float) else "string"


def _boolean(value: Any) -> bool:
    if isinstance(value, bool):
        return value
    text = str(value).strip().lower()
    if text in _TRUE:
        return True
    if text in _FALSE:
        return False
    raise ValueError("is not a boolean")


def _integer(value: Any) -> int:
    if isinstance(value, bool):
        raise ValueError("is a boolean, not an integer")
    if isinstance(value, float):
        if value.is_integer():
            return int(value)
        raise ValueError("is not an integer")
    try:
        return int(value)
    except (TypeError, ValueError):
        raise ValueError("is not an integer") from None


def _number(value: Any, *, as_float: bool) -> int | float:
    if isinstance(value, bool):
        raise ValueError("is a boolean, not a number")
    if isinstance(value, str):
        # PyYAML reads `1e-3` as text; Azure ML still takes it as a number.
        try:
            value = int(value)
        except ValueError:
            try:
                value = float(value)
            except ValueError:
                raise ValueError("is not a number") from None
    if not isinstance(value, (int, float)) or (isinstance(value, float) and math.isnan(value)):
        raise ValueError("is not a number")
    return float(value) if as_float else value
