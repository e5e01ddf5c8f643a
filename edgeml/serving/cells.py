"""JSON values of tensors, as types that msgspec checks while it parses: no value reaches numpy that does not fit.

JSON has no NaN and no infinity. A missing number is `null`, which becomes NaN where the model takes floats, as it
did in training; a missing text is the empty text.
"""

from __future__ import annotations

import re
from typing import Annotated, Any

import msgspec
import numpy as np

from edgeml.serving.refusal import Refusal
from edgeml.serving.signature import Column

BROKEN = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)  # msgspec's, of what is no JSON
_AT = re.compile(r" - at `\$(.*)`\Z", re.DOTALL)


def of_column(column: Column) -> Any:
    """The type of one cell of a column; nested lists where the model takes more than one value of it per row."""
    missing = np.dtype(column.dtype).kind in "fO"
    cell = of_dtype("bool" if column.kind == "boolean" else column.dtype, whole=column.kind == "integer")
    cell = cell | None if missing else cell
    for _ in column.shape:
        cell = list[cell]  # type: ignore[valid-type]
    return cell


def of_dtype(dtype: str, *, whole: bool = False) -> Any:
    """The type of one element; `whole` asks for an integer where the model takes floats."""
    kind = np.dtype(dtype).kind
    if kind == "O":
        return str
    if kind == "b":
        return bool
    if kind in "iu":
        low, high = int(np.iinfo(dtype).min), int(np.iinfo(dtype).max)
        # A bound of msgspec is a signed integer of 64 bits; numpy refuses what is too large for an unsigned one.
        return Annotated[int, msgspec.Meta(ge=low, le=high if high < 2**63 else None)]
    if whole:
        return Annotated[int, msgspec.Meta(ge=-(2**63), le=2**63 - 1)]
    largest = float(np.finfo(dtype).max)
    return Annotated[float, msgspec.Meta(ge=-largest, le=largest)]


def array(values: Any, dtype: str) -> np.ndarray:
    """An array of checked values, missing ones as the model knows them.

    Raises ValueError where nested lists are not rectangular, OverflowError where an unsigned integer is too large.
    """
    made = np.array(values, dtype=dtype)
    if made.dtype == object:
        made[made == None] = ""  # noqa: E711 - element by element
    return made


def broken(error: Exception) -> Refusal:
    """The refusal for a body that is no JSON, by one of the errors BROKEN."""
    if isinstance(error, msgspec.DecodeError):
        return Refusal(400, f"the body is not valid JSON: {str(error).removeprefix('JSON is malformed: ')}")
    if isinstance(error, RecursionError):
        return Refusal(400, "the body is nested too deeply")
    return Refusal(400, "the body is not UTF-8")


def split(error: msgspec.ValidationError) -> tuple[str, str]:
    """What msgspec found, and where: `Expected ...` and a path such as `[0].name`."""
    text = str(error)
    at = _AT.search(text)
    return (text[: at.start()], at[1]) if at else (text, "")
