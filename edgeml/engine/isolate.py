"""A throw-away environment for a step whose command installs packages.

It sees everything that is installed beside the interpreter, and keeps what is installed on top of that to itself.
"""

from __future__ import annotations

import os
import re
import subprocess

_INSTALLS = re.compile(r"(?:^|[\s;&|(])(?:pip[\d.]*|uv pip|conda|mamba)\s+install\b")
_PIP = '#!/bin/sh\nexec "$(dirname "$0")/python" -m pip "$@"\n'
_SITES = "import site; print(*site.getsitepackages(), sep='\\n')"


def is_needed(command: str) -> bool:
    """Whether a command installs packages."""
    return "install" in command and _INSTALLS.search(command) is not None


def make(folder: str, python: str) -> str:
    """Make the environment and return its `bin`. Raises OSError or CalledProcessError."""

    def ask(*arguments: str) -> str:
        return subprocess.run([python, *arguments], check=True, capture_output=True, text=True).stdout

    ask("-m", "venv", "--without-pip", folder)
    binaries = os.path.join(folder, "bin")
    own = subprocess.run([os.path.join(binaries, "python"), "-c", _SITES], check=True, capture_output=True, text=True)
    with open(os.path.join(own.stdout.split("\n")[0], "inherited.pth"), "w", encoding="utf-8") as stream:
        stream.write(ask("-c", _SITES))
    for name in ("pip", "pip3"):
        path = os.path.join(binaries, name)
        with open(path, "w", encoding="utf-8") as stream:
            stream.write(_PIP)
        os.chmod(path, 0o700)
    return binaries
