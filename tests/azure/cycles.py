"""Cycles of submit, wait and register under faults, and what must be true after them; for tests and benchmark."""

from __future__ import annotations

import contextlib
import json
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from tests.azure import loop
from tests.azure.running import Running


class Done(NamedTuple):
    """`problems` are sentences about what went wrong for good, `requests` how many were made in all."""

    thrown: int
    requests: int
    problems: list[str]


def run(running: Running, project: Path, *, cycles: int, rate: float, seed: int, released: Path | None = None) -> Done:
    """Let each cycle submit another pipeline, wait for it and publish its model, while requests go wrong by a die."""
    from edgeml import settings
    from edgeml.azure import jobs, models, plan
    from edgeml.azure.workspace import Workspace

    problems: list[str] = []
    published: dict[str, str] = {}
    folder = project / ".edgeml/made"
    running.cloud.chaos(seed, rate, lambda request: not request.host.startswith("actions."))
    with hurried():
        for number in range(cycles):
            running.service.plan = ["Queued", "Running", "Completed"]
            workspace = Workspace(settings.load())
            inputs = {"seed": str(seed * 100_000 + number)}
            made = plan.make("pipelines/train.yml", "edge-vm", inputs, lambda _: None, "private")
            try:
                done = jobs.submit(workspace, made, "edge-vm", lambda _: None)
                state = jobs.wait(workspace, done.job, lambda _: None, seconds=120, poll=0)
                if state != "Completed":
                    problems.append(f"cycle {number}: {done.job} is {state}")
                model = folder / f"{seed}-{number}"
                model.mkdir(parents=True)
                (model / "model.onnx").write_bytes(f"model {seed} {number}".encode())
                sha256 = digest(model / "model.onnx")
                published[sha256] = done.job
                models.publish(
                    workspace,
                    "breast-cancer",
                    sha256,
                    str(model),
                    {"model.sha256": sha256, "job": done.job},
                    lambda _: None,
                )
            except Exception as error:
                problems.append(f"cycle {number}: {type(error).__name__}: {error}")
    thrown, requests = len(running.cloud.thrown), len(running.cloud.requests)
    running.cloud.chaos(None)
    shutil.rmtree(folder, ignore_errors=True)
    return Done(thrown, requests, problems + _problems(running, cycles, published))


@contextlib.contextmanager
def hurried() -> Iterator[None]:
    """Pauses between two tries last a hundredth of a second at most, ours and those of Azure's clients.

    How often each of them tries, after what, and what it does then stays as it is: only the clock is another one.
    """
    from azure.core.pipeline.transport import HttpTransport

    from edgeml.azure import patience

    before = patience.FIRST, patience.LONGEST, HttpTransport.sleep
    patience.FIRST, patience.LONGEST = 0.01, 0.01
    HttpTransport.sleep = lambda self, duration: time.sleep(min(duration, 0.01))  # type: ignore[method-assign]
    try:
        yield
    finally:
        patience.FIRST, patience.LONGEST, HttpTransport.sleep = before  # type: ignore[method-assign]


def digest(file: Path) -> str:
    import hashlib

    return hashlib.sha256(file.read_bytes()).hexdigest()


def _problems(running: Running, cycles: int, published: dict[str, str]) -> list[str]:
    """What the workspace holds that it should not, or lacks."""
    state, found = running.service.state, []
    if len(state.jobs) != cycles:
        found.append(f"{len(state.jobs)} jobs of {cycles}: {sorted(state.jobs)}")
    found += [f"{name} is {job.status}" for name, job in state.jobs.items() if job.status != "Completed"]
    versions = {key[2]: asset for key, asset in state.assets.items() if key[0] == "models"}
    lost = {sha[:16] for sha in published} - set(versions)
    found += [f"model {version} was lost" for version in sorted(lost)]
    if len(versions) != len(published):
        found.append(f"{len(versions)} models of {len(published)}")
    blobs = {blob.name for blob in running.container(loop.CONTAINER).list_blobs("edgeml/models/")}
    found += [f"the file of {sha} was lost" for sha in published if f"edgeml/models/{sha}/model.onnx" not in blobs]
    for job in state.jobs.values():
        json.dumps(job.body)
    return found
