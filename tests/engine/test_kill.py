"""Engines that are killed at any moment, and several at once: what finished is kept, nothing else is believed."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
from pathlib import Path

import pytest

from tests.engine.project import EDGEML, Project, alive, wait_until

KILLS = int(os.environ.get("EDGEML_TEST_KILLS", "12"))  # for each way to kill; `make test-whole` asks for 100
WIDTH = 4
SEED = int(os.environ.get("EDGEML_TEST_SEED", "20261124"))


def twenty_steps(project: Project) -> list[str]:
    """Four chains of five steps with bridges between them; each step says in $TRACE that it runs, then takes time."""
    jobs = {}
    for i in range(20):
        needs = {name: f"${{{{parent.jobs.s{j}.outputs.o}}}}" for name, j in (("a", i - WIDTH), ("b", i - WIDTH - 1))}
        needs = {name: bound for name, bound in needs.items() if ".s-" not in bound}
        reads = " ".join(f"$(cat ${{{{inputs.{name}}}}}/text)" for name in needs)
        jobs[f"s{i}"] = {
            "command": f"echo s{i} >> $TRACE; echo half > ${{{{outputs.o}}}}/text; sleep 0.0{i % 3 + 1}; "
            f"echo s{i} > ${{{{outputs.o}}}}/name; echo '(s{i}' {reads} ')' > ${{{{outputs.o}}}}/text",
            "inputs": needs,
            "outputs": {"o": {"type": "uri_folder"}},
        }
    project.write("pipeline.yml", json.dumps({"jobs": jobs}))
    return list(jobs)


def texts(run: Path) -> dict[str, str]:
    return {path.parent.parent.name: path.read_text() for path in run.glob("cloud/*/o/text")}


def finished(project: Project) -> set[str]:
    """The steps that the cache holds; it holds them whole or not at all."""
    names = set()
    for entry in (project.folder / ".edgeml/cache").glob("??/*"):
        assert (entry / "entry.json").is_file() and (entry / "noted.json").is_file(), "a half-written entry"
        assert (entry / "outputs/o/text").read_text() != "half\n"
        names.add((entry / "outputs/o/name").read_text().strip())
    return names


@pytest.mark.parametrize("whom", ["engine", "group"])
def test_an_engine_that_is_killed_at_any_moment_loses_nothing_that_finished(project: Project, whom: str) -> None:
    print(f"seed {SEED} (EDGEML_TEST_SEED)")
    chance = random.Random(f"{SEED}-{whom}")
    steps = twenty_steps(project)
    trace = project.folder / "trace"
    environment = {**os.environ, "TRACE": str(trace)}
    window = project.record("--output-dir", "undisturbed", TRACE=os.devnull)["seconds"]
    expected = texts(project.folder / "undisturbed")
    assert set(expected) == set(steps)
    out = project.folder / "out"
    kills = rounds = 0
    moments = set()
    while kills < KILLS:
        shutil.rmtree(project.folder / ".edgeml")
        trace.write_text("")
        rounds += 1
        completed = False
        while not completed:
            before = finished(project)
            trace.write_text("")
            engine = subprocess.Popen(
                [*EDGEML, "run", "pipeline.yml", "--output-dir", "out", "--jobs", str(WIDTH)],
                cwd=project.folder,
                env=environment,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                text=True,
                process_group=0,
            )
            assert engine.stderr is not None
            try:
                engine.wait(chance.uniform(0.03, window) if kills < KILLS else 60)
                completed = True
                window *= 0.8
            except subprocess.TimeoutExpired:
                os.kill(engine.pid, signal.SIGKILL) if whom == "engine" else os.killpg(engine.pid, signal.SIGKILL)
                engine.wait()
                kills += 1
                there = len(finished(project))
                moments.add(there)
                # However fast the machine is at the moment, some kills shall come early and some late.
                window *= 1.2 if there == len(before) else 0.95
            complaint = engine.stderr.read() if completed else ""
            engine.stderr.close()
            again = before & set(trace.read_text().split())
            assert not again, f"kill {kills}, seed {SEED}: ran again although finished: {again}"
            assert not completed or engine.returncode == 0, f"kill {kills}, seed {SEED}: {complaint}"
        assert texts(out) == expected
        assert finished(project) == set(steps)
        assert json.loads((out / "run.json").read_text())["status"] == "completed"
    assert len(moments) > min(5, KILLS // 4), "kills came after other numbers of finished steps"
    print(f"{kills} kills in {rounds} rounds, with {sorted(moments)} steps finished")


@pytest.mark.parametrize("whom", ["engine", "group"])
def test_no_step_outlives_its_engine(project: Project, whom: str) -> None:
    command = "echo $$ >> $PIDS; (echo $BASHPID >> $PIDS; sleep 300; echo late > ${{outputs.o}}); true"
    jobs = {name: {"command": command, "outputs": {"o": {"type": "uri_file"}}} for name in ("a", "b")}
    project.write("pipeline.yml", json.dumps({"jobs": {"quick": {"command": "true"}, **jobs}}))
    pids = project.folder / "pids"
    engine = subprocess.Popen(
        [*EDGEML, "run", "pipeline.yml", "--output-dir", "out", "--jobs", "3"],
        cwd=project.folder,
        env={**os.environ, "PIDS": str(pids)},
        stderr=subprocess.DEVNULL,
        process_group=0,
    )
    wait_until(lambda: pids.exists() and len(pids.read_text().split()) == 4)
    started = [int(pid) for pid in pids.read_text().split()]
    assert all(map(alive, started))
    os.kill(engine.pid, signal.SIGKILL) if whom == "engine" else os.killpg(engine.pid, signal.SIGKILL)
    engine.wait()
    project.write("pipeline.yml", json.dumps({"jobs": {"a": {"command": "true"}}}))
    project.run("--output-dir", "out")  # waits for the lock, which goes when the steps are gone
    wait_until(lambda: not any(map(alive, started)), 2)
    listed = json.loads(project.edgeml("runs", "show", "out", "--json").stdout)
    assert listed["status"] == "completed"


def test_a_guard_that_is_killed_harms_no_step(project: Project) -> None:
    # The guard is the engine's other child: the step ends it and goes on, and so does the step after.
    kill = "for p in $(ps -o pid=,args= --ppid $PPID | awk '/while read -r sign group/ && !/awk/ {print $1}'); do"
    jobs = {
        "a": {"command": f"{kill} kill -9 $p; echo $p >> $KILLED; done; echo a > ${{{{outputs.o}}}}"},
        "b": {"command": "cat ${{inputs.i}} > ${{outputs.o}}", "inputs": {"i": "${{parent.jobs.a.outputs.o}}"}},
    }
    for job in jobs.values():
        job["outputs"] = {"o": {"type": "uri_file"}}  # type: ignore[assignment]
    project.write("pipeline.yml", json.dumps({"jobs": jobs}))
    killed = project.folder / "killed"
    project.run("--output-dir", "out", KILLED=str(killed))
    assert len(killed.read_text().split()) == 1
    assert (project.folder / "out/cloud/b/o").read_text() == "a\n"


@pytest.mark.parametrize("engines", [2, 4])
def test_engines_at_once_make_what_one_makes(project: Project, engines: int) -> None:
    steps = twenty_steps(project)
    project.run("--output-dir", "undisturbed", TRACE=os.devnull)
    expected = texts(project.folder / "undisturbed")
    shutil.rmtree(project.folder / ".edgeml")
    running = [
        subprocess.Popen(
            [*EDGEML, "run", "pipeline.yml", "--output-dir", f"out{i}"],
            cwd=project.folder,
            env={**os.environ, "TRACE": os.devnull},
            stderr=subprocess.PIPE,
            text=True,
        )
        for i in range(engines)
    ]
    for i, engine in enumerate(running):
        complaint = engine.communicate(timeout=60)[1]
        assert (engine.returncode, "Traceback" in complaint) == (0, False), complaint
        assert texts(project.folder / f"out{i}") == expected
    assert finished(project) == set(steps)
    assert not list((project.folder / ".edgeml/cache/unfinished").iterdir())
    assert set(project.statuses("--output-dir", "out0", TRACE=os.devnull).values()) == {"cached"}
    assert texts(project.folder / "out0") == expected
