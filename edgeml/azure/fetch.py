"""What a job released, brought here: a run folder that `edgeml register` and `edgeml report` know."""

from __future__ import annotations

import json
import os
import re
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from edgeml import project
from edgeml.azure import jobs
from edgeml.azure.patience import patiently
from edgeml.azure.store import Store
from edgeml.engine import files
from edgeml.errors import EdgemlError

if TYPE_CHECKING:
    from edgeml.azure.workspace import Workspace

RELEASE = "release"
SECONDS = 600.0
LARGEST = 64 << 20  # bytes of one file; the gate's own budgets are smaller
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,100}")


def release(workspace: Workspace, job: str, say: Callable[[str], None]) -> str:
    """Download a completed job's output `release`; returns its run folder, empty where the job has no such output.

    A folder that is there already is left alone. What it holds is believed by nobody before `edgeml register` verified
    the gate's signature. Raises EdgemlError, exit code 1.
    """
    folder = os.path.join(project.state_folder(), "runs", job)
    if os.path.isfile(os.path.join(folder, "run.json")):
        return folder
    until = time.monotonic() + SECONDS

    def once() -> str:
        found = jobs.find(workspace, job)
        output = ((found.properties.get("outputs") or {}) if found else {}).get(RELEASE)
        if found is None or output is None:
            return ""
        match = re.fullmatch(r"azureml:.*/?datastores/([^/]+)/paths/(.*?)/?", str(output.get("uri")))
        if match is None:
            raise EdgemlError(f"the release of {job} lies at {output.get('uri')}, which is no datastore's path", 1)
        return _written(found, folder, _blobs(Store(workspace, match[1]), match[2]))

    return patiently(workspace, f"fetching the release of {job}", once, until, say)


def _blobs(store: Store, prefix: str) -> dict[str, bytes]:
    """The files right below a prefix: released files have plain names and are small."""
    found = {}
    for blob in store.container.list_blobs(name_starts_with=f"{prefix}/"):
        name = blob.name[len(prefix) + 1 :]
        if not NAME.fullmatch(name) or blob.size > LARGEST:
            raise EdgemlError(f"the release holds '{name[:80]}', which no gate lets out; look at the job's output", 1)
        found[name] = store.container.download_blob(blob.name).readall()
    return found


def _written(job: jobs.Job, folder: str, released: dict[str, bytes]) -> str:
    """The run's folder, put in place whole; the record says what Azure ML says of the job."""
    tags, properties = job.properties.get("tags") or {}, job.properties.get("properties") or {}
    unfinished = os.path.join(os.path.dirname(folder), f".{job.name}.{files.unique()}")
    place = os.path.join("cloud", RELEASE, RELEASE)
    record = {
        "version": 1,
        "run": job.name,
        "name": str(job.properties.get("displayName") or job.name),
        "experiment": str(job.properties.get("experimentName") or ""),
        "pipeline": tags.get("edgeml.pipeline", ""),
        "pipeline_digest": f"sha256:{tags['edgeml.digest']}" if "edgeml.digest" in tags else "",
        "status": "completed",
        "git": {
            "commit": properties.get("azureml.git.commit", ""),
            "dirty": properties.get("azureml.git.dirty", "") == "True",
        },
        "started": f"{job.created[:19]}Z" if job.created else "",
        "seconds": 0.0,
        "python": "",
        "inputs": {},
        "studio": job.studio,
        # Azure ML ran the steps; no sandbox of ours stood around them, and the record says so.
        "steps": [
            {
                "node": RELEASE,
                "component": RELEASE,
                "status": "completed",
                "seconds": 0.0,
                "started": 0.0,
                "exit_code": 0,
                "needs": [],
                "key": "",
                "private": True,
                "sandbox": "none",
                "outputs": {RELEASE: {"type": "uri_folder", "zone": "cloud", "path": place}},
            }
        ],
        "outputs": {RELEASE: {"type": "uri_folder", "zone": "cloud", "path": place}},
    }
    try:
        os.makedirs(os.path.join(unfinished, place))
        os.makedirs(os.path.join(unfinished, "outputs"))
        os.symlink(os.path.join("..", place), os.path.join(unfinished, "outputs", RELEASE))
        for name, content in released.items():
            with open(os.path.join(unfinished, place, name), "wb") as stream:
                stream.write(content)
        files.write_atomically(os.path.join(unfinished, "run.json"), json.dumps(record, indent=2) + "\n")
        os.rename(unfinished, folder)
    finally:
        files.remove(unfinished)
    return folder
