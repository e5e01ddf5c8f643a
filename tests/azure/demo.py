"""The demo through the loopback cloud: `make demo-azure`. Every call that the SDK makes is shown.

The commands are those of a workflow. Azure, GitHub and the cluster are played on this machine: the cluster runs the
submitted pipeline with edgeml's own engine and leaves its release in the workspace's storage, which is Azurite.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

from benchmarks.submit import ROOT, checkout
from tests.azure.running import Running, started
from tests.azure.service import Job


def main() -> int:
    with tempfile.TemporaryDirectory(prefix="edgeml-demo-") as folder:
        project = checkout(Path(folder) / "project")
        for part in ("azurite", "node"):
            (project / ".edgeml" / part).symlink_to(ROOT / ".edgeml" / part)
        place = Path(folder) / "cloud"
        place.mkdir()
        from edgeml.storage import install

        install.azurite(ROOT / ".edgeml")
        with started(ROOT / ".edgeml", place) as running:
            running.provide()
            running.service.on_created = lambda name, job: Cluster(running, project, name, job).start()
            environment = {**os.environ, **running.cloud.environment()}
            return steps(running, project, environment)


def steps(running: Running, project: Path, environment: dict[str, str]) -> int:
    def edgeml(*arguments: str) -> str:
        print(f"\n$ edgeml {' '.join(arguments)}", flush=True)
        before = len(running.cloud.requests)
        command = [sys.executable, "-m", "edgeml", *arguments]
        done = subprocess.run(command, cwd=project, env=environment, stdout=subprocess.PIPE, text=True)
        if done.stdout:
            print(done.stdout.rstrip(), flush=True)
        for request in running.cloud.requests[before:]:
            print(f"    {request.method:<6} {request.host}{request.path[-100:]}")
        if done.returncode:
            raise SystemExit(done.returncode)
        return done.stdout.strip()

    edgeml("storage", "start")
    try:
        edgeml("data", "sample", "--out", "data/sample")
        edgeml("data", "push", "data/sample", "--prefix", "patients/")
        edgeml("doctor", "--target", "edge-vm")
        job = edgeml("submit", "pipelines/train.yml")
        edgeml("wait", job, "--poll", "2")
        edgeml("register", job, "--to", "azureml")
        edgeml("models", "trace", job)
    finally:
        edgeml("storage", "stop")
    strangers = len(running.cloud.strangers)
    print(f"\n{len(running.cloud.requests)} requests, hosts outside of the loopback cloud: {strangers}")
    return 1 if running.cloud.strangers or running.service.wrong else 0


class Cluster(threading.Thread):
    """What Azure ML would let an attached cluster do: run the job, here by edgeml's engine."""

    def __init__(self, running: Running, project: Path, name: str, job: Job) -> None:
        super().__init__(daemon=True)
        self._running, self._project, self._job_name, self._job = running, project, name, job
        job.status, job.plan = "Running", []

    def run(self) -> None:
        out = self._project / ".edgeml" / "cluster" / self._job_name
        command = [sys.executable, "-m", "edgeml", "run", self._job.body["tags"]["edgeml.pipeline"]]
        more = ["--output-dir", str(out)]
        from edgeml.engine.sandbox import bwrap

        if bwrap.missing():
            more.append("--no-sandbox")
        done = subprocess.run([*command, *more], cwd=self._project, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
        if done.returncode:
            print(done.stderr.decode(), file=sys.stderr)
            self._job.plan = ["Failed"]
            return
        for file in (out / "outputs/release").resolve().iterdir():
            blob = f"release/{self._job_name}/{file.name}"
            self._running.container().upload_blob(blob, file.read_bytes(), overwrite=True)
        self._job.plan = ["Completed"]


if __name__ == "__main__":
    sys.exit(main())
