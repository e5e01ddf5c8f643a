"""Compute targets behind one face: what the settings call `edge-vm` runs pipelines, whatever kind it is of."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib import import_module
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from edgeml.errors import EdgemlError

if TYPE_CHECKING:
    from edgeml.azure.workspace import Workspace
    from edgeml.settings import Edge, Kubernetes, Settings, VirtualMachine

Say = Callable[[str], None]

RUNNING, COMPLETED, FAILED = "running", "completed", "failed"


class Submitted(NamedTuple):
    """A job, whether it was made just now, its state, and where a person can look at it (empty: nowhere but here)."""

    job: str
    created: bool
    state: str
    studio: str


class Ended(NamedTuple):
    """A job as it was when waiting ended: `running` if the time was up. `run` is the folder of what it released."""

    job: str
    state: str
    run: str = ""


class Target(Protocol):
    """A kind of compute. Each call is safe to be made again after it was interrupted."""

    @property
    def name(self) -> str: ...

    @property
    def kind(self) -> str: ...

    def attach(self, say: Say, *, rotate: bool = False, password: bool = False) -> None: ...

    def state(self) -> str: ...

    def detach(self, say: Say) -> None: ...

    def submit(self, pipeline: str, inputs: Mapping[str, str], say: Say, *, supersede: bool = False) -> Submitted: ...

    def wait(self, job: str, say: Say, *, seconds: float, poll: float) -> Ended: ...

    def cancel(self, job: str, say: Say) -> str: ...


def of(name: str, settings: Settings) -> Target:
    """The target of a name. Raises EdgemlError for one that the settings do not have."""
    found = settings.compute.get(name)
    if found is None:
        listed = ", ".join(settings.compute) or "none"
        raise EdgemlError(f"edgeml.toml has no [compute.{name}]; it has: {listed}")
    return _Edge(name, found, settings) if found.kind == "edge" else _Azure(name, found, settings)


def chosen(name: str, pipeline: str, settings: Settings) -> Target:
    """The target that was asked for, else the pipeline's own default compute."""
    if name:
        return of(name, settings)
    from edgeml.pipeline import load, resolve
    from edgeml.pipeline.source import read

    document = read(pipeline)
    default = load.text(load.section(document, "settings"), "default_compute") or load.text(document, "compute")
    named = {step.compute or default for step in resolve(pipeline, here=False).steps.values()}
    computes = sorted(name.removeprefix("azureml:") for name in named if name)
    if len(computes) != 1:
        raise EdgemlError(f"{pipeline} names {', '.join(computes) or 'no compute'}; say which: --target NAME")
    return of(computes[0], settings)


class _Azure:
    """Kinds `kubernetes` and `vm`: Azure ML schedules."""

    def __init__(self, name: str, compute: Kubernetes | VirtualMachine, settings: Settings) -> None:
        self.name, self.kind = name, compute.kind
        self._compute, self._settings = compute, settings
        self._made: Workspace | None = None

    @property
    def _workspace(self) -> Workspace:
        if self._made is None:
            from edgeml.azure.workspace import Workspace

            self._made = Workspace(self._settings)
        return self._made

    def attach(self, say: Say, *, rotate: bool = False, password: bool = False) -> None:
        from edgeml.azure import kubernetes, machine

        if self._compute.kind == "vm":
            if self._compute.address:  # Azure ML is given a key for whatever machine answers there
                from edgeml.edge import session

                session.check_host(self.name, self._compute)
            machine.attach(self._workspace, self.name, self._compute, say, rotate=rotate, password=password)
        elif rotate or password:
            raise EdgemlError(f"'{self.name}' is a cluster, which Azure ML reaches without a key or a password")
        else:
            kubernetes.attach(self._workspace, self.name, self._compute, say)

    def state(self) -> str:
        from edgeml.azure import compute

        return compute.state(self._workspace, self.name)

    def detach(self, say: Say) -> None:
        from edgeml.azure import compute

        compute.detach(self._workspace, self.name, say)

    def submit(self, pipeline: str, inputs: Mapping[str, str], say: Say, *, supersede: bool = False) -> Submitted:
        from edgeml.azure import jobs, plan

        instance_type = self._compute.instance_type if self._compute.kind == "kubernetes" else ""
        container = self._settings.storage.container if self._compute.outputs == "step" else ""
        made = plan.make(pipeline, self.name, inputs, say, container)
        done = jobs.submit(self._workspace, made, self.name, say, instance_type=instance_type, supersede=supersede)
        return Submitted(done.job, done.created, _plain(done.status), done.studio)

    def wait(self, job: str, say: Say, *, seconds: float, poll: float) -> Ended:
        from edgeml.azure import fetch, jobs

        state = _plain(jobs.wait(self._workspace, job, say, seconds=seconds, poll=poll))
        return Ended(job, state, fetch.release(self._workspace, job, say) if state == COMPLETED else "")

    def cancel(self, job: str, say: Say) -> str:
        from edgeml.azure import jobs

        return _plain(jobs.cancel(self._workspace, job, say))


class _Edge:
    """Kind `edge`: edgeml's engine on the VM; Azure ML schedules nothing and need not reach it."""

    def __init__(self, name: str, compute: Edge, settings: Settings) -> None:
        self.name, self.kind = name, compute.kind
        self._settings = settings

    @property
    def _executor(self) -> Any:
        return import_module("edgeml.edge.executor")

    def attach(self, say: Say, *, rotate: bool = False, password: bool = False) -> None:
        if rotate or password:
            raise EdgemlError(f"'{self.name}' is no compute of Azure ML, which knows no key of it; change it on the VM")
        say(f"{self.name} needs no attaching: edgeml runs there itself; `edgeml compute check {self.name}` looks at it")

    def state(self) -> str:
        return "not attached (kind edge)"

    def detach(self, say: Say) -> None:
        say(f"{self.name} is not attached")

    def submit(self, pipeline: str, inputs: Mapping[str, str], say: Say, *, supersede: bool = False) -> Submitted:
        from edgeml.azure import plan

        plan.refuse(pipeline, self.name, inputs, say)
        if supersede:
            raise EdgemlError("--supersede is for targets of Azure ML; `edgeml cancel JOB` ends one on the edge")
        done = self._executor.submit(self.name, pipeline, self._executor.job_name(pipeline, inputs), inputs, say)
        return Submitted(done.job, not done.attached, done.state, "")

    def wait(self, job: str, say: Say, *, seconds: float, poll: float) -> Ended:
        done = self._executor.wait(self.name, job, say, seconds)
        for step, why in done.failures.items():
            say(f"  {step}: {why}" if step else f"  {why}")
        if done.path and self._settings.azure.workspace:
            self._report(done.path, say)
        return Ended(job, done.state, done.path)

    def _report(self, run: str, say: Say) -> None:
        """What was released of a run to the workspace's experiments; where that fails, waiting again goes on."""
        from edgeml.azure.workspace import Workspace
        from edgeml.edge import report, tracking

        content, _ = report.content(run)
        tracking.report(Workspace(self._settings), content, say)
        say(f"{content.job} is in the workspace's experiment {content.experiment}")

    def cancel(self, job: str, say: Say) -> str:
        state = str(self._executor.cancel(self.name, job))
        say(f"{job}: {state}")
        return state


def _plain(status: str) -> str:
    """Azure ML's many words for a job's state as the few that decide what to do next."""
    if status == "Completed":
        return COMPLETED
    if status == "Canceled":
        return "cancelled"
    return FAILED if status in ("Failed", "NotResponding") else RUNNING
