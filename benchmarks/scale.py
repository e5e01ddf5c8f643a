"""How `edgeml run` fares with large graphs and large inputs.

- A graph of 1,000 trivial shell steps (chains and fans): what each step costs beyond the same shells started without a
  runner, at the same parallelism in the same run, against what each of five steps in a chain costs; peak memory;
  and the same with nothing changed.
- A graph of 10,000 steps: reading and resolving it (`--dry-run`).
- 10 GB of input: reading it once against `sha256sum`, then with nothing changed, then with one byte
  changed in a file whose size and time are what they were.

Each figure is the whole command. Small ones are repeated and the median is taken.

    python benchmarks/scale.py [--nodes 1000] [--large 10000] [--gb 10] [--repeats 3] [--json]

`make bench-run` calls it. The inputs are written to the temporary folder (TMPDIR) and removed.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import graphs
import venvs
from measured import Failed, Measured, checkout, edgeml, measure, plain_environment, say

GOAL_GROWTH = 2.0  # overhead per step of the large graph, to that of the chain
GOAL_MEMORY = 200.0  # MB
GOAL_RESOLVE = 5.0  # seconds
GOAL_UNCHANGED = 1.0  # seconds
CHAIN = 5
FREE_GB = 25  # for 10 GB of input: as much again is left to whoever else works here
SETTLE = 2.5  # seconds: files younger than two are not remembered, see edgeml/engine/fingerprint.py

_HASHLIB = "import hashlib,sys;[hashlib.file_digest(open(path,'rb'),'sha256') for path in sys.argv[1:]]"

# The console script, and how much memory it took itself and the largest that it started.
_TELLING = """\
import json, resource, sys
from edgeml.cli import main
code = main(sys.argv[2:])
peaks = [resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
json.dump(peaks, open(sys.argv[1], "w"))
sys.exit(code)
"""


@dataclass(frozen=True)
class Row:
    """One figure, what was wanted of it, and whether it is that."""

    what: str
    value: str
    goal: str = ""
    met: bool | None = None


class Bench:
    """Everything happens in one folder, which is a project of its own."""

    def __init__(self, work: Path, repeats: int) -> None:
        self.work = work
        self.repeats = repeats
        self.edgeml = edgeml()
        self.jobs = os.cpu_count() or 1
        self.environment = plain_environment(HOME=str(work), **checkout())
        self.bare = {**self.environment, "PYTHONPATH": ""}
        self.python = str(venvs.prepare(venvs.BARE) / "python")

    def run(self, folder: Path, *arguments: str) -> Measured:
        command = [self.edgeml, "run", "pipeline.yml", "--jobs", str(self.jobs), *arguments]
        return measure(command, folder, self.environment, self.work / "log")

    def statuses(self, folder: Path) -> dict[str, int]:
        """How many steps of the newest run ended how."""
        newest = max((folder / ".edgeml/runs").iterdir(), key=lambda run: (run / "run.json").stat().st_mtime)
        told = [step["status"] for step in json.loads((newest / "run.json").read_text())["steps"]]
        return {status: told.count(status) for status in sorted(set(told))}

    def project(self, name: str) -> Path:
        """A fresh folder of its own state."""
        folder = self.work / name
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        (folder / "edgeml.toml").touch()
        return folder

    def expect(self, folder: Path, **statuses: int) -> None:
        found = self.statuses(folder)
        if found != statuses:
            raise Failed(f"{folder.name}: steps ended as {found}, where {statuses} was to be")

    # ---- graphs ----

    def graph(self, kind: str, size: int) -> dict[str, float]:
        """Seconds of a graph bare, cold and cached (medians), and the overhead per step in milliseconds."""
        times: dict[str, list[float]] = {"bare": [], "cold": [], "cached": []}
        made = {"chain": graphs.chain, "mixed": graphs.mixed}[kind](size)
        for number in range(self.repeats + 1):
            say(f"{kind} of {size}: turn {number} of {self.repeats}" if number else f"{kind} of {size}: warming up")
            folder = self.project(f"{kind}-{size}")
            graphs.write_pipeline(folder, made)
            bare = [self.python, graphs.__file__, kind, str(size)]
            bare += [str(folder / "src/step.sh"), str(folder / "bare"), str(self.jobs)]
            turn = {"bare": measure(bare, folder, self.bare, self.work / "log").seconds}
            turn["cold"] = self.run(folder).seconds
            self.expect(folder, completed=size)
            turn["cached"] = self.run(folder).seconds
            self.expect(folder, cached=size)
            if number:
                for name, seconds in turn.items():
                    times[name].append(seconds)
        median = {name: statistics.median(seconds) for name, seconds in times.items()}
        beyond = [cold - bare for cold, bare in zip(times["cold"], times["bare"], strict=True)]
        return median | {
            "overhead_ms": statistics.median(beyond) / size * 1000,
            "cached_ms": median["cached"] / size * 1000,
        }

    def memory(self, size: int) -> dict[str, float]:
        """Peak MB of the engine and of the largest step, cold and cached."""
        folder = self.project("memory")
        graphs.write_pipeline(folder, graphs.mixed(size))
        python, told = str(Path(self.edgeml).with_name("python")), self.work / "peaks"
        command = [python, "-c", _TELLING, str(told), "run", "pipeline.yml", "--jobs", str(self.jobs)]
        unit = 1e6 if sys.platform == "darwin" else 1e6 / 1024
        peaks = {}
        for phase in ("cold", "cached"):
            measure(command, folder, self.environment, self.work / "log")
            peaks[phase], peaks[f"{phase}_children"] = (peak / unit for peak in json.loads(told.read_text()))
        return peaks

    def resolve(self, size: int) -> Measured:
        """Seconds and peak of `--dry-run`."""
        say(f"resolving {size} steps")
        folder = self.project(f"resolve-{size}")
        graphs.write_pipeline(folder, graphs.mixed(size))
        tried = [self.run(folder, "--dry-run") for _ in range(self.repeats)]
        return Measured(statistics.median(one.seconds for one in tried), max(one.peak for one in tried))

    # ---- inputs ----

    def inputs(self, gb: int) -> dict[str, float]:
        """Seconds with `gb` files of 1 GB as input, and of `sha256sum` and of bare Python over them.

        Which of the two is the floor differs: not every `sha256sum` uses the processor's instructions for it.
        """
        folder = self.project("inputs")
        data = folder / "data"
        data.mkdir()
        for number in range(gb):
            say(f"writing input {number + 1} of {gb} GB")
            _fill(data / f"part-{number}.bin")
        # A first run waits for the disk where another program's writing is not done.
        os.sync()
        (folder / "pipeline.yml").write_text(_READS)
        time.sleep(SETTLE)
        seconds: dict[str, float] = {}
        files = [str(path) for path in sorted(data.iterdir())]
        say("hashing")
        measure(["cat", *files], folder, self.environment, Path(os.devnull))  # the page cache, as far as it goes
        for name, command in {"sha256sum": ["sha256sum"], "hashlib": [self.python, "-c", _HASHLIB]}.items():
            seconds[name] = measure([*command, *files], folder, self.bare, self.work / "log").seconds
        seconds["first"] = self.run(folder).seconds
        self.expect(folder, completed=1)
        unchanged = []
        for _ in range(self.repeats):
            unchanged.append(self.run(folder).seconds)
            self.expect(folder, cached=1)
        seconds["unchanged"] = statistics.median(unchanged)
        _change(data / "part-0.bin")
        seconds["changed"] = self.run(folder).seconds
        self.expect(folder, completed=1)  # that it was noticed; a cached step is a failure of the benchmark
        return seconds


_READS = """\
type: pipeline
settings:
  default_compute: azureml:cpu-cluster
inputs:
  data: {type: uri_folder, path: ./data}
jobs:
  list:
    type: command
    command: ls ${{inputs.data}} > ${{outputs.names}}
    environment: azureml:local:1
    inputs: {data: "${{parent.inputs.data}}"}
    outputs: {names: {type: uri_file}}
"""


def _fill(path: Path) -> None:
    """1 GB of real bytes, different in each file."""
    block = os.urandom(1 << 20)
    with path.open("wb", buffering=0) as stream:
        for number in range(1000):
            stream.write(number.to_bytes(8, "big"))
            stream.write(block[:999_992])


def _change(path: Path) -> None:
    """One other byte in the middle; size and time of last change as they were."""
    before = path.stat()
    with path.open("r+b") as stream:
        stream.seek(before.st_size // 2)
        byte = stream.read(1)[0]
        stream.seek(before.st_size // 2)
        stream.write(bytes([byte ^ 1]))
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    after = path.stat()
    if (after.st_size, after.st_mtime_ns) != (before.st_size, before.st_mtime_ns):
        raise Failed("this file system does not keep a restored time, so the change cannot be hidden")


def about_graphs(bench: Bench, nodes: int) -> tuple[list[Row], dict[str, Any]]:
    small, large = bench.graph("chain", CHAIN), bench.graph("mixed", nodes)
    memory = bench.memory(nodes)
    growth = large["overhead_ms"] / small["overhead_ms"]
    engine = max(memory["cold"], memory["cached"])
    rows = [
        Row(f"{nodes} steps, bare shells", f"{large['bare']:.2f} s"),
        Row(f"{nodes} steps, cold", f"{large['cold']:.2f} s"),
        Row(f"{nodes} steps, nothing changed", f"{large['cached']:.2f} s ({large['cached_ms']:.2f} ms a step)"),
        Row(f"overhead per step, chain of {CHAIN}", f"{small['overhead_ms']:.2f} ms"),
        Row(
            f"overhead per step, {nodes} steps",
            f"{large['overhead_ms']:.2f} ms ({growth:.2f} of the chain's)",
            f"at most {GOAL_GROWTH:.0f} of the chain's",
            growth <= GOAL_GROWTH,
        ),
        Row(
            "peak memory of the engine",
            f"{memory['cold']:.0f} MB cold, {memory['cached']:.0f} MB cached",
            f"below {GOAL_MEMORY:.0f} MB",
            engine < GOAL_MEMORY,
        ),
        # A child counts what the engine had when it was forked, so this is never below the engine's own.
        Row("peak memory of its largest child, fork included", f"{memory['cold_children']:.0f} MB"),
    ]
    return rows, {"chain": small, "mixed": large, "memory": memory, "growth": growth}


def about_resolving(bench: Bench, large: int) -> tuple[list[Row], dict[str, Any]]:
    told = bench.resolve(large)
    value = f"{told.seconds:.2f} s, peak {told.peak:.0f} MB"
    row = Row(f"{large} steps, --dry-run", value, f"below {GOAL_RESOLVE:.0f} s", told.seconds < GOAL_RESOLVE)
    return [row], asdict(told)


def about_inputs(bench: Bench, gb: int) -> tuple[list[Row], dict[str, Any]]:
    free = shutil.disk_usage(bench.work).free / 1e9
    room = min(gb, int(gb * free / FREE_GB) if free < FREE_GB else gb)
    if room < 1:
        raise Failed(f"only {free:.1f} GB are free in {bench.work}; point TMPDIR to a larger disk")
    seconds = bench.inputs(room)
    shown = f"{room} GB" + (f" (for want of disk, instead of {gb})" if room < gb else "")
    floor = min(seconds["sha256sum"], seconds["hashlib"])

    def speed(name: str) -> str:
        return f"{seconds[name]:.2f} s, {room * 1000 / seconds[name]:.0f} MB/s"

    rows = [
        Row(f"{shown}, sha256sum", speed("sha256sum")),
        Row(f"{room} GB, bare Python's hashlib", speed("hashlib")),
        Row(f"{room} GB, first run", f"{speed('first')} ({floor / seconds['first']:.0%} of the quicker)"),
        Row(
            f"{room} GB, nothing changed",
            f"{seconds['unchanged']:.3f} s",
            f"below {GOAL_UNCHANGED:.0f} s",
            seconds["unchanged"] < GOAL_UNCHANGED,
        ),
        Row("one byte changed, size and time restored", f"noticed, {seconds['changed']:.2f} s", "noticed", True),
    ]
    return rows, {"gb": room, **seconds}


def table(rows: list[Row]) -> str:
    """The rows as Markdown."""
    word = {None: "", True: "yes", False: "**no**"}
    lines = [f"| {row.what} | {row.value} | {row.goal} | {word[row.met]} |" for row in rows]
    return "\n".join(["| | measured | goal | met |", "|---|---:|---|---|", *lines])


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Measure `edgeml run` on large graphs and large inputs.")
    parser.add_argument("--nodes", type=int, default=1000, help="steps of the graph that is run")
    parser.add_argument("--large", type=int, default=10_000, help="steps of the graph that is only resolved")
    parser.add_argument("--gb", type=int, default=10, help="size of the inputs")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--json", action="store_true", help="print JSON instead of Markdown")
    args = parser.parse_args(argv)
    rows: list[Row] = []
    result: dict[str, Any] = {"cpus": os.cpu_count(), "repeats": args.repeats}
    code = 0
    with tempfile.TemporaryDirectory(prefix="edgeml-scale-") as folder:
        bench = Bench(Path(folder), args.repeats)
        parts: dict[str, Callable[[], tuple[list[Row], dict[str, Any]]]] = {
            "graphs": lambda: about_graphs(bench, args.nodes),
            "resolving": lambda: about_resolving(bench, args.large),
            "inputs": lambda: about_inputs(bench, args.gb),
        }
        for name, measured in parts.items():
            try:
                more, result[name] = measured()
            except Failed as failed:
                more, result[name], code = [Row(name, f"not measured: {failed}")], {"problem": str(failed)}, 1
            rows += more
    result["goals"] = [asdict(row) for row in rows if row.met is not None]
    print(json.dumps(result, indent=2, sort_keys=True) if args.json else table(rows))
    return code


if __name__ == "__main__":
    sys.exit(main())
