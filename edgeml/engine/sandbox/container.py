"""Private steps in containers: docker with the same means as bubblewrap.

The image's root is read-only, `/tmp` and what the step may write are folders of its job, and there is no network but
the container's own loopback.
"""

from __future__ import annotations

import json
import os

from edgeml.engine import files
from edgeml.engine.docker import Container, Docker, as_mount, container_name
from edgeml.engine.environment import Launcher
from edgeml.engine.folder import Job
from edgeml.engine.guard import Guard
from edgeml.engine.mounts import mounts
from edgeml.engine.sandbox import relay, seccomp, storage
from edgeml.engine.step import FOREVER, Process, Sources
from edgeml.pipeline.graph import Step

_PROCESSES = 4096
_RELAY = "/run/edgeml/relay.py"
_TMP = "/tmp"  # noqa: S108 - inside it is a folder of the step's own
# Names that neither the client nor the shell around it obeys: their values go by the environment, which is private.
_SECRET = ("EDGEML_STORAGE_", "AZUREML_", "AZURE_ML_", "MLFLOW_")


def confined(launcher: Launcher) -> Confined:
    """The sandbox in a docker launcher's images."""
    assert isinstance(launcher, Docker)
    return Confined(launcher)


class Confined:
    """Starts private steps in the images of a docker launcher."""

    kind = "docker"

    def __init__(self, docker: Docker) -> None:
        self.docker = docker

    def start(
        self,
        step: Step,
        command: str,
        job: Job,
        environment: dict[str, str],
        outputs: dict[str, str],
        sources: Sources,
        guard: Guard,
    ) -> Process:
        read, write = mounts(step, job, environment, outputs, sources)
        line = ["bash", "-c", f"exec 2>&1; {command}"]
        gate = storage.gate_of(environment)
        hosts: list[str] = []
        if gate is not None:
            write[storage.INSIDE] = gate.socket
            read[_RELAY] = relay.__file__
            hosts = [word for entry in gate.hosts.splitlines() for word in ("--add-host", _host(entry))]
            line = gate.command("python3", line, _RELAY)
        several = step.distribution is not None and step.distribution.processes > 1
        profile = os.path.join(job.folder, "seccomp.json")
        files.write_atomically(profile, json.dumps(seccomp.profile(inet=gate is not None or several)))
        os.makedirs(job.scratch, exist_ok=True)
        write[_TMP] = job.scratch
        variables, client = _variables(step, environment)
        name = container_name(environment["AZUREML_RUN_ID"])
        whole = [
            *self.docker.leash,
            *(self.docker.program, "run", "--rm", "--init", "--name", name, "--user", self.docker.user),
            *("--network", "none", *hosts, "--ipc", "private", "--read-only", "--cap-drop", "ALL"),
            *("--security-opt", "no-new-privileges", "--security-opt", f"seccomp={profile}"),
            *("--pids-limit", str(_PROCESSES), *_memory(), "--ulimit", "core=0"),
            *("--log-driver", "none", "--no-healthcheck", "--workdir", job.work, *variables),
            *(word for target, source in read.items() for word in as_mount(source, target, writable=False)),
            *(word for target, source in write.items() for word in as_mount(source, target, writable=True)),
            *("--entrypoint", line[0], self.docker.image_of(step), *line[1:]),
        ]
        return _Gated(self.docker.program, name, whole, job, client, gate)


class _Gated(Container):
    def __init__(
        self, program: str, name: str, line: list[str], job: Job, environment: dict[str, str], gate: storage.Gate | None
    ) -> None:
        self._gate = gate
        super().__init__(program, name, line, job, environment)

    def wait(self, seconds: float = FOREVER) -> int:
        try:
            return super().wait(seconds)
        finally:
            if self._gate is not None:
                self._gate.close()


def _variables(step: Step, environment: dict[str, str]) -> tuple[list[str], dict[str, str]]:
    """The options that set a step's variables, and the environment of the client, which is the engine's own.

    What the pipeline declares stands in Git and goes by the arguments: a name of its choice could be one that the
    client or the shell around it obeys (BASH_ENV, DOCKER_HOST). The engine's PATH means nothing in the image.
    """
    client = dict(os.environ)
    options = []
    made = {"HOME": _TMP, "USER": "step"} | {name: value for name, value in environment.items() if name != "PATH"}
    made |= {name: environment[name] for name in step.environment_variables}
    for name, value in made.items():
        if name.startswith(_SECRET) and name not in step.environment_variables:
            client[name] = value
            options += ["--env", name]
        else:
            options += ["--env", f"{name}={value}"]
    return options, client


def _memory() -> list[str]:
    """Nine tenths of the machine's, so that a step is ended before the machine is out of it."""
    limit = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") * 9 // 10
    return ["--memory", str(limit), "--memory-swap", str(limit)]


def _host(entry: str) -> str:
    address, name = entry.split()
    return f"{name}:{address}"
