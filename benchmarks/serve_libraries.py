"""Which HTTP library the scoring server could stand on: the same handler in each, the matrix model, one worker.

The handler is the least: parse, call onnxruntime, write. `CPU` is the processor's time of all its processes per
request, which a busy machine blurs less than the rate. The applications are in `peers/serve_libraries`.

    python benchmarks/serve_libraries.py [--turns 3] [--seconds 3] [--libraries ...]
"""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import sys
import tempfile
from dataclasses import dataclass, field
from pathlib import Path

import scoring
import venvs
from measured import Failed, say
from scoring import Load, Material

FILES = venvs.HERE / "peers/serve_libraries"
LOCK = "serve-libraries"
CONNECTIONS = (1, 16)
LIBRARIES = {
    "httptools on uvloop": ["{bin}/python", "protocol.py", "{port}"],
    "uvicorn, bare ASGI": ["{bin}/uvicorn", "asgi:app", "--port", "{port}", "--no-access-log", "--log-level", "error"],
    "starlette on uvicorn": [
        "{bin}/uvicorn",
        "starlette_app:app",
        "--port",
        "{port}",
        "--no-access-log",
        "--log-level",
        "error",
    ],
    "blacksheep on uvicorn": [
        "{bin}/uvicorn",
        "blacksheep_app:app",
        "--port",
        "{port}",
        "--no-access-log",
        "--log-level",
        "error",
    ],
    "granian, ASGI": ["{bin}/granian", "--interface", "asgi", "asgi:app", "--port", "{port}", "--log-level", "error"],
    "granian, RSGI": ["{bin}/granian", "--interface", "rsgi", "rsgi:app", "--port", "{port}", "--log-level", "error"],
    "hypercorn, bare ASGI": ["{bin}/hypercorn", "-k", "uvloop", "asgi:app", "-b", "127.0.0.1:{port}"],
    "robyn": ["{bin}/python", "robyn_app.py", "{port}"],
    "aiohttp on uvloop": ["{bin}/python", "aiohttp_app.py", "{port}"],
    "sanic": ["{bin}/python", "sanic_app.py", "{port}"],
}


@dataclass
class Tried:
    loads: dict[int, list[Load]] = field(default_factory=lambda: {count: [] for count in CONNECTIONS})
    cpu: list[float] = field(default_factory=list)  # microseconds per request at 16
    ready: list[float] = field(default_factory=list)
    memory: list[float] = field(default_factory=list)
    problem: str = ""


def turn(name: str, material: Material, tried: Tried, seconds: float) -> None:
    binaries = venvs.prepare(LOCK)
    with tempfile.TemporaryDirectory(prefix="edgeml-bench-") as temporary:
        folder = Path(temporary) / "app"
        shutil.copytree(FILES, folder, ignore=shutil.ignore_patterns("__pycache__"))
        command = [part.replace("{bin}", str(binaries)) for part in LIBRARIES[name]]
        variables = {"MODEL": str(material.folder / "model.onnx")}
        body = material.table()
        right = lambda answer: answer["label"][0] == material.label  # noqa: E731
        with scoring.running(command, folder, variables, "/score", body, right) as server:
            tried.ready.append(server.ready)
            script = scoring.posting(body)
            scoring.load(server.port, "/score", script, 4, 1, folder)
            for connections in CONNECTIONS:
                before = server.busy()
                found = scoring.load(server.port, "/score", script, connections, seconds, folder)
                if found.refused or found.errors:
                    raise Failed(f"{found.refused} refusals and {found.errors} errors under load")
                tried.loads[connections].append(found)
                if connections == CONNECTIONS[-1]:
                    tried.cpu.append((server.busy() - before) / found.requests * 1e6)
            tried.memory.append(server.memory())


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Measure HTTP libraries under the least scoring handler.")
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=3)
    parser.add_argument("--libraries", nargs="+", default=list(LIBRARIES), choices=list(LIBRARIES), metavar="NAME")
    args = parser.parse_args(argv)
    scoring.wrk()
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    tried = {name: Tried() for name in args.libraries}
    with tempfile.TemporaryDirectory(prefix="edgeml-models-") as temporary:
        material = next(one for one in scoring.materials(Path(temporary)) if one.name == "matrix")
        for number in range(args.turns):
            for name, one in tried.items():
                say(f"turn {number + 1} of {args.turns}: {name}")
                try:
                    turn(name, material, one, args.seconds)
                except Failed as failed:
                    one.problem = str(failed)
    print("| library | c=1 req/s | p50 ms | p99 ms | c=16 req/s | p50 ms | p99 ms | CPU µs | ready s | MB |")
    print("|---|---:|---:|---:|---:|---:|---:|---:|---:|---:|")
    for name, one in tried.items():
        if one.problem:
            print(f"| {name} | {one.problem.replace('|', '¦')} | | | | | | | | |")
            continue
        cells = [name]
        for count in CONNECTIONS:
            loads = one.loads[count]
            cells += [f"{statistics.median(load.rate for load in loads):,.0f}"]
            cells += [f"{statistics.median(load.p50 for load in loads):.2f}"]
            cells += [f"{statistics.median(load.p99 for load in loads):.2f}"]
        cells += [f"{min(one.cpu):.0f}", f"{statistics.median(one.ready):.2f}", f"{max(one.memory):.0f}"]
        print(f"| {' | '.join(cells)} |")
    return 0


if __name__ == "__main__":
    sys.exit(main())
