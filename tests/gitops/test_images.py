"""What the gate and a promotion ask of an image, over a real registry: there, untouched, signed by a key that this
repository trusts, and of the record's model.

The images are small, and are signed and described as `edgeml package` does it.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, EllipticCurvePrivateKey, generate_private_key

from edgeml.gitops import images, remote
from edgeml.gitops.gate import decide
from edgeml.image import oci, provenance, sbom, signature, verification
from edgeml.image.golden import Golden
from edgeml.image.remote import Remote
from tests.gitops.conftest import Story, record_text
from tests.images import Running

PATH = "scoring"


@dataclass
class Shop:
    """A registry, the key that the project trusts, and one that it does not."""

    registry: Running
    key: EllipticCurvePrivateKey
    stranger: EllipticCurvePrivateKey

    def push(self, labels: dict[str, str], signing: EllipticCurvePrivateKey) -> str:
        """An image with labels; NAME@sha256:…"""
        where = Remote(self.registry.host, PATH)
        settings = {"architecture": "amd64", "os": "linux", "rootfs": {"type": "layers", "diff_ids": []}}
        config = oci.add(where, oci.CONFIG, oci.encode({**settings, "config": {"Labels": labels}}))
        layer = oci.add(where, oci.LAYER, b"a layer")
        kind = {"schemaVersion": 2, "mediaType": oci.MANIFEST}
        data = oci.encode({**kind, "config": config.document(), "layers": [layer.document()]})
        digest = where.add_manifest(data)
        subject = oci.Descriptor(oci.MANIFEST, digest, len(data))
        papers = {
            verification.SBOM_NAME: (sbom.MEDIA_TYPE, b"{}"),
            verification.GOLDEN_NAME: (verification.GOLDEN, oci.encode(Golden([], [], []).document())),
        }
        named = [{"name": name, "digest": {"sha256": oci.digest_of(data)[7:]}} for name, (_, data) in papers.items()]
        statement = {
            "subject": [{"name": PATH, "digest": {"sha256": digest[7:]}}],
            "predicateType": provenance.KIND,
            "predicate": {"runDetails": {"byproducts": named}},
        }
        papers["provenance"] = (signature.ENVELOPE, signature.envelope(oci.encode(statement), signing))
        for media_type, document in papers.values():
            oci.attach(where, subject, media_type, media_type, document, {})
        signature.sign(where, digest, signing)
        return f"{where.name}@{digest}"

    @property
    def manifests(self) -> Path:
        return self.registry.folder / f"docker/registry/v2/repositories/{PATH}/_manifests"


@pytest.fixture(scope="module")
def shop(start_registry: Callable[[Path], Running], tmp_path_factory: pytest.TempPathFactory) -> Shop:
    registry = start_registry(tmp_path_factory.mktemp("shop"))
    return Shop(registry, *(generate_private_key(SECP256R1()) for _ in range(2)))


@pytest.fixture
def here(story: Story, shop: Shop) -> Iterator[Story]:
    """The story, in a project that trusts the shop's key."""
    trusted = Path("deployments/trusted")
    trusted.mkdir(parents=True)
    (trusted / "key.pub").write_text(signature.public(shop.key))
    yield story


def released(story: Story, image: str, model: int) -> dict[str, str]:
    """The gate's reasons against a release that everybody agreed on, whose record names this image."""
    before = story.record("staging", model).image
    text = record_text("staging", model).replace(before, image)
    story.hub.push("ada", {"deployments/staging.yml": text}, "change")
    pull = story.hub.open("ada", "change")
    story.hub.check(pull)
    story.hub.review("ben", pull)
    story.hub.merge(pull)
    story.hub.tag("v1.0.0")
    decision = decide("staging", "v1.0.0", images=images.Registry())
    return {refusal.reason: refusal.cause for refusal in decision.refusals}


def labels(model: int) -> dict[str, str]:
    text = record_text("staging", model)
    return images.labels(remote.read({"deployments/staging.yml": text}, "staging"))


def _gone(shop: Shop, digest: str) -> None:
    shutil.rmtree(shop.manifests / "revisions/sha256" / digest[7:])


def _swapped(shop: Shop, digest: str) -> None:
    other = shop.push(labels(9), shop.key).partition("@")[2]
    shutil.copyfile(shop.registry.blob(other), shop.registry.blob(digest))


def _config_swapped(shop: Shop, digest: str) -> None:
    manifest = oci.parse(shop.registry.blob(digest).read_bytes(), digest)
    config = shop.registry.blob(manifest["config"]["digest"])
    config.write_bytes(config.read_bytes().replace(b'"edgeml.model.version":"12"', b'"edgeml.model.version":"13"'))


def _unsigned(shop: Shop, digest: str) -> None:
    shutil.rmtree(shop.manifests / "tags" / signature.tag(digest))


def _signature_of_another_image(shop: Shop, digest: str) -> None:
    other = shop.push(labels(9), shop.key).partition("@")[2]
    tags = shop.manifests / "tags"
    shutil.rmtree(tags / signature.tag(digest))
    shutil.copytree(tags / signature.tag(other), tags / signature.tag(digest))


@pytest.mark.parametrize(
    ("model", "happened", "reason", "cause"),
    [
        (10, _gone, "image-missing", "the registry has no 127.0.0.1"),
        (11, _swapped, "no-answer", "sha256:"),
        (12, _config_swapped, "no-answer", "other bytes under sha256:"),
        (13, _unsigned, "image-unsigned", "no signature of"),
        (14, _signature_of_another_image, "image-unsigned", "no signature of"),
    ],
)
def test_an_image_that_was_touched_is_refused(
    here: Story, shop: Shop, model: int, happened: Callable[[Shop, str], None], reason: str, cause: str
) -> None:
    image = shop.push(labels(model), shop.key)
    assert released(here, image, model) == {}, "what is packaged as it should be is let through"
    happened(shop, image.partition("@")[2])
    refusals = decide("staging", "v1.0.0", images=images.Registry()).refusals
    assert [refusal.reason for refusal in refusals] == [reason] and cause in refusals[0].cause, refusals


def test_a_signature_of_another_key_does_not_count(here: Story, shop: Shop) -> None:
    image = shop.push(labels(3), shop.stranger)
    assert set(released(here, image, 3)) == {"image-unsigned"}
    Path("deployments/trusted/stranger.pub").write_text(signature.public(shop.stranger))
    assert decide("staging", "v1.0.0", images=images.Registry()).refusals == [], "this repository decides who counts"


def test_without_a_trusted_key_nothing_is_signed(here: Story, shop: Shop) -> None:
    Path("deployments/trusted/key.pub").unlink()
    refusals = released(here, shop.push(labels(3), shop.key), 3)
    assert set(refusals) == {"image-unsigned"} and "holds no key" in refusals["image-unsigned"]


@pytest.mark.parametrize("case", ["other-data", "another-model", "none"])
def test_labels_that_differ_from_the_record_are_refused(here: Story, shop: Shop, case: str) -> None:
    found = {"none": {}, "another-model": labels(4), "other-data": labels(3) | labels_of_data("0")}[case]
    refusals = released(here, shop.push(found, shop.key), 3)
    assert set(refusals) == {"image-labels"}


def labels_of_data(digit: str) -> dict[str, str]:
    return {"edgeml.data.fingerprint": f"sha256:{digit * 64}"}


def test_a_registry_that_does_not_answer_is_a_no(here: Story) -> None:
    refusals = released(here, f"127.0.0.1:9/{PATH}@sha256:{'3' * 64}", 3)
    assert set(refusals) == {"no-answer"} and "does not answer" in refusals["no-answer"]
