"""The SSH server of a VM that is attached by its address: a real one, run by this user, that lets nobody in."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

SSHD = "/usr/sbin/sshd"


class Sshd(NamedTuple):
    """Where it listens, and its public host key."""

    port: int
    host_key: str


@contextlib.contextmanager
def sshd(folder: Path) -> Iterator[Sshd]:
    """A server with a host key of its own. Skips with a reason where there can be none."""
    if not shutil.which(SSHD):
        if os.geteuid() != 0:
            pytest.skip("openssh-server is not installed, and only root may install it")
        line = "apt-get update -qq && apt-get install -y -qq --no-install-recommends openssh-server"
        done = subprocess.run(["sh", "-c", line], env={**os.environ, "RUNLEVEL": "1"}, capture_output=True, text=True)
        if done.returncode:
            pytest.skip(f"openssh-server cannot be installed here: {done.stderr.strip()[-200:]}")
    if os.geteuid() == 0:
        Path("/run/sshd").mkdir(parents=True, exist_ok=True)
    key = folder / "host_key"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "", "-f", str(key)], check=True)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = int(probe.getsockname()[1])
    (folder / "sshd_config").write_text(
        f"Port {port}\nListenAddress 127.0.0.1\nHostKey {key}\nAuthorizedKeysFile none\nPasswordAuthentication no\n"
        "KbdInteractiveAuthentication no\nUsePAM no\nStrictModes no\nPidFile none\n"
    )
    process = subprocess.Popen([SSHD, "-D", "-e", "-f", str(folder / "sshd_config")], stderr=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + 20
        while True:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
                break
            assert process.poll() is None and time.monotonic() < deadline, "sshd did not start"
            time.sleep(0.02)
        yield Sshd(port, key.with_suffix(".pub").read_text().strip())
    finally:
        process.terminate()
        process.wait()
