"""Workflows, executed: by act, each job in a folder of its own on this machine, with the tools of the checkout.

What stands for GitHub's machine is small. A job begins with a copy of the checkout, as on a new runner, in which lie
a `.venv` that is installed already and what the project fetches once; `actions/checkout` is built into act. act does
not enforce `permissions`, `environment`, `concurrency`, `timeout-minutes`, `fail-fast` and the filters under `on`:
what they say is read from the YAML.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

IMAGE = "ubuntu-24.04"
KEPT = ("azurite", "node", "image/parts")  # of .edgeml, what is fetched once
FUTURE = 4_000_000_000  # seconds since 1970: newer than any lock in a copy


@dataclass(frozen=True)
class Step:
    """A step that was run: its line (or the action's name), `success` or `failure`, and what it printed."""

    job: str
    line: str
    result: str
    said: str


@dataclass
class Ran:
    """What became of a workflow. `jobs` are results by the job's name; a job that was skipped is not in it."""

    code: int
    jobs: dict[str, str] = field(default_factory=dict)
    steps: list[Step] = field(default_factory=list)
    raw: str = ""

    def said(self, job: str) -> str:
        """All that the steps of a job printed."""
        return "".join(step.said for step in self.steps if step.job == job)

    def lines(self, result: str = "success") -> set[tuple[str, str]]:
        return {(step.job, step.line) for step in self.steps if step.result == result}


@dataclass
class Runner:
    """A machine that runs workflows. `environment` is what every program on it sees."""

    folder: Path
    environment: Mapping[str, str] = field(default_factory=dict)
    secrets: Mapping[str, str] = field(default_factory=dict)
    variables: Mapping[str, str] = field(default_factory=dict)
    succeeded: set[tuple[str, str, str]] = field(default_factory=set)
    """Workflow, job and line of each step that was executed and succeeded."""

    def __post_init__(self) -> None:
        (self.folder / "home").mkdir(parents=True)
        installed(self.folder / "venv")

    def run(self, checkout: Path, workflow: str, event: str, payload: Mapping[str, Any], **more: str) -> Ran:
        """Run a workflow of a checkout for an event; `more` is seen by its programs, too."""
        event_file, secret_file = self.folder / "event.json", self.folder / "secrets"
        event_file.write_text(json.dumps(payload))
        secret_file.touch(mode=0o600)
        secret_file.write_text("".join(f"{name}={json.dumps(value)}\n" for name, value in self.secrets.items()))
        line = [str(Path(sys.executable).with_name("act")), event, "--json", "--no-cache-server"]
        line += ["--action-offline-mode", "--use-gitignore=false", "-P", f"{IMAGE}=-self-hosted"]
        line += ["-W", f".github/workflows/{workflow}", "-e", str(event_file), "--secret-file", str(secret_file)]
        line += [word for name, value in self.variables.items() for word in ("--var", f"{name}={value}")]
        line += [word for name, value in more.items() for word in ("--env", f"{name}={value}")]
        done = subprocess.run(line, cwd=checkout, env=self._environment(), capture_output=True, text=True, timeout=600)
        ran = told(done.stdout, done.returncode)
        ran.raw += done.stderr
        self.succeeded |= {(workflow, job, step) for job, step in ran.lines()}
        return ran

    def _environment(self) -> dict[str, str]:
        """Nothing of ours leaks into a job: what it needs it must name."""
        dropped = ("EDGEML_", "GITHUB_", "ACTIONS_", "MLFLOW_", "PYTEST_", "VIRTUAL_ENV", "MAKE")
        kept = {name: value for name, value in os.environ.items() if not name.startswith(dropped)}
        quiet = {"ACT_DISABLE_VERSION_CHECK": "1", "HOME": str(self.folder / "home")}
        return {**kept, **quiet, **self.environment}


def installed(folder: Path) -> None:
    """This interpreter's environment under another name, which make takes for newer than every lock."""
    folder.mkdir()
    for part in Path(sys.prefix).iterdir():
        if not part.name.startswith("."):
            (folder / part.name).symlink_to(part)
    for stamp in (".installer", ".runtime", ".dev"):
        (folder / stamp).touch()
        os.utime(folder / stamp, (FUTURE, FUTURE))


def furnish(checkout: Path, runner: Runner, state: Path) -> None:
    """Put into a checkout what a runner has already; `state` is the .edgeml of this repository."""
    (checkout / ".venv").symlink_to(runner.folder / "venv")
    for part in KEPT:
        place = checkout / ".edgeml" / part
        place.parent.mkdir(parents=True, exist_ok=True)
        place.symlink_to(state / part)


def told(output: str, code: int) -> Ran:
    """What act's JSON lines say."""
    ran, said = Ran(code), {}
    for line in output.splitlines():
        try:
            entry = json.loads(line)
        except ValueError:
            ran.raw += line + "\n"
            continue
        ran.raw += f"{entry.get('job', '')}: {entry['msg'].rstrip()}\n"
        job = "/".join([entry.get("jobID", ""), *map(str, (entry.get("matrix") or {}).values())])
        key = (job, str(entry.get("stepID")))
        if entry.get("raw_output"):
            said[key] = said.get(key, "") + entry["msg"]
        elif "stepResult" in entry and entry.get("stage") == "Main":
            name = re.sub(r"\s+", " ", entry["step"]).strip()
            ran.steps.append(Step(job, name, entry["stepResult"], said.get(key, "")))
        elif "jobResult" in entry:
            ran.jobs[job] = entry["jobResult"]
    return ran
