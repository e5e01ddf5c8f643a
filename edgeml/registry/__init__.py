"""Models: what a run released, registered once, found by name and version, alias or content.

The face of this room:

    prepare(experiment)                           make the MLflow store ahead of its first use
    register(run, name, override) -> Registered   register what a run released
    publish(version) -> id, created               register a version in the Azure ML workspace as well
    trace(what) -> [Trace]                        from a model, image, job, commit or fingerprint to the others
    versions(name) -> [Version]                   what is registered
    find(reference) -> Version                    NAME:VERSION, NAME@ALIAS, or NAME for its champion
    path(version) -> folder                       the model's verified files
    set_alias(reference, alias) -> Version        for example champion
    set_tags(version, tags)                       for example its image
    release.of(run) -> Release                    a verified release folder, read once

A model is its `model.onnx`: two runs that release the same bytes have made the same model, and it has
one version. Its files lie under `.edgeml/models/<sha256>/`; names, versions, aliases and lineage tags lie
in MLflow, on SQLite under `.edgeml/` unless settings name another tracking server.
"""

from edgeml.registry.models import CHAMPION, Registered, find, path, publish, register, set_alias, set_tags, versions
from edgeml.registry.store import Version, prepare
from edgeml.registry.trace import trace

__all__ = [
    "CHAMPION",
    "Registered",
    "Version",
    "find",
    "path",
    "prepare",
    "publish",
    "register",
    "set_alias",
    "set_tags",
    "trace",
    "versions",
]
