"""`--env conda` with a stand-in for conda.

The real one was not available: neither PyPI nor Debian has conda, mamba or micromamba. The stand-in takes the same
arguments (`conda env create -p P -f F`, `conda run --no-capture-output -p P …`; micromamba's differ), so what is proven
here is how edgeml calls it, not how conda answers.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.engine.project import EDGEML, Project, wait_until

CREATE = """
create() {
    echo create >> "$CALLS"
    test -z "$HANG" || { mkdir -p "$1/half"; sleep 300; }
    while read -r line; do case $line in *nonsense*)
        echo "PackagesNotFoundError: nonsense" >&2; mkdir -p "$1/half"; exit 1;; esac
    done < "$2"
    test ! -e "$1" || { echo "CondaValueError: prefix already exists" >&2; exit 1; }
    mkdir -p "$1/bin" "$1/conda-meta"
    cp "$2" "$1/conda-meta/${PACKAGE:-python-3.11}.json"
    ln -s "$PYTHON" "$1/bin/python"
    { echo '#!/bin/bash'; echo 'echo packaged'; } > "$1/bin/packaged"
    chmod 755 "$1/bin/packaged"
}
activate() { prefix=$1; shift; CONDA_PREFIX=$prefix PATH=$prefix/bin:$PATH exec "$@"; }
"""
CONDA = """#!/bin/bash
%s
case "$1 $2 $3" in
"env create -p") test "$5" = -f && create "$4" "$6" ;;
"run --no-capture-output -p") activate "${@:4}" ;;
*) echo "conda: unknown $*" >&2; exit 64 ;;
esac
"""
MICROMAMBA = """#!/bin/bash
%s
case "$1 $2" in
"create -p") test "$MAMBA_ALWAYS_YES$4" = true-f && create "$3" "$5" ;;
"run -p") activate "${@:3}" ;;
*) echo "micromamba: unknown $*" >&2; exit 64 ;;
esac
"""
PIPELINE = """
    jobs:
      a: {component: ./c.yml}
      b: {component: ./c.yml, inputs: {n: 1}}
"""
COMPONENT = """
    inputs: {n: {type: integer, default: 0}}
    outputs: {o: {type: uri_file}}
    environment: {image: some/image, conda_file: env/conda.yml}
    command: |
      echo "it's" 'a "line"' && packaged > ${{outputs.o}}
      echo $CONDA_PREFIX
"""


class Conda:
    """A project with a stand-in on its PATH."""

    def __init__(self, project: Project, tool: str = "conda") -> None:
        self.project = project
        self.calls = project.folder / "calls"
        self.calls.touch()
        content = (CONDA if tool == "conda" else MICROMAMBA) % CREATE
        project.write(f"tools/{tool}", "").write_text(content)
        (project.folder / "tools" / tool).chmod(0o755)
        self.environment = {
            "PATH": f"{project.folder}/tools:/usr/bin:/bin",  # no real conda, which would come first
            "CALLS": str(self.calls),
            "PYTHON": sys.executable,
        }
        project.write("pipeline.yml", PIPELINE)
        project.write("c.yml", COMPONENT)
        project.write("env/conda.yml", "dependencies: [python=3.11]\n")

    def run(self, *args: str, check: int = 0, **env: str) -> subprocess.CompletedProcess[str]:
        return self.project.run(
            "--env", "conda", "--output-dir", "out", *args, check=check, **{**self.environment, **env}
        )

    def statuses(self, **env: str) -> set[str]:
        return {*self.project.statuses("--env", "conda", "--output-dir", "out", **{**self.environment, **env}).values()}

    def created(self) -> int:
        return len(self.calls.read_text().splitlines())

    def output(self) -> str:
        return (self.project.folder / "out/jobs/a/outputs/o").read_text()


@pytest.mark.parametrize("tool", ["conda", "micromamba", "mamba"])
def test_an_environment_is_made_once_for_its_content(project: Project, tool: str) -> None:
    conda = Conda(project, tool)
    done = conda.run()
    assert "making the conda environment of step 'a'" in done.stderr
    assert conda.output() == "packaged\n"
    said, prefix = (project.folder / "out/jobs/a/log.txt").read_text().splitlines()
    assert said == 'it\'s a "line"'
    assert Path(prefix).parent == project.folder / ".edgeml/environments"
    assert conda.created() == 1
    assert conda.statuses() == {"cached"}
    project.write("env/conda.yml", "dependencies: [python=3.12]\n")
    assert conda.statuses() == {"completed"}
    project.write("env/conda.yml", "dependencies: [python=3.11]\n")
    assert conda.statuses() == {"cached"}
    assert conda.created() == 2


def test_reuse_goes_by_the_packages_that_a_conda_file_came_to(project: Project) -> None:
    conda = Conda(project)
    conda.run()
    shutil.rmtree(project.folder / ".edgeml/environments")
    assert conda.statuses() == {"cached"}
    shutil.rmtree(project.folder / ".edgeml/environments")
    assert conda.statuses(PACKAGE="python-3.11.99") == {"completed"}


def test_two_engines_make_an_environment_once(project: Project) -> None:
    conda = Conda(project)
    command = [*EDGEML, "run", "pipeline.yml", "--env", "conda", "--output-dir"]
    engines = [
        subprocess.Popen(
            [*command, f"out{i}"],
            cwd=project.folder,
            env={**os.environ, **conda.environment},
            stderr=subprocess.DEVNULL,
        )
        for i in range(3)
    ]
    assert [engine.wait(60) for engine in engines] == [0] * 3
    assert conda.created() == 1


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_an_environment_whose_making_was_interrupted_is_made_anew(project: Project, number: signal.Signals) -> None:
    conda = Conda(project)
    engine = subprocess.Popen(
        [*EDGEML, "run", "pipeline.yml", "--env", "conda"],
        cwd=project.folder,
        env={**os.environ, **conda.environment, "HANG": "yes"},
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    wait_until(lambda: [*project.folder.glob(".edgeml/environments/*/half")])
    os.killpg(engine.pid, number)
    engine.wait(20)
    conda.run()
    assert conda.output() == "packaged\n"
    assert not [*project.folder.glob(".edgeml/environments/*/half")]


def test_an_environment_that_cannot_be_made_is_refused_with_its_place(project: Project) -> None:
    conda = Conda(project)
    project.write("env/conda.yml", "dependencies: [nonsense]\n")
    done = conda.run(check=2)
    assert "edgeml: c.yml:4: the conda environment of step 'a' cannot be made: PackagesNotFoundError" in done.stderr
    assert "the whole log is .edgeml/environments/" in done.stderr
    assert not (project.folder / "out").exists()
    assert conda.run(check=2).stderr.count("PackagesNotFoundError") == 1, "half an environment is not taken for whole"


def test_a_command_that_installs_packages_leaves_the_environment_as_it_was(project: Project) -> None:
    conda = Conda(project)
    project.write(
        "c.yml",
        COMPONENT.replace(
            "packaged >", "(pip install --quiet --no-index nothing || python -c 'import sys; print(sys.prefix)') >"
        ),
    )
    conda.run()
    assert conda.output().strip() == str(project.folder / "out/jobs/a/environment")


@pytest.mark.parametrize("environment", ["{image: some/image}", "{build: {path: .}}"])
def test_a_step_without_a_conda_file_is_refused(project: Project, environment: str) -> None:
    conda = Conda(project)
    project.write("Dockerfile", "FROM scratch\n")
    project.write("c.yml", f"environment: {environment}\ncommand: echo ran\n")
    done = conda.run(check=2)
    assert "edgeml: c.yml:1: the environment of step 'a' has no conda_file for --env conda" in done.stderr
    assert conda.created() == 0


def test_a_registered_environment_is_given_a_conda_file(project: Project) -> None:
    conda = Conda(project)
    project.write("c.yml", COMPONENT.replace("{image: some/image, conda_file: env/conda.yml}", "azureml:own:1"))
    assert "c.yml:4: the environment azureml:own:1 of step 'a' is not on this machine" in conda.run(check=2).stderr
    conda.run("--map", "azureml:own:1=env/conda.yml")
    assert conda.output() == "packaged\n"


def test_a_missing_conda_is_one_sentence(project: Project, tmp_path: Path) -> None:
    conda = Conda(project)
    bash = shutil.which("bash")
    assert bash is not None
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin/bash").symlink_to(bash)
    told = conda.run(check=2, PATH=str(tmp_path / "bin")).stderr.splitlines()
    assert told == [
        "edgeml: --env conda needs conda, mamba or micromamba on the PATH; install one, or try --env docker"
    ]
