"""Is this the image that was packaged: by digest, with a signature that counts, and what that signature answers for."""

from __future__ import annotations

import os
import re
from typing import Any, NamedTuple

from edgeml.errors import EdgemlError
from edgeml.image import golden as golden_request
from edgeml.image import oci, provenance, sbom, signature
from edgeml.image.golden import Golden
from edgeml.image.layout import Layout
from edgeml.image.oci import Store
from edgeml.image.remote import Remote

GOLDEN = "application/vnd.edgeml.golden.v1+json"
SBOM_NAME, GOLDEN_NAME = "sbom.cdx.json", "golden.json"
_REFERENCE = re.compile(r"(?P<name>[^@]+)@(?P<digest>sha256:[0-9a-f]{64})")
LOCAL = "edgeml/local"  # how signatures name a layout folder: it has no host, and may be carried elsewhere
_LAYOUT = "oci:"


class Verified(NamedTuple):
    """An image that a trusted key signed, with everything that this key answers for."""

    reference: str
    digest: str
    labels: dict[str, str]
    provenance: dict[str, Any]
    sbom: bytes
    golden: Golden


def verify(reference: str, public_key: str) -> Verified:
    """Verify `HOST/PATH@sha256:…`, or `oci:FOLDER@sha256:…` for a layout, against a public key in PEM.

    Raises EdgemlError, exit code 1, unless the digest resolves there with all its blobs, the key signed it for this
    repository, and signed provenance names every document that is attached.
    """
    match = _REFERENCE.fullmatch(reference)
    if match is None:
        raise EdgemlError(f"'{reference}' is no image by digest; write HOST/PATH@sha256:…, or oci:FOLDER@sha256:…")
    return image(store(match["name"]), match["digest"], public_key)


def store(name: str) -> Store:
    """The repository that a name without a digest means."""
    if name.startswith(_LAYOUT):
        return Layout(os.path.abspath(name.removeprefix(_LAYOUT)), LOCAL)
    host, _, path = name.partition("/")
    return Remote(host, path)


def image(where: Store, digest: str, public_key: str) -> Verified:
    """The same for an image of a store."""
    wanted = signature.trusted(public_key)
    data = where.manifest(digest)
    if data is None:
        raise EdgemlError(f"{where.name} has no image {digest}; push it there first", 1)
    config, *layers = oci.descriptors(oci.parse(data, digest))
    if missing := [entry.digest for entry in (config, *layers) if not where.has(entry.digest)]:
        raise EdgemlError(f"{where.name} lacks {missing[0]} of the image {digest}; push it again", 1)
    if not signature.signed_by(where, digest, wanted):
        raise EdgemlError(
            f"no signature of {where.name}@{digest} is by the key that is trusted here; it must not be used", 1
        )
    statement = _provenance(where, digest, wanted)
    documents = {}
    for name, kind in ((SBOM_NAME, sbom.MEDIA_TYPE), (GOLDEN_NAME, GOLDEN)):
        signed = provenance.byproducts(statement).get(name)
        found = [data for data in oci.attached(where, digest, kind) if oci.digest_of(data) == signed]
        if not found:
            raise EdgemlError(f"the {name} of {where.name}@{digest} is missing or was changed; push it again", 1)
        documents[name] = found[0]
    settings = oci.parse(oci.read(where, config), "the config").get("config") or {}
    labels = {str(key): str(value) for key, value in (settings.get("Labels") or {}).items()}
    golden = golden_request.of(documents[GOLDEN_NAME])
    return Verified(f"{where.name}@{digest}", digest, labels, statement, documents[SBOM_NAME], golden)


def _provenance(where: Store, digest: str, wanted: Any) -> dict[str, Any]:
    for data in oci.attached(where, digest, signature.ENVELOPE):
        statement = signature.opened(data, wanted)
        if statement is not None and provenance.answers_for(statement, digest):
            return statement
    raise EdgemlError(f"{where.name}@{digest} has no provenance that the trusted key signed; package it again", 1)
