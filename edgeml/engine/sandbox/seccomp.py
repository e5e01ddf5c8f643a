"""The system calls that a private step must not make: one list, as a BPF program and as docker's profile.

Namespaces leave gaps: a virtual socket (AF_VSOCK) reaches the host of a virtual machine through any network
namespace, `io_uring` makes calls that no filter sees, and most holes of the kernel lie behind calls that no training
needs. What is not on the list stays allowed, except every call newer than the list, which fails as if this kernel did
not have it yet. Built with the standard library; the numbers are the kernel's own and never change.
"""

from __future__ import annotations

import errno
import platform
import struct
from typing import Any, NamedTuple

AF_UNIX, AF_INET, AF_INET6 = 1, 2, 10


class Machine(NamedTuple):
    """A processor: the kernel's mark for it, the numbers of its calls (denied ones, then those with a look at their
    arguments), and docker's name for it."""

    mark: int
    denied: dict[str, int]
    socket: int
    socketpair: int
    clone: int
    clone3: int
    ioctl: int
    docker: str


# Of the same number on both: what came after 2019.
_RECENT = {
    "io_uring_setup": 425,
    "io_uring_enter": 426,
    "io_uring_register": 427,
    "open_tree": 428,
    "move_mount": 429,
    "fsopen": 430,
    "fsconfig": 431,
    "fsmount": 432,
    "fspick": 433,
    "pidfd_getfd": 438,
    "mount_setattr": 442,
    "quotactl_fd": 443,
}
_X86_64 = {
    "ptrace": 101,
    "syslog": 103,
    "uselib": 134,
    "personality": 135,
    "ustat": 136,
    "sysfs": 139,
    "vhangup": 153,
    "modify_ldt": 154,
    "pivot_root": 155,
    "_sysctl": 156,
    "adjtimex": 159,
    "chroot": 161,
    "acct": 163,
    "settimeofday": 164,
    "mount": 165,
    "umount2": 166,
    "swapon": 167,
    "swapoff": 168,
    "reboot": 169,
    "sethostname": 170,
    "setdomainname": 171,
    "iopl": 172,
    "ioperm": 173,
    "create_module": 174,
    "init_module": 175,
    "delete_module": 176,
    "query_module": 178,
    "quotactl": 179,
    "nfsservctl": 180,
    "lookup_dcookie": 212,
    "clock_settime": 227,
    "kexec_load": 246,
    "add_key": 248,
    "request_key": 249,
    "keyctl": 250,
    "unshare": 272,
    "perf_event_open": 298,
    "fanotify_init": 300,
    "name_to_handle_at": 303,
    "open_by_handle_at": 304,
    "clock_adjtime": 305,
    "setns": 308,
    "process_vm_readv": 310,
    "process_vm_writev": 311,
    "kcmp": 312,
    "finit_module": 313,
    "kexec_file_load": 320,
    "bpf": 321,
    "userfaultfd": 323,
}
_AARCH64 = {
    "lookup_dcookie": 18,
    "umount2": 39,
    "mount": 40,
    "pivot_root": 41,
    "nfsservctl": 42,
    "chroot": 51,
    "vhangup": 58,
    "quotactl": 60,
    "acct": 89,
    "personality": 92,
    "unshare": 97,
    "kexec_load": 104,
    "init_module": 105,
    "delete_module": 106,
    "clock_settime": 112,
    "syslog": 116,
    "ptrace": 117,
    "reboot": 142,
    "sethostname": 161,
    "setdomainname": 162,
    "settimeofday": 170,
    "adjtimex": 171,
    "add_key": 217,
    "request_key": 218,
    "keyctl": 219,
    "swapon": 224,
    "swapoff": 225,
    "perf_event_open": 241,
    "fanotify_init": 262,
    "name_to_handle_at": 264,
    "open_by_handle_at": 265,
    "clock_adjtime": 266,
    "setns": 268,
    "process_vm_readv": 270,
    "process_vm_writev": 271,
    "kcmp": 272,
    "finit_module": 273,
    "bpf": 280,
    "userfaultfd": 282,
    "kexec_file_load": 294,
}
MACHINES = {
    "x86_64": Machine(0xC000003E, _X86_64 | _RECENT, 41, 53, 56, 435, 16, "SCMP_ARCH_X86_64"),
    "aarch64": Machine(0xC00000B7, _AARCH64 | _RECENT, 198, 199, 220, 435, 29, "SCMP_ARCH_AARCH64"),
}
_NEWEST = 450  # the highest number that was looked at when the list was made; x32 calls lie far above it as well
_NEW_NAMESPACES = 0x7E020000  # user, mount, pid, network, IPC, UTS and cgroup namespaces by `clone`
_INJECTING = {"TIOCSTI": 0x5412, "TIOCLINUX": 0x541C}  # typing into a terminal as if its user had

_LOAD, _EQUAL, _GREATER, _BITS, _RETURN = 0x20, 0x15, 0x25, 0x45, 0x06
_ALLOW, _KILL, _ERROR = 0x7FFF0000, 0x80000000, 0x00050000
_NUMBER, _MARK, _FIRST, _SECOND = 0, 4, 16, 24  # offsets: of the call, the processor, the low words of arguments


def families(*, inet: bool) -> tuple[int, ...]:
    """The socket families that a step may use: `inet` only within a network namespace that holds nothing but it."""
    return (AF_UNIX, AF_INET, AF_INET6) if inet else (AF_UNIX,)


def program(machine: str = "", *, inet: bool = False) -> bytes:
    """The filter for bubblewrap's `--seccomp`. Raises KeyError for a processor that is not in MACHINES."""
    found = MACHINES[machine or platform.machine()]
    lines = [
        (_LOAD, 0, 0, _MARK),
        (_EQUAL, 1, 0, found.mark),
        (_RETURN, 0, 0, _KILL),  # a 32-bit call would have other numbers
        (_LOAD, 0, 0, _NUMBER),
        *_if(_GREATER, _NEWEST, _ERROR | errno.ENOSYS),
        *_if(_EQUAL, found.clone3, _ERROR | errno.ENOSYS),  # its flags lie in memory; libraries go back to `clone`
    ]
    for name, number in found.denied.items():
        lines += _if(_EQUAL, number, _ERROR | (errno.ENOSYS if name.startswith("io_uring") else errno.EPERM))
    allowed = families(inet=inet)
    lines += _looked_at(found.socket, _FIRST, [*_unless(allowed, _ERROR | errno.EAFNOSUPPORT)])
    lines += _looked_at(found.socketpair, _FIRST, [*_unless((AF_UNIX,), _ERROR | errno.EAFNOSUPPORT)])
    lines += _looked_at(found.clone, _FIRST, [*_if(_BITS, _NEW_NAMESPACES, _ERROR | errno.EPERM)])
    typed = [line for value in _INJECTING.values() for line in _if(_EQUAL, value, _ERROR | errno.EPERM)]
    lines += _looked_at(found.ioctl, _SECOND, typed)
    lines.append((_RETURN, 0, 0, _ALLOW))
    return b"".join(struct.pack("=HBBI", *line) for line in lines)


def profile(machine: str = "", *, inet: bool = False) -> dict[str, Any]:
    """The same for docker's `--security-opt seccomp=FILE`, which takes names; the newest calls are the daemon's."""
    found = MACHINES[machine or platform.machine()]

    def rule(names: list[str], number: int, *arguments: tuple[int, int, str]) -> dict[str, Any]:
        args = [{"index": i, "value": value, "op": op} for i, value, op in arguments]
        return {"names": names, "action": "SCMP_ACT_ERRNO", "errnoRet": number, "args": args}

    rings = [name for name in found.denied if name.startswith("io_uring")]
    others = [name for name in found.denied if not name.startswith("io_uring")]
    highest = max(families(inet=inet))
    # All conditions of a rule must hold, so families that are allowed are left out by ranges around them.
    between = [family for family in range(highest) if family not in families(inet=inet)]
    return {
        "defaultAction": "SCMP_ACT_ALLOW",
        "architectures": [found.docker],
        "syscalls": [
            rule(others, errno.EPERM),
            rule([*rings, "clone3", "socketcall"], errno.ENOSYS),
            rule(["socket"], errno.EAFNOSUPPORT, (0, highest, "SCMP_CMP_GT")),
            *(rule(["socket"], errno.EAFNOSUPPORT, (0, family, "SCMP_CMP_EQ")) for family in between),
            rule(["socketpair"], errno.EAFNOSUPPORT, (0, AF_UNIX, "SCMP_CMP_NE")),
            *(
                {
                    **rule(["clone"], errno.EPERM),
                    "args": [{"index": 0, "value": bit, "valueTwo": bit, "op": "SCMP_CMP_MASKED_EQ"}],
                }
                for bit in (1 << n for n in range(32) if _NEW_NAMESPACES >> n & 1)
            ),
            *(rule(["ioctl"], errno.EPERM, (1, value, "SCMP_CMP_EQ")) for value in _INJECTING.values()),
        ],
    }


_Line = tuple[int, int, int, int]


def _if(test: int, value: int, result: int) -> list[_Line]:
    """Return the result where the loaded word passes the test."""
    return [(test, 0, 1, value), (_RETURN, 0, 0, result)]


def _unless(values: tuple[int, ...], result: int) -> list[_Line]:
    """Return the result where the loaded word is none of the values."""
    tests = [(_EQUAL, len(values) - i, 0, value) for i, value in enumerate(values)]
    return [*tests, (_RETURN, 0, 0, result)]


def _looked_at(number: int, argument: int, then: list[_Line]) -> list[_Line]:
    """For one call the lines on an argument's low word; the number of the call is loaded before and after them.

    The kernel takes these arguments as 32-bit words, so the high word holds nothing.
    """
    return [(_EQUAL, 0, len(then) + 2, number), (_LOAD, 0, 0, argument), *then, (_LOAD, 0, 0, _NUMBER)]
