"""What goes into an image of a model: its files, its labels, and the folder that builders take them from."""

from __future__ import annotations

import hashlib
import os
import shutil
from typing import TYPE_CHECKING, Any, NamedTuple

import edgeml
from edgeml import project
from edgeml.errors import EdgemlError
from edgeml.image import base as base_image
from edgeml.image import oci, parts, wheels

if TYPE_CHECKING:
    from edgeml.image.base import Base
    from edgeml.registry import Version

# Of a release; the rest is evidence, not needed to score, nor to tell what its predictions were like.
FILES = ("model.onnx", "signature.json", "lineage.json", "curves.json")
DOCKERFILE = os.path.join(base_image.ENVIRONMENT, "Dockerfile")
_PREFIX = "edgeml."


class Recipe(NamedTuple):
    """A registered model as it goes into an image."""

    name: str
    version: int
    model: bytes
    documents: dict[str, dict[str, Any]]
    files: dict[str, bytes]
    labels: dict[str, str]

    @property
    def sha256(self) -> str:
        return hashlib.sha256(self.model).hexdigest()

    @property
    def arguments(self) -> dict[str, str]:
        """What the Dockerfile is told beside the base."""
        return {"MODEL_NAME": self.name, "MODEL_VERSION": str(self.version)}

    def __str__(self) -> str:
        return f"{self.name}:{self.version}"


def of(version: Version) -> Recipe:
    """The recipe of a registered version, its files verified now."""
    from edgeml import registry
    from edgeml.registry import release

    released = release.verify(registry.path(version))
    if missing := [name for name in FILES if name not in released.files]:
        raise EdgemlError(f"the release of {version} has no {missing[0]}, which the image needs; release it again", 1)
    tags = version.tags
    labels = {
        "org.opencontainers.image.title": version.name,
        "org.opencontainers.image.version": str(version.version),
        "org.opencontainers.image.revision": _revision(tags),
        _PREFIX + "model.name": version.name,
        _PREFIX + "model.version": str(version.version),
        _PREFIX + "model.sha256": released.sha256,
        _PREFIX + "data.fingerprint": tags.get("data.fingerprint", ""),
        _PREFIX + "egress.sha256": hashlib.sha256(released.files[release.VERDICT]).hexdigest(),
    }
    return Recipe(
        version.name,
        version.version,
        released.files[release.MODEL],
        {name: released.document(name) for name in ("signature.json", "lineage.json")},
        {name: released.files[name] for name in FILES},
        {key: value for key, value in labels.items() if value},
    )


def _revision(tags: dict[str, str]) -> str:
    commit = tags.get("git.commit", "")
    return f"{commit}-dirty" if commit and tags.get("git.dirty") == "true" else commit


def with_base(recipe: Recipe, base: Base) -> Recipe:
    """The recipe with the labels that name its base."""
    more = {
        "org.opencontainers.image.base.name": base.reference.partition("@")[0],
        "org.opencontainers.image.base.digest": base.digest,
    }
    return recipe._replace(labels=recipe.labels | more)


def fingerprint(recipe: Recipe, base: Base, builder: str) -> str:
    """The digest of everything that an image is made of, and of how."""
    environment = os.path.join(project.root_folder(), base_image.ENVIRONMENT)
    inputs = [
        {name: hashlib.sha256(data).hexdigest() for name, data in recipe.files.items()},
        [recipe.labels, base.digest, builder, base_image.architecture()],
        [parts.digest(os.path.join(environment, name)) for name in ("Dockerfile", "layers.py", "requirements.lock")],
        [parts.digest(path) for path in server_files().values()],
        parts.digest(os.path.dirname(__file__)),
    ]
    return oci.digest_of(oci.encode(inputs))


def server_files() -> dict[str, str]:
    """The server's own files by their place below `opt/edgeml/server`."""
    package = os.path.dirname(os.path.abspath(edgeml.__file__))
    found = {"edgeml/__init__.py": os.path.join(package, "__init__.py")}
    for where, folders, names in os.walk(os.path.join(package, "serving")):
        folders[:] = [name for name in folders if name != "__pycache__"]
        for name in names:
            path = os.path.join(where, name)
            found["edgeml/" + os.path.relpath(path, package)] = path
    return dict(sorted(found.items()))


def context(recipe: Recipe, folder: str, say: Any) -> str:
    """Fill a folder with everything that the Dockerfile copies: a build needs nothing else, and no network."""
    environment = os.path.join(project.root_folder(), base_image.ENVIRONMENT)
    for name in ("Dockerfile", "layers.py", "requirements.lock"):
        shutil.copyfile(os.path.join(environment, name), os.path.join(folder, name))
    os.symlink(wheels.folder(say), os.path.join(folder, "wheels"))
    for inside, path in server_files().items():
        target = os.path.join(folder, "server", inside)
        os.makedirs(os.path.dirname(target), exist_ok=True)
        shutil.copyfile(path, target)
    os.makedirs(os.path.join(folder, "model"))
    for name, data in recipe.files.items():
        with open(os.path.join(folder, "model", name), "wb") as stream:
            stream.write(data)
    return folder
