"""The data contract, the table as the contract sees it, and how a step fails.

What the components share, as one file beside their folders: each names it in `additional_includes`,
so that it lies next to their script wherever they run. It decides nothing that belongs to a step.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import re
import sys
import traceback
import warnings
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    import polars as pl

TYPES: dict[str, tuple[type, ...]] = {"string": (str,), "integer": (int,), "number": (int, float), "boolean": (bool,)}
METRICS = {
    "classification": ("roc_auc", "average_precision", "accuracy", "f1", "brier", "log_loss"),
    "regression": ("r2", "rmse", "mae"),
}
NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]{0,63}")
FLAGS = ("required", "nullable", "unique", "public", "feature")
LOWEST_K = 5


class Refusal(Exception):  # noqa: N818 - a step that refuses has not gone wrong
    """A foreseeable failure, told by one sentence (cause; fix) that holds no private value."""


def guarded(name: str, work: Callable[[], None]) -> int:
    """Run a step and return its exit code, printing nothing that could quote a private value.

    Messages of libraries quote cells, so an unforeseen error is told by its type and place alone, a
    warning by its category.
    """

    def warned(message: Warning | str, category: type[Warning], *_: Any) -> None:
        print(f"{name}: {category.__name__}; the message is withheld, it may quote private values", file=sys.stderr)

    with warnings.catch_warnings():
        warnings.showwarning = warned  # type: ignore[assignment]
        try:
            work()
            return 0
        except Refusal as refusal:
            print(f"{name}: {refusal}", file=sys.stderr)
        except (KeyboardInterrupt, SystemExit):
            raise
        except BaseException as error:  # a panic of polars is no Exception
            frames = traceback.extract_tb(error.__traceback__)
            ours = [frame for frame in frames if "site-packages" not in frame.filename][-1]
            place = f"{type(error).__name__} at {os.path.basename(ours.filename)}:{ours.lineno}"
            print(f"{name}: {place}; the message is withheld, it may quote private values", file=sys.stderr)
    return 1


# --- the contract ---------------------------------------------------------------------------------


@dataclass(frozen=True)
class Column:
    """What one column must hold. `feature: false` keeps a column out of the model."""

    name: str
    type: str
    required: bool = True
    nullable: bool = False
    unique: bool = False
    min: float | None = None
    max: float | None = None
    allowed: tuple[Any, ...] | None = None
    pattern: str | None = None
    public: bool = False
    feature: bool = True

    @property
    def may_be_null(self) -> bool:
        return self.nullable or not self.required


@dataclass(frozen=True)
class Contract:
    """A data contract as read and checked by `load`."""

    name: str
    version: int
    key: str
    target: str
    task: str
    columns: dict[str, Column]
    positive: str | None
    k: int
    slices: tuple[str, ...]
    thresholds: dict[str, float]
    min_rows: int
    sha256: str

    @property
    def features(self) -> list[Column]:
        """Every declared column that is neither the key, nor the target, nor `feature: false`, in order of name."""
        named = sorted(self.columns.items())
        return [column for name, column in named if column.feature and name not in (self.key, self.target)]

    @property
    def classes(self) -> list[str]:
        """The classes of the target as text, sorted; empty for regression."""
        if self.task == "regression":
            return []
        allowed = self.columns[self.target].allowed
        return sorted(as_text(value) for value in (allowed if allowed is not None else (False, True)))

    @property
    def identity(self) -> dict[str, Any]:
        return {"name": self.name, "version": self.version, "sha256": self.sha256}


def as_text(value: Any) -> str:
    """A category as it is written: booleans as in YAML and JSON."""
    return str(value).lower() if isinstance(value, bool) else str(value)


def load(path: Path) -> Contract:
    """Read a contract strictly; raise Refusal with the file and the key of the first mistake."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise Refusal(f"the contract cannot be read ({error.strerror}); give the path of a YAML file") from None
    try:
        return _contract(_yaml(data), hashlib.sha256(data).hexdigest())
    except _Mistake as mistake:
        raise Refusal(f"{path.name}: {mistake}") from None


class _Mistake(Exception):  # noqa: N818
    pass


def _yaml(data: bytes) -> Any:
    import yaml

    class Strict(yaml.SafeLoader):
        """The safe loader, but a key given twice is a mistake and not silently the last."""

        def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
            keys = [key.value for key, _ in node.value if isinstance(key, yaml.ScalarNode)]
            for key in keys:
                if keys.count(key) > 1:
                    raise _Mistake(f"line {node.start_mark.line + 1}: {key} is given twice; keep one")
            return super().construct_mapping(node, deep)

    try:
        return yaml.load(data, Strict)  # noqa: S506 - Strict is a SafeLoader
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        line = getattr(getattr(error, "problem_mark", None), "line", None)
        raise _Mistake(f"not valid YAML{'' if line is None else f' near line {line + 1}'}; mend it") from None


def _contract(document: Any, sha256: str) -> Contract:
    known = ["name", "version", "key", "target", "task", "positive", "k", "columns", "slices", "thresholds", "rows"]
    document = _mapping(document, "", known, ["name", "version", "key", "target", "task", "columns"])
    name = _value(document, "name", str)
    if not NAME.fullmatch(name):
        raise _Mistake("name: use letters, digits, _, . and -, at most 64")
    version = _whole(document, "version", 1)
    k = _whole(document, "k", LOWEST_K, 10)
    task = _value(document, "task", str)
    if task not in METRICS:
        raise _Mistake(f"task: must be one of {', '.join(METRICS)}")
    columns = {str(column): _column(str(column), rules) for column, rules in _items(document, "columns")}
    key, target = (_declared(document[role], role, columns) for role in ("key", "target"))
    if key == target:
        raise _Mistake("target: must not be the key")
    if columns[key].public:
        raise _Mistake(f"columns.{key}.public: the key identifies rows and is never public")
    for role, column in (("key", columns[key]), ("target", columns[target])):
        if column.may_be_null:
            raise _Mistake(f"columns.{column.name}: the {role} must be required and not nullable")
    thresholds = {
        str(metric): _number(value, f"thresholds.{metric}") for metric, value in _items(document, "thresholds")
    }
    for metric in thresholds:
        if metric not in METRICS[task]:
            raise _Mistake(f"thresholds.{metric}: unknown for {task}; choose among {', '.join(METRICS[task])}")
    slices = document.get("slices") or []
    if not isinstance(slices, list):
        raise _Mistake("slices: must be a list of columns")
    for column in slices:
        _slice(columns[_declared(column, "slices", columns)], key, target)
    rows = _mapping(document.get("rows") or {}, "rows", ["min_rows"], [])
    contract = Contract(
        name=name,
        version=version,
        key=key,
        target=target,
        task=task,
        columns=columns,
        positive=None,
        k=k,
        slices=tuple(slices),
        thresholds=thresholds,
        min_rows=_whole(rows, "min_rows", 1, 100, "rows."),
        sha256=sha256,
    )
    return _with_positive(contract, document.get("positive"))


def _with_positive(contract: Contract, positive: Any) -> Contract:
    """The contract with its positive class, once target and task are seen to agree."""
    from dataclasses import replace

    target, where = contract.columns[contract.target], f"columns.{contract.target}"
    if contract.task == "regression":
        if positive is not None:
            raise _Mistake("positive: only for classification; remove it")
        if target.type not in ("number", "integer"):
            raise _Mistake(f"{where}.type: the target of a regression is a number or an integer")
        return contract
    if target.type == "number":
        raise _Mistake(f"{where}.type: the target of a classification is a string, an integer or a boolean")
    if target.type != "boolean" and (target.allowed is None or len(target.allowed) < 2 or not target.public):
        raise _Mistake(f"{where}: class names leave with the model; list two or more as allowed, with public: true")
    if as_text(positive) not in contract.classes:
        raise _Mistake(f"positive: must be one of the classes {', '.join(contract.classes)}")
    return replace(contract, positive=as_text(positive))


def _slice(column: Column, key: str, target: str) -> None:
    if column.name in (key, target):
        raise _Mistake(f"slices: {column.name} is the key or the target; choose other columns")
    if column.type == "string" and (column.allowed is None or not column.public):
        raise _Mistake(f"slices: the values of {column.name} would be published; declare allowed and public: true")


def _column(name: str, rules: Any) -> Column:
    where = f"columns.{name}"
    known = ["type", *FLAGS, "min", "max", "allowed", "pattern"]
    rules = _mapping(rules, where, known, ["type"])
    if not NAME.fullmatch(name):
        raise _Mistake(f"{where}: a column's name has letters, digits, _, . and -, at most 64")
    kind = rules["type"]
    if not isinstance(kind, str) or kind not in TYPES:
        raise _Mistake(f"{where}.type: must be one of {', '.join(TYPES)}")
    for rule, kinds in (("min", "number integer"), ("max", "number integer"), ("allowed", "string integer")):
        if rule in rules and kind not in kinds.split():
            raise _Mistake(f"{where}.{rule}: not for type {kind}")
    if "pattern" in rules and kind != "string":
        raise _Mistake(f"{where}.pattern: not for type {kind}")
    low, high = (_number(rules[end], f"{where}.{end}") if end in rules else None for end in ("min", "max"))
    if low is not None and high is not None and low > high:
        raise _Mistake(f"{where}.min: must not exceed max")
    flags = {flag: _flag(rules, flag, where) for flag in FLAGS if flag in rules}
    return Column(
        name, kind, min=low, max=high, allowed=_allowed(rules, kind, where), pattern=_pattern(rules, where), **flags
    )


def _allowed(rules: dict[str, Any], kind: str, where: str) -> tuple[Any, ...] | None:
    if "allowed" not in rules:
        return None
    values = rules["allowed"]
    if not isinstance(values, list) or not values:
        raise _Mistake(f"{where}.allowed: must be a list of values")
    if any(type(value) not in TYPES[kind] or value == "" for value in values):
        raise _Mistake(f"{where}.allowed: every value must be a {kind} that is not empty; quote what YAML misreads")
    if len(set(values)) != len(values):
        raise _Mistake(f"{where}.allowed: a value is given twice; keep one")
    return tuple(values)


def _pattern(rules: dict[str, Any], where: str) -> str | None:
    if "pattern" not in rules:
        return None
    try:
        re.compile(rules["pattern"])
    except (re.error, TypeError):
        raise _Mistake(f"{where}.pattern: not a regular expression; it must match the whole value") from None
    return str(rules["pattern"])


def _flag(rules: dict[str, Any], flag: str, where: str) -> bool:
    if not isinstance(rules[flag], bool):
        raise _Mistake(f"{where}.{flag}: must be true or false")
    return bool(rules[flag])


def _mapping(value: Any, where: str, known: Iterable[str], needed: Iterable[str]) -> dict[str, Any]:
    place = f"{where}." if where else ""
    if not isinstance(value, dict):
        raise _Mistake(f"{where or 'the document'}: must be a mapping")
    for key in value:
        if key not in known:
            raise _Mistake(f"{place}{key}: unknown key; known are {', '.join(known)}")
    for key in needed:
        if key not in value:
            raise _Mistake(f"{place}{key}: is missing; add it")
    return value


def _items(document: dict[str, Any], key: str) -> Iterable[tuple[Any, Any]]:
    value = document.get(key) or {}
    if not isinstance(value, dict):
        raise _Mistake(f"{key}: must be a mapping")
    return value.items()


def _value(document: dict[str, Any], key: str, kind: type) -> Any:
    if not isinstance(document[key], kind):
        raise _Mistake(f"{key}: must be a {kind.__name__}")
    return document[key]


def _whole(document: dict[str, Any], key: str, low: int, default: int | None = None, place: str = "") -> int:
    value = document.get(key, default)
    if type(value) is not int or value < low:
        raise _Mistake(f"{place}{key}: must be a whole number, {low} or more")
    return value


def _number(value: Any, where: str) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise _Mistake(f"{where}: must be a number (in YAML 1e-3 is text; write 0.001)")
    return float(value)


def _declared(name: Any, where: str, columns: dict[str, Column]) -> str:
    if not isinstance(name, str) or name not in columns:
        raise _Mistake(f"{where}: {name} is not declared under columns")
    return name


# --- the table ------------------------------------------------------------------------------------


def read_parts(folder: Path) -> pl.DataFrame:
    """All rows of a folder of Parquet parts, with the columns they come with."""
    import polars as pl

    parts = sorted(folder.glob("*.parquet"))
    if not parts:
        raise Refusal("the table holds no Parquet part; give the folder that ingest_blobs wrote")
    frames = []
    for number, part in enumerate(parts):
        try:
            frames.append(pl.read_parquet(part))
        except Exception as error:  # its message may quote the file
            reason = type(error).__name__
            raise Refusal(f"part {number} of the table is not readable Parquet ({reason}); ingest again") from None
    if any(frame.schema != frames[0].schema for frame in frames):
        raise Refusal("the parts of the table differ in columns or types; ingest them again, together")
    return pl.concat(frames)


def normalise(table: pl.DataFrame, contract: Contract) -> pl.DataFrame:
    """One width per type: numbers as Float64 (NaN is null), integers as Int64, text as String.

    A column of another type than declared is left as it is.
    """
    import polars as pl

    wanted = []
    for name, dtype in table.schema.items():
        kind = contract.columns[name].type if name in contract.columns else None
        if kind == "number" and dtype.is_numeric():
            wanted.append(pl.col(name).cast(pl.Float64).fill_nan(None))
        elif kind == "integer" and dtype.is_integer() and dtype != pl.UInt64:
            wanted.append(pl.col(name).cast(pl.Int64))
        elif kind == "string" and dtype in (pl.Categorical, pl.Enum):
            wanted.append(pl.col(name).cast(pl.String))
    return table.with_columns(wanted)


def read_table(folder: Path, contract: Contract) -> pl.DataFrame:
    """The declared columns of a validated table, in the contract's order; an absent optional column is null."""
    import polars as pl

    table, types = normalise(read_parts(folder), contract), polars_types()
    for name, column in contract.columns.items():
        if name not in table.columns and not column.required:
            table = table.with_columns(pl.lit(None, types[column.type]).alias(name))
        if name not in table.columns or table.schema[name] != types[column.type]:
            raise Refusal(f"column {name} is missing or not of type {column.type}; validate this table first")
    return table.select(list(contract.columns))


def polars_types() -> dict[str, type[pl.DataType]]:
    import polars as pl

    return {"string": pl.String, "integer": pl.Int64, "number": pl.Float64, "boolean": pl.Boolean}


def model_inputs(table: pl.DataFrame, features: Iterable[tuple[str, str]]) -> dict[str, np.ndarray]:
    """What a model is fed, by name: (N, 1) float32 with NaN for null, or (N, 1) text with "" for null."""
    import polars as pl

    arrays: dict[str, np.ndarray] = {}
    for name, kind in features:
        if kind == "string":
            arrays[name] = table[name].fill_null("").to_numpy().astype(object).reshape(-1, 1)
        else:
            numbers = table[name].cast(pl.Float32, strict=False).fill_null(float("nan"))
            arrays[name] = numbers.to_numpy().reshape(-1, 1)
    return arrays


def write_json(path: Path, document: Any) -> None:
    """Sorted and indented, floats to six significant digits, so that the same content gives the same bytes."""
    text = json.dumps(_six_digits(document), indent=2, sort_keys=True, allow_nan=False)
    path.write_text(text + "\n", encoding="utf-8")


def _six_digits(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _six_digits(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_six_digits(item) for item in value]
    return float(f"{value:.6g}") if isinstance(value, float) else value
