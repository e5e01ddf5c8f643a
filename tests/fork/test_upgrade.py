"""`edgeml upgrade`: a later template comes into a fork, and what is the team's stays as it is."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from edgeml.fork import line
from edgeml.fork.git import Git
from tests.conftest import ROOT
from tests.fork.button import git, press
from tests.fork.conftest import LATER, commit, write

Edgeml = Callable[..., tuple[int, str, str]]
BRANCH = f"edgeml/upgrade/{LATER}"


def test_a_fork_of_this_repository_takes_a_later_version_and_keeps_every_file_of_the_team(
    whole: Path, pressed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, edgeml: Edgeml
) -> None:
    monkeypatch.chdir(whole)
    assert edgeml("init", "--yes", "--name", "ward", "--owner", "@clinic/ml", "--location", "westeurope")[0] == 0
    team = _the_team_works(whole)
    template = tmp_path / "template"
    git(tmp_path, "clone", "--quiet", str(pressed), "template")
    _the_template_moves_on(template)

    code, said, errors = edgeml("upgrade", "--from", str(template), "--ref", LATER, "--json")
    assert code == 0, errors
    outcome = json.loads(said)
    assert (outcome["action"], outcome["branch"], outcome["conflicts"]) == ("made", BRANCH, [])
    assert git(whole, "status", "--porcelain") == "" and git(whole, "branch", "--show-current") == "main"

    fork, theirs, after = (Git(whole).entries(tree) for tree in ("main", git(template, "rev-parse", LATER), BRANCH))
    drawn = line.parse((ROOT / "template.toml").read_text())
    own = {path for path in fork if "team" in drawn.sides(path)} - {".template.json"}
    assert own >= {path for path in team if "team" in drawn.sides(path)} and len(own) > 20
    assert {path: after.get(path) for path in own} == {path: fork[path] for path in own}, "the team's, byte by byte"
    assert {path: after.get(path) for path in team} == {path: fork[path] for path in team}, "and what it added anywhere"
    brought = {path for path in theirs if "team" not in drawn.sides(path)}
    assert {path: after.get(path) for path in brought} == {path: theirs[path] for path in brought}, "all else is theirs"
    assert after.keys() == own | set(team) | brought | {".template.json"}
    assert "M components/train_model/train_model.py" in outcome["yours"]
    assert "A components/brand_new/component.yml" in outcome["yours"]
    assert "D docs/report.md" in outcome["changes"] and "A docs/rows.md" in outcome["changes"]

    assert json.loads(edgeml("upgrade", "--from", str(template), "--ref", LATER, "--json")[1])["action"] == "waits"
    git(whole, "merge", "--quiet", "--squash", BRANCH)  # a linear history: nothing of the branch stays
    commit(whole, "Upgrade")
    assert edgeml("upgrade", "--from", str(template), "--ref", LATER)[1] == f"nothing to do: this fork has {LATER}\n"
    write(template, "docs/azure.md", "# Written anew\n")
    write(template, "edgeml.toml", "# another sample\n")
    commit(template, "Three", "v1.2.0")
    outcome = json.loads(edgeml("upgrade", "--from", str(template), "--json")[1])
    assert (outcome["version"], outcome["changes"]) == ("v1.2.0", ["M .template.json", "M docs/azure.md"])
    assert outcome["yours"] == ["M edgeml.toml"]


def _the_team_works(fork: Path) -> list[str]:
    """Every file of the team is edited, one moved, one removed, others added; returns the added ones."""
    drawn = line.parse((fork / "template.toml").read_text())
    commit(fork, "Begin")
    for path in git(fork, "ls-files").splitlines():
        if "team" in drawn.sides(path) and path != ".template.json":
            write(fork, path, (fork / path).read_bytes() + b"# ours\r\n\xff")
    git(fork, "mv", "contracts/breast_cancer.yml", "contracts/ward.yml")
    git(fork, "rm", "--quiet", "--force", "components/evaluate_model/measures.py")
    added = {
        "components/mine/component.yml": "name: mine\n",
        "deployments/staging.yml": "site: staging\n",
        "contracts/other.yml": (ROOT / "docs/report.md").read_bytes(),  # as like a page of the template as can be
        "docs/our-ward.md": "# Ours\n",
        "benchmarks/peers/ours.txt": "ours\n",
        "notebooks/look.ipynb": "{}\n",
        "tests/own/test_ours.py": "def test_ours(): pass\n",
    }
    for path, text in added.items():
        write(fork, path, text)
    commit(fork, "Work of a year")
    return [*added, "contracts/ward.yml"]


def _the_template_moves_on(template: Path) -> None:
    """Files of the template are added, edited, renamed and deleted; so are the samples on the team's side."""
    drawn = line.parse((template / "template.toml").read_text())
    for path in git(template, "ls-files").splitlines():
        if "team" in drawn.sides(path):
            write(template, path, b"# a later sample\n" + (template / path).read_bytes())
    for path in ("Makefile", "docs/azure.md", "edgeml/cli.py", "pyproject.toml", ".github/workflows/check.yml"):
        write(template, path, (template / path).read_bytes() + b"# later\n")
    git(template, "mv", "docs/data.md", "docs/rows.md")
    write(template, "docs/rows.md", (template / "docs/rows.md").read_text() + "More.\n")
    git(template, "mv", "benchmarks/peers", "benchmarks/others")
    git(template, "rm", "--quiet", "docs/report.md", "edgeml/commands/demo.py")
    git(template, "rm", "--quiet", "-r", "--force", "components/split_data")
    for path in ("edgeml/fresh/__init__.py", "docs/fresh.md", "components/brand_new/component.yml", "extra/new.txt"):
        write(template, path, f"{path}\n")
    commit(template, "A later version", LATER)


def test_where_both_changed_the_template_git_shows_the_conflict_and_nothing_is_lost(
    begun: tuple[Path, Path], edgeml: Edgeml
) -> None:
    template, fork = begun
    code = (fork / "edgeml/code.py").read_text()
    write(
        fork,
        "edgeml/code.py",
        code.replace("line_3 = 3", "line_3 = 'ours'").replace("line_19 = 19", "line_19 = 'ours'"),
    )
    mine = commit(fork, "Cross the line")
    arguments = ("upgrade", "--from", str(template))

    code_, said, _ = edgeml(*arguments, "--dry-run")
    assert code_ == 1 and "1 of them in conflict" in said
    assert git(fork, "status", "--porcelain") == "" and git(fork, "branch", "--list", BRANCH) == ""

    code_, said, _ = edgeml(*arguments)
    assert code_ == 1 and "  edgeml/code.py\n" in said and "git cherry-pick --continue" in said
    assert "UU edgeml/code.py" in git(fork, "status", "--porcelain")
    shown = (fork / "edgeml/code.py").read_text()
    assert re.search(r"<{7}.*line_3 = 'ours'\n={7}\nline_3 = 'later'\n>{7}", shown, re.DOTALL), shown
    assert "line_19 = 'ours'" in shown
    code_, _, errors = edgeml(*arguments)
    assert code_ == 1 and "a merge is under way here" in errors

    git(fork, "cherry-pick", "--abort")
    assert (git(fork, "rev-parse", "HEAD"), git(fork, "status", "--porcelain")) == (mine, "")
    assert edgeml(*arguments)[0] == 1, "again, and the same"
    write(fork, "edgeml/code.py", "settled = True\n")
    git(fork, "add", "--all")
    git(fork, "-c", "core.editor=true", "cherry-pick", "--continue")
    assert git(fork, "rev-parse", f"{BRANCH}^") == mine
    assert (fork / "docs/fresh.md").exists() and (fork / "components/train/train.py").read_text() == "print('sample')\n"
    assert edgeml(*arguments)[:2] == (0, f"nothing to do: this fork has {LATER}\n")
    git(fork, "switch", "--quiet", "main")
    code_, _, errors = edgeml(*arguments)
    assert code_ == 1 and f"`git branch -D {BRANCH}`" in errors, "what was settled there is not overwritten"


@pytest.mark.parametrize("conflicting", [False, True])
def test_ended_anywhere_it_is_done_by_calling_it_again(
    begun: tuple[Path, Path], conflicting: bool, edgeml: Edgeml, monkeypatch: pytest.MonkeyPatch
) -> None:
    template, fork = begun
    if conflicting:
        write(fork, "edgeml/code.py", "ours = True\n")
        commit(fork, "Cross the line")
    head, run = git(fork, "rev-parse", "HEAD"), Git.run
    left = 0

    def ends(self: Git, *arguments: str, **named: str) -> subprocess.CompletedProcess[str]:
        nonlocal left
        left -= 1
        if left < 0:
            raise KeyboardInterrupt
        return run(self, *arguments, **named)

    monkeypatch.setattr(Git, "run", ends)
    ended = 0
    for allowed in range(0, 200, 2):
        left = allowed
        if edgeml("upgrade", "--from", str(template))[0] != 130:
            break
        ended += 1
        if git(fork, "status", "--porcelain", "--untracked-files=no"):
            break  # it was laid out; only the telling is missing
        assert git(fork, "rev-parse", "HEAD") == git(fork, "rev-parse", "main") == head
    assert ended > 8
    monkeypatch.setattr(Git, "run", run)
    if conflicting:
        assert "UU edgeml/code.py" in git(fork, "status", "--porcelain")
        assert git(fork, "branch", "--show-current") == BRANCH
    else:
        assert git(fork, "rev-parse", f"{BRANCH}^") == head and git(fork, "diff", "--name-only", BRANCH).split() == [
            ".template.json",
            "docs/fresh.md",
            "edgeml/code.py",
        ]


def test_a_killed_process_has_moved_nothing(begun: tuple[Path, Path], tmp_path: Path) -> None:
    template, fork = begun
    tools = tmp_path / "bin"
    real = subprocess.run(["which", "git"], capture_output=True, text=True, check=True).stdout.strip()
    write(tools, "git", f'#!/bin/sh\ncase "$*" in *merge-tree*) kill -9 $PPID; exit 1;; esac\nexec {real} "$@"\n')
    (tools / "git").chmod(0o755)
    command = [sys.executable, "-m", "edgeml", "upgrade", "--from", str(template)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    killed = subprocess.run(command, cwd=fork, env=environment | {"PATH": f"{tools}:{os.environ['PATH']}"})
    assert killed.returncode == -9
    assert git(fork, "status", "--porcelain") == "" and git(fork, "branch", "--list", BRANCH) == ""
    assert subprocess.run(command, cwd=fork, env=environment, capture_output=True).returncode == 0
    assert git(fork, "branch", "--list", BRANCH)


def test_what_the_team_took_out_or_moved_of_the_template_is_its_own_decision_to_settle(
    begun: tuple[Path, Path], edgeml: Edgeml
) -> None:
    template, fork = begun
    git(fork, "rm", "--quiet", "edgeml/code.py")
    commit(fork, "We need none of it")
    code, said, _ = edgeml("upgrade", "--from", str(template), "--json")
    assert (code, json.loads(said)["conflicts"]) == (1, ["edgeml/code.py"])
    assert "DU edgeml/code.py" in git(fork, "status", "--porcelain")


def test_a_file_that_goes_over_to_the_team_is_the_forks_from_then_on(begun: tuple[Path, Path], edgeml: Edgeml) -> None:
    template, fork = begun
    text = (template / "template.toml").read_text()
    write(template, "template.toml", text.replace('    "/docs/",\n', "").replace("team = [", 'team = [\n    "/docs/",'))
    write(template, "docs/page.md", "Another page.\n")
    commit(template, "Hand the pages over", "v1.2.0")
    write(fork, "docs/page.md", "Our page.\n")
    commit(fork, "Write")
    code, said, _ = edgeml("upgrade", "--from", str(template), "--json")
    assert (code, json.loads(said)["yours"]) == (
        0,
        ["M components/train/train.py", "A docs/fresh.md", "M docs/page.md"],
    )
    assert git(fork, "show", "edgeml/upgrade/v1.2.0:docs/page.md") == "Our page."


def test_a_fork_of_a_fork_begins_with_its_own_template(
    begun: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, edgeml: Edgeml
) -> None:
    _, fork = begun
    second = press(fork, tmp_path / "second")
    monkeypatch.chdir(second)
    assert edgeml("init", "--yes", "--name", "clinic-b", "--owner", "@b")[0] == 0
    commit(second, "Begin")
    assert json.loads((second / ".template.json").read_text())["tree"] == git(fork, "rev-parse", "HEAD^{tree}")
    write(fork, "docs/page.md", "Ours.\n")
    commit(fork, "Write")
    code, said, errors = edgeml("upgrade", "--from", str(fork), "--ref", "main", "--json")
    assert (code, json.loads(said)["changes"]) == (0, ["M .template.json", "M docs/page.md"]), errors


def test_the_source_is_remembered_where_it_is_an_address(begun: tuple[Path, Path], edgeml: Edgeml) -> None:
    template, fork = begun
    assert edgeml("upgrade")[2] == (
        "edgeml: where the template is was never said; give its repository's address by --from, once\n"
    )
    git(fork, "remote", "add", "template", f"file://{template}")
    assert edgeml("upgrade", "--from", "template")[0] == 0
    held = json.loads(git(fork, "show", f"{BRANCH}:.template.json"))
    assert held == {"tree": git(template, "rev-parse", f"{LATER}^{{tree}}"), "source": f"file://{template}"}
    git(fork, "merge", "--quiet", BRANCH)
    assert edgeml("upgrade")[:2] == (0, f"nothing to do: this fork has {LATER}\n")


REFUSED = [
    (["--ref", "v9.9.9"], 1, "v9.9.9 cannot be had from"),
    (["--ref", "+main:refs/heads/main"], 2, "is no branch, tag or commit"),
    (["--ref=--upload-pack=touch x"], 2, "is no branch, tag or commit"),
    (["--from=--upload-pack=touch"], 2, "is no repository"),
    (["--from", "ext::sh -c touch% x"], 1, "not allowed"),
    (["--from", "https://someone:hush@git.example/edgeml.git"], 2, "holds a credential"),
    (["--from", "nowhere"], 1, "does not appear to be a git repository"),
    (["--base", "v9.9.9"], 1, "v9.9.9 cannot be had from"),
    (["--ref", "v1.0.0", "--base", LATER], 1, "does not come from what this fork has"),
]


@pytest.mark.parametrize(("arguments", "code", "message"), REFUSED, ids=[" ".join(row[0]) for row in REFUSED])
def test_what_cannot_be_done_is_said_and_nothing_moves(
    begun: tuple[Path, Path], arguments: list[str], code: int, message: str, edgeml: Edgeml
) -> None:
    template, fork = begun
    before = git(fork, "for-each-ref", "refs/heads")
    source = [] if any(word.startswith("--from") for word in arguments) else ["--from", str(template)]
    got, _, errors = edgeml("upgrade", *source, *arguments)
    assert (got, errors.count("\n")) == (code, 1), errors
    assert message in errors and "hush" not in errors
    assert git(fork, "for-each-ref", "refs/heads") == before and git(fork, "status", "--porcelain") == ""


def test_what_somebody_added_to_the_branch_is_not_overwritten(begun: tuple[Path, Path], edgeml: Edgeml) -> None:
    template, fork = begun
    assert edgeml("upgrade", "--from", str(template))[0] == 0
    git(fork, "switch", "--quiet", BRANCH)
    write(fork, "docs/fresh.md", "Mended in the pull request.\n")
    mended = commit(fork, "Mend")
    git(fork, "switch", "--quiet", "main")
    code, _, errors = edgeml("upgrade", "--from", str(template))
    assert code == 1 and f"`git branch -D {BRANCH}`" in errors
    assert git(fork, "rev-parse", BRANCH) == mended
    git(fork, "branch", "--quiet", "-D", BRANCH)
    assert edgeml("upgrade", "--from", str(template))[0] == 0


def test_a_tree_with_changes_is_left_alone(begun: tuple[Path, Path], edgeml: Edgeml) -> None:
    template, fork = begun
    write(fork, "docs/page.md", "Half written.\n")
    code, _, errors = edgeml("upgrade", "--from", str(template))
    assert code == 1 and "the working tree has changes; commit or `git stash` them" in errors
    assert (fork / "docs/page.md").read_text() == "Half written.\n"
    write(fork, "own-notes.txt", "untracked files are nobody's business\n")
    git(fork, "checkout", "--quiet", "docs/page.md")
    assert edgeml("upgrade", "--from", str(template))[0] == 0


def test_without_a_record_the_version_must_be_named(
    small: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch, edgeml: Edgeml
) -> None:
    template, fork = small
    monkeypatch.chdir(fork)
    code, _, errors = edgeml("upgrade", "--from", str(template))
    assert code == 2 and "run `edgeml init` and commit .template.json" in errors and "--base TAG" in errors
    outcome = json.loads(edgeml("upgrade", "--from", str(template), "--base", "v1.0.0", "--json")[1])
    assert outcome["changes"] == ["A .template.json", "A docs/fresh.md", "M edgeml/code.py"]


@pytest.mark.parametrize("text", ["{}", '{"tree": "HEAD"}', '{"tree": "' + "a" * 40 + '", "x": 1}', "[", '{"tree": 1}'])
def test_a_record_that_is_not_of_its_form_is_refused(begun: tuple[Path, Path], text: str, edgeml: Edgeml) -> None:
    template, fork = begun
    write(fork, ".template.json", text)
    commit(fork, "Break it")
    code, _, errors = edgeml("upgrade", "--from", str(template))
    assert (code, errors) == (2, "edgeml: .template.json is not of its form; restore it with git\n")


def test_a_base_that_was_never_a_version_is_refused(begun: tuple[Path, Path], edgeml: Edgeml) -> None:
    template, fork = begun
    write(fork, ".template.json", json.dumps({"tree": git(fork, "rev-parse", "HEAD^{tree}"), "source": ""}))
    commit(fork, "Claim what is not so")
    code, _, errors = edgeml("upgrade", "--from", str(template))
    assert code == 1 and "does not come from what this fork has" in errors


def test_elsewhere_than_at_the_top_of_a_repository_it_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, edgeml: Edgeml
) -> None:
    write(tmp_path, "inner/edgeml.toml", "")
    git(tmp_path, "init", "--quiet")
    monkeypatch.chdir(tmp_path / "inner")
    code, _, errors = edgeml("upgrade", "--from", "x")
    assert code == 2 and "is not the top of a git repository" in errors
