"""The folders and files of one step, by the paths that its command holds."""

from __future__ import annotations

import os
from collections.abc import Mapping

from edgeml.engine.folder import Job
from edgeml.engine.step import Sources, is_file
from edgeml.pipeline.graph import Data, FromStep, Step, Text, Value

_CERTIFICATES = "EDGEML_STORAGE_CA_BUNDLE"
_AIRLOCK, _KEY = "EDGEML_AIRLOCK_STATE", "EDGEML_AIRLOCK_KEY"


def mounts(
    step: Step, job: Job, environment: Mapping[str, str], outputs: Mapping[str, str], sources: Sources
) -> tuple[dict[str, str], dict[str, str]]:
    """What a step reads and where it writes, sources by target.

    Writable are its working directory, its outputs, the store that it logs its metrics to, and for the egress gate its
    own folder (its key, where that lies elsewhere, it may read).
    """
    read: dict[str, str] = {}
    write = {job.work: job.work}
    for value in (*step.inputs.values(), *step.environment_variables.values()):
        for path in paths_of(value, sources):
            read[sources.shown(path)] = os.path.realpath(path)
    for variable in (_CERTIFICATES, _KEY):
        if os.path.isfile(file := environment.get(variable, "")):
            read[file] = os.path.realpath(file)
    if os.path.isfile(job.specification):
        read[job.specification] = job.specification
    for name, path in outputs.items():
        # A file that is not there yet cannot be mounted, its folder can; it holds outputs of this step only.
        folder = os.path.dirname if is_file(step, name) else str
        for target in {sources.shown(path), path}:
            write[folder(target)] = folder(path)
    own = (job.tracking, job.environment, environment.get(_AIRLOCK, ""))
    return read, write | {path: path for path in own if os.path.isdir(path)}


def paths_of(value: Value, sources: Sources) -> list[str]:
    """The paths of the data and outputs that a value is made of."""
    if isinstance(value, Data):
        return [value.path]
    if isinstance(value, FromStep):
        return [sources.paths[value]]
    if isinstance(value, Text):
        return [path for part in value.parts for path in paths_of(part, sources)]
    return []
