"""What OCI images are made of, and the two places where they lie: a layout folder and a registry.

Everything is named by the SHA-256 of its bytes and compared with it whenever it is read, so a place need not be
trusted. The forms are those of the OCI image specification 1.1; nothing here knows what is in an image.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator, Mapping
from typing import IO, Any, NamedTuple, Protocol

from edgeml.errors import EdgemlError

MANIFEST = "application/vnd.oci.image.manifest.v1+json"
INDEX = "application/vnd.oci.image.index.v1+json"
CONFIG = "application/vnd.oci.image.config.v1+json"
LAYER = "application/vnd.oci.image.layer.v1.tar+gzip"
EMPTY = "application/vnd.oci.empty.v1+json"
DOCKER_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
DOCKER_INDEX = "application/vnd.docker.distribution.manifest.list.v2+json"

DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
TAG = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,127}")
LARGEST_DOCUMENT = 4 << 20  # bytes of a manifest or config, the limit that registries set, too
LARGEST_BLOB = 8 << 30


class Descriptor(NamedTuple):
    """One blob as a manifest names it."""

    media_type: str
    digest: str
    size: int
    annotations: Mapping[str, str] = {}

    def document(self) -> dict[str, Any]:
        made: dict[str, Any] = {"mediaType": self.media_type, "digest": self.digest, "size": self.size}
        return made | ({"annotations": dict(self.annotations)} if self.annotations else {})


class Store(Protocol):
    """A place for the blobs and manifests of one repository."""

    name: str
    """How the repository is called, as signatures name it: `host/path`."""

    def has(self, digest: str) -> bool: ...

    def open(self, digest: str) -> IO[bytes]:
        """A blob's bytes, not yet compared with its digest."""

    def add(self, source: IO[bytes], digest: str, size: int) -> None:
        """Keep a blob, unless it is there. Raises EdgemlError where the bytes are not those of the digest."""

    def manifest(self, reference: str) -> bytes | None:
        """The manifest that a tag or digest names, compared with its digest; None where there is none."""

    def add_manifest(self, data: bytes, tag: str = "") -> str:
        """Keep a manifest whose blobs are there, under a tag if one is given; returns its digest."""

    def referrers(self, digest: str, artifact_type: str) -> list[str]:
        """The digests of the manifests that are attached to another one, of one type, oldest first."""


def digest_of(data: bytes) -> str:
    return "sha256:" + hashlib.sha256(data).hexdigest()


def encode(document: Any) -> bytes:
    """The one form in which we write JSON: the same content gives the same bytes."""
    return json.dumps(document, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()


def parse(data: bytes, what: str) -> dict[str, Any]:
    """A JSON object. Raises EdgemlError, exit code 1, saying what is none."""
    try:
        document = json.loads(data)
    except (ValueError, RecursionError):
        document = None
    if not isinstance(document, dict):
        raise EdgemlError(f"{what} is no JSON object; build and push the image again", 1)
    return document


def descriptors(manifest: Mapping[str, Any]) -> list[Descriptor]:
    """The config and the layers that a manifest names. Raises EdgemlError for one that is malformed."""
    return [descriptor(entry) for entry in [manifest.get("config"), *_list(manifest.get("layers"))]]


def descriptor(entry: Any) -> Descriptor:
    """One entry of a manifest, checked: what is named by a digest may become a path."""
    if isinstance(entry, dict):
        kind, digest, size = entry.get("mediaType"), entry.get("digest"), entry.get("size")
        notes = entry.get("annotations") or {}
        if (
            isinstance(kind, str)
            and isinstance(digest, str)
            and is_digest(digest)
            and type(size) is int
            and isinstance(notes, dict)
        ):
            if not 0 <= size <= LARGEST_BLOB:
                raise EdgemlError(f"the blob {digest} of {size} bytes is larger than any image of ours", 1)
            return Descriptor(kind, digest, size, {str(key): str(value) for key, value in notes.items()})
    raise EdgemlError("a manifest names a blob without media type, digest or size; build and push the image again", 1)


def is_digest(text: Any) -> bool:
    return isinstance(text, str) and DIGEST.fullmatch(text) is not None


def read(store: Store, wanted: Descriptor, limit: int = LARGEST_DOCUMENT) -> bytes:
    """A small blob, compared with its digest. Raises EdgemlError, exit code 1, where it is another."""
    with store.open(wanted.digest) as stream:
        data = stream.read(limit + 1)
    if len(data) != wanted.size or digest_of(data) != wanted.digest:
        raise EdgemlError(f"{store.name} holds other bytes under {wanted.digest}; push the image again", 1)
    return data


def add(store: Store, media_type: str, data: bytes, annotations: Mapping[str, str] | None = None) -> Descriptor:
    """Keep a small blob and return its descriptor."""
    import io

    digest = digest_of(data)
    store.add(io.BytesIO(data), digest, len(data))
    return Descriptor(media_type, digest, len(data), annotations or {})


def attach(store: Store, subject: Descriptor, kind: str, media_type: str, data: bytes, notes: dict[str, str]) -> str:
    """Attach a document to an image as its referrer, unless that very one is attached; returns its digest."""
    empty = add(store, EMPTY, b"{}")
    layer = add(store, media_type, data)
    manifest = {
        "schemaVersion": 2,
        "mediaType": MANIFEST,
        "artifactType": kind,
        "config": empty.document(),
        "layers": [layer.document()],
        "subject": subject.document(),
        "annotations": notes,
    }
    return store.add_manifest(encode(manifest))


def attached(store: Store, digest: str, kind: str) -> Iterator[bytes]:
    """The documents of one type that are attached to an image, newest first."""
    for referrer in reversed(store.referrers(digest, kind)):
        data = store.manifest(referrer)
        manifest = parse(data or b"", f"the referrer {referrer}")
        if manifest.get("artifactType") == kind and _of(manifest.get("subject")) == digest:
            for layer in descriptors(manifest)[1:]:
                yield read(store, layer, 64 << 20)


def copy(source: Store, target: Store, digest: str, tag: str = "") -> int:
    """Copy an image by its digest; what is there already is not sent. Returns how many blobs were."""
    data = source.manifest(digest)
    if data is None:
        raise EdgemlError(f"{source.name} has no image {digest}; package the model again", 1)
    sent = 0
    for blob in {entry.digest: entry for entry in descriptors(parse(data, digest))}.values():
        if not target.has(blob.digest):
            with source.open(blob.digest) as stream:
                target.add(stream, blob.digest, blob.size)
            sent += 1
    target.add_manifest(data, tag)
    return sent


def complete(store: Store, digest: str) -> bool:
    """Whether an image resolves by its digest, with every blob that its manifest names."""
    data = store.manifest(digest)
    return data is not None and all(store.has(entry.digest) for entry in descriptors(parse(data, digest)))


def _of(entry: Any) -> str:
    return str(entry.get("digest")) if isinstance(entry, dict) else ""


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []
