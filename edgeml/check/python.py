"""Python files as syntax trees: read with limits, never imported and never run."""

from __future__ import annotations

import ast
import os
import warnings
from collections.abc import Iterator
from typing import NamedTuple

MAX_BYTES = 1 << 20


class Module(NamedTuple):
    """A file's tree, None where it cannot be read; `problem` then says why, at `line` and `column` (from 1)."""

    path: str
    text: str
    tree: ast.Module | None
    problem: str = ""
    line: int = 1
    column: int = 1


def read(path: str) -> Module:
    """The tree of a Python file; what cannot be parsed is told by `problem`, never raised."""
    try:
        if os.path.getsize(path) > MAX_BYTES:
            return Module(path, "", None, f"it has more than {MAX_BYTES >> 20} MiB")
        with open(path, "rb") as stream:
            content = stream.read()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # those of the author's code, such as odd escapes
            tree = ast.parse(content)
    except SyntaxError as error:
        return Module(path, "", None, error.msg or "invalid syntax", error.lineno or 1, max(error.offset or 1, 1))
    except (OSError, ValueError, RecursionError, MemoryError) as error:
        return Module(path, "", None, " ".join(str(error).split()) or type(error).__name__)
    return Module(path, content.decode("utf-8", "replace"), tree)




def imported(tree: ast.Module) -> dict[str, str]:
    """What the names bound by imports anywhere in a file stand for: `s` is `mlflow.sklearn`."""
    names: dict[str, str] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                top = alias.name.partition(".")[0]
                names[alias.asname or top] = alias.name if alias.asname else top
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            for alias in node.names:
                names[alias.asname or alias.name] = f"{node.module}.{alias.name}"
    return names


def dotted(node: ast.expr, names: dict[str, str]) -> str:
    """What `a.b.c` names, with its first part as imported; empty for any other expression."""
    parts: list[str] = []
    while isinstance(node, ast.Attribute):
        parts.append(node.attr)
        node = node.value
    if not isinstance(node, ast.Name):
        return ""
    parts.append(names.get(node.id, node.id))
    return ".".join(reversed(parts))
