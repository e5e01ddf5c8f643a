"""The folder of a run: where steps work, log and write, and the record of what happened.

run.json                         the record, replaced whole
code.json                        digests of the code files of each snapshot, by the snapshot's digest
edge/<step>/<output>             what stays on the premises
cloud/<step>/<output>            what is bound to a cloud datastore
jobs/<step>/log.txt              what the step printed
jobs/<step>/trials/<n>/log.txt   what a trial of a sweep printed
jobs/<step>/outputs/<output>     links into edge/ or cloud/
outputs/<name>                   the pipeline's outputs, links as well
quarantine/<job>/log.txt         what a private step printed, for its owner alone; its log.txt is what may be shown
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import time
from typing import Any, NamedTuple

from edgeml.engine import files
from edgeml.errors import EdgemlError

EDGE, CLOUD = "edge", "cloud"
CODE = "code.json"
LOCK = ".lock"
_PATIENCE = 50  # tries: the guard of an engine that was killed, and `edgeml runs`, hold the lock for a moment
QUARANTINE = "quarantine"
_PARTS = (EDGE, CLOUD, "jobs", "outputs", "report", QUARANTINE)


class Job(NamedTuple):
    """The folder of one process: of a step, or of one trial of a sweep. `kept` is where a private one's log lies."""

    name: str
    folder: str
    kept: str = ""

    @property
    def work(self) -> str:
        return os.path.join(self.folder, "work")

    @property
    def log(self) -> str:
        return os.path.join(self.kept or self.folder, "log.txt")

    @property
    def shown(self) -> str:
        """What may be shown of the log: all of it, except for a private step."""
        return os.path.join(self.folder, "log.txt")

    @property
    def environment(self) -> str:
        return os.path.join(self.folder, "environment")

    @property
    def scratch(self) -> str:
        return os.path.join(self.folder, "scratch")

    @property
    def tracking(self) -> str:
        return os.path.join(self.folder, "mlruns")

    @property
    def specification(self) -> str:
        return os.path.join(self.folder, "parallel.json")


class RunFolder:
    """One run's folder, made empty, and locked (by the open file `lock`) until it is closed or this process ends."""

    def __init__(self, path: str) -> None:
        self.path = os.path.abspath(path)
        self.name = os.path.basename(self.path)
        self._make()

    def job(self, step: str) -> Job:
        return Job(step, os.path.join(self.path, "jobs", step))

    def quarantined(self, job: Job) -> Job:
        """The job with its log in the quarantine, which this user alone may enter."""
        kept = os.path.join(self.path, QUARANTINE, job.name)
        os.makedirs(os.path.dirname(kept), mode=0o700, exist_ok=True)
        os.makedirs(kept, mode=0o700, exist_ok=True)
        os.close(os.open(os.path.join(kept, "log.txt"), os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600))
        return job._replace(kept=kept)

    def output(self, step: str, name: str, zone: str) -> str:
        return os.path.join(self.path, zone, step, name)

    def prepare(self, step: str, outputs: dict[str, str]) -> None:
        """Make the step's folders, and the links to where its outputs (zone by name) will lie."""
        links = os.path.join(self.path, "jobs", step, "outputs")
        os.makedirs(links, exist_ok=True)
        for zone in {*outputs.values()}:
            os.makedirs(os.path.join(self.path, zone, step), exist_ok=True)
        for name, zone in outputs.items():
            with contextlib.suppress(FileExistsError):
                os.symlink(os.path.join("..", "..", "..", zone, step, name), os.path.join(links, name))

    def publish(self, name: str, step: str, output: str, zone: str) -> None:
        """Link a pipeline output to the step's output that it is."""
        os.makedirs(os.path.join(self.path, "outputs"), exist_ok=True)
        link = os.path.join(self.path, "outputs", name)
        files.remove(link)
        os.symlink(os.path.join("..", zone, step, output), link)

    def write(self, record: dict[str, Any]) -> None:
        path, content = os.path.join(self.path, "run.json"), json.dumps(record, indent=2) + "\n"
        try:
            files.write_atomically(path, content)
        except OSError as error:
            if error.errno != errno.ENOSPC:
                raise
            # A step that fills the disk fails of it; what it wrote is of no use, but that it was this step is.
            for step in record["steps"]:
                for output in step["outputs"].values() if step["status"] == "failed" else ():
                    files.remove(os.path.join(self.path, output["path"]))
            files.write_atomically(path, content)

    def write_code(self, digests: dict[str, dict[str, str]]) -> None:
        with contextlib.suppress(OSError):  # only to name what differs from another run
            files.write_atomically(os.path.join(self.path, CODE), json.dumps(digests) + "\n")

    def close(self) -> None:
        """Let the next run have the folder."""
        import fcntl

        fcntl.flock(self.lock, fcntl.LOCK_UN)  # for the guard as well, which has it from us
        os.close(self.lock)

    def _make(self) -> None:
        if os.path.exists(self.path) and not os.path.isdir(self.path):
            raise EdgemlError(f"{self.path} is a file; give --output-dir a folder")
        os.makedirs(self.path, exist_ok=True)
        present = set(os.listdir(self.path))
        # An engine that was killed early has left no record, but perhaps the beginning of one.
        mine = {name for name in present if name == LOCK or files.is_unfinished(name)}
        if present - mine and "run.json" not in present:
            raise EdgemlError(f"{self.path} is not empty and holds no earlier run; give --output-dir another folder")
        self.lock = _locked(os.path.join(self.path, LOCK), self.path)
        for part in (*_PARTS, *mine - {LOCK}):
            files.remove(os.path.join(self.path, part))


def new_name(pipeline: str, now: float) -> str:
    """A name for a run of a pipeline file: its stem, the UTC time and four random digits."""
    stem = os.path.splitext(os.path.basename(pipeline))[0]
    return f"{stem}-{time.strftime('%Y%m%d-%H%M%S', time.gmtime(now))}-{os.urandom(2).hex()}"


def _locked(path: str, run: str) -> int:
    """An open, locked file; the lock goes with the process, however it ends."""
    import fcntl

    handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    for _ in range(_PATIENCE):
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            time.sleep(0.02)
        else:
            return handle
    os.close(handle)
    raise EdgemlError(f"another edgeml runs in {run}; wait for it or give --output-dir another folder")
