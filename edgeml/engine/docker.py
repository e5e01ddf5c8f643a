"""Steps in containers that see their own folders and nothing else of this machine.

A container runs as the calling user, without capabilities, and ends with its step: when the step is stopped, when the
engine is, and (where util-linux's `setpriv` is there to tell it) when the engine is killed.
"""

from __future__ import annotations

import csv
import io
import os
import re
import shlex
import shutil
import subprocess
from collections.abc import Callable, Mapping

from edgeml.engine.environment import Declared, key
from edgeml.engine.folder import Job
from edgeml.engine.guard import Guard
from edgeml.engine.image import Images, ask, last_line
from edgeml.engine.mounts import mounts
from edgeml.engine.step import FOREVER, Process, Sources
from edgeml.errors import EdgemlError
from edgeml.pipeline.graph import Step

# Of the ambient variables only these reach a step: all others describe this machine, not the container.
_PASSED = ("MLFLOW_", "AZUREML_", "AZURE_ML_", "EDGEML_STORAGE_", "EDGEML_AIRLOCK_", "PYTHONUNBUFFERED")
# What the client itself obeys cannot go through its environment.
_CLIENTS_OWN = re.compile(r"HOME|PATH|BASH_ENV|ENV|TMPDIR|SSH_AUTH_SOCK|(DOCKER|BUILDKIT|LD|DYLD)_.*")
_ADDRESSES = ("EDGEML_STORAGE_ACCOUNT_URL", "MLFLOW_TRACKING_URI")
_LOOPBACK = re.compile(r"https?://(localhost|127\.|\[::1\])")
_TRIES = 3  # to remove a container
_CLIENT_KILLED = 125  # the client's own exit code where it lost the daemon or could not start the container


def prepare(declared: Mapping[str, Declared], state: str, say: Callable[[str], None]) -> Docker:
    """A launcher with an image for each environment. Raises EdgemlError where docker or an image cannot be had."""
    program = shutil.which("docker")
    if program is None:
        raise EdgemlError("--env docker needs docker on the PATH; install it, or run without --env in this Python")
    asked = ask(program, "version", "--format", "{{.Server.Version}}")
    if asked.returncode:
        raise EdgemlError(
            f"--env docker: the docker daemon does not answer ({last_line(asked.stderr)}); "
            "start it, or point DOCKER_HOST at one"
        )
    bridge = ask(program, "network", "inspect", "bridge").returncode == 0
    if not bridge:
        say("the docker daemon has no bridge network; steps run without a network")
    images = Images(program, bridge, os.path.join(state, "environments"), say)
    rootless = "name=rootless" in ask(program, "info", "--format", "{{.SecurityOptions}}").stdout
    user = "0:0" if rootless else f"{os.getuid()}:{os.getgid()}"  # a rootless daemon's root is who runs the daemon
    return Docker(program, bridge, user, {name: images.of(wanted) for name, wanted in declared.items()})


class Docker:
    """Runs each step in its image (ids by environment), as `user`."""

    def __init__(self, program: str, bridge: bool, user: str, images: Mapping[str, str]) -> None:
        self.program = program
        self.bridge = bridge
        self.user = user
        self.images = images
        setpriv = shutil.which("setpriv")
        # A killed engine can end nobody: the kernel asks the client to end, and the client its container.
        self.leash = [setpriv, "--pdeathsig", "TERM"] if setpriv else []

    def identity(self, step: Step) -> str:
        return self.image_of(step)

    def image_of(self, step: Step) -> str:
        return self.images[key(step)]

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
        name = container_name(environment["AZUREML_RUN_ID"])
        variables, environment = _variables(step, environment)
        read, written = mounts(step, job, environment, outputs, sources)
        line = [
            *self.leash,
            *(self.program, "run", "--rm", "--init", "--name", name, "--user", self.user),
            *("--cap-drop", "ALL", "--security-opt", "no-new-privileges", *self._network(environment)),
            # The daemon's own log would be a second copy of what a step prints, out of the project's sight.
            *("--log-driver", "none", "--no-healthcheck", "--workdir", job.work, *variables),
            *(word for path, source in read.items() if path not in written for word in as_mount(source, path)),
            *(word for path, source in written.items() for word in as_mount(source, path, writable=True)),
            # Docker carries two streams, and what they held at once arrives in any order: a log needs one.
            *("--entrypoint", "bash", self.image_of(step), "-c", f"exec 2>&1; {command}"),
        ]
        return Container(self.program, name, line, job, environment)

    def _network(self, environment: Mapping[str, str]) -> list[str]:
        """The daemon's default; the host's only where the engine itself gave the step an address no other reaches."""
        given = [address for name in _ADDRESSES if (address := environment.get(name, "")).startswith("http")]
        if any(_LOOPBACK.match(address) or not self.bridge for address in given):
            return ["--network", "host"]
        return [] if self.bridge else ["--network", "none"]


class Container(Process):
    """A container through the client that is attached to it; it does not outlive the client."""

    def __init__(self, program: str, name: str, line: list[str], job: Job, environment: dict[str, str]) -> None:
        self._remove = [program, "rm", "--force", name]
        self._environment = environment
        # Not under the guard: a client that is killed outright leaves its container running.
        super().__init__("exec " + shlex.join(line), job.work, environment, job.log, None)

    def wait(self, seconds: float = FOREVER) -> int:
        code = super().wait(seconds)
        if code < 0 or code == _CLIENT_KILLED:
            self._end()
        return code

    def stop(self) -> None:
        super().stop()
        self._end()

    def _end(self) -> None:
        quiet = subprocess.DEVNULL
        for _ in range(_TRIES):  # a busy daemon may give up on the kernel before the container has ended
            done = subprocess.run(self._remove, env=self._environment, stdin=quiet, stdout=quiet, stderr=quiet)
            if done.returncode == 0:
                return


def is_file_store(uri: str) -> bool:
    """Whether an MLflow store is a file of this machine.

    A container does not see it: SQLite would need all of the state's folder, and with it the storage's key.
    """
    return uri != "" and (uri.startswith(("sqlite:", "file:")) or "://" not in uri) and uri != "databricks"


def _variables(step: Step, environment: dict[str, str]) -> tuple[list[str], dict[str, str]]:
    """The options that name a step's variables, and the client's environment that holds their values.

    A value is in the arguments, which everybody may read, only where the client would take it for its own.
    """
    client = dict(environment)
    options = []
    if is_file_store(environment.get("MLFLOW_TRACKING_URI", "")):
        del client["MLFLOW_TRACKING_URI"]
    declared = {"HOME": "/tmp", "USER": "edgeml"} | {name: environment[name] for name in step.environment_variables}  # noqa: S108
    for name, value in declared.items():
        if _CLIENTS_OWN.fullmatch(name):
            options += ["--env", f"{name}={value}"]
            client.pop(name, None)
            if name in os.environ:
                client[name] = os.environ[name]
        else:
            client[name] = value
    passed = {name for name in client if name.startswith(_PASSED)} | set(declared)
    for name in sorted(passed):
        if not _CLIENTS_OWN.fullmatch(name):
            options += ["--env", name]
    return options, client


def as_mount(source: str, target: str, *, writable: bool = False) -> list[str]:
    """The option that shows a file or folder of this machine at a path of the container's."""
    fields = ["type=bind", f"source={os.path.realpath(source)}", f"target={target}"]
    return ["--mount", _as_csv(fields if writable else [*fields, "readonly"])]


def _as_csv(fields: list[str]) -> str:
    """One option of `--mount`: docker reads it as a line of CSV, so paths may hold commas."""
    line = io.StringIO()
    csv.writer(line, lineterminator="").writerow(fields)
    return line.getvalue()


def container_name(run: str) -> str:
    return "edgeml-" + re.sub(r"[^A-Za-z0-9_.-]", "-", run) + "-" + os.urandom(4).hex()
