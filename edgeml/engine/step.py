"""One step: its key, its command line, its process, and what it must have written."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from typing import Any, NamedTuple

from edgeml.engine import files
from edgeml.engine.fingerprint import Fingerprints, digest, digits
from edgeml.engine.guard import Guard, announced
from edgeml.engine.snapshot import Snapshot
from edgeml.pipeline import expressions
from edgeml.pipeline.expressions import Binding
from edgeml.pipeline.graph import Data, FromStep, Step, Text, Value
from edgeml.pipeline.ports import FILE_TYPES, render

SHORT = 16  # hex digits of a digest that is only compared with its like
_FORMAT = 2  # part of every key: raise it when a step's surroundings change
_GRACE = 5.0  # seconds between asking a step to end and ending it
FOREVER = float("inf")
_TAIL = 20  # lines of a failed step's log that are shown
_TAIL_BYTES = 16_384
_TAIL_WIDTH = 500  # characters


class StepFailed(Exception):  # noqa: N818 - an outcome of the user's code, no error of ours
    """A step that ran and failed, with the sentence that says why."""

    def __init__(self, message: str, exit_code: int | None = None) -> None:
        super().__init__(message)
        self.exit_code = exit_code


class Sources(NamedTuple):
    """What is known of outputs of earlier steps, by (step, output): where they lie and their fingerprints.

    `shown` turns a path into the one that a command may hold unquoted.
    """

    paths: dict[tuple[str, str], str]
    fingerprints: dict[tuple[str, str], str]
    shown: Callable[[str], str]


def parts_of(
    step: Step, snapshot: Snapshot, interpreter: str, sources: Sources, fingerprints: Fingerprints
) -> dict[str, Any]:
    """All that a step's outputs depend on, by kind.

    Paths do not enter, only contents (and a file's name, which a script may read); nor does the ambient environment.
    """

    def token(value: Value) -> Any:
        if isinstance(value, Data):
            return ["data", fingerprints.of(value.path), os.path.basename(value.path)]
        if isinstance(value, FromStep):
            return ["output", sources.fingerprints[value]]
        if isinstance(value, Text):
            return ["text", [part if isinstance(part, str) else token(part) for part in value.parts]]
        return ["literal", render(value)]

    return {
        "command": step.component.command,
        "code": snapshot.fingerprint,
        "environment": _environment_identity(step.environment, fingerprints),
        "interpreter": interpreter,
        "inputs": {name: token(value) for name, value in step.inputs.items()},
        "outputs": {name: output.type for name, output in step.outputs.items()},
        "variables": {name: token(value) for name, value in step.environment_variables.items()},
        "kind": [step.sweep, step.parallel, step.distribution],
    }


def key_of(parts: dict[str, Any]) -> str:
    """The parts as 64 hex digits: equal keys mean that running a step again is of no use."""
    return _hexadecimal([_FORMAT, parts])


def short_parts(parts: dict[str, Any]) -> dict[str, Any]:
    """The parts as short digests for the run's record, which `edgeml runs diff` compares; no value can be read there.

    Of a data input the name is left out: the record holds its path, and content and name are told apart.
    """

    def short(part: Any) -> str:
        return _hexadecimal(part)[:SHORT]

    inputs = {name: short(token[:2]) for name, token in parts["inputs"].items()}
    variables = {name: short(token) for name, token in parts["variables"].items()}
    code = digits(parts["code"])[:SHORT]
    rest = {name: short(parts[name]) for name in ("command", "environment", "interpreter", "outputs", "kind")}
    return {**rest, "code": code, "inputs": inputs, "variables": variables}


def _hexadecimal(made: Any) -> str:
    return digits(digest(json.dumps(made, sort_keys=True, default=str).encode("utf-8", "surrogateescape")))


def command_of(step: Step, outputs: dict[str, str], sources: Sources) -> str:
    """The shell text of a step: optional groups decided, placeholders replaced as they are, unquoted."""
    unset = frozenset(name for name in step.component.inputs if name not in step.inputs)
    command = expressions.drop_unset_groups(step.component.command, unset)

    def replace(part: str | Binding) -> str:
        if isinstance(part, str):
            return part
        name = ".".join(part.path[1:])
        if part.path[0] == "outputs":
            return sources.shown(outputs[name])
        return text_of(step.inputs[name], sources) if name in step.inputs else ""

    return "".join(replace(part) for part in expressions.parse(command))


def text_of(value: Value, sources: Sources) -> str:
    """A value as the text that a command or a variable gets."""
    if isinstance(value, Data):
        return sources.shown(value.path)
    if isinstance(value, FromStep):
        return sources.shown(sources.paths[value])
    if isinstance(value, Text):
        return "".join(part if isinstance(part, str) else text_of(part, sources) for part in value.parts)
    return render(value)


def variables_of(step: Step, outputs: dict[str, str], sources: Sources) -> dict[str, str]:
    """The step's declared environment variables with their own `${{inputs.x}}` and `${{outputs.y}}` replaced."""
    made = {}
    for name, value in step.environment_variables.items():
        written = text_of(value, sources)
        if "${{" in written:
            written = "".join(
                part
                if isinstance(part, str)
                else sources.shown(outputs.get(part.path[-1], ""))
                if part.path[0] == "outputs"
                else text_of(step.inputs.get(".".join(part.path[1:]), ""), sources)
                for part in expressions.parse(written)
            )
        made[name] = written
    return made


def ports_of(step: Step, outputs: dict[str, str], sources: Sources) -> dict[str, str]:
    """`AZURE_ML_INPUT_<name>` and `AZURE_ML_OUTPUT_<name>`: the paths of data, as jobs on Azure ML find them."""
    made = {f"AZURE_ML_OUTPUT_{name}": path for name, path in outputs.items()}
    for name, value in step.inputs.items():
        if isinstance(value, (Data, FromStep)):
            made[f"AZURE_ML_INPUT_{name}"] = text_of(value, sources)
    return made


def make_outputs(step: Step, outputs: dict[str, str]) -> None:
    """Folder outputs exist, empty; a file output's folder exists and the file does not."""
    for name, path in outputs.items():
        files.remove(path)
        os.makedirs(os.path.dirname(path) if is_file(step, name) else path, exist_ok=True)


def check_outputs(step: Step, outputs: dict[str, str]) -> None:
    """Raise StepFailed for a declared output that the step did not write."""
    for name, path in outputs.items():
        if is_file(step, name):
            if not os.path.isfile(path):
                kind = "a folder" if os.path.isdir(path) else "nothing"
                raise StepFailed(f"did not write its output '{name}': {kind} is where the file should be")
        elif not os.path.exists(path) or (os.path.isdir(path) and not os.listdir(path)):
            raise StepFailed(f"did not write its output '{name}': the folder is empty")


def fingerprint_outputs(outputs: dict[str, str], fingerprints: Fingerprints) -> dict[str, str]:
    """The content of each output. Raises StepFailed for what has none: a pipe, a file that may not be read."""
    made = {}
    for name, path in outputs.items():
        try:
            made[name] = fingerprints.of(path)
        except OSError as error:
            raise StepFailed(f"wrote what cannot be kept as its output '{name}': {error}") from None
    return made


def is_file(step: Step, output: str) -> bool:
    return output in step.outputs and step.outputs[output].type in FILE_TYPES


class Process:
    """A step's shell and everything that it started, in a session of its own so that all of it can be ended."""

    def __init__(
        self,
        command: str,
        work: str,
        environment: dict[str, str],
        log: str,
        guard: Guard | None,
        descriptors: tuple[int, ...] = (),
    ) -> None:
        self._guard = guard
        announcing = () if guard is None else (guard.start(),)
        with open(log, "wb") as stream:
            self._shell = subprocess.Popen(
                ["bash", "-c", announced(command, *announcing) if announcing else command],
                cwd=work,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=stream,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                pass_fds=(*announcing, *descriptors),
            )

    def wait(self, seconds: float = FOREVER) -> int:
        """The exit code, negative for a signal; whatever the shell left running is ended.

        Raises StepFailed where it takes longer than the seconds given.
        """
        try:
            return self._shell.wait(None if seconds == FOREVER else max(seconds, 0))
        except subprocess.TimeoutExpired:
            self.ask_to_stop()
            self.stop()
            raise StepFailed(f"ran longer than {seconds:g} s and was ended") from None
        finally:
            self._signal(signal.SIGKILL)
            if self._guard is not None:
                self._guard.forget(self._shell.pid)

    def ask_to_stop(self) -> None:
        self._signal(signal.SIGTERM)

    def stop(self) -> None:
        """End the step, which was asked before, after some seconds of grace."""
        try:
            self._shell.wait(_GRACE)
        except subprocess.TimeoutExpired:
            self._signal(signal.SIGKILL)

    def _signal(self, number: int) -> None:
        try:
            os.killpg(self._shell.pid, number)
        except (ProcessLookupError, PermissionError):
            # Nobody of the group is left; macOS says EPERM where only zombies are.
            return


def explain_exit(code: int) -> str:
    """An exit code in words."""
    if code >= 0:
        hint = {126: ": a command is not executable", 127: ": a command was not found"}.get(code, "")
        if code > 128 and code - 128 in {signal.SIGKILL, signal.SIGSEGV, signal.SIGABRT}:
            memory = ", out of memory?" if code - 128 == signal.SIGKILL else ""
            return f"exited with code {code} ({signal.Signals(code - 128).name}{memory})"
        return f"exited with code {code}{hint}"
    try:
        name = signal.Signals(-code).name
    except ValueError:
        name = f"signal {-code}"
    return f"was ended by {name}" + (" (out of memory?)" if -code == signal.SIGKILL else "")


def tail(log: str) -> list[str]:
    """The last lines of a log, whatever bytes it holds, fit for a terminal."""
    try:
        with open(log, "rb") as stream:
            stream.seek(0, os.SEEK_END)
            stream.seek(max(0, stream.tell() - _TAIL_BYTES))
            lines = stream.read().decode("utf-8", "replace").splitlines()[-_TAIL:]
    except OSError:
        return []
    return ["".join(c if c.isprintable() or c == "\t" else "\ufffd" for c in line[-_TAIL_WIDTH:]) for line in lines]


def has_package(python: str, name: str) -> bool:
    """Whether a top-level package is installed beside an interpreter; nothing is imported."""
    return any(name in _names(packages) for packages in _site_packages(python))


def interpreter_identity(python: str) -> str:
    """What identifies the Python that steps run in: its version and the distributions installed beside it."""
    installed: list[str] = []
    for packages in _site_packages(python):
        installed += [name for name in sorted(_names(packages)) if name.endswith((".dist-info", ".egg-info"))]
    version = sys.version if python == sys.executable else os.path.realpath(python)
    return digest("\n".join([version, *installed]).encode())


def _site_packages(python: str) -> list[str]:
    prefix = os.path.dirname(os.path.dirname(python)) if python != sys.executable else sys.prefix
    libraries = [name for name in sorted(_names(os.path.join(prefix, "lib"))) if name.startswith("python")]
    return [os.path.join(prefix, "lib", library, "site-packages") for library in libraries]


def _names(folder: str) -> list[str]:
    try:
        return os.listdir(folder)
    except OSError:
        return []


def _environment_identity(environment: Any, fingerprints: Fingerprints) -> Any:
    """The declared environment with the contents of its local files in place of their paths."""
    if isinstance(environment, str) and environment.startswith("file:"):
        return _content(environment.removeprefix("file:"), fingerprints)
    if isinstance(environment, dict) and isinstance(environment.get("conda_file"), str):
        return {**environment, "conda_file": _content(environment["conda_file"], fingerprints), "build": None}
    if isinstance(environment, dict) and isinstance(environment.get("build"), dict):
        path = environment["build"].get("path")
        content = _content(path, fingerprints) if isinstance(path, str) else ""
        return {**environment, "build": {**environment["build"], "path": content}}
    return environment


def _content(path: str, fingerprints: Fingerprints) -> str:
    try:
        return fingerprints.of(path)
    except OSError:
        return "absent"
