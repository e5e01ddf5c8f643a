"""Where the seconds of `edgeml demo` go: the first run with an empty state, then with nothing changed.

usage: python benchmarks/demo.py     (called by `make bench-demo`)

Works in a copy of the checkout that shares only the installed storage server.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
STAGES = ("storage", "data", "run", "register", "report")


def main() -> int:
    from edgeml.storage import server

    server.prepare(ROOT / ".edgeml")
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary) / "project"
        ignored = shutil.ignore_patterns(".git", ".venv", ".edgeml", "__pycache__", ".*_cache")
        shutil.copytree(ROOT, folder, ignore=ignored)
        (folder / ".edgeml").mkdir()
        for part in ("azurite", "node"):
            (folder / ".edgeml" / part).symlink_to(ROOT / ".edgeml" / part)
        print("| run | whole process | " + " | ".join(STAGES) + " |")
        print("|---" + "|---:" * (len(STAGES) + 1) + "|")
        for name in ("first", "nothing changed"):
            wall, done = timed(folder)
            stages = " | ".join(f"{done['seconds'][stage]:.2f}" for stage in STAGES)
            print(f"| {name} | {wall:.2f} | {stages} |")
    return 0


def timed(folder: Path) -> tuple[float, dict[str, Any]]:
    """Wall seconds of one demo as a process, and what it printed."""
    began = time.perf_counter()
    command = [sys.executable, "-m", "edgeml", "demo", "--json"]
    done = subprocess.run(command, cwd=folder, check=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    return time.perf_counter() - began, json.loads(done.stdout)


if __name__ == "__main__":
    sys.exit(main())
