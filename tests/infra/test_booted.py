"""The edge VM as it is when it runs: a Debian with the real packages, booted by its own systemd and bootstrapped.

It has a network, processes and users of its own (systemd-nspawn), and one cable to the world, from which SSH comes. The
kernel is this machine's, so its settings stay: `sysctl` is the one stand-in. It takes minutes, most of them the
download of docker: `make test-whole` runs it.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from edgeml.edge import session
from edgeml.infra.target import bootstrap
from tests.whole import whole

ROOT = Path(__file__).resolve().parents[2]
TOOLS = {"mmdebstrap": "mmdebstrap", "systemd-nspawn": "systemd-container", "nft": "nftables", "ip": "iproute2"}
TOOLS |= {"nsenter": "util-linux", "ssh": "openssh-client"}
PACKAGES = "systemd,systemd-sysv,dbus,iproute2,busybox-static,e2fsprogs,openssh-server,ca-certificates,bubblewrap"
PACKAGES += ",docker.io,nftables,python3,unattended-upgrades"
HOME = "/root"  # of the machine
VM, WORLD = "10.78.0.2", "10.78.0.1"
SITE = 8181  # a site's port, which its container's follows
SECONDS = 60  # for a boot, or for what a boot has to bring

pytestmark = whole("boots a machine of its own in minutes")


@dataclass
class Machine:
    """A root, the namespace that is its world, and the process that holds it while it runs."""

    root: Path
    world: subprocess.Popen[bytes]
    held: subprocess.Popen[bytes] | None = None

    def boot(self) -> None:
        line = ["systemd-nspawn", "--directory", str(self.root), "--machine=edge", "--boot", "--network-veth"]
        line += ["--register=no", "--keep-unit", "--link-journal=no", "--console=read-only", "--capability=all"]
        line += ["--system-call-filter=@keyring bpf"]
        # In processes of its own, so that with the first of them none stays.
        line = self.outside("setpriv", "--pdeathsig", "KILL", "unshare", "-p", "--fork", "--kill-child", *line)
        self.held = subprocess.Popen(line, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, process_group=0)
        until(self.plugged, "the cable")
        until(lambda: self.state() in ("running", "degraded"), "the machine boots")

    def plugged(self) -> bool:
        """Whether the world's end of the cable is there and up; the machine waits for it while it boots."""
        command = f"ip addr replace {WORLD}/24 dev ve-edge && ip link set ve-edge up"
        return subprocess.run(self.outside("sh", "-c", command), capture_output=True).returncode == 0

    def off(self) -> None:
        if self.held is not None:
            self.run("systemctl", "poweroff", check=False)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.held.wait(SECONDS)
            self.held.kill()
            self.held.wait()
            self.held = None
            # The kernel takes the cable with the last process of the machine, which may be a moment later.
            subprocess.run(self.outside("ip", "link", "delete", "ve-edge"), capture_output=True)

    def outside(self, *command: str) -> list[str]:
        """A command of the world's."""
        return ["nsenter", f"--net=/proc/{self.world.pid}/ns/net", *command]

    def run(self, *command: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        """A command of root's in the machine."""
        line = ["nsenter", "--target", str(self.first()), "--all", *command]
        done = subprocess.run(line, capture_output=True, text=True, timeout=120)
        assert not check or done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"
        return done

    def state(self) -> str:
        return self.run("systemctl", "is-system-running", check=False).stdout.strip() if self.first() else ""

    def first(self) -> int:
        """Which of this machine's processes is the first of the other's; 0 while there is none."""
        assert self.held is not None and self.held.poll() is None, "the machine ended"
        for child in (two for one in children(self.held.pid) for two in children(one)):
            with contextlib.suppress(FileNotFoundError):
                facts = Path(f"/proc/{child}/status").read_text()
                if facts.startswith("Name:\tsystemd\n") and "\t1\n" in facts[facts.index("NSpid:") :]:
                    return child
        return 0

    def ssh(self, user: str, command: str) -> subprocess.CompletedProcess[str]:
        known = self.root.parent / "known_hosts"
        key = " ".join((self.root / "etc/ssh/ssh_host_ed25519_key.pub").read_text().split()[:2])
        known.write_text(f"{VM} {key}\n")
        options = [f"UserKnownHostsFile={known}", "StrictHostKeyChecking=yes", "BatchMode=yes", "ConnectTimeout=5"]
        line = ["ssh", "-i", str(self.root.parent / "key"), *(part for one in options for part in ("-o", one))]
        line = self.outside(*line, f"{user}@{VM}", command)
        return subprocess.run(line, capture_output=True, text=True, timeout=60)

    def answers(self, port: int) -> bool:
        """Whether the world gets an answer of HTTP from a port of the machine's."""
        code = f"import http.client as h; c = h.HTTPConnection('{VM}', {port}, timeout=2); c.request('GET', '/')"
        line = self.outside("/usr/bin/python3", "-c", f"{code}; c.getresponse()")
        return subprocess.run(line, capture_output=True).returncode == 0


def children(process: int) -> list[int]:
    with contextlib.suppress(FileNotFoundError):
        return [int(child) for child in Path(f"/proc/{process}/task/{process}/children").read_text().split()]
    return []


def until(true: object, what: str) -> None:
    assert callable(true)
    end = time.monotonic() + SECONDS
    while not true():
        assert time.monotonic() < end, f"{what}: not within {SECONDS} s"
        time.sleep(0.3)


@pytest.fixture(scope="module")
def machine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machine]:
    """A machine that was bootstrapped once it had booted; its first bootstrap was cut short."""
    if os.geteuid() != 0:
        pytest.skip("only root can boot a machine")
    missing = [package for tool, package in TOOLS.items() if shutil.which(tool, path="/usr/sbin:/usr/bin") is None]
    install = ["apt-get", "-qq", "-y", "--no-install-recommends", "install", *missing]
    if missing and (shutil.which("apt-get") is None or subprocess.run(install, capture_output=True).returncode):
        pytest.skip(f"{', '.join(missing)} cannot be installed here")
    folder = tmp_path_factory.mktemp("booted")
    root = folder / "root"
    line = ["unshare", "-m", "mmdebstrap", "--variant=minbase", f"--include={PACKAGES}", "bookworm", str(root)]
    made = subprocess.run(line, capture_output=True, text=True, timeout=900)
    if made.returncode:
        pytest.skip(f"no root can be made here: {made.stderr[-300:]}")
    prepare(root, folder)
    with contextlib.ExitStack() as stack:
        space = ["unshare", "-n", "sh", "-c", "ip link set lo up; echo up; exec sleep 1800"]
        world = stack.enter_context(subprocess.Popen(space, stdout=subprocess.PIPE))
        stack.callback(world.kill)
        assert world.stdout is not None
        world.stdout.readline()
        booted = Machine(root, world)
        stack.callback(booted.off)
        booted.boot()
        yield booted


def prepare(root: Path, folder: Path) -> None:
    """What the template of the VM brings: a user with a key, an address; and the script with its settings."""
    subprocess.run(["chroot", root, "useradd", "--create-home", "--shell", "/bin/bash", "edgeml"], check=True)
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", folder / "key"], check=True)
    for home in ("home/edgeml", "root"):
        (root / home / ".ssh").mkdir(mode=0o700, exist_ok=True)
        shutil.copy(folder / "key.pub", root / home / ".ssh/authorized_keys")
    subprocess.run(["chroot", root, "chown", "-R", "edgeml:", "/home/edgeml/.ssh"], check=True)
    network = f"[Match]\nName=host0\n[Network]\nAddress={VM}/24\nGateway={WORLD}\n"
    (root / "etc/systemd/network/10-host0.network").write_text(network)
    subprocess.run(["chroot", root, "systemctl", "--quiet", "enable", "systemd-networkd"], check=True)
    # systemd-nspawn shows a machine the groups of processes, but lets it make none; docker has to.
    groups = "awk '$3 ~ /^cgroup/ {print $2}' /proc/mounts | while read -r m; do mount -o remount,bind,rw $$m; done"
    unit = root / "etc/systemd/system/docker.service.d/groups.conf"
    unit.parent.mkdir(parents=True)
    unit.write_text(f'[Service]\nExecStartPre=/bin/sh -c "{groups.replace("$3", "$$3").replace("$2", "$$2")}"\n')
    values = {"adminUser": "edgeml", "sshSources": ["10.78.0.0/24"]}
    script = bootstrap(values, ROOT / "infra/stack-hub/bootstrap.sh", [f"{WORLD}:443"])
    (root / "root/bootstrap.sh").write_text(script)
    # The stand-in: it says what it was asked, and fails the first time as a full disk would.
    sysctl = f'echo "$*" >>{HOME}/sysctl.said; [ "$(wc -l <{HOME}/sysctl.said)" -gt 1 ]'
    (root / "usr/sbin/sysctl").write_text(f"#!/bin/sh\n{sysctl}\n")
    (root / "usr/sbin/sysctl").chmod(0o755)
    tools = subprocess.run(["tar", "-C", root, "-c", "bin/busybox"], check=True, capture_output=True).stdout
    (root / "root/tools.tar").write_bytes(tools)


def test_what_a_run_that_was_cut_short_left_the_next_one_does(machine: Machine) -> None:
    for expected, changed in ((1, None), (0, "nothing"), (0, "nothing")):
        done = machine.run("sh", f"{HOME}/bootstrap.sh", check=False)
        assert done.returncode == expected, done.stderr
        assert changed is None or f"edgeml: changed: {changed}\n" in done.stderr
        assert changed is None or done.stdout.startswith("edgeml-host-key: ssh-ed25519 ")
    assert (machine.root / "root/sysctl.said").read_text() == "-q --system\n" * 2
    assert machine.run("docker", "info", "--format", "{{.DockerRootDir}}").stdout == "/srv/edgeml/docker\n"


def runs_as_it_should(machine: Machine) -> None:
    for unit in ("docker", "edgeml-egress.timer", "nftables", "ssh", "unattended-upgrades"):
        until(lambda unit=unit: machine.run("systemctl", "is-active", unit, check=False).returncode == 0, unit)
    assert machine.run("systemctl", "--failed", "--no-legend", "--plain").stdout == ""
    assert "table inet edgeml" in machine.run("nft", "list", "tables").stdout
    address = f"{WORLD} . 443"
    until(lambda: address in machine.run("nft", "list", "set", "inet", "edgeml", "allowed").stdout, "egress")


def test_its_services_run(machine: Machine) -> None:
    runs_as_it_should(machine)


def test_the_key_opens_it_to_one_user(machine: Machine) -> None:
    done = machine.ssh("edgeml", "id -un && docker info --format '{{.LoggingDriver}} {{.LiveRestoreEnabled}}'")
    assert (done.returncode, done.stdout) == (0, "edgeml\nlocal true\n"), done.stderr
    refused = machine.ssh("root", "true")
    assert refused.returncode == 255
    assert "Permission denied" in refused.stderr


def test_a_container_answers_and_begins_nothing(machine: Machine) -> None:
    machine.run("docker", "import", f"{HOME}/tools.tar", "tools")
    once = ["docker", "run", "--rm", "tools", "busybox"]
    web = ["docker", "run", "-d", "--name", "web", "--restart", "unless-stopped", "-p", "8080:8080", "tools", "busybox"]
    machine.run(*web, "sh", "-c", "trap exit TERM; busybox httpd -f -p 8080 & wait")
    until(lambda: machine.answers(8080), "the container answers")
    server = "import http.server as h; h.HTTPServer(('', 443), h.BaseHTTPRequestHandler).serve_forever()"
    with subprocess.Popen(machine.outside("/usr/bin/python3", "-c", server), stderr=subprocess.DEVNULL) as world:
        try:
            reach = ["busybox", "nc", "-w", "2", WORLD, "443", "-e", "true"]
            until(lambda: machine.run(*reach, check=False).returncode == 0, "the machine's root reaches the world")
            assert machine.run(*once, *reach[1:], check=False).returncode == 1
        finally:
            world.kill()
    assert not machine.answers(9), "a port that nobody published"


def test_a_site_is_led_to_its_container(machine: Machine) -> None:
    """What `edgeml deploy` leaves behind, with a container that knows one page; the unit does the rest."""
    folder = "/home/edgeml/edgeml/sites"
    page = "mkdir -p /tmp/v2/health; echo ready >/tmp/v2/health/ready; trap exit TERM"
    serve = f"{page}; busybox httpd -f -p {SITE + 1} -h /tmp & wait"
    options = ["--network=host", "--restart=unless-stopped", "--label=edgeml.site=ward", "--name=ward"]
    machine.run("docker", "run", "-d", *options, "tools", "busybox", "sh", "-c", serve)
    container = {"container": "ward", "image": "tools", "slot": SITE + 1, "port": SITE, "memory_mb": 64, "cpus": 1}
    state = {"version": 1, "current": container, "previous": None, "trial": None, "failed": None}
    (machine.root / folder[1:] / "ward").mkdir(parents=True)
    (machine.root / folder[1:] / "ward/state.json").write_text(json.dumps(state))
    (machine.root / folder[1:] / "restore.pyz").write_bytes(session.program())
    machine.run("chown", "-R", "edgeml:", "/home/edgeml/edgeml")
    assert not machine.answers(SITE)
    machine.run("systemctl", "start", "edgeml-sites")
    until(lambda: machine.answers(SITE), "the site answers")
    machine.run("systemctl", "restart", "nftables")  # whose stop empties all tables
    until(lambda: machine.answers(SITE), "the site answers again")
    assert not machine.answers(SITE + 1), "the container's own port is for the machine alone"


def test_after_a_boot_all_is_as_it_was(machine: Machine) -> None:
    machine.off()
    machine.boot()
    runs_as_it_should(machine)
    until(lambda: machine.answers(8080), "the container answers again")
    until(lambda: machine.answers(SITE), "the site answers again")
    said = machine.run("journalctl", "--unit=edgeml-sites", "--boot", "--output=cat").stdout
    assert "edgeml: ward serves tools" in said
    assert machine.ssh("edgeml", "true").returncode == 0
