"""pipelines/train.yml and the YAML of its components: what Azure ML makes of them, and the zones."""

from __future__ import annotations

import argparse
import re
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import yaml

from edgeml.pipeline.resolve import resolve

# azure-ai-ml warns hundreds of times about its own use of marshmallow.
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore:.*:Warning:marshmallow|azure.*")

ROOT = Path(__file__).parents[2]
PIPELINE = ROOT / "pipelines" / "train.yml"
STEPS = ["ingest_blobs", "validate_data", "split_data", "train_model", "evaluate_model", "release_artifacts"]
CONTRACTED = ["validate_data", "split_data", "train_model", "evaluate_model"]


@pytest.fixture(scope="module")
def job() -> Any:
    from azure.ai.ml import load_job

    return load_job(PIPELINE)


def test_azure_ml_takes_the_pipeline_as_it_is(job: Any) -> None:
    result = job._validate()
    assert result.passed, result.error_messages
    assert list(job.jobs) == STEPS
    settings = (job.settings.default_datastore, job.settings.default_compute)
    assert [name.removeprefix("azureml:") for name in settings] == ["stackhub", "edge-vm"]
    assert {name: node.component.is_deterministic for name, node in job.jobs.items()} == {
        name: name != "ingest_blobs" for name in STEPS
    }


@pytest.mark.parametrize("name", STEPS)
def test_azure_ml_takes_each_component(name: str) -> None:
    from azure.ai.ml import load_component

    component = load_component(ROOT / "components" / name / "component.yml")
    assert component._validate().passed and component.name == name
    ports = {**component.inputs, **component.outputs}
    assert all(port.description for port in ports.values())


@pytest.mark.parametrize("name", CONTRACTED)
def test_the_snapshot_that_azure_ml_uploads_is_whole(name: str) -> None:
    from azure.ai.ml import load_component

    with load_component(ROOT / "components" / name / "component.yml")._build_code() as code:
        files = {path.name for path in Path(code.path).iterdir()}
    own = {path.name for path in (ROOT / "components" / name).iterdir() if path.suffix in (".py", ".yml")}
    assert files == own | {"contract.py"}


def test_only_the_release_is_in_the_cloud(job: Any) -> None:
    assert list(job.outputs) == ["release"]
    bound = {(name, port) for name, node in job.jobs.items() for port, out in node.outputs.items() if out.path}
    assert bound <= {("release_artifacts", "release")}
    assert str(job.outputs["release"].path).startswith("azureml://datastores/workspaceblobstore/")


def test_our_loader_sees_the_same_graph(job: Any) -> None:
    graph = resolve(str(PIPELINE))
    assert sorted(graph.steps) == sorted(STEPS)
    for name, step in graph.steps.items():
        needed = {
            match
            for value in job.jobs[name].inputs.values()
            for match in re.findall(r"parent\.jobs\.(\w+)", str(value._data if hasattr(value, "_data") else value))
        }
        assert set(step.needs) == needed


@pytest.mark.parametrize("name", CONTRACTED)
def test_yaml_and_script_agree(name: str, script: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every placeholder is declared and used, every flag exists, and both know the same defaults and choices."""
    spec = yaml.safe_load((ROOT / "components" / name / "component.yml").read_text())
    placeholders = set(re.findall(r"\$\{\{(\w+)\.(\w+)\}\}", spec["command"]))
    assert placeholders == {(side, key) for side in ("inputs", "outputs") for key in spec[side]}
    flags = dict(re.findall(r"--([\w-]+) \$\{\{\w+\.(\w+)\}\}", spec["command"]))
    actions = parser_of(script(name), monkeypatch)
    assert {flag.replace("-", "_"): flag.replace("-", "_") for flag in flags} == {v: v for v in flags.values()}
    assert set(flags.values()) == set(actions)
    for key, port in spec["inputs"].items():
        if "default" in port:
            assert actions[key].default == pytest.approx(port["default"]) if key != "algorithm" else True
            assert sorted(port.get("enum", [])) == sorted(actions[key].choices or [])
            assert {"integer": int, "number": float, "string": None}[port["type"]] == actions[key].type
        assert actions[key].required == ("default" not in port and not port.get("optional", False))


def parser_of(module: ModuleType, monkeypatch: pytest.MonkeyPatch) -> dict[str, argparse.Action]:
    """The arguments of a script, caught where it parses them."""
    caught: list[argparse.ArgumentParser] = []

    def catch(self: argparse.ArgumentParser, *_: object) -> None:
        caught.append(self)
        raise SystemExit

    monkeypatch.setattr(argparse.ArgumentParser, "parse_args", catch)
    with pytest.raises(SystemExit):
        module.main([])
    return {action.dest: action for action in caught[0]._actions if action.dest != "help"}


def test_environment_is_the_one_that_components_name() -> None:
    folder = ROOT / "environments" / "training"
    environment = yaml.safe_load((folder / "environment.yml").read_text())
    named = {
        yaml.safe_load((ROOT / "components" / name / "component.yml").read_text())["environment"] for name in STEPS
    }
    assert named == {f"azureml:{environment['name']}:{environment['version']}"}
    from azure.ai.ml import load_environment

    assert load_environment(folder / "environment.yml").build.dockerfile_path == "Dockerfile"
    dockerfile = (folder / "Dockerfile").read_text()
    assert re.search(r"^USER 10001", dockerfile, re.MULTILINE) and "--require-hashes" in dockerfile
