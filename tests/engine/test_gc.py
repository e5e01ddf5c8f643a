"""`edgeml runs gc` and `edgeml cache`: what goes, what stays, what is said of the disk, and engines beside them."""

from __future__ import annotations

import json
import os
import subprocess
import threading
import time
from pathlib import Path

import pytest

from tests.engine.project import EDGEML, Project, wait_until

SIZE = 300_000
FOLDERS = 40_960  # those around the entries or runs, which stay
PIPELINE = """
    inputs: {word: one}
    jobs:
      big:
        command: head -c %d /dev/zero > ${{outputs.o}}/zeros && echo ${{inputs.word}} > ${{outputs.o}}/word
        inputs: {word: "${{parent.inputs.word}}"}
        outputs: {o: {type: uri_folder}}
"""


def gc(project: Project, verb: str, *args: str) -> dict:
    return json.loads(project.edgeml(verb, "gc", "--json", *args).stdout)


def runs_of(project: Project) -> list[str]:
    return [run["run"] for run in json.loads(project.edgeml("runs", "list", "--json").stdout)]


def used(folder: Path) -> int:
    """Space by the system's own tool, which counts a file with several names once."""
    return 1024 * int(
        subprocess.run(["du", "-sk", folder], capture_output=True, text=True, check=True).stdout.split()[0]
    )


def aged(path: Path, days: float) -> None:
    past = time.time() - days * 86400
    os.utime(path, (past, past))


@pytest.fixture
def three(project: Project) -> tuple[Project, list[str]]:
    """Three runs, the newest first, each with outputs of its own."""
    project.write("pipeline.yml", PIPELINE % SIZE)
    return project, [project.record("--input", f"word={word}")["run"] for word in ("one", "two", "three")][::-1]


def test_runs_beyond_the_newest_go(three: tuple[Project, list[str]]) -> None:
    project, names = three
    assert gc(project, "runs")["removed"] == [], "ten are kept where nothing is asked for"
    would = gc(project, "runs", "--keep", "1", "--dry-run")
    assert runs_of(project) == names
    told = gc(project, "runs", "--keep", "1")
    assert told["removed"] == would["removed"] == names[1:]
    assert told["freed_bytes"] == would["freed_bytes"]
    assert runs_of(project) == names[:1]
    assert gc(project, "runs", "--keep", "0")["removed"] == [], "the newest completed one always stays"
    assert [path.name for path in (project.folder / ".edgeml/runs").iterdir()] == names[:1]


def test_what_is_said_to_be_freed_is_what_the_disk_gets_back(three: tuple[Project, list[str]]) -> None:
    project, _ = three
    state = project.folder / ".edgeml"
    before = used(state)
    told = gc(project, "runs", "--keep", "1")
    assert told["still_linked_bytes"] >= 2 * SIZE, "the cache has the outputs still"
    assert abs(before - used(state) - told["freed_bytes"]) <= FOLDERS
    before = used(state)
    status = json.loads(project.edgeml("cache", "status", "--json").stdout)
    assert (status["entries"], SIZE <= status["shared_bytes"] < 2 * SIZE) == (3, True)
    assert abs(used(state / "cache") - status["bytes"]) <= FOLDERS
    told = gc(project, "cache", "--max-size", "0")
    assert (told["dropped"], told["entries"], told["bytes"]) == (3, 0, 0)
    assert 2 * SIZE <= told["freed_bytes"] < 3 * SIZE
    assert SIZE <= told["still_linked_bytes"] < 2 * SIZE, "the run that is left has its outputs"
    assert abs(before - used(state) - told["freed_bytes"]) <= FOLDERS
    text = project.edgeml("cache", "status").stdout
    assert text.startswith("0 entries, 0 B")


def test_age_and_number_are_both_asked_for(three: tuple[Project, list[str]]) -> None:
    project, names = three
    for name in names[1:]:
        aged(project.folder / ".edgeml/runs" / name / "run.json", 8)
    assert gc(project, "runs", "--older-than", "9")["removed"] == []
    assert gc(project, "runs", "--older-than", "7", "--keep", "2")["removed"] == names[2:]
    assert gc(project, "runs", "--older-than", "7")["removed"] == names[1:2]


def test_the_newest_completed_run_of_each_pipeline_outlives_later_failures(three: tuple[Project, list[str]]) -> None:
    project, names = three
    project.write("other.yml", "jobs: {a: {command: 'true'}}\n")
    project.edgeml("run", "other.yml")
    project.write("pipeline.yml", PIPELINE.replace("head", "exit 1; head") % SIZE)
    failed = [project.record(check=1)["run"] for _ in range(2)]
    told = gc(project, "runs", "--keep", "0")
    assert sorted(told["removed"]) == sorted([*names[1:], *failed])
    assert len(runs_of(project)) == told["kept"] == 2


def test_a_run_that_runs_stays(project: Project) -> None:
    project.write("pipeline.yml", "jobs: {a: {command: 'touch $MARK; while ! test -e $GO; do sleep 0.02; done'}}\n")
    mark, go = project.folder / "mark", project.folder / "go"
    environment = {**os.environ, "MARK": str(mark), "GO": str(go)}
    engine = subprocess.Popen(
        [*EDGEML, "run", "pipeline.yml"], cwd=project.folder, env=environment, stderr=subprocess.DEVNULL
    )
    wait_until(mark.exists)
    for extra in (["--dry-run"], []):
        assert gc(project, "runs", "--keep", "0", *extra)["removed"] == []
    go.touch()
    assert engine.wait(20) == 0
    assert len(runs_of(project)) == 1


def test_what_killed_processes_left_goes_and_nothing_else(three: tuple[Project, list[str]]) -> None:
    project, _ = three
    runs, cache = project.folder / ".edgeml/runs", project.folder / ".edgeml/cache"
    (runs / ".removed-1-ab").mkdir()
    (runs / ".removed-1-ab/run.json").write_text("{}")
    for name in ("begun", "begun-just-now", "somebodys"):
        (runs / name).mkdir()
        (runs / name / ".lock").touch()
    (runs / "somebodys/notes.txt").touch()
    for name in ("begun", "somebodys"):
        aged(runs / name, 1)
    gc(project, "runs")
    left = {path.name for path in runs.iterdir()} - set(runs_of(project))
    assert left == {"begun-just-now", "somebodys"}
    dead = subprocess.Popen(["true"])
    dead.wait()
    alive = os.getpid()
    for name in (f"{dead.pid}-00", f"{alive}-00", f"{alive}-01"):
        (cache / "unfinished" / name / "outputs").mkdir(parents=True)
    aged(cache / "unfinished" / f"{alive}-01", 2)
    (cache / f"files.json.{dead.pid}-00.tmp").write_text("{")
    assert gc(project, "cache", "--dry-run")["unfinished"] == 3
    told = gc(project, "cache")
    assert (told["unfinished"], told["dropped"], told["entries"]) == (3, 0, 3)
    assert [path.name for path in (cache / "unfinished").iterdir()] == [f"{alive}-00"]
    assert not list(cache.glob("*.tmp"))


def test_the_least_recently_used_entries_go_first(three: tuple[Project, list[str]]) -> None:
    project, _ = three
    entries = {
        (entry / "outputs/o/word").read_text().strip(): entry
        for entry in (project.folder / ".edgeml/cache").glob("??/*")
    }
    for days, word in ((3, "one"), (2, "two"), (-5, "three")):  # the last by a clock that was set back since
        aged(entries[word] / "noted.json", days)
    assert project.statuses("--input", "word=one") == {"big": "cached"}
    would = gc(project, "cache", "--max-size", "0.7MB", "--dry-run")
    told = gc(project, "cache", "--max-size", "700kB")
    assert would == {**told, "dry_run": True}
    assert (told["dropped"], entries["two"].exists()) == (1, False)
    aged(entries["one"] / "noted.json", 3)
    assert gc(project, "cache", "--older-than", "2")["dropped"] == 1
    assert [word for word, entry in entries.items() if entry.exists()] == ["three"]
    assert project.statuses("--input", "word=two") == {"big": "completed"}
    assert project.statuses("--input", "word=three") == {"big": "cached"}


def test_the_memory_of_fingerprints_forgets_files_that_are_gone(three: tuple[Project, list[str]]) -> None:
    project, _ = three
    memory = project.folder / ".edgeml/cache/files.json"
    here = str(project.folder / "pipeline.yml")
    memory.write_text(json.dumps({"/nowhere/at/all": [1, 2, 3, 4, 5, "sha256:0"], here: [1, 2, 3, 4, 5, "sha256:0"]}))
    gc(project, "cache", "--dry-run")
    assert len(json.loads(memory.read_text())) == 2
    gc(project, "cache")
    assert list(json.loads(memory.read_text())) == [here]
    memory.write_text("[")
    gc(project, "cache")


def test_engines_and_collectors_at_once(project: Project) -> None:
    jobs = {
        f"s{i}": {
            "command": f"mkdir ${{{{outputs.o}}}}/d; for n in 1 2 3 4 5; do echo {i} > ${{{{outputs.o}}}}/d/$n; done",
            "outputs": {"o": {"type": "uri_folder"}},
        }
        for i in range(8)
    }
    project.write("pipeline.yml", json.dumps({"jobs": jobs}))
    over = threading.Event()
    collected: list[int] = []

    def collect() -> None:
        while not over.is_set():
            collected.append(gc(project, "cache", "--max-size", "0")["dropped"])
            gc(project, "runs", "--keep", "0")

    collector = threading.Thread(target=collect)
    collector.start()
    try:
        for i in range(8):
            statuses = project.statuses("--output-dir", f"out{i % 2}")
            assert set(statuses.values()) <= {"completed", "cached"}
            for step in range(8):
                kept = sorted((project.folder / f"out{i % 2}/cloud/s{step}/o/d").iterdir())
                assert [path.name for path in kept] == ["1", "2", "3", "4", "5"]
                assert {path.read_text() for path in kept} == {f"{step}\n"}
    finally:
        over.set()
        collector.join()
    assert sum(collected) > 8, "entries were dropped while engines ran"


def test_arguments_that_make_no_sense_are_one_sentence(project: Project) -> None:
    for args, told in (
        (("cache", "gc", "--max-size", "much"), "write it as a number and a unit"),
        (("cache", "gc", "--max-size", "10XB"), "write it as a number and a unit"),
        (("cache", "gc", "--older-than", "-1"), "0 or more"),
        (("runs", "gc", "--older-than", "nan"), "0 or more"),
        (("runs", "gc", "--keep", "-1"), "0 or more"),
    ):
        assert told in project.edgeml(*args, check=2).stderr
    assert "0 runs removed, 0 kept; 0 B freed" in project.edgeml("runs", "gc").stdout
    assert "0 entries dropped, 0 kept (0 B); 0 B freed" in project.edgeml("cache", "gc").stdout
    assert "0 entries" in project.edgeml("cache", "status").stdout
    assert not (project.folder / ".edgeml").exists(), "looking makes nothing"
