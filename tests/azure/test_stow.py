"""Private outputs that the steps keep themselves: the commands as Azure ML is sent them, run over a real storage.

What stands in for Azure ML is our own engine, which runs the very YAML that is submitted: what it then has as outputs
and logs of the run is what Azure ML would have in the cloud.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import pytest

from edgeml.azure import plan, stage
from edgeml.errors import EdgemlError
from edgeml.storage import blob_client
from tests.conftest import RunningStorage

ROOT = Path(__file__).parents[2]
SECRET = "patient-4711"
PATH = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
POLICY = (
    "private: [stackhub]\ncloud: [workspaceblobstore]\nrelease: [release_artifacts]\ncomputes: [edge-vm]\n"
    "regions: [westeurope]\nregistries: [docker.io]\n"
)
PIPELINE = """type: pipeline
settings: {default_compute: azureml:edge-vm, default_datastore: azureml:stackhub}
outputs:
  release: {type: uri_folder, path: "azureml://datastores/workspaceblobstore/paths/release/${{name}}"}
  kept: {type: uri_file, path: "azureml://datastores/stackhub/paths/kept/${{name}}"}
jobs:
  ingest:
    type: command
    component: ../components/ingest/component.yml
  train:
    type: command
    component: ../components/train/component.yml
    inputs:
      table: "${{parent.jobs.ingest.outputs.table}}"
      manifest: "${{parent.jobs.ingest.outputs.manifest}}"
    outputs: {model: "${{parent.outputs.kept}}"}
  release_artifacts:
    type: command
    component: ../components/release_artifacts/component.yml
    inputs: {model: "${{parent.jobs.train.outputs.model}}"}
    outputs: {release: "${{parent.outputs.release}}"}
"""
INGEST = """type: command
name: ingest
version: "1"
is_deterministic: false
tags: {edgeml.needs: storage}
outputs: {table: {type: uri_folder}, manifest: {type: uri_file}}
code: .
environment: azureml:edgeml-training:1
command: >-
  python ingest.py '${{outputs.table}}' "${{outputs.manifest}}" && exit 0
"""
INGEST_PY = """import os, sys
SECRET = "-".join(["patient", "4711"])
table, manifest = sys.argv[1:]
assert os.environ["AZURE_ML_OUTPUT_table"] == table
os.makedirs(table + "/more")
open(table + "/part-0.csv", "w").write((SECRET + "\\n") * 600_000)
open(table + "/more/empty.csv", "w").close()
open(manifest, "w").write(SECRET + ", one of many")
os.makedirs("outputs", exist_ok=True), open(f"outputs/{SECRET}.txt", "w").close()
print(SECRET, "was read")
try:
    os.write(3, SECRET.encode())
except OSError:
    pass
"""
TRAIN = """type: command
name: train
version: "1"
inputs:
  table: {type: uri_folder}
  manifest: {type: uri_file, optional: true}
  champion: {type: uri_file, optional: true}
outputs: {model: {type: uri_file}}
environment: azureml:edgeml-training:1
command: |
  test -e ${{inputs.table}}/more/empty.csv
  sort -u ${{inputs.table}}/part-0.csv > ${{outputs.model}}
  cat $[[${{inputs.manifest}}]] $[[${{inputs.champion}}]] >> ${{outputs.model}}
"""
RELEASE = """type: command
name: release_artifacts
version: "1"
inputs: {model: {type: uri_file}}
outputs: {release: {type: uri_folder}}
environment: azureml:edgeml-training:1
command: wc -c < ${{inputs.model}} > ${{outputs.release}}/size.txt
"""
FILES = {
    "edgeml.toml": '[storage]\ncontainer = "private"\n',
    "contracts/residency.yml": POLICY,
    "pipelines/train.yml": PIPELINE,
    "components/ingest/component.yml": INGEST,
    "components/ingest/ingest.py": INGEST_PY,
    "components/train/component.yml": TRAIN,
    "components/release_artifacts/component.yml": RELEASE,
    "environments/training/environment.yml": "name: edgeml-training\nversion: '1'\nimage: docker.io/library/python:3\n",
}


class Ran(NamedTuple):
    code: int
    said: str
    run: Path

    def cloud(self) -> bytes:
        """All that the run has: outputs, logs, records."""
        return b"\n".join(path.read_bytes() for path in sorted(self.run.rglob("*")) if path.is_file())


class Site:
    """A project, and the storage on its premises."""

    def __init__(self, folder: Path, storage: RunningStorage) -> None:
        self.folder, self.environment = folder, {**os.environ, **storage.environment, "PATH": PATH}
        with blob_client.container("private", storage.environment) as client:
            if not client.exists():
                client.create_container()

    def change(self, name: str, old: str, new: str) -> None:
        file = self.folder / name
        assert old in file.read_text()
        file.write_text(file.read_text().replace(old, new))

    def run(self, **changed: str) -> Ran:
        """Submit to a compute that is this machine."""
        made = plan.make("pipelines/train.yml", "edge-vm", {}, print, "private")
        sent = self.folder / "elsewhere/sent"
        sent.mkdir(parents=True)
        (self.folder / "elsewhere/edgeml.toml").touch()  # no policy here: nothing but the commands keeps rows in
        for step, snapshot in made.snapshots.items():
            if snapshot.files:
                snapshot.copy_to(str(sent / f"code-{step}"))
        code = {step: str(sent / f"code-{step}") for step, snapshot in made.snapshots.items() if snapshot.files}
        pipeline = stage.write(made, stage.Uploaded(code, {}), "azureml:edge-vm", str(sent))
        words = ["run", pipeline, "--output-dir", "run", "--no-check"]
        done = subprocess.run(
            [sys.executable, "-m", "edgeml", *words],
            cwd=self.folder / "elsewhere",
            env=self.environment | changed,
            capture_output=True,
            text=True,
        )
        return Ran(done.returncode, done.stdout + done.stderr, self.folder / "elsewhere/run")

    def blobs(self, prefix: str) -> dict[str, bytes]:
        with blob_client.container("private", self.environment) as client:
            names = [str(found) for found in client.list_blob_names(name_starts_with=prefix)]
            return {name: client.download_blob(name).readall() for name in names}


@pytest.fixture
def site(storage: RunningStorage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Site:
    for name, text in FILES.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    monkeypatch.chdir(tmp_path)
    return Site(tmp_path, storage)


def test_private_outputs_pass_through_the_storage_and_nothing_of_them_through_the_run(site: Site) -> None:
    ran = site.run()
    assert ran.code == 0, ran.said
    size = int((ran.run / "outputs/release/size.txt").read_text())
    assert size == len(f"{SECRET}\n{SECRET}, one of many")
    assert SECRET.encode() not in ran.cloud() and SECRET not in ran.said
    marker = json.loads((ran.run / "outputs/kept").read_text())
    (content,) = (data for name, data in site.blobs(marker["edgeml.stowed"]).items() if name.endswith("/content"))
    assert content.decode() == f"{SECRET}\n{SECRET}, one of many"
    job = marker["edgeml.stowed"].split("/")[1]
    logs = site.blobs(f"logs/{job}/ingest/")
    assert [data.decode() for data in logs.values()] == [f"{SECRET} was read\n"]
    assert not Path("/tmp/edgeml", job).exists() or not list(Path("/tmp/edgeml", job).iterdir())


def test_an_output_that_was_not_written_ends_the_step_and_its_cause_stays_in_the_private_log(site: Site) -> None:
    site.change("components/ingest/component.yml", "python ingest.py", "false; : python ingest.py")
    ran = site.run()
    assert ran.code == 1
    assert "edgeml: step ingest could not store its private outputs; the cause is in its log" in ran.said
    job = plan.make("pipelines/train.yml", "edge-vm", {}, print, "private").name
    assert "did not write its output table" in "".join(data.decode() for data in site.blobs(f"logs/{job}").values())


def test_a_step_that_fails_fails_with_its_own_code_and_its_log_is_kept(site: Site) -> None:
    site.change("components/ingest/ingest.py", '"was read")', '"was read"), sys.exit(7)')
    ran = site.run()
    assert ran.code == 1 and "exited with code 7" in ran.said and SECRET.encode() not in ran.cloud()


def test_without_the_storage_no_step_goes_on(site: Site) -> None:
    ran = site.run(EDGEML_STORAGE_ACCOUNT_KEY="bm90IHRoZSBrZXk=")
    assert ran.code == 1 and "step ingest could not store its private outputs" in ran.said
    assert "edgeml_stow: the step's log: the storage account refuses the credential" in ran.said
    assert SECRET.encode() not in ran.cloud()


def stow(site: Site, verb: str, *words: str) -> subprocess.CompletedProcess[str]:
    """The script as it lies beside a step's code."""
    for source in (ROOT / "edgeml/azure/edgeml_stow.py", ROOT / "edgeml/storage/blob_client.py"):
        shutil.copy2(source, site.folder)
    line = [sys.executable, "edgeml_stow.py", verb, "private", *words]
    return subprocess.run(line, cwd=site.folder, env=site.environment, capture_output=True, text=True)


def test_what_was_changed_in_between_is_not_taken(site: Site) -> None:
    (site.folder / "made/rows/deep").mkdir(parents=True)
    (site.folder / "made/rows/deep/part").write_text(SECRET)
    assert stow(site, "stow", "made", "outputs/changed", "rows=port").returncode == 0
    assert stow(site, "fetch", "whole", "rows=port").returncode == 0
    assert (site.folder / "whole/rows/deep/part").read_text() == SECRET
    place = json.loads((site.folder / "port/edgeml-stowed.json").read_text())["edgeml.stowed"]
    with blob_client.container("private", site.environment) as client:
        client.upload_blob(f"{place}/content/deep/part", SECRET[::-1].encode(), overwrite=True)
        changed = stow(site, "fetch", "first", "rows=port")
        listed = json.loads(client.download_blob(f"{place}/list.json").readall())
        listed[0]["name"] = "../../deep/part"
        client.upload_blob(f"{place}/list.json", json.dumps(listed), overwrite=True)
        outside = stow(site, "fetch", "second", "rows=port")
        client.delete_blob(f"{place}/list.json")
        gone = stow(site, "fetch", "third", "rows=port")
    assert [done.returncode for done in (changed, outside, gone)] == [1, 1, 1]
    assert "an input is not what the step before stored; run that step again" in changed.stderr
    assert "names a file outside it" in outside.stderr
    assert "the list of an input: it does not exist" in gone.stderr
    assert not (site.folder / "deep").exists()


def test_a_port_without_a_marker_is_data(site: Site) -> None:
    (site.folder / "plain").write_text(json.dumps({"edgeml.stowed": 1, "more": "x" * 5000}))
    assert stow(site, "fetch", "first", "rows=plain").returncode == 0
    assert (site.folder / "first/rows").read_text() == (site.folder / "plain").read_text()


def test_several_processes_cannot_keep_one_output(site: Site) -> None:
    site.change(
        "pipelines/train.yml", "  train:\n    type: command\n",
        "  train:\n    type: command\n    distribution: {type: pytorch, process_count_per_instance: 2}\n",
    )  # fmt: skip
    with pytest.raises(EdgemlError, match=r"'train' runs as several processes.*outputs = \"datastore\""):
        plan.make("pipelines/train.yml", "edge-vm", {}, print, "private")
    assert plan.make("pipelines/train.yml", "edge-vm", {}, print).stowed is None
