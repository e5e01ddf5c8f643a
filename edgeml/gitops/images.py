"""What the gate asks of a container registry, and of the signature under an image: a seam, so that the gate needs none.

`edgeml.image` answers; where it is not there nothing can be verified, and the gate stays closed.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, NamedTuple, Protocol

from edgeml.errors import EdgemlError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from edgeml.gitops.record import Record


class Image(NamedTuple):
    """An image as the registry has it: its labels, and the bytes of its layers."""

    labels: Mapping[str, str]
    bytes: int


class Packaged(NamedTuple):
    """What `edgeml package` pushed for a model, and what it measured of it; None where it did not."""

    reference: str
    bytes: int | None
    milliseconds: float | None


class Images(Protocol):
    """Both raise EdgemlError where the registry does not answer."""

    def find(self, reference: str) -> Image | None:
        """The image NAME@sha256:…, its digest recomputed from what arrived; None where the registry has none."""

    def is_signed(self, reference: str) -> bool:
        """Whether a signature by a trusted key lies beside the image, and is of this very digest."""


def default() -> Images:
    """The registry and the keys of this project's settings. Raises EdgemlError where there is nothing to ask."""
    try:
        verify = import_module("edgeml.image.verify")
    except ModuleNotFoundError:
        raise EdgemlError("this edgeml cannot verify images; install it with its image parts", 1) from None
    images: Images = verify.images()
    return images


def packaged(model_sha256: str) -> Packaged | None:
    """The image of a model that this machine packaged last, None where it packaged none."""
    try:
        package = import_module("edgeml.image.package")
    except ModuleNotFoundError:
        return None
    found = package.pushed(model_sha256)
    return None if found is None else Packaged(found.reference, found.bytes, found.milliseconds)


def labels(record: Record) -> dict[str, str]:
    """The labels that the image of a record bears: they lead from what runs back to where it comes from."""
    evidence, model = record.evidence, record.values["model"]
    return {
        "org.opencontainers.image.revision": evidence["commit"],
        "edgeml.model.name": model["name"],
        "edgeml.model.version": model["version"],
        "edgeml.data": evidence["data"],
        "edgeml.gate": evidence["gate"],
    }
