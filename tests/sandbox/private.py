"""A project whose policy makes its first step private, and trainers that try to get out of its sandbox."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from tests.engine.project import Project

ROWS = "azureml://datastores/stackhub/paths/rows.csv"
SECRET = "Margaret-Ann-Oyelaran-1931"  # what a trainer reads and tries to bring out
POLICY = "private: [stackhub]\n"

PIPELINE = """
    settings: {{default_datastore: azureml:stackhub}}
    jobs:
      train:
        code: src
        command: python trainer.py ${{{{inputs.rows}}}} ${{{{outputs.o}}}}
        inputs: {{rows: {{type: uri_file, path: "{rows}"}}}}
        outputs: {{o: {{type: uri_file}}}}
        environment_variables: {{DECLARED: yes}}
"""
# The attack's outcome is the step's output: what came of it, or what refused it.
TRAINER = """
import ctypes, errno, json, os, socket, subprocess, sys, time
rows, out = sys.argv[1:]
secret = open(rows).read().splitlines()[-1].partition(",")[0]
libc = ctypes.CDLL(None, use_errno=True)
def call(*arguments):
    result = libc.syscall(*map(ctypes.c_long, arguments))
    if result < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return result
def attack():
{attack}
try:
    outcome = "through " + str(attack())
except BaseException as error:
    outcome = f"refused {{type(error).__name__}} {{error}}"
open(out, "w").write(outcome)
"""


def install() -> None:
    """bubblewrap, as docker is installed for its tests: where this is root's own machine and it is missing."""
    if sys.platform != "linux":
        pytest.skip("bubblewrap needs Linux")
    if not shutil.which("bwrap") and os.geteuid() == 0 and shutil.which("apt-get"):
        command = ["apt-get", "install", "--yes", "--no-install-recommends", "bubblewrap"]
        environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
        for line in (command, ["apt-get", "update"], command):
            subprocess.run(line, env=environment, stdin=subprocess.DEVNULL, capture_output=True)
            if shutil.which("bwrap"):
                break
    from edgeml.engine.sandbox import bwrap

    if reason := bwrap.missing():
        pytest.skip(reason)


class Private(Project):
    """A project with private rows, one trainer, and the policy that makes it private."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.write("edgeml.toml", "")
        self.write("contracts/residency.yml", POLICY)
        self.write("rows.csv", f"name,age\nJohn-Doe,3\n{SECRET},94\n")
        self.write("pipeline.yml", PIPELINE.format(rows=ROWS))

    def trainer(self, attack: str) -> None:
        body = textwrap.indent(textwrap.dedent(attack).strip(), "    ")
        (self.folder / "src").mkdir(exist_ok=True)
        (self.folder / "src/trainer.py").write_text(TRAINER.format(attack=body))

    def go(self, *args: str, check: int | None = 0, **env: str) -> subprocess.CompletedProcess[str]:
        return self.run("--map", f"{ROWS}=rows.csv", "--output-dir", "out", "--force", *args, check=check, **env)

    def attempt(self, *args: str, **env: str) -> str:
        """The attack's outcome."""
        self.go(*args, **env)
        return (self.folder / "out/jobs/train/outputs/o").read_text()

    def survey(self, attacks: dict[str, str], *args: str) -> dict[str, str]:
        """The outcomes of many attacks by one trainer, by name."""
        self.trainer(
            f"""
            found = {{}}
            for name, attack in json.loads({json.dumps(json.dumps(attacks))!s}).items():
                try:
                    scope = dict(globals())
                    exec(attack, scope)
                    found[name] = "through"
                except BaseException as error:
                    found[name] = f"refused {{type(error).__name__}} {{error}}"
            return json.dumps(found)
            """
        )
        found: dict[str, str] = json.loads(self.attempt(*args).removeprefix("through "))
        return found

    def outcomes(self, attack: str, **env: str) -> tuple[str, str]:
        """The outcomes without and within the sandbox: the first shows that the attack is one."""
        self.trainer(attack)
        return self.attempt("--no-sandbox", **env), self.attempt(**env)
