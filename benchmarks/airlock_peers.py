"""The leak suite before scanners that others made: which of them say a word about private rows.

None of them is made for that: they look for code in pickled models, and for keys and passwords. The table shows what
a project has that relies on them. They run once over a folder with a subfolder per vector, and are credited with
whatever they say beyond what they say of the clean release.
"""

from __future__ import annotations

import json
import os
import re
import stat
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import venvs
from measured import Failed, plain_environment, say

LIMIT = 900  # seconds
TABLE = ("clinic", 1, 300)
ALARM = re.compile(r"(leak|honest)-\w+")


def compare(folder: Path) -> list[str]:
    """A line per scanner: leaks that it flags, honest outputs that it flags, seconds."""
    leaks, honest = _build(folder)
    lines = [
        "| scanner | version | leaks flagged | honest outputs flagged | seconds for all |",
        "|---|---|---:|---:|---:|",
    ]
    for name, scan in SCANNERS.items():
        try:
            tools = venvs.prepare(name)
            say(f"{name} over {leaks + honest} folders")
            began = time.perf_counter()
            flagged = scan(tools, folder)
            seconds = f"{time.perf_counter() - began:.0f}"
        except (Failed, OSError, ValueError, subprocess.TimeoutExpired) as error:
            lines.append(f"| {name} | {venvs.version_of(name)} | - | - | {type(error).__name__} |")
            continue
        found = sum(place.startswith("leak-") for place in flagged)
        alarms = len(flagged) - found
        cells = f"{found} of {leaks} | {alarms} of {honest} | {seconds}"
        lines.append(f"| {name} | {venvs.version_of(name)} | {cells} |")
    return lines


def _build(folder: Path) -> tuple[int, int]:
    """A subfolder per vector and per honest output; what blocks a reader or is no file is taken out."""
    from tests.airlock.suite import legitimate, table, vectors
    from tests.airlock.suite.catalogue import OUTPUTS, VECTORS
    from tests.airlock.suite.release import release_of

    made = table.make(*TABLE)
    for vector in VECTORS:
        vectors.build(vector, made, folder / f"leak-{vector.name}")
    for output in OUTPUTS:
        legitimate.build(output, made, folder / f"honest-{output.name}")
    clean = {path.name: path.read_bytes() for path in release_of(made, "logistic_regression").iterdir()}
    for root, _, names in os.walk(folder):
        for name in names:
            path = Path(root) / name
            if not stat.S_ISREG(path.lstat().st_mode):
                path.unlink()
            elif root.count("leak-") and path.read_bytes() == clean.get(name):
                path.unlink()  # what every folder has would only cost time
    return len(VECTORS), len(OUTPUTS)


def _run(command: list[str], folder: Path) -> str:
    done = subprocess.run(
        command,
        cwd=folder,
        env=plain_environment(HOME=str(folder.parent)),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        timeout=LIMIT,
    )
    return done.stdout.decode(errors="replace") + done.stderr.decode(errors="replace")


def _modelscan(tools: Path, folder: Path) -> set[str]:
    report = folder.parent / f"{folder.name}.json"  # what it prints is broken into lines within words
    _run([str(tools / "modelscan"), "-p", str(folder), "-r", "json", "-o", str(report)], folder)
    document = json.loads(report.read_text())
    report.unlink()
    return _places(issue["source"] for issue in document["issues"])


def _picklescan(tools: Path, folder: Path) -> set[str]:
    said = _run([str(tools / "picklescan"), "--path", str(folder)], folder)
    return _places(line for line in said.splitlines() if "dangerous import" in line)


def _fickling(tools: Path, folder: Path) -> set[str]:
    """One call for each pickle, because it takes one file; it reads nothing else."""
    flagged = set()
    for path in sorted(folder.rglob("*.pkl")):
        said = _run([str(tools / "fickling"), "--check-safety", "-p", str(path)], folder)
        if re.search(r"unsafe|suspicious|malicious", said, re.IGNORECASE):
            flagged |= _places([str(path)])
    return flagged


def _detect_secrets(tools: Path, folder: Path) -> set[str]:
    said = _run([str(tools / "detect-secrets"), "scan", "--all-files", "."], folder)
    return _places(json.loads(said[said.index("{") : said.rindex("}") + 1])["results"])


def _places(texts: object) -> set[str]:
    return {found[0] for text in texts for found in [ALARM.search(str(text))] if found}  # type: ignore[attr-defined]


SCANNERS: dict[str, Callable[[Path, Path], set[str]]] = {
    "modelscan": _modelscan,
    "picklescan": _picklescan,
    "fickling": _fickling,
    "detect-secrets": _detect_secrets,
}
