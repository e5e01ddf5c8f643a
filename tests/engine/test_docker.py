"""`--env docker` against a real daemon: what a container sees, what it leaves, what is refused."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from pathlib import Path

import pytest

from tests.engine.daemon import BASE, Daemon, one_step, output, run, started
from tests.engine.project import EDGEML, Project, wait_until


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
              ls /home /root 2>/dev/null; echo home $HOME
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
    one_step(project, "{image: 'edgeml-test/stubborn:1'}", "id -u > ${{outputs.o}}; echo first >&2; pwd")
    run(project, daemon)
    assert int(output(project)) == os.getuid()
    assert (project.folder / "out/jobs/a/outputs/o").stat().st_uid == os.getuid()
    assert (project.folder / "out/jobs/a/log.txt").read_text() == f"first\n{project.folder}/out/jobs/a/work\n"


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
    (project.folder / "out/jobs/a" / "work" / "outputs/go").touch()
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
    if number != signal.SIGKILL:
        assert daemon.running() == ""
    wait_until(lambda: daemon.containers() == "")


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
    assert daemon.running() == ""
    wait_until(lambda: daemon.containers() == "")


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


def test_one_process_of_a_distribution_runs_and_several_are_refused(project: Project, daemon: Daemon) -> None:
    distribution = "    distribution: {{type: mpi, process_count_per_instance: {}}}\n"
    one_step(project, f"{{image: '{BASE}'}}", "echo alone > ${{outputs.o}}", distribution.format(1))
    run(project, daemon)
    assert output(project) == "alone\n"
    one_step(project, f"{{image: '{BASE}'}}", "echo alone > ${{outputs.o}}", distribution.format(2))
    refused = run(project, daemon, check=2).stderr
    assert "pipeline.yml:4: step 'a' is of several processes, which --env docker cannot start" in refused
