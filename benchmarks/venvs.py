"""One virtual environment per peer, made once under `.edgeml/bench/` from the lock in `peers/<name>.txt`."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import sys
from pathlib import Path

from measured import Failed, say

HERE = Path(__file__).resolve().parent
FOLDER = HERE.parent / ".edgeml/bench"
BARE = "bare"  # nothing installed: the interpreter of the steps


def lock_of(name: str) -> Path:
    return HERE / "peers" / f"{name}.txt"


def version_of(name: str) -> str:
    """The locked version of the peer itself."""
    lines = lock_of(name).read_text().splitlines()
    return next((line.split("==")[1].split()[0] for line in lines if line.startswith(f"{name}==")), "")


def prepare(name: str) -> Path:
    """The `bin` folder of a peer's environment, made or renewed where it is missing or its lock has changed."""
    lock = lock_of(name).read_text() if name != BARE else ""
    folder = FOLDER / name
    stamp = folder / "installed"
    wanted = hashlib.sha256(f"{sys.version}\n{lock}".encode()).hexdigest()
    if not stamp.exists() or stamp.read_text() != wanted:
        say(f"{name}: making its environment in {folder}")
        shutil.rmtree(folder, ignore_errors=True)
        folder.parent.mkdir(parents=True, exist_ok=True)
        _run([sys.executable, "-m", "venv", "--without-pip", str(folder)])
        if lock:
            _install(str(folder / "bin/python"), str(lock_of(name)))
        stamp.write_text(wanted)
    return folder / "bin"


def _install(python: str, lock: str) -> None:
    uv = Path(sys.executable).with_name("uv")
    if uv.exists():
        _run([str(uv), "pip", "install", "--quiet", "--compile-bytecode", "--python", python, "-r", lock])
    else:
        pip = [sys.executable, "-m", "pip", "--python", python, "--disable-pip-version-check"]
        _run([*pip, "install", "--quiet", "-r", lock])


def _run(command: list[str]) -> None:
    done = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    if done.returncode:
        told = " ".join(done.stdout.decode(errors="replace").split())
        raise Failed(f"could not be installed: {told[-400:]}")
