"""Jobs that Azure ML runs: submitted once, waited for from anywhere, cancelled when asked."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from itertools import count
from typing import TYPE_CHECKING, Any, NamedTuple

from edgeml import __version__
from edgeml.azure import code, environments, stage
from edgeml.azure.patience import StillTrying, patiently
from edgeml.azure.store import Store
from edgeml.azure.workspace import import_sdk, silence
from edgeml.errors import EdgemlError

if TYPE_CHECKING:
    from edgeml.azure.plan import Plan
    from edgeml.azure.workspace import Workspace

CLOUD_STORE = "workspaceblobstore"  # every workspace has it: its own storage, in the cloud
COMPLETED, FAILED = "Completed", ("Failed", "Canceled", "NotResponding")
ENDED = (COMPLETED, *FAILED)
SUBMIT_SECONDS = 600.0
AT_ONCE = 4  # snapshots of code that are uploaded
STILL_RUNNING = 75  # sysexits' EX_TEMPFAIL: nothing is wrong, come again

Say = Callable[[str], None]


class Job(NamedTuple):
    """A job: `status` in Azure ML's words, `properties` as they are on the wire, `created` as ISO 8601."""

    name: str
    status: str
    studio: str
    properties: dict[str, Any]
    created: str


class Submitted(NamedTuple):
    """A job of the plan, whether it was made just now, and where a person can look at it."""

    job: str
    created: bool
    status: str
    studio: str


def submit(
    workspace: Workspace,
    plan: Plan,
    compute: str,
    say: Say,
    *,
    instance_type: str = "",
    supersede: bool = False,
) -> Submitted:
    """Let Azure ML run a plan, unless a job of the same content runs or has completed already.

    Safe to be killed and called again at any moment: every name follows from content. Raises EdgemlError, exit code 1.
    """
    until = time.monotonic() + SUBMIT_SECONDS

    def once() -> Submitted:
        name, job = _unfailed(workspace, plan)
        if job is not None:
            return Submitted(job.name, False, job.status, job.studio)
        made = _create(workspace, plan, name, compute, instance_type)
        # The service may know a job that it did not show a moment ago; a failed one calls for the next attempt.
        return once() if made.status in FAILED else made

    done = patiently(workspace, f"submitting {plan.file}", once, until, say)
    if supersede:
        for other in _superseded(workspace, plan, done.job):
            cancel(workspace, other, say)
    return done


def wait(workspace: Workspace, name: str, say: Say, *, seconds: float, poll: float) -> str:
    """The state in which a job ended, or the one it is in when the time is up; tells of each step that moves.

    Raises EdgemlError, exit code 1, where the job cannot be asked about for another reason than the network's.
    """
    until, status, gone = time.monotonic() + seconds, "", 0
    seen: dict[str, str] = {}
    while True:
        try:
            job = patiently(workspace, f"asking for {name}", lambda: find(workspace, name), until, say)
        except StillTrying:
            return status or "Unknown"
        if job is None:
            gone += 1
            if gone > 2:  # just after it was made a job may not be found; later it is gone
                raise EdgemlError(f"the workspace has no job {name}; `edgeml submit` prints the name of one", 1)
        elif job.status != status:
            status, gone = job.status, 0
            say(f"{name}: {status}")
        if job is not None and status not in ("NotStarted", "Queued", "Preparing", "Provisioning"):
            _tell_of_steps(workspace, name, seen, until, say)
        if status in ENDED:
            return status
        if time.monotonic() + poll > until:
            return status or "Unknown"
        time.sleep(poll)


def cancel(workspace: Workspace, name: str, say: Say) -> str:
    """Cancel a job; one that has ended stays as it is. Returns the state in which it was."""
    until = time.monotonic() + SUBMIT_SECONDS
    job = patiently(workspace, f"asking for {name}", lambda: find(workspace, name), until, say)
    if job is None:
        raise EdgemlError(f"the workspace has no job {name}", 1)
    if job.status not in ENDED:
        patiently(workspace, f"cancelling {name}", lambda: workspace.request("POST", f"jobs/{name}/cancel"), until, say)
        say(f"{name}: cancelled")
    return job.status


def _unfailed(workspace: Workspace, plan: Plan) -> tuple[str, Job | None]:
    """The first attempt at a plan that did not fail: its name, and the job, None where it is still to be made."""
    for number in count(1):
        name = plan.attempt(number)
        job = find(workspace, name)
        if job is None or job.status not in FAILED:
            return name, job
    raise AssertionError


def find(workspace: Workspace, name: str) -> Job | None:
    """A job as the service has it; None where it has none. By plain REST: it costs no import of the SDK."""
    found = workspace.find(f"jobs/{name}")
    if found is None:
        return None
    properties = found["properties"]
    studio = str(((properties.get("services") or {}).get("Studio") or {}).get("endpoint") or "")
    tenant = workspace.settings.azure.tenant_id
    return Job(
        str(found["name"]),
        str(properties.get("status")),
        f"{studio}&tid={tenant}" if studio and tenant and "tid=" not in studio else studio,
        properties,
        str((found.get("systemData") or {}).get("createdAt") or ""),
    )


def _create(workspace: Workspace, plan: Plan, name: str, compute: str, instance_type: str) -> Submitted:
    different = {snapshot.fingerprint: snapshot for snapshot in plan.snapshots.values() if snapshot.files}
    with ThreadPoolExecutor(AT_ONCE + 1) as pool:
        sdk = pool.submit(import_sdk)  # two seconds of the processor, in which all else waits for the network
        computed = _compute(workspace, compute)
        store = Store(workspace, CLOUD_STORE)
        for reference in sorted({e for step in plan.graph.steps.values() if isinstance(e := step.environment, str)}):
            environments.ensure(workspace, reference, store)
        # Each is a chain of small requests that wait for one another.
        codes = dict(zip(different, pool.map(lambda one: code.upload(workspace, one), different.values()), strict=True))
        sdk.result()
    by_step = {step: codes[snap.fingerprint] for step, snap in plan.snapshots.items() if snap.files}
    uploaded = stage.Uploaded(by_step, {path: _upload_input(store, path) for path in stage.local_inputs(plan)})
    with tempfile.TemporaryDirectory(prefix="edgeml-") as folder, silence():
        from azure.ai.ml import load_job
        from azure.ai.ml.entities import JobResourceConfiguration

        prepared: Any = load_job(stage.write(plan, uploaded, f"azureml:{computed}", folder))
        prepared.name = name
        prepared.properties = {**(prepared.properties or {}), **plan.source.properties()}
        prepared.tags = {**(prepared.tags or {}), **tags(plan)}
        for node in prepared.jobs.values() if instance_type else ():
            node.resources = JobResourceConfiguration(instance_type=instance_type)
        # What the SDK would validate has been, by stricter rules; it would ask for each compute once more.
        made: Any = workspace.client.jobs.create_or_update(prepared, skip_validation=True)
    return Submitted(str(made.name), True, _status(made), str(made.studio_url or ""))


def tags(plan: Plan) -> dict[str, str]:
    """By which a job is found again: what made it, and from what."""
    found = {
        "edgeml": __version__,
        "edgeml.pipeline": plan.file,
        "edgeml.digest": plan.digest,
        "edgeml.commit": plan.source.commit,
        "edgeml.dirty": str(plan.source.dirty).lower(),
    }
    return {key: value for key, value in found.items() if value}


def _compute(workspace: Workspace, name: str) -> str:
    """The ARM id of a compute that is there and in order."""
    found = workspace.find(f"computes/{name}")
    if found is None:
        raise EdgemlError(f"the workspace has no compute '{name}'; run `edgeml compute attach {name}`", 1)
    state = found["properties"].get("provisioningState")
    if state != "Succeeded":
        raise EdgemlError(f"compute '{name}' is {state}; see `edgeml doctor --target {name}`", 1)
    return f"{workspace.id}/computes/{name}"


def _upload_input(store: Store, path: str) -> str:
    """Where a small configuration file or folder, which the rules have let pass, lies in the cloud."""
    import os

    from edgeml.engine.fingerprint import Fingerprints, walk

    digest = Fingerprints("").of(path).partition(":")[2]
    folder = f"edgeml/inputs/{digest}"
    name = os.path.basename(path)
    if os.path.isfile(path):
        store.put(folder, [(name, path)])
        return store.uri(f"{folder}/{name}")
    store.put(f"{folder}/{name}", [(inner, found) for inner, kind, found in walk(path) if kind == "file"])
    return store.uri(f"{folder}/{name}/")


def _superseded(workspace: Workspace, plan: Plan, kept: str) -> list[str]:
    """Jobs of the same pipeline that have not ended, but for the one that takes their place."""
    found = patiently(workspace, "listing jobs", lambda: list(workspace.client.jobs.list()), time.monotonic() + 60)
    return [
        str(job.name)
        for job in found
        if job is not None
        and job.name != kept
        and _status(job) not in ENDED
        and (job.tags or {}).get("edgeml.pipeline") == plan.file
    ]


def _tell_of_steps(workspace: Workspace, name: str, seen: dict[str, str], until: float, say: Say) -> None:
    """One line for each step that moved: its name and state, and nothing of what it printed."""

    def children() -> list[Any]:
        with silence():
            return [child for child in workspace.client.jobs.list(parent_job_name=name) if child is not None]

    try:
        found = patiently(workspace, f"asking for the steps of {name}", children, min(until, time.monotonic() + 60))
    except EdgemlError:  # progress is a courtesy; the job's own state is asked for by itself
        return
    for child in found:
        state = _status(child)
        if seen.get(child.name, "NotStarted") != state:
            say(f"  {child.display_name or child.name}: {state}")
        seen[child.name] = state


def _status(job: Any) -> str:
    """The SDK gives a text or a member of an enumeration, as the service's version has it."""
    return str(getattr(job.status, "value", job.status))
