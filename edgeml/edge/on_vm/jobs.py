"""Jobs on the VM: started once, ended by themselves, asked about by whoever comes back."""

from __future__ import annotations

import base64
import contextlib
import fcntl
import json
import os
import signal
import stat
import subprocess
import sys
import time
from typing import Any

from edgeml.edge.on_vm import said
from edgeml.edge.on_vm.rim import NAME, Refused, read, say, write
from edgeml.edge.on_vm.stock import environment_of

RUNNING, COMPLETED, FAILED, CANCELLED, LOST, ABSENT = "running", "completed", "failed", "cancelled", "lost", "absent"
_BLOCK = 48 << 10
_MOST = 64 << 20  # bytes of one released file
_GRACE = 20.0  # seconds that an engine has to end its steps
_HEARTBEAT = 5.0
_RESERVE = 1 << 15
PROGRAM = b""  # what was sent: a supervisor is started by it


def start(root: str, question: dict[str, Any]) -> dict[str, Any]:
    """Start a job, or find that it runs or is done. One that was lost, failed or cancelled goes on where it was.

    What a job is stays what it was at its first start; `secrets` are for this start alone, and in memory only.
    """
    folder = _job(root, question["job"])
    os.makedirs(folder, mode=0o700, exist_ok=True)
    lock = os.open(os.path.join(folder, "lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    if not _taken(lock):
        _same(folder, question)
        return {"state": RUNNING, "attached": True}
    state = _ended(folder)
    if state != ABSENT:
        _same(folder, question)
    if state == COMPLETED or (state in (FAILED, CANCELLED) and not question["again"]):
        return {"state": state, "attached": True}
    if question.get("is") is None and state == ABSENT:
        raise Refused("no-job", question["job"])
    if question.get("is") is not None:
        write(os.path.join(folder, "job.json"), question["is"])
    with open(os.path.join(folder, "reserve"), "wb") as stream:  # room for the result, should the disk be full then
        stream.write(b"." * _RESERVE)
    with contextlib.suppress(FileNotFoundError):
        os.unlink(os.path.join(folder, "result.json"))
    _launch(root, folder, lock, {**question, "verb": "supervise", "is": None})
    return {"state": RUNNING, "attached": False, "went": state}


def _taken(lock: int) -> bool:
    """Whether the job's lock is ours now; whoever only asks for its state holds it for a moment."""
    for _ in range(20):
        with contextlib.suppress(OSError):
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
        time.sleep(0.02)
    return False


def _launch(root: str, folder: str, lock: int, question: dict[str, Any]) -> None:
    """This program again, as a process of its own that holds the job's lock; the question comes from memory."""
    words = os.memfd_create("edgeml")
    with open(os.dup(words), "wb") as stream:
        stream.write(b"%d\n" % len(PROGRAM) + PROGRAM + json.dumps(question).encode() + b"\n")
    os.lseek(words, 0, os.SEEK_SET)
    with open(os.path.join(folder, "supervisor.log"), "wb") as log:
        subprocess.Popen(
            [*_scope(), sys.executable, "-I", "-c", question["boot"]],
            stdin=words,
            stdout=subprocess.DEVNULL,
            stderr=log,
            pass_fds=(lock,),
            start_new_session=True,
            cwd=root,
        )


def _same(folder: str, question: dict[str, Any]) -> None:
    if question.get("is") is not None and question["is"] != read(os.path.join(folder, "job.json")):
        raise Refused("other-job", question["job"])


def _scope() -> list[str]:
    """Where systemd ends a user's processes with the last session, a scope of its own; it needs a lingering user."""
    if not os.path.isdir("/run/systemd/system"):
        return []
    asked = ["loginctl", "show-user", "--property=Linger", "--value", str(os.getuid())]
    with contextlib.suppress(OSError):
        if subprocess.run(asked, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL).stdout.strip() == b"yes":
            return ["systemd-run", "--user", "--scope", "--quiet", "--collect"]
    return []


def supervise(root: str, question: dict[str, Any]) -> None:
    """A job's own process: start the engine, keep of what it says only the progress, write down how it ended."""
    folder = _job(root, question["job"])
    job = read(os.path.join(folder, "job.json"))
    began = time.time()
    engine = subprocess.Popen(
        _command(root, folder, job),
        cwd=os.path.join(root, "code", job["tree"]),
        env=_environment(folder, job, question),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        preexec_fn=_end_with_parent,
    )
    cancelled: list[bool] = []

    def stop(*_: object) -> None:
        cancelled.append(True)
        engine.terminate()

    signal.signal(signal.SIGTERM, stop)
    write(os.path.join(folder, "pid"), os.getpid())
    last = _listen(folder, engine)
    code = engine.wait()
    status = CANCELLED if cancelled else COMPLETED if code == 0 else FAILED
    result = {"status": status, "code": code, **(_reasons(folder, began, last) if status == FAILED else {})}
    with contextlib.suppress(FileNotFoundError):
        os.unlink(os.path.join(folder, "reserve"))
    write(os.path.join(folder, "result.json"), result)


def _command(root: str, folder: str, job: dict[str, Any]) -> list[str]:
    python = job["python"] or os.path.join(environment_of(root, job["environment"]), "bin", "python")
    command = [python, "-m", "edgeml", "run", job["pipeline"], "--output-dir", os.path.join(folder, "run")]
    for name, value in job["inputs"].items():
        given = os.path.join(root, "inputs", value["tree"], value["path"]) if isinstance(value, dict) else value
        command += ["--input", f"{name}={given}"]
    return command


def _environment(folder: str, job: dict[str, Any], question: dict[str, Any]) -> dict[str, str]:
    """Nothing of the session's but where programs and home are; the secrets, which are nowhere else, for this run."""
    environment = {
        "PATH": os.environ.get("PATH", os.defpath),
        "HOME": os.path.expanduser("~"),
        "LANG": "C.UTF-8",
        "EDGEML_COMMIT": job["commit"],
        **question["secrets"],
    }
    if question["authority"]:  # public: the certificate by which the storage is known
        bundle = os.path.join(folder, "authority.pem")
        with open(bundle, "w", encoding="ascii") as stream:
            stream.write(question["authority"])
        environment["EDGEML_STORAGE_CA_BUNDLE"] = bundle
    return environment


def _listen(folder: str, engine: subprocess.Popen[bytes]) -> str:
    """Write down what the engine says, its progress apart; returns its last line."""
    last = ""
    with contextlib.ExitStack() as stack:
        log = stack.enter_context(open(os.path.join(folder, "engine.log"), "wb"))  # in a folder of this user alone
        progress = stack.enter_context(open(os.path.join(folder, "progress.jsonl"), "a", encoding="utf-8"))
        for line in engine.stderr or ():
            text = line.decode("utf-8", "replace")
            last = text.strip() or last
            with contextlib.suppress(OSError):  # a full disk ends the engine by itself
                log.write(line)
                log.flush()
                told = said.progress_of(text)
                if told:
                    progress.write(json.dumps(told) + "\n")
                    progress.flush()
    return last


def _reasons(folder: str, began: float, last: str) -> dict[str, Any]:
    """Why a run failed: a cause for each step, one for the engine itself, or what it refused to begin with."""
    record = _record(folder)
    if record and os.path.getmtime(os.path.join(folder, "run", "run.json")) >= began:
        causes = said.causes_of(folder, record)
    else:
        causes = {}
    if not causes and said.cause_in(last):
        causes = {"": said.cause_in(last)}
    # Where no step has begun, what the engine says is of the repository and of this machine.
    begun = os.path.isdir(os.path.join(folder, "run", "jobs"))
    refusal = last[len("edgeml: ") :][:1000] if not causes and not begun and last.startswith("edgeml: ") else ""
    return {"causes": causes, "refusal": refusal}


def _end_with_parent() -> None:
    import ctypes

    ctypes.CDLL(None).prctl(1, signal.SIGTERM, 0, 0, 0)  # PR_SET_PDEATHSIG


def follow(root: str, question: dict[str, Any]) -> dict[str, Any]:
    """Each line of progress from `offset` on, and at the end, or after some seconds, the job's state."""
    folder = _job(root, question["job"])
    path, offset = os.path.join(folder, "progress.jsonl"), question["offset"]
    end = time.monotonic() + question["seconds"]
    heard = time.monotonic()
    while True:
        state = _state(folder)  # asked first: what is written after that is found in the next round
        try:
            with open(path, "rb") as stream:
                lines = stream.read().split(b"\n")[:-1]
        except FileNotFoundError:
            lines = []
        for line in lines[offset:]:
            with contextlib.suppress(ValueError):  # of a full disk half a line may be left
                say({"progress": json.loads(line)})
        offset = max(offset, len(lines))
        if state != RUNNING or time.monotonic() > end:
            return {"state": state, "offset": offset}
        if time.monotonic() - heard > _HEARTBEAT:
            say({})
            heard = time.monotonic()
        time.sleep(0.1)


def cancel(root: str, question: dict[str, Any]) -> dict[str, Any]:
    """End a job's engine and its steps, and wait for it."""
    folder = _job(root, question["job"])
    end = time.monotonic() + _GRACE
    while _state(folder) == RUNNING and time.monotonic() < end:
        with contextlib.suppress(OSError, ValueError, TypeError, ProcessLookupError):
            os.kill(read(os.path.join(folder, "pid")), signal.SIGTERM)
        time.sleep(0.2)
    return {"state": _state(folder)}


def collect(root: str, question: dict[str, Any]) -> dict[str, Any]:
    """How a job stands, with its record where it has one."""
    folder = _job(root, question["job"])
    record = _record(folder)
    result = read(os.path.join(folder, "result.json")) or {}
    return {
        "state": _state(folder),
        "is": read(os.path.join(folder, "job.json")),
        "result": result,
        "record": said.value_free(record) if record else None,
    }


def release(root: str, question: dict[str, Any]) -> dict[str, Any]:
    """The files of what the gate released, and of nothing else."""
    folder = _job(root, question["job"])
    if _state(folder) != COMPLETED:
        raise Refused("not-completed", question["job"])
    released = os.path.join(folder, "run", "outputs", "release")
    for name in sorted(os.listdir(released)) if os.path.isdir(released) else []:
        path = os.path.join(released, name)
        found = os.lstat(path)
        if not stat.S_ISREG(found.st_mode) or found.st_size > _MOST:
            raise Refused("release", name)
        with open(path, "rb") as stream:
            while True:
                block = stream.read(_BLOCK)
                say({"file": name, "data": base64.b64encode(block).decode("ascii")})
                if not block:
                    break
    return {}


def _state(folder: str) -> str:
    """Whoever holds the lock is the job; without a result it was ended before its time, with the VM or otherwise."""
    if not os.path.isfile(os.path.join(folder, "job.json")):
        return ABSENT
    with open(os.path.join(folder, "lock"), "rb") as stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except OSError:
            return RUNNING
    return _ended(folder)


def _ended(folder: str) -> str:
    if not os.path.isfile(os.path.join(folder, "job.json")):
        return ABSENT
    result = read(os.path.join(folder, "result.json"))
    return str(result["status"]) if result else LOST


def _record(folder: str) -> dict[str, Any] | None:
    found = read(os.path.join(folder, "run", "run.json"))
    return found if isinstance(found, dict) and isinstance(found.get("steps"), list) else None


def _job(root: str, name: Any) -> str:
    if not isinstance(name, str) or not NAME.fullmatch(name):
        raise Refused("name", str(name)[:200])
    return os.path.join(root, "jobs", name)
