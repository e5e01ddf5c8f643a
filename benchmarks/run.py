"""What a runner costs around five small processes: `edgeml run` against its peers and against the bare processes.

Each turn goes through all peers, so that a busy moment of the machine meets all alike. For each peer it makes a fresh
folder, measures the whole command as a user types it (cold), then the same with nothing changed (re-run). The first
turn warms up and is thrown away; medians are compared. Steps leave a trace: the table says how many of the five ran.

    python benchmarks/run.py [--runs 7] [--peers edgeml luigi ...] [--json]     (called by `make bench-run`)
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import sys
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import chain
import venvs
from measured import Failed, measure, plain_environment, say

FLOOR = "bare-sh"
PHASES = ("cold", "again")


@dataclass
class Tried:
    """What became of one peer: seconds and steps that ran by phase, or why there are none."""

    peer: chain.Peer
    bin: Path = Path()
    seconds: dict[str, list[float]] = field(default_factory=lambda: {phase: [] for phase in PHASES})
    ran: dict[str, int] = field(default_factory=dict)
    problem: str = ""


def prepare(names: list[str]) -> dict[str, Tried]:
    """Each peer's environment; one that cannot be made is a problem to report, not a reason to stop."""
    tried = {}
    venvs.prepare(venvs.BARE)
    for name in names:
        made = tried[name] = Tried(chain.PEERS[name]())
        try:
            made.bin = venvs.prepare(made.peer.lock or venvs.BARE)
        except Failed as failed:
            made.problem = str(failed)
    return tried


def turn(tried: Tried, keep: bool) -> None:
    """One peer once: cold in a fresh folder, then again."""
    home = Path(tempfile.mkdtemp(prefix="edgeml-bench-"))
    try:
        work = home / "work"
        ignored = shutil.ignore_patterns("__pycache__")
        shutil.copytree(venvs.HERE / "peers" / tried.peer.files, work, ignore=ignored)
        environment = plain_environment(**chain.variables(home), **tried.peer.variables)
        environment["PATH"] = f"{tried.bin}:{environment['PATH']}"

        def run(command: list[str]) -> float:
            filled = [part.replace("{bin}", str(tried.bin)) for part in command]
            return measure(filled, work, environment, home / "log").seconds

        for command in tried.peer.prepare:
            run(command)
        trace = home / "trace"
        for phase, command in zip(PHASES, (tried.peer.cold, tried.peer.again or tried.peer.cold), strict=True):
            trace.write_text("")
            seconds = run(command)
            tried.ran[phase] = len(trace.read_text().splitlines())
            if keep:
                tried.seconds[phase].append(seconds)
    finally:
        shutil.rmtree(home, ignore_errors=True)


def run(names: list[str], runs: int) -> dict[str, Any]:
    tried = prepare([FLOOR, *(name for name in names if name != FLOOR)])
    for number in range(runs + 1):
        say(f"turn {number} of {runs}" if number else "warming up")
        for name, one in tried.items():
            if one.problem:
                continue
            try:
                turn(one, keep=number > 0)
            except Failed as failed:
                one.problem = str(failed)
                say(f"{name}: {one.problem}")
    if tried[FLOOR].problem:
        raise SystemExit(f"the bare processes could not be run: {tried[FLOOR].problem}")
    floor = {phase: statistics.median(tried[FLOOR].seconds[phase]) for phase in PHASES}
    return {
        "cpus": os.cpu_count(),
        "python": sys.version.split()[0],
        "runs": runs,
        "steps": chain.STEPS,
        "peers": {name: _result(name, one, floor) for name, one in tried.items()},
    }


def _result(name: str, one: Tried, floor: dict[str, float]) -> dict[str, Any]:
    told: dict[str, Any] = {
        "version": venvs.version_of(one.peer.lock) if one.peer.lock else "",
        "note": one.peer.note,
    }
    if one.problem:
        return told | {"problem": one.problem}
    for phase in PHASES:
        seconds = one.seconds[phase]
        told[phase] = {
            "median": round(statistics.median(seconds), 4),
            "minimum": round(min(seconds), 4),
            "ratio": round(statistics.median(seconds) / floor[phase], 2),
            "ran": one.ran[phase],
            "seconds": [round(second, 4) for second in seconds],
        }
    return told


def table(result: dict[str, Any]) -> str:
    """The result as Markdown, quickest first."""
    lines = [
        "| runner | cold s | × bare | ran | re-run s | × bare | ran | |",
        "|---|---:|---:|---:|---:|---:|---:|---|",
    ]
    peers: dict[str, dict[str, Any]] = result["peers"]
    for name, told in sorted(peers.items(), key=lambda item: item[1].get("cold", {}).get("median", 1e9)):
        shown = f"{name} {told['version']}".strip()
        if "problem" in told:
            lines.append(f"| {shown} | – | – | – | – | – | – | {told['problem'].replace('|', '¦')} |")
            continue
        cells = [f"{told[phase]['median']:.3f} | {told[phase]['ratio']:.1f} | {told[phase]['ran']}" for phase in PHASES]
        lines.append(f"| {shown} | {' | '.join(cells)} | {told['note']} |")
    return "\n".join(lines)


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Measure `edgeml run` against other local pipeline runners.")
    parser.add_argument("--runs", type=int, default=7, help="turns that count (default: 7)")
    parser.add_argument("--peers", nargs="+", default=list(chain.PEERS), choices=list(chain.PEERS), metavar="NAME")
    parser.add_argument("--json", action="store_true", help="print JSON instead of Markdown")
    args = parser.parse_args(argv)
    if args.runs < 1:
        parser.error("--runs: give 1 or more")
    result = run(args.peers, args.runs)
    print(json.dumps(result, indent=2, sort_keys=True) if args.json else table(result))
    return 0


if __name__ == "__main__":
    sys.exit(main())
