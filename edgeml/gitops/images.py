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


class Images(Protocol):
    """Both raise EdgemlError where the registry does not answer."""

    def find(self, reference: str) -> Image | None:
        """The image NAME@sha256:…, its digest recomputed from what arrived; None where the registry has none."""

    def verify(self, reference: str) -> None:
        """Raise EdgemlError unless a trusted key signed this very digest, and what lies beside it is what it signed."""


def default() -> Images:
    """The registry and the keys of this project's settings. Raises EdgemlError where there is nothing to ask."""
    try:
        module = import_module("edgeml.image.published")
    except ModuleNotFoundError:
        raise EdgemlError("this edgeml cannot verify images; install it with its image parts", 1) from None
    images: Images = module.images()
    return images


def labels(record: Record) -> dict[str, str]:
    """The labels that `edgeml package` gives the image of a record: they lead from what runs to where it comes from."""
    evidence, model = record.evidence, record.values["model"]
    return {
        "org.opencontainers.image.revision": evidence["commit"],
        "edgeml.model.name": model["name"],
        "edgeml.model.version": model["version"],
        "edgeml.data.fingerprint": evidence["data"],
        "edgeml.egress.sha256": evidence["gate"].removeprefix("sha256:"),
    }
