"""The scoring server against its peers: the same model, the same row, one worker each, wrk on the same machine.

Each turn starts every server in its turn, so that a busy moment meets all alike: to the first right answer, then a
warm-up, then one connection and sixteen. Medians of the turns are compared. Then a minute at saturation, every
hundredth request malformed. Peers get the least that scores: their applications are in `peers/serve`.

    python benchmarks/serve.py [--turns 3] [--seconds 5] [--models columns matrix] [--peers ...] [--saturated 60]
"""

from __future__ import annotations

import argparse
import http.client
import json
import os
import re
import shutil
import statistics
import sys
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import scoring
import venvs
from measured import Failed, say
from scoring import Load, Material

FILES = venvs.HERE / "peers/serve"
CONNECTIONS = (1, 16)
OURS = ("edgeml /score", "edgeml V2")


@dataclass(frozen=True)
class Peer:
    """How a server is started and asked. `prepare` fills the working folder; `{bin}` is the environment's folder."""

    lock: str
    command: list[str]
    path: str
    body: Callable[[Material], Any]
    answer: Callable[[Any], tuple[str, list[float]]]
    prepare: Callable[[Material, Path, Path], None] = lambda material, folder, binaries: None
    variables: Mapping[str, str] = field(default_factory=dict)

    def right(self, material: Material) -> Callable[[Any], bool]:
        """Whether an answer is what onnxruntime says in process."""

        def judge(answer: Any) -> bool:
            label, chance = self.answer(answer)
            near = all(abs(a - b) < 1e-5 for a, b in zip(chance, material.chance, strict=True))
            return label == material.label and near

        return judge


# ---- the servers ----


def _azureml(material: Material, folder: Path, binaries: Path) -> None:
    shutil.copy(FILES / "score.py", folder)
    shutil.copy(material.folder / "model.onnx", folder)


def _mlserver(material: Material, folder: Path, binaries: Path) -> None:
    shutil.copy(FILES / "runtime.py", folder)
    shutil.copy(material.folder / "model.onnx", folder)
    model = {"name": "model", "implementation": "runtime.Onnx", "parameters": {"uri": "./model.onnx"}}
    (folder / "model-settings.json").write_text(json.dumps(model))


def _mlflow(material: Material, folder: Path, binaries: Path) -> None:
    from measured import measure, plain_environment

    command = [str(binaries / "python"), str(FILES / "save_for_mlflow.py"), str(material.folder / "model.onnx")]
    measure(command, folder, plain_environment(HOME=str(folder)), folder / "saving")


def _outputs(answer: Any) -> tuple[str, list[float]]:
    found = {output["name"]: output["data"] for output in answer["outputs"]}
    return found["label"][0], found["probabilities"]


def _ours(answer: Any) -> tuple[str, list[float]]:
    (prediction,) = answer["predictions"]
    return prediction["label"], list(prediction["probabilities"].values())


_EDGEML = {
    "EDGEML_SERVE_MODEL": "{model}",
    "EDGEML_SERVE_HOST": scoring.HOST,
    "EDGEML_SERVE_PORT": "{port}",
    "PYTHONPATH": str(venvs.HERE.parent),
}
_MLSERVER = {f"MLSERVER_{kind}_PORT": "0" for kind in ("GRPC", "METRICS")} | {
    "MLSERVER_HOST": scoring.HOST,
    "MLSERVER_HTTP_PORT": "{port}",
    "MLSERVER_PARALLEL_WORKERS": "0",
    "MLSERVER_DEBUG": "false",
}
PEERS = {
    OURS[0]: Peer("", [sys.executable, "-m", "edgeml.serving"], "/score", Material.table, _ours, variables=_EDGEML),
    OURS[1]: Peer(
        "",
        [sys.executable, "-m", "edgeml.serving"],
        "/v2/models/model/infer",
        Material.tensors,
        _outputs,
        variables=_EDGEML,
    ),
    "azureml-inference-server-http": Peer(
        "azureml-inference-server-http",
        ["{bin}/gunicorn", "-b", "127.0.0.1:{port}", "-w", "1", "azureml_inference_server_http.server.entry:app"],
        "/score",
        Material.table,
        lambda answer: (answer["label"][0], answer["probabilities"][0]),
        _azureml,
        {"AZUREML_ENTRY_SCRIPT": "score.py", "AZUREML_MODEL_DIR": ".", "AML_APP_ROOT": ".", "WORKER_COUNT": "1"},
    ),
    "mlflow models serve": Peer(
        "mlflow",
        [
            "{bin}/mlflow",
            "models",
            "serve",
            "-m",
            "model",
            "--env-manager",
            "local",
            "-h",
            "127.0.0.1",
            "-p",
            "{port}",
            "-w",
            "1",
        ],
        "/invocations",
        lambda material: (
            {"inputs": {"features": [material.row]}}
            if material.name == "matrix"
            else {"inputs": {name: [[value]] for name, value in zip(material.columns, material.row, strict=True)}}
        ),
        lambda answer: (
            answer["predictions"]["label"][0],
            answer["predictions"]["probabilities"][0],
        ),
        _mlflow,
    ),
    "MLServer": Peer(
        "mlserver",
        ["{bin}/mlserver", "start", "."],
        "/v2/models/model/infer",
        Material.tensors,
        _outputs,
        _mlserver,
        _MLSERVER,
    ),
}


# ---- measuring ----


@dataclass
class Tried:
    """What became of one server with one model."""

    version: str = ""
    ready: list[float] = field(default_factory=list)
    memory: list[float] = field(default_factory=list)
    loads: dict[int, list[Load]] = field(default_factory=lambda: {count: [] for count in CONNECTIONS})
    problem: str = ""

    def median(self, connections: int, what: Callable[[Load], float]) -> float:
        return statistics.median(map(what, self.loads[connections]))


def turn(name: str, material: Material, tried: Tried, seconds: float) -> None:
    """One server once: start, warm-up, load, end."""
    peer = PEERS[name]
    binaries = venvs.prepare(peer.lock) if peer.lock else Path(sys.executable).parent
    with tempfile.TemporaryDirectory(prefix="edgeml-bench-") as temporary:
        folder = Path(temporary)
        peer.prepare(material, folder, binaries)
        command = [part.replace("{bin}", str(binaries)) for part in peer.command]
        variables = {key: value.replace("{model}", str(material.folder)) for key, value in peer.variables.items()}
        body = peer.body(material)
        with scoring.running(command, folder, variables, peer.path, body, peer.right(material)) as server:
            tried.ready.append(server.ready)
            script = scoring.posting(body)
            scoring.load(server.port, peer.path, script, 4, 2, folder)
            for connections in CONNECTIONS:
                found = scoring.load(server.port, peer.path, script, connections, seconds, folder)
                if found.refused or found.errors:
                    raise Failed(f"{found.refused} refusals and {found.errors} errors under load")
                tried.loads[connections].append(found)
            tried.memory.append(server.memory())


def compare(material: Material, names: list[str], turns: int, seconds: float) -> dict[str, Tried]:
    tried = {name: Tried() for name in names}
    for number in range(turns):
        for name, one in tried.items():
            if one.problem:
                continue
            say(f"{material.name}, turn {number + 1} of {turns}: {name}")
            try:
                turn(name, material, one, seconds)
                one.version = venvs.version_of(PEERS[name].lock) if PEERS[name].lock else ""
            except Failed as failed:
                one.problem = str(failed)
                say(f"{name}: {one.problem}")
    return tried


def table(material: Material, tried: dict[str, Tried]) -> str:
    """The comparison as Markdown, and how far from the goals the server is."""
    lines = [
        f"| {material.name}: one row of {len(material.row)} numbers | c=1 req/s | p50 ms | p99 ms "
        "| c=16 req/s | p50 ms | p99 ms | ready s | MB |",
        "|---|---:|---:|---:|---:|---:|---:|---:|---:|",
    ]
    for name, one in tried.items():
        shown = f"{name} {one.version}".strip()
        if one.problem:
            lines.append(f"| {shown} | {one.problem.replace('|', '¦')} | | | | | | | |")
            continue
        cells = [shown]
        for count in CONNECTIONS:
            cells += [
                f"{one.median(count, lambda load: load.rate):,.0f}",
                f"{one.median(count, lambda load: load.p50):.2f}",
                f"{one.median(count, lambda load: load.p99):.2f}",
            ]
        cells += [f"{statistics.median(one.ready):.2f}", f"{max(one.memory):.0f}"]
        lines.append(f"| {' | '.join(cells)} |")
    lines.append(f"| onnxruntime in process | {1e6 / material.floor:,.0f} | {material.floor / 1000:.3f} | | | | | | |")
    return "\n".join([*lines, "", *_verdicts(material, tried)])


def _verdicts(material: Material, tried: dict[str, Tried]) -> list[str]:
    """Each goal with what was measured, for /score against the best peer in each respect."""
    ours = tried.get(OURS[0])
    peers = [one for name, one in tried.items() if name not in OURS and not one.problem]
    if ours is None or ours.problem or not peers:
        return []
    rows = []
    for count, goal in ((16, 6), (1, 3)):
        times = ours.median(count, _rate) / max(peer.median(count, _rate) for peer in peers)
        rows.append((f"requests/s at c={count}, of the best peer's", f"{times:.1f} x", f"{goal} x", times >= goal))
        share = ours.median(count, _p99) / min(peer.median(count, _p99) for peer in peers)
        rows.append((f"p99 at c={count}, of the best peer's", f"{share:.2f}", "a third", share <= 1 / 3))
    ready, memory = statistics.median(ours.ready), max(ours.memory)
    rows.append(("start to the first right answer", f"{ready:.2f} s", "below 0.7 s", ready < 0.7))
    rows.append(("resident memory", f"{memory:.0f} MB", "below 100 MB", memory < 100))
    floor = 1e6 / ours.median(16, _rate) / material.floor
    lines = ["| goal | measured | wanted | met |", "|---|---:|---|---|"]
    lines += [f"| {what} | {found} | {wanted} | {'yes' if met else 'no'} |" for what, found, wanted, met in rows]
    lines.append(f"| time per request at c=16, of a call in process | {floor:.1f} x | | |")
    return lines


def _rate(load: Load) -> float:
    return load.rate


def _p99(load: Load) -> float:
    return load.p99


# ---- saturation ----

_MALFORMED = """
local bodies = {'{', '[[1, "x"]]', '{"data": [[NaN]]}', '{"input_data": {"columns": ["a"], "data": [[1]]}}'}
local asked = 0
request = function()
  asked = asked + 1
  if asked % 100 == 0 then return wrk.format("POST", nil, nil, bodies[asked / 100 % 4 + 1]) end
  return wrk.format()
end
"""


def saturate(material: Material, seconds: float) -> str:
    """So long at saturation with 1 % malformed requests; what the client saw and what the server counted."""
    peer = PEERS[OURS[0]]
    variables = {key: value.replace("{model}", str(material.folder)) for key, value in peer.variables.items()}
    with tempfile.TemporaryDirectory(prefix="edgeml-bench-") as temporary:
        folder = Path(temporary)
        body = peer.body(material)
        with scoring.running(peer.command, folder, variables, peer.path, body, peer.right(material)) as server:
            before = _counted(server.port)
            say(f"{seconds:.0f} s at saturation, 1 % malformed")
            seen = scoring.load(server.port, peer.path, scoring.posting(body) + _MALFORMED, 16, seconds, folder)
            after = _counted(server.port)
            memory = server.memory()
    counted = {status: after[status] - before.get(status, 0) for status in after}
    broken = sum(count for status, count in counted.items() if status >= 500)
    unmatched = abs(sum(counted.values()) - seen.requests)
    rows = (
        ("answers seen", f"{seen.requests:,}", ""),
        ("of them refusals of malformed requests", f"{seen.refused:,} ({seen.refused / seen.requests:.2%})", "1 %"),
        ("5xx", f"{broken}", "0"),
        ("errors of sockets, timeouts", f"{seen.errors}", "0"),
        ("counted by the server and not seen, of 16 under way at the end", f"{unmatched}", "at most 16"),
        ("p99", f"{seen.p99:.2f} ms", ""),
        ("resident memory afterwards", f"{memory:.0f} MB", "below 100 MB"),
    )
    lines = [f"| {seconds:.0f} s at saturation, c=16 | measured | wanted |", "|---|---:|---|"]
    return "\n".join([*lines, *(f"| {what} | {found} | {wanted} |" for what, found, wanted in rows)])


def _counted(port: int) -> dict[int, int]:
    """Answers to /score by status, as the server counts them."""
    client = http.client.HTTPConnection(scoring.HOST, port, timeout=10)
    client.request("GET", "/metrics")
    text = client.getresponse().read().decode()
    client.close()
    found = re.findall(r'^edgeml_requests_total\{route="score",status="(\d+)"\} (\d+)$', text, re.MULTILINE)
    return {int(status): int(count) for status, count in found}


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Measure the scoring server against its peers.")
    parser.add_argument("--turns", type=int, default=3, help="turns; medians are compared (default: 3)")
    parser.add_argument("--seconds", type=float, default=5, help="of load, each (default: 5)")
    parser.add_argument("--saturated", type=float, default=60, help="seconds at saturation (default: 60; 0: none)")
    parser.add_argument("--models", nargs="+", default=["columns", "matrix"], choices=["columns", "matrix"])
    parser.add_argument("--peers", nargs="+", default=list(PEERS), choices=list(PEERS), metavar="NAME")
    args = parser.parse_args(argv)
    scoring.wrk()
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    with tempfile.TemporaryDirectory(prefix="edgeml-models-") as temporary:
        made = [one for one in scoring.materials(Path(temporary)) if one.name in args.models]
        for material in made:
            print(table(material, compare(material, args.peers, args.turns, args.seconds)) + "\n", flush=True)
        if args.saturated:
            print(saturate(made[0], args.saturated))
    return 0


if __name__ == "__main__":
    sys.exit(main())
