"""What the engine does around a private step, whichever sandbox it runs in, or none."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Mapping

from edgeml.engine import files
from edgeml.engine.folder import Job
from edgeml.engine.sandbox import metrics
from edgeml.engine.sandbox import words as words_of
from edgeml.engine.sandbox.metrics import Logged
from edgeml.engine.sandbox.words import Words
from edgeml.engine.snapshot import Snapshot
from edgeml.engine.step import StepFailed
from edgeml.pipeline.graph import Data, FromStep, Step, Text
from edgeml.pipeline.ports import render

_READ = 1 << 18  # bytes at the end of a log that are looked at
# Of the engine's own variables only these reach a private step; AZUREML_RUN_TOKEN, for one, is a credential.
_PASSED = {
    *("PATH", "LANG", "LANGUAGE", "LC_ALL", "LC_CTYPE", "TZ", "PYTHONUNBUFFERED", "PYTHONHASHSEED", "PYTHONUTF8"),
    *("PYTHONDONTWRITEBYTECODE", "PYTHONWARNINGS", "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"),
    *("AZUREML_RUN_ID", "AZUREML_ROOT_RUN_ID", "AZUREML_EXPERIMENT_NAME", "MLFLOW_EXPERIMENT_NAME"),
    *("MLFLOW_RUN_ID", "MLFLOW_EXPERIMENT_ID", "MLFLOW_DISABLE_TELEMETRY", "ORT_DISABLE_TELEMETRY"),
}
_PORTS = (
    "AZURE_ML_INPUT_",
    "AZURE_ML_OUTPUT_",
    "EDGEML_STORAGE_",
    "EDGEML_AIRLOCK_",
)  # the last two only where asked for


def environment(made: Mapping[str, str], step: Step, job: Job, *, own: Mapping[str, str] = {}) -> dict[str, str]:
    """The variables of a step in a sandbox: those on the list, those that it declares, its `own` (of its process), and
    the way to its own store of metrics."""
    kept = {name: value for name, value in made.items() if name in _PASSED or name.startswith(_PORTS)}
    declared = {name: made[name] for name in step.environment_variables}
    return kept | declared | dict(own) | metrics.variables(job.tracking)


def enter(job: Job, own: Mapping[str, str], experiment: str) -> None:
    """Make the store that a step in a sandbox logs to; `own` may name the MLflow run that it is to log to."""
    files.remove(job.tracking)
    metrics.make(job.tracking, own.get("MLFLOW_RUN_ID", ""), own.get("MLFLOW_EXPERIMENT_ID", ""), experiment)


def leave(job: Job, step: Step, snapshot: Snapshot) -> list[Logged]:
    """Show what may be shown of a step that has ended, and return what it logged as far as it may be taken over."""
    known = words(step, snapshot)
    literals = frozenset(
        render(value) for value in step.inputs.values() if not isinstance(value, (Data, FromStep, Text))
    )
    logged = metrics.read(job.tracking, known.names, literals)
    if "airlock" in step.component.tags.get("edgeml.needs", "").split():
        lines, withheld = _lines(job.log), 0  # the egress gate's findings, which hold no value by their making
    else:
        lines, withheld = words_of.filtered(_lines(job.log), known)
    refused = sum(found.withheld for found in logged)
    with open(job.shown, "w", encoding="utf-8") as stream:
        stream.writelines(line + "\n" for line in lines)
        if withheld:
            stream.write(f"({_count(withheld, 'line')} withheld: not the step's own words)\n")
        if refused:
            stream.write(f"({_count(refused, 'logged name or value', 'logged names or values')} not taken over)\n")
    for path in (job.tracking, job.scratch):
        files.remove(path)
    return logged


def words(step: Step, snapshot: Snapshot) -> Words:
    """What the step's author wrote: code, command, literal inputs, and the keys of the YAML files it is given."""
    keys: set[str] = set(step.inputs) | set(step.outputs)
    for value in step.inputs.values():
        if isinstance(value, Data):
            # What stands for a remote reference may be private, its keys included.
            keys.update(
                words_of.keys_of(value.path) if not value.source and value.path.endswith((".yml", ".yaml")) else ()
            )
        elif isinstance(value, str):
            keys.update(value.split())
    return words_of.of(dict(snapshot.files), step.component.command, keys)


def check_outputs(outputs: Mapping[str, str]) -> None:
    """Raise StepFailed where an output is anything but files and folders.

    A link that leads nowhere in the sandbox leads somewhere here, and the engine would follow it. No name is told: it
    may be a value.
    """
    for name, path in outputs.items():
        for info in _everything(path):
            kind = stat.S_IFMT(info.st_mode)
            wrong = {stat.S_IFREG: "", stat.S_IFDIR: "", stat.S_IFLNK: "a link"}.get(kind, "a pipe, socket or device")
            if not wrong and info.st_mode & (stat.S_ISUID | stat.S_ISGID) and kind == stat.S_IFREG:
                wrong = "a program that runs as its owner"
            if wrong:
                raise StepFailed(f"wrote {wrong} into its output '{name}'; outputs are files and folders, write those")


def _everything(path: str) -> Iterator[os.stat_result]:
    try:
        info = os.lstat(path)
    except FileNotFoundError:
        return  # told by the check that follows
    except OSError:
        raise StepFailed("wrote an output that cannot be read") from None
    yield info
    if stat.S_ISDIR(info.st_mode):
        try:
            names = os.listdir(path)
        except OSError:
            raise StepFailed("wrote a folder that cannot be read") from None
        for name in names:
            yield from _everything(os.path.join(path, name))


def _lines(log: str) -> list[str]:
    try:
        with open(log, "rb") as stream:
            stream.seek(max(0, os.fstat(stream.fileno()).st_size - _READ))
            return stream.read().decode("utf-8", "replace").replace("\r", "\n").splitlines()
    except OSError:
        return []


def _count(number: int, one: str, several: str = "") -> str:
    return f"{number} {one} is" if number == 1 else f"{number} {several or one + 's'} are"
