"""`edgeml check` as a user runs it: every rule broken and kept, the corpora, the formats, hostile files."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

from edgeml.check import FORMATS, RULES, Rule, check, kinds, render
from edgeml.check.finding import files_of
from edgeml.check.show import page

# azure-ai-ml warns hundreds of times about its own use of marshmallow.
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore:.*:Warning:marshmallow|azure.*")

ROOT = Path(__file__).parents[2]
CORPUS = ROOT / "tests/conformance/corpus"
CASES = sorted(path.parent.name for path in CORPUS.glob("*/pipeline.yml"))
NAMES = {rule.id: rule for rule in RULES}


def edgeml(folder: Path, *args: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "edgeml", "check", *args]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=60)


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def bomb() -> str:
    """Twenty levels of aliases, a billion values."""
    return "a0: &a0 [x, x]\n" + "".join(f"a{n}: &a{n} [*a{n - 1}, *a{n - 1}]\n" for n in range(1, 30))


def plant(folder: Path, example: str) -> None:
    """The files of a rule's example, on disk."""
    for path, text in files_of(example, "example.yml").items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_text(text)


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.id)
def test_every_rule_is_broken_by_its_bad_example_and_kept_by_its_good_one(
    here: Path, rule: Rule, monkeypatch: pytest.MonkeyPatch
) -> None:
    plant(here / "bad", bomb() if rule.id == "yaml-limits" else rule.bad)
    plant(here / "good", rule.good)
    monkeypatch.chdir(here / "bad")
    found = check(["."])
    assert rule.id in {finding.rule for finding in found}
    extra = {finding.rule for finding in found} - {rule.id}
    assert extra <= ({"unknown-key"} if rule.id == "silencer-without-reason" else set()), "it breaks that rule alone"
    assert all(finding.severity == NAMES[finding.rule].severity for finding in found)
    monkeypatch.chdir(here / "good")
    assert check(["."]) == []


def test_an_example_may_be_a_tree() -> None:
    assert files_of("a: 1\n", "x.yml") == {"x.yml": "a: 1\n"}
    tree = "# --- b/c.yml\na: 1\n# --- s.py\nprint()\n"
    assert files_of(tree, "x.yml") == {"b/c.yml": "a: 1\n", "s.py": "print()\n"}
    assert files_of("a: 1\n" + tree, "x.yml")["x.yml"] == "a: 1\n"
    shown = page((Rule("a-rule", "error", "Title", "Why", tree, "a: 1\n"),))
    assert "Breaks it:\n\n`b/c.yml`:\n\n```yaml\na: 1\n```\n\n`s.py`:\n\n```python\nprint()\n```\n" in shown


def test_rules_have_distinct_stable_names_and_say_why() -> None:
    assert len(NAMES) == len(RULES) >= 30
    assert all(re.fullmatch(r"[a-z]+(-[a-z]+)*", rule.id) and len(rule.why) > 30 for rule in RULES)


def test_the_page_of_rules_is_made_from_them() -> None:
    assert (ROOT / "docs/rules.md").read_text() == page(RULES), "run: python -m edgeml.check > docs/rules.md"


def test_the_corpus_of_the_format_is_told_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    """What runs gives no finding; what is refused gives one at least, and where `edgeml run` says it is."""
    monkeypatch.chdir(CORPUS)
    needs_a_source = {"bad-remote-data-without-a-source"}  # valid for Azure ML, only not here
    warned_of = {"undeclared-inputs": ["undeclared-input"] * 2}  # the SDK drops them, which nobody means
    for name in CASES:
        found = check([name])
        if not name.startswith("bad-") or name in needs_a_source:
            assert [finding.rule for finding in found] == warned_of.get(name, []), (name, found)
            continue
        refusal = yaml.safe_load((CORPUS / name / "refusal.yml").read_text())
        file, _, line = refusal["at"].partition(":")
        places = {(Path(finding.path), finding.line) for finding in found}
        assert (Path(name, file), int(line)) in places, (name, found)


def test_the_repository_is_clean_and_its_yaml_is_looked_at() -> None:
    done = edgeml(ROOT, "--format", "json")
    assert (done.returncode, json.loads(done.stdout)) == (0, []), done.stdout
    broken = edgeml(ROOT, "tests/conformance/corpus/bad-cycle")
    assert broken.returncode == 1 and "cycle the steps wait for each other" in broken.stdout


@pytest.mark.parametrize(
    ("text", "place", "words"),
    [
        ("jobs:\n  a:\n    comand: echo\n", (3, 5), "a command node has no key 'comand'; did you mean 'command'?"),
        ("jobs:\n  a: {command: x, inputs: {a-b: 1}}\n", (2, 28), "'a-b' in 'inputs' is no identifier"),
        ("jobs:\n  a: {command: x, outputs: {default: }}\n", (2, 29), "'default' is an output of Azure ML's own"),
        ("jobs:\n  a: {command: x, outputs: {o: {type: uri_fle}}}\n", (2, 39), "did you mean 'uri_file'?"),
        ("jobs: [a]\n", (1, 7), "'jobs' must be a mapping"),
        (
            "jobs:\n  a: {command: x, inputs: {i: 'of ${{parent.inputs.z}}'}}\n",
            (2, 35),
            "names no input of the pipeline",
        ),
        (
            "jobs:\n  a:\n    command: >-\n      x\n      ${{inputs.z}}\n",
            (5, 7),
            "which the component does not declare",
        ),
        ("jobs:\n  a: {component: ./b.yml}\n", (2, 18), "the component file b.yml of node 'a' does not exist"),
        ("outputs: {o: {type: uri_file}}\njobs: {a: {command: x}}\n", (1, 11), "no job is bound to the pipeline's"),
        ("$schema: http://azureml/sdk-2-0/PipelineJob.json\njobs: {a: {command: x}}\n", (1, 10), "with https://"),
        ("jobs:\n  a: {command: x}\n  a: {command: y}\n", (3, 3), "'a' stands on line 2 already"),
        ("jobs:\n\ta: {command: x}\n", (2, 1), "a tab indents this line"),
        ("jobs:\n  s: {type: sweep, trial: {command: x}}\n", (2, 6), "this sweep node has no 'objective'"),
        ("jobs:\n  a: {command: x, resources: {instance_count: two}}\n", (2, 47), "must be a whole number, not 'two'"),
    ],
)
def test_a_finding_names_place_cause_and_fix(here: Path, text: str, place: tuple[int, int], words: str) -> None:
    (here / "pipeline.yml").write_text(text)
    found = check(["pipeline.yml"])
    assert any((finding.line, finding.column) == place and words in finding.message for finding in found), found


def test_silencers_work_on_their_line_and_the_next(here: Path) -> None:
    reason = "# edgeml: allow unknown-key, because the service has it in preview"
    node = f"    command: x\n    shiny: 1  {reason}\n    {reason}\n    other: 2\n    third: 3\n"
    (here / "pipeline.yml").write_text(f"type: pipeline\njobs:\n  a:\n{node}")
    assert [(finding.line, finding.rule) for finding in check(["pipeline.yml"])] == [(8, "unknown-key")]


def test_the_formats_say_the_same(here: Path) -> None:
    (here / "a,b.yml").write_text("jobs:\n  a: {command: x, odd: '100%'}\n")
    (finding,) = check(["a,b.yml"])
    assert json.loads(render([finding], RULES, "json")) == [finding._asdict()]
    assert list(finding._asdict()) == ["rule", "severity", "path", "line", "column", "message"]
    assert render([finding], RULES, "text").startswith("a,b.yml:2:19 unknown-key a command node has no key 'odd'")
    shown = render([finding], RULES, "github")
    assert shown.startswith("::error file=a%2Cb.yml,line=2,col=19,title=unknown-key::a command node")
    (run,) = json.loads(render([finding], RULES, "sarif"))["runs"]
    (result,) = run["results"]
    assert run["tool"]["driver"]["rules"][result["ruleIndex"]]["id"] == result["ruleId"] == "unknown-key"
    region = result["locations"][0]["physicalLocation"]["region"]
    assert region == {"startLine": 2, "startColumn": 19}
    assert set(FORMATS) == {"text", "github", "json", "sarif"}


@pytest.mark.parametrize(
    ("content", "rule"),
    [
        (b"a: 1\n" * 300_000, "yaml-limits"),
        (b"[" * 50_000, "yaml-limits"),
        (b"a: " + b"[" * 80 + b"]" * 80, "yaml-limits"),
        (b"jobs: \xff\xfe", "yaml-syntax"),
        (b"a: !!python/object/apply:os.system [touch owned]\n", "yaml-tag"),
        (b"\x00", "yaml-syntax"),
        (b"? [a, b]\n: 1\n", "yaml-syntax"),
    ],
)
def test_a_hostile_file_is_a_finding(here: Path, content: bytes, rule: str) -> None:
    (here / "hostile.yml").write_bytes(content)
    began = time.monotonic()
    done = edgeml(here, "hostile.yml")
    assert done.returncode == 1 and f" {rule} " in done.stdout and "Traceback" not in done.stderr, done.stderr
    assert not (here / "owned").exists() and time.monotonic() - began < 20


def test_a_folder_that_links_to_itself_is_walked_once(here: Path) -> None:
    (here / "again").symlink_to(here)
    (here / "pipeline.yml").write_text("jobs: {a: {command: x}}\n")
    assert edgeml(here, ".").returncode == 0


def test_what_cannot_be_checked_is_said(here: Path) -> None:
    absent = edgeml(here, "absent.yml")
    assert absent.returncode == 2 and "absent.yml does not exist" in absent.stderr
    assert edgeml(here).returncode == 2, "there is nothing to check"
    unknown = edgeml(here, "--explain", "nothing")
    assert unknown.returncode == 2 and "there is no rule 'nothing'" in unknown.stderr
    explained = edgeml(here, "--explain", "unknown-key")
    assert explained.returncode == 0 and "breaks it:" in explained.stdout and "keeps it:" in explained.stdout


def test_checking_imports_nothing_heavy(here: Path) -> None:
    (here / "pipeline.yml").write_text("jobs: {a: {command: x}}\n")
    code = (
        "import sys; from edgeml.cli import main; assert main(['check', 'pipeline.yml']) == 0; "
        "assert not {'azure', 'pandas', 'mlflow', 'numpy', 'pydantic'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], cwd=here, check=True)


def test_no_key_that_the_sdk_takes_is_unknown() -> None:
    """azure-ai-ml's own schemas are the oracle; what they call `schema` and `id` is no key of a file."""
    from azure.ai.ml._schema._datastore import AzureBlobSchema, AzureDataLakeGen2Schema, AzureFileSchema
    from azure.ai.ml._schema._datastore import credentials as stores
    from azure.ai.ml._schema._sweep import search_space
    from azure.ai.ml._schema._sweep.sweep_termination import (
        BanditPolicySchema,
        MedianStoppingPolicySchema,
        TruncationSelectionPolicySchema,
    )
    from azure.ai.ml._schema.assets.data import DataSchema
    from azure.ai.ml._schema.assets.environment import BuildContextSchema, EnvironmentSchema
    from azure.ai.ml._schema.component.command_component import CommandComponentSchema
    from azure.ai.ml._schema.component.input_output import InputPortSchema, OutputPortSchema, ParameterSchema
    from azure.ai.ml._schema.component.parallel_component import ParallelComponentSchema
    from azure.ai.ml._schema.compute.aml_compute import AmlComputeSchema, AmlComputeSshSettingsSchema
    from azure.ai.ml._schema.compute.compute import IdentitySchema, NetworkSettingsSchema
    from azure.ai.ml._schema.compute.kubernetes_compute import KubernetesComputeSchema
    from azure.ai.ml._schema.compute.virtual_machine_compute import (
        VirtualMachineComputeSchema,
        VirtualMachineSshSettingsSchema,
    )
    from azure.ai.ml._schema.job.command_job import CommandJobSchema
    from azure.ai.ml._schema.job.input_output_entry import DataInputSchema, OutputSchema
    from azure.ai.ml._schema.job_resource_configuration import JobResourceConfigurationSchema
    from azure.ai.ml._schema.pipeline.component_job import CommandSchema, ParallelSchema, SweepSchema
    from azure.ai.ml._schema.pipeline.pipeline_component import PipelineComponentSchema
    from azure.ai.ml._schema.pipeline.pipeline_job import PipelineJobSchema
    from azure.ai.ml._schema.pipeline.settings import PipelineJobSettingsSchema

    def inner(kind: kinds.Fields, key: str) -> kinds.Fields:
        shape = kind.known[key]
        assert isinstance(shape, kinds.Fields)
        return shape

    build = inner(kinds.ENVIRONMENT, "build")
    pairs = [
        (kinds.PIPELINE_JOB, PipelineJobSchema),
        (kinds.PIPELINE_COMPONENT, PipelineComponentSchema),
        (kinds.SETTINGS, PipelineJobSettingsSchema),
        (kinds.COMMAND_COMPONENT, CommandComponentSchema),
        (kinds.PARALLEL_COMPONENT, ParallelComponentSchema),
        (kinds.COMMAND_NODE, CommandSchema),
        (kinds.PARALLEL_NODE, ParallelSchema),
        (kinds.SWEEP_NODE, SweepSchema),
        (kinds.COMMAND_JOB, CommandJobSchema),
        (kinds.ENVIRONMENT, EnvironmentSchema),
        (build, BuildContextSchema),
        (kinds.DATA, DataSchema),
        (kinds.RESOURCES, JobResourceConfigurationSchema),
        (kinds.PORT, InputPortSchema),
        (kinds.PORT, ParameterSchema),
        (kinds.OUTPUT_PORT, OutputPortSchema),
        (kinds.VALUE, DataInputSchema),
        (kinds.OUTPUT, OutputSchema),
        (kinds.EARLY_TERMINATION, BanditPolicySchema),
        (kinds.EARLY_TERMINATION, MedianStoppingPolicySchema),
        (kinds.EARLY_TERMINATION, TruncationSelectionPolicySchema),
        (kinds.DISTRIBUTION_OF_A_SPACE, search_space.ChoiceSchema),
        (kinds.DISTRIBUTION_OF_A_SPACE, search_space.QNormalSchema),
        (kinds.DISTRIBUTION_OF_A_SPACE, search_space.QUniformSchema),
        (kinds.DISTRIBUTION_OF_A_SPACE, search_space.RandintSchema),
        (kinds.VIRTUAL_MACHINE, VirtualMachineComputeSchema),
        (inner(kinds.VIRTUAL_MACHINE, "ssh_settings"), VirtualMachineSshSettingsSchema),
        (kinds.KUBERNETES, KubernetesComputeSchema),
        (inner(kinds.KUBERNETES, "identity"), IdentitySchema),
        (kinds.CLUSTER, AmlComputeSchema),
        (inner(kinds.CLUSTER, "ssh_settings"), AmlComputeSshSettingsSchema),
        (inner(kinds.CLUSTER, "network_settings"), NetworkSettingsSchema),
        (kinds.BLOB_STORE, AzureBlobSchema),
        (kinds.FILE_STORE, AzureFileSchema),
        (kinds.LAKE_STORE, AzureDataLakeGen2Schema),
        (inner(kinds.BLOB_STORE, "credentials"), stores.AccountKeySchema),
        (inner(kinds.FILE_STORE, "credentials"), stores.SasTokenSchema),
        (inner(kinds.LAKE_STORE, "credentials"), stores.ServicePrincipalSchema),
        (inner(kinds.LAKE_STORE, "credentials"), stores.CertificateSchema),
    ]
    whole = (
        kinds.VIRTUAL_MACHINE,
        kinds.KUBERNETES,
        kinds.CLUSTER,
        kinds.BLOB_STORE,
        kinds.FILE_STORE,
        kinds.LAKE_STORE,
    )
    for kind, schema in pairs:
        fields = schema(context={"base_path": ROOT}).fields
        taken = {name for name, field in fields.items() if not field.dump_only} - {"id", "schema"}
        assert taken - kind.known.keys() == set(), kind.name
        if kind in whole:
            assert {name for name in taken if fields[name].required} <= set(kind.required), kind.name
