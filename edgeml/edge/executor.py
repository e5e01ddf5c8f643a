"""The compute kind `edge`: edgeml's own engine on the VM, started, watched and ended from here.

A job has a name, and the VM keeps one folder for it: who submits it again attaches to it. It runs without us: a lost
connection costs nothing, and after a reboot `wait` starts it again, from its finished steps. What comes back are names,
states and times, a cause of a closed list where a step failed, and the files that the egress gate released, once its
signature is verified. Credentials of the storage go there with each start, by standard input, and stay in memory.
"""

from __future__ import annotations

import base64
import json
import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NamedTuple

from edgeml import project
from edgeml.edge import session
from edgeml.edge.on_vm import said
from edgeml.edge.on_vm.jobs import CANCELLED, COMPLETED, FAILED, LOST, RUNNING
from edgeml.edge.on_vm.rim import Refused
from edgeml.engine import files
from edgeml.errors import EdgemlError

if TYPE_CHECKING:
    from edgeml.edge.session import Host
    from edgeml.edge.tree import Tree
    from edgeml.pipeline import Graph
    from edgeml.settings import Edge

Say = Callable[[str], None]
RELEASE = "release"
PATIENCE = 600.0  # seconds without the VM, as long as a reboot may take, before `follow` gives up
_WATCH = 3600.0  # seconds of one question; then it is asked again
_STARTS = 5  # of a job that ends each time before one more step is done
_LARGEST = 1 << 30  # bytes of a release
_BATCH = 5000  # names of one question
_AGAIN = "submit the same job again, it goes on from its finished steps"
_CAUSES = {
    "storage-credential": "the storage account refuses the credential, or it expired while the rows were read; give a "
    f"fresh one in EDGEML_STORAGE_SAS_TOKEN or EDGEML_STORAGE_ACCOUNT_KEY and {_AGAIN}",
    "storage-certificate": "the storage's certificate is not signed by an authority that the VM was given; correct "
    f"storage.ca_bundle and {_AGAIN}",
    "storage-unreachable": f"the VM does not reach the storage; see `edgeml compute check`, then {_AGAIN}",
    "storage-container": "the container of the rows does not exist; correct the pipeline's input or make it",
    "storage-changed": f"the rows changed while they were read; once nothing writes to them, {_AGAIN}",
    "disk-full": f"no space is left on the VM's disk; free some there and {_AGAIN}",
    "memory": "it was ended for want of memory; `edgeml compute check` tells the size of VM that the data need",
    "module": "it imports a package that is not installed on the VM; add it to pyproject.toml and call `make lock`",
    "blocked": "the egress gate let nothing out; its findings lie on the VM, in the job's folder",
    "failed": "it failed; its log stays on the VM, in the job's folder",
}
_REFUSALS = {
    "disk-full": _CAUSES["disk-full"],
    "damaged": "what was sent to the VM arrived damaged; submit the job again",
    "other-job": "a job of this name is there already, of other code or inputs; give this one another name",
    "no-job": "there is no job of this name on the VM; submit it first",
    "not-completed": "the job is not completed, so nothing is released; wait for it",
    "record": "the run's record on the VM is none; submit the job again",
    "venv": "the VM's Python makes no virtual environment; install python3-venv there",
    "pip": "the VM's packages could not be installed there",
}


class Submitted(NamedTuple):
    """A job as it stands, and whether it was there before."""

    job: str
    state: str
    attached: bool


class Finished(NamedTuple):
    """A job as it ended, or `running` where the time was up. `failures` are sentences by step; `path` is the run's
    folder here, empty until it is fetched."""

    job: str
    state: str
    failures: dict[str, str]
    path: str = ""


def submit(target: str, pipeline: str, job: str, inputs: Mapping[str, str], say: Say) -> Submitted:
    """Start a job on the VM of a compute target with the commit that is checked out, or attach to it.

    `pipeline` is a path in the project, `inputs` as `edgeml run --input` takes them. A job that failed, was cancelled
    or lost goes on. Raises EdgemlError.
    """
    from edgeml.edge import tree
    from edgeml.pipeline import resolve

    root = project.root_folder()
    graph = resolve(pipeline, dict(inputs))
    code, dirty = tree.committed(root)
    relative = os.path.relpath(os.path.abspath(pipeline), root)
    if relative not in {path for path, _, _ in code.files}:
        raise EdgemlError(f"{pipeline} is not in the commit, and the edge runs what is committed; commit it with git")
    if dirty:
        say(f"tracked files differ from the commit; the VM runs {code.commit[:12]} as it was committed")
    with reached(target) as (host, edge):
        python, environment = _prepared(host, edge, root, say)
        _send(host, edge, code, "code", say)
        given: dict[str, Any] = {}
        for name, value in inputs.items():
            path = _outside(graph, name, root)
            given[name] = value if path is None else _sent_input(host, edge, path, say)
        job_is: dict[str, Any] = {"tree": code.identity, "commit": code.commit, "pipeline": relative, "inputs": given}
        job_is |= {"python": python, "environment": environment, "storage": _asks_storage(graph)}
        answer = _start(host, edge, job, job_is, again=True)
        return Submitted(job, answer["state"], answer["attached"])


def wait(target: str, job: str, say: Say, seconds: float = float("inf"), trusted: list[str] | None = None) -> Finished:
    """`follow` a job to its end, and `fetch` what a completed one released."""
    finished = follow(target, job, say, seconds)
    if finished.state != COMPLETED:
        return finished
    return finished._replace(path=fetch(target, job, trusted))


def follow(target: str, job: str, say: Say, seconds: float = float("inf")) -> Finished:
    """Say each step of a job as it starts and ends, until the job has ended or the seconds are over.

    A lost connection is made again; a job that was lost with the VM is started again. Raises EdgemlError where the VM
    stays away, or where a job is lost each time before anything more is done.
    """
    deadline = time.monotonic() + seconds
    with reached(target) as (host, edge):
        offset = starts = 0
        heard = time.monotonic()
        pause = 0.2
        while True:
            left = deadline - time.monotonic()
            if left <= 0:
                return Finished(job, RUNNING, {})
            question = {"verb": "follow", "folder": edge.folder, "job": job, "offset": offset}
            answer: dict[str, Any] = {}
            try:
                for answer in host.ask({**question, "seconds": min(left, _WATCH)}):
                    heard, pause = time.monotonic(), 0.2
                    if "progress" in answer:
                        offset += 1
                        starts = 0
                        say(_line(answer["progress"]))
            except session.Lost as lost:
                if time.monotonic() - heard > PATIENCE:
                    raise EdgemlError(f"{lost}; the job goes on there, `edgeml wait {job}` finds it", 1) from None
                if pause == 0.2:
                    say("the connection was lost; the job goes on without it, trying again")
                time.sleep(pause)
                pause = min(pause * 2, 10.0)
                continue
            state = _checked(answer, target).get("state")
            if state == RUNNING:
                continue
            if state != LOST:
                return _finished(host, edge, target, job)
            starts += 1
            if starts > _STARTS:
                raise EdgemlError(f"job {job} ends on {target} as soon as it starts; see `edgeml compute check`", 1)
            _start(host, edge, job, None, again=False, storage=_collected(host, edge, target, job)["is"]["storage"])
            say(f"{target} was restarted, or the job ended with its session; it goes on from its finished steps")


def cancel(target: str, job: str) -> str:
    """End a job and its steps; returns the state that it is in then."""
    with reached(target) as (host, edge):
        return str(_told(host, target, {"verb": "cancel", "folder": edge.folder, "job": job})[-1]["state"])


def fetch(target: str, job: str, trusted: list[str] | None = None) -> str:
    """Bring a completed job's record and what the gate released to `.edgeml/runs/<job>`, and return that folder.

    `trusted` are the public keys whose signature counts, without them the settings' and this machine's own. Raises
    EdgemlError, exit code 1, where the release is not what a trusted gate let out; nothing is kept then.
    """
    from edgeml.registry import release

    folder = os.path.join(project.state_folder(), "runs", job)
    unfinished = os.path.join(project.state_folder(), "runs", f".{job}.{files.unique()}")
    with reached(target) as (host, edge):
        record = _collected(host, edge, target, job)["record"]
        if record is None:
            raise EdgemlError(f"job {job} on {target} has no record; submit it again", 1)
        record["run"] = job  # there its folder is called otherwise
        os.makedirs(unfinished)
        try:
            if RELEASE in record["outputs"]:
                where = os.path.join(unfinished, record["outputs"][RELEASE]["path"])
                os.makedirs(where)
                _receive(host, edge, target, job, where)
                release.verify(where, trusted)
                os.makedirs(os.path.join(unfinished, "outputs"))
                link = os.path.join("..", record["outputs"][RELEASE]["path"])
                os.symlink(link, os.path.join(unfinished, "outputs", RELEASE))
            files.write_atomically(os.path.join(unfinished, "run.json"), json.dumps(record, indent=2) + "\n")
            if os.path.isdir(folder):
                aside = f"{unfinished}.old"
                os.rename(folder, aside)
                files.remove(aside)
            os.rename(unfinished, folder)
        finally:
            files.remove(unfinished)
    return folder


def gate_key(target: str) -> str:
    """The public key of the VM's egress gate, empty until it first decided; as true as the pinned connection."""
    with reached(target) as (host, edge):
        return str(_hello(host, edge, target, "0" * 32)["gate"])


@contextmanager
def reached(target: str) -> Iterator[tuple[Host, Edge]]:
    """The VM of a compute target and its settings. Raises EdgemlError for a name that is none of kind `edge`."""
    edge = target_of(target)
    host = session.open_host(target, edge)
    try:
        yield host, edge
    finally:
        host.close()


def target_of(target: str) -> Edge:
    """The settings of a compute target of kind `edge`."""
    from edgeml import settings

    known = settings.load().compute
    edges = [name for name, compute in known.items() if compute.kind == "edge"]
    found = known.get(target)
    if found is None or found.kind != "edge":
        listed = f"there are: {', '.join(edges)}" if edges else f'add [compute.{target}] with kind = "edge"'
        raise EdgemlError(f"'{target}' is no compute target of kind edge in edgeml.toml; {listed}")
    return found


def storage_of(*, needed: bool) -> tuple[dict[str, str], str]:
    """The variables by which a run reaches the rows, and the text of the authority that their endpoint is known by."""
    if not needed:
        return {}, ""
    from edgeml import storage

    variables = storage.step_environment()
    bundle = variables.pop("EDGEML_STORAGE_CA_BUNDLE", "")
    if not bundle:
        return variables, ""
    with open(bundle, encoding="ascii") as stream:
        return variables, stream.read(1 << 20)


# --- preparing the VM -------------------------------------------------------------------------------


def _prepared(host: Host, edge: Edge, root: str, say: Say) -> tuple[str, str]:
    """The interpreter where the VM is this machine, else the key of the environment that it has now."""
    import sys

    from edgeml.edge import wheels

    if isinstance(host, session.Here):
        return sys.executable, ""
    with open(os.path.join(root, wheels.LOCK), encoding="utf-8") as stream:
        lock = stream.read()
    hello = _hello(host, edge, edge.address, "0" * 32)
    python, machine = (int(hello["python"][0]), int(hello["python"][1])), str(hello["machine"])
    if python < (3, 11):
        raise EdgemlError(
            f"the VM has Python {python[0]}.{python[1]} and edgeml needs 3.11; install a newer one there as python3", 1
        )
    key = wheels.key(lock, python, machine)
    if not _hello(host, edge, edge.address, key)["ready"]:
        there = wheels.gather(lock, python, machine, os.path.join(project.state_folder(), "wheels"), say)
        lacking = _missing(host, edge, list(there))
        if lacking:
            say(f"sending {len(lacking)} of {len(there)} packages")
            _put(host, edge, lambda: wheels.sent(there, lacking))
        say("installing the packages on the VM (once for each lock)")
        question = {"verb": "environment", "folder": edge.folder, "environment": key, "wheels": list(there)}
        _told(host, edge.address, {**question, "lock": wheels.for_python(lock, python)})
    return "", key


def _hello(host: Host, edge: Edge, target: str, key: str) -> dict[str, Any]:
    return _told(host, target, {"verb": "hello", "folder": edge.folder, "environment": key})[-1]


def _send(host: Host, edge: Edge, tree: Tree, kind: str, say: Say) -> None:
    blobs = sorted({blob for _, _, blob in tree.files})
    lacking = _missing(host, edge, blobs)
    if lacking:
        say(f"sending {len(lacking)} of {len(blobs)} files")
        _put(host, edge, lambda: tree.blobs(lacking))
    question = {"verb": "tree", "folder": edge.folder, "kind": kind, "tree": tree.identity, "files": tree.files}
    _told(host, edge.address, question)


def _missing(host: Host, edge: Edge, names: list[str]) -> set[str]:
    found: set[str] = set()
    for begin in range(0, len(names), _BATCH):
        question = {"verb": "missing", "folder": edge.folder, "names": names[begin : begin + _BATCH]}
        found |= set(_told(host, edge.address, question)[-1]["missing"])
    return found


def _put(host: Host, edge: Edge, payload: Callable[[], Iterator[bytes]]) -> None:
    answers = session.told(host, {"verb": "put", "folder": edge.folder}, payload)
    _checked(answers[-1] if answers else {}, edge.address)


def _outside(graph: Graph, name: str, root: str) -> str | None:
    """The path of an input that is data of this machine, outside of what the commit has."""
    from edgeml.pipeline.graph import Data

    value = graph.inputs.get(name)
    if not isinstance(value, Data) or not os.path.exists(value.path):
        return None
    return value.path


def _sent_input(host: Host, edge: Edge, path: str, say: Say) -> dict[str, str]:
    from edgeml.edge import tree

    made = tree.of_path(path)
    _send(host, edge, made, "inputs", say)
    return {"tree": made.identity, "path": os.path.basename(os.path.abspath(path))}


def _asks_storage(graph: Graph) -> bool:
    from edgeml.engine.run import NEEDS_TAG

    return any("storage" in step.component.tags.get(NEEDS_TAG, "").split() for step in graph.steps.values())


# --- asking about a job -----------------------------------------------------------------------------


def _start(
    host: Host, edge: Edge, job: str, job_is: dict[str, Any] | None, *, again: bool, storage: bool = False
) -> dict[str, Any]:
    secrets, authority = storage_of(needed=bool(job_is["storage"]) if job_is else storage)
    question = {"verb": "start", "folder": edge.folder, "job": job, "is": job_is, "again": again}
    return _told(host, edge.address, {**question, "secrets": secrets, "authority": authority})[-1]


def _collected(host: Host, edge: Edge, target: str, job: str) -> dict[str, Any]:
    """How a job stands. Its record is made value-free there, and here once more: what comes is not believed."""
    answer = _told(host, target, {"verb": "collect", "folder": edge.folder, "job": job})[-1]
    if answer.get("record"):
        try:
            answer["record"] = said.value_free({**answer["record"]})
        except Refused:
            raise EdgemlError(
                f"the record of job {job} on {target} is none of edgeml's; submit the job again", 1
            ) from None
    return answer


def _finished(host: Host, edge: Edge, target: str, job: str) -> Finished:
    answer = _collected(host, edge, target, job)
    state = answer["state"]
    if state not in (COMPLETED, FAILED, CANCELLED):
        raise EdgemlError(f"there is no job {job} on {target}; submit it first", 1)
    result = answer["result"]
    failures = {step: _CAUSES.get(cause, _CAUSES["failed"]) for step, cause in dict(result.get("causes") or {}).items()}
    if not failures and state == FAILED:
        failures[""] = str(result.get("refusal") or f"the engine failed; its log lies on {target}, in the job's folder")
    return Finished(job, state, failures)


def _receive(host: Host, edge: Edge, target: str, job: str, folder: str) -> None:
    """Write a release's files as they come: plain names, in all no more than a limit."""
    left = _LARGEST
    for answer in _told(host, target, {"verb": "release", "folder": edge.folder, "job": job}):
        name = answer.get("file")
        if name is None:
            continue
        data = base64.b64decode(answer["data"], validate=True)
        left -= len(data)
        if left < 0 or not isinstance(name, str) or os.path.basename(name) != name or name in ("", ".", ".."):
            raise EdgemlError(f"{target} sends a release that is none; submit the job again", 1)
        with open(os.path.join(folder, name), "ab") as stream:
            stream.write(data)


def _told(host: Host, target: str, question: dict[str, Any]) -> list[dict[str, Any]]:
    answers = session.told(host, question)
    _checked(answers[-1] if answers else {}, target)
    return answers


def _checked(answer: dict[str, Any], target: str) -> dict[str, Any]:
    """An answer that is a whole one. Raises EdgemlError for a refusal."""
    if word := answer.get("refused"):
        what = f" ({answer['what']})" if answer.get("what") and word in ("venv", "pip", "name") else ""
        raise EdgemlError(f"{target}: {_REFUSALS.get(word, f'it refuses: {word}')}{what}", 1)
    if not answer.get("done"):
        raise EdgemlError(f"{target} stopped in the middle of an answer; try the same command again", 1)
    return answer


def _line(progress: dict[str, Any]) -> str:
    """A step's state, of nothing but its name, a known state and a number."""
    match = said.progress_of(
        f"  {progress.get('node')}  {progress.get('status')}  {float(progress.get('seconds') or 0):.2f} s"
    )
    if match is None:
        raise EdgemlError("the VM sends progress that is none of edgeml's; see who else uses it", 1)
    took = f"{match['seconds']:8.2f} s" if match["seconds"] else ""
    return f"  {match['node']:<24} {match['status']:<9}{took}".rstrip()
