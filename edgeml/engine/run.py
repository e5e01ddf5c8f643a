"""Runs a graph: each step as soon as those it needs are done, as many at once as there are processors."""

from __future__ import annotations

import contextlib
import os
import queue
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

from edgeml.engine import files, folder, git, isolate, step
from edgeml.engine.alias import Aliases
from edgeml.engine.cache import Cache
from edgeml.engine.fingerprint import Fingerprints, digest, digits
from edgeml.engine.guard import Guard
from edgeml.engine.snapshot import Snapshot, take
from edgeml.errors import EdgemlError
from edgeml.pipeline.graph import Graph, Step, datastore_of, describe_value, sources_of
from edgeml.pipeline.resolve import ARTIFACTS

if TYPE_CHECKING:
    from edgeml.engine.environment import Launcher, Sandbox
    from edgeml.engine.sandbox.ledger import Ledger
    from edgeml.engine.sandbox.metrics import Logged
    from edgeml.engine.sweep import Tracker

COMPLETED, CACHED, FAILED, SKIPPED = "completed", "cached", "failed", "skipped"
CANCELLED, RUNNING, INTERRUPTED = "cancelled", "running", "interrupted"
DONE = frozenset({COMPLETED, CACHED})
NEEDS_TAG = "edgeml.needs"
NO_SANDBOX = "none"
# The ways to the private rows and to the egress gate's key: only for components that ask for them.
_WITHHELD = ("EDGEML_STORAGE_", "EDGEML_AIRLOCK_")


class Options(NamedTuple):
    """How to run. `state` is the project's own folder.

    Each step gets `variables`; `provided` are variables for those whose component's tag asks for them, by its word.
    A `launcher` starts steps in their declared environments; without one they run in this Python. `private` are the
    steps whose output is quarantined, and that the `sandbox` starts where there is one.
    """

    state: str
    output_dir: str = ""
    force: bool = False
    jobs: int = 0
    python: str = ""
    edge_datastores: frozenset[str] = frozenset()
    variables: Mapping[str, str] = {}
    provided: Mapping[str, Mapping[str, str]] = {}
    launcher: Launcher | None = None
    private: frozenset[str] = frozenset()
    sandbox: Sandbox | None = None


class Outcome:
    """What became of one step. `fingerprints` are by output, times in seconds since the run began.

    `sandbox` is what the process ran in that made the outputs, in this run or in the one that they are reused from.
    """

    __slots__ = (
        *("exit_code", "fingerprints", "key", "message", "parts", "sandbox", "seconds", "started", "status", "trials"),
    )

    def __init__(self, status: str = SKIPPED, message: str = "") -> None:
        self.status = status
        self.message = message
        self.exit_code: int | None = None
        self.key = ""
        self.parts: dict[str, Any] = {}
        self.started = 0.0
        self.seconds = 0.0
        self.fingerprints: dict[str, str] = {}
        self.trials: list[dict[str, Any]] = []
        self.sandbox = NO_SANDBOX


Listener = Callable[[str, Step, Outcome], None]


class Result(NamedTuple):
    """A finished run: its status, its folder and its record as written to `run.json`."""

    status: str
    path: str
    record: dict[str, Any]
    failures: dict[str, Outcome]


def run(graph: Graph, options: Options, listener: Listener) -> Result:
    """Run every step that must be run and return what happened; the listener hears of each start and end.

    Raises EdgemlError where nothing could be started. An interruption ends every child, is recorded in `run.json`
    and raised again.
    """
    return Engine(graph, options, listener).run()


class Engine:
    """One run of one graph; `run` is called once."""

    def __init__(self, graph: Graph, options: Options, listener: Listener) -> None:
        self.graph = graph
        self.options = options
        self.listener = listener
        self.began = time.time()
        self.clock = time.perf_counter()
        path = options.output_dir or os.path.join(options.state, "runs", folder.new_name(graph.file, self.began))
        self.folder = folder.RunFolder(path)
        cache_folder = os.path.join(options.state, "cache")
        self.fingerprints = Fingerprints(os.path.join(cache_folder, "files.json"))
        self.cache = Cache(cache_folder, self.fingerprints)
        self.python = options.python or sys.executable
        self.interpreter = step.interpreter_identity(self.python)
        self.zones = _zones(graph, options.edge_datastores)
        self.snapshots: dict[tuple[str, tuple[str, ...]], Snapshot] = {}
        self.aliases = Aliases()
        self.guard = Guard(self.folder.lock)
        self.sources = step.Sources({}, {}, self.aliases.of)
        self.outcomes: dict[str, Outcome] = {}
        self.processes: dict[str, step.Process] = {}
        self.commands: dict[str, str] = {}
        self.lock = threading.Lock()
        self.stopping = False
        self.ledger: Ledger | None = None
        self.problems: list[str] = []
        self.limit = options.jobs or os.cpu_count() or 1
        self.slots = threading.BoundedSemaphore(self.limit)  # processes at once, those of a sweep's trials included
        self.base_environment = self._base_environment()

    # ---- scheduling ----

    def run(self) -> Result:
        question = git.Question(self.graph.file)
        digest_of_pipeline = self._pipeline_digest()
        self.folder.write(self._record(RUNNING, None, digest_of_pipeline))
        status = FAILED
        previous = signal.signal(signal.SIGTERM, _interrupt) if _in_main_thread() else None
        try:
            self._schedule()
            status = COMPLETED if all(outcome.status in DONE for outcome in self.outcomes.values()) else FAILED
        except KeyboardInterrupt:
            status = INTERRUPTED
            self._stop_all()
            for name in self.graph.steps:
                self.outcomes.setdefault(name, Outcome(CANCELLED))
            raise
        finally:
            if previous is not None:
                signal.signal(signal.SIGTERM, previous)
            self.guard.close()
            if self.ledger is not None and (problem := self.ledger.close()):
                self.problems.append(problem)
            self._publish()
            self.aliases.close()
            self.fingerprints.save()
            record = self._record(status, question.answer(), digest_of_pipeline)
            self.folder.write(record)
            self.folder.write_code(self._code_digests())
            self.folder.close()
        failures = {name: outcome for name, outcome in self.outcomes.items() if outcome.status == FAILED}
        return Result(status, self.folder.path, record, failures)

    def _schedule(self) -> None:
        """Start what is ready, wait for one to end, see what became ready; until nothing runs and nothing is ready."""
        finished: queue.SimpleQueue[tuple[str, Outcome | BaseException]] = queue.SimpleQueue()
        steps = self.graph.steps
        waiting = {name: len(wanted.needs) for name, wanted in steps.items()}
        followers: dict[str, list[str]] = {name: [] for name in steps}
        for name, wanted in steps.items():
            for needed in wanted.needs:
                followers[needed].append(name)
        ready = [name for name, count in waiting.items() if count == 0]
        ready.reverse()  # a stack whose top is the first in the graph's order
        running = 0
        while ready or running:
            while ready and running < self.limit and not self.stopping:
                name = ready.pop()
                threading.Thread(target=self._work, args=(steps[name], finished), daemon=True).start()
                running += 1
            if not running:
                break
            name, outcome = finished.get()
            running -= 1
            if isinstance(outcome, BaseException):
                self._stop_all()
                raise outcome
            self._settle(name, outcome)
            if outcome.status in DONE:
                for follower in followers[name]:
                    waiting[follower] -= 1
                    if waiting[follower] == 0:
                        ready.append(follower)
            elif not self.graph.continue_on_failure and not self.stopping:
                self._stop_all()
        for name in steps:
            if name not in self.outcomes:
                self.outcomes[name] = Outcome(SKIPPED)
                self.listener("end", steps[name], self.outcomes[name])

    def _settle(self, name: str, outcome: Outcome) -> None:
        self.outcomes[name] = outcome
        for output, fingerprint in outcome.fingerprints.items():
            self.sources.fingerprints[name, output] = fingerprint
            self.sources.paths[name, output] = self.folder.output(name, output, self.zones[name].get(output, ""))
        self.listener("end", self.graph.steps[name], outcome)

    def _stop_all(self) -> None:
        with self.lock:
            self.stopping = True
            processes = list(self.processes.values())
        for process in processes:
            process.ask_to_stop()
        for process in processes:
            process.stop()

    # ---- one step, in a thread of its own ----

    def _work(self, wanted: Step, finished: queue.SimpleQueue[tuple[str, Outcome | BaseException]]) -> None:
        outcome = Outcome(RUNNING)
        outcome.started = time.perf_counter() - self.clock
        try:
            self._attempt(wanted, outcome)
        except step.StepFailed as failure:
            outcome.status = CANCELLED if self.stopping else FAILED
            outcome.message = str(failure)
            outcome.exit_code = failure.exit_code
        except BaseException as error:
            finished.put((wanted.name, error))
            return
        outcome.seconds = time.perf_counter() - self.clock - outcome.started
        finished.put((wanted.name, outcome))

    def _attempt(self, wanted: Step, outcome: Outcome) -> None:
        snapshot = self._snapshot(wanted)
        zones = self.zones[wanted.name]
        outputs = {name: self.folder.output(wanted.name, name, zones[name]) for name in wanted.outputs}
        self.folder.prepare(wanted.name, {name: zones[name] for name in outputs})
        parts = step.parts_of(wanted, snapshot, self.identity(wanted), self.sources, self.fingerprints)
        outcome.key, outcome.parts = step.key_of(parts), step.short_parts(parts)
        implicit = self._implicit(wanted)
        cached = self.cache.fetch(outcome.key, {**outputs, **implicit}) if self.may_reuse(wanted) else None
        if cached is not None:
            outcome.status, outcome.exit_code, outcome.fingerprints = CACHED, 0, cached.fingerprints
            outcome.sandbox = str(cached.note.get("sandbox", NO_SANDBOX)) if cached.note else NO_SANDBOX
            return
        outcome.sandbox = self.sandbox_of(wanted)
        self.listener("start", wanted, outcome)
        outputs |= implicit
        if wanted.sweep is not None:
            from edgeml.engine.trials import sweep

            outcome.trials = sweep(self, wanted, snapshot, outputs)
        else:
            self._take_over(wanted, self.produce(wanted, snapshot, outputs, self.folder.job(wanted.name)))
        outcome.exit_code = 0
        outcome.fingerprints = step.fingerprint_outputs(outputs, self.fingerprints)
        if wanted.component.deterministic:
            seconds = time.perf_counter() - self.clock - outcome.started
            # Without room or permission for the cache the step is still done; it will only not be reused.
            with contextlib.suppress(OSError):
                note = {"sandbox": outcome.sandbox} if outcome.sandbox != NO_SANDBOX else None
                self.cache.store(outcome.key, outputs, outcome.fingerprints, seconds, note)
        outcome.status = COMPLETED

    def may_reuse(self, wanted: Step) -> bool:
        return wanted.component.deterministic and not (self.options.force or self.graph.force_rerun)

    def produce(
        self,
        wanted: Step,
        snapshot: Snapshot,
        outputs: dict[str, str],
        job: folder.Job,
        variables: Mapping[str, str] = {},
        seconds: float = float("inf"),
    ) -> list[Logged]:
        """Run a step's command in a fresh copy of its code and see that it wrote its outputs (paths by name).

        `variables` are this process's alone. Returns what a step in a sandbox logged to MLflow, which is not in the
        run's store yet. Raises StepFailed where it fails or takes more seconds than given.
        """
        private = wanted.name in self.options.private
        logged: list[Logged] = []
        step.make_outputs(wanted, outputs)
        snapshot.copy_to(job.work)
        artifacts = os.path.join(job.work, ARTIFACTS_FOLDER)
        os.makedirs(artifacts, exist_ok=True)
        if private:
            from edgeml.engine.sandbox import confine

            job = self.folder.quarantined(job)
            if self.options.sandbox is not None:
                confine.enter(job, variables, self.base_environment["MLFLOW_EXPERIMENT_NAME"])
        try:
            code = self._execute(wanted, outputs, job, variables, seconds)
        finally:
            if private:
                logged = confine.leave(job, wanted, snapshot)
        if code != 0:
            raise step.StepFailed(step.explain_exit(code), code)
        if ARTIFACTS in outputs and ARTIFACTS not in wanted.outputs:
            files.remove(outputs[ARTIFACTS])
            os.rename(artifacts, outputs[ARTIFACTS])
        if private:
            confine.check_outputs(outputs)
        step.check_outputs(wanted, outputs)
        files.remove(job.work)
        files.remove(job.environment)
        return logged

    def _execute(
        self, wanted: Step, outputs: dict[str, str], job: folder.Job, variables: Mapping[str, str], seconds: float
    ) -> int:
        command = step.command_of(wanted, outputs, self.sources)
        environment = self.base_environment | self._provided(wanted) | step.variables_of(wanted, outputs, self.sources)
        environment["AZUREML_RUN_ID"] = f"{self.folder.name}.{job.name}"
        environment |= step.ports_of(wanted, outputs, self.sources)
        environment |= variables
        local = self.options.launcher is None
        start = self.options.launcher.start if self.options.launcher is not None else _start
        if wanted.name in self.options.private and self.options.sandbox is not None:
            from edgeml.engine.sandbox import confine

            start = self.options.sandbox.start
            environment = confine.environment(environment, wanted, job, own=variables)
        installs = isolate.is_needed(command)  # asked before it is quoted into another command
        if local and (wanted.parallel is not None or wanted.distribution is not None):
            from edgeml.engine import launch

            command = launch.of(wanted, command, self._parallel_paths(wanted, outputs), job, self.python)
        if local and installs:
            try:
                own = isolate.make(job.environment, self.python)
            except subprocess.CalledProcessError as error:
                raise step.StepFailed(
                    f"installs packages, and {self.python} could not make it a place: {error}"
                ) from None
            environment["PATH"] = own + os.pathsep + environment["PATH"]
        self.commands[job.name] = command
        with self.slots:
            with self.lock:
                if self.stopping:
                    raise step.StepFailed("was not started")
                process = self.processes[job.name] = start(
                    wanted, command, job, environment, outputs, self.sources, self.guard
                )
            try:
                return process.wait(seconds)
            finally:
                with self.lock:
                    del self.processes[job.name]

    def sandbox_of(self, wanted: Step) -> str:
        """What a step's process runs in."""
        private = wanted.name in self.options.private
        return self.options.sandbox.kind if private and self.options.sandbox is not None else NO_SANDBOX

    def _take_over(self, wanted: Step, logged: list[Logged]) -> None:
        """Have what a private step logged written to the run's store; nobody waits for it here."""
        if not logged:
            return
        from edgeml.engine.sandbox.ledger import Ledger

        with self.lock:
            if self.ledger is None:
                self.ledger = Ledger(lambda: self.tracker(os.path.join(self.folder.path, "jobs")))
        self.ledger.add(wanted.name, {"azureml_root_run_id": self.folder.name}, logged)

    def tracker(self, place: str) -> Tracker:
        """A process that writes to MLflow, with its log in a folder."""
        from edgeml.engine.sweep import Tracker

        return Tracker(self.python, self.base_environment["MLFLOW_EXPERIMENT_NAME"], self.base_environment, place)

    def _parallel_paths(self, wanted: Step, outputs: dict[str, str]) -> dict[str, str]:
        """Where the input and the output of a parallel node lie."""
        if wanted.parallel is None:
            return {}
        paths = {"input": step.text_of(wanted.inputs[wanted.parallel.input], self.sources)}
        return paths | ({"append_to": outputs[wanted.parallel.append_to]} if wanted.parallel.append_to else {})

    def _snapshot(self, wanted: Step) -> Snapshot:
        key = (wanted.component.code, wanted.component.includes)
        if key not in self.snapshots:
            self.snapshots[key] = take(*key, self.fingerprints)
        return self.snapshots[key]

    def _implicit(self, wanted: Step) -> dict[str, str]:
        """The `artifacts` output, where another step or the pipeline is bound to it."""
        zone = self.zones[wanted.name].get(ARTIFACTS)
        if zone is None or ARTIFACTS in wanted.outputs:
            return {}
        self.folder.prepare(wanted.name, {ARTIFACTS: zone})
        return {ARTIFACTS: self.folder.output(wanted.name, ARTIFACTS, zone)}

    # ---- environment ----

    def identity(self, wanted: Step) -> str:
        """What identifies the place that a step runs in."""
        return self.options.launcher.identity(wanted) if self.options.launcher else self.interpreter

    def _base_environment(self) -> dict[str, str]:
        """The ambient environment less those secrets, with the interpreter's own commands first on the path."""
        environment = {name: value for name, value in os.environ.items() if not name.startswith(_WITHHELD)}
        environment |= self.options.variables
        environment["PATH"] = os.path.dirname(self.python) + os.pathsep + environment.get("PATH", os.defpath)
        environment.setdefault("MLFLOW_TRACKING_URI", f"sqlite:///{os.path.join(self.options.state, 'mlflow.db')}")
        environment.setdefault("MLFLOW_EXPERIMENT_NAME", self.graph.experiment)
        return environment | {
            "PYTHONUNBUFFERED": "1",  # a log that can be followed, and is whole when a step is killed
            "MLFLOW_DISABLE_TELEMETRY": "true",
            "ORT_DISABLE_TELEMETRY": "1",
            "AZUREML_ROOT_RUN_ID": self.folder.name,
            "AZUREML_EXPERIMENT_NAME": environment["MLFLOW_EXPERIMENT_NAME"],
        }

    def _provided(self, wanted: Step) -> dict[str, str]:
        asked = wanted.component.tags.get(NEEDS_TAG, "").split()
        return {name: value for need in asked for name, value in self.options.provided.get(need, {}).items()}

    # ---- the record ----

    def _publish(self) -> None:
        for name, (source, _) in self.graph.outputs.items():
            outcome = self.outcomes.get(source.step)
            if outcome is not None and outcome.status in DONE and source.output in outcome.fingerprints:
                self.folder.publish(name, source.step, source.output, self.zones[source.step][source.output])

    def _pipeline_digest(self) -> str:
        """The identity of what runs: the YAML files by content and each component's code."""
        parts = [self.fingerprints.of(path) for path in self.graph.sources]
        parts += sorted({self._snapshot(wanted).fingerprint for wanted in self.graph.steps.values()})
        return digest("\n".join(parts).encode())

    def _code_digests(self) -> dict[str, dict[str, str]]:
        return {
            digits(snapshot.fingerprint)[: step.SHORT]: {
                name: digits(made)[: step.SHORT] + "x" * made.endswith("x") for name, made in snapshot.digests.items()
            }
            for snapshot in self.snapshots.values()
        }

    def _record(self, status: str, commit: git.Commit | None, pipeline_digest: str) -> dict[str, Any]:
        now = time.perf_counter() - self.clock
        milliseconds = int(self.began % 1 * 1000)
        return {
            "version": 1,
            "run": self.folder.name,
            "pipeline": os.path.relpath(self.graph.file),
            "name": self.graph.name,
            "experiment": self.graph.experiment,
            "status": status,
            "pid": os.getpid(),
            "pipeline_digest": pipeline_digest,
            "git": {"commit": commit.commit, "dirty": commit.dirty} if commit else {"commit": "", "dirty": False},
            # To the millisecond: runs are ordered by it, and two may begin in one second.
            "started": time.strftime(f"%Y-%m-%dT%H:%M:%S.{milliseconds:03d}Z", time.gmtime(self.began)),
            "seconds": round(now, 3),
            "python": sys.version.split()[0],
            "forced": self.options.force or self.graph.force_rerun,
            "no_sandbox": bool(self.options.private) and self.options.sandbox is None,
            "inputs": {name: describe_value(value) for name, value in self.graph.inputs.items()},
            "steps": [self._describe(wanted) for wanted in self.graph.steps.values()],
            "outputs": {
                name: {
                    "type": output.type or "uri_folder",
                    "zone": self.zones[source.step][source.output],
                    "path": f"{self.zones[source.step][source.output]}/{source.step}/{source.output}",
                }
                for name, (source, output) in self.graph.outputs.items()
            },
            "warnings": [*self.graph.warnings, *self.problems],
        }

    def _describe(self, wanted: Step) -> dict[str, Any]:
        outcome = self.outcomes.get(wanted.name) or Outcome("waiting")
        zones = self.zones[wanted.name]
        return {
            "node": wanted.name,
            "component": wanted.component.name,
            "status": outcome.status,
            "started": round(outcome.started, 3),
            "seconds": round(outcome.seconds, 3),
            "exit_code": outcome.exit_code,
            "message": outcome.message,
            "command": self.commands.get(wanted.name, ""),
            "needs": sorted(wanted.needs),
            "key": outcome.key,
            "parts": outcome.parts,
            "deterministic": wanted.component.deterministic,
            "private": wanted.name in self.options.private,
            "sandbox": outcome.sandbox,
            **({"trials": outcome.trials} if outcome.trials else {}),
            "environment": self.identity(wanted),
            "inputs": {name: describe_value(value) for name, value in wanted.inputs.items()},
            "outputs": {
                name: {
                    "type": wanted.outputs[name].type if name in wanted.outputs else "uri_folder",
                    "zone": zones[name],
                    "path": f"{zones[name]}/{wanted.name}/{name}",
                    "digest": outcome.fingerprints.get(name, ""),
                }
                for name in zones
            },
        }


ARTIFACTS_FOLDER = "outputs"


def _start(
    wanted: Step,
    command: str,
    job: folder.Job,
    environment: dict[str, str],
    outputs: dict[str, str],
    sources: step.Sources,
    guard: Guard,
) -> step.Process:
    """A step in this Python, which sees what its user sees."""
    return step.Process(command, job.work, environment, job.log, guard)


def _zones(graph: Graph, edge: frozenset[str]) -> dict[str, dict[str, str]]:
    """The zone of every output, by step and name.

    That of the datastore it is bound to, else of the pipeline's default datastore; with neither it is the
    cloud's, because that is where Azure ML would put it.
    """

    def zone(uri: str) -> str:
        datastore = datastore_of(uri or graph.default_datastore)
        return folder.EDGE if datastore in edge else folder.CLOUD

    zones = {
        name: {output: zone(spec.uri) for output, spec in wanted.outputs.items()}
        for name, wanted in graph.steps.items()
    }
    values = [value for wanted in graph.steps.values() for value in wanted.inputs.values()]
    bound = [source for value in values for source in sources_of(value)]
    for source in [*bound, *(source for source, _ in graph.outputs.values())]:
        zones[source.step].setdefault(source.output, zone(""))
    return zones


def _in_main_thread() -> bool:
    return threading.current_thread() is threading.main_thread()


def _interrupt(number: int, frame: object) -> None:
    raise KeyboardInterrupt


def check_tools(graph: Graph, python: str = "") -> None:
    """Refuse with one sentence what could not be started at all on this machine."""
    if not any(os.access(os.path.join(path, "bash"), os.X_OK) for path in os.get_exec_path()):
        raise EdgemlError("there is no bash on this machine, which Azure ML commands are written for; install bash")
    sweeps = [name for name, wanted in graph.steps.items() if wanted.sweep is not None]
    interpreter = python or sys.executable
    if any(wanted.sweep is not None and wanted.sweep.algorithm == "bayesian" for wanted in graph.steps.values()):
        from edgeml.engine.sampling import check_bayesian

        check_bayesian()
    if sweeps and not step.has_package(interpreter, "mlflow"):
        raise EdgemlError(
            f"sweep '{sweeps[0]}' reads its objective from MLflow, which is not installed beside {interpreter}; "
            "install mlflow-skinny there or name another interpreter with --python"
        )
