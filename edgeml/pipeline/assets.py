"""Data assets that lie beside a pipeline: a local source for `azureml:name:version`."""

from __future__ import annotations

import os
import re
from collections.abc import Callable

from edgeml.pipeline import load
from edgeml.pipeline.source import Mapping, PipelineError, read

_REFERENCE = re.compile(r"azureml:(?P<name>[^:@/]+)(?::(?P<version>[^:@/]+)|@(?P<label>[^:@/]+))?")
_SUFFIXES = (".yml", ".yaml")


def beside(reference: str, folders: list[str], look: Callable[[str], Mapping] = read) -> Mapping | None:
    """The data asset YAML that a reference names: a file of that name, or one that gives itself that name.

    Looked for in each of the folders, in order; `look` reads a file. A version in both must be the same one.
    """
    match = _REFERENCE.fullmatch(reference)
    if match is None:
        return None
    for folder in dict.fromkeys(folders):
        names = sorted(name for name in os.listdir(folder) if name.endswith(_SUFFIXES))
        names.sort(key=lambda name: os.path.splitext(name)[0] != match["name"])
        for name in names:
            asset = _asset(os.path.join(folder, name), look)
            if asset is None or load.text(asset, "name", os.path.splitext(name)[0]) != match["name"]:
                continue
            if match["version"] is None or load.text(asset, "version", match["version"]) == match["version"]:
                return asset
    return None


def _asset(path: str, look: Callable[[str], Mapping]) -> Mapping | None:
    """The document where it looks like a data asset; anything else in the folder is not ours to complain about."""
    try:
        document = look(path)
    except PipelineError:
        return None
    own = isinstance(document.get("path"), str) and not {"jobs", "command", "component", "image"} & document.keys()
    return document if own else None
