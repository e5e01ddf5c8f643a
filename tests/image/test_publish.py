"""Images in a registry: pushed once, pulled by digest, signed in cosign's form; what was spoilt is refused."""

from __future__ import annotations

import base64
import json
import os
import shutil
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.request import Request, urlopen

import pytest

from edgeml import image, registry
from edgeml.errors import EdgemlError
from edgeml.image import golden, oci, packaging, provenance, signature
from edgeml.image.packaging import Packaged
from edgeml.image.remote import Remote
from tests.engine.daemon import Daemon
from tests.images import MODEL, Running

PATH = "edgeml/breast-cancer"


def public_key() -> str:
    return Path(".edgeml/image/key.pub").read_text()


def pushed(reference: str, name: str) -> bytes:
    host, _, path = reference.partition("@")[0].partition("/")
    asked = Request(f"http://{host}/v2/{path}/{name}", headers={"Accept": f"{oci.MANIFEST}, {oci.INDEX}"})
    with urlopen(asked, timeout=10) as answer:
        return bytes(answer.read())


@pytest.fixture
def spoilt(here: Path, packaged: Packaged, published: Packaged, hub: Running, tmp_path: Path,
           start_registry: Callable[[Path], Running]) -> tuple[Running, str]:  # fmt: skip
    """A registry with a copy of what was published, to be spoilt, and the reference there."""
    shutil.copytree(hub.folder, tmp_path / "copy")
    copy = start_registry(tmp_path / "copy")
    reference = f"{copy.host}/{PATH}@{packaged.digest}"
    # Signed for its own name: the copy's signature would not count, which a test of its own shows.
    signature.sign(Remote(copy.host, PATH), packaged.digest, signature.key(""))
    assert image.verify(reference, public_key()).digest == packaged.digest
    return copy, reference


def test_what_was_pushed_is_verified_and_recorded(here: Path, published: Packaged, hub: Running) -> None:
    assert published.reference == f"{hub.host}/{PATH}@{published.digest}"
    assert published.pushed
    image.package(MODEL, registry=hub.host)  # the record is of the last call, which may have been without a registry
    tags = registry.find(MODEL).tags
    assert (tags["image.digest"], tags["image.reference"]) == (published.digest, published.reference)
    assert json.loads((here / ".edgeml/image/breast-cancer-1.json").read_text())["reference"] == published.reference
    verified = image.verify(published.reference, public_key())
    components = {entry["name"]: entry for entry in json.loads(verified.sbom)["components"]}
    assert {"libc6", "onnxruntime", "numpy", "breast-cancer"} <= set(components)
    assert components["onnxruntime"]["purl"] == "pkg:pypi/onnxruntime@1.30.0"
    used = verified.provenance["predicate"]["buildDefinition"]["resolvedDependencies"]
    assert registry.find(MODEL).sha256 in [entry["digest"].get("sha256") for entry in used]


def test_a_second_push_sends_nothing(here: Path, published: Packaged, hub: Running) -> None:
    before = {path: path.stat().st_mtime_ns for path in hub.folder.rglob("*")}
    again = image.package(MODEL, registry=hub.host)
    assert (again.created, again.pushed, again.reference) == (False, False, published.reference)
    assert {path: path.stat().st_mtime_ns for path in hub.folder.rglob("*")} == before


def test_docker_pulls_it_by_digest_and_scores_without_network_as_nobody(
    here: Path, published: Packaged, daemon: Daemon
) -> None:
    daemon.docker("pull", "--quiet", published.reference)
    options = ["--network", "none", "--read-only", "--cap-drop", "ALL", "--security-opt", "no-new-privileges"]
    name = daemon.docker("run", "--detach", *options, published.reference)
    try:
        answers = image.verify(published.reference, public_key()).golden
        code = (
            "import json,os,sys,time,urllib.request as u\n"
            "while True:\n"
            " try: u.urlopen('http://127.0.0.1:8080/v2/health/ready'); break\n"
            " except OSError: time.sleep(0.05)\n"
            "body=sys.stdin.buffer.read()\n"
            "made=u.Request('http://127.0.0.1:8080/v2/models/breast-cancer/infer',body,{'Content-Type':'application/json'})\n"
            "print(json.dumps([os.getuid(),json.load(u.urlopen(made))]))"
        )
        asked = json.dumps({"inputs": answers.inputs}).encode()
        told = daemon.docker("exec", "--interactive", name, "/usr/bin/python3", "-c", code, stdin=asked)
        uid, answer = json.loads(told)
        assert uid == 10001
        assert golden.equal(answer["outputs"], answers)
        assert not golden.equal([dict(entry, data=[0] * len(entry["data"])) for entry in answer["outputs"]], answers)
    finally:
        daemon.docker("rm", "--force", name)


def test_the_signature_is_cosigns_form_and_openssl_verifies_it(here: Path, published: Packaged, tmp_path: Path) -> None:
    tag = f"sha256-{published.digest[7:]}.sig"
    layer = json.loads(pushed(published.reference, f"manifests/{tag}"))["layers"][0]
    assert layer["mediaType"] == "application/vnd.dev.cosign.simplesigning.v1+json"
    payload = pushed(published.reference, f"blobs/{layer['digest']}")
    (tmp_path / "payload").write_bytes(payload)
    (tmp_path / "sig").write_bytes(base64.b64decode(layer["annotations"]["dev.cosignproject.cosign/signature"]))
    line = ["openssl", "dgst", "-sha256", "-verify", ".edgeml/image/key.pub", "-signature", str(tmp_path / "sig")]
    assert subprocess.run([*line, str(tmp_path / "payload")], capture_output=True).returncode == 0
    assert json.loads(payload) == {
        "critical": {
            "identity": {"docker-reference": published.reference.partition("@")[0]},
            "image": {"docker-manifest-digest": published.digest},
            "type": "cosign container image signature",
        },
        "optional": None,
    }


def test_the_documents_are_referrers(here: Path, published: Packaged) -> None:
    index = json.loads(pushed(published.reference, f"manifests/sha256-{published.digest[7:]}"))
    kinds = [entry["artifactType"] for entry in index["manifests"]]
    assert sorted(kinds) == [
        "application/vnd.cyclonedx+json",
        "application/vnd.dsse.envelope.v1+json",
        "application/vnd.edgeml.golden.v1+json",
    ]


def test_another_key_does_not_count(here: Path, published: Packaged, tmp_path: Path) -> None:
    other = signature.public(_key(tmp_path / "key.pem"))
    with pytest.raises(EdgemlError, match=r"no signature of .* is by the key that is trusted here"):
        image.verify(published.reference, other)
    with pytest.raises(EdgemlError, match="no public key of ECDSA P-256"):
        image.verify(published.reference, "-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n")


def test_two_keys_can_sign_the_same_image(spoilt: tuple[Running, str], packaged: Packaged, tmp_path: Path) -> None:
    copy, _ = spoilt
    other, where = _key(tmp_path / "key.pem"), Remote(copy.host, PATH)
    signature.sign(where, packaged.digest, other)
    assert signature.signed_by(where, packaged.digest, other.public_key())
    assert signature.signed_by(where, packaged.digest, signature.trusted(public_key()))


@pytest.mark.parametrize("part", ["manifest", "config", "signature", "sbom"])
def test_changed_bytes_are_refused(spoilt: tuple[Running, str], packaged: Packaged, part: str) -> None:
    copy, reference = spoilt
    tag = f"sha256-{packaged.digest[7:]}.sig"
    digest = {
        "manifest": lambda: packaged.digest,
        "config": lambda: json.loads(pushed(reference, f"manifests/{packaged.digest}"))["config"]["digest"],
        "signature": lambda: json.loads(pushed(reference, f"manifests/{tag}"))["layers"][-1]["digest"],
        "sbom": lambda: packaged.record["sbom"],
    }[part]()
    blob = copy.blob(digest)
    data = bytearray(blob.read_bytes())
    data[len(data) // 2] ^= 1
    blob.write_bytes(data)
    with pytest.raises(EdgemlError):
        image.verify(reference, public_key())


def test_a_missing_layer_and_a_missing_sbom_are_refused(spoilt: tuple[Running, str], packaged: Packaged) -> None:
    copy, reference = spoilt
    layer = json.loads(pushed(reference, f"manifests/{packaged.digest}"))["layers"][-1]["digest"]
    link = copy.folder / f"docker/registry/v2/repositories/{PATH}/_layers/sha256/{layer[7:]}/link"
    kept = link.read_text()
    link.unlink()
    with pytest.raises(EdgemlError, match=f"lacks {layer}"):
        image.verify(reference, public_key())
    link.write_text(kept)
    where = Remote(copy.host, PATH)
    where.add_manifest(oci.encode({"schemaVersion": 2, "mediaType": oci.INDEX, "manifests": []}),
                       f"sha256-{packaged.digest[7:]}")  # fmt: skip
    with pytest.raises(EdgemlError, match="has no provenance that the trusted key signed"):
        image.verify(reference, public_key())


def test_a_signature_for_another_repository_does_not_count(
    here: Path, packaged: Packaged, published: Packaged, hub: Running
) -> None:
    """What was signed for one place is not by that approved for another."""
    other = Remote(hub.host, "elsewhere/model")
    oci.copy(packaging.layout(), other, packaged.digest)
    oci.copy(Remote(hub.host, PATH), other, oci.digest_of(_signatures(hub, packaged)), signature.tag(packaged.digest))
    with pytest.raises(EdgemlError, match="no signature of"):
        image.verify(f"{other.name}@{packaged.digest}", public_key())


def test_provenance_of_another_image_does_not_count(packaged: Packaged) -> None:
    made = {"predicateType": provenance.KIND, "subject": [{"digest": {"sha256": "0" * 64}}]}
    assert not provenance.answers_for(made, packaged.digest)


@pytest.mark.parametrize("reference", ["host/path:1", "host/path", "host/path@sha256:12", "host/path@md5:00"])
def test_only_digests_are_verified(here: Path, reference: str) -> None:
    with pytest.raises(EdgemlError, match="no image by digest"):
        image.verify(reference, "")


def test_a_registry_that_is_down_is_one_sentence(here: Path, packaged: Packaged) -> None:
    with pytest.raises(EdgemlError, match=r"the registry 127.0.0.1:1 does not answer \(connection refused\); .*again"):
        image.package(MODEL, registry="127.0.0.1:1")
    with pytest.raises(EdgemlError, match="--push needs a registry"):
        image.package(MODEL, push=True)


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting a small file system needs root")
def test_a_registry_with_a_full_disk_is_one_sentence(
    here: Path, packaged: Packaged, tmp_path: Path, start_registry: Callable[[Path], Running]
) -> None:
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", str(tmp_path)], check=True)
    try:
        with pytest.raises(EdgemlError, match=r"the registry .* (failed with|answered|does not answer)"):
            image.package(MODEL, registry=start_registry(tmp_path).host)
    finally:
        subprocess.run(["umount", "-l", str(tmp_path)], check=True)
    assert registry.find(MODEL).tags.get("image.reference", "").find(str(tmp_path)) == -1


@contextmanager
def guarded(grant: Callable[[dict[str, str], bytes], bool]) -> Iterator[tuple[str, list[str]]]:
    """A registry that asks for a token, as Azure's does, and holds one manifest; gives its host and what was asked."""
    asked: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def answer(self, code: int, body: bytes, **headers: str) -> None:
            self.send_response(code)
            for name, value in headers.items():
                self.send_header(name.replace("_", "-"), value)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def do_GET(self) -> None:
            asked.append(self.path)
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            if self.path.startswith("/oauth2/token"):
                known = grant(dict(self.headers), body)
                return self.answer(200 if known else 401, b'{"access_token": "granted"}' if known else b"{}")
            if self.headers.get("Authorization") != "Bearer granted":
                realm = f'Bearer realm="http://{self.headers["Host"]}/oauth2/token",service="s"'
                return self.answer(401, b'{"errors": [{"code": "UNAUTHORIZED"}]}', WWW_Authenticate=realm)
            return self.answer(200, b"{}")

        do_POST = do_GET  # noqa: N815

        def log_message(self, *unused: object) -> None: ...

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
    try:
        yield f"127.0.0.1:{server.server_address[1]}", asked
    finally:
        server.shutdown()
        server.server_close()


def basic(headers: dict[str, str]) -> str:
    return base64.b64decode((headers.get("Authorization", "Basic ").split()[1:] and headers["Authorization"].split()[1])
                            or b"").decode()  # fmt: skip


def test_a_token_is_asked_for_with_the_credential_of_the_environment_or_of_docker(
    here: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path))
    with guarded(lambda headers, _: basic(headers) == "robot:secret") as (host, asked):
        with pytest.raises(EdgemlError, match=f"{host} does not let you read some/image.*docker login {host}"):
            Remote(host, "some/image").manifest("1")
        auth = base64.b64encode(b"robot:secret").decode()
        (tmp_path / "config.json").write_text(json.dumps({"auths": {host: {"auth": auth}}}))
        assert Remote(host, "some/image").manifest("1") == b"{}"
        (tmp_path / "config.json").unlink()
        monkeypatch.setenv("EDGEML_IMAGE_USERNAME", "robot")
        monkeypatch.setenv("EDGEML_IMAGE_PASSWORD", "secret")
        assert Remote(host, "some/image").manifest("1") == b"{}"
        monkeypatch.setenv("EDGEML_IMAGE_PASSWORD", "wrong-secret")
        with pytest.raises(EdgemlError) as caught:
            Remote(host, "some/image").manifest("1")
        assert "wrong-secret" not in str(caught.value)
        assert not any("secret" in path for path in asked)


def test_an_identity_token_is_exchanged_and_helpers_are_asked(
    here: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path))
    helper = tmp_path / "docker-credential-test"
    helper.write_text('#!/bin/sh\nread host\necho "{\\"Username\\":\\"<token>\\",\\"Secret\\":\\"refresh-me\\"}"\n')
    helper.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    with guarded(lambda _, body: b"refresh_token=refresh-me" in body) as (host, _):
        (tmp_path / "config.json").write_text(json.dumps({"credHelpers": {host: "test"}}))
        assert Remote(host, "some/image").manifest("1") == b"{}"


def test_a_key_that_others_can_read_is_refused(here: Path, packaged: Packaged, tmp_path: Path,
                                               monkeypatch: pytest.MonkeyPatch) -> None:  # fmt: skip
    _key(tmp_path / "key.pem")
    (tmp_path / "key.pem").chmod(0o644)
    monkeypatch.setenv("EDGEML_IMAGE_KEY", str(tmp_path / "key.pem"))
    with pytest.raises(EdgemlError, match="can be read by others"):
        image.package(MODEL)


def test_an_interrupted_push_goes_on(here: Path, packaged: Packaged, tmp_path: Path,
                                     start_registry: Callable[[Path], Running]) -> None:  # fmt: skip
    (tmp_path / "files").mkdir()
    fresh = start_registry(tmp_path / "files")
    layer = oci.descriptors(oci.parse(packaging.layout().manifest(packaged.digest) or b"", ""))[-1]
    with packaging.layout().open(layer.digest) as stream:
        Remote(fresh.host, PATH).add(stream, layer.digest, layer.size)
    began = time.time_ns()
    done = image.package(MODEL, registry=fresh.host)
    assert done.pushed
    assert fresh.blob(layer.digest).stat().st_mtime_ns < began


def _key(path: Path) -> signature.EllipticCurvePrivateKey:  # type: ignore[name-defined]
    signature._make(str(path))
    return signature.key(str(path))


def _signatures(hub: Running, packaged: Packaged) -> bytes:
    return Remote(hub.host, PATH).manifest(signature.tag(packaged.digest)) or b""
