"""A docker daemon for one test session, and a base image made of this machine's own files: no hub is asked."""

from __future__ import annotations

import io
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

BASE = "edgeml-test/base:1"
_PROGRAMS = ("bash", "cat", "chmod", "cp", "env", "id", "ls", "mkdir", "sleep", "touch")
# Nothing of this machine's network is touched; what needs a bridge has one in a network namespace of its own.
_QUIET = ("--iptables=false", "--ip6tables=false", "--ip-forward=false", "--ip-masq=false")


class Daemon:
    """A private daemon, reached through `environment`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.environment = {"DOCKER_HOST": f"unix://{folder}/docker.sock"}

    def docker(self, *arguments: str, stdin: bytes = b"") -> str:
        done = subprocess.run(
            ["docker", *arguments], env={**os.environ, **self.environment}, input=stdin, capture_output=True
        )
        assert done.returncode == 0, done.stderr.decode()
        return done.stdout.decode().strip()

    def containers(self) -> str:
        return self.docker("ps", "--all", "--quiet")

    def add_image(self, name: str, *changes: str, files: dict[str, str] | None = None) -> str:
        """An image of the host's bash and coreutils; `changes` are Dockerfile lines, `files` executables by path."""
        options = [word for change in changes for word in ("--change", change)]
        return self.docker("import", *options, "-", name, stdin=_root_file_system(files or {}))


@contextmanager
def started(*, bridge: bool = False) -> Iterator[Daemon]:
    """A daemon that has started; skips with a reason where it cannot."""
    if sys.platform != "linux" or os.geteuid() != 0:
        pytest.skip("a private docker daemon needs Linux and root")
    _install()
    folder = Path(tempfile.mkdtemp(prefix="edgeml-dockerd-"))  # short: a socket's path has 108 bytes at most
    daemon = Daemon(folder)
    where = [f"--{name}={folder / path}" for name, path in (("data-root", "data"), ("exec-root", "exec"))]
    command = ["dockerd", *where, f"--pidfile={folder}/pid", f"--host={daemon.environment['DOCKER_HOST']}", *_QUIET]
    command = ["unshare", "--net", *command] if bridge else [*command, "--bridge=none"]
    log = folder / "log"
    with log.open("wb") as stream:
        process = subprocess.Popen(
            ["setpriv", "--pdeathsig", "TERM", *command], stdin=subprocess.DEVNULL, stdout=stream, stderr=stream
        )
    try:
        deadline = time.monotonic() + 30
        while not _answers(daemon):
            if process.poll() is not None or time.monotonic() > deadline:
                last = log.read_text(errors="replace").splitlines()[-1:]
                pytest.skip(f"dockerd does not start on this machine: {last}")
            time.sleep(0.05)
        daemon.add_image(BASE)
        yield daemon
    finally:
        process.terminate()
        process.wait(30)
        shutil.rmtree(folder, ignore_errors=True)


def _install() -> None:
    if shutil.which("dockerd") and shutil.which("docker"):
        return
    if not shutil.which("apt-get"):
        pytest.skip("there is no dockerd, and no apt-get to install docker.io with")
    install = ["apt-get", "install", "--yes", "--no-install-recommends", "docker.io"]
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    for command in (install, ["apt-get", "update"], install):
        done = subprocess.run(command, env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True)
        if shutil.which("dockerd"):
            return
    pytest.skip(f"docker.io cannot be installed: {done.stderr.strip().splitlines()[-1:]}")


def _answers(daemon: Daemon) -> bool:
    asked = subprocess.run(["docker", "version"], env={**os.environ, **daemon.environment}, capture_output=True)
    return asked.returncode == 0


def _root_file_system(files: dict[str, str]) -> bytes:
    content: dict[str, bytes] = {f"bin/{name}": Path(_which(name)).read_bytes() for name in _PROGRAMS}
    content["bin/sh"] = content["bin/bash"]
    for name in _PROGRAMS:
        linked = subprocess.run(["ldd", _which(name)], capture_output=True, text=True, check=True).stdout
        for library in re.findall(r"(/\S+) \(0x", linked):
            content.setdefault(library.lstrip("/"), Path(library).read_bytes())
    content |= {name: text.encode() for name, text in files.items()}
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w") as tar:
        temporary = tarfile.TarInfo("tmp")
        temporary.type, temporary.mode = tarfile.DIRTYPE, 0o1777
        tar.addfile(temporary)
        for name, body in content.items():
            entry = tarfile.TarInfo(name)
            entry.mode, entry.size = 0o755, len(body)
            tar.addfile(entry, io.BytesIO(body))
    return archive.getvalue()


def _which(name: str) -> str:
    found = shutil.which(name)
    assert found is not None, f"there is no {name} on this machine"
    return os.path.realpath(found)
