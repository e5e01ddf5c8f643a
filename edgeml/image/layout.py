"""Images in a folder: an OCI image layout, which docker, skopeo, podman and buildah read, too."""

from __future__ import annotations

import fcntl
import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO, Any

from edgeml.engine.files import write_atomically
from edgeml.errors import EdgemlError
from edgeml.image import oci

REF = "org.opencontainers.image.ref.name"
_BLOCK = 1 << 20


class Layout:
    """A layout folder, made on its first use. Blobs and index are replaced whole, so it may be killed at any time."""

    def __init__(self, folder: str, name: str) -> None:
        self.folder = folder
        self.name = name

    def path(self, digest: str) -> str:
        """Where a blob lies."""
        if not oci.is_digest(digest):
            raise EdgemlError(f"'{digest}' is no digest; write sha256: and 64 hexadecimal digits", 1)
        return os.path.join(self.folder, "blobs", "sha256", digest.removeprefix("sha256:"))

    def has(self, digest: str) -> bool:
        return os.path.isfile(self.path(digest))

    def open(self, digest: str) -> IO[bytes]:
        try:
            return open(self.path(digest), "rb")
        except FileNotFoundError:
            raise EdgemlError(f"{self.folder} lacks the blob {digest}; package the model again", 1) from None

    def add(self, source: IO[bytes], digest: str, size: int) -> None:
        path = self.path(digest)
        if os.path.isfile(path):
            return
        os.makedirs(os.path.dirname(path), exist_ok=True)
        unfinished = f"{path}.{os.getpid()}"
        try:
            with open(unfinished, "wb") as target:
                seen, length = hashlib.sha256(), 0
                while block := source.read(_BLOCK):
                    seen.update(block)
                    length += len(block)
                    target.write(block)
                target.flush()
                os.fsync(target.fileno())
            if (length, seen.hexdigest()) != (size, digest.removeprefix("sha256:")):
                raise EdgemlError(f"what was read for {digest} has other bytes; it is refused", 1)
            os.replace(unfinished, path)
        finally:
            if os.path.exists(unfinished):
                os.unlink(unfinished)

    def adopt(self, file: str, media_type: str) -> oci.Descriptor:
        """Keep a file of this machine as a blob."""
        with open(file, "rb") as stream:
            digest = "sha256:" + hashlib.file_digest(stream, "sha256").hexdigest()
            stream.seek(0)
            size = os.fstat(stream.fileno()).st_size
            self.add(stream, digest, size)
        return oci.Descriptor(media_type, digest, size)

    def manifest(self, reference: str) -> bytes | None:
        digest = reference if oci.is_digest(reference) else self._tags().get(reference, "")
        if not digest or not self.has(digest):
            return None
        with self.open(digest) as stream:
            data = stream.read(oci.LARGEST_DOCUMENT + 1)
        if oci.digest_of(data) != digest:
            raise EdgemlError(f"{self.folder} holds other bytes under {digest}; package the model again", 1)
        return data

    def add_manifest(self, data: bytes, tag: str = "") -> str:
        document = oci.parse(data, "a manifest")
        made = oci.add(self, str(document.get("mediaType") or oci.MANIFEST), data)
        entry = made.document() | ({"annotations": {REF: tag}} if tag else {})
        if "subject" in document:
            entry["artifactType"] = document.get("artifactType")
        with self._changing() as manifests:
            if entry not in manifests:
                manifests[:] = [old for old in manifests if not (tag and _tag(old) == tag)] + [entry]
        return made.digest

    def referrers(self, digest: str, artifact_type: str) -> list[str]:
        found = []
        for entry in self.entries():
            if entry.get("artifactType") == artifact_type and oci.is_digest(entry.get("digest")):
                document = oci.parse(self.manifest(entry["digest"]) or b"{}", entry["digest"])
                if (document.get("subject") or {}).get("digest") == digest:
                    found.append(entry["digest"])
        return found

    def _tags(self) -> dict[str, str]:
        return {tag: str(entry.get("digest")) for entry in self.entries() if (tag := _tag(entry))}

    def entries(self) -> list[dict[str, Any]]:
        """What the index lists."""
        path = os.path.join(self.folder, "index.json")
        if not os.path.isfile(path):
            return []
        with open(path, "rb") as stream:
            entries = oci.parse(stream.read(), path).get("manifests")
        return [entry for entry in entries if isinstance(entry, dict)] if isinstance(entries, list) else []

    @contextmanager
    def _changing(self) -> Iterator[list[dict[str, Any]]]:
        """The index, for one writer at a time."""
        os.makedirs(self.folder, exist_ok=True)
        with open(os.path.join(self.folder, ".lock"), "w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            manifests, before = self.entries(), self.entries()
            yield manifests
            if manifests == before:
                return
            _replace(os.path.join(self.folder, "oci-layout"), {"imageLayoutVersion": "1.0.0"})
            index = {"schemaVersion": 2, "mediaType": oci.INDEX, "manifests": manifests}
            _replace(os.path.join(self.folder, "index.json"), index)


def _tag(entry: dict[str, Any]) -> str:
    notes = entry.get("annotations")
    return str(notes.get(REF) or "") if isinstance(notes, dict) else ""


def _replace(path: str, document: dict[str, Any]) -> None:
    write_atomically(path, oci.encode(document).decode())
