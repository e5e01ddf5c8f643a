"""The gate's frame through its command: verdicts, waivers, the ledger, signatures, and being killed between steps."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from edgeml.airlock import gate, rules
from edgeml.airlock.finding import CONTENT, POLICY
from edgeml.airlock.keeping import ledger, seal
from edgeml.cli import main
from edgeml.errors import EdgemlError
from tests.release_builder import Artifacts, artifacts, read_json, write_json

SECRET = "Margaret-Ann O'Neill"
WEIGHTS = ("class_weights", "coefficients", "intercepts")


@pytest.fixture(autouse=True)
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A gate that never decided anything, in a project of its own."""
    for name in [name for name in os.environ if name.startswith("EDGEML_")]:
        monkeypatch.delenv(name)
    (tmp_path / "edgeml.toml").write_text("")
    monkeypatch.chdir(tmp_path)
    return tmp_path / ".edgeml" / "airlock"


@pytest.fixture
def made(tmp_path: Path) -> Artifacts:
    return artifacts(tmp_path / "inputs")


def arguments(made: Artifacts, out: Path, *more: str) -> list[str]:
    paths = {"data": made.folder / "table", "contract": made.folder / "contract.yml", "out": out}
    paths |= {name: made.folder / f"{name}.json" for name in ("manifest", "validation")}
    argv = ["--artifacts", str(made.model), "--artifacts", str(made.evaluation)]
    return ["airlock", "check", *argv, *(w for n, path in paths.items() for w in (f"--{n}", str(path))), *more]


def check(made: Artifacts, out: Path, *more: str) -> int:
    return main(arguments(made, out, *more))


def found(out: Path) -> set[str]:
    return {finding["rule"] for finding in read_json(out / "egress.json")["findings"]}


# --- the verdict ----------------------------------------------------------------------------------


def test_a_release_is_kept_signed_and_in_the_ledger(made: Artifacts, tmp_path: Path, state: Path) -> None:
    out = tmp_path / "out"
    assert check(made, out) == 0
    (entry,) = ledger.read(state)
    digest = hashlib.sha256((out / "egress.json").read_bytes()).hexdigest()
    assert (entry["decision"], entry["egress"], entry["contract"]) == ("released", digest, "breast_cancer")
    kept = state / "approved" / digest
    assert {p.name: p.read_bytes() for p in kept.iterdir()} == {p.name: p.read_bytes() for p in out.iterdir()}
    assert list((state / "quarantine").iterdir()) == []
    assert (state / "key.pem").stat().st_mode & 0o777 == 0o600
    assert state.stat().st_mode & 0o777 == 0o700


def weights_of(model: bytes) -> np.ndarray:
    import onnx

    nodes = onnx.load_from_string(model).graph.node
    return np.array([v for node in nodes for a in node.attribute if a.name in WEIGHTS for v in a.floats], "f4")


@pytest.mark.parametrize("bits", [None, 12])
def test_the_weights_are_trimmed_and_the_verdict_says_what_that_changed(
    made: Artifacts, tmp_path: Path, capsys: pytest.CaptureFixture[str], bits: int | None
) -> None:
    out, more = tmp_path / "out", ["--mantissa-bits", str(bits)] if bits else []
    assert check(made, out, "--report", str(tmp_path / "report.json"), *more) == 0
    told = read_json(out / "egress.json")["trimming"]
    assert told["file"] == "model.onnx" and told["mantissa_bits"] == (bits or 10)
    assert 0 < told["largest_change"] <= told["tolerance"] == 1e-3
    assert told["metric"] == "log_loss" and abs(told["metric_change"]) <= told["tolerance"]
    left = weights_of((out / "model.onnx").read_bytes())
    trained = weights_of((made.model / "model.onnx").read_bytes())
    assert left.size == trained.size and told["weights"] >= left.size > 0
    assert not (left.view(np.uint32) & np.uint32((1 << (23 - told["mantissa_bits"])) - 1)).any()
    assert (left != trained).any()
    assert read_json(tmp_path / "report.json")["trimming"] == told
    sentence = f"{told['weights']} weights of model.onnx leave with {told['mantissa_bits']} bits of mantissa"
    assert sentence in (tmp_path / "report.md").read_text() and sentence in capsys.readouterr().out


def test_a_block_leaves_a_report_with_the_data(
    made: Artifacts, tmp_path: Path, state: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    made.edit("evaluation/metrics.json", rows=9)
    assert check(made, tmp_path / "out", "--report", str(tmp_path / "report.json"), "--json") == 2
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["egress.json"]
    printed, said = capsys.readouterr()
    report = read_json(tmp_path / "report.json")
    assert json.loads(printed) == report
    assert report["verdict"] == "blocked"
    assert "count.small" in {finding["rule"] for finding in report["findings"]}
    assert "suppress counts below k" in said
    page = (tmp_path / "report.md").read_text()
    assert "count.small" in page and "Nothing leaves" in page
    wanted = {item["name"]: item["sha256"] for item in report["wanted"]}
    assert wanted["metrics.json"] == hashlib.sha256((made.evaluation / "metrics.json").read_bytes()).hexdigest()
    assert "wanted" not in read_json(tmp_path / "out" / "egress.json")
    (rejected,) = (state / "rejected").iterdir()
    assert {path.name for path in rejected.iterdir()} == {"egress.json", "report.json", "report.md"}
    assert ledger.read(state)[0]["rules"]["count.small"] == 1
    assert list((state / "approved").iterdir()) == []


def table_of_words(made: Artifacts) -> None:
    (made.folder / "table" / "part-00000.parquet").write_bytes(b"PAR1 no table")


UNDECIDED: dict[str, tuple[Callable[[Artifacts], Any], str]] = {
    "no table": (lambda made: shutil.rmtree(made.folder / "table"), "table.invalid"),
    "an empty folder for a table": (
        lambda made: [(made.folder / "table" / "part-00000.parquet").unlink()], "table.invalid"),
    "a table that is none": (table_of_words, "table.invalid"),
    "no contract": (lambda made: (made.folder / "contract.yml").unlink(), "contract.invalid"),
}  # fmt: skip


@pytest.mark.parametrize("title", UNDECIDED)
def test_what_cannot_be_compared_does_not_leave(title: str, made: Artifacts, tmp_path: Path, state: Path) -> None:
    spoil, rule = UNDECIDED[title]
    spoil(made)
    assert check(made, tmp_path / "out") == 1
    assert read_json(tmp_path / "out" / "egress.json")["verdict"] == "undecided"
    assert found(tmp_path / "out") == {rule}
    assert [entry["decision"] for entry in ledger.read(state)] == ["undecided"]


def test_a_table_of_other_rows_than_were_ingested_is_noticed(made: Artifacts, tmp_path: Path) -> None:
    import polars as pl

    part = made.folder / "table" / "part-00000.parquet"
    pl.read_parquet(part).head(500).write_parquet(part)
    assert check(made, tmp_path / "out") == 2
    assert "lineage.mismatch" in found(tmp_path / "out")


def test_policy_and_content_are_told_apart_and_nothing_is_written(made: Artifacts, state: Path) -> None:
    (made.evaluation / f"{SECRET}.csv").write_text("1")
    findings = gate.examine([made.folder / "table"], made.folder / "contract.yml", [made.model, made.evaluation])
    kinds = {finding.rule: rules.kind(finding) for finding in findings}
    assert kinds["inventory.unlisted"] == POLICY
    assert set(kinds.values()) <= {POLICY, CONTENT}
    assert not state.exists()


def test_without_manifest_and_validation_there_is_no_lineage(made: Artifacts, tmp_path: Path) -> None:
    verdict = gate.check(
        [made.folder / "table"], made.folder / "contract.yml", [made.model, made.evaluation], tmp_path / "out"
    )
    assert verdict.verdict == gate.RELEASED
    assert "lineage.json" not in verdict.files


def test_every_rule_is_explained(capsys: pytest.CaptureFixture[str]) -> None:
    for rule in rules.known().values():
        assert main(["airlock", "--explain", rule.id]) == 0
        said = capsys.readouterr().out
        assert rule.title in said and rule.kind in said
    assert main(["airlock", "--explain", "nothing.such"]) == 2
    assert "count.small" in capsys.readouterr().err
    assert main(["airlock"]) == 2


# --- waivers --------------------------------------------------------------------------------------


def waive(made: Artifacts, file: str, rule: str, **changes: Any) -> Path:
    entry = {
        "sha256": hashlib.sha256((made.folder / file).read_bytes()).hexdigest(),
        "rule": rule,
        "reason": "agreed with the data officer on Monday",
        "approved_by": "E. Officer",
    } | changes
    path = made.folder / "waivers.yml"
    path.write_text(yaml.safe_dump({"version": 1, "waivers": [{k: v for k, v in entry.items() if v is not None}]}))
    return path


def derivable(made: Artifacts) -> None:
    made.edit("evaluation/confusion.json", matrix__0__1=12)


def test_a_waived_finding_is_recorded_in_verdict_lineage_and_ledger(
    made: Artifacts, tmp_path: Path, state: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    derivable(made)
    assert check(made, tmp_path / "no") == 2
    waivers = waive(made, "evaluation/confusion.json", "count.derivable")
    assert check(made, tmp_path / "yes", "--waivers", str(waivers)) == 0
    assert "waived: confusion.json" in capsys.readouterr().err
    verdict = read_json(tmp_path / "yes" / "egress.json")
    assert [finding["rule"] for finding in verdict["waived"]] == ["count.derivable"]
    (waiver,) = verdict["waivers"]
    assert waiver["approved_by"] == "E. Officer"
    assert read_json(tmp_path / "yes" / "lineage.json")["egress"]["waivers"] == [waiver]
    assert ledger.read(state)[-1]["waivers"] == [waiver]


WRONG: dict[str, tuple[str, str, dict[str, Any]]] = {
    "a stale digest": ("evaluation/confusion.json", "count.derivable", {"sha256": "0" * 64}),
    "another file": ("evaluation/metrics.json", "count.derivable", {}),
    "another rule": ("evaluation/confusion.json", "release.difference", {}),
    "an unknown rule": ("evaluation/confusion.json", "count.huge", {}),
    "no reason": ("evaluation/confusion.json", "count.derivable", {"reason": None}),
    "an empty reason": ("evaluation/confusion.json", "count.derivable", {"reason": "          "}),
    "nobody": ("evaluation/confusion.json", "count.derivable", {"approved_by": ""}),
    "another key": ("evaluation/confusion.json", "count.derivable", {"expires": "never"}),
}


@pytest.mark.parametrize("title", WRONG)
def test_a_waiver_that_is_not_in_order_blocks(title: str, made: Artifacts, tmp_path: Path) -> None:
    derivable(made)
    file, rule, changes = WRONG[title]
    assert check(made, tmp_path / "out", "--waivers", str(waive(made, file, rule, **changes))) == 2
    assert found(tmp_path / "out") == {"count.derivable", "waiver.invalid"}


def test_what_no_waiver_can_release_stays(made: Artifacts, tmp_path: Path) -> None:
    made.edit("evaluation/metrics.json", **{SECRET: 1})
    waivers = waive(made, "evaluation/metrics.json", "json.schema")
    assert check(made, tmp_path / "out", "--waivers", str(waivers)) == 2
    assert found(tmp_path / "out") == {"json.schema", "waiver.invalid"}


@pytest.mark.parametrize("content", ["", "[]", "version: 1\nwaivers: 3\n", "a: [", "version: 2\nwaivers: []\n"])
def test_a_waiver_file_that_is_none_blocks(content: str, made: Artifacts, tmp_path: Path) -> None:
    (made.folder / "waivers.yml").write_text(content)
    assert check(made, tmp_path / "out", "--waivers", str(made.folder / "waivers.yml")) == 2
    assert check(made, tmp_path / "gone", "--waivers", str(made.folder / "nothing.yml")) == 2


# --- earlier releases -----------------------------------------------------------------------------


def other_data(made: Artifacts, rows: int) -> None:
    """The same artifacts, as if from a table that has grown: only what the gate compares differs."""
    import polars as pl

    part = made.folder / "table" / "part-00000.parquet"
    table = pl.read_parquet(part)
    more = table.head(rows).with_columns(pl.format("Q{}", pl.col("patient_id")).alias("patient_id"))
    pl.concat([table, more]).write_parquet(part)
    total = table.height + rows
    made.edit("manifest.json", rows=total, fingerprint="sha256:" + hashlib.sha256(str(total).encode()).hexdigest())
    made.edit("validation.json", rows=total)


@pytest.mark.parametrize(("rows", "code"), [(1, 2), (9, 2), (10, 0), (40, 0)])
def test_releases_of_few_new_rows_are_blocked(rows: int, code: int, made: Artifacts, tmp_path: Path) -> None:
    assert check(made, tmp_path / "first") == 0
    other_data(made, rows)
    assert check(made, tmp_path / "second") == code
    assert found(tmp_path / "second") == ({"release.difference"} if code else set())


def test_the_same_rows_may_be_released_again(made: Artifacts, tmp_path: Path) -> None:
    assert check(made, tmp_path / "first") == 0
    made.edit("evaluation/metrics.json", rows=read_json(made.evaluation / "metrics.json")["rows"] - 3)
    made.edit("evaluation/slices.json", slices=[])
    assert check(made, tmp_path / "second") == 0


# --- signature and ledger ---------------------------------------------------------------------------


def test_verify_accepts_what_left_and_nothing_else(
    made: Artifacts, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    check(made, out)
    assert main(["airlock", "verify", str(out)]) == 0
    assert "9 files" in capsys.readouterr().out.splitlines()[-1]

    def refused(change: Callable[[Path], Any]) -> str:
        copy = tmp_path / "copy"
        shutil.rmtree(copy, ignore_errors=True)
        shutil.copytree(out, copy)
        change(copy)
        assert main(["airlock", "verify", str(copy)]) == 1
        return capsys.readouterr().err

    assert "not what" in refused(lambda f: os.truncate(f / "model.onnx", 100))
    assert "no egress.sig" in refused(lambda f: (f / "egress.sig").unlink())
    assert "no signature" in refused(lambda f: (f / "egress.sig").write_text("{}"))
    verdict = read_json(out / "egress.json")
    changed = verdict | {"waivers": [{"reason": "was never given"}]}
    assert "does not hold" in refused(lambda f: write_json(f / "egress.json", changed))

    def sign_anew(folder: Path) -> None:
        (tmp_path / "other").mkdir(exist_ok=True)
        key = seal.key_of(tmp_path / "other")
        (folder / "egress.sig").write_bytes(seal.sign((folder / "egress.json").read_bytes(), key))

    assert "not trusted" in refused(sign_anew)
    other = (tmp_path / "other" / "key.pub").read_text().strip()
    assert main(["airlock", "verify", str(tmp_path / "copy"), "--public-key", other]) == 0
    assert main(["airlock", "verify", str(out), "--public-key", other]) == 1


def test_a_key_of_the_site_signs_where_one_is_given(
    made: Artifacts, tmp_path: Path, state: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "keys").mkdir()
    key = tmp_path / "keys" / "key.pem"
    expected = seal.public(seal.key_of(tmp_path / "keys"))
    assert check(made, tmp_path / "a", "--key", str(key)) == 0
    monkeypatch.setenv("EDGEML_AIRLOCK_KEY", str(key))
    assert check(made, tmp_path / "b") == 0
    for out in ("a", "b"):
        assert read_json(tmp_path / out / "egress.sig")["public_key"] == expected
    assert not (state / "key.pem").exists()
    key.chmod(0o644)
    assert check(made, tmp_path / "c") == 1
    key.write_text("nothing")
    key.chmod(0o600)
    assert check(made, tmp_path / "d") == 1
    monkeypatch.setenv("EDGEML_AIRLOCK_KEY", str(tmp_path / "gone.pem"))
    assert check(made, tmp_path / "e") == 1
    assert not any(path.name == "model.onnx" for name in "cde" for path in (tmp_path / name).iterdir())


def test_a_ledger_that_was_changed_stops_the_gate(
    made: Artifacts, tmp_path: Path, state: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for number in range(3):
        assert check(made, tmp_path / str(number)) == 0
    capsys.readouterr()
    assert main(["airlock", "status", "--json"]) == 0
    assert [entry["decision"] for entry in json.loads(capsys.readouterr().out)] == ["released"] * 3
    path = state / "ledger.jsonl"
    whole = path.read_bytes()
    lines = whole.splitlines(keepends=True)
    for changed in (whole.replace(b"released", b"blocked!", 1), lines[0] + lines[2], b"".join(lines[1:])):
        path.write_bytes(changed)
        assert main(["airlock", "status"]) == 1
        assert check(made, tmp_path / "later") == 1
        assert found(tmp_path / "later") == {"gate.error"}
        shutil.rmtree(tmp_path / "later")
    path.write_bytes(whole + b'{"number": 4, "previ')  # a line that was never whole was never a decision
    assert check(made, tmp_path / "after") == 0
    assert [entry["number"] for entry in ledger.read(state)] == [1, 2, 3, 4]


def test_whatever_is_killed_is_never_half_approved(made: Artifacts, tmp_path: Path, state: Path) -> None:
    """Killed at many moments: what lies in `approved` or in the output with a verdict is whole and signed."""
    command = [sys.executable, "-m", "edgeml", *arguments(made, tmp_path / "out")]
    started = time.monotonic()
    assert subprocess.run(command, capture_output=True, check=False).returncode == 0
    whole = time.monotonic() - started
    (digest,) = os.listdir(state / "approved")
    trusted = [(state / "key.pub").read_text().strip()]
    for share in (0.5, 0.8, 0.9, 0.95, 0.97, 0.99, 1.0):
        shutil.rmtree(tmp_path / "out")
        shutil.rmtree(state / "approved")
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        time.sleep(whole * share)
        process.send_signal(signal.SIGKILL)
        process.wait()
        entries = ledger.read(state)
        approved = list((state / "approved").iterdir()) if (state / "approved").is_dir() else []
        assert {path.name for path in approved} <= {entry["egress"] for entry in entries}
        for folder in [*approved, *([tmp_path / "out"] if (tmp_path / "out" / "egress.json").exists() else [])]:
            gate_files = {path.name for path in folder.iterdir()}
            assert {"egress.json", "egress.sig", "model.onnx"} <= gate_files
            document = read_json(folder / "egress.json")
            seal.verify((folder / "egress.json").read_bytes(), (folder / "egress.sig").read_bytes(), trusted)
            for file in document["files"]:
                assert hashlib.sha256((folder / file["name"]).read_bytes()).hexdigest() == file["sha256"]
    shutil.rmtree(tmp_path / "out", ignore_errors=True)
    assert check(made, tmp_path / "out") == 0
    assert os.listdir(state / "approved") == [digest]
    assert os.listdir(state / "quarantine") == []


def test_a_folder_that_is_not_empty_is_not_written_to(made: Artifacts, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine.txt").write_text("1")
    with pytest.raises(EdgemlError, match="not empty"):
        gate.check([made.folder / "table"], made.folder / "contract.yml", made.model, tmp_path / "out")


def test_the_page_lists_every_rule() -> None:
    page = (Path(__file__).parents[2] / "docs" / "egress-gate.md").read_text()
    assert page.endswith(rules.table()), "run: python -m edgeml.airlock, and put it at the end of docs/egress-gate.md"


def test_the_gate_finds_nothing_private_in_its_own_reports(made: Artifacts, tmp_path: Path, state: Path) -> None:
    """Rows in every place that a report could repeat: contents, names of files and members, keys, a model's names."""
    import onnx
    import polars as pl

    table = pl.read_parquet(made.folder / "table" / "part-00000.parquet")
    name = str(table["patient_id"][7])
    (tmp_path / "papers").mkdir()
    (made.evaluation / f"{name}.csv").write_text(table.head(30).write_csv())
    (made.evaluation / "rows.json").write_text(json.dumps({name: table.row(7), "more": {name: [1, 2]}}, default=str))
    model = onnx.load(made.model / "model.onnx")
    model.graph.node[0].name = model.doc_string = name
    model.graph.initializer.append(
        onnx.numpy_helper.from_array(table.head(40).select(pl.exclude(pl.String)).to_numpy(), name)
    )
    onnx.save(model, made.model / "model.onnx")
    made.edit("evaluation/metrics.json", **{name: list(table.row(8)[1:-1])})
    assert check(made, tmp_path / "out", "--report", str(tmp_path / "papers" / "report.json")) == 2
    kinds = {rules.known()[rule].kind for rule in found(tmp_path / "out")}
    assert kinds == {POLICY, CONTENT}
    papers = tmp_path / "papers"
    for number, path in enumerate(sorted([*(tmp_path / "out").iterdir(), *(state / "rejected").rglob("*.*")])):
        (papers / f"{number}{path.suffix}").write_bytes(path.read_bytes())
    (papers / "ledger.json").write_bytes((state / "ledger.jsonl").read_bytes())
    findings = gate.examine([made.folder / "table"], made.folder / "contract.yml", papers)
    # How many private rows were recognised may well be a number below k.
    assert {finding.rule for finding in findings if rules.kind(finding) == CONTENT} <= {"small-count"}
