"""Runs the trials of a sweep step in the engine: each in a folder of its own, each reused by content."""

from __future__ import annotations

import contextlib
import os
from typing import TYPE_CHECKING, Any

from edgeml.engine import files, step
from edgeml.engine.folder import Job
from edgeml.engine.sweep import Launch, Search, Tracker, Trial
from edgeml.pipeline.ports import render

if TYPE_CHECKING:
    from edgeml.engine.run import Engine
    from edgeml.engine.sandbox.metrics import Logged
    from edgeml.engine.snapshot import Snapshot
    from edgeml.pipeline.graph import Step


def sweep(engine: Engine, wanted: Step, snapshot: Snapshot, outputs: dict[str, str]) -> list[dict[str, Any]]:
    """Run a sweep and put the best trial's outputs in the step's place; the others' are removed, their logs stay.

    Returns a description of each trial. Raises StepFailed where no trial can be chosen.
    """
    assert wanted.sweep is not None
    job = engine.folder.job(wanted.name)
    work = _Trials(engine, snapshot, job, outputs, wanted.sweep.metric)
    search = Search(wanted, wanted.sweep, work.tracker, Launch(work.recall, work.run, work.keep, work.stopping))
    try:
        best = search.run(engine.limit)
        for name, path in work.outputs(best.number).items():
            files.remove(outputs[name])
            os.makedirs(os.path.dirname(outputs[name]), exist_ok=True)
            os.rename(path, outputs[name])
    finally:
        for folder in work.output_folders():
            files.remove(folder)
        trials = sorted(search.trials, key=lambda trial: trial.number)
        with open(job.log, "w", encoding="utf-8") as stream:
            stream.writelines(_line(trial, wanted.sweep.metric) + "\n" for trial in trials)
    return [_describe(trial, best=trial is best) for trial in trials]


class _Trials:
    def __init__(self, engine: Engine, snapshot: Snapshot, job: Job, outputs: dict[str, str], metric: str) -> None:
        self.engine = engine
        self.snapshot = snapshot
        self.job = job
        self.final = outputs
        self.metric = metric
        self.keys: dict[int, str] = {}

    def outputs(self, number: int) -> dict[str, str]:
        """Where a trial's outputs lie: beside the step's own, so that they are in the same zone and can be renamed."""
        return {name: os.path.join(folder, str(number), name) for name, folder in self._beside()}

    def output_folders(self) -> set[str]:
        return {folder for _, folder in self._beside()}

    def _beside(self) -> list[tuple[str, str]]:
        return [(name, os.path.join(os.path.dirname(path), "~trials")) for name, path in self.final.items()]

    def tracker(self) -> Tracker:
        return self.engine.tracker(self.job.folder)

    def recall(self, number: int, trial: Step) -> float | None:
        engine = self.engine
        parts = step.parts_of(trial, self.snapshot, engine.identity(trial), engine.sources, engine.fingerprints)
        self.keys[number] = step.key_of(parts)
        outputs = self.outputs(number)
        for path in outputs.values():
            os.makedirs(os.path.dirname(path), exist_ok=True)
        cached = engine.cache.fetch(self.keys[number], outputs) if engine.may_reuse(trial) else None
        noted = cached.note if cached is not None and isinstance(cached.note, dict) else {}
        metric = noted.get(self.metric)
        return float(metric) if isinstance(metric, (int, float)) else None

    def run(self, number: int, trial: Step, variables: dict[str, str], seconds: float) -> list[Logged]:
        job = Job(f"{self.job.name}.{number}", os.path.join(self.job.folder, "trials", str(number)))
        os.makedirs(job.folder, exist_ok=True)
        return self.engine.produce(trial, self.snapshot, self.outputs(number), job, variables, seconds)

    def keep(self, number: int, trial: Step, metric: float, seconds: float) -> None:
        if trial.component.deterministic:
            outputs = self.outputs(number)
            fingerprints = step.fingerprint_outputs(outputs, self.engine.fingerprints)
            with contextlib.suppress(OSError):
                self.engine.cache.store(self.keys[number], outputs, fingerprints, seconds, {self.metric: metric})

    def stopping(self) -> bool:
        return self.engine.stopping


def _line(trial: Trial, metric: str) -> str:
    values = "  ".join(f"{name}={render(value)}" for name, value in trial.values.items())
    if trial.message:
        return f"trial {trial.number}  {values}  {trial.message}"
    found = f"{metric} {trial.metric:g}" if trial.metric is not None else f"without {metric}"
    return f"trial {trial.number}  {values}  {found}  {'reused' if trial.reused else f'{trial.seconds:.2f} s'}"


def _describe(trial: Trial, *, best: bool) -> dict[str, Any]:
    return {**trial._asdict(), "best": best}
