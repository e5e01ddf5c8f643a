"""The demo's rows are public samples: it runs where there is no sandbox, and says so; where there is one it uses it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

from tests.engine.project import EDGEML
from tests.sandbox.test_run import without_bubblewrap
from tests.whole import whole


@whole("takes another 20 s of the demo")
def test_without_bubblewrap_the_demo_goes_on_and_says_so(checkout: Path) -> None:
    path = os.pathsep.join([str(Path(sys.executable).parent), without_bubblewrap(checkout)])
    environment = {**os.environ, "PATH": path}
    done = subprocess.run([*EDGEML, "demo", "--json"], cwd=checkout, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    lines = [line for line in done.stderr.splitlines() if "sandbox" in line]
    assert lines == [
        "edgeml: 6 private steps run without a sandbox (bubblewrap is not installed; "
        "install it (on Debian and Ubuntu: apt install bubblewrap))"
    ]
    record = json.loads(done.stdout)["record"]
    assert record["no_sandbox"] is True
    assert {(step["private"], step["sandbox"]) for step in record["steps"]} == {(True, "none")}
    shown = subprocess.run([*EDGEML, "models", "show", "breast-cancer:1"], cwd=checkout, capture_output=True, text=True)
    assert any(line.split() == ["sandbox", "none"] for line in shown.stdout.splitlines()), shown.stdout
