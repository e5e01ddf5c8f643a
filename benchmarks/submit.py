"""`edgeml submit` of the demo pipeline against the loopback Azure, then a thousand faults over two hundred cycles.

The cloud runs in a process of its own. Seconds are those of `edgeml submit` less those that a process needs to import
azure-ai-ml; the bound is 3.0. `--cycles N` and `--faults N` make the second part shorter.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))
BOUND = 3.0
REQUESTS = 44  # of a cycle, so that the die throws a few faults more than were asked for
CPU: list[float] = []  # seconds of the processor, of each process in the order of their starts
IMPORT = "from azure.ai.ml import MLClient, load_job; from azure.ai.ml.entities import Model"
PREPARE = """
import json, os, sys
from pathlib import Path
from tests.azure.running import started
with started(Path(sys.argv[1]), Path(sys.argv[2])) as running:
    running.provide()
    print(json.dumps(running.cloud.environment()), flush=True)
    for line in sys.stdin:
        if line.strip() == "clear":
            running.reset()
            running.provide()
        keys = [list(request.key) for request in running.cloud.requests]
        print(json.dumps({"requests": keys, "wrong": running.service.wrong}), flush=True)
"""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cycles", type=int, default=200)
    parser.add_argument("--faults", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    with tempfile.TemporaryDirectory(prefix="edgeml-bench-") as folder:
        project = checkout(Path(folder) / "project")
        good = submitting(project, Path(folder), options.rounds)
        return 0 if faults(project, Path(folder), options.cycles, options.faults) and good else 1


def checkout(folder: Path) -> Path:
    """The committed files of this repository, as a fork has them, with the pipeline's target as a cluster."""
    folder.mkdir()
    archive = subprocess.run(["git", "-C", str(ROOT), "archive", "HEAD"], capture_output=True, check=True).stdout
    subprocess.run(["tar", "-x", "-C", str(folder)], input=archive, check=True)
    cluster = "/subscriptions/s/resourceGroups/r/providers/Microsoft.Kubernetes/connectedClusters/hub"
    text = f'[registry]\nmodel = "m"\n[compute.edge-vm]\nkind = "kubernetes"\nresource_id = "{cluster}"\n'
    (folder / "edgeml.toml").write_text(text)
    (folder / ".edgeml").mkdir()
    git = ["git", "-C", str(folder), "-c", "user.name=b", "-c", "user.email=b@example.org"]
    for command in (["init", "-q"], ["add", "-A"], ["commit", "-qm", "all"]):
        subprocess.run([*git, *command], check=True)
    return folder


def submitting(project: Path, folder: Path, rounds: int) -> bool:
    with cloud(folder) as (environment, ask):
        timed([sys.executable, "-c", IMPORT], project, environment)  # bytecode and page cache
        imports = [timed([sys.executable, "-c", IMPORT], project, environment) for _ in range(rounds)]
        command = [sys.executable, "-m", "edgeml", "submit", "pipelines/train.yml"]
        first, again = [], []
        made: dict[str, Any] = {}
        for _ in range(rounds):
            ask("clear")
            first.append(timed(command, project, environment))
            made = ask("tell")
            again.append(timed(command, project, environment))
        keys = [tuple(key) for key in made["requests"] if not key[1].startswith(("actions.", "login."))]
        twice = [key for key, times in Counter(keys).items() if times > 1]
        blobs = sum(".blob." in key[1] for key in keys)
    base = statistics.median(imports)
    beyond = statistics.median(first) - base
    new, known = statistics.median(first), statistics.median(again)
    print(f"import of azure-ai-ml             {base:6.2f} s")
    print(f"submit, everything new            {new:6.2f} s, {beyond:.2f} s beyond the import (bound {BOUND})")
    print(f"submit of the same again          {known:6.2f} s, {known - base:.2f} s beyond")
    parts = (CPU[1 : rounds + 1], CPU[rounds + 1 :: 2], CPU[rounds + 2 :: 2])
    loaded, full, short = (statistics.median(part) for part in parts)
    spent = f"{loaded:.2f} to import, {full:.2f} everything new, {short:.2f} the same again"
    print(f"seconds of the processor            {spent}")
    print(f"requests, everything new          {len(keys):6d}   of which blobs {blobs}, made twice {len(twice)}")
    print(f"bodies that the models do not have {len(made['wrong']):5d}")
    return beyond <= BOUND and not twice and not made["wrong"]


def faults(project: Path, folder: Path, cycles: int, wanted: int) -> bool:
    """Cycles of submit, wait and register with so many faults, each pause between two tries cut short."""
    from tests.azure import cycles as loops
    from tests.azure.running import started

    place = folder / "faults"
    place.mkdir()
    with started(ROOT / ".edgeml", place) as running:
        os.environ.update(running.cloud.environment())
        os.chdir(project)
        running.provide()
        began = time.perf_counter()
        done = loops.run(running, project, cycles=cycles, rate=wanted / cycles / REQUESTS, seed=2026)
        seconds = time.perf_counter() - began
    made = f"requests {done.requests}, faults {done.thrown}, problems {len(done.problems)}"
    print(f"cycles {cycles}, {made}, {seconds:.0f} s")
    for problem in done.problems[:10]:
        print(f"  {problem}")
    return not done.problems and done.thrown >= wanted


@contextmanager
def cloud(folder: Path) -> Iterator[tuple[dict[str, str], Any]]:
    """The loopback cloud in a process of its own: the variables that lead there, and a way to ask it."""
    place = folder / "cloud"
    place.mkdir()
    command = [sys.executable, "-c", PREPARE, str(ROOT / ".edgeml"), str(place)]
    process = subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    written, read = process.stdin, process.stdout
    assert written is not None and read is not None
    environment = {**os.environ, **json.loads(read.readline())}

    def ask(what: str) -> Any:
        written.write(what + "\n")
        written.flush()
        return json.loads(read.readline())

    try:
        yield environment, ask
    finally:
        written.close()
        process.wait()
        shutil.rmtree(place, ignore_errors=True)


def timed(command: list[str], project: Path, environment: dict[str, str]) -> float:
    """Seconds on the clock of one process, which must end well; those of the processor go to `CPU`."""
    began, before = time.perf_counter(), resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run(command, cwd=project, env=environment, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(done.stderr)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    CPU.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    return time.perf_counter() - began


if __name__ == "__main__":
    sys.exit(main())
