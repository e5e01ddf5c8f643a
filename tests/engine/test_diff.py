"""`edgeml runs diff`: for each thing that can change, that it is named, and that nothing else is."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.engine.project import Project

PIPELINE = """
    inputs:
      table: {type: uri_file, path: ./table.csv}
      word: one
    jobs:
      read:
        component: ./read.yml
        inputs: {table: "${{parent.inputs.table}}", word: "${{parent.inputs.word}}"}
      use:
        command: cat ${{inputs.i}} > ${{outputs.o}}
        inputs: {i: "${{parent.jobs.read.outputs.o}}"}
        outputs: {o: {type: uri_file}}
      aside: {command: "echo aside > ${{outputs.o}}", outputs: {o: {type: uri_file}}}
"""
READ = """
    name: read
    code: ./code
    inputs: {table: {type: uri_file}, word: {type: string, optional: true}}
    outputs: {o: {type: uri_file}}
    environment: {image: one}
    environment_variables: {LEVEL: low}
    command: bash read.sh ${{inputs.table}} $[[${{inputs.word}}]] > ${{outputs.o}}
"""


@pytest.fixture
def traced(project: Project) -> Project:
    """Three steps, of which one has everything that a key is made of; run once."""
    project.write("pipeline.yml", PIPELINE)
    project.write("read.yml", READ)
    project.write("table.csv", "secret-cell\n")
    project.write("code/read.sh", 'cat "$1"; echo "$2" $LEVEL; cat more 2>/dev/null || true\n')
    project.write("code/old.txt", "x")
    project.run()
    return project


def diff(project: Project, *args: str) -> dict[str, list[dict]]:
    told = json.loads(project.edgeml("runs", "diff", "--json", *args).stdout)
    return {step["node"]: step["reasons"] for step in told["steps"]}


def edit(name: str, old: str, new: str) -> Callable[[Project], None]:
    def change(project: Project) -> None:
        path = project.folder / name
        assert old in path.read_text()
        path.write_text(path.read_text().replace(old, new))

    return change


def code(project: Project) -> None:
    project.write("code/read.sh", 'cat "$1"; echo changed\n')
    project.write("code/more", "more\n")
    (project.folder / "code/old.txt").unlink()


def rename(project: Project) -> None:
    (project.folder / "table.csv").rename(project.folder / "rows.csv")
    edit("pipeline.yml", "table.csv", "rows.csv")(project)


def mode(project: Project) -> None:
    (project.folder / "code/read.sh").chmod(0o755)


UPSTREAM = "input 'i': output 'o' of step 'read' changed"


@pytest.mark.parametrize(
    ("change", "text", "follows"),
    [
        (edit("read.yml", "bash read.sh", "bash ./read.sh"), "the command changed", False),
        (code, "code: added more; removed old.txt; changed read.sh", True),
        (mode, "code: changed read.sh", False),
        (edit("read.yml", "image: one", "image: two"), "the declared environment changed", False),
        (edit("read.yml", "LEVEL: low", "LEVEL: high"), "the environment variable LEVEL changed", True),
        (edit("read.yml", "LEVEL: low", "LEVEL: low, MORE: x"), "the environment variable MORE was added", False),
        (edit("table.csv", "cell", "row"), "input 'table': the content of table.csv changed", True),
        (rename, "input 'table': table.csv is named rows.csv now", False),
        (edit("pipeline.yml", "word: one", "word: two"), 'input \'word\': "one" -> "two"', True),
    ],
)
def test_what_changed_is_named_and_nothing_else(
    traced: Project, change: Callable[[Project], None], text: str, follows: bool
) -> None:
    change(traced)
    traced.run()
    reasons = diff(traced)
    assert [reason["text"] for reason in reasons["read"]] == [text]
    assert [reason["text"] for reason in reasons["use"]] == ([UPSTREAM] if follows else [])
    assert reasons["aside"] == []


def test_parts_are_told_apart_for_a_program(traced: Project) -> None:
    code(traced)
    edit("pipeline.yml", ', word: "${{parent.inputs.word}}"', "")(traced)
    traced.run()
    reasons = diff(traced)
    assert reasons["read"] == [
        {
            "part": "code",
            "text": "code: added more; removed old.txt; changed read.sh",
            "added": ["more"],
            "removed": ["old.txt"],
            "changed": ["read.sh"],
        },
        {
            "part": "input",
            "text": "input 'word' is no longer set",
            "name": "word",
            "kind": "unset",
            "old": "one",
            "new": None,
        },
    ]
    assert [(reason["part"], reason["kind"]) for reason in reasons["use"]] == [("input", "output")]


def test_the_interpreter_counts(traced: Project, tmp_path: Path) -> None:
    other = tmp_path / "other" / "bin" / "python"
    other.parent.mkdir(parents=True)
    other.symlink_to(Path(sys.executable).resolve())
    traced.run("--python", str(other))
    assert {r["part"] for reasons in diff(traced).values() for r in reasons} == {"interpreter"}


def test_a_run_without_a_change_has_no_reason(traced: Project) -> None:
    traced.run()
    assert set(map(str, diff(traced).values())) == {"[]"}
    shown = traced.edgeml("runs", "diff").stdout
    assert shown.count("nothing differs") == 3


def test_steps_that_ran_although_nothing_changed_say_why(traced: Project) -> None:
    traced.run("--force")
    assert {step: [r["part"] for r in reasons] for step, reasons in diff(traced).items()} == {
        "read": ["forced"],
        "use": ["forced"],
        "aside": ["forced"],
    }
    edit("read.yml", "name: read", "name: read\nis_deterministic: false")(traced)
    edit("read.yml", "bash read.sh", "exit 3 #")(traced)
    traced.run(check=1)
    edit("read.yml", "exit 3 #", "bash read.sh")(traced)
    traced.run()
    assert [r["part"] for r in diff(traced)["read"]] == ["command", "deterministic"]
    assert diff(traced)["use"][0]["text"] == "was not reached in the other run (skipped)"


def test_a_failure_and_a_lost_cache_are_told_apart(traced: Project) -> None:
    flag = traced.folder / "go"
    edit("read.yml", "bash read.sh", f"test -e {flag} && bash read.sh")(traced)
    traced.run(check=1)
    flag.touch()
    traced.run()
    assert diff(traced)["read"][0]["part"] == "failed"
    for entry in (traced.folder / ".edgeml/cache").glob("??"):
        entry.rename(entry.with_name("gone-" + entry.name))
    traced.run()
    assert {r["part"] for reasons in diff(traced).values() for r in reasons} == {"cache"}


def test_runs_are_chosen_by_name_or_as_the_one_before_of_the_same_pipeline(traced: Project) -> None:
    first = traced.record()["run"]
    edit("pipeline.yml", "word: one", "word: two")(traced)
    second = traced.record()["run"]
    third = traced.record()["run"]
    traced.write("other.yml", "jobs: {x: {command: echo}}\n")
    traced.edgeml("run", "other.yml")
    assert "no run of other.yml before" in traced.edgeml("runs", "diff", check=2).stderr
    assert diff(traced, third)["read"] == []
    assert [r["old"] for r in diff(traced, second)["read"]] == ["one"]
    assert [(r["old"], r["new"]) for r in diff(traced, third, first)["read"]] == [("one", "two")]
    assert [(r["old"], r["new"]) for r in diff(traced, first, third)["read"]] == [("two", "one")]
    assert "there is no run 'nowhere'" in traced.edgeml("runs", "diff", "nowhere", check=2).stderr
    assert "there is no run 'nowhere'" in traced.edgeml("runs", "diff", first, "nowhere", check=2).stderr


def test_steps_that_came_or_went_are_named(traced: Project) -> None:
    old = traced.record()["run"]
    edit("pipeline.yml", "aside:", "beside:")(traced)
    told = json.loads(traced.edgeml("runs", "diff", traced.record()["run"], old, "--json").stdout)
    assert told["removed"] == ["aside"]
    assert {step["node"]: [r["text"] for r in step["reasons"]] for step in told["steps"]}["beside"] == [
        f"is not in {old}"
    ]
    assert "gone" in traced.edgeml("runs", "diff").stdout


@pytest.mark.parametrize("damage", ["none", "list", "text"])
def test_a_run_whose_files_are_damaged_is_no_traceback(traced: Project, damage: str) -> None:
    code(traced)
    run = traced.folder / ".edgeml/runs" / traced.record()["run"]
    if damage == "none":
        (run / "code.json").unlink()
    else:
        (run / "code.json").write_text({"list": "[]", "text": "{"}[damage])
    assert diff(traced)["read"][0]["text"] == "the code changed (its list of files is gone)"


def test_a_run_of_an_older_edgeml_is_said_to_be_one(traced: Project) -> None:
    run = traced.folder / ".edgeml/runs" / traced.record()["run"]
    record = json.loads((run / "run.json").read_text())
    for step in record["steps"]:
        del step["parts"], step["deterministic"]
    (run / "run.json").write_text(json.dumps(record))
    assert {r["part"] for reasons in diff(traced).values() for r in reasons} == {"unknown"}
    traced.run()
    assert {r["part"] for reasons in diff(traced).values() for r in reasons} == {"unknown"}


def test_no_value_enters_the_record_for_it(traced: Project) -> None:
    edit("read.yml", "LEVEL: low", "LEVEL: tell-nobody")(traced)
    run = traced.folder / ".edgeml/runs" / traced.record()["run"]
    kept = (run / "run.json").read_text() + (run / "code.json").read_text()
    assert "tell-nobody" not in kept
    assert "secret-cell" not in kept
    assert "read.sh" in kept, "names of code files are kept, to be named"
