"""A sweep node: trials of one component with other values each, and the best of them by a metric logged to MLflow."""

from __future__ import annotations

import json
import os
import subprocess
import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

from edgeml.engine import sampling
from edgeml.engine.step import StepFailed
from edgeml.pipeline.graph import Step, Sweep
from edgeml.pipeline.ports import Input, render

if TYPE_CHECKING:
    from edgeml.engine.sandbox.metrics import Logged

TRACKER = os.path.join(os.path.dirname(os.path.abspath(__file__)), "tracker.py")


class Trial(NamedTuple):
    """One trial: its number from 1, the values it got, its metric (None where it has none) and what went wrong."""

    number: int
    values: dict[str, Any]
    metric: float | None
    message: str
    seconds: float
    reused: bool


class Launch(NamedTuple):
    """How the engine runs a trial: by number, values and the variables of its MLflow run.

    `recall` gives the metric of an equal trial of an earlier run, whose outputs are in place then, or None.
    `run` raises StepFailed where the trial fails, and returns what a private one logged apart; `keep` remembers a
    trial with its metric.
    """

    recall: Callable[[int, Step], float | None]
    run: Callable[[int, Step, dict[str, str], float], list[Logged]]
    keep: Callable[[int, Step, float, float], None]
    stopping: Callable[[], bool]


def fit(value: Any, port: Input) -> Any:
    """A proposed value as its input's type: a whole number for an integer, text for a string."""
    if port.type == "integer" and isinstance(value, float) and value.is_integer():
        return int(value)
    return render(value) if port.type == "string" else value


class Tracker:
    """A process of the trials' own interpreter that talks to MLflow; see tracker.py."""

    def __init__(self, python: str, experiment: str, environment: dict[str, str], folder: str) -> None:
        location = "file://" + os.path.join(folder, "mlartifacts")
        local = environment.get("MLFLOW_TRACKING_URI", "").startswith("sqlite:")
        self._log = os.path.join(folder, "tracker.log")
        self._lock = threading.Lock()
        with open(self._log, "wb") as log:
            self._process = subprocess.Popen(
                [python, TRACKER, experiment, *([location] if local else [])],
                cwd=folder,
                env=environment,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                start_new_session=True,  # a Ctrl-C is ours to handle
            )
        self.experiment = self._answer()["ready"]

    def ask(self, question: dict[str, Any]) -> dict[str, Any]:
        with self._lock:
            assert self._process.stdin is not None
            try:
                self._process.stdin.write(json.dumps(question) + "\n")
                self._process.stdin.flush()
            except OSError:
                raise StepFailed(f"lost its MLflow process, see {self._log}") from None
            return self._answer()

    def close(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()

    def _answer(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        answer: dict[str, Any] = json.loads(line) if line else {"error": f"MLflow's process ended, see {self._log}"}
        if "error" in answer:
            raise StepFailed(f"cannot read what its trials log: {answer['error']}")
        return answer


class Search:
    """The trials of one sweep, several at a time."""

    def __init__(self, step: Step, sweep: Sweep, tracker: Callable[[], Tracker], launch: Launch) -> None:
        self.step = step
        self.sweep = sweep
        self.launch = launch
        self.sampler = sampling.sampler(sweep)
        self.trials: list[Trial] = []
        self.logged: set[str] = set()
        self.ends = time.monotonic() + sweep.timeout if sweep.timeout else float("inf")
        self._make_tracker = tracker
        self._tracker: Tracker | None = None
        self._parent = ""
        self._started = 0
        self._lock = threading.Lock()
        self._error: BaseException | None = None

    def run(self, workers: int) -> Trial:
        """Run the trials and return the best one. Raises StepFailed where none has the metric."""
        threads = [
            threading.Thread(target=self._work, daemon=True) for _ in range(min(workers, self.sweep.max_concurrent))
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        if self._tracker is not None:
            self._end(self._parent, failed=self._error is not None)
            self._tracker.close()
        if self._error is not None:
            raise self._error
        return self._best()

    def _best(self) -> Trial:
        judged = [(trial.metric, trial) for trial in self.trials if trial.metric is not None]
        if judged:
            choose = max if self.sweep.goal == "maximize" else min
            return choose(judged, key=lambda pair: (pair[0], -pair[1].number if choose is max else pair[1].number))[1]
        failed = [trial for trial in self.trials if trial.message]
        if not self.trials:
            raise StepFailed("ended before its first trial did")
        if len(failed) == len(self.trials):
            raise StepFailed(f"has no successful trial; trial {failed[0].number} {failed[0].message}")
        known = ", ".join(sorted(self.logged)) or "nothing"
        raise StepFailed(f"has no trial that logged the metric '{self.sweep.metric}'; they logged: {known}")

    def _work(self) -> None:
        while self._error is None and not self.launch.stopping() and time.monotonic() < self.ends:
            with self._lock:
                if self._started >= self.sweep.max_trials:
                    return
                values = self.sampler.propose()
                if values is None:
                    return
                self._started += 1
                number = self._started
            try:
                trial = self._trial(number, values)
            except BaseException as error:
                self._error = self._error or error
                return
            with self._lock:
                self.trials.append(trial)
                self.sampler.learn(values, trial.metric)

    def _trial(self, number: int, values: dict[str, Any]) -> Trial:
        began = time.monotonic()
        values = {name: fit(value, self.step.component.inputs[name]) for name, value in values.items()}
        step = self.step._replace(inputs={**self.step.inputs, **values}, sweep=None)
        metric = self.launch.recall(number, step)
        if metric is not None:
            return Trial(number, values, metric, "", 0.0, reused=True)
        run, tracker = self._begin(number, values)
        variables = {"MLFLOW_RUN_ID": run, "MLFLOW_EXPERIMENT_ID": tracker.experiment}
        limits = [self.sweep.trial_timeout or float("inf"), self.ends - began]
        message = ""
        try:
            for logged in self.launch.run(number, step, variables, min(limits)):
                tracker.ask({"log": run, "params": logged.params, "metrics": logged.metrics})
        except StepFailed as failure:
            message = str(failure)
        metric = self._end(run, failed=bool(message))
        seconds = time.monotonic() - began
        if not message and metric is not None:
            self.launch.keep(number, step, metric, seconds)
        return Trial(number, values, None if message else metric, message, round(seconds, 3), reused=False)

    def _begin(self, number: int, values: dict[str, Any]) -> tuple[str, Tracker]:
        with self._lock:
            if self._tracker is None:
                self._tracker = self._make_tracker()
                self._parent = self._tracker.ask({"start": self.step.name, "parent": "", "tags": {}})["run"]
            tracker = self._tracker
        tags = {f"sweep.{name}": render(value) for name, value in values.items()}
        run = tracker.ask({"start": f"{self.step.name}_{number}", "parent": self._parent, "tags": tags})["run"]
        return run, tracker

    def _end(self, run: str, *, failed: bool) -> float | None:
        assert self._tracker is not None
        metric = "" if run == self._parent else self.sweep.metric
        answer = self._tracker.ask({"end": run, "metric": metric, "failed": failed})
        self.logged.update(answer["logged"])
        value = answer["value"]
        return None if value is None or value != value else float(value)  # a NaN judges nothing
