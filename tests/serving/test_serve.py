"""`edgeml serve`: the same application on this machine, and a command to try it that works as printed."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from edgeml.cli import main


def test_a_folder_is_served_and_the_printed_command_scores(mixed_model: Path, tmp_path: Path) -> None:
    if shutil.which("curl") is None:
        pytest.skip("there is no curl on this machine")
    command = [sys.executable, "-m", "edgeml", "serve", str(mixed_model), "--port", "0"]
    environment = {**os.environ, "PYTHONPATH": os.getcwd()}
    with subprocess.Popen(
        command, cwd=tmp_path, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        ready = json.loads(process.stdout.readline())
        assert f"http://127.0.0.1:{ready['port']}" in process.stderr.readline()
        told = subprocess.run(["bash", "-c", process.stderr.readline()], capture_output=True, text=True, check=True)
        assert json.loads(told.stdout)["predictions"][0]["label"] == "no"
        process.send_signal(signal.SIGINT)
        assert process.wait(20) == 0


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["./nowhere"], "there is no ./nowhere"),
        (["."], "there is no model.onnx in"),
        (["nobody:1"], "no model 'nobody' is registered"),
        ([".", "--port", "x"], "EDGEML_SERVE_PORT must be a whole number"),
    ],
)
def test_what_cannot_be_served_is_told(
    arguments: list[str],
    words: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["serve", *arguments]) != 0
    assert words in capsys.readouterr().err
