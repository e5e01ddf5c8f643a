"""What is run again and what is reused, and that a cache entry can be trusted."""

from __future__ import annotations

import json
import os
import subprocess
import time

import pytest

from tests.engine.project import EDGEML, Project


def test_only_what_changed_runs_again(chain: Project) -> None:
    done, cached = "completed", "cached"
    assert chain.statuses() == {"first": done, "second": done, "aside": done}
    assert chain.statuses("--output-dir", "again") == {"first": cached, "second": cached, "aside": cached}
    assert (chain.folder / "again/outputs/final").read_text() == "ZERO\nONE\n"
    assert chain.statuses("--input", "word=two") == {"first": done, "second": done, "aside": cached}
    chain.write("start.txt", "null\n")
    assert chain.statuses() == {"first": done, "second": done, "aside": cached}
    with (chain.folder / "src/upper.py").open("a") as script:
        script.write("# a comment\n")
    assert chain.statuses() == {"first": cached, "second": done, "aside": cached}
    chain.write("start.txt", "zero\n")
    assert chain.statuses()["first"] == cached, "what was made before is found again"
    assert set(chain.statuses("--force").values()) == {done}


def test_an_unchanged_result_stops_the_change(project: Project) -> None:
    project.write(
        "pipeline.yml",
        """
        inputs: {n: 1}
        jobs:
          parity:
            command: echo $((${{inputs.n}} % 2)) > ${{outputs.o}}
            inputs: {n: "${{parent.inputs.n}}"}
            outputs: {o: {type: uri_file}}
          after:
            command: cp ${{inputs.i}} ${{outputs.o}}
            inputs: {i: "${{parent.jobs.parity.outputs.o}}"}
            outputs: {o: {type: uri_file}}
        """,
    )
    project.run()
    assert project.statuses("--input", "n=3") == {"parity": "completed", "after": "cached"}
    assert project.statuses("--input", "n=4") == {"parity": "completed", "after": "completed"}


def test_other_variables_environments_and_literals_are_other_steps(project: Project) -> None:
    project.write("conda.yml", "dependencies: [python=3.11]\n")
    content = """
        jobs:
          a: {component: ./c.yml, inputs: {n: 1}}
          b: {component: ./c.yml, inputs: {n: 2}}
    """
    component = """
        inputs: {n: {type: integer}}
        outputs: {o: {type: uri_file}}
        environment: {image: some/image, conda_file: ./conda.yml}
        environment_variables: {WORD: hi}
        command: echo ${{inputs.n}} $WORD > ${{outputs.o}}
    """
    project.write("pipeline.yml", content)
    project.write("c.yml", component)
    record = project.record("--output-dir", "out")
    assert {step["status"] for step in record["steps"]} == {"completed"}
    assert (project.folder / "out/jobs/a/outputs/o").read_text() == "1 hi\n"
    assert (project.folder / "out/jobs/b/outputs/o").read_text() == "2 hi\n"
    assert set(project.statuses().values()) == {"cached"}
    project.write("c.yml", component.replace("WORD: hi", "WORD: ho"))
    assert set(project.statuses().values()) == {"completed"}
    project.write("conda.yml", "dependencies: [python=3.12]\n")
    assert set(project.statuses().values()) == {"completed"}


def test_a_step_that_is_not_deterministic_always_runs(project: Project) -> None:
    project.write(
        "pipeline.yml",
        """
        jobs:
          a:
            component: {command: "date +%N > ${{outputs.o}}", outputs: {o: {type: uri_file}}, is_deterministic: false}
          b:
            command: cp ${{inputs.i}} ${{outputs.o}}
            inputs: {i: "${{parent.jobs.a.outputs.o}}"}
            outputs: {o: {type: uri_file}}
        """,
    )
    project.run()
    assert project.statuses() == {"a": "completed", "b": "completed"}


def test_two_engines_at_once_share_a_cache(chain: Project) -> None:
    engines = [
        subprocess.Popen(
            [*EDGEML, "run", "pipeline.yml", "--output-dir", f"out{i}"], cwd=chain.folder, stderr=subprocess.DEVNULL
        )
        for i in range(4)
    ]
    assert [engine.wait(60) for engine in engines] == [0] * 4
    assert {(chain.folder / f"out{i}/outputs/final").read_text() for i in range(4)} == {"ZERO\nONE\n"}
    assert set(chain.statuses().values()) == {"cached"}


@pytest.mark.parametrize("restore_times", [False, True])
def test_a_cached_output_that_was_edited_is_not_used(chain: Project, restore_times: bool) -> None:
    chain.run("--output-dir", "out")
    output = chain.folder / "out/outputs/final"
    before = output.stat()
    with output.open("r+") as stream:  # in place: the same inode as the cache's
        stream.write("EVIL")
    if restore_times:
        os.utime(output, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert chain.statuses("--output-dir", "again") == {"first": "cached", "second": "completed", "aside": "cached"}
    assert (chain.folder / "again/outputs/final").read_text() == "ZERO\nONE\n"


def test_a_cache_that_cannot_be_written_costs_only_the_reuse(chain: Project) -> None:
    (chain.folder / ".edgeml").mkdir()
    (chain.folder / ".edgeml/cache").write_text("a file where the folder should be")
    for _ in range(2):
        assert set(chain.statuses("--output-dir", "out").values()) == {"completed"}


def test_a_large_input_with_equal_size_and_restored_mtime_is_seen(project: Project) -> None:
    data = project.folder / "data.bin"
    data.write_bytes(b"a" * (2 << 20))
    past = time.time() - 1000
    os.utime(data, (past, past))
    project.write(
        "pipeline.yml",
        """
        jobs:
          a:
            command: head -c 1 ${{inputs.i}} > ${{outputs.o}}
            inputs: {i: {type: uri_file, path: data.bin}}
            outputs: {o: {type: uri_file}}
        """,
    )
    time.sleep(2.1)  # long enough since the last change for its fingerprint to be remembered
    project.run()
    assert json.loads((project.folder / ".edgeml/cache/files.json").read_text()), "the fingerprint is remembered"
    assert project.statuses() == {"a": "cached"}
    with data.open("r+b") as stream:
        stream.write(b"b")
    os.utime(data, (past, past))
    assert project.statuses("--output-dir", "out") == {"a": "completed"}
    assert (project.folder / "out/jobs/a/outputs/o").read_text() == "b"
