"""The test before an image is published: it is run as it will be run, and must give the golden answer.

As its own user, on a read-only root, without any network but its own loopback, within budgets of time and memory.
"""

from __future__ import annotations

import json
import os
import subprocess
from typing import Any, NamedTuple

from edgeml.errors import EdgemlError
from edgeml.image import golden as golden_request
from edgeml.image import runtime
from edgeml.image.golden import Golden
from edgeml.image.runtime import Image

CALLS = 200
START_SECONDS = 30


class Proof(NamedTuple):
    """What was seen. Latencies are those of one row over loopback, `unpacked_mb` is all of the image's files."""

    runtime: str
    ready_s: float
    p50_ms: float
    p99_ms: float
    peak_mb: float
    rows: int


def image(run: Image, name: str, golden: Golden, latency_ms: float, memory_mb: int) -> Proof:
    """Run an image and hold it against its golden answer and its budgets. Raises EdgemlError, exit code 1, for a no."""
    kind = runtime.kind()
    if not kind:
        raise EdgemlError(
            "the image cannot be tested: there is neither a docker daemon nor bubblewrap here; install one of them "
            "(on Debian and Ubuntu: apt install bubblewrap)"
        )
    asked = {
        "port": runtime.PORT,
        "path": f"/v2/models/{name}/infer",
        "golden": {"inputs": golden.inputs},
        "single": {"inputs": [_first(entry, len(golden.rows)) for entry in golden.inputs]},
        "calls": CALLS,
        "seconds": START_SECONDS,
    }
    found = _in_docker(run, asked, memory_mb) if kind == "docker" else _in_bubblewrap(run, asked)
    return _judged(kind, run, found, golden, latency_ms, memory_mb)


def _judged(kind: str, run: Image, found: dict[str, Any], golden: Golden, latency_ms: float, memory_mb: int) -> Proof:
    if not found.get("ready"):
        raise EdgemlError(f"the image's server does not get ready: {found.get('log') or 'it says nothing'}", 1)
    if found["uid"] != run.user or found["writable"] or found["interfaces"] != ["lo"]:
        raise EdgemlError("the image was not run as its user, read-only and without a network; nothing is proven", 1)
    try:
        outputs = json.loads(found["answer"])["outputs"]
    except (ValueError, KeyError, TypeError):
        outputs = None
    if found["status"] != 200 or not golden_request.equal(outputs, golden):
        raise EdgemlError(
            f"the image does not give the golden answer (status {found['status']}); it scores otherwise than the model",
            1,
        )
    latencies, peak = found["latencies_ms"], float(found["peak_mb"])
    p50, p99 = latencies[len(latencies) // 2], latencies[len(latencies) * 99 // 100]
    if p99 > latency_ms:
        raise EdgemlError(f"one row takes {p99:.1f} ms at the 99th percentile, image.latency_ms is {latency_ms:g}", 1)
    if peak > memory_mb:
        raise EdgemlError(f"the server takes {peak:.0f} MB, image.memory_mb is {memory_mb}", 1)
    if found.get("exit_code"):
        raise EdgemlError(f"the server ends with code {found['exit_code']} when it is asked to; it should with 0", 1)
    return Proof(kind, found["ready_s"], p50, p99, round(peak, 1), len(golden.rows))


def _in_docker(run: Image, asked: dict[str, Any], memory_mb: int) -> dict[str, Any]:
    with runtime.container(run, memory_mb, "--network", "none") as name:
        line = ["docker", "exec", "--interactive", name, run.command[0], "-c", _probe()]
        found = _found(line, asked | {"start": []}, None)
        if not found.get("ready"):
            logs = subprocess.run(["docker", "logs", name], stdin=subprocess.DEVNULL, capture_output=True, text=True)
            found["log"] = _last(logs.stdout + logs.stderr) or found.get("log", "")
            return found
        subprocess.run(["docker", "stop", "--time", "60", name], stdin=subprocess.DEVNULL, capture_output=True)
        state = ["docker", "inspect", "--format", "{{.State.ExitCode}}", name]
        asked_state = subprocess.run(state, stdin=subprocess.DEVNULL, capture_output=True, text=True)
        return found | {"exit_code": int(asked_state.stdout.strip() or 1)}


def _in_bubblewrap(run: Image, asked: dict[str, Any]) -> dict[str, Any]:
    line = runtime.bubblewrap(run, [run.command[0], "-c", _probe()], "--unshare-net")
    return _found(line, asked | {"start": run.command}, {"PATH": os.environ.get("PATH", os.defpath)})


def _found(line: list[str], asked: dict[str, Any], environment: dict[str, str] | None) -> dict[str, Any]:
    try:
        done = subprocess.run(line, input=json.dumps(asked), env=environment, capture_output=True, text=True,
                              timeout=START_SECONDS + 300)  # fmt: skip
    except subprocess.TimeoutExpired:
        return {"log": "it does not answer in time"}
    try:
        found: dict[str, Any] = json.loads(done.stdout)
    except ValueError:
        found = {}
    return found | {"log": _last(done.stderr)}


def _first(entry: dict[str, Any], rows: int) -> dict[str, Any]:
    return entry | {"shape": [1, *entry["shape"][1:]], "data": entry["data"][: len(entry["data"]) // rows]}


def _probe() -> str:
    with open(os.path.join(os.path.dirname(__file__), "probe.py"), encoding="utf-8") as stream:
        return stream.read()


def _last(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1][:300] if lines else ""
