"""What may be said of a run elsewhere: names that stand in the repository, states, times, causes of a closed list.

No log, no message of a step, no value, and of private outputs not even a digest.
"""

from __future__ import annotations

import glob
import os
import re
from typing import Any

from edgeml.edge.on_vm.rim import NAME, Refused

_TAIL = 64 << 10
_STATES = "running|completed|cached|failed|skipped|cancelled|waiting|interrupted"
_PROGRESS = re.compile(r"  (\S+) +(running|completed|cached|failed|skipped|cancelled)(?: +([0-9]+\.[0-9]{2}) s)?")
# What is looked for in the log of a step that failed, which stays on the VM, and the word for it that leaves.
_CAUSES = (
    ("the storage account refuses the credential", "storage-credential"),
    ("is not signed by an authority that is trusted here", "storage-certificate"),
    ("the storage endpoint cannot be reached", "storage-unreachable"),
    ("the storage endpoint stopped answering", "storage-unreachable"),
    ("the container does not exist", "storage-container"),
    ("it was changed while it was being read", "storage-changed"),
    ("No space left on device", "disk-full"),
    ("no space is left on the disk", "disk-full"),
    ("MemoryError", "memory"),
    ("No module named", "module"),
    ("airlock: blocked", "blocked"),
)


def progress_of(line: str) -> dict[str, Any] | None:
    """A line of the engine's own progress as data; None for every other line."""
    match = _PROGRESS.fullmatch(line.rstrip("\n"))
    if not match or not NAME.fullmatch(match[1]):
        return None
    return {"node": match[1], "status": match[2], "seconds": float(match[3] or 0)}


def cause_in(text: str) -> str:
    """The first known cause that a text speaks of; empty where it speaks of none."""
    return next((cause for words, cause in _CAUSES if words in text), "")


def causes_of(folder: str, record: dict[str, Any]) -> dict[str, str]:
    """For each step that failed a word of the closed list, or `failed`."""
    causes = {}
    for step in record["steps"]:
        if step["status"] != "failed":
            continue
        name = str(step["node"])
        logs = glob.glob(os.path.join(folder, "run", "quarantine", glob.escape(name), "**", "log.txt"), recursive=True)
        logs += glob.glob(os.path.join(folder, "run", "jobs", glob.escape(name), "**", "log.txt"), recursive=True)
        found = [cause for cause in (cause_in(_end_of(log)) for log in logs) if cause]
        killed = "SIGKILL" in str(step.get("message"))
        causes[name] = found[0] if found else "memory" if killed else "failed"
    return causes


def value_free(record: dict[str, Any]) -> dict[str, Any]:
    """How the steps of a run stand and what ran, from its record. Raises Refused for a record that is none."""
    try:
        git = record.get("git") or {}
        return {
            "version": 1,
            "run": _name(record["run"]),
            "pipeline": _name(record["pipeline"], r"[A-Za-z0-9_./-]{1,300}"),
            "name": _name(record["name"], r"[^\x00-\x1f]{0,300}"),
            "experiment": _name(record["experiment"], r"[^\x00-\x1f]{0,300}"),
            "status": _name(record["status"], _STATES),
            "pipeline_digest": _name(record["pipeline_digest"], r"[a-z0-9:-]{0,140}"),
            "git": {"commit": _name(git.get("commit") or "", "[0-9a-f]{0,64}"), "dirty": bool(git.get("dirty"))},
            "started": _name(record["started"], r"[0-9T:.Z-]{10,40}"),
            "seconds": float(record["seconds"]),
            "python": _name(record["python"], r"[0-9.]{3,20}[a-z0-9+]{0,10}"),
            "forced": bool(record["forced"]),
            "no_sandbox": bool(record["no_sandbox"]),
            "inputs": {},
            "steps": [_step(step) for step in record["steps"]],
            "outputs": {_name(name): _output(output) for name, output in record["outputs"].items()},
            "warnings": [],
        }
    except (KeyError, TypeError, ValueError, AttributeError):
        raise Refused("record") from None


def _step(step: dict[str, Any]) -> dict[str, Any]:
    return {
        "node": _name(step["node"]),
        "component": _name(step["component"], r"[A-Za-z0-9_.-]{0,255}"),
        "status": _name(step["status"], _STATES),
        "started": float(step["started"]),
        "seconds": float(step["seconds"]),
        # Of a private step not even its exit code, which it chooses.
        "exit_code": None if step["private"] or step["exit_code"] is None else int(step["exit_code"]),
        "message": "",
        "command": "",
        "needs": [_name(name) for name in step["needs"]],
        "deterministic": bool(step["deterministic"]),
        "private": bool(step["private"]),
        "sandbox": _name(step["sandbox"], "[a-z]{0,20}"),
        "inputs": {},
        "outputs": {_name(name): _output(output) for name, output in step["outputs"].items()},
    }


def _output(output: dict[str, Any]) -> dict[str, Any]:
    return {
        "type": _name(output["type"], "[a-z_]{1,40}"),
        "zone": _name(output["zone"], "edge|cloud"),
        "path": _name(output["path"], r"(edge|cloud)/[A-Za-z0-9_.-]+/[A-Za-z0-9_.-]+"),
    }


def _name(text: Any, pattern: str = NAME.pattern) -> str:
    if not isinstance(text, str) or not re.fullmatch(pattern, text) or ".." in text.split("/"):
        raise ValueError
    return text


def _end_of(path: str) -> str:
    try:
        with open(path, "rb") as stream:
            stream.seek(0, os.SEEK_END)
            stream.seek(max(0, stream.tell() - _TAIL))
            return stream.read().decode("utf-8", "replace")
    except OSError:
        return ""
