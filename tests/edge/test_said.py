"""What leaves the VM of a run is made of closed parts, whatever a step, a log or a record tries to say."""

from __future__ import annotations

import ast
import copy
import io
import json
import sys
import zipfile
from typing import Any

import pytest

from edgeml.edge import session
from edgeml.edge.on_vm import said
from edgeml.edge.on_vm.rim import Refused

IMPORTS = (ast.Import, ast.ImportFrom)
SECRET = "Margaret 94"
OUTPUT = {"type": "uri_file", "zone": "edge", "path": "edge/read/rows", "digest": f"sha256:{SECRET}"}
STEP: dict[str, Any] = {
    "node": "read", "component": "ingest", "status": "failed", "started": 0.1, "seconds": 2.0, "exit_code": 94,
    "message": SECRET, "command": SECRET, "needs": [], "key": SECRET, "parts": {SECRET: SECRET}, "deterministic": True,
    "private": True, "sandbox": "bwrap", "trials": [{"metric": SECRET}], "environment": SECRET,
    "inputs": {"a": SECRET}, "outputs": {"rows": OUTPUT},
}  # fmt: skip
RECORD: dict[str, Any] = {
    "version": 1, "run": "train-1", "pipeline": "pipelines/train.yml", "name": "Train", "experiment": "rows",
    "status": "failed", "pid": 94, "pipeline_digest": "sha256:00ff", "git": {"commit": "ab" * 20, "dirty": False},
    "started": "2026-11-24T01:02:03.004Z", "seconds": 3.0, "python": "3.11.7", "forced": False, "no_sandbox": False,
    "inputs": {"x": SECRET}, "steps": [STEP], "outputs": {"release": OUTPUT}, "warnings": [SECRET],
}  # fmt: skip


def test_a_record_tells_how_the_steps_stand_and_no_value() -> None:
    told = said.value_free(RECORD)
    assert SECRET not in json.dumps(told)
    assert "94" not in json.dumps(told), "not even a private step's exit code, which it chooses"
    assert [(step["node"], step["status"], step["seconds"]) for step in told["steps"]] == [("read", "failed", 2.0)]
    assert said.value_free(told) == told, "so the other side can look again"
    assert said.value_free({**RECORD, "steps": [{**STEP, "private": False}]})["steps"][0]["exit_code"] == 94


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("run",), "../x"),
        (("run",), SECRET),
        (("status",), SECRET),
        (("pipeline",), "../../etc"),
        (("pipeline_digest",), SECRET),
        (("python",), SECRET),
        (("name",), "a\x1b[2J"),
        (("git",), {"commit": SECRET}),
        (("started",), SECRET),
        (("seconds",), SECRET),
        (("steps",), [SECRET]),
        (("steps",), [{**STEP, "node": SECRET}]),
        (("steps",), [{**STEP, "sandbox": SECRET}]),
        (("steps",), [{**STEP, "needs": [SECRET]}]),
        (("outputs",), {"release": {**OUTPUT, "path": "edge/../../etc"}}),
        (("outputs",), {"release": {**OUTPUT, "path": "/etc/passwd"}}),
        (("outputs",), {SECRET: OUTPUT}),
        (("outputs",), SECRET),
    ],
)
def test_a_record_that_says_more_is_refused(path: tuple[str, ...], value: Any) -> None:
    record = copy.deepcopy(RECORD)
    record[path[0]] = value
    with pytest.raises(Refused):
        said.value_free(record)


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("  read    running\n", {"node": "read", "status": "running", "seconds": 0.0}),
        ("  read    completed     1.25 s\n", {"node": "read", "status": "completed", "seconds": 1.25}),
        (f"  read    {SECRET}\n", None),
        ("  read    completed     1.25 s 94\n", None),
        (f"  | {SECRET}\n", None),
        ("  |  running\n", None),
        ("read    running\n", None),
        ("\x1b[1mread    running\n", None),
        ("  a/../b    running\n", None),
        (f"edgeml: step 'read' {SECRET}\n", None),
        ("", None),
    ],
)
def test_of_what_the_engine_prints_only_progress_is_told(line: str, told: dict[str, Any] | None) -> None:
    assert said.progress_of(line) == told


def test_causes_are_words_of_a_closed_list() -> None:
    assert said.cause_in(f"{SECRET}: the storage account refuses the credential; {SECRET}") == "storage-credential"
    assert said.cause_in(SECRET) == ""


def test_what_the_vm_is_sent_runs_on_pythons_that_systems_bring() -> None:
    sent = zipfile.ZipFile(io.BytesIO(session.program()))
    assert {"edgeml/edge/on_vm/main.py", "__main__.py"} <= set(sent.namelist())
    for name in sent.namelist():
        source = sent.read(name).decode()
        found = [node for node in ast.walk(ast.parse(source, feature_version=(3, 8))) if isinstance(node, IMPORTS)]
        modules = {(getattr(node, "module", None) or node.names[0].name).partition(".")[0] for node in found}
        assert modules <= {*sys.stdlib_module_names, "edgeml"}
