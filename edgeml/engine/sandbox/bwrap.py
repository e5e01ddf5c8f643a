"""Private steps under bubblewrap: a process that sees its own folders, and no network, user, process or credential.

Of the machine it sees, read-only, the system's programs and libraries and the interpreter with what is installed beside
it. Everything else that exists for it is in `View`.
"""

from __future__ import annotations

import os
import platform
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterable, Mapping
from typing import NamedTuple

from edgeml.engine.folder import Job
from edgeml.engine.guard import Guard
from edgeml.engine.mounts import mounts
from edgeml.engine.sandbox import seccomp, storage
from edgeml.engine.step import FOREVER, Process, Sources
from edgeml.errors import EdgemlError
from edgeml.pipeline.graph import Step

USER = 1000  # never root, whoever started the engine
_SYSTEM = ("/usr", "/nix/store", "/gnu/store")
_LINKED = ("/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32")  # into /usr today, folders of their own before
# Of /etc only what libraries need; the rest tells of users, hosts and services.
_CONFIGURATION = (
    *("/etc/ld.so.cache", "/etc/ld.so.conf", "/etc/ld.so.conf.d", "/etc/alternatives"),
    *("/etc/ssl/certs", "/etc/ssl/openssl.cnf", "/etc/pki/tls/certs", "/etc/pki/ca-trust/extracted"),
    *("/etc/localtime", "/etc/timezone", "/etc/mime.types", "/etc/protocols", "/etc/services"),
)
_PROCESSORS = "/sys/devices/system"  # how many there are
# Not bubblewrap's own `--dev`: its terminals need a second user namespace, in which no low port can be had.
_DEVICES = ("null", "zero", "full", "random", "urandom")
_STREAMS = {"fd": "fd", "stdin": "fd/0", "stdout": "fd/1", "stderr": "fd/2"}
_NAMESPACES = ("user", "ipc", "pid", "net", "uts")
_FILES = {
    "/etc/passwd": f"step:x:{USER}:{USER}::/tmp:/bin/bash\n",
    "/etc/group": f"step:x:{USER}:\n",
    "/etc/nsswitch.conf": "passwd: files\ngroup: files\nhosts: files\n",
}
_ASK = "import sys as s; print(s.prefix, s.base_prefix, s.exec_prefix, s.base_exec_prefix, *s.path, sep='\\n')"
_TMP = "/tmp"  # noqa: S108 - inside it is a folder of the step's own
_SHELL = {"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"}


class View(NamedTuple):
    """What one step sees: sources by target for reading and for writing, texts by target, and how it is started.

    `low_ports` is for the relay alone, which gives that up before the step's command begins.
    """

    read: Mapping[str, str]
    write: Mapping[str, str]
    texts: Mapping[str, str]
    environment: Mapping[str, str]
    work: str
    command: list[str]
    low_ports: bool = False


def arguments(view: View, descriptors: Mapping[str, int], filter_: int) -> list[str]:
    """bubblewrap's options for a view; its texts and the filter are read from open descriptors."""
    made = [f"--unshare-{name}" for name in _NAMESPACES]
    made += ["--unshare-cgroup-try", "--uid", str(USER), "--gid", str(USER), "--hostname", "step"]
    made += ["--die-with-parent", "--new-session", "--cap-drop", "ALL", "--clearenv"]
    if view.low_ports:
        made += ["--cap-add", "CAP_NET_BIND_SERVICE"]
    for name, value in view.environment.items():
        made += ["--setenv", name, value]
    for path in _LINKED:
        if os.path.islink(path):
            made += ["--symlink", os.readlink(path), path]
        elif os.path.isdir(path):
            made += ["--ro-bind", path, path]
    made += ["--proc", "/proc", "--tmpfs", "/dev", "--tmpfs", "/dev/shm"]  # noqa: S108
    for name in _DEVICES:
        made += ["--dev-bind", f"/dev/{name}", f"/dev/{name}"]
    for name, target in _STREAMS.items():
        made += ["--symlink", f"/proc/self/{target}", f"/dev/{name}"]
    binds = {path: ("--ro-bind-try", path) for path in (*_SYSTEM, *_CONFIGURATION, _PROCESSORS)}
    binds |= {target: ("--ro-bind", source) for target, source in view.read.items()}
    binds |= {target: ("--bind", source) for target, source in view.write.items()}
    for target in sorted(binds):  # a folder before what lies in it
        option, source = binds[target]
        made += [option, source, target]
    for target in view.texts:
        made += ["--ro-bind-data", str(descriptors[target]), target]
    made += ["--remount-ro", "/", "--chdir", view.work, "--seccomp", str(filter_)]
    return made


def prepare(python: str) -> Bubblewrap:
    """The sandbox of this machine for an interpreter. Raises EdgemlError where there is none, and says why."""
    if reason := missing():
        raise EdgemlError(
            f"private steps run in a sandbox, and {reason}; or run them in containers (--env docker), "
            "or without protection, which the run's record will say (--no-sandbox)"
        )
    return Bubblewrap(shutil.which("bwrap") or "bwrap", python or sys.executable)


def missing() -> str:
    """Why there is no sandbox here and what helps, empty where there is one. The answer comes from a real trial."""
    program = shutil.which("bwrap")
    if sys.platform != "linux":
        return "bubblewrap needs Linux"
    if platform.machine() not in seccomp.MACHINES:
        return f"there is no filter of system calls for {platform.machine()}"
    if program is None:
        return "bubblewrap is not installed; install it (on Debian and Ubuntu: apt install bubblewrap)"
    view = View({}, {}, {}, {}, "/", ["true"])
    with _Memory() as memory:
        line = [program, *arguments(view, {}, memory.add(seccomp.program())), "--", *view.command]
        tried = subprocess.run(line, pass_fds=memory.open, env=_SHELL, stdin=subprocess.DEVNULL, capture_output=True)
    if tried.returncode == 0:
        return ""
    said = tried.stderr.decode("utf-8", "replace").strip().splitlines() or [f"exit code {tried.returncode}"]
    return f"bubblewrap does not start here ({said[-1]}); allow user namespaces (sysctl, AppArmor, container settings)"


class Bubblewrap:
    """Starts private steps of one interpreter."""

    kind = "bwrap"

    def __init__(self, program: str, python: str) -> None:
        self.program = program
        self.python = python
        self.installed = {path: path for path in interpreter_folders(python)}

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
        """Start a step's command with `environment` and nothing of the engine's own. Raises StepFailed."""
        read, write = mounts(step, job, environment, outputs, sources)
        line = ["bash", "-c", command]
        gate = storage.gate_of(environment)
        texts = {**_FILES, "/etc/hosts": "127.0.0.1 localhost step\n::1 localhost\n"}
        if gate is not None:
            write[storage.INSIDE] = gate.socket
            texts["/etc/hosts"] += gate.hosts
            line = gate.command(self.python, line)
        bound = {**self.installed, **read}
        view = View(
            bound,
            {_TMP: job.scratch, **write},
            texts,
            {**environment, "PATH": _path(environment["PATH"], (*bound, *write, *_SYSTEM, *_LINKED)), "HOME": _TMP},
            job.work,
            line,
            low_ports=gate is not None and gate.port < 1024,
        )
        several = step.distribution is not None and step.distribution.processes > 1
        os.makedirs(job.scratch, exist_ok=True)
        with _Memory() as memory:
            inside = {target: memory.add(text.encode()) for target, text in texts.items()}
            filter_ = memory.add(seccomp.program(inet=gate is not None or several))
            # By descriptor: the arguments of a process are everybody's to read, and they hold the environment.
            words = memory.add(b"".join(word.encode("utf-8", "surrogateescape") + b"\0" for word in
                                        arguments(view, inside, filter_)))  # fmt: skip
            # The shell around it has an environment of its own: the step's could make it run the step's code.
            outer = f"ulimit -c 0; exec {shlex.join([self.program, '--args', str(words), '--', *line])}"
            return Sandboxed(outer, job, guard, memory.open, gate)


class Sandboxed(Process):
    """A step under bubblewrap, with the gate that it reaches the storage through."""

    def __init__(
        self, command: str, job: Job, guard: Guard, descriptors: tuple[int, ...], gate: storage.Gate | None
    ) -> None:
        self._gate = gate
        super().__init__(command, "/", dict(_SHELL), job.log, guard, descriptors)

    def wait(self, seconds: float = FOREVER) -> int:
        try:
            return super().wait(seconds)
        finally:
            if self._gate is not None:
                self._gate.close()


def interpreter_folders(python: str) -> list[str]:
    """The folders that an interpreter needs: its own, what is installed beside it, and this package."""
    if python == sys.executable:
        prefixes = [sys.prefix, sys.base_prefix, sys.exec_prefix, sys.base_exec_prefix]
        paths = list(sys.path)
    else:
        told = subprocess.run([python, "-I", "-c", _ASK], capture_output=True, text=True, stdin=subprocess.DEVNULL)
        prefixes, paths = told.stdout.splitlines()[:4], told.stdout.splitlines()[4:]
    package = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    folders = [*prefixes, os.path.dirname(os.path.realpath(python)), package]
    folders += [path for path in paths if os.path.isdir(path) and not _holds_secrets(path)]
    kept: list[str] = []
    for folder in sorted({os.path.abspath(folder) for folder in folders if folder}):
        if not any(_within(folder, other) for other in (*kept, *_SYSTEM)):
            kept.append(folder)
    return kept


def _holds_secrets(path: str) -> bool:
    """Whether a folder of Python's path is or holds a home or a project, with whatever else lies there."""
    home = os.path.expanduser("~")
    return _within(home, path) or os.path.isdir(os.path.join(path, ".edgeml")) or _within(os.getcwd(), path)


def _within(path: str, folder: str) -> bool:
    return path == folder or path.startswith(folder.rstrip("/") + "/")


def _path(path: str, visible: Iterable[str]) -> str:
    folders = list(visible)
    return os.pathsep.join(part for part in path.split(os.pathsep) if any(_within(part, seen) for seen in folders))


class _Memory:
    """Files without a name, open until the block ends; a child that was started meanwhile has its own copies."""

    def __init__(self) -> None:
        self.open: tuple[int, ...] = ()

    def __enter__(self) -> _Memory:
        return self

    def __exit__(self, *unused: object) -> None:
        for descriptor in self.open:
            os.close(descriptor)

    def add(self, content: bytes) -> int:
        descriptor = os.memfd_create("edgeml")
        self.open += (descriptor,)
        with open(os.dup(descriptor), "wb") as stream:
            stream.write(content)
        os.lseek(descriptor, 0, os.SEEK_SET)
        return descriptor
