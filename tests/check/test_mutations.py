"""Good trees with one thing broken: nearly every mutation that changes the meaning must be found.

Trees of both corpora are read, one value is changed by hypothesis, and the tree is written and checked. A mutation is
made only where it matters: an input that some node gives, a literal that has limits, a name that something refers to.
"""

from __future__ import annotations

import copy
import re
import shutil
from collections import Counter
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edgeml.check import check, kinds
from edgeml.check.document import read

ROOT = Path(__file__).parents[2]
CONFORMANCE, OWN = ROOT / "tests/conformance/corpus", ROOT / "tests/corpus/good"
EXAMPLES = 800
DATA = {"uri_file", "uri_folder", "mltable", "mlflow_model", "custom_model"}
NAMED = {"inputs", "outputs", "jobs", "search_space", "environment_variables", "tags", "properties", "transformations"}
_BINDING = re.compile(r"\$\{\{\s*((?:parent|inputs|outputs)\.[\w.]+)\s*\}\}")
Path_ = tuple[Any, ...]


class Mutation(NamedTuple):
    """One change of one file of a tree: of the value at a path, or of its key."""

    tree: str
    file: str
    kind: str
    path: Path_
    value: Any = None


class Tree(NamedTuple):
    """The YAML files of a tree, and those of other folders that it refers to, by path relative to the corpus."""

    name: str
    files: dict[str, Any]


def walk(value: Any, path: Path_ = ()) -> Iterator[tuple[Path_, Any]]:
    yield path, value
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in items:
        yield from walk(inner, (*path, key))


def is_name(path: Path_) -> bool:
    """Whether the key at the end of a path was chosen by the author."""
    return len(path) > 1 and path[-2] in NAMED and not (len(path) > 2 and path[-3] in ("inputs", "outputs"))


def trees() -> list[Tree]:
    made = []
    for corpus in (CONFORMANCE, OWN):
        for folder in sorted(path for path in corpus.iterdir() if path.is_dir()):
            if folder.name.startswith(("bad-", "lenient-", "undeclared-")) or folder.name == "common":
                continue
            ours = [
                path for path in folder.rglob("*.yml") if path.name not in ("expected.yml", "map.yml", "assets.yml")
            ]
            ours = [path for path in ours if kinds.kind_of(read(str(path))[0]) is not None]
            text = "".join(path.read_text() for path in ours)
            if "edgeml: allow" in text:
                continue  # comments are not dumped again
            common = [CONFORMANCE / "common" / name for name in set(re.findall(r"\.\./common/(\w+\.yml)", text))]
            files = {str(path.relative_to(corpus)): yaml.safe_load(path.read_text()) for path in [*ours, *common]}
            made.append(Tree(folder.name, files))
    return made


def of_tree(tree: Tree) -> Iterator[Mutation]:
    nodes = [node for data in tree.files.values() for node in nodes_of(data)]
    given = {key for node in nodes for key, value in (node.get("inputs") or {}).items() if value is not None}
    used = {str(node.get("component", node.get("trial"))).rpartition("/")[2] for node in nodes}
    for file, data in tree.files.items():
        of_it = Path(file).name in used
        for path, value in walk(data):
            for kind, new in of_value(path, value, data, given if of_it else set()):
                yield Mutation(tree.name, file, kind, path, new)
    for file, data in tree.files.items():
        for path, value, port in literals(tree, file, data):
            yield from of_literal(tree, file, path, value, port)


def nodes_of(data: Any) -> Iterator[dict[str, Any]]:
    jobs = data.get("jobs") if isinstance(data, dict) else None
    for node in (jobs or {}).values():
        if isinstance(node, dict):
            yield node
            yield from nodes_of(node)


def of_value(path: Path_, value: Any, data: dict[str, Any], given: set[Any]) -> Iterator[tuple[str, Any]]:
    if not path:
        return
    key = path[-1]
    if isinstance(key, str) and not is_name(path) and len(key) > 3 and key not in ("value", "description"):
        yield "misspell a key", None
    if isinstance(key, str):
        yield "duplicate a key", None
    if path in {("command",), ("jobs",)} or (key in ("component", "trial") and "jobs" in path and is_job(path[:-1])):
        yield "drop a required key", None
    if key == "type" and len(path) == 3 and path[0] == "inputs" and "jobs" not in data:
        yield "drop a required key", None
        if path[1] in given:
            yield "swap a type", "integer" if value in DATA else "uri_folder"
    is_local = isinstance(value, str) and value.startswith((".", "file:."))
    if is_local and key in ("component", "code", "path", "trial", "conda_file") and "${{" not in value:
        yield "break a path", value + "_absent"
    if isinstance(value, str) and key not in ("display_name", "description"):
        for match in _BINDING.finditer(value):
            yield "rename a binding", value[: match.end(1)] + "_x" + value[match.end(1) :]
            if match[1].startswith("parent."):
                yield "break a binding", value.replace(match[0], match[0].replace("parent.", "parents."), 1)
                yield "break a binding", value.replace(match[0], "${{" + match[1].removeprefix("parent.") + "}}", 1)
    if len(path) == 2 and path[0] in ("inputs", "outputs"):
        side = path[0]
        uses = [f"{{{side}.{key}}}", f"parent.{side}.{key}}}", f" {side}.{key} "]
        if any(use in yaml.dump(data, width=10_000) for use in uses):
            yield "remove a declared port", None


def is_job(path: Path_) -> bool:
    return len(path) > 1 and path[-2] == "jobs"


def literals(tree: Tree, file: str, data: Any) -> Iterator[tuple[Path_, Any, dict[str, Any]]]:
    """The literals that nodes give to declared ports of component files, with the port, and required data inputs."""
    for path, node in walk(data):
        if not is_job(path) or not isinstance(node, dict) or not isinstance(node.get("component"), str):
            continue
        target = (Path(file).parent / node["component"].removeprefix("file:")).as_posix()
        parts: list[str] = []
        for part in target.split("/"):
            parts = parts[:-1] if part == ".." else [*parts, part]
        component = tree.files.get("/".join(part for part in parts if part != "."))
        ports = (component or {}).get("inputs") or {}
        for key, value in (node.get("inputs") or {}).items():
            port = ports.get(key)
            if isinstance(port, dict) and "jobs" not in (component or {}):
                yield (*path, "inputs", key), value, port


def of_literal(tree: Tree, file: str, path: Path_, value: Any, port: dict[str, Any]) -> Iterator[Mutation]:
    type_ = port.get("type")
    if not port.get("optional") and "default" not in port:
        yield Mutation(tree.name, file, "remove a given input", path)
    if isinstance(value, (dict, list)) or "${{" in str(value):
        return
    if type_ in ("integer", "number", "boolean"):
        yield Mutation(tree.name, file, "another type's literal", path, "many")
    for limit, by in (("min", -1), ("max", 1)):
        if limit in port:
            yield Mutation(
                tree.name,
                file,
                "out of range",
                path,
                float(port[limit]) + by if type_ == "number" else int(port[limit]) + by,
            )
    if port.get("enum"):
        yield Mutation(tree.name, file, "out of range", path, "none_of_these")


@cache
def mutations() -> tuple[list[Tree], list[Mutation]]:
    found = trees()
    # Kinds with many places must not crowd out those with few.
    return found, [mutation for tree in found for mutation in of_tree(tree)]


def mutated(data: Any, mutation: Mutation, at: int) -> str:
    """The text of a file after one mutation; `at` chooses how a key is misspelt."""
    data = copy.deepcopy(data)
    parent = data
    for step in mutation.path[:-1]:
        parent = parent[step]
    key = mutation.path[-1]
    if mutation.kind in ("drop a required key", "remove a declared port", "remove a given input"):
        del parent[key]
    elif mutation.kind == "misspell a key":
        at = at % len(key)
        wrong = key[:at] + key[at + 1 :] if at % 2 else key[:at] + "z" + key[at:]
        items = list(parent.items())
        parent.clear()
        parent.update({wrong if name == key else name: value for name, value in items})
    elif mutation.kind == "duplicate a key":
        parent[f"{key}__again"] = parent[key]
    else:
        parent[key] = mutation.value
    text = yaml.safe_dump(data, sort_keys=False, width=10_000)
    return text.replace(f"{key}__again:", f"{key}:") if mutation.kind == "duplicate a key" else text


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Both corpora, every YAML file as it is dumped again, so that a mutation is the only difference."""
    folder = tmp_path_factory.mktemp("mutations")
    for corpus in (CONFORMANCE, OWN):
        shutil.copytree(corpus, folder, dirs_exist_ok=True)
    for tree in mutations()[0]:
        for file, data in tree.files.items():
            (folder / file).write_text(yaml.safe_dump(data, sort_keys=False, width=10_000))
    return folder


def test_the_trees_are_good_before(written: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(written)
    found, possible = mutations()
    assert len(found) >= 70 and len(possible) > 1000
    assert check([tree.name for tree in found]) == []


def test_mutations_are_found(written: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(written)
    found, possible = mutations()
    files = {(tree.name, file): data for tree in found for file, data in tree.files.items()}
    by_kind: dict[str, list[Mutation]] = {}
    for mutation in possible:
        by_kind.setdefault(mutation.kind, []).append(mutation)
    made, caught = Counter[str](), Counter[str]()
    missed: set[str] = set()
    one = st.sampled_from(sorted(by_kind)).flatmap(lambda kind: st.sampled_from(by_kind[kind]))

    @settings(
        max_examples=EXAMPLES, derandomize=True, database=None, deadline=None, suppress_health_check=list(HealthCheck)
    )
    @given(mutation=one, at=st.integers(0, 30))
    def look(mutation: Mutation, at: int) -> None:
        path = written / mutation.file
        before = path.read_text()
        path.write_text(mutated(files[mutation.tree, mutation.file], mutation, at))
        try:
            findings = check([mutation.tree])
        finally:
            path.write_text(before)
        made[mutation.kind] += 1
        caught[mutation.kind] += bool(findings)
        if not findings:
            missed.add(f"{mutation.kind}: {mutation.file} {'.'.join(map(str, mutation.path))} = {mutation.value}")

    look()
    print(f"\nfound {caught.total()} of {made.total()} ({caught.total() / made.total():.1%})")
    for kind in sorted(made):
        print(f"{caught[kind] / made[kind]:6.1%} of {made[kind]:4} {kind}")
    print("\n".join(sorted(missed)))
    assert made.total() >= EXAMPLES * 0.9 and len(made) >= 10
    assert caught.total() >= 0.95 * made.total(), sorted(missed)
    assert all(caught[kind] >= 0.9 * made[kind] for kind in made), sorted(missed)
