"""The step release_artifacts: its command lets out what may leave, written anew, and closes on everything else."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import resource
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import yaml
from onnx import TensorProto, helper, numpy_helper

from edgeml.airlock.intake import inventory, schemas
from edgeml.airlock.models.canonical import rewrite
from edgeml.cli import main
from tests import release_builder
from tests.release_builder import Artifacts, artifacts, read_json, write_json

SECRET = "Margaret-Ann O'Neill"  # stands for any private value: it must never be found in a verdict


@pytest.fixture(autouse=True)
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The gate's own folder, new for each test."""
    monkeypatch.setenv("EDGEML_AIRLOCK_STATE", str(tmp_path / "airlock"))
    return tmp_path / "airlock"


@pytest.fixture
def made(tmp_path: Path) -> Artifacts:
    return artifacts(tmp_path / "inputs")


def run(made: Artifacts, release: Path, *more: str) -> int:
    """The command of the component, in this process."""
    paths = {"data": made.folder / "table", "contract": made.folder / "contract.yml", "out": release}
    paths |= {name: made.folder / f"{name}.json" for name in ("manifest", "validation")}
    argv = ["--artifacts", str(made.model), "--artifacts", str(made.evaluation)]
    return main(["airlock", "check", *argv, *(w for n, path in paths.items() for w in (f"--{n}", str(path))), *more])


def edit_model(made: Artifacts, change: Callable[[onnx.ModelProto], None]) -> None:
    path = made.model / "model.onnx"
    model = onnx.load(path)
    change(model)
    path.write_bytes(model.SerializeToString())


def edit_contract(made: Artifacts, **changes: Any) -> None:
    path = made.folder / "contract.yml"
    path.write_text(yaml.safe_dump(yaml.safe_load(path.read_text()) | changes))
    made.edit("validation.json", contract__sha256=hashlib.sha256(path.read_bytes()).hexdigest())


# --- what leaves ----------------------------------------------------------------------------------


@pytest.mark.parametrize("task", ["classification", "regression"])
def test_a_clean_run_is_released_with_its_verdict(tmp_path: Path, task: str) -> None:
    made, release = artifacts(tmp_path / "inputs", task), tmp_path / "release"
    assert run(made, release) == 0
    verdict = read_json(release / "egress.json")
    assert verdict["released"] is True
    assert verdict["findings"] == []
    present = {path.name for path in release.iterdir()}
    assert present == {file["name"] for file in verdict["files"]} | {"egress.json", "egress.sig"}
    assert "parity.json" not in present
    assert ("confusion.json" in present) == (task == "classification")
    for file in verdict["files"]:
        data = (release / file["name"]).read_bytes()
        assert (len(data), hashlib.sha256(data).hexdigest()) == (file["bytes"], file["sha256"])


def test_the_lineage_names_data_contract_and_model(made: Artifacts, tmp_path: Path) -> None:
    release = tmp_path / "release"
    run(made, release)
    lineage, manifest = read_json(release / "lineage.json"), read_json(made.folder / "manifest.json")
    assert lineage["data"] == {key: manifest[key] for key in ("fingerprint", "rows", "bytes")}
    assert lineage["contract"] == read_json(made.folder / "validation.json")["contract"]
    for key, file in (("sha256", release / "model.onnx"), ("trained_sha256", made.model / "model.onnx")):
        assert lineage["model"][key] == hashlib.sha256(file.read_bytes()).hexdigest()


def test_the_same_artifacts_give_the_same_bytes(made: Artifacts, tmp_path: Path) -> None:
    run(made, tmp_path / "one")
    run(made, tmp_path / "two")
    for path in (tmp_path / "one").iterdir():
        assert path.read_bytes() == (tmp_path / "two" / path.name).read_bytes()


def test_the_rewritten_model_predicts_the_same(made: Artifacts, tmp_path: Path) -> None:
    run(made, tmp_path / "release")
    rows = np.random.default_rng(1).normal(15, 5, (200, 30)).astype("float32")
    answers = []
    for folder in (made.model, tmp_path / "release"):
        session = onnxruntime.InferenceSession(str(folder / "model.onnx"), providers=["CPUExecutionProvider"])
        answers.append(session.run(None, {"features": rows}))
    assert (answers[0][0] == answers[1][0]).all()
    # The weights left with fewer bits, within what the gate tells; these rows are wilder than any that it tried.
    assert np.abs(answers[0][1] - answers[1][1]).max() < 0.02


def test_free_text_and_names_do_not_survive_in_the_model(made: Artifacts) -> None:
    def whisper(model: onnx.ModelProto) -> None:
        model.doc_string = model.producer_version = model.domain = SECRET
        model.graph.doc_string = model.graph.name = SECRET
        helper.set_model_props(model, {"note": SECRET})
        first = model.graph.node[0]
        first.doc_string = first.name = SECRET
        middle = first.output[0]
        first.output[0] = SECRET
        model.graph.node[1].input[0] = SECRET
        assert middle != SECRET
        model.graph.value_info.append(helper.make_tensor_value_info(SECRET, TensorProto.FLOAT, [None, SECRET]))
        model.graph.input[0].type.tensor_type.shape.dim[0].dim_param = SECRET
        model.graph.input[0].type.tensor_type.shape.dim[0].denotation = SECRET

    edit_model(made, whisper)
    data = rewritten(made)
    assert SECRET.encode() not in data
    assert {prop.key for prop in onnx.load_from_string(data).metadata_props} == {"edgeml.contract"}


def rewritten(made: Artifacts) -> bytes:
    """The canonical form of a model, whatever else the gate thinks of it."""
    outputs = ["label", "probabilities"]
    return rewrite((made.model / "model.onnx").read_bytes(), ["features"], outputs, {"edgeml.contract": "x:1"})


def test_the_released_model_says_where_it_comes_from(made: Artifacts, tmp_path: Path) -> None:
    assert run(made, tmp_path / "release") == 0
    model = onnx.load(tmp_path / "release" / "model.onnx")
    assert {prop.key for prop in model.metadata_props} == {"edgeml.contract", "edgeml.data", "edgeml.egress_rules"}


def test_small_unused_tensors_are_dropped(made: Artifacts, tmp_path: Path) -> None:
    edit_model(made, lambda m: m.graph.initializer.append(numpy_helper.from_array(np.arange(16.0), "classes_ind")))
    assert run(made, tmp_path / "release") == 0
    assert len(onnx.load(tmp_path / "release" / "model.onnx").graph.initializer) == 0


def test_floats_leave_with_six_significant_digits(made: Artifacts, tmp_path: Path) -> None:
    made.edit("evaluation/metrics.json", metrics__f1__value=0.123456789123)
    made.edit("evaluation/promotion.json", reasons=["difference 0.987654321987 [-1.23456789e-07, 12]"])
    assert run(made, tmp_path / "release") == 0
    assert read_json(tmp_path / "release" / "metrics.json")["metrics"]["f1"]["value"] == 0.123457
    assert read_json(tmp_path / "release" / "signature.json")["parameters"]["seed"] == 20260101
    reasons = read_json(tmp_path / "release" / "promotion.json")["reasons"]
    assert reasons == ["difference 0.987654 [-1.23457e-07, 12]"]


def test_a_model_with_a_subgraph_keeps_its_outer_names(made: Artifacts) -> None:
    """A loop body reads a value of the graph around it: renaming and dropping must not tear them apart."""
    (made.model / "model.onnx").write_bytes(model_with_branch(made).SerializeToString())
    rows = np.ones((3, 30), "float32")
    session = onnxruntime.InferenceSession(rewritten(made))
    assert session.run(["probabilities"], {"features": rows})[0].tolist() == [[30.5, 30.5]] * 3


def model_with_branch(made: Artifacts) -> onnx.ModelProto:
    then = helper.make_graph(
        [helper.make_node("Add", ["total", "shift"], ["inner"])],
        "then",
        [],
        [helper.make_tensor_value_info("inner", TensorProto.FLOAT, [None, 2])],
        [numpy_helper.from_array(np.array([0.5], "float32"), "shift")],
    )
    other = helper.make_graph(
        [helper.make_node("Identity", ["total"], ["inner"])],
        "else",
        [],
        [helper.make_tensor_value_info("inner", TensorProto.FLOAT, [None, 2])],
    )
    nodes = [
        helper.make_node("MatMul", ["features", "ones"], ["total"]),
        helper.make_node("If", ["yes"], ["probabilities"], then_branch=then, else_branch=other),
        helper.make_node("ArgMax", ["total"], ["label"], axis=1, keepdims=0),
    ]
    graph = helper.make_graph(
        nodes,
        "branch",
        [helper.make_tensor_value_info("features", TensorProto.FLOAT, [None, 30])],
        [
            helper.make_tensor_value_info("label", TensorProto.INT64, [None]),
            helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, [None, 2]),
        ],
        [
            numpy_helper.from_array(np.ones((30, 2), "float32"), "ones"),
            numpy_helper.from_array(np.array(True), "yes"),
        ],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


# --- what does not ---------------------------------------------------------------------------------


def symlink_outside(made: Artifacts) -> None:
    (made.evaluation / "metrics.json").rename(made.folder / "private.json")
    (made.evaluation / "metrics.json").symlink_to(made.folder / "private.json")


def fifo(made: Artifacts) -> None:
    (made.evaluation / "metrics.json").unlink()
    os.mkfifo(made.evaluation / "metrics.json")


def unix_socket(made: Artifacts) -> None:
    (made.evaluation / "metrics.json").unlink()
    here = os.getcwd()
    os.chdir(made.evaluation)  # a socket's path must be short
    try:
        socket.socket(socket.AF_UNIX).bind("metrics.json")
    finally:
        os.chdir(here)


def replace_text(file: str, old: str, new: str) -> Callable[[Artifacts], None]:
    def spoil(made: Artifacts) -> None:
        path = made.folder / file
        content = path.read_text()
        assert old in content
        path.write_text(content.replace(old, new, 1))

    return spoil


def edit(file: str, **changes: Any) -> Callable[[Artifacts], None]:
    return lambda made: made.edit(file, **changes)


def model(change: Callable[[onnx.ModelProto], Any]) -> Callable[[Artifacts], None]:
    return lambda made: edit_model(made, change)


def add_unused(m: onnx.ModelProto) -> None:
    m.graph.initializer.append(numpy_helper.from_array(np.arange(17.0), "spare"))


def add_dead_constant(m: onnx.ModelProto) -> None:
    value = numpy_helper.from_array(np.arange(170.0), "rows")
    m.graph.node.append(helper.make_node("Constant", [], ["nobody_reads_this"], value=value))


def add_external(m: onnx.ModelProto) -> None:
    tensor = numpy_helper.from_array(np.arange(4.0), "outside")
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="../../private/table.bin")
    m.graph.initializer.append(tensor)


def add_foreign_operator(m: onnx.ModelProto) -> None:
    m.opset_import.append(helper.make_opsetid("local_domain", 1))
    m.graph.node.append(helper.make_node("Exfiltrate", ["features"], ["x"], domain="local_domain"))


def add_microsoft_operator(m: onnx.ModelProto) -> None:
    m.opset_import.append(helper.make_opsetid("com.microsoft", 1))
    m.graph.node.append(helper.make_node("WordConvEmbedding", ["features"], ["x"], domain="com.microsoft"))


def add_function(m: onnx.ModelProto) -> None:
    node = helper.make_node("Identity", ["a"], ["b"])
    m.functions.append(helper.make_function("local", "F", ["a"], ["b"], [node], [helper.make_opsetid("", 17)]))


def add_sparse(m: onnx.ModelProto) -> None:
    values = numpy_helper.from_array(np.array([1.0, 2.0]), "sparse")
    indices = numpy_helper.from_array(np.array([0, 3]), "indices")
    m.graph.sparse_initializer.append(helper.make_sparse_tensor(values, indices, [10]))


def add_base64_string(m: onnx.ModelProto) -> None:
    blob = base64.b64encode(os.urandom(600)).decode()
    m.graph.node[-1].attribute.append(helper.make_attribute("note", blob))
    m.graph.node[-1].attribute.pop()
    names = helper.make_tensor("s", TensorProto.STRING, [1], [blob.encode()])
    m.graph.initializer.append(names)
    m.graph.node.insert(0, helper.make_node("Identity", ["s"], ["s2"]))
    m.graph.node.insert(1, helper.make_node("Shape", ["s2"], ["s3"]))
    m.graph.node.insert(2, helper.make_node("Cast", ["s3"], ["s4"], to=TensorProto.FLOAT))
    m.graph.node.insert(3, helper.make_node("Sub", ["s4", "s4"], ["zero"]))
    m.graph.node.insert(4, helper.make_node("Add", ["features", "zero"], ["features2"]))
    m.graph.node[5].input[0] = "features2"


def add_unknown_field(made: Artifacts) -> None:
    path = made.model / "model.onnx"
    path.write_bytes(path.read_bytes() + b"\xf2\x3f\x05hello")  # field 1022, five bytes


def break_tensor(m: onnx.ModelProto) -> None:
    tensor = numpy_helper.from_array(np.zeros(30, "float32"), "shift")
    tensor.raw_data = tensor.raw_data + b"\0" * 4096
    m.graph.initializer.append(tensor)
    m.graph.node.insert(0, helper.make_node("Add", ["features", "shift"], ["features2"]))
    m.graph.node[1].input[0] = "features2"


def grow(file: str, size: int) -> Callable[[Artifacts], None]:
    def spoil(made: Artifacts) -> None:
        with open(made.folder / file, "ab") as handle:
            handle.write(b" " * size)

    return spoil


def slice_of_people(made: Artifacts) -> None:
    contract = yaml.safe_load((made.folder / "contract.yml").read_text())
    contract["columns"]["ward"] = {"type": "string", "allowed": ["north", "south"], "public": True}
    edit_contract(made, slices=["ward", "mean_radius", "mean_texture"], columns=contract["columns"])
    made.edit("evaluation/slices.json", slices__0__column="ward", slices__0__slice=SECRET.split()[0])


def fill(made: Artifacts) -> None:
    """A model that is just within its budget until the gate adds its own metadata."""
    budget, path = 20 << 20, made.model / "model.onnx"

    def change(m: onnx.ModelProto) -> None:
        m.graph.node.insert(0, helper.make_node("ReduceSum", ["w"], ["s"]))
        m.graph.node.insert(1, helper.make_node("Add", ["features", "s"], ["t"]))
        m.graph.node[2].input[0] = "t"
        room = budget - len(m.SerializeToString()) - 30
        m.graph.initializer.append(numpy_helper.from_array(np.ones(room // 4, "float32"), "w"))

    edit_model(made, change)
    assert budget - 40 < path.stat().st_size <= budget


REFUSALS: dict[str, tuple[str, str, Callable[[Artifacts], Any]]] = {
    # title: (rule, file, how to spoil the artifacts)
    "another file in the evaluation": (
        "inventory.unlisted", "entry-", lambda made: (made.evaluation / f"{SECRET}.csv").write_text("1,2")),
    "another file in the model": (
        "inventory.unlisted", "entry-", lambda made: (made.model / "model.pkl").write_bytes(b"\x80\x04.")),
    "a folder in the evaluation": (
        "inventory.unlisted", "entry-", lambda made: (made.evaluation / "plots").mkdir()),
    "a listed name that is a folder": (
        "inventory.unlisted", "entry-",
        lambda made: [(made.model / "parity.json").unlink(), (made.model / "parity.json").mkdir()]),
    "a missing file": (
        "inventory.missing", "slices.json", lambda made: (made.evaluation / "slices.json").unlink()),
    "a missing model": ("inventory.missing", "model.onnx", lambda made: (made.model / "model.onnx").unlink()),
    "a missing folder": ("gate.error", "", lambda made: shutil.rmtree(made.evaluation)),
    "a symbolic link": ("inventory.kind", "metrics.json", symlink_outside),
    "a FIFO": ("inventory.kind", "metrics.json", fifo),
    "a socket": ("inventory.kind", "metrics.json", unix_socket),
    "a JSON file above its budget": ("budget.file", "metrics.json", grow("evaluation/metrics.json", 70_000)),
    "a model above its budget": ("budget.file", "model.onnx", grow("model/model.onnx", 20 << 20)),
    "a model above its budget once rewritten": ("budget.file", "model.onnx", fill),
    "a manifest above its budget": ("budget.file", "manifest", grow("manifest.json", 17 << 20)),
    "a key given twice": ("json.syntax", "metrics.json",
        replace_text("evaluation/metrics.json", '"rows":', f'"rows": "{SECRET}", "rows":')),
    "NaN": ("json.syntax", "metrics.json", replace_text("evaluation/metrics.json", '"value": ', '"value": NaN, "x": ')),
    "an overflowing number": (
        "json.schema", "metrics.json", replace_text("evaluation/metrics.json", '"samples": 1000', '"samples": 1e999')),
    "an infinite metric": (
        "json.schema", "metrics.json",
        replace_text("evaluation/metrics.json", '"value": 0.', '"value": 1e999, "x": 0.')),
    "bytes that are not UTF-8": (
        "json.syntax", "metrics.json", lambda made: (made.evaluation / "metrics.json").write_bytes(b'{"\xff": 1}')),
    "UTF-16": ("json.syntax", "metrics.json", lambda made: (made.evaluation / "metrics.json").write_bytes(
        json.dumps({"version": 1}).encode("utf-16"))),
    "trailing data": ("json.syntax", "metrics.json",
        lambda made: (made.evaluation / "metrics.json").open("a").write("{}")),
    "an empty file": ("json.syntax", "metrics.json", lambda made: (made.evaluation / "metrics.json").write_text("")),
    "deep nesting": ("json.syntax", "metrics.json",
        lambda made: (made.evaluation / "metrics.json").write_text("[" * 9 + "]" * 9)),
    "bottomless nesting": ("json.syntax", "metrics.json",
        lambda made: (made.evaluation / "metrics.json").write_text("[" * 20_000 + "]" * 20_000)),
    "an encoded run": ("text.opaque", "importance.json",
        edit("evaluation/importance.json", method=base64.b64encode(os.urandom(400)).decode())),
    "an unknown key": ("json.schema", "metrics.json", edit("evaluation/metrics.json", **{SECRET: 1})),
    "an unknown metric": ("json.schema", "metrics.json",
        edit("evaluation/metrics.json", **{f"metrics__{SECRET}": {"value": 1, "low": 1, "high": 1}})),
    "a missing key": ("json.schema", "metrics.json",
        replace_text("evaluation/metrics.json", '"bootstrap"', '"rows2"')),
    "a metric without interval": ("json.schema", "metrics.json", edit("evaluation/metrics.json", metrics__f1=0.9)),
    "a number that is a string": ("json.schema", "metrics.json", edit("evaluation/metrics.json", metrics__f1__low="1")),
    "a number that is a truth": ("json.schema", "metrics.json", edit("evaluation/metrics.json", version=True)),
    "an ROC curve with all its thresholds": ("json.schema", "curves.json",
        edit("evaluation/curves.json", roc=[[i / 60, i / 60] for i in range(61)])),
    "an ROC point with a third number": ("json.schema", "curves.json",
        edit("evaluation/curves.json", roc=[[0, 0, 17.99]])),
    "a rate above one": ("json.schema", "curves.json", edit("evaluation/curves.json", roc=[[0, 17.99]])),
    "a small bin of predictions": ("count.small", "curves.json",
        edit("evaluation/curves.json", distribution__0__count=9)),
    "a small calibration bin": ("count.small", "curves.json", edit("evaluation/curves.json", calibration__0__count=9)),
    "a small confusion cell": ("count.small", "confusion.json", edit("evaluation/confusion.json", matrix__0__1=9)),
    "a confusion cell that follows from the total": ("count.derivable", "confusion.json",
        edit("evaluation/confusion.json", matrix__0__1=12)),
    "a ragged confusion matrix": ("json.schema", "confusion.json",
        edit("evaluation/confusion.json", matrix=[[12], [13]])),
    "labels that are not the classes": ("json.schema", "confusion.json",
        edit("evaluation/confusion.json", labels=["benign", SECRET.replace("'", "")])),
    "a small slice": ("count.small", "slices.json", edit("evaluation/slices.json", slices__0__rows=9)),
    "a slice that follows from the total": ("count.derivable", "slices.json",
        edit("evaluation/slices.json", slices__0__rows=50)),
    "a slice by a column that the contract does not slice": ("json.schema", "slices.json",
        edit("evaluation/slices.json", slices__0__column="patient_id")),
    "a k below the contract's": ("json.schema", "slices.json", edit("evaluation/slices.json", k=2)),
    "a few rows only": ("count.small", "metrics.json", edit("evaluation/metrics.json", rows=9)),
    "importance of something that is no feature": ("json.schema", "importance.json",
        edit("evaluation/importance.json", features__0__name=SECRET)),
    "importance of the key": ("json.schema", "importance.json",
        edit("evaluation/importance.json", features__0__name="patient_id")),
    "a long reason": ("json.schema", "promotion.json", edit("evaluation/promotion.json", reasons=["x" * 301])),
    "a reason with other characters": (
        "json.schema", "promotion.json", edit("evaluation/promotion.json", reasons=["{rows}"])),
    "a champion without digest": (
        "json.schema", "promotion.json", edit("evaluation/promotion.json", champion__model_sha256=SECRET)),
    "a class that the contract does not allow": (
        "json.schema", "signature.json", edit("model/signature.json", classes=["benign", SECRET])),
    "another target": ("json.schema", "signature.json", edit("model/signature.json", target=SECRET)),
    "a parameter that is a table": (
        "json.schema", "signature.json", edit("model/signature.json", parameters={"rows": [[17.99, 10.38]]})),
    "a parameter that is a sentence": (
        "json.schema", "signature.json", edit("model/signature.json", parameters={"note": SECRET})),
    "not a model": ("onnx.parse", "model.onnx", lambda made: (made.model / "model.onnx").write_bytes(b"PK\x03\x04zip")),
    "an empty model": ("onnx.check", "model.onnx", lambda made: (made.model / "model.onnx").write_bytes(b"")),
    "bytes behind the model": ("onnx.parse", "model.onnx", add_unknown_field),
    "a broken graph": ("onnx.check", "model.onnx", model(lambda m: m.graph.node[0].ClearField("input"))),
    "an unused tensor": ("onnx.unused", "model.onnx", model(add_unused)),
    "a constant that nobody reads": ("onnx.unused", "model.onnx", model(add_dead_constant)),
    "external data": ("onnx.external", "model.onnx", model(add_external)),
    "an operator of an unknown domain": ("onnx.domain", "model.onnx", model(add_foreign_operator)),
    "an operator of Microsoft's": ("onnx.domain", "model.onnx", model(add_microsoft_operator)),
    "a function": ("onnx.structure", "model.onnx", model(add_function)),
    "a sparse tensor": ("onnx.structure", "model.onnx", model(add_sparse)),
    "a tensor with more data than its shape": ("onnx.", "model.onnx", model(break_tensor)),
    "an encoded string in the model": ("text.entropy", "model.onnx", model(add_base64_string)),
    "other inputs than the signature's": ("onnx.interface", "model.onnx",
        edit("model/signature.json", inputs__0__name="mean_radius")),
    "other outputs than the signature's": ("onnx.interface", "model.onnx",
        edit("model/signature.json", outputs__0__name="prediction")),
    "data that broke the contract": ("lineage.invalid", "validation", edit("validation.json", valid=False)),
    "data checked against another contract": (
        "lineage.mismatch", "validation", edit("validation.json", contract__sha256="0" * 64)),
    "other rows checked than ingested": ("lineage.mismatch", "validation", edit("validation.json", rows=568)),
    "more rows evaluated than ingested": (
        "lineage.mismatch", "metrics.json", edit("evaluation/metrics.json", rows=570)),
    "a fingerprint that is something else": ("json.schema", "lineage.json", edit("manifest.json", fingerprint=SECRET)),
    "a manifest without rows": ("gate.error", "lineage.json",
        lambda made: write_json(made.folder / "manifest.json", {"version": 1})),
    "a contract whose k is too small": ("contract.invalid", "contract", lambda made: edit_contract(made, k=2)),
    "a missing contract": ("contract.invalid", "contract", lambda made: (made.folder / "contract.yml").unlink()),
    "a contract that is not one": (
        "contract.invalid", "contract", lambda made: (made.folder / "contract.yml").write_text("- 1")),
    "a contract that slices by the key": (
        "contract.invalid", "contract", lambda made: edit_contract(made, slices=["patient_id"])),
    "a slice that the contract does not allow": ("json.schema", "slices.json", slice_of_people),
}  # fmt: skip


# These change what other files are held against, or keep the gate from looking at them: each has a run of its own.
ALONE = ("inventory.missing", "lineage.", "contract.", "gate.", "count.derivable")
APART = ("", "entry-", "manifest", "validation")
SHARED = ("labels", "ragged", "slice that the contract", "another target", "other inputs", "other outputs", "rewritten")


def together() -> list[list[str]]:
    """The refusals in groups in which every file is spoilt once: a gate's run takes seconds, and it tells of all."""
    groups: list[list[str]] = []
    for title, (rule, _, _) in REFUSALS.items():
        file = part(title)
        own = rule.startswith(ALONE) or any(word in title for word in SHARED) or file in APART
        for group in [] if own else groups:
            if all(part(other) not in (file, *APART) for other in group) and not alone(group[0]):
                group.append(title)
                break
        else:
            groups.append([title])
    return groups


def part(title: str) -> str:
    """The file that is spoilt; a model cannot be written anew without its signature."""
    return REFUSALS[title][1].replace("signature.json", "model.onnx")


def alone(title: str) -> bool:
    return REFUSALS[title][0].startswith(ALONE) or any(word in title for word in SHARED)


@pytest.mark.parametrize("titles", together(), ids=lambda titles: titles[0])
def test_one_refusal_and_nothing_leaves(
    made: Artifacts, tmp_path: Path, capsys: pytest.CaptureFixture[str], titles: list[str]
) -> None:
    for title in titles:
        REFUSALS[title][2](made)
    release = tmp_path / "release"
    code = run(made, release)
    assert [path.name for path in release.iterdir()] == ["egress.json"]
    verdict = read_json(release / "egress.json")
    assert verdict["released"] is False
    assert code == {"blocked": 2, "undecided": 1}[verdict["verdict"]]
    assert verdict["files"] == []
    found = [(finding["rule"], finding["file"]) for finding in verdict["findings"]]
    for title in titles:
        rule, file, _ = REFUSALS[title]
        assert any(r.startswith(rule) and f.startswith(file) for r, f in found), (title, found)
    said = json.dumps(verdict) + "".join(capsys.readouterr())
    assert SECRET not in said
    assert SECRET.split()[0] not in said
    assert "Traceback" not in said


def test_every_rule_of_the_step_is_among_the_refusals() -> None:
    """A rule that no case closes on would be a rule nobody knows to work."""
    named = {rule.id for rule in (*inventory.RULES, *schemas.RULES)}
    tested = {rule for rule, _, _ in REFUSALS.values()}
    # The budgets of the files add up to less than the total; the others have cases of their own in tests/airlock.
    assert named - tested == {"budget.total", "inventory.format", "inventory.many"}


def test_all_findings_are_reported_together(made: Artifacts, tmp_path: Path) -> None:
    made.edit("evaluation/metrics.json", rows=9)
    made.edit("evaluation/confusion.json", matrix__0__1=3)
    (made.model / "model.onnx").write_bytes(b"nothing")
    run(made, tmp_path / "release")
    findings = read_json(tmp_path / "release" / "egress.json")["findings"]
    assert {finding["file"] for finding in findings} == {"metrics.json", "confusion.json", "model.onnx"}


def test_files_that_the_cache_linked_are_read_like_any_other(made: Artifacts, tmp_path: Path) -> None:
    os.link(made.evaluation / "metrics.json", tmp_path / "cached.json")
    assert run(made, tmp_path / "release") == 0


def test_a_release_folder_that_holds_something_is_refused(
    made: Artifacts, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "release").mkdir()
    (tmp_path / "release" / "rows.csv").write_text("1")
    assert run(made, tmp_path / "release") == 1
    assert "not empty" in capsys.readouterr().err
    assert not (tmp_path / "release" / "egress.json").exists()


def test_a_release_that_cannot_be_written_leaves_nothing(
    made: Artifacts, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The file system refuses the verdict itself: what was written before it is taken back."""
    release = tmp_path / "release"
    release.mkdir()
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (1500, limits[1]))
        code = run(made, release)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
    assert code == 1
    assert list(release.iterdir()) == []
    assert "could not be written" in capsys.readouterr().err


def test_it_runs_as_a_step_does(made: Artifacts, tmp_path: Path) -> None:
    done = release_builder.release(made, tmp_path / "release")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("released 9 files")


def test_the_gate_in_the_snapshot_is_the_one_that_judges(made: Artifacts, tmp_path: Path) -> None:
    """The component brings the package with it: what its environment installs does not matter."""
    from edgeml.engine.fingerprint import Fingerprints
    from edgeml.engine.snapshot import take

    folder = release_builder.COMPONENT.parent
    spec = yaml.safe_load(release_builder.COMPONENT.read_text())
    includes = tuple(os.path.normpath(folder / include) for include in spec["additional_includes"])
    snapshot = take(str(folder), includes, Fingerprints(str(tmp_path / "fingerprints")))
    snapshot.copy_to(str(tmp_path / "code"))
    code = "import edgeml; print(edgeml.__file__)"
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path / "code", capture_output=True, text=True)
    assert done.stdout.strip() == str(tmp_path / "code" / "edgeml" / "__init__.py")


def test_the_component_declares_what_the_command_takes() -> None:
    spec = yaml.safe_load(release_builder.COMPONENT.read_text())
    for name, kind in [*((n, "inputs") for n in spec["inputs"]), *((n, "outputs") for n in spec["outputs"])]:
        assert f"${{{{{kind}.{name}}}}}" in spec["command"]
