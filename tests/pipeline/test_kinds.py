"""Sweep and parallel nodes, distributions and data assets, through the resolver's one face."""

from __future__ import annotations

from pathlib import Path
from textwrap import dedent
from typing import Any

import pytest

from edgeml.engine.step import Sources, command_of
from edgeml.pipeline import Graph, PipelineError, resolve
from edgeml.pipeline.graph import Data

TRAIN = """
    name: train
    inputs: {data: {type: uri_folder}, lr: {type: number}, depth: {type: integer, default: 3}}
    outputs: {model: {type: uri_folder}}
    command: train ${{inputs.data}} ${{inputs.lr}} ${{inputs.depth}} ${{outputs.model}}
"""
SWEEP = """
    inputs: {trials: 7, low: 0.5}
    jobs:
      s:
        type: sweep
        trial: ./train.yml
        inputs: {data: {type: uri_folder, path: .}}
        sampling_algorithm: random
        search_space: {lr: {type: uniform, min_value: "${{parent.inputs.low}}", max_value: 1}}
        objective: {goal: Maximize, primary_metric: auc}
        limits: {max_total_trials: "${{parent.inputs.trials}}", max_concurrent_trials: 2, timeout: 60}
"""
PARALLEL = """
    jobs:
      p:
        type: parallel
        inputs: {files: {type: uri_folder, path: .}}
        outputs: {rows: {type: uri_file}}
        input_data: ${{inputs.files}}
        mini_batch_size: "3"
        task:
          type: run_function
          code: .
          entry_script: score.py
          program_arguments: --out ${{outputs.rows}}
          append_row_to: ${{outputs.rows}}
"""


def graph_of(folder: Path, content: str, **files: str) -> Graph:
    for name, text in {"pipeline": content, "train": TRAIN, **files}.items():
        (folder / f"{name}.yml").write_text(dedent(text))
    (folder / "score.py").write_text("")
    return resolve(str(folder / "pipeline.yml"))


def test_a_sweep_is_its_trial_s_component_without_the_searched_inputs(tmp_path: Path) -> None:
    step = graph_of(tmp_path, SWEEP).steps["s"]
    assert step.inputs == {"data": Data(str(tmp_path), "uri_folder"), "depth": 3}
    assert step.sweep is not None
    assert step.sweep._asdict() == {
        "algorithm": "random",
        "seed": None,
        "space": {"lr": {"type": "uniform", "min_value": 0.5, "max_value": 1}},
        "goal": "maximize",
        "metric": "auc",
        "max_trials": 7,
        "max_concurrent": 2,
        "timeout": 60,
        "trial_timeout": 0,
        "early_termination": "",
    }


def test_a_sweep_written_whole_uses_the_names_of_its_space(tmp_path: Path) -> None:
    alone = """
        type: sweep
        trial: {command: "echo ${{search_space.lr}} ${{inputs.a}} > ${{outputs.o}}", environment: "azureml:x@latest"}
        inputs: {a: 3}
        outputs: {o: {type: uri_file}}
        sampling_algorithm: {type: grid}
        search_space: {lr: {type: choice, values: [1, two]}}
        objective: {goal: minimize, primary_metric: loss}
    """
    step = graph_of(tmp_path, alone).steps["pipeline"]
    trial = step._replace(inputs={**step.inputs, "lr": "two"})
    assert command_of(trial, {"o": "<o>"}, Sources({}, {}, str)) == "echo two 3 > <o>"


def test_a_space_may_have_other_names_than_the_inputs(tmp_path: Path) -> None:
    renamed = SWEEP.replace("{lr: {type", "{rate: {type").replace(
        "inputs: {data", "inputs: {lr: '${{search_space.rate}}', data"
    )
    step = graph_of(tmp_path, renamed).steps["s"]
    assert step.sweep is not None and list(step.sweep.space) == ["lr"] and "lr" not in step.inputs
    with pytest.raises(PipelineError, match=r"names nothing of the search_space; it has: rate"):
        graph_of(tmp_path, renamed.replace("search_space.rate", "search_space.other"))


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("trial: ./train.yml", "limits: {}", "sweep 's' has no trial"),
        ("sampling_algorithm: random", "sampling_algorithm: magic", "'magic' is none of grid, random, bayesian"),
        (
            "sampling_algorithm: random",
            "sampling_algorithm: grid",
            "grid sampling takes choice, but 'lr' is of type unif",
        ),
        ("type: uniform", "type: beta", "'lr' of the search space has no type of: choice"),
        ("max_value: 1", "max_value: 0", "min_value of 'lr' is above its max_value"),
        ("max_value: 1", "other: 1", "'max_value' must be a number"),
        ("search_space: {lr", "search_space: {rate", "the trial of 's' has no input 'rate'; it has: data, lr, depth"),
        ("goal: Maximize", "goal: best", "must be minimize or maximize"),
        ("primary_metric: auc", "metric: auc", "has no objective.primary_metric"),
        ("max_concurrent_trials: 2", "max_concurrent_trials: 0", "'max_concurrent_trials' must be a whole number"),
        ("inputs: {data: {type: uri_folder, path: .}}", "inputs: {}", "input 'data' of node 's' has no value"),
    ],
)
def test_a_sweep_that_cannot_be_run_is_refused_with_its_place(tmp_path: Path, old: str, new: str, words: str) -> None:
    assert old in SWEEP
    with pytest.raises(PipelineError, match=words) as refusal:
        graph_of(tmp_path, SWEEP.replace(old, new))
    assert refusal.value.line > 0


def test_a_parallel_node_is_a_command_with_mini_batches(tmp_path: Path) -> None:
    step = graph_of(tmp_path, PARALLEL).steps["p"]
    assert step.component.command == "score.py --out ${{outputs.rows}}" and step.component.code == str(tmp_path)
    assert step.parallel is not None
    assert step.parallel._asdict() == {
        "input": "files",
        "append_to": "rows",
        "files": 3,
        "bytes": 0,
        "workers": 1,
        "retries": 2,
        "timeout": 60,
        "failed_batches": -1,
        "failed_items": -1,
    }
    sized = graph_of(tmp_path, PARALLEL.replace('"3"', "10kb")).steps["p"].parallel
    assert sized is not None and (sized.files, sized.bytes) == (0, 10_240)


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("input_data: ${{inputs.files}}", "input_data: files", "must be bound to one of its inputs"),
        (
            "append_row_to: ${{outputs.rows}}",
            "append_row_to: ${{outputs.other}}",
            "must be bound to one of its outputs",
        ),
        ('mini_batch_size: "3"', 'mini_batch_size: "many"', "must be a number of files, or of kb, mb or gb"),
        ('mini_batch_size: "3"', "partition_keys: [a]", "partitions by keys, which this runner cannot do"),
        ("entry_script: score.py", "entry_script: none.py", "the entry script none.py of node 'p' is not in its code"),
        ("entry_script: score.py", "script: score.py", "has no entry_script"),
        ("--out ${{outputs.rows}}", "--out ${{outputs.row}}", "which the component does not declare"),
    ],
)
def test_a_parallel_node_that_cannot_be_run_is_refused(tmp_path: Path, old: str, new: str, words: str) -> None:
    assert old in PARALLEL
    with pytest.raises(PipelineError, match=words) as refusal:
        graph_of(tmp_path, PARALLEL.replace(old, new))
    assert refusal.value.line > 0


@pytest.mark.parametrize("kind", ["spark", "automl", "import", "data_transfer"])
def test_kinds_that_only_azure_has_are_refused_by_name(tmp_path: Path, kind: str) -> None:
    with pytest.raises(PipelineError, match=rf"pipeline.yml:4: node 'n' is of type '{kind}'"):
        graph_of(tmp_path, f"jobs:\n  n:\n    compute: x\n    type: {kind}\n")


@pytest.mark.parametrize(
    ("kind", "count", "processes"),
    [
        ("pytorch", "", 1),
        ("pytorch", "process_count_per_instance: 4", 4),
        ("mpi", "process_count_per_instance: 2", 2),
        ("TensorFlow", "worker_count: 3", 3),
    ],
)
def test_a_distribution_is_counted_in_processes(tmp_path: Path, kind: str, count: str, processes: int) -> None:
    node = f"jobs: {{n: {{command: echo, distribution: {{type: {kind}, {count}}}}}}}"
    assert graph_of(tmp_path, node).steps["n"].distribution == (kind.lower(), processes)


@pytest.mark.parametrize("count", ["0", "-1", "many"])
def test_a_distribution_of_no_processes_is_refused(tmp_path: Path, count: str) -> None:
    node = f"jobs: {{n: {{command: echo, distribution: {{type: mpi, process_count_per_instance: {count}}}}}}}"
    with pytest.raises(PipelineError, match=r"pipeline.yml:1: 'process_count_per_instance' must be 1 or more"):
        graph_of(tmp_path, node)


ASSET = "name: cars\nversion: 2\ntype: uri_file\npath: ./data.csv\n"


@pytest.mark.parametrize("reference", ["azureml:cars@latest", "azureml:cars:2", "azureml:cars"])
@pytest.mark.parametrize(("file", "content"), [("cars", ASSET), ("other", ASSET), ("cars", "path: ./data.csv\n")])
def test_a_data_asset_beside_the_pipeline_is_found(tmp_path: Path, reference: str, file: str, content: str) -> None:
    (tmp_path / "data.csv").write_text("x")
    files: dict[str, Any] = {file: content}
    pipeline = (
        f"jobs: {{n: {{command: 'cat ${{{{inputs.i}}}}', inputs: {{i: {{type: uri_file, path: '{reference}'}}}}}}}}"
    )
    assert graph_of(tmp_path, pipeline, **files).steps["n"].inputs["i"] == Data(str(tmp_path / "data.csv"), "uri_file")


@pytest.mark.parametrize("content", [ASSET.replace("2", "3"), ASSET.replace("cars", "vans"), "name: cars\njobs: {}\n"])
def test_another_version_or_name_is_no_source(tmp_path: Path, content: str) -> None:
    (tmp_path / "data.csv").write_text("x")
    pipeline = "jobs: {n: {command: 'cat ${{inputs.i}}', inputs: {i: {type: uri_file, path: 'azureml:cars:2'}}}}"
    with pytest.raises(PipelineError, match=r"azureml:cars:2 is not on this machine.*--map azureml:cars:2=PATH"):
        graph_of(tmp_path, pipeline, other=content)


def test_the_older_file_of_additional_includes(tmp_path: Path) -> None:
    (tmp_path / "train.additional_includes").write_text("./score.py\n\n")
    graph = graph_of(tmp_path, "jobs: {n: {component: ./train.yml, inputs: {lr: 1, data: {path: .}}}}")
    assert graph.steps["n"].component.includes == (str(tmp_path / "score.py"),)


def test_a_parallel_node_without_its_files_is_refused(tmp_path: Path) -> None:
    component = """
        type: parallel
        inputs: {files: {type: uri_folder, optional: true}}
        outputs: {rows: {type: uri_file}}
        input_data: ${{inputs.files}}
        task: {type: run_function, code: ., entry_script: score.py, append_row_to: "${{outputs.rows}}"}
    """
    with pytest.raises(PipelineError, match=r"score.yml:5: input 'files' of parallel node 'p' has no value; set it"):
        graph_of(tmp_path, "jobs: {p: {type: parallel, component: ./score.yml}}", score=component)
