"""Where an image is run on this machine: docker where a daemon answers, else its own files under bubblewrap.

Both run the image's entry point as the image's user, on a read-only root, without capabilities. bubblewrap is no
container engine: the files, the user and the namespaces are the same, limits of memory are not set.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

from edgeml.errors import EdgemlError
from edgeml.image import builders, oci, parts, tree
from edgeml.image.layout import Layout

PORT = 8080
_STALE = 3600  # seconds after which the unpacked files of another image are removed


class Image(NamedTuple):
    """An image of the layout with what its config says of running it."""

    layout: Layout
    digest: str
    command: list[str]
    environment: dict[str, str]
    user: int


def image(layout: Layout, digest: str) -> Image:
    """An image of the layout. Raises EdgemlError where it would run as root."""
    manifest = oci.parse(layout.manifest(digest) or b"", digest)
    config = oci.parse(oci.read(layout, oci.descriptors(manifest)[0]), digest).get("config") or {}
    user = str(config.get("User") or "").partition(":")[0]
    if not user.isdecimal() or int(user) == 0:
        raise EdgemlError("the image names no user by number other than root; give USER in the Dockerfile", 1)
    environment = dict(entry.split("=", 1) for entry in config.get("Env") or [])
    command = [*(config.get("Entrypoint") or []), *(config.get("Cmd") or [])]
    return Image(layout, digest, command, environment, int(user))


def kind() -> str:
    """`docker`, `bwrap`, or empty where an image cannot be run here."""
    if not builders.no_docker():
        return "docker"
    from edgeml.engine.sandbox import bwrap

    return "" if bwrap.missing() else "bwrap"


@contextmanager
def container(run: Image, memory_mb: int, *more: str) -> Iterator[str]:
    """A docker container of the image, removed at the end; `more` are options of `docker run`."""
    tag = f"edgeml/image:{run.digest[7:19]}"
    builders.load(run.layout, run.digest, tag)
    line = ["docker", "run", "--detach", "--read-only", "--cap-drop", "ALL", "--pids-limit", "256"]
    line += ["--security-opt", "no-new-privileges", "--memory", f"{memory_mb}m", "--no-healthcheck", *more, tag]
    started = subprocess.run(line, stdin=subprocess.DEVNULL, capture_output=True, text=True)
    name = started.stdout.strip()
    try:
        if started.returncode or not name:
            raise EdgemlError(f"docker cannot run the image: {started.stderr.strip()[-300:]}", 1)
        yield name
    finally:
        if name:
            subprocess.run(["docker", "rm", "--force", name], stdin=subprocess.DEVNULL, capture_output=True)


def bubblewrap(run: Image, command: list[str], *more: str) -> list[str]:
    """The words that run a command on the image's files, as its user; `more` are options of bwrap."""
    line = [shutil.which("bwrap") or "bwrap", "--unshare-user", "--unshare-pid", "--unshare-ipc", "--unshare-uts"]
    line += ["--uid", str(run.user), "--gid", str(run.user), "--cap-drop", "ALL", "--new-session", "--die-with-parent"]
    line += ["--ro-bind", root(run), "/", "--proc", "/proc", "--dev", "/dev", "--remount-ro", "/dev", "--chdir", "/"]
    line += ["--clearenv", *(w for name, value in run.environment.items() for w in ("--setenv", name, value))]
    return [*line, *more, "--", *command]


def root(run: Image) -> str:
    """The folder of an image's files, unpacked where they are not; what other images left long ago is removed."""
    manifest = oci.parse(run.layout.manifest(run.digest) or b"", run.digest)
    layers = oci.descriptors(manifest)[1:]

    def make(folder: str) -> None:
        tree.unpack((run.layout.open(entry.digest) for entry in layers), folder)
        for name in ("proc", "dev", "tmp"):
            os.makedirs(os.path.join(folder, name), exist_ok=True)

    place = parts.of("root", run.digest, make)
    os.utime(place)
    with os.scandir(os.path.dirname(place)) as entries:
        for entry in entries:
            if entry.name.startswith("root-") and time.time() - entry.stat().st_mtime > _STALE:
                shutil.rmtree(entry.path, ignore_errors=True)
    return place


@contextmanager
def serving(run: Image | None, model: str, name: str, port: int) -> Iterator[str]:
    """A model on a port of 127.0.0.1, from its image; from its files where there is none, or none can be run here.

    Gives what it is that serves. Raises EdgemlError where it is not ready in time.
    """
    why = _no_port() if run else "there is no image"
    variables = {"HOST": "127.0.0.1", "PORT": str(port), "DRAIN_SECONDS": "0"}
    variables = {f"EDGEML_SERVE_{key}": value for key, value in variables.items()}
    if run and not why:
        with container(run, 512, "--publish", f"127.0.0.1:{port}:{PORT}", "--env", "EDGEML_SERVE_DRAIN_SECONDS=0"):
            _await(port, None)
            yield "the image in docker"
        return
    from edgeml.engine.sandbox import bwrap

    if run and not bwrap.missing():
        options = [word for name, value in variables.items() for word in ("--setenv", name, value)]
        line, environment = bubblewrap(run, run.command, *options), {"PATH": os.environ.get("PATH", os.defpath)}
        what = f"the image's files under bubblewrap, because {why.partition(';')[0]}"
    else:
        line = [sys.executable, "-m", "edgeml.serving"]
        environment = {**os.environ, **variables, "EDGEML_SERVE_MODEL": model, "EDGEML_SERVE_NAME": name}
        what = "the same application from this environment, not the image"
    quiet = subprocess.DEVNULL
    process = subprocess.Popen(line, env=environment, stdin=quiet, stdout=quiet, stderr=quiet)
    try:
        _await(port, process)
        yield what
    finally:
        process.terminate()
        process.wait(60)


def _no_port() -> str:
    """Why docker cannot publish a port here, empty where it can."""
    if why := builders.no_docker():
        return why
    has_bridge = builders.ask("docker", "network", "inspect", "bridge")
    return "" if has_bridge else "docker has no bridge network; start it without --bridge=none"


def _await(port: int, process: subprocess.Popen[bytes] | None) -> None:
    import http.client

    deadline = time.monotonic() + 30
    while time.monotonic() < deadline and (process is None or process.poll() is None):
        try:
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
            connection.request("GET", "/v2/health/ready")
            if connection.getresponse().status == 200:
                return
        except OSError:
            pass
        time.sleep(0.02)
    raise EdgemlError("the scoring server did not get ready in 30 s; `edgeml package` tests an image and says why", 1)
