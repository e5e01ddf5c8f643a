"""ONNX Runtime tells its maker nothing: no identifier is kept, no name is asked for, wherever we load a model.

It asks for its maker's host ten seconds after it was loaded, and writes identifier and queue at once. So each process
here has a new home folder, which must stay empty, and one of them lives long enough to be heard by a proxy.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.whole import whole

ROOT = Path(__file__).resolve().parents[1]
ASKS = 15.0  # seconds in which the unhindered library has asked
MODEL = """
from onnx import TensorProto, helper
value = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["rows"]) for name in "xy"]
graph = helper.make_graph([helper.make_node("Identity", ["x"], ["y"])], "g", value[:1], value[1:])
model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
data = model.SerializeToString()
"""
SESSION = "import onnxruntime; onnxruntime.InferenceSession(data, providers=['CPUExecutionProvider'])"
LOADS = {
    "serving": "from edgeml.serving.model import _session; _session('m', data, 1)",
    "airlock": "from edgeml.airlock.models import activations; activations.session(model, False)",
    "image": "import contextlib; from edgeml.image import golden\n"
    "with contextlib.suppress(Exception):\n    golden.record(data, {'features': []}, {}, 'seed')",
    "evaluate_model": "import evaluate_model as c; from pathlib import Path; from types import SimpleNamespace as N\n"
    "Path('model.onnx').write_bytes(data)\n"
    'Path(\'signature.json\').write_text(\'{"features":[],"task":1,"target":1,"classes":1,"positive":1}\')\n'
    "c.open_model(Path('.'), N(task=1, target=1, classes=1, positive=1, columns={}))",
    "train_model": "import train_model as c; from types import SimpleNamespace as N\n"
    "import polars, contextlib\n"
    "with contextlib.suppress(Exception):\n    c.parity(data, N(predict=lambda _: None), polars.DataFrame(), [])",
}


@pytest.fixture
def proxy() -> Iterator[tuple[str, list[str]]]:
    """A proxy that lets nothing through and remembers what it was asked for."""
    asked: list[str] = []
    with socket.create_server(("127.0.0.1", 0)) as server:

        def listen() -> None:
            while True:
                try:
                    connection, _ = server.accept()
                except OSError:
                    return
                with connection:
                    asked.append(connection.recv(200).split(b"\r\n")[0].decode())

        threading.Thread(target=listen, daemon=True).start()
        yield f"http://127.0.0.1:{server.getsockname()[1]}", asked
        server.shutdown(socket.SHUT_RDWR)


LOADED = "\nimport sys; assert 'onnxruntime' in sys.modules"


def start(code: str, home: Path, proxy: str = "") -> subprocess.Popen[bytes]:
    home.mkdir()
    paths = [ROOT, *(ROOT / "components" / name for name in ("evaluate_model", "train_model")), ROOT / "edgeml"]
    environment = {"PATH": os.environ["PATH"], "PYTHONPATH": os.pathsep.join(map(str, paths))}
    environment |= {"HOME": str(home), "XDG_CACHE_HOME": str(home), "HTTPS_PROXY": proxy}
    work = home.with_name(f"{home.name}-work")
    work.mkdir()
    return subprocess.Popen(
        [sys.executable, "-c", MODEL + code + LOADED], env=environment, cwd=work, stderr=subprocess.PIPE
    )


def test_no_identifier_is_kept_wherever_a_session_is_made(tmp_path: Path) -> None:
    started = {name: start(code, tmp_path / name) for name, code in LOADS.items()}
    started["unhindered"] = start(SESSION, tmp_path / "unhindered")
    for name, process in started.items():
        _, said = process.communicate(timeout=120)
        assert process.returncode == 0, f"{name}: {said.decode()}"
    kept = {name: sorted(path.name for path in (tmp_path / name).rglob("*") if path.is_file()) for name in started}
    assert kept.pop("unhindered"), "a library that keeps nothing tests nothing"
    assert kept == {name: [] for name in LOADS}


@whole("waits 15 s for what must not come")
def test_no_name_is_asked_for(proxy: tuple[str, list[str]], tmp_path: Path) -> None:
    where, asked = proxy
    wait = f"\nimport time; time.sleep({ASKS})"
    process = start(f"{LOADS['serving']}; {LOADS['airlock']}{wait}", tmp_path / "quiet", where)
    _, said = process.communicate(timeout=120)
    assert process.returncode == 0, said.decode()
    assert asked == []
