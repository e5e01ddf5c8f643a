"""The residency rules through the command and at their places; forms stand in tests/corpus."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from edgeml.check import check

ROOT = Path(__file__).parents[2]
POLICY = "private: [stackhub]\ncloud: [lake]\nrelease: [release_artifacts]\ncomputes: [edge-vm]\n"
SETTINGS = "settings: {default_datastore: azureml:stackhub, default_compute: azureml:edge-vm}\n"
RULES = {
    "compute-outside",
    "job-service",
    "local-data",
    "output-outside",
    "output-registered",
    "private-after-release",
    "region-outside",
    "release-changed",
    "residency-policy",
    "unknown-datastore",
}


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "contracts").mkdir()
    (tmp_path / "contracts/residency.yml").write_text(POLICY)
    return tmp_path


def edgeml(folder: Path, *args: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "edgeml", "check", *args]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=60)


@pytest.mark.parametrize(
    ("pipeline", "place", "words"),
    [
        (
            SETTINGS
            + "jobs:\n  a:\n    command: echo\n    outputs:\n      o: {type: uri_file, path: azureml://datastores/lake/paths/x}\n",
            "pipeline.yml:6:33 output-outside",
            "output 'o' of 'a' is bound to the datastore 'lake', which is in the cloud",
        ),
        (
            SETTINGS.replace("azureml:stackhub", "lake")
            + "jobs:\n  a: {command: echo, outputs: {o: {type: uri_file}}}\n",
            "pipeline.yml:1:31 output-outside",
            "output 'o' of 'a' goes to the default datastore 'lake', which is not private; write default_datastore",
        ),
        (
            SETTINGS + "jobs:\n  a: {command: echo, compute: azureml:gpu}\n",
            "pipeline.yml:3:31 compute-outside",
            "the policy names no compute 'gpu'; it names edge-vm",
        ),
        (
            SETTINGS + "inputs: {x: {type: uri_file, path: /etc/hosts}}\njobs:\n  a: {command: echo}\n",
            "pipeline.yml:2:36 local-data",
            "the local input 'x' would be uploaded to the cloud and lies outside the repository",
        ),
    ],
)
def test_a_finding_stands_at_what_must_change(here: Path, pipeline: str, place: str, words: str) -> None:
    (here / "pipeline.yml").write_text(pipeline)
    done = edgeml(here, "pipeline.yml")
    assert done.returncode == 1 and any(
        line.startswith(place) and words in line for line in done.stdout.splitlines()
    ), done.stdout


def test_no_finding_shows_a_credential_of_an_address(here: Path) -> None:
    address = "https://account.blob.site.example.org/c/x?sv=1&sig=s3cret"
    (here / "pipeline.yml").write_text(
        f"{SETTINGS}jobs:\n  a: {{command: echo, outputs: {{o: {{type: uri_file, path: '{address}'}}}}}}\n"
    )
    done = edgeml(here, "pipeline.yml")
    assert "output-outside" in done.stdout and "s3cret" not in done.stdout + done.stderr


def test_a_policy_that_is_not_understood_stops_even_the_check_of_one_file(here: Path) -> None:
    (here / "contracts/residency.yml").write_text("private: stackhub\n")
    (here / "pipeline.yml").write_text("jobs: {a: {command: echo}}\n")
    done = edgeml(here, "pipeline.yml")
    assert done.returncode == 1
    assert done.stdout.startswith("contracts/residency.yml:1:1 residency-policy 'private' must be a list of names")


def test_the_policy_is_read_from_wherever_in_the_repository(checkout: Path) -> None:
    pipeline = checkout / "pipelines/train.yml"
    pipeline.write_text(
        pipeline.read_text().replace("default_datastore: azureml:stackhub", "continue_on_step_failure: true")
    )
    for folder, file in ((checkout, "pipelines/train.yml"), (checkout / "pipelines", "train.yml")):
        done = edgeml(folder, file)
        assert done.returncode == 1 and f"{file}:18:3 output-outside output" in done.stdout, done.stdout


@pytest.mark.parametrize(
    ("old", "new", "rule"),
    [
        ("default_datastore: azureml:stackhub", "default_datastore: azureml:workspaceblobstore", "output-outside"),
        ("default_compute: azureml:edge-vm", "default_compute: azureml:cpu-cluster", "compute-outside"),
        ("workspaceblobstore/paths/release", "backup/paths/release", "output-outside"),
        ("component: ../components/release_artifacts/component.yml", "component: ./mine.yml", "output-outside"),
        ("path: ./no_champion", "path: ../tests", "local-data"),
        (
            "      prefix: ${{parent.inputs.prefix}}\n",
            "      prefix: x\n    services: {s: {type: ssh}}\n",
            "job-service",
        ),
    ],
)
def test_whoever_opens_this_repository_is_told(checkout: Path, old: str, new: str, rule: str) -> None:
    pipeline = checkout / "pipelines/train.yml"
    assert old in pipeline.read_text()
    pipeline.write_text(pipeline.read_text().replace(old, new))
    gate = (checkout / "components/release_artifacts/component.yml").read_text()
    mine = gate.replace("code: .", "code: ../components/release_artifacts").replace("../../edgeml", "../edgeml")
    (checkout / "pipelines/mine.yml").write_text(mine)
    done = edgeml(checkout, "pipelines/train.yml")
    assert done.returncode == 1 and {line.split()[1] for line in done.stdout.splitlines()} == {rule}, done.stdout


def test_a_link_that_leads_out_of_the_repository_is_no_configuration(
    here: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    outside = tmp_path_factory.mktemp("outside") / "rows.yml"
    outside.write_text("a: 1\n")
    (here / "settings").mkdir()
    (here / "settings/rows.yml").symlink_to(outside)
    (here / "settings/folder").symlink_to(outside.parent)
    for path in ("settings", "settings/rows.yml", "settings/folder"):
        kind = "uri_file" if path.endswith(".yml") else "uri_folder"
        job = f"jobs:\n  a: {{command: 'ls ${{{{inputs.x}}}}', inputs: {{x: {{type: {kind}, path: ./{path}}}}}}}\n"
        (here / "pipeline.yml").write_text(SETTINGS + job)
        assert [finding.rule for finding in check(["pipeline.yml"])] == ["local-data"], path


def test_the_pipelines_of_other_people_hear_nothing_of_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    corpus = ROOT / "tests/conformance/corpus"
    monkeypatch.chdir(corpus)
    found = {finding.rule for finding in check(["."])}
    assert found & RULES == set()


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        (
            "    services: {s: {type: ssh}}  # edgeml: allow job-service, because it is handy",
            {"job-service", "unused-silencer"},
        ),
        (
            "    shiny: 1  # edgeml: allow unknown-key, because of a preview\n    services: {s: {type: ssh}}",
            {"job-service"},
        ),
        (
            "    comment: a\n    comment: b  # edgeml: allow yaml-duplicate-key, because\n    compute: gpu",
            {"compute-outside"},
        ),
    ],
)
def test_what_the_policy_decides_is_not_silenced(here: Path, line: str, expected: set[str]) -> None:
    (here / "pipeline.yml").write_text(f"{SETTINGS}jobs:\n  a:\n    command: echo\n{line}\n")
    assert {finding.rule for finding in check(["pipeline.yml"])} == expected


def test_a_pipeline_that_cannot_be_judged_is_not_silenced(here: Path) -> None:
    job = f"{SETTINGS}jobs:\n  a:\n    component: azureml:theirs:1"
    (here / "pipeline.yml").write_text(f"{job}\n")
    assert [finding.rule for finding in check(["pipeline.yml"])] == ["cannot-run"]
    (here / "pipeline.yml").write_text(f"{job}  # edgeml: allow cannot-run, because it is in a registry\n")
    assert [finding.rule for finding in check(["pipeline.yml"])] == ["unjudged-pipeline"]
    (here / "contracts/residency.yml").unlink()
    assert check(["pipeline.yml"]) == []


def test_a_merged_mapping_hides_nothing(here: Path) -> None:
    merged = "tags: &x {compute: azureml:gpu, services: {s: {type: ssh}}}\njobs:\n  a:\n    <<: *x\n    command: echo\n"
    (here / "pipeline.yml").write_text(SETTINGS + merged)
    assert {"compute-outside", "job-service"} <= {finding.rule for finding in check(["pipeline.yml"])}
