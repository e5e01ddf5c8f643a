"""What the benchmarks of servers share: models and requests, a started server, and wrk's numbers about it."""

from __future__ import annotations

import http.client
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import venvs
from measured import Failed, plain_environment, say

TREES = 100
HOST = "127.0.0.1"


@dataclass(frozen=True)
class Material:
    """A model in a folder, one row for it, and what onnxruntime says of the row in process."""

    name: str
    folder: Path
    columns: list[str]
    row: list[float]
    label: str
    chance: list[float]
    floor: float  # microseconds of a call in process

    def table(self) -> dict[str, Any]:
        """The row as Azure ML's endpoints take it."""
        return {"input_data": {"columns": self.columns, "data": [self.row]}}

    def tensors(self) -> dict[str, Any]:
        """The row by the Open Inference Protocol."""
        if self.name == "matrix":
            shape = [1, len(self.row)]
            return {"inputs": [{"name": "features", "shape": shape, "datatype": "FP32", "data": self.row}]}
        pairs = zip(self.columns, self.row, strict=True)
        return {"inputs": [{"name": n, "shape": [1, 1], "datatype": "FP32", "data": [v]} for n, v in pairs]}


def materials(folder: Path) -> list[Material]:
    """Gradient boosting of 100 trees over 30 numbers: as one input per column, as this template makes models, and as
    one matrix."""
    from skl2onnx import convert_sklearn
    from skl2onnx.common.data_types import FloatTensorType
    from sklearn.datasets import load_breast_cancer
    from sklearn.ensemble import HistGradientBoostingClassifier

    data = load_breast_cancer()
    columns = [str(name).replace(" ", "_") for name in data.feature_names]
    target = ["malignant" if value == 0 else "benign" for value in data.target]
    estimator = HistGradientBoostingClassifier(max_iter=TREES, early_stopping=False, random_state=1)
    estimator.fit(data.data, target)
    made = []
    for name in ("columns", "matrix"):
        model = convert_sklearn(
            estimator,
            initial_types=[("features", FloatTensorType([None, len(columns)]))],
            options={"zipmap": False},
            target_opset={"": 18, "ai.onnx.ml": 3},
        )
        if name == "columns":
            _by_column(model.graph, columns)
        row = [round(float(value), 4) for value in data.data[100]]
        made.append(_material(name, folder / name, model, columns, row))
    return made


def _by_column(graph: Any, columns: list[str]) -> None:
    """Give a graph one input per column instead of its matrix."""
    from onnx import TensorProto
    from onnx.helper import make_node, make_tensor_value_info

    nodes = [make_node("Concat", columns, ["features"], axis=1), *graph.node]
    del graph.input[:], graph.node[:]
    graph.input.extend(make_tensor_value_info(name, TensorProto.FLOAT, [None, 1]) for name in columns)
    graph.node.extend(nodes)


def _material(name: str, folder: Path, model: Any, columns: list[str], row: list[float]) -> Material:
    import numpy as np
    import onnxruntime

    folder.mkdir(parents=True)
    (folder / "model.onnx").write_bytes(model.SerializeToString())
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(str(folder / "model.onnx"), options, providers=["CPUExecutionProvider"])
    ports = {"inputs": session.get_inputs(), "outputs": session.get_outputs()}
    signature: dict[str, Any] = {
        kind: [
            {
                "name": port.name,
                "dtype": "string" if "string" in port.type else "float32",
                "shape": [size if isinstance(size, int) else None for size in port.shape],
            }
            for port in found
        ]
        for kind, found in ports.items()
    }
    signature |= {"classes": ["benign", "malignant"], "features": [{"name": c, "type": "number"} for c in columns]}
    (folder / "signature.json").write_text(json.dumps(signature))
    block = np.array([row], dtype="float32")
    feed = {"features": block} if name == "matrix" else dict(zip(columns, block.T[:, :, None], strict=True))
    label, chance = session.run(None, feed)
    names = [port.name for port in ports["outputs"]]
    calls = 2000
    took = []
    for _ in range(7):
        began = time.perf_counter()
        for _ in range(calls):
            session.run(names, feed)
        took.append((time.perf_counter() - began) / calls * 1e6)
    return Material(name, folder, columns, row, str(label[0]), [float(value) for value in chance[0]], min(took))


# ---- a server ----


@dataclass(frozen=True)
class Running:
    """A started server: its port, and the seconds from its start to its first right answer."""

    process: subprocess.Popen[bytes]
    port: int
    ready: float

    def memory(self) -> float:
        """Resident MB of the process and all that it has started."""
        return sum(_resident(pid) for pid in _family(self.process.pid)) / 1e6

    def busy(self) -> float:
        """The processor's seconds that they have used."""
        return sum(_busy(pid) for pid in _family(self.process.pid))


@contextmanager
def running(
    command: list[str],
    folder: Path,
    variables: Mapping[str, str],
    path: str,
    body: Any,
    right: Callable[[Any], bool],
    seconds: float = 120,
) -> Iterator[Running]:
    """Start a server and end it again; `{port}` in the command and the variables is a free one. Raises Failed."""
    port = free_port()
    environment = plain_environment(
        HOME=str(folder), **{k: v.replace("{port}", str(port)) for k, v in variables.items()}
    )
    environment["PATH"] = f"{Path(command[0]).parent}:{environment['PATH']}"
    log = folder / "log"
    began = time.perf_counter()
    with log.open("wb") as output:
        process = subprocess.Popen(
            [part.replace("{port}", str(port)) for part in command],
            cwd=folder,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        while not _answers(port, path, body, right):
            if process.poll() is not None or time.perf_counter() - began > seconds:
                told = " / ".join(log.read_text(errors="replace").splitlines()[-3:])
                raise Failed(f"`{command[0]}` gave no right answer: {told[-400:]}")
            time.sleep(0.005)
        yield Running(process, port, time.perf_counter() - began)
    finally:
        if process.poll() is None:
            process.terminate()
            with suppress(subprocess.TimeoutExpired):
                process.wait(15)
        for pid in _family(process.pid):
            _kill(pid)
        process.wait()


def free_port() -> int:
    with socket.socket() as listening:
        listening.bind((HOST, 0))
        return int(listening.getsockname()[1])


def _answers(port: int, path: str, body: Any, right: Callable[[Any], bool]) -> bool:
    try:
        client = http.client.HTTPConnection(HOST, port, timeout=10)
        client.request("POST", path, json.dumps(body), {"content-type": "application/json"})
        got = client.getresponse()
        return got.status == 200 and right(json.loads(got.read()))
    except (OSError, ValueError, http.client.HTTPException, KeyError, TypeError, IndexError):
        return False


def _family(pid: int) -> list[int]:
    found = [pid]
    for parent in found:
        try:
            children = Path(f"/proc/{parent}/task/{parent}/children").read_text().split()
        except OSError:
            continue
        found += map(int, children)
    return found


def _resident(pid: int) -> int:
    try:
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        return 0


def _busy(pid: int) -> float:
    try:
        words = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0.0
    return (int(words[11]) + int(words[12])) / os.sysconf("SC_CLK_TCK")


def _kill(pid: int) -> None:
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)


# ---- wrk ----


@dataclass(frozen=True)
class Load:
    """What wrk saw: requests a second, milliseconds at two percentiles, requests in all, and what went wrong."""

    rate: float
    p50: float
    p99: float
    requests: int
    refused: int  # answers that are not 2xx or 3xx
    errors: int  # of sockets, and timeouts


def wrk() -> str:
    """wrk's path; installed where that is possible."""
    found = shutil.which("wrk")
    if found is None and os.geteuid() == 0 and shutil.which("apt-get"):
        say("installing wrk")
        subprocess.run(["apt-get", "install", "-y", "-qq", "wrk"], stdout=subprocess.DEVNULL, check=False)
        found = shutil.which("wrk")
    if found is None:
        raise SystemExit("this benchmark needs wrk; install it, on Debian by `apt-get install wrk`")
    return found


def load(port: int, path: str, script: str, connections: int, seconds: float, folder: Path) -> Load:
    """Requests of a Lua script over so many connections for so long."""
    file = folder / "wrk.lua"
    file.write_text(script)
    where = f"http://{HOST}:{port}{path}"
    command = [wrk(), "-t1", f"-c{connections}", f"-d{int(seconds)}s", "--latency", "-s", str(file), where]
    told = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    refused = re.search(r"Non-2xx or 3xx responses: (\d+)", told)
    errors = re.search(r"Socket errors: connect (\d+), read (\d+), write (\d+), timeout (\d+)", told)
    return Load(
        float(_found(r"Requests/sec:\s+([\d.]+)", told)),
        # By whole lines: a standard deviation within 97.99% stands in another table.
        _milliseconds(_found(r"(?m)^ +50% +(\S+)$", told)),
        _milliseconds(_found(r"(?m)^ +99% +(\S+)$", told)),
        int(_found(r"(\d+) requests in", told)),
        int(refused[1]) if refused else 0,
        sum(map(int, errors.groups())) if errors else 0,
    )


def posting(body: Any) -> str:
    """The script that posts one body."""
    return f'wrk.method = "POST"\nwrk.headers["content-type"] = "application/json"\nwrk.body = [==[{json.dumps(body)}]==]\n'  # noqa: E501


def _found(pattern: str, told: str) -> str:
    match = re.search(pattern, told)
    if match is None:
        raise Failed(f"wrk said something unknown: {told[-300:]}")
    return match[1]


def _milliseconds(text: str) -> float:
    unit = text.lstrip("0123456789.")
    return float(text.removesuffix(unit)) * {"us": 0.001, "ms": 1, "s": 1000, "m": 60_000}[unit]


def environment_of(name: str) -> Path:
    """The `bin` folder of a peer's environment."""
    return venvs.prepare(name)
