"""The residency policy: what it may say, and which steps it makes private."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgeml import policy
from edgeml.pipeline import PipelineError, resolve

ROOT = Path(__file__).parents[2]
POLICY = "private: [stackhub]\ncloud: [lake]\nrelease: [release]\n"
COMPONENT = """
name: {name}
version: 1
inputs: {{i: {{type: uri_file}}}}
outputs: {{o: {{type: uri_file}}}}
command: cp ${{{{inputs.i}}}} ${{{{outputs.o}}}}
"""


def project(folder: Path, pipeline: str, said: str | None = POLICY) -> Path:
    (folder / "contracts").mkdir()
    if said is not None:
        (folder / "contracts/residency.yml").write_text(said)
    for name in ("release", "copy"):
        (folder / f"components/{name}").mkdir(parents=True)
        (folder / f"components/{name}/component.yml").write_text(COMPONENT.format(name=name))
    (folder / "notes.txt").write_text("x")
    (folder / "pipeline.yml").write_text(pipeline)
    return folder / "pipeline.yml"


def private(folder: Path, pipeline: str, said: str | None = POLICY) -> set[str]:
    file = project(folder, pipeline, said)
    return set(policy.private_steps(resolve(str(file), here=False), policy.load(str(folder))))


def copying(path: str, type_: str = "uri_file", port: str = "") -> str:
    component = f"{{name: c, version: 1, inputs: {{i: {{type: {port or type_}}}}}, command: 'cat ${{{{inputs.i}}}}'}}"
    return f"jobs:\n  a: {{component: {component}, inputs: {{i: {{type: {type_}, path: '{path}'}}}}}}\n"


@pytest.mark.parametrize(
    ("path", "type_", "expected"),
    [
        ("azureml://datastores/stackhub/paths/rows", "uri_file", True),
        ("azureml://subscriptions/s/resourcegroups/g/workspaces/w/datastores/stackhub/paths/x", "uri_file", True),
        ("azureml://datastores/nobody/paths/rows", "uri_file", True),
        ("azureml://datastores/lake/paths/weights", "uri_file", False),
        ("azureml://registries/azureml/data/x/versions/1", "uri_file", False),
        ("azureml:rows:1", "uri_file", True),
        ("azureml:champion:3", "custom_model", False),
        ("azureml://datastores/stackhub/paths/model", "custom_model", True),
        ("https://account.blob.site.example/rows.csv", "uri_file", True),
        ("./notes.txt", "uri_file", False),
    ],
)
def test_what_is_not_known_to_be_otherwise_is_private(tmp_path: Path, path: str, type_: str, expected: bool) -> None:
    assert private(tmp_path, copying(path, type_)) == ({"a"} if expected else set())


def test_a_data_asset_at_an_input_for_models_stays_data(tmp_path: Path) -> None:
    assert private(tmp_path, copying("azureml:rows:1", "uri_folder", "custom_model")) == {"a"}


CHAIN = """
inputs: {open: {type: uri_file}}
jobs:
  public: {command: "echo > ${{outputs.o}}", outputs: {o: {type: uri_file, path: azureml://datastores/lake/paths/p}}}
  beside: {command: "echo > ${{outputs.o}}", outputs: {o: {type: uri_file, path: azureml://datastores/stackhub/paths/p}}}
  read: {component: ./components/copy/component.yml, inputs: {i: "${{parent.inputs.open}}"}}
  inner:
    type: pipeline
    inputs: {rows: "${{parent.jobs.read.outputs.o}}"}
    outputs: {o: {type: uri_file}}
    jobs:
      b:
        component: ./components/copy/component.yml
        inputs: {i: "${{parent.inputs.rows}}"}
        outputs: {o: "${{parent.outputs.o}}"}
  variable:
    command: echo $ROWS
    environment_variables: {ROWS: "${{parent.jobs.inner.outputs.o}}"}
  release: {component: ./components/release/component.yml, inputs: {i: "${{parent.jobs.inner.outputs.o}}"}}
  after: {component: ./components/copy/component.yml, inputs: {i: "${{parent.jobs.release.outputs.o}}"}}
  from_public: {component: ./components/copy/component.yml, inputs: {i: "${{parent.jobs.public.outputs.o}}"}}
  from_beside: {component: ./components/copy/component.yml, inputs: {i: "${{parent.jobs.beside.outputs.o}}"}}
"""


def test_what_is_made_of_private_rows_is_private_until_it_is_released(tmp_path: Path) -> None:
    assert private(tmp_path, CHAIN) == {"read", "inner.b", "variable", "release", "from_beside"}


def test_where_everything_lies_in_a_private_datastore_so_does_the_release(tmp_path: Path) -> None:
    kept = "settings: {default_datastore: azureml:stackhub}\n" + CHAIN
    assert "after" in private(tmp_path, kept)


def test_a_step_that_only_calls_itself_a_release_releases_nothing(tmp_path: Path) -> None:
    pipeline = """
jobs:
  release:
    command: cp ${{inputs.i}} ${{outputs.o}}
    inputs: {i: {type: uri_file, path: azureml://datastores/stackhub/paths/rows}}
    outputs: {o: {type: uri_file, path: azureml://datastores/lake/paths/r}}
  after: {component: ./components/copy/component.yml, inputs: {i: "${{parent.jobs.release.outputs.o}}"}}
"""
    assert private(tmp_path, pipeline) == {"release", "after"}


def test_who_asks_for_the_private_storage_is_private(tmp_path: Path) -> None:
    component = "{name: c, version: 1, command: echo, tags: {edgeml.needs: other storage}}"
    assert private(tmp_path, f"jobs:\n  a: {{component: {component}}}\n") == {"a"}


def test_without_a_policy_nothing_is_private(tmp_path: Path) -> None:
    assert private(tmp_path, CHAIN, said=None) == set()


def test_a_local_source_of_private_data_is_private_too(tmp_path: Path) -> None:
    reference = "azureml://datastores/stackhub/paths/rows"
    pipeline = f"inputs: {{rows: {{type: uri_file, path: '{reference}'}}}}\n" + copying("${{parent.inputs.rows}}")
    file = project(tmp_path, pipeline)
    rows = str(tmp_path / "notes.txt")
    rules = policy.load(str(tmp_path))
    for graph in (resolve(str(file), {"rows": rows}), resolve(str(file), maps={reference: rows})):
        assert policy.private_steps(graph, rules) == {"a"}


def test_a_data_asset_is_judged_by_where_it_lies(tmp_path: Path) -> None:
    for version, datastore in enumerate(("stackhub", "lake"), start=1):
        asset = f"name: rows\nversion: {version}\ntype: uri_file\npath: azureml://datastores/{datastore}/paths/x\n"
        (tmp_path / f"rows{version}.yml").write_text(asset)
    file = project(tmp_path, copying("azureml:rows:1"))
    rules = policy.load(str(tmp_path))
    assert policy.private_steps(resolve(str(file), here=False), rules) == {"a"}
    file.write_text(copying("azureml:rows:2"))
    assert policy.private_steps(resolve(str(file), here=False), rules) == set()


def test_in_this_repository_every_step_but_none_after_the_release_is_private() -> None:
    graph = resolve(str(ROOT / "pipelines/train.yml"), here=False)
    assert policy.private_steps(graph, policy.load(str(ROOT))) == frozenset(graph.steps)


@pytest.mark.parametrize(
    ("said", "line", "words"),
    [
        ("private: [a]\nprivat: [a]\n", 2, "the policy has no key 'privat'; it takes private, cloud, release"),
        ("private: [a]\nfile: [a]\n", 2, "the policy has no key 'file'"),
        ("private: a\n", 1, "'private' must be a list of names"),
        ("private: [a]\ncomputes: [{name: b}]\n", 2, "'computes' must be a list of names"),
        ("private: [a]\nregions: [1]\n", 2, "'regions' must be a list of names"),
        ("private: [a]\ncloud:\n", 2, "'cloud' must be a list of names"),
        ("private: ['']\n", 1, "'' under 'private' is no name"),
        ("private: ['*']\n", 1, "'*' under 'private' is no name"),
        ("private: [a, b, a]\n", 1, "'a' stands under 'private' twice"),
        ("private: [a]\nprivate: [b]\n", 2, "'private' stands on line 1 already"),
        ("private: []\n", 1, "the policy names no private datastore, so it protects nothing"),
        ("cloud: [a]\n", 1, "the policy names no private datastore"),
        ("private: [a]\ncloud: [a]\n", 2, "the datastore 'a' is listed as private and as cloud"),
        ("- a\n", 1, "not a YAML mapping"),
        ("private: [a\n", 2, "not valid YAML"),
        ("", 1, "not a YAML mapping"),
    ],
)
def test_a_policy_that_is_not_understood_is_refused_in_one_sentence(
    tmp_path: Path, said: str, line: int, words: str
) -> None:
    project(tmp_path, "jobs: {}\n", said)
    with pytest.raises(PipelineError) as refused:
        policy.load(str(tmp_path))
    assert refused.value.line == line and refused.value.file == str(tmp_path / "contracts/residency.yml")
    assert words in refused.value.message and "\n" not in refused.value.message


def test_a_policy_that_cannot_be_read_is_no_policy_of_nothing(tmp_path: Path) -> None:
    (tmp_path / "contracts").mkdir()
    (tmp_path / "contracts/residency.yml").symlink_to(tmp_path / "absent.yml")
    with pytest.raises(PipelineError, match="no such file"):
        policy.load(str(tmp_path))
    (tmp_path / "contracts/residency.yml").unlink()
    (tmp_path / "contracts/residency.yml").mkdir()
    with pytest.raises(PipelineError, match="a folder, where a YAML file is expected"):
        policy.load(str(tmp_path))
    (tmp_path / "contracts/residency.yml").rmdir()
    (tmp_path / "contracts/residency.yml").write_bytes(b"private: [\xff]")
    with pytest.raises(PipelineError, match="not UTF-8"):
        policy.load(str(tmp_path))


def test_the_policy_of_this_repository_is_understood() -> None:
    rules = policy.load(str(ROOT))
    assert rules.private == {"stackhub"} and rules.release == {"release_artifacts"} and rules.cloud
    assert policy.governing(str(ROOT / "pipelines/train.yml")) == rules
