"""Images as they are built: small, empty of tools, the same by every builder, and tested before anybody gets them."""

from __future__ import annotations

import dataclasses
import io
import json
import os
import shutil
import socket
import subprocess
import tarfile
from pathlib import Path

import onnx
import pytest

from edgeml import image, registry
from edgeml.errors import EdgemlError
from edgeml.image import assemble, base, builders, golden, oci, packaging, prove, recipe, runtime, tree
from edgeml.image.packaging import Packaged
from tests.engine.daemon import Daemon
from tests.images import MODEL, OTHER, empty_project, inside
from tests.whole import whole


def build(builder: str, folder: Path, model: str = MODEL) -> str:
    images = packaging.layout()
    below = base.of("", images, print)
    wanted = recipe.with_base(recipe.of(registry.find(model)), below)
    context = folder / "context"
    context.mkdir()
    return str(builders.chosen(builder).build(recipe.context(wanted, str(context), print), below, wanted, images))


def manifest(digest: str) -> dict:
    return json.loads(packaging.layout().manifest(digest) or b"")


def test_the_image_is_small_and_holds_nothing_that_scoring_does_not_need(here: Path, packaged: Packaged) -> None:
    root = Path(runtime.root(runtime.image(packaging.layout(), packaged.digest)))
    files = [path for path in root.rglob("*") if path.is_file() and not path.is_symlink()]
    assert sum(path.stat().st_size for path in files) < 180e6
    assert manifest(packaged.digest)["layers"][-1]["size"] < 1e6
    names = {path.name for path in files}
    assert names & {"sh", "bash", "dash", "gcc", "cc", "apt", "dpkg", "curl", "ld"} == set()
    top = {path.name for path in (root / "opt/edgeml/packages").iterdir()}
    assert "onnxruntime" in top
    assert top & {"pip", "setuptools", "sklearn", "skl2onnx", "onnx", "mlflow", "polars", "pandas"} == set()
    assert {path.name for path in (root / "opt/edgeml/server/edgeml").iterdir()} == {
        "__init__.py",
        "__pycache__",
        "serving",
    }
    assert sorted(path.name for path in (root / "model").iterdir()) == sorted(recipe.FILES)


def test_the_labels_lead_back_to_model_commit_data_and_gate(here: Path, packaged: Packaged) -> None:
    tags = registry.find(MODEL).tags
    labels = image.verify(packaged.reference, Path(".edgeml/image/key.pub").read_text()).labels
    assert labels["org.opencontainers.image.title"] == "breast-cancer"
    assert labels["org.opencontainers.image.revision"] == tags["git.commit"]
    assert labels["edgeml.model.sha256"] == tags["model.sha256"]
    assert labels["edgeml.data.fingerprint"] == tags["data.fingerprint"]
    assert labels["edgeml.egress.sha256"] == tags["egress.sha256"]
    assert tags["image.digest"] == packaged.digest


def test_a_second_call_does_nothing(here: Path, packaged: Packaged) -> None:
    image.package(MODEL)  # the last word on where it is published may be another test's
    kept = {path: path.stat().st_mtime_ns for path in Path(".edgeml/image").rglob("*.json")}
    again = image.package(MODEL)
    assert (again.digest, again.created, again.pushed) == (packaged.digest, False, False)
    assert {path: path.stat().st_mtime_ns for path in Path(".edgeml/image").rglob("*.json")} == kept


def test_another_model_changes_the_last_layer_alone(here: Path, packaged: Packaged) -> None:
    other = image.package(OTHER)
    ours, theirs = manifest(packaged.digest)["layers"], manifest(other.digest)["layers"]
    assert ours[:-1] == theirs[:-1]
    assert ours[-1] != theirs[-1]
    assert other.record["proof"]["rows"] == golden.ROWS


def test_another_folder_at_another_time_makes_the_same_digest(
    here: Path, packaged: Packaged, parts: Path, tmp_path: Path
) -> None:
    fresh = tmp_path / "parts"  # base and wheels are inputs; everything made of them is made anew
    fresh.mkdir()
    for part in parts.iterdir():
        if part.name.startswith(("base-", "wheels-")):
            (fresh / part.name).symlink_to(part)
    elsewhere = empty_project(tmp_path / "elsewhere", fresh)
    shutil.copytree(here / "environments", elsewhere / "environments", dirs_exist_ok=True)
    for name in ("mlflow.db", "models", "airlock"):
        (elsewhere / ".edgeml" / name).symlink_to(here / ".edgeml" / name)
    with inside(elsewhere):
        assert build("embedded", tmp_path) == packaged.digest


def test_docker_builds_the_same_image(
    here: Path, packaged: Packaged, daemon: Daemon, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DOCKER_HOST", daemon.environment["DOCKER_HOST"])
    assert build("docker", tmp_path) == packaged.digest
    run, described = runtime.image(packaging.layout(), packaged.digest), registry.path(registry.find(MODEL))
    papers = [json.loads(Path(described, f"{name}.json").read_text()) for name in ("signature", "lineage")]
    answers = golden.record(Path(described, "model.onnx").read_bytes(), *papers, run.digest)
    assert prove.image(run, "breast-cancer", answers, 5000, 512).runtime == "docker"


@whole("builds in 25 s what docker and our own assembler build too")
@pytest.mark.skipif(not shutil.which("buildah"), reason="buildah is not installed")
def test_buildah_builds_the_same_image(here: Path, packaged: Packaged, tmp_path: Path) -> None:
    assert build("buildah", tmp_path) == packaged.digest


def test_a_builder_that_is_not_there_is_one_sentence(here: Path) -> None:
    with pytest.raises(EdgemlError, match=r"--builder docker: .*docker.*or take --builder embedded"):
        builders.chosen("docker")
    with pytest.raises(EdgemlError, match="there is no builder 'kaniko'"):
        builders.chosen("kaniko")


@pytest.mark.parametrize(
    "line", ["RUN rm -rf /tmp", "COPY more /more", "HEALTHCHECK CMD true", "ADD https://example.com/x /x"]
)
def test_the_embedded_builder_refuses_what_it_would_leave_out(line: str) -> None:
    text = (Path(__file__).parents[2] / "environments/scoring/Dockerfile").read_text()
    arguments = {"MODEL_NAME": "m", "MODEL_VERSION": "1"}
    assert assemble.last_stage(text, arguments)["User"] == "10001:10001"
    with pytest.raises(EdgemlError, match=r"builder docker|does not know HEALTHCHECK"):
        assemble.last_stage(f"{text}\n{line}\n", arguments)


def test_a_wheel_that_is_not_in_the_lock_is_refused(here: Path, packaged: Packaged, tmp_path: Path) -> None:
    images = packaging.layout()
    below = base.of("", images, print)
    wanted = recipe.of(registry.find(MODEL))
    context = Path(recipe.context(wanted, str(tmp_path), print))
    wheels = os.path.realpath(context / "wheels")
    (context / "wheels").unlink()
    shutil.copytree(wheels, context / "wheels")
    victim = next((context / "wheels").glob("packaging-*"))
    victim.write_bytes(victim.read_bytes() + b"\0")
    with pytest.raises(EdgemlError, match=r"packaging.* is not in the lock"):
        assemble.build(str(context), below, wanted, images)


def test_a_server_that_answers_otherwise_or_too_slowly_or_not_at_all_is_not_published(
    here: Path, packaged: Packaged, tmp_path: Path
) -> None:
    images = packaging.layout()
    run = runtime.image(images, packaged.digest)
    answers = image.verify(packaged.reference, Path(".edgeml/image/key.pub").read_text()).golden
    other = answers._replace(outputs=[dict(entry, data=entry["data"][::-1]) for entry in answers.outputs])
    with pytest.raises(EdgemlError, match="does not give the golden answer"):
        prove.image(run, "breast-cancer", other, 5000, 512)
    with pytest.raises(EdgemlError, match=r"one row takes .* image.latency_ms is 0.001"):
        prove.image(run, "breast-cancer", answers, 0.001, 512)
    with pytest.raises(EdgemlError, match=r"the server takes .* MB, image.memory_mb is 4"):
        prove.image(run, "breast-cancer", answers, 5000, 4)
    with pytest.raises(EdgemlError, match="does not get ready"):
        prove.image(run._replace(environment=run.environment | {"EDGEML_SERVE_PORT": "no"}), "m", answers, 1, 1)


@pytest.mark.parametrize(
    ("case", "cause"),
    [
        ("no-bridge", "docker has no bridge network"),
        ("no-daemon", "the docker daemon does not answer"),
        ("no-docker", "docker is not on the PATH"),
    ],
)
def test_what_serves_instead_of_docker_says_why(
    here: Path,
    packaged: Packaged,
    daemon: Daemon,
    case: str,
    cause: str,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    if case == "no-bridge":
        monkeypatch.setenv("DOCKER_HOST", daemon.environment["DOCKER_HOST"])
    elif case == "no-docker":
        (tmp_path / "bwrap").symlink_to(shutil.which("bwrap") or "")
        monkeypatch.setenv("PATH", str(tmp_path))
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    run = runtime.image(packaging.layout(), packaged.digest)
    with runtime.serving(run, "", "breast-cancer", port) as served_by:
        assert served_by == f"the image's files under bubblewrap, because {cause}"


def test_an_image_that_would_run_as_root_is_refused(here: Path, packaged: Packaged) -> None:
    images = packaging.layout()
    document = manifest(packaged.digest)
    config = json.loads(Path(images.path(document["config"]["digest"])).read_bytes())
    config["config"]["User"] = "0"
    document["config"] = oci.add(images, oci.CONFIG, oci.encode(config)).document()
    with pytest.raises(EdgemlError, match="other than root"):
        runtime.image(images, images.add_manifest(oci.encode(document)))


def test_text_models_find_their_locale(here: Path, packaged: Packaged, tmp_path: Path) -> None:
    """StringNormalizer asks for en_US.UTF-8 and throws where there is none."""
    node = onnx.helper.make_node("StringNormalizer", ["x"], ["y"], case_change_action="LOWER", is_case_sensitive=1)
    ports = [onnx.helper.make_tensor_value_info(name, onnx.TensorProto.STRING, [None]) for name in "xy"]
    graph = onnx.helper.make_graph([node], "g", ports[:1], ports[1:])
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=8)
    (tmp_path / "m.onnx").write_bytes(model.SerializeToString())
    words = ["ÄÖÜ", "ÉTÉ", "ЖИЗНЬ", "ΣΟΦΟΣ", "PLAIN"]
    code = (
        "import json,sys,numpy,onnxruntime as o\n"
        f"print(json.dumps(o.InferenceSession('/m.onnx').run(None,{{'x':numpy.array({words!r},object)}})[0].tolist()))"
    )
    run = runtime.image(packaging.layout(), packaged.digest)
    line = runtime.bubblewrap(run, [run.command[0], "-c", code], "--unshare-net", "--ro-bind", str(tmp_path), "/tmp")
    line = [word.replace("/m.onnx", "/tmp/m.onnx") for word in line]
    done = subprocess.run(line, capture_output=True, text=True, env={"PATH": os.environ["PATH"]})
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == ["äöü", "été", "жизнь", "σοφοσ", "plain"]


def test_golden_rows_are_those_of_the_contract_and_the_same_each_time(here: Path, packaged: Packaged) -> None:
    described = registry.path(registry.find(MODEL))
    signature, lineage = (json.loads(Path(described, f"{n}.json").read_text()) for n in ("signature", "lineage"))
    rows = golden.made_up(signature, lineage, "seed")
    assert rows == golden.made_up(signature, lineage, "seed")
    assert rows != golden.made_up(signature, lineage, "other")
    assert [set(row) for row in rows] == [{feature["name"] for feature in signature["features"]}] * golden.ROWS


@pytest.mark.parametrize(
    ("name", "kind", "target"),
    [("../out", tarfile.REGTYPE, ""), ("a/../../out", tarfile.REGTYPE, ""), ("link/out", tarfile.REGTYPE, "..")],
)
def test_a_layer_that_leads_outside_is_refused(name: str, kind: bytes, target: str, tmp_path: Path) -> None:
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w") as tar:
        if target:
            link = tarfile.TarInfo("link")
            link.type, link.linkname = tarfile.SYMTYPE, f"{target}/{target}"
            tar.addfile(link)
        entry = tarfile.TarInfo(name)
        entry.type, entry.size = kind, 1
        tar.addfile(entry, io.BytesIO(b"x"))
    archive.seek(0)
    (tmp_path / "in").mkdir()
    with pytest.raises(EdgemlError, match="outside of the image"):
        tree.unpack([archive], str(tmp_path / "in"))
    assert not (tmp_path / "out").exists()


def test_a_base_is_named_by_digest(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDGEML_IMAGE_BASE", "example.com/python:3.11")
    with pytest.raises(EdgemlError, match="name it by digest"):
        image.package(MODEL)


def test_the_versions_know_nothing_of_an_image_that_failed(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    version = registry.find(OTHER)
    monkeypatch.setenv("EDGEML_IMAGE_LATENCY_MS", "0.0001")
    (here / ".edgeml/image/stay-1.json").unlink(missing_ok=True)
    with pytest.raises(EdgemlError, match="one row takes"):
        image.package(OTHER)
    assert not (here / ".edgeml/image/stay-1.json").exists()
    assert dataclasses.asdict(registry.find(OTHER))["tags"] == version.tags
