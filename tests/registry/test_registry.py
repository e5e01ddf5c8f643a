"""The registry through its face and its verbs: what a run released, and only that, becomes a version."""

from __future__ import annotations

import http.client
import json
import os
import shutil
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest

from edgeml import registry
from edgeml.cli import main
from edgeml.errors import EdgemlError
from tests.release_builder import read_json, reseal, run_folder, write_json


@pytest.fixture(scope="module")
def empty_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An MLflow store as `prepare` makes it, made once because its migrations take seconds."""
    folder = tmp_path_factory.mktemp("store")
    (folder / "edgeml.toml").write_text("")
    done = edgeml_code(folder, "from edgeml import registry; registry.prepare()")
    assert done.returncode == 0, done.stderr
    return folder / ".edgeml" / "mlflow.db"


@pytest.fixture
def bare_project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project in which nothing was ever registered, and no store exists."""
    for name in [name for name in os.environ if name.startswith(("EDGEML_", "MLFLOW_"))]:
        monkeypatch.delenv(name)
    (tmp_path / "edgeml.toml").write_text('[registry]\nmodel = "breast-cancer"\n')
    (tmp_path / ".edgeml" / "runs").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def project(bare_project: Path, empty_store: Path) -> Path:
    shutil.copy(empty_store, bare_project / ".edgeml" / "mlflow.db")
    return bare_project


def edgeml_code(folder: Path, code: str) -> subprocess.CompletedProcess[str]:
    """Run Python code in a fresh process inside a project."""
    return subprocess.run([sys.executable, "-c", code], cwd=folder, capture_output=True, text=True)


def add_run(project: Path, name: str = "train-a", **options: Any) -> Path:
    return run_folder(project / ".edgeml" / "runs" / name, **options)


def released(run: Path) -> Path:
    return (run / "outputs" / "release").resolve()


def another_model(run: Path) -> None:
    """Make the run's released model a different one, sealed and with its own lineage."""
    import hashlib

    import onnx

    model = onnx.load(released(run) / "model.onnx")
    model.metadata_props.add(key="other", value=run.name)
    (released(run) / "model.onnx").write_bytes(model.SerializeToString())
    lineage = read_json(released(run) / "lineage.json")
    lineage["model"]["sha256"] = hashlib.sha256((released(run) / "model.onnx").read_bytes()).hexdigest()
    write_json(released(run) / "lineage.json", lineage)
    reseal(released(run))


# --- registering -----------------------------------------------------------------------------------


def test_a_released_model_becomes_version_one_with_its_lineage(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = add_run(project)
    assert main(["register", "train-a", "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)
    lineage, metrics = read_json(released(run) / "lineage.json"), read_json(released(run) / "metrics.json")
    assert (shown["name"], shown["version"], shown["created"]) == ("breast-cancer", 1, True)
    assert shown["sha256"] == lineage["model"]["sha256"]
    tags = shown["tags"]
    assert tags["run"] == "train-a"
    assert tags["git.commit"] == "a" * 40
    assert tags["git.dirty"] == "false"
    assert tags["pipeline.digest"] == read_json(run / "run.json")["pipeline_digest"]
    assert tags["data.fingerprint"] == lineage["data"]["fingerprint"]
    assert tags["contract.name"] == "breast_cancer"
    assert tags["contract.version"] == "1"
    assert tags["contract.sha256"] == lineage["contract"]["sha256"]
    assert tags["promotion.promote"] == "true"
    assert len(tags["egress.sha256"]) == 64 and tags["egress.mantissa_bits"] == "10"
    for bound in ("value", "low", "high"):
        tag = "metric.roc_auc" + ("" if bound == "value" else f".{bound}")
        assert float(tags[tag]) == metrics["metrics"]["roc_auc"][bound]
    assert not any(key.startswith("override") for key in tags)


def test_the_files_are_kept_under_the_models_digest(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = add_run(project)
    main(["register"])
    main(["models", "path", "breast-cancer:1"])
    folder = Path(capsys.readouterr().out.splitlines()[-1])
    assert folder == project / ".edgeml" / "models" / registry.find("breast-cancer:1").sha256
    assert {p.name: p.read_bytes() for p in folder.iterdir()} == {
        p.name: p.read_bytes() for p in released(run).iterdir()
    }
    assert [p.name for p in folder.parent.iterdir()] == [folder.name]
    assert folder.stat().st_mode & 0o777 == 0o755


def test_the_same_content_is_the_same_version(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    add_run(project, "train-a")
    add_run(project, "train-b", started="2026-11-24T10:00:00Z")
    first = registry.register("train-a")
    again = registry.register("train-a")
    other = registry.register("train-b")
    assert (first.created, again.created, other.created) == (True, False, False)
    assert first.version == again.version == other.version
    assert len(registry.versions()) == 1
    assert main(["register", "train-b"]) == 0
    assert "already registered" in capsys.readouterr().out


def test_another_model_is_the_next_version_and_another_name_begins_at_one(project: Path) -> None:
    another_model(add_run(project, "train-b"))
    add_run(project, "train-a")
    assert str(registry.register("train-a").version) == "breast-cancer:1"
    assert str(registry.register("train-b").version) == "breast-cancer:2"
    assert str(registry.register("train-b", name="other").version) == "other:1"


def test_without_a_run_the_newest_completed_one_by_time_is_meant(project: Path) -> None:
    another_model(add_run(project, "train-a", started="2026-11-23T12:00:00Z"))
    add_run(project, "train-z", started="2026-11-23T11:00:00Z")
    add_run(project, "train-failed", started="2026-11-23T13:00:00Z", status="failed")
    assert registry.register().version.tags["run"] == "train-a"


def test_a_run_may_be_named_by_its_folder(project: Path, tmp_path: Path) -> None:
    run = run_folder(tmp_path / "elsewhere" / "my-run")
    assert registry.register(str(run)).version.tags["run"] == "my-run"


def test_processes_at_once_make_one_store_and_one_version(bare_project: Path) -> None:
    """As when a pipeline begins while somebody registers: store, experiment and version are made once."""
    add_run(bare_project)
    register = "import sys; from edgeml.cli import main; sys.exit(main(['register', '--json']))"
    prepare = "from edgeml import registry; print(registry.prepare('trial'))"
    racers = [
        subprocess.Popen(
            [sys.executable, "-c", code], cwd=bare_project, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        for code in (register, register, prepare)
    ]
    outcomes = [(*racer.communicate(), racer.returncode) for racer in racers]
    assert [(err, code) for _, err, code in outcomes] == [("", 0)] * 3
    shown = [json.loads(out) for out, _, _ in outcomes[:2]]
    assert [s["version"] for s in shown] == [1, 1]
    assert sorted(s["created"] for s in shown) == [False, True]
    file = bare_project / ".edgeml" / "mlflow.db"
    assert outcomes[2][0] == f"sqlite:///{file}\n"
    rows = sqlite3.connect(file).execute("SELECT artifact_location FROM experiments WHERE name = 'trial'")
    assert rows.fetchall() == [((bare_project / ".edgeml" / "mlartifacts").as_uri(),)]
    assert not (bare_project / "mlruns").exists()


def test_registering_an_unchanged_run_does_not_import_mlflow(project: Path) -> None:
    add_run(project)
    registry.register()
    heavy = "{'mlflow', 'sqlalchemy', 'alembic', 'onnx', 'numpy'}"
    code = f"import sys; from edgeml.cli import main; main(['register']); print('heavy:', {heavy} & set(sys.modules))"
    done = edgeml_code(project, code)
    assert "heavy: set()" in done.stdout, done.stderr
    assert "already registered" in done.stdout


# --- the verdict ------------------------------------------------------------------------------------


def test_a_verdict_of_no_refuses_with_its_reasons_and_the_way_round(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    add_run(project, promote=False)
    assert main(["register"]) == 1
    said = capsys.readouterr().err
    assert "the challenger is not better than the champion" in said
    assert "edgeml register train-a --override" in said
    assert "recorded" in said
    assert registry.versions() == []


def test_an_override_is_recorded_with_reason_and_user(
    project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("LOGNAME", "dr.grey")
    add_run(project, promote=False)
    assert main(["register", "--override", " needed for the pilot "]) == 0
    assert "recorded for dr.grey: needed for the pilot" in capsys.readouterr().out
    tags = registry.find("breast-cancer:1").tags
    assert tags["promotion.promote"] == "false"
    assert "not better than the champion" in tags["promotion.reasons"]
    assert (tags["override.reason"], tags["override.user"]) == ("needed for the pilot", "dr.grey")


@pytest.mark.parametrize("reason", ["", "  \n"])
def test_an_override_needs_a_reason(project: Path, reason: str) -> None:
    add_run(project, promote=False)
    assert main(["register", "--override", reason]) == 2
    assert registry.versions() == []


@pytest.mark.parametrize("promote", [None, "true", 1])
def test_anything_but_true_is_a_no(project: Path, promote: Any) -> None:
    run = add_run(project)
    promotion = read_json(released(run) / "promotion.json")
    write_json(released(run) / "promotion.json", promotion | {"promote": promote})
    reseal(released(run))
    assert main(["register"]) == 1
    assert registry.versions() == []


# --- what cannot be trusted -------------------------------------------------------------------------


def change(file: str, **keys: Any) -> Callable[[Path], None]:
    return lambda run: write_json(released(run) / file, read_json(released(run) / file) | keys)


def append(file: str, data: bytes) -> Callable[[Path], None]:
    def spoil(run: Path) -> None:
        with open(released(run) / file, "ab") as handle:
            handle.write(data)

    return spoil


def relink(run: Path) -> None:
    model = released(run) / "model.onnx"
    model.rename(run / "model.onnx")
    model.symlink_to(run / "model.onnx")


def escape(run: Path) -> None:
    shutil.copytree(released(run), run.parent.parent / "stolen")
    record = read_json(run / "run.json")
    record["outputs"]["release"]["path"] = "../../stolen"
    write_json(run / "run.json", record)


def no_output(run: Path) -> None:
    record = read_json(run / "run.json")
    for step in record["steps"]:
        step["outputs"] = {}
    write_json(run / "run.json", record | {"outputs": {}})


def foreign_lineage(run: Path) -> None:
    lineage = read_json(released(run) / "lineage.json")
    lineage["model"]["sha256"] = "0" * 64
    write_json(released(run) / "lineage.json", lineage)
    reseal(released(run))


def without(file: str) -> Callable[[Path], None]:
    def spoil(run: Path) -> None:
        (released(run) / file).unlink()
        reseal(released(run))

    return spoil


def foreign_signature(run: Path) -> None:
    """Signed by a gate that nobody here knows."""
    from edgeml.airlock.keeping import seal

    state = run / "elsewhere"
    state.mkdir()
    verdict = (released(run) / "egress.json").read_bytes()
    (released(run) / "egress.sig").write_bytes(seal.sign(verdict, seal.key_of(state)))


FINDING = {"rule": "count.small", "file": "metrics.json", "detail": "$.rows: a count below k=10 must be suppressed"}
SPOILT: dict[str, tuple[Callable[[Path], Any], str]] = {
    "a changed model": (append("model.onnx", b"\0"), "model.onnx"),
    "a changed metric": (change("metrics.json", rows=999), "metrics.json"),
    "a changed verdict": (change("egress.json", files=[]), "did not release"),
    "a changed verdict of the same files": (change("egress.json", waivers=[1]), "does not hold"),
    "no signature": (lambda run: (released(run) / "egress.sig").unlink(), "no gate answers"),
    "another gate's signature": (foreign_signature, "not trusted"),
    "another file": (lambda run: (released(run) / "rows.csv").write_text("1"), "did not release"),
    "a missing file": (lambda run: (released(run) / "curves.json").unlink(), "lacks curves.json"),
    "no verdict": (lambda run: (released(run) / "egress.json").unlink(), "no egress.json"),
    "half a verdict": (lambda run: os.truncate(released(run) / "egress.json", 100), "egress.json"),
    "a verdict that is a list": (lambda run: (released(run) / "egress.json").write_text("[]"), "egress.json"),
    "a refusal": (change("egress.json", released=False, findings=[FINDING]), "count.small"),
    "nearly released": (change("egress.json", released="true"), "released nothing"),
    "unknown rules": (change("egress.json", rules_version="1"), "update edgeml"),
    "a link": (relink, "regular file"),
    "a folder": (lambda run: (released(run) / "plots").mkdir(), "regular file"),
    "a release elsewhere": (escape, "outside"),
    "no release": (no_output, "released nothing"),
    "a release that is gone": (lambda run: shutil.rmtree(released(run)), "released nothing"),
    "the lineage of another model": (foreign_lineage, "another model"),
    "no model": (without("model.onnx"), "model.onnx"),
    "no lineage": (without("lineage.json"), "lineage.json"),
    "no promotion": (without("promotion.json"), "promotion.json"),
    "no metrics": (without("metrics.json"), "metrics.json"),
    "a failed run": (
        lambda run: write_json(run / "run.json", read_json(run / "run.json") | {"status": "failed"}), "failed"),
    "a running run": (
        lambda run: write_json(run / "run.json", read_json(run / "run.json") | {"status": "running"}), "interrupted"),
    "half a record": (lambda run: os.truncate(run / "run.json", 300), "run.json"),
    "no record": (lambda run: (run / "run.json").unlink(), "run.json"),
}  # fmt: skip


@pytest.mark.parametrize("title", SPOILT)
def test_what_cannot_be_trusted_is_not_registered(
    project: Path, capsys: pytest.CaptureFixture[str], title: str
) -> None:
    spoil, said = SPOILT[title]
    spoil(add_run(project))
    assert main(["register", "train-a"]) in (1, 2)
    error = capsys.readouterr().err
    assert said in error
    assert error.count("\n") == 1
    assert registry.versions() == []
    assert not (project / ".edgeml" / "models").exists()


def test_a_step_output_named_release_serves_where_the_pipeline_has_none(project: Path) -> None:
    run = add_run(project)
    write_json(run / "run.json", read_json(run / "run.json") | {"outputs": {}})
    assert registry.register().created


def test_no_run_at_all_is_one_sentence(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["register"]) == 2
    assert "edgeml run" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["a/b", "a:1", "models@x", "../x", "-x"])
def test_a_bad_model_name_is_refused(project: Path, name: str) -> None:
    add_run(project)
    assert main(["register", f"--name={name}"]) == 2


def test_a_damaged_store_is_one_sentence(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    add_run(project)
    (project / ".edgeml" / "mlflow.db").write_bytes(b"this is no database" * 1000)
    assert main(["register"]) == 1
    assert "mlflow.db cannot be read" in capsys.readouterr().err


# --- finding, naming ---------------------------------------------------------------------------------


def test_the_champion_moves_and_is_found_by_alias_and_by_bare_name(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    add_run(project, "train-a")
    another_model(add_run(project, "train-b"))
    first, second = registry.register("train-a").version, registry.register("train-b").version
    with pytest.raises(EdgemlError, match="has no champion"):
        registry.find("breast-cancer")
    assert main(["models", "alias", "breast-cancer:1", "champion"]) == 0
    assert registry.find("breast-cancer@champion") == first
    assert main(["models", "alias", "breast-cancer:2", "champion"]) == 0
    assert registry.find("breast-cancer") == second
    assert registry.find("breast-cancer:1").aliases == ()
    capsys.readouterr()
    assert main(["models", "list"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == ["breast-cancer:1", "breast-cancer:2"]
    assert lines[1].endswith("@champion")
    assert main(["models", "show", "breast-cancer"]) == 0
    assert "data.fingerprint" in capsys.readouterr().out
    assert main(["models", "path", "breast-cancer@champion"]) == 0
    assert capsys.readouterr().out.strip().endswith(second.sha256)


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["show", "breast-cancer:7"], 1, "no version 7"),
        (["show", "nobody:1"], 1, "no model 'nobody'"),
        (["path", "breast-cancer@shadow"], 1, "no shadow"),
        (["show", "breast-cancer:one"], 2, "NAME:VERSION"),
        (["alias", "breast-cancer:1", "latest"], 2, "latest"),
        (["alias", "breast-cancer:1", "v2"], 2, "no alias"),
        (["alias", "breast-cancer@champion", "old"], 2, "exact version"),
        (["alias", "breast-cancer:9", "champion"], 1, "no version 9"),
    ],
)
def test_what_does_not_exist_is_one_sentence(
    project: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], code: int, said: str
) -> None:
    add_run(project)
    registry.register()
    assert main(["models", *arguments]) == code
    error = capsys.readouterr().err
    assert said in error
    assert error.count("\n") == 1


def test_an_empty_registry_says_so(bare_project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["models", "list"]) == 0
    assert capsys.readouterr().out == "no models yet\n"
    assert main(["models", "list", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == []
    assert not (bare_project / ".edgeml" / "mlflow.db").exists()


def test_kept_files_that_were_changed_are_refused_and_registering_mends_them(project: Path) -> None:
    add_run(project)
    version = registry.register().version
    model = Path(registry.path(version)) / "model.onnx"
    good = model.read_bytes()
    model.write_bytes(good + b"\0")
    with pytest.raises(EdgemlError, match=r"model\.onnx"):
        registry.path(version)
    with pytest.raises(EdgemlError, match=r"model\.onnx"):
        registry.set_alias("breast-cancer:1", "champion")
    assert not registry.register().created
    assert Path(registry.path(version), "model.onnx").read_bytes() == good


def test_what_is_read_quickly_is_what_mlflow_says(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The embedded store is read without mlflow: both must tell the same, deleted versions and 9 < 10 included."""
    from mlflow import MlflowClient

    uri = f"sqlite:///{project / '.edgeml' / 'mlflow.db'}"
    client = MlflowClient(tracking_uri=uri, registry_uri=uri)
    for name in ("a", "b"):
        client.create_registered_model(name)
        for number in range(1, 12):
            client.create_model_version(name, "file:///x", tags={"n": str(number), "ü": "ß"}, await_creation_for=0)
    client.delete_model_version("a", "3")
    client.set_model_version_tag("a", "4", "late", "yes")
    client.set_registered_model_alias("a", "champion", "10")
    client.set_registered_model_alias("a", "shadow", "10")
    client.set_registered_model_alias("b", "champion", "2")
    client.delete_registered_model_alias("b", "champion")
    quick = registry.versions()
    assert [str(version) for version in quick[8:11]] == ["a:10", "a:11", "b:1"]
    said = {(v.name, int(v.version)): v for v in client.search_model_versions("", max_results=1000)}
    assert {(v.name, v.version) for v in quick} == set(said)
    for version in quick:
        theirs = client.get_model_version(version.name, str(version.version))
        assert version.tags == theirs.tags
        assert sorted(version.aliases) == sorted(theirs.aliases)
        assert version.created == theirs.creation_timestamp
    # The same store by a driver's name is to edgeml a server like any other, asked through the client.
    monkeypatch.setenv("EDGEML_REGISTRY_TRACKING_URI", uri.replace("sqlite:", "sqlite+pysqlite:"))
    assert [vars(version) for version in registry.versions()] == [vars(version) for version in quick]


# --- the store ---------------------------------------------------------------------------------------


def test_a_store_whose_making_was_killed_is_made_again(bare_project: Path) -> None:
    unfinished = bare_project / ".edgeml" / "mlflow.db.new"
    making = subprocess.Popen([sys.executable, "-c", "from edgeml import registry; registry.prepare()"])
    deadline = time.monotonic() + 60
    while not (unfinished.exists() and unfinished.stat().st_size > 50_000):
        assert time.monotonic() < deadline
        assert making.poll() is None, "it was made too quickly to be killed"
        time.sleep(0.005)
    making.kill()
    making.wait()
    assert not (bare_project / ".edgeml" / "mlflow.db").exists()
    assert registry.versions() == []
    add_run(bare_project)
    assert registry.register().created
    assert str(registry.find("breast-cancer:1")) == "breast-cancer:1"
    assert not unfinished.exists()


# --- serving -----------------------------------------------------------------------------------------


def test_a_registered_model_is_served_under_its_name_and_version(project: Path) -> None:
    folder = released(add_run(project))
    registry.register()
    names = [feature["name"] for feature in read_json(folder / "signature.json")["features"]]
    row = [round(0.5 * index, 2) for index in range(len(names))]
    command = [sys.executable, "-m", "edgeml", "serve", "breast-cancer:1", "--port", "0"]
    with subprocess.Popen(command, cwd=project, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
        assert process.stdout is not None
        port = json.loads(process.stdout.readline())["port"]
        client = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
        client.request("POST", "/score", json.dumps({"input_data": {"columns": names[::-1], "data": [row[::-1]]}}))
        answer = json.loads(client.getresponse().read())
        client.close()
        process.terminate()
        assert process.wait(20) == 0
    session = onnxruntime.InferenceSession(str(folder / "model.onnx"))
    label, chance = session.run(None, {"features": np.array([row], dtype="float32")})
    assert (answer["model_name"], answer["model_version"]) == ("breast-cancer", "1")
    (prediction,) = answer["predictions"]
    assert prediction["label"] == label[0]
    assert list(prediction["probabilities"].values()) == pytest.approx(chance[0].tolist())
