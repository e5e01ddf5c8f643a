"""The hooks of pre-commit as a developer's commit runs them, offline."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

PRE_COMMIT = [sys.executable, "-m", "pre_commit", "run", "--files"]


def test_a_commit_is_checked_where_it_changed(checkout: Path) -> None:
    def hooks(*files: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run([*PRE_COMMIT, *files], cwd=checkout, capture_output=True, text=True, timeout=300)

    subprocess.run(["git", "init", "-q", "."], cwd=checkout, check=True)
    subprocess.run(["git", "add", "-A"], cwd=checkout, check=True)
    done = hooks("pipelines/train.yml", "edgeml.toml")
    assert done.returncode == 0 and "Passed" in done.stdout, done.stdout
    (checkout / "pipelines/broken.yml").write_text("jobs: {a: {command: x, envirnment: azureml:e:1}}\n")
    subprocess.run(["git", "add", "-A"], cwd=checkout, check=True)
    done = hooks("pipelines/broken.yml")
    assert done.returncode == 1 and "did you mean 'environment'?" in done.stdout, done.stdout
