"""Earlier runs: found by name, by folder or by being the newest."""

from __future__ import annotations

import json
import os
from typing import Any, NamedTuple

from edgeml.errors import EdgemlError

RECORD = "run.json"


class Run(NamedTuple):
    """A run's folder and its record; the status of one whose engine is gone is `interrupted`."""

    path: str
    record: dict[str, Any]


def every(state: str) -> list[Run]:
    """All runs in the project's state folder, the newest first; folders without a readable record are left out."""
    folder = os.path.join(state, "runs")
    try:
        names = os.listdir(folder)
    except FileNotFoundError:
        return []
    paths = [os.path.join(folder, name) for name in names if not name.startswith(".")]  # a run on its way out
    found = [run for path in paths if (run := _read(path)) is not None]
    return sorted(found, key=_order, reverse=True)


def find(state: str, wanted: str = "", status: str = "") -> Run:
    """The run of a name or folder; without one the newest, of the status where that is given.

    Raises EdgemlError where there is none.
    """
    if wanted:
        for path in (wanted, os.path.join(state, "runs", wanted)):
            if os.path.isdir(path):
                run = _read(path)
                if run is None:
                    raise EdgemlError(f"{path} holds no readable {RECORD}; name the folder of a run")
                return run
        raise EdgemlError(f"there is no run '{wanted}'; `edgeml runs list` shows those that are there")
    for run in every(state):
        if not status or run.record["status"] == status:
            return run
    kind = f"{status} run" if status else "run"
    raise EdgemlError(f"there is no {kind} yet; make one with `edgeml run pipelines/train.yml`")


def predecessor(state: str, run: Run) -> Run:
    """The run of the same pipeline that began before. Raises EdgemlError where there is none."""
    mine = _order(run)
    for other in every(state):
        if _order(other) < mine and other.path != run.path and pipeline_of(other) == pipeline_of(run):
            return other
    raise EdgemlError(f"there is no run of {run.record['pipeline']} before {run.record['run']} to compare it with")


def _order(run: Run) -> tuple[str, str]:
    return run.record["started"], run.record["run"]


def pipeline_of(run: Run) -> tuple[str, str]:
    """What runs of one pipeline have in common: its name and that of its file, whose path depends on the caller."""
    return str(run.record.get("name", "")), os.path.basename(str(run.record.get("pipeline", "")))


def _read(path: str) -> Run | None:
    try:
        with open(os.path.join(path, RECORD), encoding="utf-8") as stream:
            record = json.load(stream)
    except (OSError, ValueError):
        return None
    if not isinstance(record, dict) or not {"run", "started", "status", "steps"} <= record.keys():
        return None
    if record["status"] == "running" and not is_locked(path):
        record["status"] = "interrupted"
    return Run(os.path.abspath(path), record)


def is_locked(path: str) -> bool:
    """Whether an engine works in the run's folder."""
    import fcntl

    try:
        handle = os.open(os.path.join(path, ".lock"), os.O_RDWR | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return True
    finally:
        os.close(handle)
    return False
