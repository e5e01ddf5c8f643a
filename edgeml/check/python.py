"""Python files as syntax trees: read with limits, never imported and never run."""

from __future__ import annotations

import ast
import io
import os
import warnings
from functools import cached_property
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    import symtable

MAX_BYTES = 1 << 20


class Problem(NamedTuple):
    """Why a file cannot be read as Python, and where (line and column from 1)."""

    message: str
    line: int = 1
    column: int = 1


class Module:
    """A Python file: its text at once, its tree when it is asked for."""

    def __init__(self, path: str) -> None:
        self.path = path
        self._content = b""
        self._problem: Problem | None = None
        try:
            if os.path.getsize(path) > MAX_BYTES:
                self._problem = Problem(f"it has more than {MAX_BYTES >> 20} MiB")
                return
            with open(path, "rb") as stream:
                self._content = stream.read()
        except OSError as error:
            self._problem = Problem(error.strerror or "it cannot be read")

    @cached_property
    def text(self) -> str:
        return self._content.decode("utf-8", "replace")

    @property
    def tree(self) -> ast.Module | None:
        """The syntax tree, None where there is a problem."""
        return self._parsed[0]

    @property
    def comments(self) -> list[str]:
        """The lines with all but their comments blanked: what looks like one in a text is none."""
        lines = self.text.splitlines()
        if "edgeml:" not in self.text:
            return lines
        import tokenize

        kept = [""] * len(lines)
        try:
            for token in tokenize.generate_tokens(io.StringIO(self.text).readline):
                if token.type == tokenize.COMMENT:
                    row, column = token.start
                    kept[row - 1] = ("x" if token.line[:column].strip() else " ") * column + token.string
        except (tokenize.TokenError, SyntaxError, IndexError):
            return lines
        return kept

    @property
    def problem(self) -> Problem | None:
        return self._parsed[1]

    @cached_property
    def _parsed(self) -> tuple[ast.Module | None, Problem | None]:
        if self._problem is not None:
            return None, self._problem
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # those of the author's code, such as odd escapes
                return ast.parse(self._content), None
        except SyntaxError as error:
            return None, Problem(error.msg or "invalid syntax", error.lineno or 1, max(error.offset or 1, 1))
        except (ValueError, RecursionError, MemoryError) as error:
            return None, Problem(" ".join(str(error).split()) or "it nests too deep")


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


def shared_arguments(module: Module) -> list[tuple[ast.Name, str]]:
    """Where functions read a global that only the main part sets to parsed arguments: the first place of each name."""
    if "__main__" not in module.text or module.tree is None:
        return []
    main = [node for node in module.tree.body if _is_main(node)]
    names = {name for node in main for name in _parsed(node)}
    for node in module.tree.body:
        if node not in main and names:
            names -= {inner.id for inner in _bound(node)}
    if not names:
        return []
    import symtable

    try:
        table = symtable.symtable(module.text, module.path, "exec")
    except (SyntaxError, ValueError, RecursionError):
        return []
    found: list[tuple[ast.Name, str]] = []
    for name in sorted(names):
        lines = _readers(table, name)
        reads = [
            node
            for function in ast.walk(module.tree)
            if isinstance(function, (ast.FunctionDef, ast.AsyncFunctionDef)) and function.lineno in lines
            for node in ast.walk(function)
            if isinstance(node, ast.Name) and node.id == name and isinstance(node.ctx, ast.Load)
        ]
        if reads:
            found.append((min(reads, key=lambda node: (node.lineno, node.col_offset)), name))
    return found


def _is_main(node: ast.stmt) -> bool:
    """Whether a statement is `if __name__ == "__main__":`."""
    test = node.test if isinstance(node, ast.If) else None
    if not isinstance(test, ast.Compare) or len(test.comparators) != 1:
        return False
    sides = (test.left, test.comparators[0])
    name = any(isinstance(side, ast.Name) and side.id == "__name__" for side in sides)
    return name and any(isinstance(side, ast.Constant) and side.value == "__main__" for side in sides)


def _parsed(node: ast.stmt) -> set[str]:
    """Names that a statement sets to what a parser of arguments gives."""
    made: set[str] = set()
    for inner in ast.walk(node):
        if isinstance(inner, ast.Assign) and isinstance(inner.value, ast.Call):
            function = inner.value.func
            called = function.attr if isinstance(function, ast.Attribute) else getattr(function, "id", "")
            if "parse" in called or "args" in called.lower():
                made |= {target.id for target in _bound(inner)}
    return made


def _bound(node: ast.AST) -> list[ast.Name]:
    """Names that are set outside functions, or declared global within one."""
    found: list[ast.Name] = []
    waiting = [node]
    while waiting:
        here = waiting.pop()
        if isinstance(here, ast.Name) and isinstance(here.ctx, ast.Store):
            found.append(here)
        elif isinstance(here, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)):
            for inner in ast.walk(here):
                if isinstance(inner, ast.Global):
                    found += [ast.Name(name, ast.Store()) for name in inner.names]
            continue
        waiting += ast.iter_child_nodes(here)
    return found


def _readers(table: symtable.SymbolTable, name: str) -> set[int]:
    """Lines of the functions that read a global of this name."""
    lines: set[int] = set()
    waiting = list(table.get_children())
    while waiting:
        here = waiting.pop()
        waiting += here.get_children()
        if here.get_type() == "function" and name in here.get_identifiers():
            symbol = here.lookup(name)
            if symbol.is_global() and symbol.is_referenced():
                lines.add(here.get_lineno())
    return lines
