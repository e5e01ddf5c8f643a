"""`--env docker`: which image a declared environment stands for, when it is built, and what is refused."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import pytest

from tests.engine.daemon import BASE, Daemon, one_step, output, run
from tests.engine.project import Project

# There is no conda that could be had without a hub; this one makes an environment of one program.
CONDA = """#!/bin/bash
case "$1 $2" in
"env create")
    mkdir -p $4/bin
    cp $6 $4/environment.yml
    echo '#!/bin/bash' > $4/bin/packaged
    echo 'echo from the environment' >> $4/bin/packaged
    chmod 755 $4/bin/packaged
    ;;
*) exit 64 ;;
esac
"""


def status(project: Project, daemon: Daemon, *args: str) -> str:
    run(project, daemon, *args)
    return json.loads((project.folder / "out/run.json").read_text())["steps"][0]["status"]


def test_an_image_is_built_once_for_its_content(project: Project, daemon: Daemon) -> None:
    project.write("component/image/Containerfile", f"FROM {BASE}\nCOPY word /word\n")
    word = project.write("component/image/word", "one\n")
    project.write(
        "component/c.yml",
        """
        outputs: {o: {type: uri_file}}
        environment: {build: {path: ./image, dockerfile_path: Containerfile}}
        command: ls -l /word; cat /word > ${{outputs.o}}
        """,
    )
    project.write("pipeline.yml", "jobs:\n  a: {component: component/c.yml}\n  b: {component: component/c.yml}\n")
    assert run(project, daemon).stderr.count("building the image of step") == 1
    assert output(project) == "one\n"
    done = run(project, daemon)
    assert "building" not in done.stderr
    assert "cached" in done.stderr
    word.write_text("two\n")
    assert "building the image of step 'a' (log: .edgeml/environments/" in run(project, daemon).stderr
    assert output(project) == "two\n"
    word.chmod(0o755)
    assert "building" in run(project, daemon).stderr, "COPY keeps modes"
    assert (project.folder / "out/jobs/a/log.txt").read_text().startswith("-rwxr-xr-x")


def test_reuse_goes_by_what_the_image_is_not_by_its_name(project: Project, daemon: Daemon) -> None:
    daemon.add_image("edgeml-test/moving:1", files={"word": "one"})
    one_step(project, "{image: 'edgeml-test/moving:1'}", "cat /word > ${{outputs.o}}")
    assert status(project, daemon) == "completed"
    assert status(project, daemon) == "cached"
    identity = daemon.docker("image", "inspect", "--format", "{{.Id}}", "edgeml-test/moving:1")
    assert json.loads((project.folder / "out/run.json").read_text())["steps"][0]["environment"] == identity
    daemon.add_image("edgeml-test/moving:1", files={"word": "two"})
    assert status(project, daemon) == "completed"
    assert output(project) == "two"
    one_step(project, "{image: 'edgeml-test/moving:1'}", "echo x > ${{outputs.o}}")
    assert status(project, daemon) == "completed"
    assert project.statuses() == {"a": "completed"}, "what a container made is not what this Python would make"


def test_a_conda_file_is_built_on_top_of_its_image(project: Project, daemon: Daemon) -> None:
    """With a stand-in for conda in the image: channels of real packages cannot be reached from the tests."""
    daemon.add_image("edgeml-test/conda:1", "USER 4242", files={"bin/conda": CONDA})
    project.write("env/conda.yml", "dependencies: [python=3.11]\n")
    project.write("env/env.yml", "name: with-conda\nimage: edgeml-test/conda:1\nconda_file: ./conda.yml\n")
    one_step(project, "./env/env.yml", "packaged > ${{outputs.o}}; cat $CONDA_PREFIX/environment.yml")
    assert "building the image" in run(project, daemon).stderr
    assert output(project) == "from the environment\n"
    assert (project.folder / "out/jobs/a/log.txt").read_text() == "dependencies: [python=3.11]\n"
    assert "building" not in run(project, daemon).stderr
    one_step(
        project,
        "{image: 'edgeml-test/conda:1', conda_file: {dependencies: [python=3.12]}}",
        "cat $CONDA_PREFIX/environment.yml > ${{outputs.o}}",
    )
    run(project, daemon)
    assert json.loads(output(project)) == {"dependencies": ["python=3.12"]}
    project.write("env/env.yml", f"name: with-conda\nimage: {BASE}\nconda_file: ./conda.yml\n")
    one_step(project, "./env/env.yml", "packaged")
    refused = run(project, daemon, check=2).stderr
    assert f"edgeml: env/env.yml:3: the image {BASE} of step 'a' has no conda, mamba or micromamba" in refused


def test_a_registered_environment_is_given_a_local_source(project: Project, daemon: Daemon) -> None:
    project.write("environments/own.yml", "name: own\nversion: 1\nbuild: {path: ./context}\n")
    project.write("environments/context/Dockerfile", f"FROM {BASE}\nENV BUILT=yes\n")
    reference = "azureml://registries/azureml/environments/sklearn-1.5/labels/latest"
    for name in (reference, "azureml:own@latest"):
        one_step(project, name, "echo built $BUILT > ${{outputs.o}}")
        refused = run(project, daemon, check=2).stderr
        assert f"edgeml: pipeline.yml:3: the environment {name} of step 'a' is not on this machine" in refused
        assert f"--map {name}=ENVIRONMENT.yml" in refused
        run(project, daemon, "--map", f"{name}=environments/own.yml")
        assert output(project) == "built yes\n"
        run(project, daemon, "--map", f"{name}={BASE}")
        assert output(project) == "built\n"
    assert "does not exist" in run(project, daemon, "--map", "azureml:own@latest=none.yml", check=2).stderr
    assert "is a folder" in run(project, daemon, "--map", "azureml:own@latest=environments", check=2).stderr


@pytest.mark.parametrize(
    ("environment", "message"),
    [
        ("{image: '127.0.0.1:1/absent:1'}", "pipeline.yml:3: the image 127.0.0.1:1/absent:1 of step 'a' is not on"),
        ("{name: x}", "pipeline.yml:3: the environment of step 'a' has neither image nor build nor conda_file"),
        ("{build: {dockerfile_path: D}}", "pipeline.yml:3: the environment of step 'a' has a build without a path"),
        ("{build: {path: broken, dockerfile_path: D}}", "is built with broken/D, which does not exist"),
        ("{build: {path: 'https://example.org/x.git'}}", "is built from https://example.org/x.git, which is not on"),
        ("{build: {path: broken}}", "pipeline.yml:3: the image of step 'a' cannot be built: "),
        ("{image: x, conda_file: none.yml}", "has the conda file none.yml, which does not exist"),
        ("{conda_file: conda.yml}", "pipeline.yml:3: the environment of step 'a' has no image for --env docker"),
        ("./none.yml", "pipeline.yml:3: the environment none.yml of step 'a' does not exist"),
        ("./empty.yml", "empty.yml:1: the environment of step 'a' has neither image nor build nor conda_file"),
        ("", "pipeline.yml:3: step 'a' declares no environment for --env docker; declare one"),
    ],
)
def test_what_cannot_be_honoured_is_refused_before_any_step(
    project: Project, daemon: Daemon, environment: str, message: str
) -> None:
    project.write("broken/Dockerfile", f"FROM {BASE}\nRUN no-such-command\n")
    project.write("conda.yml", "dependencies: [python]\n")
    project.write("empty.yml", "name: empty\n")
    first = f"  first: {{environment: {{image: '{BASE}'}}, command: echo ran}}\n"
    one_step(project, environment, "echo ran", first)
    done = run(project, daemon, "--no-check", check=2)  # the engine itself must say so
    assert message in done.stderr
    ours = [line for line in done.stderr.splitlines() if not re.search("pulling|building|no bridge", line)]
    assert len(ours) == 1, "one sentence"
    assert not (project.folder / "out").exists()


def test_a_missing_docker_is_one_sentence(project: Project, tmp_path: Path) -> None:
    one_step(project, "{image: some/image}", "true")
    bash = shutil.which("bash")
    assert bash is not None
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin/bash").symlink_to(bash)
    absent = project.run("--env", "docker", check=2, PATH=str(tmp_path / "bin")).stderr
    assert absent.splitlines() == [
        "edgeml: --env docker needs docker on the PATH; install it, or run without --env in this Python"
    ]
    both = project.run("--env", "docker", "--python", "python3", check=2).stderr
    assert "--python goes with --env local" in both
    assert "invalid choice: 'podman'" in project.run("--env", "podman", check=2).stderr


def test_a_silent_daemon_is_one_sentence(project: Project, daemon: Daemon) -> None:
    one_step(project, "{image: some/image}", "true")
    silent = project.run("--env", "docker", check=2, DOCKER_HOST="unix:///nowhere.sock").stderr
    assert len(silent.splitlines()) == 1
    assert silent.startswith("edgeml: --env docker: the docker daemon does not answer (")
