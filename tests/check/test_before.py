"""`edgeml run` asks the rules first: errors stop it, warnings and the repository's own demands do not."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = "import argparse\np = argparse.ArgumentParser()\np.add_argument('--rate', type=float)\nprint(p.parse_args())\n"
COMPONENT = """\
type: command
name: train
version: 1
code: ./src
inputs: {{rate: {{type: number, default: 0.1}}}}
outputs: {{o: {{type: uri_folder}}}}
command: python train.py {flag} ${{{{inputs.rate}}}} && touch ${{{{outputs.o}}}}/done
environment: azureml:any:1
"""


@pytest.fixture
def project(tmp_path: Path) -> Path:
    (tmp_path / "src").mkdir()
    (tmp_path / "src/train.py").write_text(SCRIPT)
    (tmp_path / "train.yml").write_text(COMPONENT.format(flag="--rate"))
    (tmp_path / "pipeline.yml").write_text("jobs: {train: {component: ./train.yml}}\n")
    return tmp_path


def run(folder: Path, *args: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "edgeml", "run", "pipeline.yml", *args]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=120)


def test_an_error_stops_the_run_before_any_step(project: Path) -> None:
    (project / "train.yml").write_text(COMPONENT.format(flag="--raet"))
    done = run(project)
    assert done.returncode == 2, done.stderr
    assert "train.yml:7:" in done.stderr and "--raet" in done.stderr and "--no-check" in done.stderr
    assert not (project / ".edgeml/runs").exists()
    assert run(project, "--no-check").returncode == 1, "now the script itself refuses it"


def test_what_was_found_faultless_is_looked_at_again_only_when_it_changes(project: Path) -> None:
    assert run(project).returncode == 0
    code = (
        "import sys; from edgeml.cli import main; assert main(['run', 'pipeline.yml']) == 0; "
        "assert 'edgeml.check.finding' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], cwd=project, check=True, capture_output=True)
    script = project / "src/train.py"
    before = script.stat()
    script.write_text(SCRIPT.replace("--rate", "--ratf"))  # of the same size
    os.utime(script, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert run(project).returncode == 2


def test_a_silenced_error_does_not_stop_it(project: Path) -> None:
    silenced = COMPONENT.format(flag="--raet").replace(
        "command:", "# edgeml: allow unknown-argument, because the script is to say so itself\ncommand:"
    )
    (project / "train.yml").write_text(silenced)
    done = run(project)
    assert done.returncode == 1 and "unrecognized arguments: --raet" in done.stderr, done.stderr


def test_policy_is_for_the_check_alone(project: Path) -> None:
    """Other people's pipelines may break what this repository demands of its own, and run."""
    (project / "src/rows.csv").write_text("a,b\n1,2\n")
    (project / "contracts").mkdir()
    (project / "contracts/residency.yml").write_text("private: [stackhub]\n")
    command = [sys.executable, "-m", "edgeml", "check", "."]
    assert subprocess.run(command, cwd=project, capture_output=True).returncode == 1
    assert run(project).returncode == 0
