"""Steps in the conda environments that they declare, made once per content of their conda file."""

from __future__ import annotations

import fcntl
import os
import shlex
import shutil
import subprocess
from collections.abc import Callable, Mapping

from edgeml.engine import files, isolate
from edgeml.engine.environment import Declared, key
from edgeml.engine.fingerprint import digest
from edgeml.engine.folder import Job
from edgeml.engine.guard import Guard
from edgeml.engine.image import last_line
from edgeml.engine.step import Process, Sources, StepFailed
from edgeml.errors import EdgemlError
from edgeml.pipeline.graph import Step

_TOOLS = ("conda", "micromamba", "mamba")  # mamba 1 comes with conda, mamba 2 is called like micromamba
_WHOLE = ".edgeml-whole"  # in an environment that was made to its end; conda's cannot be moved into place


def prepare(declared: Mapping[str, Declared], state: str, say: Callable[[str], None]) -> Conda:
    """A launcher with every environment made. Raises EdgemlError where conda or one of them cannot be had."""
    tool = next((found for name in _TOOLS if (found := shutil.which(name))), None)
    if tool is None:
        raise EdgemlError("--env conda needs conda, mamba or micromamba on the PATH; install one, or try --env docker")
    for wanted in declared.values():
        if not wanted.conda:
            raise wanted.refusal(
                f"the environment of step '{wanted.step}' has no conda_file for --env conda; name one or use docker"
            )
    return Conda(tool, {name: _prefix(tool, wanted, state, say) for name, wanted in declared.items()})


class Conda:
    """Runs each step in its environment (prefixes by environment)."""

    def __init__(self, tool: str, prefixes: Mapping[str, str]) -> None:
        # conda alone would hold the output back until the step ends.
        self.run = [tool, "run", *(["--no-capture-output"] if _is_conda(tool) else []), "-p"]
        self.prefixes = prefixes
        self.identities = {prefix: _identity(prefix) for prefix in {*prefixes.values()}}

    def identity(self, step: Step) -> str:
        return self.identities[self.prefixes[key(step)]]

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
        prefix = self.prefixes[key(step)]
        folder = job.folder
        if isolate.is_needed(command):
            try:
                own = isolate.make(job.environment, os.path.join(prefix, "bin", "python"))
            except (OSError, subprocess.CalledProcessError) as error:
                raise StepFailed(f"installs packages, and {prefix} could not make it a place: {error}") from None
            command = f'export PATH={shlex.quote(own)}:"$PATH"\n{command}'
        # By file, because what `conda run` makes of quotes and line breaks depends on its version.
        script = os.path.join(folder, "command.sh")
        with open(script, "w", encoding="utf-8", errors="surrogateescape") as stream:
            stream.write(command + "\n")
        return Process("exec " + shlex.join([*self.run, prefix, "bash", script]), job.work, environment, job.log, guard)


def _is_conda(tool: str) -> bool:
    return os.path.basename(tool) == "conda"


def _prefix(tool: str, declared: Declared, state: str, say: Callable[[str], None]) -> str:
    """The folder of an environment that is whole; two engines that want the same one make it once."""
    name = digest(declared.conda.encode("utf-8", "surrogateescape")).partition(":")[2][:16]
    folder = os.path.join(state, "environments")
    prefix = os.path.join(folder, name)
    if os.path.exists(os.path.join(prefix, _WHOLE)):
        return prefix
    os.makedirs(folder, exist_ok=True)
    with open(f"{prefix}.lock", "w", encoding="utf-8") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not os.path.exists(os.path.join(prefix, _WHOLE)):
            say(f"making the conda environment of step '{declared.step}' (log: {os.path.relpath(prefix)}.log)")
            _create(tool, declared, prefix)
    return prefix


def _create(tool: str, declared: Declared, prefix: str) -> None:
    files.remove(prefix)  # what an interruption left
    written, log = f"{prefix}.yml", f"{prefix}.log"
    files.write_atomically(written, declared.conda)
    create = ["env", "create"] if _is_conda(tool) else ["create"]
    yes = {"CONDA_ALWAYS_YES": "true", "MAMBA_ALWAYS_YES": "true"}
    with open(log, "wb") as stream:
        code = subprocess.run(
            [tool, *create, "-p", prefix, "-f", written],
            env={**os.environ, **yes},
            stdin=subprocess.DEVNULL,
            stdout=stream,
            stderr=stream,
        ).returncode
    if code or not os.path.isdir(prefix):
        with open(log, encoding="utf-8", errors="replace") as told:
            why = last_line(told.read())
        raise declared.refusal(
            f"the conda environment of step '{declared.step}' cannot be made: {why}; "
            f"the whole log is {os.path.relpath(log)}"
        )
    with open(os.path.join(prefix, _WHOLE), "w", encoding="utf-8"):
        pass


def _identity(prefix: str) -> str:
    """The conda file and the packages that it came to: both names, because `python=3.11` is not always the same."""
    records = os.path.join(prefix, "conda-meta")
    packages = sorted(os.listdir(records)) if os.path.isdir(records) else []
    return digest("\n".join([os.path.basename(prefix), *packages]).encode())
