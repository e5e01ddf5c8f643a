"""What an image consists of, as a CycloneDX 1.6 document: Debian packages, wheels, the server and the model."""

from __future__ import annotations

import json
import re
import uuid
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import edgeml

if TYPE_CHECKING:
    from edgeml.image.base import Package
    from edgeml.image.recipe import Recipe
    from edgeml.image.wheels import Wheel

MEDIA_TYPE = "application/vnd.cyclonedx+json"
_SPACE = uuid.UUID("8b7e2f5e-0f6c-5d7a-9d53-7f2a3c0a6f11")  # of serial numbers: the same image has the same one


def document(recipe: Recipe, digest: str, packages: Sequence[Package], wheels: Sequence[Wheel]) -> bytes:
    """The document of an image. The same image gives the same bytes: it names no time."""
    from cyclonedx.model.bom import Bom, BomMetaData
    from cyclonedx.model.component import Component, ComponentType
    from cyclonedx.output.json import JsonV1Dot6
    from packageurl import PackageURL

    def component(kind: str, name: str, version: str, sha256: str, **qualifiers: str) -> Component:
        space = {"deb": "debian"}.get(kind)
        url = PackageURL(kind, space, name, version, qualifiers or None)
        return Component(
            name=name, version=version, purl=url, bom_ref=url.to_string(), hashes=_hashes(sha256),
            type=ComponentType.LIBRARY,
        )  # fmt: skip

    parts = [component("deb", p.name, p.version, p.sha256, arch=p.architecture) for p in packages]
    parts += [component("pypi", _plain(wheel.name), wheel.version, wheel.sha256) for wheel in wheels]
    parts += [
        component("pypi", "edgeml", edgeml.__version__, ""),
        Component(
            name=recipe.name, version=str(recipe.version), bom_ref="model", hashes=_hashes(recipe.sha256),
            type=ComponentType.MACHINE_LEARNING_MODEL,
        ),
    ]  # fmt: skip
    image = Component(
        name=recipe.name, version=digest, bom_ref="image", type=ComponentType.CONTAINER, components=None,
        hashes=_hashes(digest.removeprefix("sha256:")),
    )  # fmt: skip
    bom = Bom(components=parts, serial_number=uuid.uuid5(_SPACE, digest), metadata=BomMetaData(component=image))
    bom.register_dependency(image, parts)
    made = json.loads(JsonV1Dot6(bom).output_as_string())
    made["metadata"].pop("timestamp", None)
    return json.dumps(made, sort_keys=True, indent=1).encode()


def _hashes(sha256: str) -> Iterable[Any]:
    from cyclonedx.model import HashAlgorithm, HashType

    return [HashType(alg=HashAlgorithm.SHA_256, content=sha256)] if sha256 else []


def _plain(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()
