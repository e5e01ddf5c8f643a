"""What a machine and a step can do to an engine: each ends with one sentence and leaves nothing behind."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.engine.project import EDGEML, Project, alive, wait_until
from tests.memory import peak_of

MEMORY_LIMIT = 100 * 1024  # KiB: an engine takes about 25 MB


def mounted(folder: Path, options: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", options, "edgeml-test", folder], capture_output=True, text=True
    )
    if done.returncode != 0:
        pytest.skip(f"a file system of its own cannot be mounted here: {done.stderr.strip()}")


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of two megabytes."""
    if os.geteuid() != 0:
        pytest.skip("only root can mount a small disk")
    folder = tmp_path / "disk"
    mounted(folder, "size=2m")
    yield folder
    subprocess.run(["umount", folder], check=True)


CHAIN = """
    jobs:
      first:
        command: head -c 20000 /dev/zero > ${{outputs.o}}
        outputs: {o: {type: uri_file}}
      second:
        command: wc -c < ${{inputs.i}} > ${{outputs.o}}
        inputs: {i: "${{parent.jobs.first.outputs.o}}"}
        outputs: {o: {type: uri_file}}
"""


def test_a_step_that_fills_the_disk_is_the_step_that_fails(disk: Path) -> None:
    project = Project(disk)
    fill = "jobs: {fill: {command: 'head -c 8M /dev/zero > ${{outputs.o}}', outputs: {o: {type: uri_file}}}}\n"
    project.write("pipeline.yml", fill)
    done = project.run("--output-dir", "out", check=1)
    assert "edgeml: step 'fill' exited with code 1" in done.stderr
    assert json.loads((disk / "out/run.json").read_text())["status"] == "failed"
    project.write("pipeline.yml", fill.replace("8M", "8K"))
    assert project.statuses("--output-dir", "out") == {"fill": "completed"}, "the next run has room again"


def test_wherever_the_disk_is_full_the_engine_says_so_and_the_next_run_goes_on(disk: Path) -> None:
    project = Project(disk)
    project.write("pipeline.yml", CHAIN)
    ballast = disk / "ballast"
    ends = set()
    for free in range(0, 72, 6):  # KiB: from too little for the run's folder to enough for all
        subprocess.run(["rm", "-rf", disk / ".edgeml", disk / "out"], check=True)
        ballast.write_bytes(b"")
        room = os.statvfs(disk)
        ballast.write_bytes(b"x" * (room.f_bavail * room.f_frsize - free * 1024))
        done = project.run("--output-dir", "out", check=None)
        ends.add(done.returncode)
        if done.returncode:
            assert done.returncode == 1
            told = [line for line in done.stderr.splitlines() if line.startswith("edgeml: ")]
            assert len(told) == 1, done.stderr
            assert "no space is left on the disk" in told[0] or told[0].startswith("edgeml: step "), told
        ballast.unlink()
        assert set(project.statuses("--output-dir", "out").values()) <= {"completed", "cached"}
        assert (disk / "out/jobs/second/outputs/o").read_text().strip() == "20000"
        assert set(project.statuses("--output-dir", "out").values()) == {"cached"}
        assert not list((disk / ".edgeml/cache/unfinished").iterdir())
    assert ends == {0, 1}


def test_a_full_cache_costs_only_the_reuse(project: Project) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root can mount a small disk")
    cache = project.folder / ".edgeml/cache"
    project.write("pipeline.yml", CHAIN)
    mounted(cache, "size=16k")
    try:
        for _ in range(2):
            assert project.statuses()["first"] == "completed"
        assert not list((cache / "unfinished").iterdir())
    finally:
        subprocess.run(["umount", cache], check=True)


def test_a_read_only_cache_is_used_and_not_written(project: Project) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root can mount a disk read-only")
    cache = project.folder / ".edgeml/cache"
    project.write("pipeline.yml", CHAIN)
    mounted(cache, "size=2m")
    try:
        project.run()
        subprocess.run(["mount", "-o", "remount,ro", cache], check=True)
        for _ in range(2):
            assert set(project.statuses("--output-dir", "out").values()) == {"cached"}
            assert (project.folder / "out/jobs/second/outputs/o").read_text().strip() == "20000"
        project.write("pipeline.yml", CHAIN.replace("wc -c <", "cat"))
        for _ in range(2):
            assert project.statuses() == {"first": "cached", "second": "completed"}
        subprocess.run(["mount", "-o", "remount,rw", cache], check=True)
        entry = next(path for path in cache.glob("??/*/outputs/o") if path.stat().st_size == 20000)
        entry.write_bytes(b"edited")
        subprocess.run(["mount", "-o", "remount,ro", cache], check=True)
        assert project.statuses()["first"] == "completed", "an edited entry is not used, also where it cannot go"
    finally:
        subprocess.run(["umount", cache], check=True)


def test_a_clock_that_was_set_back_changes_nothing(chain: Project) -> None:
    chain.run("--output-dir", "out")
    future = time.time() + 10 * 365 * 86400
    for path in [chain.folder / "start.txt", *chain.folder.glob("src/*"), *chain.folder.glob(".edgeml/**/*")]:
        os.utime(path, (future, future))
    assert set(chain.statuses().values()) == {"cached"}
    output = chain.folder / "out/outputs/final"
    output.write_text("EVIL\nONE\n")
    os.utime(output, (future, future))
    assert chain.statuses() == {"first": "cached", "second": "completed", "aside": "cached"}
    chain.write("start.txt", "null\n")
    os.utime(chain.folder / "start.txt", (future, future))
    assert chain.statuses()["first"] == "completed"


def one_step(project: Project, command: str, **more: object) -> None:
    job = {"command": command, "outputs": {"o": {"type": "uri_file"}}, **more}
    project.write("pipeline.yml", json.dumps({"jobs": {"step": job}}))


def test_a_daemon_that_left_its_session_holds_nobody_up_and_what_it_writes_is_seen(project: Project) -> None:
    daemon = "setsid bash -c 'echo $$ > $PID; while ! test -e $GO; do sleep 0.05; done; echo late >> $0; rm $GO'"
    one_step(
        project, f"{daemon} ${{{{outputs.o}}}} & while ! test -s $PID; do sleep 0.02; done; echo x > ${{{{outputs.o}}}}"
    )
    pid, go = project.folder / "pid", project.folder / "go"
    began = time.monotonic()
    project.run("--output-dir", "out", PID=str(pid), GO=str(go))
    assert time.monotonic() - began < 10
    assert alive(int(pid.read_text())), "documented: a process with a session of its own is not the step's any more"
    go.touch()
    wait_until(lambda: not alive(int(pid.read_text())))
    assert (project.folder / "out/cloud/step/o").read_text() == "x\nlate\n"
    pid.unlink()
    assert project.statuses("--output-dir", "again", PID=str(pid), GO=str(go)) == {"step": "completed"}
    go.touch()
    wait_until(lambda: not alive(int(pid.read_text())))


def test_a_log_of_a_gigabyte_takes_no_memory(project: Project) -> None:
    one_step(project, "head -c 1G /dev/zero; exit 3")
    code = "from edgeml.cli import main; exit_code = main(sys.argv[1:])"
    peak, engine = peak_of(code, "run", "pipeline.yml", "--output-dir", "out", folder=project.folder)
    told = engine.stderr
    log = project.folder / "out/jobs/step/log.txt"
    size = log.stat().st_size
    log.unlink()
    assert (engine.returncode, size) == (1, 1 << 30)
    assert peak < MEMORY_LIMIT
    assert b"step 'step' exited with code 3" in told
    assert len(told) < 16_384, "a line without an end is not printed whole"
    assert b"\0" not in told


@pytest.mark.parametrize(
    ("command", "code", "told"),
    [
        (r"printf '\xff\xc3\x28\xed\xa0\x80\x1b[2J\n'; exit 3", 1, "step 'step' exited with code 3"),
        ("exec >&- 2>&-; echo nobody hears; exit 4", 1, "step 'step' exited with code 4"),
        ("exec >&- 2>&- <&-; echo x > ${{outputs.o}}", 0, ""),
        ("kill -9 $$", 1, "step 'step' was ended by SIGKILL (out of memory?)"),
        ("bash -c 'kill -9 $$'; exit $?", 1, "step 'step' exited with code 137 (SIGKILL, out of memory?)"),
        ("kill -SEGV $$", 1, "step 'step' was ended by SIGSEGV"),
        ("kill -STOP $BASHPID & sleep 0.1; kill -9 0", 1, "step 'step' was ended by SIGKILL"),
        ("ulimit -v 200000; python -c 'x = bytearray(1 << 30)'", 1, "step 'step' exited with code 1"),
        ("if then", 1, "step 'step' exited with code"),
        ("cat <<END > ${{outputs.o}}\nx\nEND", 0, ""),
        ("# a comment\necho x > ${{outputs.o}}", 0, ""),
        ("rm -rf ../../../cloud; true", 1, "step 'step' did not write its output 'o'"),
        ("mkfifo ${{outputs.o}}", 1, "step 'step' did not write its output 'o'"),
        ("ln -s /nowhere ${{outputs.o}}", 1, "step 'step' did not write its output 'o'"),
        ("rm -rf $PWD; echo x > ${{outputs.o}}", 0, ""),
    ],
)
def test_a_step_may_end_in_any_way(project: Project, command: str, code: int, told: str) -> None:
    one_step(project, command)
    done = project.run("--output-dir", "out", check=code)
    failures = [line for line in done.stderr.splitlines() if line.startswith("edgeml: ")]
    assert len(failures) == (1 if code else 0), done.stderr
    assert told in done.stderr
    assert "\x1b" not in done.stderr, "a log cannot steer the terminal"
    record = json.loads((project.folder / "out/run.json").read_text())
    assert record["status"] == ("failed" if code else "completed")


def test_a_folder_that_cannot_be_read_back_fails_its_step(project: Project) -> None:
    job = {"command": "mkfifo ${{outputs.o}}/pipe", "outputs": {"o": {"type": "uri_folder"}}}
    project.write("pipeline.yml", json.dumps({"jobs": {"step": job, "other": {"command": "sleep 0.2"}}}))
    done = project.run("--output-dir", "out", check=1)
    assert "edgeml: step 'step' wrote what cannot be kept as its output 'o'" in done.stderr
    record = json.loads((project.folder / "out/run.json").read_text())
    assert {step["node"]: step["status"] for step in record["steps"]} == {"step": "failed", "other": "completed"}


def test_folders_that_a_step_made_read_only_are_in_nobodys_way(project: Project) -> None:
    bound: list[str] = []  # how to become somebody whom permissions bind
    if os.geteuid() == 0:
        bound = [
            "setpriv",
            "--bounding-set=-dac_override,-dac_read_search",
            "--inh-caps=-dac_override,-dac_read_search",
        ]
        if not shutil.which("setpriv"):
            pytest.skip("permissions do not bind root, and setpriv is not here to change that")
    lock = "mkdir -p a/b c; touch a/b/f; ln -s /tmp link; chmod 555 a/b a; chmod 0 c"
    command = f"{lock}; cd ${{{{outputs.o}}}}; {lock}; chmod 700 c; exit $CODE"
    job = {"command": command, "outputs": {"o": {"type": "uri_folder"}}}
    project.write("pipeline.yml", json.dumps({"jobs": {"step": job}}))

    def edgeml(code: int, *args: str) -> None:
        environment = {**os.environ, "CODE": str(code)}
        done = subprocess.run(
            [*bound, *EDGEML, *args], cwd=project.folder, env=environment, capture_output=True, text=True
        )
        assert done.returncode == code, done.stderr

    for code in (1, 1, 0):
        edgeml(code, "run", "pipeline.yml", "--output-dir", "out")
    assert not (project.folder / "out/jobs/step/work").exists()
    edgeml(0, "run", "pipeline.yml", "--force")
    edgeml(0, "run", "pipeline.yml")
    edgeml(0, "runs", "gc", "--keep", "1")
    edgeml(0, "cache", "gc", "--max-size", "0")
    assert len(list((project.folder / ".edgeml/runs").iterdir())) == 1
    assert list((project.folder / ".edgeml/cache/unfinished").iterdir()) == []


def test_a_terminal_that_goes_away_takes_the_steps_with_it(project: Project) -> None:
    one_step(project, "echo $$ > $PID; sleep 300")
    pid = project.folder / "pid"
    engine = subprocess.Popen(
        [*EDGEML, "run", "pipeline.yml"],
        cwd=project.folder,
        env={**os.environ, "PID": str(pid)},
        stderr=subprocess.DEVNULL,
        preexec_fn=lambda: signal.signal(signal.SIGHUP, signal.SIG_DFL),  # nohup, if it began the tests, ignores it
    )
    wait_until(lambda: pid.exists() and pid.read_text())
    engine.send_signal(signal.SIGHUP)
    assert engine.wait(20) != 0
    wait_until(lambda: not alive(int(pid.read_text())))
