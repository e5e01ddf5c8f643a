"""`--env docker` against a real daemon: what a container sees, what it leaves, what is refused."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
from pathlib import Path

import pytest

from tests.engine.daemon import BASE, Daemon, started
from tests.engine.project import EDGEML, Project, wait_until

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


def one_step(project: Project, environment: str, command: str, more: str = "") -> None:
    project.write(
        "pipeline.yml",
        f"jobs:\n  a:\n    environment: {environment}\n    command: {json.dumps(command)}\n"
        f"    outputs: {{o: {{type: uri_file}}}}\n{more}",
    )


def run(project: Project, daemon: Daemon, *args: str, check: int = 0, **env: str) -> subprocess.CompletedProcess[str]:
    return project.run("--env", "docker", "--output-dir", "out", *args, check=check, **daemon.environment, **env)


def status(project: Project, daemon: Daemon, *args: str) -> str:
    run(project, daemon, *args)
    return json.loads((project.folder / "out/run.json").read_text())["steps"][0]["status"]


def output(project: Project) -> str:
    return (project.folder / "out/jobs/a/outputs/o").read_text()


def test_a_container_sees_its_own_folders_and_nothing_else(tmp_path: Path, daemon: Daemon) -> None:
    project = Project(tmp_path / "my project (1), copy")
    project.write("in put.txt", "rows\n")
    project.write("secret.txt", "not declared\n")
    project.write("src/run.sh", 'cat "$1" > "$2"; echo log\n')
    project.write(
        "pipeline.yml",
        f"""
        jobs:
          a:
            environment: {{image: "{BASE}"}}
            code: src
            command: |
              bash run.sh ${{{{inputs.i}}}} ${{{{outputs.o}}}}
              echo x > ${{{{outputs.d}}}}/x; echo plot > outputs/plot.txt
            inputs: {{i: {{type: uri_file, path: "./in put.txt"}}}}
            outputs: {{o: {{type: uri_file}}, d: {{type: uri_folder}}}}
          b:
            environment: {{image: "{BASE}"}}
            environment_variables: {{DATA: "${{{{parent.jobs.a.outputs.d}}}}", HOME: /tmp/own}}
            command: |
              (echo changed > ${{{{inputs.o}}}}) 2>/dev/null || echo read-only
              (echo more > $DATA/y) 2>/dev/null || echo read-only
              cat ${{{{inputs.o}}}} $DATA/x ${{{{inputs.p}}}}/plot.txt
              ls {tmp_path}/*/ 2>/dev/null | (while read name; do echo sees $name; done)
              ls /home /root /work 2>/dev/null; echo home $HOME
              while read name value; do case $name in Cap*|NoNew*) echo $name $value;; esac; done < /proc/self/status
              cat /proc/1/comm
            inputs:
              o: "${{{{parent.jobs.a.outputs.o}}}}"
              p: "${{{{parent.jobs.a.outputs.artifacts}}}}"
        """,
    )
    run(project, daemon)
    assert (project.folder / "out/jobs/a/log.txt").read_text() == "log\n"
    lines = (project.folder / "out/jobs/b/log.txt").read_text().splitlines()
    assert lines[:6] == ["read-only", "read-only", "rows", "x", "plot", "sees out"]
    assert lines[6] == "home /tmp/own"
    assert dict(line.split() for line in lines[7:-1]) == {
        **dict.fromkeys(("CapInh:", "CapPrm:", "CapEff:", "CapBnd:", "CapAmb:"), "0" * 16),
        "NoNewPrivs:": "1",
    }
    assert "init" in lines[-1]
    assert daemon.containers() == ""


def test_a_step_runs_as_the_caller_by_bash_whatever_the_image_says(project: Project, daemon: Daemon) -> None:
    daemon.add_image("edgeml-test/stubborn:1", "USER 4242", 'ENTRYPOINT ["false"]', "WORKDIR /nowhere")
    one_step(project, "{image: 'edgeml-test/stubborn:1'}", "id -u > ${{outputs.o}}; cat /proc/self/cgroup >&2; pwd")
    run(project, daemon)
    assert int(output(project)) == os.getuid()
    assert (project.folder / "out/jobs/a/outputs/o").stat().st_uid == os.getuid()
    assert (project.folder / "out/jobs/a/log.txt").read_text().endswith("/out/jobs/a/work\n")


@pytest.mark.parametrize(
    ("command", "why", "said"),
    [
        ("echo saying why; exit 3", "exited with code 3", "| saying why"),
        ("nonsense_command", "exited with code 127: a command was not found", "nonsense_command: command not found"),
        ("kill -9 $$", "exited with code 137 (SIGKILL, out of memory?)", ""),
        ("true", "did not write its output 'o'", ""),
    ],
)
def test_a_failure_is_told_as_without_a_container(
    project: Project, daemon: Daemon, command: str, why: str, said: str
) -> None:
    one_step(project, f"{{image: '{BASE}'}}", command)
    done = run(project, daemon, check=1)
    assert f"edgeml: step 'a' {why}" in done.stderr
    assert said in done.stderr
    assert daemon.containers() == ""


def test_values_of_variables_are_in_no_arguments(project: Project, daemon: Daemon) -> None:
    project.write("ca.pem", "certificate\n")
    one_step(
        project,
        f"{{image: '{BASE}'}}",
        "env > ${{outputs.o}}; cat $EDGEML_STORAGE_CA_BUNDLE >> ${{outputs.o}}; cat /proc/net/dev; "
        "while test ! -e outputs/go; do sleep 0.05; done",
        "    environment_variables: {TOKEN: declared-value, DOCKER_HOST: unix:///inside, PATH: /bin}\n",
    )
    text = (project.folder / "pipeline.yml").read_text()
    project.write("component.yml", text.replace("jobs:\n  a:\n", "").replace("\n    ", "\n").strip() + "\n")
    with (project.folder / "component.yml").open("a") as stream:
        stream.write("tags: {edgeml.needs: storage}\n")
    project.write("pipeline.yml", "jobs:\n  a: {component: ./component.yml}\n")
    environment = {
        **os.environ,
        **daemon.environment,
        "EDGEML_STORAGE_ACCOUNT_URL": "https://127.0.0.1:1/account",
        "EDGEML_STORAGE_ACCOUNT_KEY": "c2VjcmV0LXZhbHVl",
        "EDGEML_STORAGE_CA_BUNDLE": str(project.folder / "ca.pem"),
        "MLFLOW_TRACKING_PASSWORD": "ambient-value",
        "OTHER": "stays outside",
    }
    command = [*EDGEML, "run", "pipeline.yml", "--env", "docker", "--output-dir", "out"]
    engine = subprocess.Popen(command, cwd=project.folder, env=environment, stderr=subprocess.PIPE, text=True)
    log = project.folder / "out/jobs/a/log.txt"
    wait_until(lambda: engine.poll() is not None or (log.exists() and "lo:" in log.read_text()))
    clients = [line for line in arguments_of_all() if f"{project.folder}/out/jobs/a/work" in line]
    (project.folder / "out/jobs/a/work/outputs/go").touch()
    _, told = engine.communicate(timeout=30)
    assert engine.returncode == 0, told
    assert clients
    secrets = ("declared-value", "c2VjcmV0LXZhbHVl", "ambient-value")
    assert not [line for line in clients if any(secret in line for secret in secrets)]
    seen = output(project).splitlines()
    assert {"TOKEN=declared-value", "DOCKER_HOST=unix:///inside", "PATH=/bin", "certificate"} <= set(seen)
    assert {f"{n}_{v}" for n, v in (("EDGEML_STORAGE", "ACCOUNT_KEY=c2VjcmV0LXZhbHVl"),)} <= set(seen)
    assert "MLFLOW_TRACKING_PASSWORD=ambient-value" in seen
    assert not [line for line in seen if line.startswith(("OTHER=", "PYTHONPATH=", "VIRTUAL_ENV="))]
    devices = {line.split(":")[0].strip() for line in log.read_text().splitlines() if ":" in line}
    assert devices == host_devices(), "storage on this machine's loopback is reached from the host's network only"


def arguments_of_all() -> list[str]:
    found = []
    for process in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            found.append(process.read_bytes().replace(b"\0", b" ").decode("utf-8", "replace"))
        except OSError:  # it ended meanwhile
            continue
    return found


def host_devices() -> set[str]:
    return {line.split(":")[0].strip() for line in Path("/proc/net/dev").read_text().splitlines() if ":" in line}


def test_without_a_bridge_steps_have_no_network_and_builds_have_the_hosts(project: Project, daemon: Daemon) -> None:
    project.write("image/Dockerfile", f"FROM {BASE}\nRUN cat /proc/net/dev > /devices\n")
    one_step(project, "{build: {path: image}}", "cat /devices > ${{outputs.o}}; cat /proc/net/dev")
    assert "the docker daemon has no bridge network; steps run without a network" in run(project, daemon).stderr
    assert {line.split(":")[0].strip() for line in output(project).splitlines() if ":" in line} == host_devices()
    log = (project.folder / "out/jobs/a/log.txt").read_text()
    assert [line.split(":")[0].strip() for line in log.splitlines() if ":" in line] == ["lo"]


def test_with_a_bridge_steps_are_in_the_default_network(project: Project) -> None:
    one_step(project, f"{{image: '{BASE}'}}", "cat /proc/net/dev > ${{outputs.o}}")
    with started(bridge=True) as bridged:
        assert "network" not in run(project, bridged).stderr
    assert "eth0:" in output(project)


def test_an_mlflow_store_in_a_file_is_not_handed_in(project: Project, daemon: Daemon) -> None:
    one_step(project, f"{{image: '{BASE}'}}", "echo uri $MLFLOW_TRACKING_URI > ${{outputs.o}}")
    done = run(project, daemon, MLFLOW_TRACKING_URI=f"sqlite:///{project.folder}/mlflow.db")
    assert "containers do not reach the MLflow store" in done.stderr
    assert output(project) == "uri\n"
    done = run(project, daemon, "--force", MLFLOW_TRACKING_URI="http://tracking.example:5000")
    assert "MLflow" not in done.stderr
    assert output(project) == "uri http://tracking.example:5000\n"


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
    done = run(project, daemon, check=2)
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


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_a_container_ends_with_the_engine(project: Project, daemon: Daemon, number: signal.Signals) -> None:
    if number == signal.SIGKILL and not shutil.which("setpriv"):
        pytest.skip("without setpriv of util-linux nothing tells the client that the engine was killed")
    # Who may clean up ignores the request to end, and is ended after the time of grace.
    stubborn = "trap '' TERM; " if number == signal.SIGINT else ""
    one_step(project, f"{{image: '{BASE}'}}", stubborn + "echo begun; while true; do sleep 0.1; done")
    engine = subprocess.Popen(
        [*EDGEML, "run", "pipeline.yml", "--env", "docker", "--output-dir", "out"],
        cwd=project.folder,
        env={**os.environ, **daemon.environment},
        stderr=subprocess.PIPE,
    )
    log = project.folder / "out/jobs/a/log.txt"
    wait_until(lambda: log.exists() and "begun" in log.read_text())
    assert daemon.containers()
    engine.send_signal(number)
    assert engine.wait(20) == (-signal.SIGKILL if number == signal.SIGKILL else 130)
    if number == signal.SIGKILL:
        wait_until(lambda: daemon.containers() == "")
    assert daemon.containers() == ""


def test_a_failed_branch_that_stops_the_others_ends_their_containers(project: Project, daemon: Daemon) -> None:
    project.write(
        "pipeline.yml",
        f"""
        settings: {{continue_on_step_failure: false}}
        jobs:
          bad: {{environment: {{image: "{BASE}"}}, command: sleep 0.5; exit 1}}
          slow: {{environment: {{image: "{BASE}"}}, command: sleep 300}}
        """,
    )
    run(project, daemon, "--jobs", "2", check=1)
    assert daemon.containers() == ""


@pytest.mark.parametrize(
    ("environments", "told"),
    [
        (("", ""), ""),
        (("{image: x}", "{image: x}"), "1 declared environment is not used (--env docker honours it)"),
        (("{image: x}", "azureml:y:1"), "2 declared environments are not used (--env docker honours them)"),
    ],
)
def test_a_run_in_this_python_says_what_it_does_not_use(
    project: Project, environments: tuple[str, str], told: str
) -> None:
    jobs = [f"  s{i}: {{environment: {declared}, command: 'true'}}\n" for i, declared in enumerate(environments)]
    project.write("pipeline.yml", "jobs:\n" + "".join(jobs))
    lines = [line for line in project.run().stderr.splitlines() if line.startswith("edgeml:")]
    assert lines == ([f"edgeml: steps run in this Python; {told}"] if told else [])


def test_a_run_in_this_python_imports_no_launcher(chain: Project) -> None:
    script = (
        "import sys; from edgeml.cli import main; code = main(['run', 'pipeline.yml']); "
        "extra = {f'edgeml.engine.{name}' for name in ('environment', 'docker', 'image', 'conda')} & set(sys.modules); "
        "sys.exit(f'imported {extra}' if extra else code)"
    )
    done = subprocess.run([*EDGEML[:1], "-c", script], cwd=chain.folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
