"""The resolver through its one face: YAML in, graph or a sentence with file and line out."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from textwrap import dedent

import pytest

from edgeml.engine.step import Sources, command_of
from edgeml.pipeline import Graph, PipelineError, resolve
from edgeml.pipeline.graph import Data, FromStep, Text, describe

ECHO = """
    type: command
    name: echo
    inputs:
      value: {type: string, optional: true}
    outputs:
      out: {type: uri_file}
    command: echo $[[${{inputs.value}}]] > ${{outputs.out}}
"""


def graph_of(folder: Path, overrides: dict[str, str] | None = None, /, **files: str) -> Graph:
    for name, content in files.items():
        path = folder / f"{name}.yml"
        path.write_text(dedent(content))
    return resolve(str(folder / "pipeline.yml"), overrides or {})


def command(graph: Graph, step: str) -> str:
    """The command of a step with outputs shown as <name> and other steps' outputs as <step.name>."""
    found = graph.steps[step]
    paths = {(name, output): f"<{name}.{output}>" for name, s in graph.steps.items() for output in s.outputs}
    return command_of(found, {name: f"<{name}>" for name in found.outputs}, Sources(paths, {}, str))


@pytest.mark.parametrize(
    ("port", "given", "rendered"),
    [
        ("{type: boolean}", "false", "False"),
        ("{type: boolean, default: false}", None, "False"),
        ("{type: boolean}", "'true'", "True"),
        ("{type: number}", "1e-3", "0.001"),
        ("{type: number, default: 1e-3}", None, "0.001"),
        ("{type: number}", "1024", "1024"),
        ("{type: number, default: 1024}", None, "1024.0"),
        ("{type: number}", "2.50", "2.5"),
        ("{type: integer}", "1024", "1024"),
        ("{type: integer}", "'12'", "12"),
        ("{type: integer, default: 7}", None, "7"),
        ("{type: string, default: True}", None, "True"),
        ("{type: string}", "'01'", "01"),
        ("{type: string}", "2024-01-02", "2024-01-02"),
        ("{type: string}", "{value: 15}", "15"),
        ("{type: string, enum: [a, b]}", "b", "b"),
        ("{type: integer, min: 1, max: 3}", "3", "3"),
    ],
)
def test_literals_are_rendered_as_azure_ml_renders_them(
    tmp_path: Path, port: str, given: str | None, rendered: str
) -> None:
    (tmp_path / "component.yml").write_text(f"inputs:\n  x: {port}\ncommand: say ${{{{inputs.x}}}}\n")
    inputs = "" if given is None else f"    inputs:\n      x: {given}\n"
    (tmp_path / "pipeline.yml").write_text(f"jobs:\n  a:\n    component: ./component.yml\n{inputs}")
    assert command(resolve(str(tmp_path / "pipeline.yml")), "a") == f"say {rendered}"


def test_bindings_of_every_form(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    graph = graph_of(
        tmp_path,
        pipeline="""
            type: pipeline
            inputs:
              rate: 0.5
              table: {path: ./data}
              where: {type: uri_folder, path: "file:./data"}
            outputs:
              result: {type: uri_folder, path: "azureml://datastores/cloudy/paths/out/${{name}}"}
            jobs:
              last:               # points forward, to a node that is written below
                command: >-
                  join ${{ inputs.text }} ${{inputs.sub}} ${{inputs.folder}} ${{outputs.result}}
                inputs:
                  text: rate-${{parent.inputs.rate}}-x
                  sub: ${{parent.jobs.first.outputs.out}}/part
                  folder: ${{ parent.inputs.table }}
                outputs:
                  result: ${{parent.outputs.result}}
              first:
                type: command
                component:
                  inputs: {where: {type: uri_folder}, spare: {type: uri_folder, optional: true}}
                  outputs: {out: null}
                  command: copy ${{inputs.where}} ${{outputs.out}} $[[--spare ${{inputs.spare}}]]
                inputs: {where: "${{parent.inputs.where}}"}
        """,
    )
    data = str(tmp_path / "data")
    assert list(graph.steps) == ["first", "last"]
    assert command(graph, "first").split() == ["copy", data, "<out>"]
    assert command(graph, "last").split() == ["join", "rate-0.5-x", "<first.out>/part", data, "<result>"]
    assert graph.steps["last"].inputs["sub"] == Text((FromStep("first", "out"), "/part"))
    assert graph.inputs["table"] == Data(data, "uri_folder")
    assert graph.steps["last"].needs == {"first"}
    source, output = graph.outputs["result"]
    assert source == FromStep("last", "result")
    assert output.uri == "azureml://datastores/cloudy/paths/out/${{name}}"
    assert describe(graph)["outputs"]["result"]["type"] == "uri_folder"


def test_nested_pipelines_hand_inputs_down_and_outputs_up(tmp_path: Path) -> None:
    graph = graph_of(
        tmp_path,
        echo=ECHO,
        inner="""
            type: pipeline
            inputs:
              word: {type: string, optional: true}
              times: {type: number, default: 3}
            outputs:
              made: {type: uri_file}
            jobs:
              say:
                component: ./echo.yml
                inputs: {value: "${{parent.inputs.word}}"}
                outputs: {out: "${{parent.outputs.made}}"}
        """,
        outer="""
            type: pipeline
            inputs:
              word: {type: string, optional: true}
            outputs:
              made: {type: uri_file}
            jobs:
              deep:
                type: pipeline
                component: file:./inner.yml
                inputs: {word: "${{parent.inputs.word}}"}
                outputs: {made: "${{parent.outputs.made}}"}
        """,
        pipeline="""
            inputs: {greeting: hello}
            outputs:
              final: {type: uri_file, path: azureml://datastores/lake/paths/x}
            jobs:
              unset: {component: ./outer.yml}
              set:
                component: ./outer.yml
                inputs: {word: "${{parent.inputs.greeting}}"}
                outputs: {made: "${{parent.outputs.final}}"}
              read:
                command: cat ${{inputs.it}}
                inputs: {it: "${{parent.jobs.unset.outputs.made}}"}
        """,
    )
    assert set(graph.steps) == {"unset.deep.say", "set.deep.say", "read"}
    assert command(graph, "unset.deep.say") == "echo  > <out>"
    assert command(graph, "set.deep.say") == "echo hello > <out>"
    assert command(graph, "read") == "cat <unset.deep.say.out>"
    assert graph.outputs["final"][0] == FromStep("set.deep.say", "out")
    assert graph.steps["set.deep.say"].outputs["out"].uri == "azureml://datastores/lake/paths/x"
    assert graph.steps["unset.deep.say"].outputs["out"].uri == ""


def test_settings_variables_and_compute_may_be_bound(tmp_path: Path) -> None:
    graph = graph_of(
        tmp_path,
        pipeline="""
            display_name: named
            inputs: {where: azureml:cpu, level: 3}
            settings:
              default_datastore: azureml:stackhub
              continue_on_step_failure: false
              force_rerun: true
            jobs:
              a:
                command: env
                compute: ${{parent.inputs.where}}
                environment_variables: {LEVEL: "${{parent.inputs.level}}", FLAG: true}
        """,
    )
    step = graph.steps["a"]
    assert (graph.name, graph.default_datastore) == ("named", "azureml:stackhub")
    assert (graph.continue_on_failure, graph.force_rerun) == (False, True)
    assert step.compute == "azureml:cpu"
    assert step.environment_variables == {"LEVEL": 3, "FLAG": True}


def test_inputs_are_overridden_with_their_type(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("1")
    (tmp_path / "b.csv").write_text("2")
    content = """
        inputs:
          rate: {type: number, default: 1}
          n: 3
          data: {type: uri_file, path: a.csv}
        jobs:
          a:
            command: go ${{inputs.rate}} ${{inputs.n}} ${{inputs.data}}
            inputs: {rate: "${{parent.inputs.rate}}", n: "${{parent.inputs.n}}", data: "${{parent.inputs.data}}"}
    """
    assert command(graph_of(tmp_path, pipeline=content), "a") == f"go 1.0 3 {tmp_path / 'a.csv'}"
    given = {"rate": "1e-2", "n": "5", "data": str(tmp_path / "b.csv")}
    assert command(graph_of(tmp_path, given, pipeline=content), "a") == f"go 0.01 5 {tmp_path / 'b.csv'}"
    for bad, why in [
        ({"n": "many"}, "is not an integer"),
        ({"nn": "1"}, "there is no input 'nn'"),
        ({"data": str(tmp_path / "gone.csv")}, "does not exist"),
        ({"data": "azureml:x:1"}, "is not on this machine"),
    ]:
        with pytest.raises(PipelineError, match=why):
            graph_of(tmp_path, bad, pipeline=content)


def test_undeclared_inputs_are_dropped_with_a_warning(tmp_path: Path) -> None:
    graph = graph_of(
        tmp_path,
        echo=ECHO,
        pipeline="""
            jobs:
              a:
                component: ./echo.yml
                inputs:
                  value: x
                  extra: y
        """,
    )
    assert "extra" not in graph.steps["a"].inputs
    assert graph.warnings[0].endswith(
        "pipeline.yml:7: input 'extra' of node 'a' is not declared by its component and is ignored"
    )


def test_remote_references_are_mapped_or_refused_before_anything_runs(tmp_path: Path) -> None:
    (tmp_path / "cars").mkdir()
    (tmp_path / "pipeline.yml").write_text(
        dedent("""
            inputs:
              cars: {type: uri_folder, path: azureml:cars@latest}
              more: {type: uri_file, path: "https://example.org/x.csv?a=b"}
            jobs:
              a:
                command: ls ${{inputs.cars}} ${{inputs.more}}
                inputs: {cars: "${{parent.inputs.cars}}", more: "${{parent.inputs.more}}"}
        """)
    )
    path = str(tmp_path / "pipeline.yml")
    with pytest.raises(PipelineError, match=r"pipeline.yml:3: the input azureml:cars@latest .* https://example"):
        resolve(path)
    graph = resolve(path, maps={"azureml:cars@latest": str(tmp_path / "cars"), "https://example.org/x.csv?a=b": path})
    assert command(graph, "a") == f"ls {tmp_path / 'cars'} {path}"


def test_a_single_command_job_is_a_pipeline_of_one_step(tmp_path: Path) -> None:
    graph = graph_of(tmp_path, pipeline="type: command\nname: hello\ncommand: echo ${{inputs.n}}\ninputs: {n: 4}\n")
    assert command(graph, "hello") == "echo 4"


TYPED = "jobs:\n  a:\n    component: {command: 'x ${{inputs.i}}', inputs: {i: {type: %s}}}\n    inputs: {i: %s}\n"
ONE = "jobs:\n  a:\n    component: ./echo.yml\n"

BAD = {
    "a missing file": (
        "jobs:\n  a:\n    component: ./gone.yml\n",
        r":3: the component file .*gone.yml.* does not exist",
    ),
    "broken YAML": ("jobs: [\n", r"pipeline.yml:\d+: not valid YAML"),
    "a list for a pipeline": ("- a\n- b\n", r"pipeline.yml:1: not a YAML mapping"),
    "no jobs": ("type: pipeline\njobs: {}\n", r":2: the pipeline has no jobs"),
    "neither pipeline nor command": ("name: x\n", r"neither a pipeline .* nor a command job"),
    "an unknown parent input": (
        ONE + "    inputs: {value: '${{parent.inputs.x}}'}\n",
        r":4: \$\{\{parent.inputs.x\}\} names no input",
    ),
    "an unknown job": (ONE + "    inputs: {value: '${{parent.jobs.z.outputs.x}}'}\n", r":4: there is no job 'z'"),
    "an unknown output": (
        ONE + "  b:\n    component: ./echo.yml\n    inputs: {value: '${{parent.jobs.a.outputs.x}}'}\n",
        r":6: job 'a' has no output 'x'; it has: out",
    ),
    "a binding without parent": (
        ONE + "    inputs: {value: '${{inputs.x}}'}\n",
        r"did you mean \$\{\{parent.inputs.x\}\}",
    ),
    "an unbound pipeline output": (
        "outputs: {o: {type: uri_file}}\n" + ONE,
        r":1: no job is bound to the pipeline's output 'o'",
    ),
    "an undeclared node output": (
        ONE + "    outputs: {nope: null}\n",
        r":4: the component of node 'a' declares no output 'nope'",
    ),
    "an undeclared pipeline output": (
        ONE + "    outputs: {out: '${{parent.outputs.o}}'}\n",
        r":4: the pipeline declares no output 'o'",
    ),
    "a cycle": (
        "jobs:\n  a:\n    command: x ${{inputs.i}} ${{outputs.o}}\n    inputs: {i: '${{parent.jobs.b.outputs.o}}'}\n"
        "    outputs: {o: null}\n  b:\n    command: x ${{inputs.i}} ${{outputs.o}}\n"
        "    inputs: {i: '${{parent.jobs.a.outputs.o}}'}\n    outputs: {o: null}\n",
        r"wait for each other in a circle: (a → b → a|b → a → b)",
    ),
    "a missing value": (
        "jobs:\n  a:\n    component: {command: 'x ${{inputs.i}}', inputs: {i: {type: string}}}\n",
        r"has no value",
    ),
    "a wrong type": (
        TYPED % ("integer", "one"),
        r":4: the value of input 'i' is not an integer",
    ),
    "a value below the minimum": (
        TYPED % ("integer, min: 2", "1"),
        r":4: the value 1 of input 'i' is below the minimum 2",
    ),
    "a value outside the enum": (
        TYPED % ("string, enum: [p, q]", "r"),
        r"is not one of p, q",
    ),
    "an undeclared placeholder": (
        "jobs:\n  a:\n    command: x ${{inputs.i}}\n",
        r":3: the command of 'a' uses \$\{\{inputs.i\}\}",
    ),
    "a missing local path": (
        "jobs:\n  a:\n    command: x ${{inputs.i}}\n    inputs: {i: {type: uri_file, path: ./gone.csv}}\n",
        r"gone.csv does not exist",
    ),
    "a missing code folder": (
        "jobs:\n  a:\n    command: x\n    code: ./gone\n",
        r":4: the code folder .*gone does not exist",
    ),
    "a registry component": (
        "jobs:\n  a:\n    component: azureml:c:1\n",
        r":3: the component azureml:c:1 .* --map azureml:c:1=FILE",
    ),
    "a spark node": (
        "jobs:\n  a:\n    type: spark\n    code: .\n",
        r":3: node 'a' is of type 'spark', which this runner cannot run",
    ),
    "an unknown type": (
        "jobs:\n  a:\n    component: {command: 'x', inputs: {i: {type: widget}}}\n",
        r"input 'i' has the type 'widget'",
    ),
    "a pipeline in itself": ("jobs:\n  a:\n    component: ./pipeline.yml\n", r"nests the pipeline that it is part of"),
}


@pytest.mark.parametrize("case", BAD)
def test_what_cannot_run_is_refused_with_its_place(tmp_path: Path, case: str) -> None:
    content, message = BAD[case]
    (tmp_path / "echo.yml").write_text(dedent(ECHO))
    (tmp_path / "pipeline.yml").write_text(content)
    with pytest.raises(PipelineError, match=message):
        resolve(str(tmp_path / "pipeline.yml"))


def test_a_bomb_of_aliases_stays_small(tmp_path: Path) -> None:
    levels = "".join(f"l{i}: &l{i} [{', '.join([f'*l{i - 1}'] * 9)}]\n" for i in range(1, 30))
    (tmp_path / "pipeline.yml").write_text("l0: &l0 [x]\n" + levels)
    with pytest.raises(PipelineError, match="neither a pipeline"):
        resolve(str(tmp_path / "pipeline.yml"))


def test_ten_thousand_nodes_resolve_in_order(tmp_path: Path) -> None:
    (tmp_path / "echo.yml").write_text(dedent(ECHO))
    nodes = ["jobs:\n  n0: {component: ./echo.yml}\n"]
    nodes += [
        f"  n{i}:\n    component: ./echo.yml\n    inputs: {{value: '${{{{parent.jobs.n{i // 2}.outputs.out}}}}'}}\n"
        for i in range(1, 10_000)
    ]
    (tmp_path / "pipeline.yml").write_text("".join(nodes))
    graph = resolve(str(tmp_path / "pipeline.yml"))
    position = {name: i for i, name in enumerate(graph.steps)}
    assert len(position) == 10_000
    assert all(position[needed] < position[name] for name, step in graph.steps.items() for needed in step.needs)


@pytest.mark.parametrize("text", ["[" * 50_000, "- " * 50_000, "a: " + "{b: " * 20_000])
def test_a_file_that_nests_without_end_is_refused_and_does_not_end_the_process(tmp_path: Path, text: str) -> None:
    """libyaml's composer recurses: before the depth was looked at, this was a segmentation fault."""
    (tmp_path / "pipeline.yml").write_text(text)
    code = "import sys; from edgeml.cli import main; sys.exit(main(['run', 'pipeline.yml']))"
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 2 and "pipeline.yml: more than 200 levels lie within each other" in done.stderr
