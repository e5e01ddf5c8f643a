"""What the VM is and what it reaches: facts, judged elsewhere."""

from __future__ import annotations

import os
import platform
import shutil
import socket
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

_PATIENCE = 3.0  # seconds for one connection
_SSHD = ("/usr/sbin/sshd", "/usr/local/sbin/sshd")


def facts(root: str, question: dict[str, Any]) -> dict[str, Any]:
    """Everything that a check looks at.

    `storage` has an address and the text of its authority, `forbidden` are addresses as `host:port`, or names that
    are only looked up.
    """
    os.makedirs(root, mode=0o700, exist_ok=True)
    with ThreadPoolExecutor(16) as pool:
        reached = list(pool.map(_reaches, question["forbidden"]))
    return {
        "os": _release(),
        "machine": platform.machine(),
        "python": list(sys.version_info[:2]),
        "venv": _runs([sys.executable, "-c", "import ensurepip, venv"]),
        "docker": _runs(["docker", "info"]),
        "bubblewrap": _runs(["bwrap", "--unshare-all", "--ro-bind", "/", "/", "true"]),
        "memory": _memory(),
        "processors": os.cpu_count() or 1,
        "disk": shutil.disk_usage(root).total,
        "free": shutil.disk_usage(root).free,
        "gpus": _gpus(),
        "sshd": _sshd(),
        "storage": _storage(question["storage"]) if question["storage"] else "",
        "reached": [address for address, open_ in zip(question["forbidden"], reached) if open_],  # noqa: B905 - 3.8
        "lingers": _lingers(),
        "time": time.time(),  # last: what took long before it is no clock skew
    }


def _release() -> dict[str, str]:
    found: dict[str, str] = {}
    try:
        with open("/etc/os-release", encoding="utf-8") as stream:
            for line in stream:
                name, equals, value = line.strip().partition("=")
                if equals and name in ("ID", "VERSION_ID"):
                    found[name] = value.strip("\"'")[:40]
    except OSError:
        pass
    return found


def _memory() -> int:
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def _gpus() -> list[str]:
    done = _told(["nvidia-smi", "--query-gpu=name,memory.total", "--format=csv,noheader"])
    return [line.strip()[:100] for line in done.splitlines() if line.strip()]


def _sshd() -> dict[str, str]:
    """The server's effective settings, where this user may read them."""
    program = next((path for path in _SSHD if os.path.exists(path)), "sshd")
    told = _told([program, "-T"]) or _told(["sudo", "-n", program, "-T"])
    return dict(line.split(" ", 1) for line in told.lower().splitlines() if " " in line)


def _lingers() -> str:
    """Whether processes outlive a session: `yes`, or `ended` where systemd ends them with it."""
    told = _told(["loginctl", "show-user", "--property=Linger", "--value", str(os.getuid())]).strip()
    kills = _told(["busctl", "get-property", "org.freedesktop.login1", "/org/freedesktop/login1",
                   "org.freedesktop.login1.Manager", "KillUserProcesses"])  # fmt: skip
    return "ended" if "true" in kills and told != "yes" else "yes"


def _storage(asked: dict[str, str]) -> str:
    """Empty where the storage answers under its certificate, else why not. Any answer will do, a refusal too."""
    import http.client
    import ssl
    from urllib.parse import urlsplit

    url = urlsplit(asked["url"])
    try:
        trust = ssl.create_default_context(cadata=asked["authority"] or None)
        connection = http.client.HTTPSConnection(url.hostname or "", url.port or 443, timeout=10, context=trust)
        connection.request("GET", (url.path or "/") + "?comp=list")
        connection.getresponse().read(1024)
        connection.close()
    except ssl.SSLCertVerificationError:
        return "certificate"
    except ssl.SSLError:
        return "tls"
    except socket.gaierror:
        return "name"
    except (OSError, http.client.HTTPException):
        return "unreachable"
    return ""


def _reaches(address: str) -> bool:
    host, colon, port = address.rpartition(":")
    try:
        if not colon:
            socket.getaddrinfo(address, 443)
            return True
        socket.create_connection((host, int(port)), timeout=_PATIENCE).close()
    except OSError:
        return False
    return True


def _runs(command: list[str]) -> bool:
    try:
        done = subprocess.run(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, timeout=20
        )
    except (OSError, subprocess.TimeoutExpired):
        return False
    return done.returncode == 0


def _told(command: list[str]) -> str:
    try:
        done = subprocess.run(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, timeout=20
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.decode("utf-8", "replace") if done.returncode == 0 else ""
