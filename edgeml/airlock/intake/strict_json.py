"""Strict JSON, and schemas that return what they accept, rewritten.

A schema is a function of a value and of its place in the document (`$.metrics.roc_auc`); it returns
the value that may leave, numbers rounded to six significant digits, or raises `Refused`. Places are
made of known keys and of positions only, so that a refusal never repeats what was found.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Iterable
from typing import Any

JSON_DEPTH = 8
OPAQUE_RUN = re.compile(rb"[A-Za-z0-9+/_=-]{512,}")
SHA256 = re.compile(r"(?:sha256:)?([0-9a-f]{64})")
LONG_DECIMAL = re.compile(r"-?\d+\.\d+(?:e[+-]?\d+)?")

Check = Callable[[Any, str], Any]


class Refused(Exception):  # noqa: N818 - a refusal is a decision, not an error
    """Something may not leave: the rule, the file and why, never what was found there."""

    def __init__(self, rule: str, detail: str, file: str = "") -> None:
        super().__init__(rule)
        self.rule, self.detail, self.file = rule, detail, file


def parse_json(data: bytes) -> Any:
    """Strict JSON: UTF-8, no duplicate key, no NaN or infinity, bounded depth."""
    if OPAQUE_RUN.search(data):
        raise Refused("text.opaque", "a run of 512 or more characters that look like an encoding")

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        keys = dict(pairs)
        if len(keys) != len(pairs):
            raise Refused("json.syntax", "a key is given twice")
        return keys

    def constant(_: str) -> Any:
        raise Refused("json.syntax", "NaN or Infinity is not JSON")

    try:
        value = json.loads(data.decode("utf-8"), object_pairs_hook=unique, parse_constant=constant)
    except (ValueError, RecursionError):
        raise Refused("json.syntax", "not valid JSON in UTF-8") from None
    if _depth(value) > JSON_DEPTH:
        raise Refused("json.syntax", f"nested deeper than {JSON_DEPTH} levels")
    return value


def _depth(value: Any) -> int:
    children = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return 1 + max(map(_depth, children), default=0)


def refuse(where: str, expected: str, rule: str = "json.schema") -> Refused:
    return Refused(rule, f"{where}: {expected}")


def number(low: float = -math.inf, high: float = math.inf) -> Check:
    def check(value: Any, where: str) -> float:
        if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
            raise refuse(where, "must be a finite number")
        if not low <= value <= high:
            raise refuse(where, f"must lie between {low:g} and {high:g}")
        return float(f"{value:.6g}")

    return check


def integer(low: int = 0, high: int = 2**53) -> Check:
    def check(value: Any, where: str) -> int:
        if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
            raise refuse(where, f"must be a whole number from {low} to {high}")
        return value

    return check


def count(k: int, *, zero: bool = False) -> Check:
    """A number of rows: k at the least, because fewer could point at a person."""

    def check(value: Any, where: str) -> int:
        rows: int = integer()(value, where)
        if rows < k and not (zero and rows == 0):
            raise refuse(where, f"a count below k={k} must be suppressed", "count.small")
        return rows

    return check


def boolean(value: Any, where: str) -> bool:
    if not isinstance(value, bool):
        raise refuse(where, "must be true or false")
    return value


def text(pattern: re.Pattern[str], digits: int = 6) -> Check:
    """A string that matches the whole pattern; decimal numbers in it are rounded."""

    def check(value: Any, where: str) -> str:
        if not isinstance(value, str) or not pattern.fullmatch(value):
            raise refuse(where, "must be a short string of the permitted form")
        return LONG_DECIMAL.sub(lambda found: f"{float(found[0]):.{digits}g}", value)

    return check


def digest(value: Any, where: str) -> str:
    match = SHA256.fullmatch(value) if isinstance(value, str) else None
    if match is None:
        raise refuse(where, "must be a SHA-256")
    return match[1]


def one_of(values: Iterable[Any]) -> Check:
    permitted = {(type(value), value) for value in values}

    def check(value: Any, where: str) -> Any:
        if isinstance(value, dict | list) or (type(value), value) not in permitted:
            raise refuse(where, "must be one of the permitted values")
        return value

    return check


def array(item: Check, at_most: int, at_least: int = 0) -> Check:
    def check(value: Any, where: str) -> list[Any]:
        if not isinstance(value, list) or not at_least <= len(value) <= at_most:
            raise refuse(where, f"must be a list of {at_least} to {at_most}")
        return [item(element, f"{where}[{index}]") for index, element in enumerate(value)]

    return check


def mapping(key: Check, item: Check, at_most: int = 50) -> Check:
    def check(value: Any, where: str) -> dict[str, Any]:
        if not isinstance(value, dict) or len(value) > at_most:
            raise refuse(where, f"must be an object of at most {at_most} keys")
        places = [f"{where}.#{index}" for index in range(len(value))]
        return {key(k, place): item(v, place) for place, (k, v) in zip(places, value.items(), strict=True)}

    return check


def record(required: dict[str, Check], optional: dict[str, Check] | None = None) -> Check:
    """An object of exactly these keys."""
    checks = {**required, **(optional or {})}

    def check(value: Any, where: str) -> dict[str, Any]:
        if not isinstance(value, dict):
            raise refuse(where, "must be an object")
        if missing := sorted(set(required) - set(value)):
            raise refuse(where, f"lacks {', '.join(missing)}")
        if unknown := len(set(value) - set(checks)):
            raise refuse(where, f"has {unknown} keys beside {', '.join(sorted(checks))}")
        return {name: checks[name](item, f"{where}.{name}") for name, item in value.items()}

    return check


def either(*choices: Check) -> Check:
    def check(value: Any, where: str) -> Any:
        refused = None
        for choice in choices:
            try:
                return choice(value, where)
            except Refused as error:
                refused = error
        raise refused or refuse(where, "is not permitted")

    return check
