"""From a registered model to a published image: built, tested, described, signed, pushed and verified."""

from __future__ import annotations

import json
import os
import re
import tempfile
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

from edgeml.errors import EdgemlError
from edgeml.image import (
    assemble,
    builders,
    golden,
    oci,
    parts,
    prove,
    provenance,
    recipe,
    runtime,
    sbom,
    scan,
    signature,
    verification,
    wheels,
)
from edgeml.image import base as base_image
from edgeml.image.layout import Layout
from edgeml.image.remote import Remote

if TYPE_CHECKING:
    from edgeml.image.base import Base
    from edgeml.image.recipe import Recipe
    from edgeml.settings import Image

DIGEST_TAG, REFERENCE_TAG = "image.digest", "image.reference"


class Packaged(NamedTuple):
    """An image of a model; `created` and `pushed` say what was done just now and what had been before."""

    model: str
    digest: str
    reference: str
    created: bool
    pushed: bool
    record: dict[str, Any]


def layout() -> Layout:
    """The layout of all images of this project."""
    return Layout(os.path.join(parts.folder(), "layout"), verification.LOCAL)


def package(
    model: str,
    *,
    builder: str = "",
    registry: str = "",
    push: bool | None = None,
    renew_base: bool = False,
    say: Callable[[str], None] = lambda line: None,
) -> Packaged:
    """The image of a registered model, published where a registry is named and `push` is not false.

    `say` hears one line for what takes time. Raises EdgemlError where something is missing, a test fails, or what was
    pushed cannot be verified; then nothing is recorded.
    """
    from edgeml import registry as models
    from edgeml import settings as all_settings

    settings = all_settings.load().image
    version = models.find(model)
    remote = _remote(version.name, registry or settings.registry, settings, push)
    chosen = builder or assemble.NAME
    if renew_base:
        say(f"{base_image.LOCK} names the {len(base_image.renew())} packages of today")
    images = layout()
    base = base_image.of(settings.base, images, say)
    wanted = recipe.with_base(recipe.of(version), base)
    inputs = recipe.fingerprint(wanted, base, chosen)
    record, signing = _read(wanted), signature.key(settings.key)
    created = not (record.get("inputs") == inputs and _whole(images, record.get("digest")))
    if created:
        record = _build(wanted, base, chosen, inputs, images, settings, say)
    digest = str(record["digest"])
    reference, pushed = f"oci:{os.path.relpath(images.folder)}@{digest}", False
    public = signature.public(signing)
    if remote is not None:
        pushed = _publish(wanted, images, remote, digest, settings, say)
        reference = verification.image(remote, digest, public).reference
    else:
        signature.sign(images, digest, signing)
        verification.image(images, digest, public)
    record |= {"reference": reference, "key": signature.key_id(signing.public_key())}
    _write(wanted, record)
    models.set_tags(version, {DIGEST_TAG: digest, REFERENCE_TAG: reference if remote else ""})
    return Packaged(str(version), digest, reference, created, pushed, record)


def _build(
    wanted: Recipe, base: Base, chosen: str, inputs: str, images: Layout, settings: Image, say: Callable[[str], None]
) -> dict[str, Any]:
    """Build, test and describe an image; returns its record."""
    began = time.time()
    maker = builders.chosen(chosen)
    papers = wanted.documents
    answers = golden.record(wanted.model, papers["signature.json"], papers["lineage.json"], wanted.sha256)
    say(f"building the image of {wanted} ({chosen})")
    with tempfile.TemporaryDirectory(dir=parts.folder(), prefix="context-") as folder:
        digest = maker.build(recipe.context(wanted, folder, say), base, wanted, images)
    run = runtime.image(images, digest)
    say(f"testing it in {runtime.kind() or 'nothing'}: golden answer, read-only, no network")
    proof = prove.image(run, wanted.name, answers, settings.latency_ms, settings.memory_mb)
    scanned = scan.image(images, digest)
    say("no vulnerability scanner is installed (trivy, grype): not scanned" if scanned == scan.NONE
        else f"{scanned} finds nothing critical")  # fmt: skip
    locked = wheels.listed(wheels.folder(say))
    documents = {
        verification.SBOM_NAME: sbom.document(wanted, digest, base.packages, locked),
        verification.GOLDEN_NAME: oci.encode(answers.document()),
    }
    statement = provenance.statement(wanted, digest, base, locked, chosen, began, documents)
    _attach(images, digest, documents, signature.envelope(statement, signature.key(settings.key)))
    images.add_manifest(images.manifest(digest) or b"", f"{_path(wanted.name)}-{wanted.version}")
    layers = oci.descriptors(oci.parse(images.manifest(digest) or b"", digest))[1:]
    return {
        "version": 1,
        "model": str(wanted),
        "model_sha256": wanted.sha256,
        "digest": digest,
        "inputs": inputs,
        "builder": chosen,
        "base": base.reference,
        "layers": [{"digest": entry.digest, "bytes": entry.size} for entry in layers],
        "proof": proof._asdict(),
        "scan": scanned,
        "sbom": oci.digest_of(documents[verification.SBOM_NAME]),
        "provenance": oci.digest_of(statement),
    }


def _attach(images: Layout, digest: str, documents: dict[str, bytes], envelope: bytes) -> None:
    data = images.manifest(digest) or b""
    subject = oci.Descriptor(oci.MANIFEST, digest, len(data))
    for name, kind, document in (
        (verification.SBOM_NAME, sbom.MEDIA_TYPE, documents[verification.SBOM_NAME]),
        (verification.GOLDEN_NAME, verification.GOLDEN, documents[verification.GOLDEN_NAME]),
        ("provenance.json", signature.ENVELOPE, envelope),
    ):
        oci.attach(images, subject, kind, kind, document, {"org.opencontainers.image.title": name})


def _publish(
    wanted: Recipe, images: Layout, remote: Remote, digest: str, settings: Image, say: Callable[[str], None]
) -> bool:
    """Push what the registry lacks: image, documents, signature. Whether it lacked anything."""
    signing = signature.key(settings.key)
    try:
        verification.image(remote, digest, signature.public(signing))
        return False
    except EdgemlError:
        pass  # it is not there, not whole or not signed: what follows mends that, or says why it cannot
    say(f"pushing to {remote.name}")
    # A tag that is the digest's own: it never moves, and no registry clears the image away as untagged.
    sent = oci.copy(images, remote, digest, f"{wanted.version}-{digest[7:19]}")
    for kind in (sbom.MEDIA_TYPE, verification.GOLDEN, signature.ENVELOPE):
        for referrer in images.referrers(digest, kind):
            oci.copy(images, remote, referrer)
    signature.sign(remote, digest, signing)
    say(f"{sent} blobs sent, the others were there")
    return True


def _remote(name: str, host: str, settings: Image, push: bool | None) -> Remote | None:
    """The repository to push to; None where none is named or it is not to be pushed."""
    if push is False or (not host and push is None):
        return None
    if not host:
        raise EdgemlError("--push needs a registry; give --registry HOST or image.registry in edgeml.toml")
    return Remote(host, settings.repository or f"edgeml/{_path(name)}")


def _path(name: str) -> str:
    """A model's name as a part of a repository's path, which is of small letters."""
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-") or "model"


def _whole(images: Layout, digest: Any) -> bool:
    return oci.is_digest(digest) and oci.complete(images, digest) and bool(images.referrers(digest, signature.ENVELOPE))


def _file(wanted: Recipe) -> str:
    return os.path.join(parts.folder(), f"{wanted.name}-{wanted.version}.json")


def _read(wanted: Recipe) -> dict[str, Any]:
    """The record of an earlier time; one that cannot be read is as good as none."""
    try:
        with open(_file(wanted), encoding="utf-8") as stream:
            found = json.load(stream)
        return found if isinstance(found, dict) else {}
    except (OSError, ValueError):
        return {}


def _write(wanted: Recipe, record: dict[str, Any]) -> None:
    from edgeml.engine.files import write_atomically

    text = json.dumps(record, indent=2, sort_keys=True) + "\n"
    if _read(wanted) != record:
        write_atomically(_file(wanted), text)
