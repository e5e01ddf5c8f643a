"""Private steps in `edgeml run`: which they are, what is recorded, what is refused, what is reused."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.engine.project import EDGEML, Project
from tests.sandbox.private import ROWS, Private

MAPPED = ("--map", f"{ROWS}=rows.csv")
WHO = "return os.uname().nodename == 'step'"


def record(project: Private, *args: str, **env: str) -> dict:
    return json.loads(project.run("--json", *MAPPED, *args, **env).stdout)


def without_bubblewrap(folder: Path) -> str:
    """A search path with everything that a run needs, and no bubblewrap."""
    programs = folder / "programs"
    programs.mkdir()
    for name in ("bash", "sh", "env", "git", "node"):
        found = shutil.which(name)
        if found:
            (programs / name).symlink_to(found)
    return str(programs)


def test_the_record_says_what_each_step_ran_in(private: Private) -> None:
    private.trainer(WHO)
    private.write("pipeline.yml", (private.folder / "pipeline.yml").read_text() + "  beside: {command: 'true'}\n")
    made = record(private)
    assert [(s["node"], s["private"], s["sandbox"]) for s in made["steps"]] == [
        ("train", True, "bwrap"),
        ("beside", False, "none"),
    ]
    assert made["no_sandbox"] is False
    made = record(private, "--no-sandbox", "--force")
    assert [s["sandbox"] for s in made["steps"]] == ["none", "none"] and made["no_sandbox"] is True


def test_a_result_is_reused_whatever_it_was_made_in_and_says_what_that_was(private: Private) -> None:
    private.trainer("return 1")
    keys = set()
    for options, status, sandbox in (
        ([], "completed", "bwrap"),
        ([], "cached", "bwrap"),
        (["--no-sandbox"], "cached", "bwrap"),
    ):
        (step,) = record(private, *options)["steps"]
        assert (step["status"], step["sandbox"]) == (status, sandbox)
        keys.add(step["key"])
    assert len(keys) == 1
    private.trainer("return 2")
    assert record(private, "--no-sandbox")["steps"][0]["sandbox"] == "none"
    (step,) = record(private)["steps"]
    assert (step["status"], step["sandbox"]) == ("cached", "none"), "the record does not make it look protected"


def test_without_a_sandbox_nothing_starts_and_the_way_on_is_named(private: Private, tmp_path: Path) -> None:
    private.trainer(WHO)
    path = without_bubblewrap(tmp_path)
    told = private.run(*MAPPED, check=2, PATH=path).stderr
    assert told.splitlines()[-1] == (
        "edgeml: private steps run in a sandbox, and bubblewrap is not installed; install it (on Debian and Ubuntu: "
        "apt install bubblewrap); or run them in containers (--env docker), or without protection, which the run's "
        "record will say (--no-sandbox)"
    )
    assert not (tmp_path / ".edgeml/runs").exists()
    told = private.run(*MAPPED, "--no-sandbox", PATH=path).stderr
    assert "edgeml: 1 private step runs without a sandbox (--no-sandbox)" in told


def test_a_bubblewrap_that_cannot_start_says_why(private: Private, tmp_path: Path) -> None:
    private.trainer(WHO)
    path = without_bubblewrap(tmp_path)
    broken = tmp_path / "programs/bwrap"
    broken.write_text("#!/bin/sh\necho 'bwrap: setting up uid map: Permission denied' >&2; exit 1\n")
    broken.chmod(0o755)
    told = private.run(*MAPPED, check=2, PATH=path).stderr
    assert "does not start here (bwrap: setting up uid map: Permission denied); allow user namespaces" in told


def test_conda_has_no_sandbox(private: Private) -> None:
    private.trainer(WHO)
    told = private.run(*MAPPED, "--env", "conda", check=2).stderr
    assert "step 'train' is private, and --env conda has no sandbox" in told


def test_other_pipelines_need_no_sandbox_and_import_none(project_without_policy: Project) -> None:
    project = project_without_policy
    script = (
        "import sys; from edgeml.cli import main; code = main(['run', 'pipeline.yml']); "
        "extra = [name for name in sys.modules if name.startswith('edgeml.engine.sandbox')]; "
        "sys.exit(f'imported {extra}' if extra else code)"
    )
    path = without_bubblewrap(project.folder)
    done = subprocess.run([sys.executable, "-c", script], cwd=project.folder, env={"PATH": path}, capture_output=True)
    assert done.returncode == 0, done.stderr
    assert (project.folder / "o.txt").exists()


@pytest.fixture
def project_without_policy(tmp_path: Path) -> Project:
    project = Project(tmp_path)
    project.write("edgeml.toml", "")
    project.write("pipeline.yml", f"jobs:\n  a: {{command: echo > {tmp_path}/o.txt}}\n")
    return project


def test_ends_are_told_as_without_a_sandbox(private: Private) -> None:
    private.trainer("os.kill(os.getpid(), 9)")
    told = private.go(check=1).stderr
    assert "step 'train' exited with code 137 (SIGKILL, out of memory?)" in told
    private.write("src/trainer.py", "import sys; sys.exit(3)\n")
    assert "step 'train' exited with code 3" in private.go(check=1).stderr
    private.write("src/trainer.py", "\n")
    assert "did not write its output 'o'" in private.go(check=1).stderr


def test_another_interpreter_is_seen_with_what_is_beside_it(private: Private, tmp_path: Path) -> None:
    private.trainer("return sys.prefix, __import__('own').NAME")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(tmp_path / "other")], check=True)
    (packages,) = (tmp_path / "other/lib").glob("python*/site-packages")
    (packages / "own.py").write_text("NAME = 'mine'\n")
    python = str(tmp_path / "other/bin/python")
    assert private.attempt("--python", python) == f"through ('{tmp_path}/other', 'mine')"


def test_what_is_implicit_and_what_is_of_several_processes(private: Private, tmp_path: Path) -> None:
    """Parallel nodes, distributed ones over the sandbox's own loopback, artifacts, and packages of a step's own."""
    private.write(
        "src/batch.py",
        """
        def run(paths):
            return [open(path).read().strip() for path in paths]
    """,
    )
    private.write(
        "src/rank.py",
        """
        import os, socket, sys, time
        rank, port = int(os.environ["RANK"]), int(os.environ["MASTER_PORT"])
        address = (os.environ["MASTER_ADDR"], port)
        if rank == 0:
            with socket.create_server(address) as server:
                said = server.accept()[0].recv(99).decode()
            open(sys.argv[1], "w").write(said)
        else:
            for _ in range(200):
                try:
                    socket.create_connection(address).sendall(b"from the other")
                    break
                except OSError:
                    time.sleep(0.02)
    """,
    )
    for i in (1, 2):
        private.write(f"items/{i}.txt", f"item {i}\n")
    private.write(
        "pipeline.yml",
        f"""
        jobs:
          batch:
            type: parallel
            mini_batch_size: "1"
            input_data: ${{{{inputs.items}}}}
            inputs: {{items: {{type: uri_folder, path: "{ROWS}"}}}}
            outputs: {{all: {{type: uri_file}}}}
            task:
              type: function
              code: src
              entry_script: batch.py
              environment: azureml:e:1
              append_row_to: ${{{{outputs.all}}}}
          ranks:
            code: src
            command: python rank.py ${{{{outputs.o}}}}
            distribution: {{type: mpi, process_count_per_instance: 2}}
            inputs: {{all: "${{{{parent.jobs.batch.outputs.all}}}}"}}
            outputs: {{o: {{type: uri_file}}}}
          plot:
            command: cp ${{{{inputs.o}}}} outputs/plot.txt
            inputs: {{o: "${{{{parent.jobs.ranks.outputs.o}}}}"}}
          last:
            command: cat ${{{{inputs.p}}}}/plot.txt > ${{{{outputs.o}}}}
            inputs: {{p: "${{{{parent.jobs.plot.outputs.artifacts}}}}"}}
            outputs: {{o: {{type: uri_file}}}}
    """,
    )
    made = json.loads(private.run("--json", "--map", f"{ROWS}=items", "--output-dir", "out").stdout)
    assert {step["sandbox"] for step in made["steps"]} == {"bwrap"}
    assert (tmp_path / "out/jobs/batch/outputs/all").read_text().split("\n")[:2] == ["item 1", "item 2"]
    assert (tmp_path / "out/jobs/last/outputs/o").read_text() == "from the other"


def test_help_names_the_way_out() -> None:
    told = subprocess.run([*EDGEML, "run", "--help"], capture_output=True, text=True).stdout
    assert "--no-sandbox" in told
