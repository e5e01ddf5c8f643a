"""`edgeml run` as a user types it: files in, run folder, exit code and sentences out."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.engine.project import EDGEML, Project, alive, wait_until


def test_a_run_leaves_outputs_logs_and_a_record(chain: Project) -> None:
    record = chain.record("--output-dir", "out")
    out = chain.folder / "out"
    assert (out / "jobs/second/outputs/dst").read_text() == "ZERO\nONE\n"
    assert (out / "outputs/final").read_text() == "ZERO\nONE\n"
    assert (out / "jobs/aside/outputs/o/x").read_text() == "aside\n"
    assert (out / "jobs/second/log.txt").read_text() == ""
    assert record == json.loads((out / "run.json").read_text())
    assert record["status"] == "completed"
    assert [step["node"] for step in record["steps"]] == ["first", "aside", "second"]
    second = record["steps"][2]
    assert (second["needs"], second["exit_code"]) == (["first"], 0)
    assert (out / record["outputs"]["final"]["path"]).read_text() == "ZERO\nONE\n"
    assert not (out / "jobs/second/work").exists(), "the snapshot of a step that went well is of no more use"


@pytest.mark.parametrize(
    ("command", "why"),
    [
        ("echo saying why; exit 3", "exited with code 3"),
        ("nonsense_command", "exited with code 127: a command was not found"),
        ("kill -9 $$", "was ended by SIGKILL"),
        ("test 1", "did not write its output 'o': nothing is where the file should be"),
        ("mkdir ${{outputs.o}}", "did not write its output 'o': a folder is where the file should be"),
        ("echo x > ${{outputs.o}}; rmdir ${{outputs.d}}", "did not write its output 'd': the folder is empty"),
        ("echo x > ${{outputs.o}}", "did not write its output 'd': the folder is empty"),
    ],
)
def test_a_failure_names_step_cause_log_and_folder(project: Project, command: str, why: str) -> None:
    project.write(
        "pipeline.yml",
        f"""
        jobs:
          bad:
            command: {command}
            outputs: {{o: {{type: uri_file}}, d: {{type: uri_folder}}}}
          after:
            command: cat ${{{{inputs.i}}}}
            inputs: {{i: "${{{{parent.jobs.bad.outputs.o}}}}"}}
          other:
            command: echo ok
        """,
    )
    done = project.run("--output-dir", "out", check=1)
    assert f"edgeml: step 'bad' {why}" in done.stderr
    assert "log     out/jobs/bad/log.txt" in done.stderr
    assert "folder  out/jobs/bad/work" in done.stderr
    shown = command.replace("${{outputs.o}}", f"{project.folder}/out/cloud/bad/o")
    assert "  command " + shown.replace("${{outputs.d}}", f"{project.folder}/out/cloud/bad/d") in done.stderr
    if "saying" in command:
        assert "  | saying why" in done.stderr
    record = json.loads((project.folder / "out/run.json").read_text())
    assert {s["node"]: s["status"] for s in record["steps"]} == {
        "bad": "failed",
        "other": "completed",
        "after": "skipped",
    }
    assert project.statuses(check=1)["bad"] == "failed", "a failure is never reused"


def test_the_first_failure_ends_the_run_where_the_pipeline_says_so(project: Project) -> None:
    project.write(
        "pipeline.yml",
        """
        settings: {continue_on_step_failure: false}
        jobs:
          slow: {command: sleep 30}
          bad: {command: sleep 0.2; exit 1}
          later: {command: echo}
        """,
    )
    began = time.monotonic()
    assert project.statuses("--jobs", "2", check=1) == {"slow": "cancelled", "bad": "failed", "later": "skipped"}
    assert time.monotonic() - began < 15


def test_steps_that_need_nothing_of_each_other_run_at_once(project: Project) -> None:
    meet = "touch $D/{me}; for i in $(seq 200); do test -e $D/{other} && exit 0; sleep 0.02; done; exit 1"
    jobs = {"a": {"command": meet.format(me="a", other="b")}, "b": {"command": meet.format(me="b", other="a")}}
    project.write("pipeline.yml", json.dumps({"jobs": jobs}))
    assert project.statuses("--jobs", "2", D=str(project.folder)) == {"a": "completed", "b": "completed"}
    (project.folder / "a").unlink()
    (project.folder / "b").unlink()
    assert "failed" in project.statuses("--jobs", "1", "--force", check=1, D=str(project.folder)).values()


def test_each_step_works_in_its_own_copy_of_its_code(project: Project) -> None:
    project.write("src/run.sh", "ls -A; echo $1 >> notes.txt; cat notes.txt > $2; test -d outputs\n")
    project.write("src/keep.me", "")
    project.write("src/secret.csv", "1,2\n")
    project.write("src/deep/er.txt", "x")
    project.write("src/__pycache__/x.pyc", "x")
    project.write("src/.amlignore", "*.csv\n")
    project.write("src/.gitignore", "keep.me\n")
    project.write("shared/common.txt", "c")
    project.write(
        "c.yml",
        """
        inputs: {n: {type: integer}}
        outputs: {o: {type: uri_file}}
        code: src
        additional_includes: [shared/common.txt, ./shared]
        command: bash run.sh ${{inputs.n}} ${{outputs.o}}
        """,
    )
    project.write(
        "pipeline.yml", "jobs:\n  a: {component: c.yml, inputs: {n: 1}}\n  b: {component: c.yml, inputs: {n: 2}}\n"
    )
    project.run("--output-dir", "out")
    assert (project.folder / "out/jobs/b/outputs/o").read_text() == "2\n", "b sees nothing of a"
    assert not (project.folder / "src/notes.txt").exists(), "the repository stays clean"
    listed = (project.folder / "out/jobs/a/log.txt").read_text().split()
    assert sorted(listed) == [".gitignore", "common.txt", "deep", "keep.me", "outputs", "run.sh", "shared"]
    project.write("src/secret.csv", "3,4\n")
    assert set(project.statuses().values()) == {"cached"}, "what is ignored is no part of the code"
    project.write("shared/common.txt", "d")
    assert set(project.statuses().values()) == {"completed"}


def test_a_step_without_code_starts_in_an_empty_folder(project: Project) -> None:
    project.write("pipeline.yml", "jobs:\n  a:\n    command: |\n      ls -A\n      cd outputs && pwd\n")
    project.run("--output-dir", "out")
    listed = (project.folder / "out/jobs/a/log.txt").read_text().splitlines()
    assert listed[0] == "outputs"
    assert listed[1].endswith("/jobs/a/work/outputs")


def test_what_is_written_to_outputs_is_the_implicit_output(project: Project) -> None:
    project.write(
        "pipeline.yml",
        """
        jobs:
          a: {command: echo plot > outputs/plot.txt}
          b:
            command: cat ${{inputs.i}}/plot.txt > ${{outputs.o}}
            inputs: {i: "${{parent.jobs.a.outputs.artifacts}}"}
            outputs: {o: {type: uri_file}}
        """,
    )
    for status in ("completed", "cached"):
        assert set(project.statuses("--output-dir", status).values()) == {status}
        assert (project.folder / status / "jobs/b/outputs/o").read_text() == "plot\n"
        assert (project.folder / status / "jobs/a/outputs/artifacts/plot.txt").read_text() == "plot\n"


ZONES = """
    settings: {default_datastore: %s}
    outputs:
      released: {type: uri_file, path: "azureml://datastores/lake/paths/r/${{name}}"}
    jobs:
      private: {command: "echo rows > ${{outputs.o}}", outputs: {o: {type: uri_file}}}
      bound:
        command: echo a > ${{outputs.near}}; echo b > ${{outputs.far}}
        outputs:
          near: {type: uri_file, path: azureml://datastores/stackhub/paths/x}
          far: {type: uri_file, path: azureml://subscriptions/s/resourcegroups/g/workspaces/w/datastores/lake/paths/x}
      release: {command: "echo r > ${{outputs.o}}", outputs: {o: "${{parent.outputs.released}}"}}
"""


@pytest.mark.parametrize(
    ("default", "private"), [("azureml:stackhub", "edge"), ("azureml:lake", "cloud"), ("null", "cloud")]
)
def test_outputs_lie_in_the_zone_of_their_datastore(project: Project, default: str, private: str) -> None:
    project.write("contracts/residency.yml", "private: [stackhub]\n")
    project.write("pipeline.yml", ZONES % default)
    record = project.record("--output-dir", "out")
    zones = {f"{s['node']}.{name}": o["zone"] for s in record["steps"] for name, o in s["outputs"].items()}
    assert zones == {"private.o": private, "bound.near": "edge", "bound.far": "cloud", "release.o": "cloud"}
    out = project.folder / "out"
    found = {
        str(path.relative_to(out)) for zone in ("edge", "cloud") for path in (out / zone).rglob("*") if path.is_file()
    }
    assert found == {f"{zone}/{name.replace('.', '/')}" for name, zone in zones.items()}
    assert (out / "outputs/released").resolve() == out / "cloud/release/o"
    assert (out / "jobs/private/outputs/o").resolve() == out / private / "private/o"


def test_nothing_is_private_unless_a_policy_says_so(project: Project) -> None:
    project.write("pipeline.yml", ZONES % "azureml:stackhub")
    zones = {o["zone"] for s in project.record()["steps"] for o in s["outputs"].values()}
    assert zones == {"cloud"}
    project.write("contracts/residency.yml", "private: [stackhub, lake]\n")
    record = project.record()
    assert {o["zone"] for s in record["steps"] for o in s["outputs"].values()} == {"edge"}
    project.write("contracts/residency.yml", "private: stackhub\n")
    assert "contracts/residency.yml:1: 'private' must be a list of names" in project.run(check=2).stderr


def test_the_policy_holds_wherever_a_pipeline_is_run_from(project: Project, tmp_path: Path) -> None:
    project.write("repository/pipelines/pipeline.yml", ZONES % "azureml:stackhub")
    project.write("repository/contracts/residency.yml", "private: [stackhub, lake]\n")
    done = project.edgeml("run", "repository/pipelines/pipeline.yml", "--json")
    assert {o["zone"] for s in json.loads(done.stdout)["steps"] for o in s["outputs"].values()} == {"edge"}
    project.write("repository/pipelines/edgeml.toml", "")  # a project of its own, which has no policy
    done = project.edgeml("run", "repository/pipelines/pipeline.yml", "--json")
    assert {o["zone"] for s in json.loads(done.stdout)["steps"] for o in s["outputs"].values()} == {"cloud"}


def test_paths_with_spaces_reach_the_shell_whole(tmp_path: Path) -> None:
    project = Project(tmp_path / "my project (1)")
    project.write("in put/da ta.csv", "x\n")
    project.write(
        "pipeline.yml",
        """
        jobs:
          a:
            command: cp ${{inputs.i}} ${{outputs.o}}
            inputs: {i: {type: uri_file, path: "./in put/da ta.csv"}}
            outputs: {o: {type: uri_file}}
          b:
            command: cp ${{inputs.i}} ${{outputs.o}}/y
            inputs: {i: "${{parent.jobs.a.outputs.o}}"}
            outputs: {o: {type: uri_folder}}
        """,
    )
    project.run("--output-dir", "o u t")
    assert (project.folder / "o u t/jobs/b/outputs/o/y").read_text() == "x\n"


def test_the_storage_secret_goes_only_where_a_component_asks_for_it(project: Project) -> None:
    command = "env | cut -d= -f1 > ${{outputs.o}}"
    project.write(
        "pipeline.yml", json.dumps({"jobs": {"a": {"command": command, "outputs": {"o": {"type": "uri_file"}}}}})
    )
    project.run("--output-dir", "out", EDGEML_STORAGE_ACCOUNT_KEY="hush", OTHER="x")
    names = (project.folder / "out/jobs/a/outputs/o").read_text().split()
    assert "EDGEML_STORAGE_ACCOUNT_KEY" not in names
    assert {"OTHER", "MLFLOW_TRACKING_URI", "AZUREML_RUN_ID", "AZUREML_ROOT_RUN_ID"} <= set(names)


def test_paths_of_data_are_in_the_environment_as_on_azure_ml(project: Project) -> None:
    project.write("start.txt", "zero\n")
    project.write(
        "pipeline.yml",
        """
        jobs:
          a:
            command: cat $AZURE_ML_INPUT_data > $AZURE_ML_OUTPUT_o && env > ./outputs/env
            inputs: {data: {type: uri_file, path: ./start.txt}, word: hush}
            outputs: {o: {type: uri_file}}
          b:
            command: cat $AZURE_ML_INPUT_i && ! grep INPUT_word ${{inputs.e}}/env
            inputs: {i: "${{parent.jobs.a.outputs.o}}", e: "${{parent.jobs.a.outputs.artifacts}}"}
        """,
    )
    project.run("--output-dir", "out")
    assert (project.folder / "out/jobs/b/log.txt").read_text() == "zero\n"


def test_steps_run_in_the_interpreter_of_edgeml(project: Project) -> None:
    project.write(
        "pipeline.yml",
        """
        jobs:
          a:
            command: python -c "import sys; print(sys.prefix)" > ${{outputs.o}}
            outputs: {o: {type: uri_file}}
        """,
    )
    project.run("--output-dir", "out")
    assert (project.folder / "out/jobs/a/outputs/o").read_text().strip() == sys.prefix
    assert "there is no such program" in project.run("--python", "./nowhere", check=2).stderr


def test_a_command_that_installs_packages_does_not_change_our_environment(project: Project) -> None:
    project.write(
        "package/pyproject.toml", '[build-system]\nrequires = ["hatchling"]\nbuild-backend = "hatchling.build"\n'
    )
    with (project.folder / "package/pyproject.toml").open("a") as stream:
        stream.write('[project]\nname = "passing-guest"\nversion = "1"\n')
    project.write("package/passing_guest.py", "import yaml\nWORD = 'hello'\n")
    project.write(
        "pipeline.yml",
        """
        jobs:
          a:
            code: package
            command: >-
              pip install --quiet --no-index --no-build-isolation --no-deps . &&
              cd / && python -c "import passing_guest as guest; print(guest.WORD, guest.__file__)" > ${{outputs.o}}
            outputs: {o: {type: uri_file}}
        """,
    )
    project.run("--output-dir", "out")
    word, where = (project.folder / "out/jobs/a/outputs/o").read_text().split()
    assert (word, where.startswith(str(project.folder))) == ("hello", True)
    assert subprocess.run([sys.executable, "-c", "import passing_guest"], capture_output=True).returncode == 1
    assert not (project.folder / "out/jobs/a/environment").exists()


def test_a_log_may_hold_any_bytes_and_a_daemon_does_not_outlive_its_step(project: Project) -> None:
    project.write(
        "pipeline.yml",
        r"""
        jobs:
          a:
            command: |
              printf '\xff\xfe broken \x00\n'
              sleep 300 & echo $! > ${{outputs.pid}}
              exit 4
            outputs: {pid: {type: uri_file}}
        """,
    )
    began = time.monotonic()
    done = project.run("--output-dir", "out", check=1)
    assert time.monotonic() - began < 20
    assert "broken" in done.stderr
    pid = int((project.folder / "out/jobs/a/outputs/pid").read_text())
    wait_until(lambda: not alive(pid))


def test_an_interruption_ends_every_child_and_the_next_run_goes_on(project: Project) -> None:
    project.write("release", "")
    project.write(
        "pipeline.yml",
        """
        jobs:
          quick: {command: "echo done > ${{outputs.o}}", outputs: {o: {type: uri_file}}}
          slow:
            command: echo $$ > $MARK; test -e $GO || sleep 300; cp ${{inputs.i}} ${{outputs.o}}
            inputs: {i: "${{parent.jobs.quick.outputs.o}}"}
            outputs: {o: {type: uri_file}}
        """,
    )
    mark = project.folder / "mark"
    env = {**os.environ, "MARK": str(mark), "GO": str(project.folder / "go")}
    engine = subprocess.Popen(
        [*EDGEML, "run", "pipeline.yml", "--output-dir", "out"], cwd=project.folder, env=env, stderr=subprocess.PIPE
    )
    wait_until(lambda: mark.exists() and mark.read_text().strip())
    busy = project.run("--output-dir", "out", check=2, MARK=env["MARK"], GO=env["GO"])
    assert "another edgeml runs in" in busy.stderr
    engine.send_signal(signal.SIGINT)
    assert engine.wait(20) == 130
    assert engine.stderr is not None
    assert "Traceback" not in engine.stderr.read().decode()
    assert not alive(int(mark.read_text()))
    record = json.loads((project.folder / "out/run.json").read_text())
    assert record["status"] == "interrupted"
    (project.folder / "go").touch()
    assert project.statuses("--output-dir", "out", MARK=env["MARK"], GO=env["GO"]) == {
        "quick": "cached",
        "slow": "completed",
    }


def test_an_output_dir_is_used_again_only_for_a_run(chain: Project) -> None:
    chain.run("--output-dir", "out")
    (chain.folder / "out/edge-of-mine").mkdir()
    chain.run("--output-dir", "out", "--input", "word=two")
    assert (chain.folder / "out/outputs/final").read_text() == "ZERO\nTWO\n"
    assert (chain.folder / "out/edge-of-mine").is_dir()
    assert "is not empty and holds no earlier run" in chain.run("--output-dir", "src", check=2).stderr
    assert "is a file" in chain.run("--output-dir", "start.txt", check=2).stderr


def test_a_dry_run_prints_the_graph_and_runs_nothing(chain: Project) -> None:
    text = chain.run("--dry-run").stdout
    assert "second" in text
    assert "src = first.out" in text
    graph = json.loads(chain.run("--dry-run", "--json").stdout)
    assert [step["node"] for step in graph["steps"]] == ["first", "aside", "second"]
    assert graph["steps"][2]["inputs"] == {"src": {"step": "first", "output": "out"}}
    assert not (chain.folder / ".edgeml").exists()


def test_earlier_runs_are_listed_and_shown(chain: Project) -> None:
    def runs(*args: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run([*EDGEML, "runs", *args], cwd=chain.folder, capture_output=True, text=True)

    assert "there is no run yet" in runs("show").stderr
    assert runs("list").stdout == "no runs yet\n"
    first = chain.record()
    (chain.folder / "src/upper.py").write_text("raise SystemExit(5)\n")
    second = chain.record(check=1)
    listed = json.loads(runs("list", "--json").stdout)
    assert {run["run"] for run in listed} == {first["run"], second["run"]}
    shown = runs("show", second["run"]).stdout
    assert "exited with code 5" in shown
    assert json.loads(runs("show", first["run"], "--json").stdout) == first
    missing = runs("show", "nothing")
    assert (missing.returncode, "there is no run 'nothing'" in missing.stderr) == (2, True)


def test_the_record_names_the_commit(chain: Project) -> None:
    git = ["git", "-c", "user.name=t", "-c", "user.email=t@example.org", "-c", "init.defaultBranch=main"]
    for command in (["init", "-q"], ["add", "."], ["commit", "-qm", "x"]):
        subprocess.run([*git, *command], cwd=chain.folder, check=True)
    head = subprocess.run(["git", "rev-parse", "HEAD"], cwd=chain.folder, capture_output=True, text=True).stdout.strip()
    assert chain.record()["git"] == {"commit": head, "dirty": False}
    chain.write("start.txt", "changed\n")
    changed = chain.record()
    assert changed["git"] == {"commit": head, "dirty": True}
    assert changed["pipeline_digest"].startswith("sha256:")


def test_running_imports_nothing_heavy(chain: Project) -> None:
    script = (
        "import sys; from edgeml.cli import main; code = main(['run', 'pipeline.yml']); "
        "heavy = {'azure', 'pandas', 'polars', 'mlflow', 'numpy', 'pydantic', 'asyncio', 'logging', 'inspect'}; "
        "sys.exit(f'imported {heavy & set(sys.modules)}' if heavy & set(sys.modules) else code)"
    )
    done = subprocess.run([sys.executable, "-c", script], cwd=chain.folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_bad_arguments_are_one_sentence(chain: Project) -> None:
    assert "--input word: write it as NAME=VALUE" in chain.run("--input", "word", check=2).stderr
    assert "there is no input 'wrod'" in chain.run("--input", "wrod=1", check=2).stderr
    assert "--jobs -1" in chain.run("--jobs", "-1", check=2).stderr
