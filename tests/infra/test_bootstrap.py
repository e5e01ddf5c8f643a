"""bootstrap.sh in a real root of Debian: run twice, then its firewall loaded and probed, its sshd asked what it takes.

The root is made by mmdebstrap with what the script is about (systemd units, sshd, disks) and no nftables, which the
script has to install. docker and the rest are empty packages of those names, because they alone would take a minute;
that the real ones can be installed is asked of apt.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import socket
import subprocess
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from edgeml.infra.target import bootstrap

ROOT = Path(__file__).resolve().parents[2]
HOME = "/root"  # of the machine that is made
EMPTY = ("bubblewrap", "ca-certificates", "docker.io", "python3", "unattended-upgrades")
TOOLS = {"mmdebstrap": "mmdebstrap", "nft": "nftables", "ip": "iproute2", "dpkg-deb": "dpkg", "setpriv": "util-linux"}
OUT, IN, ELSEWHERE = "10.77.0.2", "10.77.0.1", "10.77.0.3"
WIRESERVER, METADATA = "168.63.129.16", "169.254.169.254"
KEPT = ("proc", "sys", "dev", "run", "tmp", "var/log", "var/cache", "var/lib/apt")


@dataclass(frozen=True)
class Machine:
    """A root with bootstrap.sh run twice in it; what each run said; the tree after each."""

    root: Path
    said: list[str]
    trees: list[dict[str, str]]

    def run(self, *command: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        return inside(self.root, *command, check=check)

    def uid(self, user: str) -> str:
        return self.run("id", "-u", user).stdout.strip()


def inside(root: Path, *command: str, check: bool = True) -> subprocess.CompletedProcess[str]:
    """A command in the root, with a /proc and /run of its own and this machine's network."""
    script = 'set -e; mount -t proc proc "$1/proc"; mount -t tmpfs run "$1/run"; mount --rbind /dev "$1/dev"; '
    script += 'root=$1; shift; exec chroot "$root" "$@"'
    line = ["unshare", "-m", "sh", "-c", script, "sh", str(root), *command]
    environment = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C"}
    done = subprocess.run(line, capture_output=True, text=True, env=environment, timeout=300)
    assert not check or done.returncode == 0, done.stdout + done.stderr
    return done


def tree(root: Path) -> dict[str, str]:
    """Every file of a root by what it is: kind, owner, mode, time and content."""
    found = {}
    for folder, folders, files in os.walk(root):
        here = os.path.relpath(folder, root)
        folders[:] = [one for one in folders if os.path.normpath(os.path.join(here, one)) not in KEPT]
        for name in [*folders, *files]:
            path = Path(folder, name)
            facts = path.lstat()
            content = ""
            if path.is_symlink():
                content = os.readlink(path)
            elif path.is_file() and here.startswith(("etc", "srv", "home", "usr/local", "var/lib/systemd", "root")):
                content = hashlib.sha256(path.read_bytes()).hexdigest()
            time = facts.st_mtime_ns
            found[str(path.relative_to(root))] = f"{facts.st_mode:o} {facts.st_uid}:{facts.st_gid} {time} {content}"
    return found


@pytest.fixture(scope="session")
def machine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machine]:
    if os.geteuid() != 0:
        pytest.skip("only root can make a root file system with users of its own")
    missing = [package for tool, package in TOOLS.items() if shutil.which(tool, path="/usr/sbin:/usr/bin") is None]
    if missing:
        install = ["apt-get", "-qq", "-y", "--no-install-recommends", "install", *missing]
        if shutil.which("apt-get") is None or subprocess.run(install, capture_output=True).returncode:
            pytest.skip(f"{', '.join(missing)} cannot be installed here")
    folder = tmp_path_factory.mktemp("machine")
    root = folder / "root"
    packages = "systemd,openssh-server,e2fsprogs"
    # In a mount namespace: killed, it would leave its mounts on this machine.
    line = ["unshare", "-m", "mmdebstrap", "--variant=minbase", f"--include={packages}", "--skip=cleanup/apt"]
    line += ["bookworm", str(root)]
    made = subprocess.run(line, capture_output=True, text=True, timeout=500)
    if made.returncode:
        pytest.skip(f"no root can be made here: {made.stderr[-300:]}")
    shutil.copy("/etc/resolv.conf", root / "etc/resolv.conf")
    for package in EMPTY:
        empty(root, package)
    inside(root, "useradd", "--create-home", "edgeml")
    values = {"adminUser": "edgeml", "sshSources": ["192.0.2.0/24", "198.51.100.7/32"]}
    script = bootstrap(values, ROOT / "infra/stack-hub/bootstrap.sh", [f"{OUT}:443", "nowhere.invalid:443"])
    (root / "root/bootstrap.sh").write_text(script)
    said, trees = [], []
    for _ in range(2):
        done = inside(root, "sh", f"{HOME}/bootstrap.sh")
        said.append(done.stdout + done.stderr)
        trees.append(tree(root))
    # The namespaces of the probes have no resolver; asking for the second host must not take long.
    (root / "etc/resolv.conf").write_text(f"nameserver {OUT}\noptions timeout:1 attempts:1\n")
    yield Machine(root, said, trees)


def empty(root: Path, package: str) -> None:
    """A package of that name with nothing in it; docker's brings the unit that the script switches on."""
    folder = root / "root" / package
    (folder / "DEBIAN").mkdir(parents=True)
    facts = f"Package: {package}\nVersion: 99\nArchitecture: all\nMaintainer: nobody\nDescription: empty\n"
    (folder / "DEBIAN/control").write_text(facts)
    unit = {"docker.io": "docker", "unattended-upgrades": "unattended-upgrades"}.get(package)
    if unit:
        (folder / "lib/systemd/system").mkdir(parents=True)
        text = "[Service]\nExecStart=/bin/true\n[Install]\nWantedBy=multi-user.target\n"
        (folder / f"lib/systemd/system/{unit}.service").write_text(text)
    subprocess.run(["dpkg-deb", "-b", str(folder), f"{folder}.deb"], check=True, capture_output=True)
    inside(root, "dpkg", "-i", f"/root/{package}.deb")
    if package == "docker.io":
        inside(root, "groupadd", "--system", "docker")


def test_the_second_run_changes_nothing(machine: Machine) -> None:
    first, second = machine.trees
    changed = {name for name in {*first, *second} if first.get(name) != second.get(name)}
    assert changed == set()
    assert "edgeml: changed: nothing" in machine.said[1]
    assert "/etc/nftables.conf" in machine.said[0]


def test_the_host_key_is_printed_last_and_is_the_machines(machine: Machine) -> None:
    key = " ".join((machine.root / "etc/ssh/ssh_host_ed25519_key.pub").read_text().split()[:2])
    for said in machine.said:
        assert f"edgeml-host-key: {key}\n" in said


def test_sshd_takes_keys_of_one_user_and_carries_nothing_on(machine: Machine) -> None:
    effective = machine.run("sh", "-c", "mkdir -p /run/sshd; sshd -T").stdout.lower().splitlines()
    for line in (
        "permitrootlogin no",
        "passwordauthentication no",
        "kbdinteractiveauthentication no",
        "permitemptypasswords no",
        "authenticationmethods publickey",
        "allowusers edgeml",
        "disableforwarding yes",
        "permituserrc no",
        "permituserenvironment no",
    ):
        assert line in effective, line


def test_the_three_users_cannot_log_in_and_meet_only_in_their_folders(machine: Machine) -> None:
    for user in ("trainer", "gate", "uploader"):
        assert machine.run("getent", "passwd", user).stdout.strip().endswith(":/nonexistent:/usr/sbin/nologin")
        assert "docker" not in machine.run("id", "-nG", user).stdout.split()

    def may(user: str, command: str) -> bool:
        who = ["setpriv", f"--reuid={user}", f"--regid={user}", "--init-groups"]
        return machine.run(*who, "sh", "-c", command, check=False).returncode == 0

    folder = "/srv/edgeml"
    assert may("trainer", f"echo model >{folder}/quarantine/model.onnx")
    assert not may("uploader", f"cat {folder}/quarantine/model.onnx")
    assert not may("trainer", f"echo model >{folder}/approved/model.onnx")
    assert may("gate", f"cp {folder}/quarantine/model.onnx {folder}/approved/ && rm {folder}/quarantine/model.onnx")
    assert may("uploader", f"cat {folder}/approved/model.onnx")
    assert not may("uploader", f"rm {folder}/approved/model.onnx")
    assert not may("trainer", f"ls {folder}/approved")


def test_what_an_update_or_a_crash_would_leave_is_shut(machine: Machine) -> None:
    assert 'Unattended-Upgrade "1"' in machine.run("apt-config", "dump").stdout
    limits = (machine.root / "etc/security/limits.d/90-edgeml.conf").read_text()
    assert "* hard core 0" in limits
    for unit in ("nftables", "docker", "edgeml-sites", "unattended-upgrades"):
        assert machine.run("systemctl", "is-enabled", f"{unit}.service").stdout.strip() == "enabled", unit
    assert machine.run("systemctl", "is-enabled", "edgeml-egress.timer").stdout.strip() == "enabled"


def test_sites_come_back_with_the_machine_and_with_the_firewall(machine: Machine) -> None:
    """The unit is the one in docs/deployment.md, which tests/deploy executes; systemd finds nothing wrong with it."""
    unit = "etc/systemd/system/edgeml-sites.service"
    assert (machine.root / unit).read_text() in (ROOT / "docs/deployment.md").read_text()
    python = machine.root / "usr/bin/python3"  # its package is an empty one here
    python.symlink_to("true")
    try:
        said = machine.run("systemd-analyze", "verify", f"/{unit}").stderr
    finally:
        python.unlink()
    assert "edgeml-sites" not in said
    for starter in ("multi-user.target", "nftables.service"):
        assert (machine.root / f"etc/systemd/system/{starter}.wants/edgeml-sites.service").is_symlink()


def test_the_real_packages_can_be_had(machine: Machine) -> None:
    """In the versions that apt has, instead of the empty ones: all of them together, with what they depend on."""
    ask = "for name in $0; do echo $name=$(apt-cache madison $name | head -1 | cut -d '|' -f 2 | tr -d ' '); done"
    versions = machine.run("sh", "-c", ask, " ".join(EMPTY)).stdout.split()
    assert len(versions) == len(EMPTY)
    machine.run("apt-get", "--simulate", "--allow-downgrades", "--no-install-recommends", "-y", "install", *versions)


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[str]:
    """An empty disk of 32 MiB."""
    (tmp_path / "disk").write_bytes(b"")
    os.truncate(tmp_path / "disk", 32 << 20)
    made = subprocess.run(["losetup", "-f", "--show", str(tmp_path / "disk")], capture_output=True, text=True)
    if made.returncode:
        pytest.skip(f"this machine has no loop devices: {made.stderr.strip()}")
    yield made.stdout.strip()
    subprocess.run(["losetup", "-d", made.stdout.strip()], check=True)


def test_an_empty_disk_is_formatted_once(machine: Machine, disk: str) -> None:
    seen = []
    for _ in range(2):
        machine.run("env", f"DATA_DISK={disk}", "sh", f"{HOME}/bootstrap.sh")
        seen.append(machine.run("blkid", "-p", "-o", "export", disk).stdout)
    assert "LABEL=edgeml" in seen[0]
    assert seen[0] == seen[1]
    assert (machine.root / "etc/fstab").read_text().count("LABEL=edgeml /srv/edgeml ext4") == 1


@pytest.mark.parametrize("holds", ["a file system", "a partition table"])
def test_a_disk_with_anything_on_it_is_left_alone(machine: Machine, disk: str, holds: str) -> None:
    if holds == "a file system":
        machine.run("mkfs.ext4", "-q", "-L", "rows", disk)
    else:
        one = bytes([0, 0, 0, 0, 0x83, 0, 0, 0, *(2048).to_bytes(4, "little"), *(4096).to_bytes(4, "little")])
        with open(disk, "r+b") as device:
            device.write(bytes(446) + one + bytes(48) + b"\x55\xaa")
    before = hashlib.sha256(Path(disk).read_bytes()).hexdigest()
    done = machine.run("env", f"DATA_DISK={disk}", "sh", f"{HOME}/bootstrap.sh", check=False)
    assert done.returncode == 1
    assert "holds something that is not ours" in done.stderr
    assert hashlib.sha256(Path(disk).read_bytes()).hexdigest() == before


def test_an_old_sshd_stops_the_script(machine: Machine, tmp_path: Path) -> None:
    file = machine.root / "etc/ssh/sshd_config"
    before = file.read_text()
    file.write_text(before.replace("Include ", "#Include "))
    try:
        done = machine.run("sh", f"{HOME}/bootstrap.sh", check=False)
    finally:
        file.write_text(before)
    assert done.returncode == 1
    assert "take a newer image" in done.stderr


class World:
    """The machine's network: a namespace with its firewall, and a cable to another in which all addresses answer."""

    def __init__(self, machine: Machine, stack: contextlib.ExitStack) -> None:
        self.machine = machine
        self.vm = self._namespace(stack)
        self.world = self._namespace(stack)
        self._within(self.vm, "ip", "link", "set", "lo", "up")
        self._within(self.world, "ip", "link", "set", "lo", "up")
        cable = ["ip", "link", "add", "cable", "type", "veth", "peer", "name", "plug", "netns", str(self.world.pid)]
        self._within(self.vm, *cable)
        for address in (OUT, ELSEWHERE, WIRESERVER, METADATA):
            self._within(self.world, "ip", "addr", "add", f"{address}/24", "dev", "plug")
        self._within(self.vm, "ip", "addr", "add", f"{IN}/24", "dev", "cable")
        for space, name in ((self.vm, "cable"), (self.world, "plug")):
            self._within(space, "ip", "link", "set", name, "up")
        self._within(self.vm, "ip", "route", "add", "default", "via", OUT)
        self._within(self.world, "ip", "route", "add", "192.0.2.0/24", "via", IN)
        for port in (443, 80, 53):
            self._serve(self.world, port)
        self._serve(self.vm, 22)

    def load(self) -> None:
        """The firewall, and the addresses of the allowed hosts, as the machine's own services would."""
        root = str(self.machine.root)
        self._within(self.vm, "chroot", root, "nft", "-f", "/etc/nftables.conf")
        self._within(self.vm, "chroot", root, "/usr/local/sbin/edgeml-egress", check=False)

    @staticmethod
    def _namespace(stack: contextlib.ExitStack) -> subprocess.Popen[bytes]:
        process = subprocess.Popen(["unshare", "-n", "sh", "-c", "echo up; exec sleep 300"], stdout=subprocess.PIPE)
        stack.callback(process.wait)
        stack.callback(process.kill)
        assert process.stdout is not None
        process.stdout.readline()
        stack.callback(process.stdout.close)
        return process

    @staticmethod
    def _within(space: subprocess.Popen[bytes], *command: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        line = ["nsenter", f"--net=/proc/{space.pid}/ns/net", *command]
        done = subprocess.run(line, capture_output=True, text=True, timeout=60)
        assert not check or done.returncode == 0, f"{command}: {done.stderr}"
        return done

    @staticmethod
    def _serve(space: subprocess.Popen[bytes], port: int) -> None:
        """A socket that listens in a namespace: made by a thread that is in it for that moment."""
        made: list[socket.socket] = []

        def make() -> None:
            with open(f"/proc/{space.pid}/ns/net") as there:
                assert libc().setns(there.fileno(), 0) == 0
            made.append(socket.create_server(("", port), backlog=64))

        thread = threading.Thread(target=make)
        thread.start()
        thread.join()
        _OPEN.extend(made)

    def connects(self, user: str, address: str, port: int, *, source: str = "", outside: bool = False) -> bool:
        """Whether a process of `user` opens a connection; of the world's side where `outside`."""
        uid = self.machine.uid(user)
        code = f"import socket;socket.create_connection(({address!r},{port}),1,({source!r},0))"
        who = ["setpriv", f"--reuid={uid}", f"--regid={uid}", "--clear-groups"]
        space = self.world if outside else self.vm
        return self._within(space, *who, "/usr/bin/python3", "-c", code, check=False).returncode == 0


_OPEN: list[socket.socket] = []


def libc() -> object:
    import ctypes

    return ctypes.CDLL(None, use_errno=True)


@pytest.fixture(scope="module")
def world(machine: Machine) -> Iterator[World]:
    with contextlib.ExitStack() as stack:
        yield World(machine, stack)
        while _OPEN:
            _OPEN.pop().close()


def test_without_the_firewall_everybody_gets_out(world: World) -> None:
    """Else the next test would find closed what was never open."""
    for user in ("trainer", "gate", "uploader", "edgeml", "root"):
        for address, port in ((OUT, 443), (ELSEWHERE, 80), (WIRESERVER, 80)):
            assert world.connects(user, address, port), (user, address)
    assert world.connects("root", IN, 22, source=ELSEWHERE, outside=True)


def test_who_speaks_decides_how_far_a_connection_gets(world: World) -> None:
    world.load()
    reached = {
        (user, address, port)
        for user in ("trainer", "gate", "uploader", "edgeml", "root")
        for address, port in (
            (OUT, 443),
            (ELSEWHERE, 443),
            (OUT, 80),
            (WIRESERVER, 80),
            (METADATA, 80),
            ("127.0.0.1", 22),
        )
        if world.connects(user, address, port)
    }
    loopback = ("127.0.0.1", 22)
    assert reached == {
        ("uploader", OUT, 443),
        ("uploader", *loopback),
        ("edgeml", OUT, 443),
        ("edgeml", *loopback),
        # root installs packages and pulls images, and its agent asks the platform.
        ("root", OUT, 443),
        ("root", ELSEWHERE, 443),
        ("root", OUT, 80),
        ("root", WIRESERVER, 80),
        ("root", METADATA, 80),
        ("root", *loopback),
    }


def test_nobody_but_the_stated_ranges_gets_in(world: World) -> None:
    world.load()
    assert not world.connects("root", IN, 22, source=ELSEWHERE, outside=True)
    World._within(world.world, "ip", "addr", "add", "192.0.2.9/32", "dev", "plug")
    World._within(world.vm, "ip", "route", "add", "192.0.2.9/32", "dev", "cable")
    assert world.connects("root", IN, 22, source="192.0.2.9", outside=True)


def test_the_firewall_is_loaded_anew_without_touching_other_tables(world: World) -> None:
    World._within(world.vm, "nft", "add", "table", "ip", "others")
    world.load()
    tables = World._within(world.vm, "nft", "list", "tables").stdout
    assert "table ip others" in tables
    assert tables.count("table inet edgeml") == 1
