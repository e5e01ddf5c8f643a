"""The start: settings read strictly, models taken only where their signature is theirs, one line when it is ready."""

from __future__ import annotations

import json
import os
import re
import socket
import subprocess
import sys
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest

from edgeml.serving.model import Model
from edgeml.serving.settings import Settings, Unusable
from tests.serving import models
from tests.serving.conftest import ROOT, Start


def refused(**settings: Any) -> str:
    """What a server that does not start says."""
    environment = {**os.environ, **{f"EDGEML_SERVE_{name.upper()}": str(value) for name, value in settings.items()}}
    done = subprocess.run(
        [sys.executable, "-m", "edgeml.serving"], cwd=ROOT, env=environment, capture_output=True, text=True, timeout=60
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("edgeml: ")
    assert done.stderr.count("\n") == 1
    return done.stderr


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"port": "x"}, "EDGEML_SERVE_PORT must be a whole number from 0 to 65535"),
        ({"port": 65_536}, "EDGEML_SERVE_PORT"),
        ({"rows": 0}, "EDGEML_SERVE_ROWS"),
        ({"rows": "1e3"}, "EDGEML_SERVE_ROWS"),
        ({"body_bytes": 1 << 20, "buffer_bytes": 1 << 19}, "EDGEML_SERVE_BUFFER_BYTES must be at least"),
        ({"log": "none"}, "EDGEML_SERVE_LOG must be one of all, errors"),
        ({"name": "a/b"}, "EDGEML_SERVE_NAME"),
        ({"version": "1 "}, "EDGEML_SERVE_VERSION"),
        ({"timeout": 3}, "EDGEML_SERVE_TIMEOUT is no setting"),
        ({"model": "/nowhere"}, "there is no model.onnx in /nowhere"),
        ({"host": "256.0.0.1"}, "cannot listen on 256.0.0.1"),
    ],
)
def test_a_senseless_setting_stops_the_start(settings: dict[str, Any], words: str) -> None:
    assert words in refused(**settings)


def edit(change: Callable[[dict[str, Any]], object]) -> Callable[[Path], None]:
    def spoil(folder: Path) -> None:
        file = folder / "signature.json"
        document = json.loads(file.read_text())
        change(document)
        file.write_text(json.dumps(document))

    return spoil


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda folder: (folder / "model.onnx").write_bytes(b"not a model"), "no model that onnxruntime can load"),
        (lambda folder: (folder / "model.onnx").write_bytes(b""), "no model that onnxruntime can load"),
        (lambda folder: (folder / "signature.json").write_text("{"), "not valid JSON"),
        (lambda folder: (folder / "signature.json").write_text("[]"), "not of the known form"),
        (edit(lambda document: document.pop("outputs")), "not of the known form"),
        (edit(lambda document: document["inputs"].pop()), "differ in their inputs"),
        (edit(lambda document: document["inputs"].reverse()), "differ in their inputs"),
        (edit(lambda document: document["inputs"][0].update(dtype="float64")), "differ in their inputs"),
        (edit(lambda document: document["outputs"][1].update(shape=[None, 3])), "differ in their outputs"),
        (edit(lambda document: document["features"][0].update(type="date")), "age the unknown type date"),
        (edit(lambda document: document["features"][0].update(type="string")), "calls age string"),
        (edit(lambda document: document["features"].append(document["features"][0])), "feature twice"),
    ],
)
def test_a_model_that_is_not_what_its_signature_says_is_not_served(
    tmp_path: Path, spoil: Callable[[Path], object], words: str
) -> None:
    folder = models.mixed(tmp_path / "model")
    spoil(folder)
    with pytest.raises(Unusable, match=re.escape(words)):
        Model(Settings(model=str(folder)))


def test_a_port_in_use_is_told(mixed_model: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        words = refused(model=mixed_model, host="127.0.0.1", port=port)
    assert f"cannot listen on 127.0.0.1:{port}" in words


def test_the_first_line_says_what_is_served_where(start: Start, mixed_model: Path) -> None:
    import hashlib

    served = start(mixed_model, name="patients")
    line = served.lines()[0]
    sha256 = hashlib.sha256((mixed_model / "model.onnx").read_bytes()).hexdigest()
    assert line | {"time": "", "seconds": 0} == {
        "time": "",
        "event": "ready",
        "host": "127.0.0.1",
        "port": served.port,
        "seconds": 0,
        "name": "patients",
        "version": sha256[:12],
        "sha256": sha256,
    }


def test_it_listens_on_ipv6(start: Start, mixed_model: Path) -> None:
    if not socket.has_ipv6 or not Path("/proc/net/if_inet6").exists():
        pytest.skip("this machine has no IPv6")
    served = start(mixed_model, host="::1")
    with socket.create_connection(("::1", served.port)) as connection:
        connection.sendall(b"GET /v2/health/live HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")
        assert connection.recv(1000).startswith(b"HTTP/1.1 200 OK")


def test_the_server_needs_nothing_else_of_edgeml(mixed_model: Path) -> None:
    code = (
        "import sys, edgeml.serving.__main__, edgeml.serving.app, edgeml.serving.server, uvloop\n"
        "print(*sorted({name.partition('.')[0] for name in sys.modules}), sep='\\n')\n"
        "print(*sorted(name for name in sys.modules if name.startswith('edgeml')), sep='\\n')\n"
    )
    done = subprocess.run([sys.executable, "-Ic", f"import sys; sys.path.insert(0, {str(ROOT)!r})\n{code}"],
        capture_output=True, text=True, check=True)  # fmt: skip
    found = set(done.stdout.split())
    own = {name for name in found if name.startswith("edgeml.") and not name.startswith("edgeml.serving")}
    assert own == set()
    third = {name for name in found if name not in sys.stdlib_module_names and not name.startswith(("_", "edgeml"))}
    theirs = {"flatbuffers", "google", "packaging", "typing_extensions", "cython_runtime"}
    assert third - theirs == {"numpy", "onnxruntime", "msgspec", "httptools", "uvloop"}


def test_the_page_lists_every_setting_with_its_default() -> None:
    rows = re.findall(
        r"^\| `EDGEML_SERVE_(\w+)` \| (?:`(.*?)`)? ?\|", (ROOT / "docs/serving.md").read_text(), re.MULTILINE
    )
    assert dict(rows) == {field.name.upper(): str(field.default) for field in fields(Settings)}
