"""The edge VM of the tests: a real OpenSSH server with a host name, processes, users, files and keys of its own.

Its root is this machine's /usr, read-only, with everything that makes a machine another one (/etc, /home, /var, /run,
/tmp, /dev, /proc) its own: as a root from mmdebstrap would be, whose /usr would hold the same packages, in 0.3 s instead
of 30. The processes see nothing else of this machine; the network alone is shared, because a kernel without bridges
has no other loopback to put a server on. Killing the namespace's first process is the power switch.

    python -m tests.edge.vm -- edgeml demo --target edge        # a command with such a VM as the target `edge`
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from edgeml.edge import wheels

ROOT = Path(__file__).resolve().parents[2]
USER, ID = "edgeml", 1000
_NEEDED = {"/usr/sbin/sshd": "openssh-server", "/usr/bin/bwrap": "bubblewrap", "/usr/bin/unshare": "util-linux"}
_ETC = ("alternatives", "ld.so.cache", "ld.so.conf", "ld.so.conf.d", "os-release", "resolv.conf", "ssl", "localtime")
_DEVICES = ("null", "zero", "full", "random", "urandom", "tty")
_SSHD = """\
Port {port}
ListenAddress 127.0.0.1
HostKey /etc/ssh/ssh_host_ed25519_key
AuthorizedKeysFile /etc/ssh/authorized_keys
PermitRootLogin no
PasswordAuthentication {passwords}
KbdInteractiveAuthentication no
UsePAM no
StrictModes no
DisableForwarding {closed}
X11Forwarding no
PidFile none
"""
_BOOT = """\
set -e
mount --make-rprivate /
hostname edge-vm
cd {root}
mount --bind . .
cd {root}
mount --bind /usr usr && mount -o remount,ro,bind usr
{binds}
mount -t proc proc proc
mount -t sysfs -o ro sysfs sys
mount -t tmpfs -o mode=755 tmpfs run
mount -t tmpfs -o mode=1777 tmpfs tmp
mount -t tmpfs -o mode=755 tmpfs dev
for name in {devices}; do touch dev/$name; mount --bind /dev/$name dev/$name; done
mkdir dev/shm run/sshd .old
mount -t tmpfs -o mode=1777 tmpfs dev/shm
pivot_root . .old
umount -l /.old
rmdir /.old
/usr/sbin/sshd -D -E /var/log/sshd.log &
echo up
exec >/dev/null 2>&1
while :; do wait; done
"""


class Vm:
    """A VM that is switched on and off; its disk outlives that. `home` limits the home's size (as of `mount`)."""

    def __init__(self, folder: Path, *, passwords: bool = False, forwarding: bool = False, home: str = "") -> None:
        self.folder = folder
        self.root = folder / "root"
        self.port = _free_port()
        self.key = folder / "key"
        self.home = self.root / "home" / USER
        self._size = home
        self._process: subprocess.Popen[str] | None = None
        self._lay_out(passwords, forwarding)

    @property
    def environment(self) -> dict[str, str]:
        """What makes this VM the compute target `edge`."""
        target = {"kind": "edge", "address": "127.0.0.1", "port": self.port, "user": USER, "host_key": self.host_key}
        return {"EDGEML_COMPUTE": json.dumps({"edge": target}), "EDGEML_SSH_KEY_FILE": str(self.key)}

    @property
    def host_key(self) -> str:
        return (self.root / "etc/ssh/ssh_host_ed25519_key.pub").read_text().strip()

    @property
    def processor(self) -> int:
        """The first process of the VM, as this machine numbers it."""
        assert self._process is not None
        children = Path(f"/proc/{self._process.pid}/task/{self._process.pid}/children").read_text().split()
        return int(children[0])

    def start(self) -> None:
        script = self._boot_script()
        command = ["unshare", "-m", "-p", "-u", "-i", "-f", "--kill-child", "sh", "-c", script]
        self._process = subprocess.Popen(
            ["setpriv", "--pdeathsig", "KILL", *command],
            env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin"},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self._process.stdout is not None
        assert self._process.stdout.readline() == "up\n", "the VM does not start"
        deadline = time.monotonic() + 10
        while True:
            try:
                socket.create_connection(("127.0.0.1", self.port), timeout=1).close()
                return
            except OSError:
                assert time.monotonic() < deadline, (self.root / "var/log/sshd.log").read_text()
                time.sleep(0.02)

    def stop(self) -> None:
        """Take the power away: every process is gone, nothing is written any more."""
        if self._process is not None:
            os.kill(self._process.pid, signal.SIGKILL)
            self._process.wait()
            if self._process.stdout is not None:
                self._process.stdout.close()
            self._process = None

    def run(self, command: str, *, root: bool = False) -> str:
        """What a shell command on the VM prints, run at its console."""
        user = [] if root else ["setpriv", f"--reuid={ID}", f"--regid={ID}", "--clear-groups"]
        line = ["nsenter", "-t", str(self.processor), "-m", "-p", "-u", "-i", "--", *user, "sh", "-c", command]
        environment = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "HOME": f"/home/{USER}"}
        done = subprocess.run(line, env=environment, capture_output=True, text=True, cwd="/")
        assert done.returncode == 0, done.stderr
        return done.stdout

    def new_host_key(self) -> None:
        """What happens when a VM is made anew behind the same address."""
        for path in (self.root / "etc/ssh").glob("ssh_host_*"):
            path.unlink()
        _keygen(self.root / "etc/ssh/ssh_host_ed25519_key")

    def prepare(self, lock: str) -> None:
        """Let this interpreter's packages be what the lock installs: a VM that was prepared before. Before `start`."""
        there = subprocess.run(["/usr/bin/python3", "-c", "import sys; print(*sys.version_info[:2])"],
                               capture_output=True, text=True, check=True).stdout.split()  # fmt: skip
        key = wheels.key(lock, (int(there[0]), int(there[1])), os.uname().machine)
        self._environment = f"home/{USER}/edgeml/environments/{key}"

    _environment = ""

    def _boot_script(self) -> str:
        binds = []
        if self._size:
            binds.append(f"mount -t tmpfs -o size={self._size},mode=700,uid={ID},gid={ID} tmpfs home/{USER}")
        if self._environment:
            place = f"{self.root}/{self._environment}"
            binds.append(f"setpriv --reuid={ID} --regid={ID} --clear-groups mkdir -p {place}")
            binds.append(f"touch {place}.ready; mount --bind {sys.prefix} {place}; mount -o remount,ro,bind {place}")
        if not sys.base_prefix.startswith("/usr"):
            base = f"{self.root}{sys.base_prefix}"
            binds.append(f"mkdir -p {base}; mount --bind {sys.base_prefix} {base}; mount -o remount,ro,bind {base}")
        return _BOOT.format(root=self.root, binds="\n".join(binds), devices=" ".join(_DEVICES))

    def _lay_out(self, passwords: bool, forwarding: bool) -> None:
        for name in ("usr", "proc", "sys", "run", "tmp", "dev", "etc/ssh", "var/log", "var/tmp", "root", "home", "opt"):
            (self.root / name).mkdir(parents=True)
        self.home.mkdir(mode=0o700)
        os.chown(self.home, ID, ID)
        for name in ("bin", "sbin", "lib", "lib32", "lib64", "libx32"):
            if Path("/", name).is_symlink():
                (self.root / name).symlink_to(os.readlink(f"/{name}"))
        etc = self.root / "etc"
        for name in _ETC:
            if Path("/etc", name).is_dir():
                shutil.copytree(Path("/etc", name), etc / name, symlinks=True, ignore=shutil.ignore_patterns("private"))
            elif Path("/etc", name).exists():
                shutil.copy(Path("/etc", name), etc / name)
        (etc / "passwd").write_text(
            "root:x:0:0::/root:/bin/sh\nsshd:x:101:65534::/run/sshd:/usr/sbin/nologin\n"
            f"{USER}:x:{ID}:{ID}::/home/{USER}:/bin/bash\nnobody:x:65534:65534::/:/usr/sbin/nologin\n"
        )
        (etc / "group").write_text(f"root:x:0:\n{USER}:x:{ID}:\nnogroup:x:65534:\n")
        (etc / "shadow").write_text(f"root:*:19000::::::\n{USER}:*:19000::::::\n")
        (etc / "hosts").write_text("127.0.0.1 localhost edge-vm\n")
        (etc / "nsswitch.conf").write_text("passwd: files\ngroup: files\nshadow: files\nhosts: files dns\n")
        closed, open_ = ("no", "yes")
        (etc / "ssh/sshd_config").write_text(
            _SSHD.format(
                port=self.port, passwords=open_ if passwords else closed, closed=closed if forwarding else open_
            )
        )
        _keygen(etc / "ssh/ssh_host_ed25519_key")
        _keygen(self.key)
        shutil.copy(self.key.with_suffix(".pub"), etc / "ssh/authorized_keys")


@contextmanager
def machine(
    *, prepared: bool = True, passwords: bool = False, forwarding: bool = False, home: str = ""
) -> Iterator[Vm]:
    """A VM that is up. Skips with a reason where there cannot be one."""
    _install()
    folder = Path(tempfile.mkdtemp(prefix="edgeml-vm-"))
    folder.chmod(0o755)  # the VM's users look into their root
    vm = Vm(folder, passwords=passwords, forwarding=forwarding, home=home)
    if prepared:
        vm.prepare((ROOT / wheels.LOCK).read_text("utf-8"))
    try:
        vm.start()
        yield vm
    finally:
        vm.stop()
        shutil.rmtree(folder, ignore_errors=True)


def _install() -> None:
    if sys.platform != "linux" or os.geteuid() != 0:
        pytest.skip("an edge VM on loopback needs Linux and root, for namespaces and users of its own")
    missing = sorted({package for path, package in _NEEDED.items() if not Path(path).exists()})
    if missing:
        quiet = {**os.environ, "DEBIAN_FRONTEND": "noninteractive", "RUNLEVEL": "1"}
        line = "apt-get update -qq && apt-get install -y -qq --no-install-recommends " + " ".join(missing)
        done = subprocess.run(["sh", "-c", line], env=quiet, capture_output=True, text=True)
        if done.returncode:
            pytest.skip(f"{', '.join(missing)} cannot be installed here: {done.stderr.strip()[-200:]}")


def _keygen(path: Path, passphrase: str = "") -> None:
    subprocess.run(
        ["ssh-keygen", "-q", "-t", "ed25519", "-N", passphrase, "-C", "", "-f", str(path)],
        check=True, stdin=subprocess.DEVNULL,
    )  # fmt: skip


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def main(arguments: list[str]) -> int:
    """Run a command with a VM as its target `edge`."""
    with machine() as vm:
        return subprocess.run(arguments, env={**os.environ, **vm.environment}).returncode


if __name__ == "__main__":
    sys.exit(main(sys.argv[2:] if sys.argv[1:2] == ["--"] else sys.argv[1:]))
