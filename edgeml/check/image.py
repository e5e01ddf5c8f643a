"""Image references: whether one is always the same image, and which registry it comes from."""

from __future__ import annotations

import re

_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
_DEFAULT_REGISTRY = "docker.io"


def why_unpinned(reference: str) -> str:
    """Why an image may be another one tomorrow; empty where it may not, as far as a tag that names a version stays."""
    name, at, digest = reference.partition("@")
    if at:
        return "" if _DIGEST.fullmatch(digest) else "has a digest that is not sha256: and 64 hex digits"
    tag = name.rpartition("/")[2].partition(":")[2]
    if not tag:
        return "has no tag, which means latest"
    if "latest" in re.split(r"[-_.]", tag.lower()):
        return f"has the tag '{tag}', which moves"
    return "" if any(letter.isdigit() for letter in tag) else f"has the tag '{tag}', which names no version"


def is_allowed(reference: str, registries: frozenset[str]) -> bool:
    """Whether an image comes from one of the registries, each a host or a host with the beginning of a path."""
    full = f"{registry_of(reference)}/{_path(reference)}"
    return any(full == allowed or full.startswith(f"{allowed.rstrip('/')}/") for allowed in registries)


def registry_of(reference: str) -> str:
    """The host that an image comes from, as docker understands a reference."""
    host, slash, _ = reference.partition("/")
    return host if slash and (any(letter in host for letter in ".:") or host == "localhost") else _DEFAULT_REGISTRY


def _path(reference: str) -> str:
    registry = registry_of(reference)
    path = reference.removeprefix(f"{registry}/")
    return path if "/" in path or registry != _DEFAULT_REGISTRY else f"library/{path}"
