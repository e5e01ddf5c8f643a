"""The snapshot of `release_artifacts` is the gate and nothing else of the package."""

from __future__ import annotations

import ast
from pathlib import Path

from edgeml.engine import snapshot

ROOT = Path(__file__).resolve().parents[2]
COMPONENT = ROOT / "components/release_artifacts"
# What `python -m edgeml airlock check` begins with; a verb's module is imported by its name.
START = ("edgeml/__main__.py", "edgeml/commands/airlock.py")


def test_the_snapshot_holds_nothing_that_the_gate_does_not_import() -> None:
    listed = {name for name, _ in snapshot.contents(str(COMPONENT), [str(ROOT / "edgeml")])}
    package = listed - {"component.yml"}
    assert sorted(package - reached(package)) == [], "name it in edgeml/.amlignore"


def test_the_snapshot_holds_the_gate() -> None:
    """Every module of the airlock but the one that prints a table for the docs."""
    listed = {name for name, _ in snapshot.contents(str(COMPONENT), [str(ROOT / "edgeml")])}
    gate = {str(path.relative_to(ROOT)) for path in (ROOT / "edgeml/airlock").rglob("*.py")}
    assert gate - listed == {"edgeml/airlock/__main__.py"}


def reached(package: set[str]) -> set[str]:
    """The files of the package that an import leads to, without what is left out of it."""
    found: set[str] = set()
    todo = list(START)
    while todo:
        name = todo.pop()
        if name in package and name not in found:
            found.add(name)
            todo += [str(folder / "__init__.py") for folder in Path(name).parents]
            todo += imported(name)
    return found


def imported(name: str) -> list[str]:
    """The files that a module's imports may mean, wherever in it they stand."""
    modules: list[str] = []
    for node in ast.walk(ast.parse((ROOT / name).read_text("utf-8"))):
        if isinstance(node, ast.Import):
            modules += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            modules += [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
    paths = [module.replace(".", "/") for module in modules]
    return [f"{path}{end}" for path in paths for end in (".py", "/__init__.py")]
