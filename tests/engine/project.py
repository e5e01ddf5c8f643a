"""A project in a temporary folder, driven by the command as a user types it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from textwrap import dedent

EDGEML = [sys.executable, "-m", "edgeml"]


class Project:
    """A folder with YAML and scripts in it, and the command run there."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def write(self, name: str, content: str) -> Path:
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(dedent(content))
        return path

    def run(self, *args: str, check: int | None = 0, **env: str) -> subprocess.CompletedProcess[str]:
        return self.edgeml("run", "pipeline.yml", *args, check=check, **env)

    def edgeml(self, *args: str, check: int | None = 0, **env: str) -> subprocess.CompletedProcess[str]:
        """Any verb, in this project; `check` is the exit code that it must have, None for any."""
        done = subprocess.run(
            [*EDGEML, *args],
            cwd=self.folder,
            env={**os.environ, **env},
            capture_output=True,
            text=True,
            errors="replace",
            timeout=240,
        )
        if check is not None:
            assert done.returncode == check, done.stdout + done.stderr
        assert "Traceback" not in done.stderr.replace("  | Traceback", "")  # a step's own is in its log
        return done

    def record(self, *args: str, check: int = 0, **env: str) -> dict:
        return json.loads(self.run("--json", *args, check=check, **env).stdout)

    def statuses(self, *args: str, check: int = 0, **env: str) -> dict[str, str]:
        return {step["node"]: step["status"] for step in self.record(*args, check=check, **env)["steps"]}


CHAIN = """
    inputs:
      start: {type: uri_file, path: ./start.txt}
      word: one
    outputs:
      final: {type: uri_file}
    jobs:
      first:
        command: cat ${{inputs.start}} > ${{outputs.out}} && echo ${{inputs.word}} >> ${{outputs.out}}
        inputs: {start: "${{parent.inputs.start}}", word: "${{parent.inputs.word}}"}
        outputs: {out: {type: uri_file}}
      second:
        component: ./second.yml
        inputs: {src: "${{parent.jobs.first.outputs.out}}"}
        outputs: {dst: "${{parent.outputs.final}}"}
      aside:
        command: echo aside > ${{outputs.o}}/x
        outputs: {o: {type: uri_folder}}
"""


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    stat = Path(f"/proc/{pid}/stat")
    return not stat.exists() or stat.read_text().rpartition(")")[2].split()[0] != "Z"


def wait_until(condition: Callable[[], object], seconds: float = 20) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited too long"
        time.sleep(0.02)
