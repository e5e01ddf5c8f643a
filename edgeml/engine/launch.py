"""The shell command of the nodes that are more than one process: parallel nodes and distributed ones."""

from __future__ import annotations

import glob
import json
import os
import shlex

from edgeml.engine.folder import Job
from edgeml.engine.step import StepFailed, has_package
from edgeml.pipeline.graph import Distribution, Parallel, Step

_HERE = os.path.dirname(os.path.abspath(__file__))
_APPENDED = "parallel_run_step.txt"  # Azure ML's name for the appended rows where the output is a folder


def parallel_command(parallel: Parallel, command: str, paths: dict[str, str], job: Job, python: str) -> str:
    """The command that hands mini-batches to the entry script; `paths` are those of its input and output.

    Its specification is left in the step's folder, where a person can read it.
    """
    script, *arguments = shlex.split(command)
    append_to = paths.get("append_to", "")
    if append_to and os.path.isdir(append_to):
        append_to = os.path.join(append_to, _APPENDED)
    spec = {
        **parallel._asdict(),
        "script": script,
        "arguments": arguments,
        "sources": _sources(paths["input"]),
        "append_to": append_to,
    }
    path = job.specification
    with open(path, "w", encoding="utf-8") as stream:
        json.dump(spec, stream, indent=2)
    return shlex.join([python, os.path.join(_HERE, "minibatch.py"), path])


def _sources(path: str) -> list[str]:
    """The files and folders that hold the items: the path itself, or what the `MLTable` file in it lists.

    Raises StepFailed for a table that is read by rows.
    """
    table = os.path.join(path, "MLTable")
    if not os.path.isfile(table):
        return [path]
    from edgeml.pipeline.parallel import row_reader, rows_refused
    from edgeml.pipeline.source import read

    if reader := row_reader(path):
        raise StepFailed(rows_refused(reader))
    document = read(table)
    listed = [str(place) for item in document.get("paths") or [] for place in item.values()]
    if any("://" in place for place in listed):
        raise StepFailed(f"reads files that are not on this machine, listed in {table}")
    found = [sorted(glob.glob(os.path.join(path, place), recursive=True)) for place in listed]
    return [os.path.normpath(place) for places in found for place in places]


def distributed_command(distribution: Distribution, command: str, python: str) -> str:
    """The command as several processes: by PyTorch's own launcher where it is installed, else by ours."""
    count = str(distribution.processes)
    if distribution.type == "pytorch" and distribution.processes > 1 and has_package(python, "torch"):
        torchrun = [python, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", count, "--no-python"]
        return shlex.join([*torchrun, "bash", "-c", command])
    return shlex.join([python, os.path.join(_HERE, "ranks.py"), distribution.type, count, command])


def of(step: Step, command: str, paths: dict[str, str], job: Job, python: str) -> str:
    """The shell text that starts a step, given its command with every placeholder replaced."""
    if step.parallel is not None:
        return parallel_command(step.parallel, command, paths, job, python)
    if step.distribution is not None:
        return distributed_command(step.distribution, command, python)
    return command
