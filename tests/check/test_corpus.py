"""`edgeml check` over small trees: each of bad/ gives exactly the findings it states, those of good/ give none.

A bad tree is a folder `<rule>` or `<rule>-<variant>` with `findings.txt`: sorted lines `path:line RULE`.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from edgeml.check import RULES, check

CORPUS = Path(__file__).parents[1] / "corpus"
BAD = sorted(path.name for path in (CORPUS / "bad").iterdir())
GOOD = sorted(path.name for path in (CORPUS / "good").iterdir())


def planted(tree: Path, folder: Path) -> Path:
    """A copy of a tree that lies in no project, so that only its own settings and policy hold."""
    return Path(shutil.copytree(tree, folder / "tree", symlinks=True, ignore=shutil.ignore_patterns("findings.txt")))


def expected(name: str) -> list[str]:
    return (CORPUS / "bad" / name / "findings.txt").read_text().splitlines()


@pytest.mark.parametrize("name", BAD)
def test_a_bad_tree_gives_exactly_its_findings(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(planted(CORPUS / "bad" / name, tmp_path))
    findings = check(["."])
    assert sorted(f"{finding.path}:{finding.line} {finding.rule}" for finding in findings) == expected(name), findings


@pytest.mark.parametrize("name", GOOD)
def test_a_good_tree_gives_none(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(planted(CORPUS / "good" / name, tmp_path))
    assert check(["."]) == []


@pytest.mark.parametrize("rule", [rule.id for rule in RULES])
def test_a_rule_has_a_tree_that_breaks_it(rule: str) -> None:
    named = [name for name in BAD if name == rule or name.startswith(f"{rule}-")]
    assert any(line.endswith(f" {rule}") for name in named for line in expected(name)), f"add bad/{rule}"


def test_the_corpus_is_whole() -> None:
    assert len(BAD) >= 11 and len(GOOD) >= 2


def test_the_command_ends_with_1_for_a_bad_tree_and_with_0_for_a_good_one(tmp_path: Path) -> None:
    for kind, name, code in (("bad", "unknown-key", 1), ("good", "train", 0)):
        (tmp_path / kind).mkdir()
        folder = planted(CORPUS / kind / name, tmp_path / kind)
        command = [sys.executable, "-m", "edgeml", "check", "."]
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=60)
        assert done.returncode == code, done.stdout + done.stderr
