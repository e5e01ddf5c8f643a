"""Trainers that reach for what is not theirs: files, variables, processes, the next step's inputs, the time after."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.engine.project import EDGEML, wait_until
from tests.sandbox.private import ROWS, SECRET, Private

AFTER = """
  after:
    command: cat ${{inputs.i}} > ${{outputs.o}}
    inputs: {i: "${{parent.jobs.train.outputs.o}}"}
    outputs: {o: {type: uri_file}}
"""


def test_it_reads_its_rows_writes_its_output_and_uses_its_packages(private: Private) -> None:
    private.trainer(
        """
        import numpy, multiprocessing, tempfile
        with multiprocessing.get_context('fork').Pool(2) as pool:
            squares = pool.map(abs, [-1, -2])
        tempfile.TemporaryFile().write(b'x')
        open('note.txt', 'w').write('in the working directory'); open('outputs/plot.txt', 'w').write('a plot')
        return secret, squares, int(numpy.arange(3).sum()), os.environ['DECLARED'], os.path.exists('trainer.py')
        """
    )
    assert private.attempt() == f"through ('{SECRET}', [1, 2], 3, 'True', True)"


@pytest.mark.parametrize("place", ["etc", "home", "project", "input", "interpreter", "system", "run folder", "root"])
def test_it_writes_nowhere_else(private: Private, tmp_path: Path, place: str) -> None:
    path = {
        "etc": "/etc/edgeml-test",
        "home": str(tmp_path / "home/x"),
        "project": str(tmp_path / "contracts/residency.yml"),
        "input": str(tmp_path / "rows.csv"),
        "interpreter": f"{sys.prefix}/edgeml-test",
        "system": "/usr/local/edgeml-test",
        "run folder": str(tmp_path / "out/run.json"),
        "root": "/edgeml-test",
    }[place]
    (tmp_path / "home").mkdir()
    private.trainer(f"os.makedirs(os.path.dirname({path!r}), exist_ok=True); open({path!r}, 'a').write('#mine')")
    try:
        if os.access(Path(path).parent, os.W_OK):
            assert private.attempt("--no-sandbox").startswith("through")
            assert place == "run folder" or Path(path).read_text().endswith("#mine")
        private.write("contracts/residency.yml", "private: [stackhub]\n")
        private.write("rows.csv", f"{SECRET},94\n")
        before = Path(path).read_text() if place in ("project", "input") else ""
        if place not in ("project", "input", "run folder"):
            Path(path).unlink(missing_ok=True)
        outcome = private.attempt()
        # Below /tmp it may write: that is a folder of its own, gone with the step.
        assert outcome.startswith("refused") or str(tmp_path) in path
        assert place == "run folder" or (Path(path).read_text() if Path(path).exists() else "") == before
        assert "#mine" not in (tmp_path / "out/run.json").read_text()
    finally:
        if place not in ("project", "input", "run folder"):
            Path(path).unlink(missing_ok=True)


def test_it_reads_nothing_else(private: Private, tmp_path: Path) -> None:
    (tmp_path / ".edgeml/storage").mkdir(parents=True)
    (tmp_path / ".edgeml/storage/account.key").write_text("the key")
    (tmp_path / "home").mkdir()
    (tmp_path / "home/.netrc").write_text("password")
    paths = [str(tmp_path / ".edgeml/storage/account.key"), str(tmp_path / "home/.netrc"), "/etc/shadow"]
    attack = """
        seen = [open(path).read() for path in {!r} if os.access(path, os.R_OK)]
        assert seen, 'nothing'
        """
    before, within = private.outcomes(attack.format(paths), HOME=str(tmp_path / "home"))
    assert before.startswith("through") and within == "refused AssertionError nothing"


def test_it_sees_no_variable_of_the_engine(private: Private) -> None:
    attack = """
        seen = dict(os.environ)
        for process in filter(str.isdigit, os.listdir('/proc')):
            try:
                seen[process] = open(f'/proc/{process}/environ', errors='replace').read()
            except OSError:
                pass
        return [name for name in ('hunter2', 'AZUREML_RUN_TOKEN') if name in str(seen)]
        """
    secrets = {"AZURE_CLIENT_SECRET": "hunter2", "AZUREML_RUN_TOKEN": "t", "PYTHONSTARTUP": "hunter2"}
    before, within = private.outcomes(attack, **secrets)
    assert before.startswith("through ['hunter2', 'AZUREML_RUN_TOKEN'")
    assert within == "through []"


def test_what_a_pipeline_declares_is_obeyed_inside_only(private: Private, tmp_path: Path) -> None:
    """A variable that makes a shell or a loader run code must not reach what starts the sandbox."""
    text = (tmp_path / "pipeline.yml").read_text()
    outside = tmp_path / "outside"
    private.write("src/evil.sh", f"touch {outside}\n")
    for name in ("BASH_ENV", "ENV", "BASH_FUNC_exec%%"):
        value = "() { touch outside; }" if "%" in name else "./evil.sh"
        private.write("pipeline.yml", text.replace("DECLARED: yes", f"DECLARED: yes, '{name}': '{value}'"))
        private.trainer(f"return os.environ.get({name!r}) is not None")
        private.attempt()
        assert not outside.exists() and not list((tmp_path / "out").rglob("outside"))
    private.write("pipeline.yml", text.replace("DECLARED: yes", "BASH_ENV: ./evil.sh"))
    private.trainer("return 1")
    private.attempt("--no-sandbox")
    assert outside.exists(), "without the sandbox the shell obeys"


def test_it_sees_no_process_of_the_host(private: Private) -> None:
    before, within = private.outcomes(f"os.kill({os.getpid()}, 0)")
    assert before.startswith("through") and within.startswith("refused ProcessLookupError")
    private.trainer("return len([p for p in os.listdir('/proc') if p.isdigit()]) < 6")
    assert private.attempt() == "through True"


def test_it_inherits_no_open_file_but_its_streams(private: Private) -> None:
    private.trainer("return sorted(int(n) for n in os.listdir('/proc/self/fd'))[:-1]")
    assert private.attempt() == "through [0, 1, 2]"


def test_the_next_steps_inputs_are_not_its_own_to_write(private: Private, tmp_path: Path) -> None:
    """A step that reads an output of another must not change it, for itself or for the cache that shares the file."""
    text = (tmp_path / "pipeline.yml").read_text()
    private.write(
        "pipeline.yml",
        text
        + """
  meddle:
    command: chmod u+w ${{inputs.i}}; echo forged >> ${{inputs.i}}; echo done > ${{outputs.o}}
    inputs: {i: "${{parent.jobs.train.outputs.o}}"}
    outputs: {o: {type: uri_file}}
  last:
    command: cat ${{inputs.i}} > ${{outputs.o}}
    inputs: {i: "${{parent.jobs.train.outputs.o}}", after: "${{parent.jobs.meddle.outputs.o}}"}
    outputs: {o: {type: uri_file}}
""",
    )
    private.trainer("return 'genuine'")
    last = tmp_path / "out/jobs/last/outputs/o"
    private.go("--no-sandbox")
    assert "forged" in last.read_text()
    private.go()
    assert last.read_text() == "through genuine"


LINKS = {
    "a link as the output": "os.remove(out) if os.path.exists(out) else None; os.symlink({secret!r}, out); os._exit(0)",
    "a link in a folder": "os.symlink({secret!r}, out + '/x'); os._exit(0)",
    "a link to a folder": "os.symlink({folder!r}, out + '/x'); os._exit(0)",
    "a pipe": "open(out + '/y', 'w').write('y'); os.mkfifo(out + '/x'); os._exit(0)",
    "a socket": "open(out + '/y', 'w').write('y'); socket.socket(socket.AF_UNIX).bind(out + '/x'); os._exit(0)",
    "a program of its owner's": "open(out + '/x', 'w').close(); os.chmod(out + '/x', 0o4755); os._exit(0)",
}


@pytest.mark.parametrize("name", LINKS)
def test_no_output_leads_out_of_its_folder(private: Private, tmp_path: Path, name: str) -> None:
    folder = tmp_path / "elsewhere"
    folder.mkdir()
    (folder / "key.pem").write_text("a key of the host")
    text = (tmp_path / "pipeline.yml").read_text()
    if name != "a link as the output":
        text = text.replace("outputs: {o: {type: uri_file}}", "outputs: {o: {type: uri_folder}}")
    private.write("pipeline.yml", text)
    private.trainer(LINKS[name].format(secret=str(folder / "key.pem"), folder=str(folder)))
    told = private.go(check=1).stderr
    assert "step 'train' wrote " in told and "into its output 'o'; outputs are files and folders" in told
    assert not [p for p in (tmp_path / ".edgeml/cache").rglob("*") if p.is_file() and b"a key of" in p.read_bytes()]
    if name in ("a link as the output", "a link in a folder"):
        (tmp_path / "contracts/residency.yml").unlink()  # nothing is private: the engine follows, as it always did
        private.go()
        kept = [p for p in (tmp_path / ".edgeml/cache").rglob("*") if p.is_file() and not p.is_symlink()]
        assert any(b"a key of" in p.read_bytes() for p in kept)


DAEMON = """
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            signals = __import__('signal')
            for number in (signals.SIGTERM, signals.SIGHUP): signals.signal(number, signals.SIG_IGN)
            while True:
                open(os.path.dirname(out) + '/beat', 'a').write('.')
                time.sleep(0.02)
        os._exit(0)
    time.sleep(0.2)
    """


def beats(folder: Path) -> bool:
    """Whether a daemon still writes."""
    found = list(folder.rglob("beat"))
    before = [path.stat().st_size for path in found]
    time.sleep(0.3)
    return [path.stat().st_size for path in found] != before


def test_no_daemon_outlives_its_step(private: Private, tmp_path: Path) -> None:
    private.trainer(DAEMON.replace("while True:", "until = time.time() + 4\n            while time.time() < until:"))
    private.attempt("--no-sandbox")
    assert beats(tmp_path / "out"), "without the sandbox it goes on"
    wait_until(lambda: not beats(tmp_path / "out"))
    private.attempt()
    assert list((tmp_path / "out").rglob("beat")) and not beats(tmp_path / "out")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_a_sandbox_ends_with_the_engine(private: Private, tmp_path: Path, number: signal.Signals) -> None:
    private.trainer(DAEMON + "\n    time.sleep(600)")
    engine = subprocess.Popen(
        [*EDGEML, "run", "pipeline.yml", "--map", f"{ROWS}=rows.csv", "--output-dir", "out"],
        cwd=tmp_path,
        stderr=subprocess.PIPE,
    )
    wait_until(lambda: engine.poll() is not None or list((tmp_path / "out").rglob("beat")))
    engine.send_signal(number)
    assert engine.wait(20) == (-signal.SIGKILL if number == signal.SIGKILL else 130)
    wait_until(lambda: not beats(tmp_path / "out"))


def test_a_core_dump_is_not_written(private: Private, tmp_path: Path) -> None:
    private.trainer("import resource; return resource.getrlimit(resource.RLIMIT_CORE)")
    assert private.attempt() == "through (0, 0)"


def test_paths_with_spaces_and_a_second_step(private: Private, tmp_path: Path) -> None:
    project = Private(tmp_path / "my project (1), copy")
    project.write("pipeline.yml", (project.folder / "pipeline.yml").read_text() + AFTER)
    project.trainer("return open(os.environ['AZURE_ML_INPUT_rows']).read()[:4]")
    project.go()
    assert (project.folder / "out/jobs/after/outputs/o").read_text() == "through name"
