"""Which target a job was submitted to, so that `edgeml wait JOB` need not be told; a convenience, not a truth."""

from __future__ import annotations

import json
import os

from edgeml import project
from edgeml.engine.files import write_atomically
from edgeml.errors import EdgemlError


def keep(job: str, target: str, pipeline: str) -> None:
    """Remember a job's target on this machine."""
    path = _path(job)
    os.makedirs(os.path.dirname(path), exist_ok=True)
    write_atomically(path, json.dumps({"job": job, "target": target, "pipeline": pipeline}) + "\n")


def target_of(job: str, given: str) -> str:
    """The target that was given, else the remembered one. Raises EdgemlError where there is neither."""
    if given:
        return given
    try:
        with open(_path(job), encoding="utf-8") as stream:
            return str(json.load(stream)["target"])
    except (OSError, ValueError, KeyError, TypeError):
        raise EdgemlError(f"{job} was not submitted from here; say where it runs: --target NAME") from None


def _path(job: str) -> str:
    if os.path.basename(job) != job or job.startswith("."):
        raise EdgemlError(f"'{job}' is no job's name; `edgeml submit` prints it")
    return os.path.join(project.state_folder(), "jobs", f"{job}.json")
