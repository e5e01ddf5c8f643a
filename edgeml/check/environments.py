"""The environments that the repository defines, and the version that the content of each demands."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable
from typing import Any, NamedTuple

from edgeml.check.context import Context
from edgeml.check.document import Document, entries, scalar, walk
from edgeml.check.places import value
from edgeml.pipeline import load
from edgeml.pipeline.libyaml import yaml

FOLDER = "environments"
_DIGITS = 12
MAX_BYTES, MAX_FILES = 64 << 20, 10_000
_BESIDE = frozenset({".git", "__pycache__", ".ipynb_checkpoints", ".DS_Store"})


class Defined(NamedTuple):
    """An environment of the repository: its file, the version written there and the one that its content demands."""

    path: str
    version: str
    wanted: str


def is_asset(document: Document) -> bool:
    """Whether a document defines an environment of Azure ML."""
    schema = scalar(value(document.root, "$schema")) or ""
    return schema.endswith("/environment.schema.json")


def defined(context: Context) -> dict[str, Defined]:
    """The environments below `environments/` by name; worked out once."""
    return context.remembered("environments", lambda: _defined(context))


def _defined(context: Context) -> dict[str, Defined]:
    made: dict[str, Defined] = {}
    for folder, folders, names in os.walk(os.path.join(context.root, FOLDER)):
        folders[:] = sorted(name for name in folders if name not in _BESIDE)
        for name in sorted(names):
            if name.endswith((".yml", ".yaml")) and os.path.isfile(os.path.join(folder, name)):
                document = context.read(os.path.join(folder, name))[0]
                given = scalar(value(document.root, "name"))
                if is_asset(document) and given:
                    written = scalar(value(document.root, "version")) or ""
                    made.setdefault(given, Defined(document.path, written, version(document)))
    return made


def version(document: Document) -> str:
    """The first digits of the digest of an environment's build folder, image and conda file.

    The document itself, which states the version, is left out of its build folder. Empty where the content cannot be
    read or is larger than a build context should be.
    """
    root = document.root
    made: dict[str, Any] = {"image": scalar(value(root, "image"))}
    conda, build = value(root, "conda_file"), scalar(value(root, "build", "path"))
    try:
        if isinstance(conda, yaml.MappingNode):
            made["conda"] = _plain(conda)
        elif conda is not None:
            made["conda"] = _digest(load.local_path(scalar(conda) or "", document.path))
        if build is not None and not load.is_remote(build):
            folder = load.local_path(build, document.path)
            made["dockerfile"] = scalar(value(root, "build", "dockerfile_path")) or "Dockerfile"
            made["build"] = _content(folder, os.path.abspath(document.path))
        elif build is not None:
            made["build"] = build
    except OSError:
        return ""
    import hashlib

    return hashlib.sha256(json.dumps(made, sort_keys=True).encode()).hexdigest()[:_DIGITS]


def _content(folder: str, but: str) -> list[list[str]]:
    def refuse(error: OSError) -> None:
        raise error

    found, size = [], 0
    for where, folders, names in os.walk(folder, onerror=refuse):
        folders[:] = [name for name in folders if name not in _BESIDE]
        for name in (*folders, *names):
            path = os.path.join(where, name)
            inside = os.path.relpath(path, folder).replace(os.sep, "/")
            if name in folders:
                if os.path.islink(path):
                    found.append([inside, "link", os.readlink(path)])
            elif name not in _BESIDE and path != but:
                size += os.path.getsize(path)
                if size > MAX_BYTES or len(found) > MAX_FILES:
                    raise OSError(f"{folder} is too large")
                found.append([inside, "file", _digest(path)])
    return sorted(found)


def _digest(path: str) -> str:
    if not os.path.isfile(path):  # a device or a pipe would never end
        raise OSError(f"{path} is no file")
    with open(path, "rb") as stream:
        import hashlib

        return hashlib.file_digest(stream, "sha256").hexdigest()


def _plain(node: yaml.Node) -> Any:
    if isinstance(node, yaml.MappingNode):
        return [[_plain(key), _plain(inner)] for key, inner in node.value]
    return [_plain(item) for item in node.value] if isinstance(node, yaml.SequenceNode) else node.value


# ---- writing the versions ----


def fix(context: Context, files: Iterable[str]) -> list[str]:
    """Write into the files the versions that the content of the repository's environments demands.

    Changes the version of each environment and every `azureml:name:version` that names it; returns the changed files.
    """
    wanted = {name: made for name, made in defined(context).items() if made.wanted}
    changed = []
    for file in sorted({*files, *(made.path for made in wanted.values())}):
        if not file.endswith((".yml", ".yaml")):
            continue
        document = context.read(file)[0]
        edits = []
        for node in walk(document.root):
            text = scalar(node) or ""
            match = re.fullmatch(r"azureml:([^:@/]+):([^:@/]+)", text)
            if match and match[1] in wanted and match[2] != wanted[match[1]].wanted:
                edits.append((node, text, f"azureml:{match[1]}:{wanted[match[1]].wanted}"))
        name = scalar(value(document.root, "name")) or ""
        stated = entries(document.root).get("version")
        own = wanted.get(name)
        if own is not None and own.path == document.path and stated is not None and own.version != own.wanted:
            quote = '"' if isinstance(stated[1], yaml.ScalarNode) and not stated[1].style else ""
            edits.append((stated[1], own.version, f"{quote}{own.wanted}{quote}"))
        if edits and _rewrite(file, edits):
            changed.append(file)
    return changed


def _rewrite(file: str, edits: list[tuple[yaml.Node, str, str]]) -> bool:
    with open(file, encoding="utf-8", newline="") as stream:
        lines = stream.read().splitlines(keepends=True)
    before = list(lines)
    for node, old, new in sorted(edits, key=lambda edit: -edit[0].start_mark.column):
        line, column = node.start_mark.line, node.start_mark.column
        lines[line] = lines[line][:column] + lines[line][column:].replace(old, new, 1)
    if lines == before:
        return False
    with open(file, "w", encoding="utf-8", newline="") as stream:
        stream.write("".join(lines))
    return True
