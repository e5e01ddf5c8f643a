"""Nodes that are more than one process: sweeps, parallel nodes and distributed commands, run as a user runs them."""

from __future__ import annotations

import json
import os
import sqlite3
import sys
from pathlib import Path

import pytest

from edgeml.engine.step import has_package
from tests.engine.project import Project, alive

TRIAL = """
    import argparse, sys
    parser = argparse.ArgumentParser()
    for name in ("lr", "depth", "kernel", "out"):
        parser.add_argument("--" + name)
    args = parser.parse_args()
    if args.kernel == "broken":
        sys.exit("no such kernel")
    import mlflow
    with mlflow.start_run():
        mlflow.log_metric("auc", -abs(float(args.lr) - 0.3) + int(args.depth))
    open(args.out + "/model.txt", "w").write(f"{args.lr} {args.depth} {args.kernel}")
"""
TRAIN = """
    type: command
    name: train
    inputs:
      lr: {type: number, default: 0.1}
      depth: {type: integer}
      kernel: {type: string}
    outputs: {model: {type: uri_folder}}
    code: ./src
    command: >-
      python trial.py --lr ${{inputs.lr}} --depth ${{inputs.depth}} --kernel ${{inputs.kernel}} --out ${{outputs.model}}
"""
SWEEP = """
    outputs: {{best: {{type: uri_folder}}}}
    jobs:
      search:
        type: sweep
        trial: ./train.yml
        inputs: {inputs}
        outputs: {{model: "${{{{parent.outputs.best}}}}"}}
        sampling_algorithm: {algorithm}
        search_space: {space}
        objective: {{goal: {goal}, primary_metric: {metric}}}
        limits: {limits}
"""


@pytest.fixture(scope="module")
def sweeps(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """One project for all sweeps, because making MLflow's store takes seconds."""
    project = Project(tmp_path_factory.mktemp("sweeps"))
    project.write("src/trial.py", TRIAL)
    project.write("train.yml", TRAIN)
    project.write("edgeml.toml", "")
    return project


def search(
    project: Project,
    *args: str,
    check: int = 0,
    inputs: str = "{kernel: rbf}",
    algorithm: str = "grid",
    space: str = "{lr: {type: choice, values: [0.3, 0.9]}, depth: {type: choice, values: [1, 2]}}",
    goal: str = "maximize",
    metric: str = "auc",
    limits: str = "{max_concurrent_trials: 2}",
) -> dict:
    project.write(
        "pipeline.yml",
        SWEEP.format(inputs=inputs, algorithm=algorithm, space=space, goal=goal, metric=metric, limits=limits),
    )
    return project.record(*args, check=check)["steps"][0]


def best(project: Project, step: dict) -> dict:
    (found,) = [trial for trial in step["trials"] if trial["best"]]
    newest = max((project.folder / ".edgeml/runs").iterdir(), key=lambda path: path.stat().st_mtime)
    lr, depth, kernel = (newest / "outputs/best/model.txt").read_text().split()
    values = {"lr": float(lr), "depth": int(depth), "kernel": kernel}
    assert values.items() >= found["values"].items(), "the best trial's outputs are the step's"
    assert not list(newest.rglob("~trials"))
    return found


def test_a_grid_is_tried_whole_and_its_trials_are_reused_by_a_larger_one(sweeps: Project) -> None:
    step = search(sweeps)
    assert [trial["values"] for trial in step["trials"]] == [
        {"lr": lr, "depth": depth} for lr in (0.3, 0.9) for depth in (1, 2)
    ]
    assert best(sweeps, step)["values"] == {"lr": 0.3, "depth": 2} and best(sweeps, step)["metric"] == 2.0
    assert search(sweeps)["status"] == "cached"

    larger = "{lr: {type: choice, values: [0.3]}, depth: {type: choice, values: [1, 2, 3]}}"
    step = search(sweeps, space=larger)
    assert [trial["reused"] for trial in step["trials"]] == [True, True, False]
    assert best(sweeps, step)["values"]["depth"] == 3

    step = search(sweeps, goal="minimize")
    assert all(trial["reused"] for trial in step["trials"]) and best(sweeps, step)["values"] == {"lr": 0.9, "depth": 1}

    runs = "SELECT count(*), count(DISTINCT experiment_id), min(status) FROM runs"
    database = sqlite3.connect(sweeps.folder / ".edgeml/mlflow.db")
    # Two sweeps ran trials, five in all; each trial is a child of its sweep's run.
    assert database.execute(runs).fetchone() == (7, 1, "FINISHED")
    assert database.execute("SELECT count(*) FROM tags WHERE key = 'mlflow.parentRunId'").fetchone() == (5,)


def test_failed_trials_are_left_out_and_a_metric_nobody_logs_is_named(sweeps: Project) -> None:
    kernels = "{kernel: {type: choice, values: [broken, rbf]}}"
    step = search(sweeps, inputs="{depth: 4}", space=kernels)
    assert [trial["message"] for trial in step["trials"]] == ["exited with code 1", ""]
    assert best(sweeps, step)["values"] == {"kernel": "rbf"}
    none = search(sweeps, inputs="{depth: 4}", space="{kernel: {type: choice, values: [broken]}}", check=1)
    assert none["message"] == "has no successful trial; trial 1 exited with code 1"
    missing = search(sweeps, inputs="{depth: 5}", space="{kernel: {type: choice, values: [rbf]}}", metric="f1", check=1)
    assert missing["message"] == "has no trial that logged the metric 'f1'; they logged: auc"


def test_bayesian_sampling_learns_from_the_metric(sweeps: Project) -> None:
    step = search(
        sweeps,
        inputs="{kernel: rbf, depth: 1}",
        algorithm="bayesian",
        space="{lr: {type: uniform, min_value: 0, max_value: 1}}",
        limits="{max_total_trials: 3, max_concurrent_trials: 1}",
    )
    values = [trial["values"]["lr"] for trial in step["trials"]]
    assert len(set(values)) == 3 and all(0 <= value <= 1 for value in values)
    assert best(sweeps, step)["metric"] == max(trial["metric"] for trial in step["trials"])


def test_a_trial_that_takes_too_long_is_ended(sweeps: Project) -> None:
    sweeps.write(
        "src/slow.py", "import time\nopen('../pid', 'w').write(str(__import__('os').getpid()))\ntime.sleep(60)\n"
    )
    sweeps.write(
        "slow.yml",
        "type: sweep\ntrial: {command: 'python slow.py ${{search_space.n}}', code: ./src}\n"
        "search_space: {n: {type: choice, values: [1]}}\nobjective: {goal: minimize, primary_metric: loss}\n"
        "sampling_algorithm: grid\nlimits: {trial_timeout: 1}\n",
    )
    done = sweeps.edgeml("run", "slow.yml", check=1)
    assert "ran longer than 1 s and was ended" in done.stderr
    (pid,) = (sweeps.folder / ".edgeml/runs").glob("slow-*/jobs/slow/trials/1/pid")
    assert not alive(int(pid.read_text()))


BATCH = """
    import argparse, os, time
    def init():
        global prefix
        parser = argparse.ArgumentParser()
        parser.add_argument("--prefix")
        prefix = parser.parse_known_args()[0].prefix
    def run(mini_batch):
        rows = []
        for path in mini_batch:
            text = open(path).read().strip()
            if text == "die":
                os._exit(3)
            if text == "slow":
                time.sleep(30)
            if text == "once" and not os.path.exists("seen"):
                open("seen", "w").close()
                raise ValueError("the first time")
            if text == "bad":
                raise ValueError("bad file")
            if text != "skip":
                rows.append(f"{prefix} {os.path.basename(path)} {text}")
        return rows
"""
PARALLEL = """
    outputs: {rows: {type: uri_file}}
    jobs:
      score:
        type: parallel
        inputs:
          files: {type: uri_folder, path: ./files}
          word: hello
        outputs: {rows: "${{parent.outputs.rows}}"}
        input_data: ${{inputs.files}}
        mini_batch_size: "2"
        max_concurrency_per_instance: 2
        retry_settings: {max_retries: 1, timeout: 2}
        mini_batch_error_threshold: 0
        error_threshold: 0
        task:
          type: run_function
          code: ./src
          entry_script: score.py
          program_arguments: --prefix ${{inputs.word}}
          append_row_to: ${{outputs.rows}}
"""


@pytest.fixture
def parallel(tmp_path: Path) -> Project:
    project = Project(tmp_path)
    project.write("src/score.py", BATCH)
    project.write("pipeline.yml", PARALLEL)
    for number in range(5):
        project.write(f"files/{number}.txt", f"text{number}\n")
    return project


def rows(project: Project) -> list[str]:
    newest = max((project.folder / ".edgeml/runs").iterdir(), key=lambda path: path.stat().st_mtime)
    return (newest / "outputs/rows").read_text().splitlines()


def test_mini_batches_are_run_by_workers_and_appended_in_order(parallel: Project) -> None:
    parallel.write("files/1.txt", "once")
    assert parallel.statuses() == {"score": "completed"}
    assert rows(parallel) == [
        f"hello {number}.txt {'once' if number == 1 else f'text{number}'}" for number in range(5)
    ], "a mini-batch that failed is tried again"
    assert parallel.statuses() == {"score": "cached"}
    parallel.write("files/5.txt", "more")
    assert parallel.statuses() == {"score": "completed"} and len(rows(parallel)) == 6


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("bad", "mini-batch 1 failed: ValueError: bad file"),
        ("die", "mini-batch 1 failed: its worker ended"),
        ("slow", "mini-batch 1 failed: it took more than 2 s"),
        ("skip", "1 items failed, more than the 0 that may"),
    ],
)
def test_a_mini_batch_that_fails_counts_against_the_threshold(parallel: Project, content: str, words: str) -> None:
    parallel.write("files/3.txt", content)
    assert words in parallel.run(check=1).stderr
    text = (parallel.folder / "pipeline.yml").read_text()
    text = text.replace("mini_batch_error_threshold: 0", "mini_batch_error_threshold: 1")
    (parallel.folder / "pipeline.yml").write_text(text.replace("error_threshold: 0", "error_threshold: 2"))
    assert parallel.statuses() == {"score": "completed"}
    assert not any(" 3.txt " in row for row in rows(parallel))


def test_a_parallel_component_is_overridden_by_its_node(parallel: Project) -> None:
    parallel.write(
        "score.yml",
        """
        type: parallel
        name: score
        inputs: {files: {type: uri_folder}, word: {type: string}}
        outputs: {rows: {type: uri_file}}
        input_data: ${{inputs.files}}
        mini_batch_size: "2"
        max_concurrency_per_instance: 2
        task:
          type: run_function
          code: ./src
          entry_script: score.py
          program_arguments: --prefix ${{inputs.word}}
          append_row_to: ${{outputs.rows}}
        """,
    )
    parallel.write(
        "pipeline.yml",
        """
        outputs: {rows: {type: uri_file}}
        jobs:
          score:
            type: parallel
            component: ./score.yml
            mini_batch_size: "1"
            inputs: {files: {type: uri_folder, path: ./files}, word: ho}
            outputs: {rows: "${{parent.outputs.rows}}"}
        """,
    )
    parallel.record()
    assert rows(parallel) == [f"ho {number}.txt text{number}" for number in range(5)]
    specification = json.loads(next((parallel.folder / ".edgeml/runs").glob("*/jobs/score/parallel.json")).read_text())
    assert specification["files"] == 1 and specification["workers"] == 2


def test_an_mltable_lists_files_and_a_table_of_rows_is_refused(parallel: Project) -> None:
    text = (parallel.folder / "pipeline.yml").read_text().replace("type: uri_folder, path", "type: mltable, path")
    (parallel.folder / "pipeline.yml").write_text(text)
    parallel.write("files/more/9.txt", "nine")
    parallel.write("files/MLTable", "paths:\n  - file: ./3.txt\n  - folder: ./more\n  - pattern: ./[01].txt\n")
    parallel.record()
    assert rows(parallel) == ["hello 3.txt text3", "hello 9.txt nine", "hello 0.txt text0", "hello 1.txt text1"]
    table = "paths:\n  - file: ./3.txt\ntransformations:\n  - read_delimited: {delimiter: ','}\n"
    parallel.write("files/MLTable", table)
    refused = parallel.run(check=2).stderr
    assert "pipeline.yml:10: parallel node 'score' reads a table in mini-batches (read_delimited)" in refused


DISTRIBUTED = """
    outputs: {out: {type: uri_folder}}
    jobs:
      train:
        command: >-
          echo "$RANK of $WORLD_SIZE at $MASTER_ADDR" > ${{outputs.out}}/$LOCAL_RANK && test "$RANK" != "$FAIL"
        outputs: {out: "${{parent.outputs.out}}"}
        environment_variables: {FAIL: "${{parent.inputs.fail}}"}
        distribution: {type: pytorch, process_count_per_instance: 3}
        resources: {instance_count: 1}
    inputs: {fail: none}
"""


def test_a_distributed_command_is_several_processes_that_know_their_rank(tmp_path: Path) -> None:
    project = Project(tmp_path)
    project.write("pipeline.yml", DISTRIBUTED)
    project.record("--output-dir", "out")
    assert sorted(path.name for path in (tmp_path / "out/outputs/out").iterdir()) == ["0", "1", "2"]
    assert (tmp_path / "out/outputs/out/2").read_text() == "2 of 3 at 127.0.0.1\n"
    assert project.record("--input", "fail=1", check=1)["steps"][0]["exit_code"] == 1


def test_a_distributed_command_that_installs_packages_leaves_this_python_alone(tmp_path: Path) -> None:
    project = Project(tmp_path)
    command = "pip install --version > /dev/null; python -c 'import sys; print(sys.prefix)' > ${{outputs.o}}/$RANK"
    job = {
        "command": command,
        "outputs": {"o": {"type": "uri_folder"}},
        "distribution": {"type": "mpi", "process_count_per_instance": 2},
    }
    project.write("pipeline.yml", json.dumps({"jobs": {"train": job}}))
    project.run("--output-dir", "out")
    prefixes = {path.read_text().strip() for path in (tmp_path / "out/jobs/train/outputs/o").iterdir()}
    assert prefixes == {str(tmp_path / "out/jobs/train/environment")}


ALL_REDUCE = """
    import os, sys, torch, torch.distributed as distributed
    distributed.init_process_group("gloo")
    total = torch.tensor([float(distributed.get_rank() + 1)])
    distributed.all_reduce(total)
    if distributed.get_rank() == 0:
        open(sys.argv[1], "w").write(f"{total.item()} {'TORCHELASTIC_RUN_ID' in os.environ}")
    distributed.destroy_process_group()
"""


def test_pytorch_s_own_launcher_is_used_where_it_is(tmp_path: Path) -> None:
    python = os.environ.get("EDGEML_TEST_TORCH", sys.executable)
    if not has_package(python, "torch"):
        pytest.skip("PyTorch (5 GB) is not installed here; EDGEML_TEST_TORCH names an interpreter that has it")
    project = Project(tmp_path)
    project.write("src/reduce.py", ALL_REDUCE)
    project.write(
        "pipeline.yml",
        """
        jobs:
          train:
            command: python reduce.py ${{outputs.o}}
            code: ./src
            outputs: {o: {type: uri_file}}
            distribution: {type: pytorch, process_count_per_instance: 3}
        """,
    )
    project.run("--python", python, "--output-dir", "out")
    assert (tmp_path / "out/jobs/train/outputs/o").read_text() == "6.0 True"


def test_tensorflow_s_workers_know_each_other(tmp_path: Path) -> None:
    project = Project(tmp_path)
    project.write(
        "pipeline.yml",
        """
        jobs:
          train:
            command: echo "$TF_CONFIG" > ${{outputs.out}}/$$
            outputs: {out: {type: uri_folder}}
            distribution: {type: tensorflow, worker_count: 2}
        """,
    )
    project.record("--output-dir", "out")
    found = [json.loads(path.read_text()) for path in (tmp_path / "out/jobs/train/outputs/out").iterdir()]
    assert sorted(config["task"]["index"] for config in found) == [0, 1]
    assert found[0]["cluster"] == found[1]["cluster"] and len(set(found[0]["cluster"]["worker"])) == 2
