"""What the gate and a deployment ask of a container registry, and of the signature under an image.

Whose signature counts is a decision of this repository, made by pull request: the keys in `deployments/trusted/`.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, NamedTuple, Protocol

from edgeml import project
from edgeml.errors import EdgemlError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from edgeml.gitops.record import Record
    from edgeml.image.verification import Verified

TRUSTED = os.path.join("deployments", "trusted")
_LARGEST_KEY = 1 << 14  # characters


class Image(NamedTuple):
    """An image as the registry has it: its labels, and the bytes of its layers."""

    labels: Mapping[str, str]
    bytes: int


class Images(Protocol):
    """Both raise EdgemlError where the registry does not answer."""

    def find(self, reference: str) -> Image | None:
        """The image NAME@sha256:…, its digest recomputed from what arrived; None where the registry has none."""

    def verify(self, reference: str) -> None:
        """Raise EdgemlError unless a trusted key signed this very digest, and what lies beside it is what it signed."""


class Registry:
    """The registry that a reference names, and the keys that this repository trusts."""

    def find(self, reference: str) -> Image | None:
        from edgeml.image import oci, verification

        name, _, digest = reference.partition("@")
        where = verification.store(name)
        data = where.manifest(digest)
        if data is None:
            return None
        config, *layers = oci.descriptors(oci.parse(data, digest))
        settings = oci.parse(oci.read(where, config), "the config").get("config") or {}
        found = {str(key): str(value) for key, value in (settings.get("Labels") or {}).items()}
        return Image(found, sum(layer.size for layer in layers))

    def verify(self, reference: str) -> None:
        verified(reference)


def default() -> Images:
    """The registry, and the keys in `deployments/trusted/`."""
    return Registry()


def keys() -> list[str]:
    """The public keys whose signature counts, as PEM. Raises EdgemlError where there is none."""
    folder = os.path.join(project.root_folder(), TRUSTED)
    names = sorted(name for name in os.listdir(folder) if name.endswith(".pub")) if os.path.isdir(folder) else []
    if not names:
        raise EdgemlError(f"{TRUSTED}/ holds no key; commit the key.pub of what packages there, as NAME.pub", 1)
    found = []
    for name in names:
        with open(os.path.join(folder, name), encoding="utf-8", errors="replace") as stream:
            found.append(stream.read(_LARGEST_KEY))
    return found


def verified(reference: str) -> Verified:
    """An image with everything that a trusted key answers for. Raises EdgemlError, exit code 1, where none does."""
    from edgeml.image import verification

    problem: EdgemlError | None = None
    for key in keys():
        try:
            return verification.verify(reference, key)
        except EdgemlError as error:
            problem = problem or error
    assert problem is not None
    raise problem


def verified_as(record: Record) -> Verified:
    """The image of a record, verified and with the record's labels. Raises EdgemlError, exit code 1, for any other."""
    found = verified(record.image)
    for name, value in labels(record).items():
        if found.labels.get(name) != value:
            raise EdgemlError(f"{record.image} does not bear the label {name} of its record; promote what it holds", 1)
    return found


def labels(record: Record) -> dict[str, str]:
    """The labels that the image of a record bears: they lead from what runs back to where it comes from."""
    evidence, model = record.evidence, record.values["model"]
    return {
        "org.opencontainers.image.revision": evidence["commit"],
        "edgeml.model.name": model["name"],
        "edgeml.model.version": model["version"],
        "edgeml.data.fingerprint": evidence["data"],
        "edgeml.egress.sha256": evidence["gate"].removeprefix("sha256:"),
    }
