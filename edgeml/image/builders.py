"""Builders behind one interface: docker with buildx, docker's classic builder, buildah, and the embedded one.

Each builds the same Dockerfile on a base in the layout, without a network, and gives back config and layers; `normal`
makes them the one image that all of them make.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import tarfile
import tempfile
from types import ModuleType
from typing import Protocol

from edgeml.errors import EdgemlError
from edgeml.image import assemble, normal, oci, parts
from edgeml.image.base import Base
from edgeml.image.layout import Layout
from edgeml.image.recipe import Recipe

_SECONDS = 1800


class Builder(Protocol):
    def missing(self) -> str:
        """Why this builder cannot work here, empty where it can."""

    def build(self, context: str, base: Base, recipe: Recipe, layout: Layout) -> str:
        """Build the image of a context into the layout; returns its digest."""


class Buildx:
    """`docker buildx`, as workflows and laptops have it."""

    def missing(self) -> str:
        return no_docker() or ("" if ask("docker", "buildx", "version") else "docker has no buildx plugin; install it")

    def build(self, context: str, base: Base, recipe: Recipe, layout: Layout) -> str:
        with _folder() as folder:
            file = os.path.join(folder, "image.tar")
            line = ["docker", "buildx", "build", "--network", "none", "--provenance=false", "--sbom=false"]
            line += ["--build-context", f"edgeml-base=oci-layout://{os.path.abspath(layout.folder)}@{base.digest}"]
            line += ["--build-arg", "BASE_IMAGE=edgeml-base", *_options(recipe), "--output", f"type=oci,dest={file}"]
            _run([*line, context])
            place = os.path.join(folder, "image")
            _extract(file, place)
            return _of_layout(Layout(place, "buildx"), base, recipe, layout)


class Docker:
    """docker's classic builder, for daemons without buildx."""

    def missing(self) -> str:
        return no_docker()

    def build(self, context: str, base: Base, recipe: Recipe, layout: Layout) -> str:
        below = f"edgeml/base:{base.digest[7:19]}"
        load(layout, base.digest, below)
        with _folder() as folder:
            file = os.path.join(folder, "id")
            line = ["docker", "build", "--network", "none", "--force-rm", "--iidfile", file]
            line += ["--build-arg", f"BASE_IMAGE={below}", *_options(recipe)]
            real = shutil.copytree(context, os.path.join(folder, "context"))  # links out of a context are not followed
            _run([*line, real], {"DOCKER_BUILDKIT": "0"})
            with open(file, encoding="ascii") as stream:
                image = stream.read().strip()
            try:
                saved = os.path.join(folder, "saved.tar")
                _run(["docker", "save", "--output", saved, image])
            finally:
                subprocess.run(["docker", "image", "rm", image], capture_output=True, stdin=subprocess.DEVNULL)
            place = os.path.join(folder, "image")
            _extract(saved, place)
            with open(os.path.join(place, "manifest.json"), "rb") as stream:
                listed = oci.parse(b'{"images":' + stream.read() + b"}", "docker's manifest.json")["images"][0]
            with open(os.path.join(place, listed["Config"]), "rb") as stream:
                config = oci.parse(stream.read(), "docker's config")
            above = listed["Layers"][len(normal.diffs(normal.of_base(base, layout)[1])) :]
            return normal.built(config, [os.path.join(place, name) for name in above], base, recipe.labels, layout)


class Buildah:
    """buildah, where there is no daemon; with the least isolation, so that it also works inside a container."""

    def missing(self) -> str:
        return "" if shutil.which("buildah") else "buildah is not on the PATH; install it"

    def build(self, context: str, base: Base, recipe: Recipe, layout: Layout) -> str:
        with _folder() as folder:
            program = ["buildah", "--root", f"{folder}/storage", "--runroot", f"{folder}/run"]
            oci.copy(layout, Layout(os.path.join(folder, "base"), "base"), base.digest, "base")
            try:
                # Named relatively: buildah makes a name of the path, and some paths are no names.
                held = _run([*program, "pull", "--quiet", "oci:base:base"], folder=folder).split()[-1]
                _run([*program, "tag", held, "localhost/edgeml-base"])
                line = [*program, "bud", "--isolation", "chroot", "--layers", "--format", "oci", "--timestamp", "0"]
                line += ["--build-arg", "BASE_IMAGE=localhost/edgeml-base", *_options(recipe), "--tag", "edgeml-image"]
                _run([*line, shutil.copytree(context, os.path.join(folder, "context"))])
                place = os.path.join(folder, "image")
                _run([*program, "push", "edgeml-image", f"oci:{place}:image"])
                return _of_layout(Layout(place, "buildah"), base, recipe, layout)
            finally:
                for words in (["rm", "--all"], ["rmi", "--all", "--force"]):  # they are mounted until then
                    subprocess.run([*program, *words], stdin=subprocess.DEVNULL, capture_output=True)
                ask("umount", "--lazy", f"{folder}/storage/overlay")


BUILDERS: dict[str, Builder | ModuleType] = {
    "buildx": Buildx(),
    "docker": Docker(),
    "buildah": Buildah(),
    assemble.NAME: assemble,
}


def chosen(name: str) -> Builder | ModuleType:
    """A builder by its name. Raises EdgemlError where it is not there, or unknown."""
    builder = BUILDERS.get(name)
    if builder is None:
        raise EdgemlError(f"there is no builder '{name}'; choose among {', '.join(BUILDERS)}")
    if reason := builder.missing():
        raise EdgemlError(f"--builder {name}: {reason}, or take --builder {assemble.NAME}, which needs nothing")
    return builder


def no_docker() -> str:
    """Why docker cannot be used here, empty where a daemon answers."""
    if not shutil.which("docker"):
        return "docker is not on the PATH; install it"
    return "" if ask("docker", "version") else "the docker daemon does not answer; start it or set DOCKER_HOST"


def ask(*line: str) -> bool:
    """Whether a command succeeds."""
    return subprocess.run(line, stdin=subprocess.DEVNULL, capture_output=True).returncode == 0


def load(layout: Layout, digest: str, tag: str) -> None:
    """Bring an image of the layout into the docker daemon, under a tag; what is there already is not sent again."""
    if ask("docker", "image", "inspect", tag):
        return
    manifest = oci.parse(layout.manifest(digest) or b"", digest)
    config, *layers = oci.descriptors(manifest)
    names = [f"{config.digest[7:]}.json", *(f"{entry.digest[7:]}.tar.gz" for entry in layers)]
    listed = [{"Config": names[0], "RepoTags": [tag], "Layers": names[1:]}]
    with _folder() as folder:
        file = os.path.join(folder, "load.tar")
        with tarfile.open(file, "w") as archive:
            for entry, name in zip((config, *layers), names, strict=True):
                archive.add(layout.path(entry.digest), name)
            with open(os.path.join(folder, "manifest.json"), "wb") as stream:
                stream.write(oci.encode(listed))
            archive.add(stream.name, "manifest.json")
        _run(["docker", "load", "--quiet", "--input", file])


def _of_layout(made: Layout, base: Base, recipe: Recipe, layout: Layout) -> str:
    """The one image of the layout that a builder wrote."""
    manifests = made.entries()
    if len(manifests) != 1:
        raise EdgemlError("the builder wrote no image, or several; build for one platform at a time", 1)
    manifest = oci.parse(made.manifest(manifests[0]["digest"]) or b"", "the builder's manifest")
    config, *layers = oci.descriptors(manifest)
    above = layers[len(normal.diffs(normal.of_base(base, layout)[1])) :]
    settings = oci.parse(oci.read(made, config), "the builder's config")
    return normal.built(settings, [made.path(entry.digest) for entry in above], base, recipe.labels, layout)


def _folder() -> tempfile.TemporaryDirectory[str]:
    os.makedirs(parts.folder(), exist_ok=True)
    return tempfile.TemporaryDirectory(dir=parts.folder(), prefix="build-")


def _options(recipe: Recipe) -> list[str]:
    named = [word for key, value in sorted(recipe.labels.items()) for word in ("--label", f"{key}={value}")]
    return named + [word for key, value in recipe.arguments.items() for word in ("--build-arg", f"{key}={value}")]


def _extract(file: str, place: str) -> None:
    with tarfile.open(file) as archive:
        archive.extractall(place, filter="data")


def _run(line: list[str], more: dict[str, str] | None = None, folder: str | None = None) -> str:
    """Run a builder and return what it prints. Its last words go into the error."""
    try:
        done = subprocess.run(
            line, cwd=folder, env={**os.environ, **(more or {})}, stdin=subprocess.DEVNULL, capture_output=True,
            text=True, errors="replace", timeout=_SECONDS,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        raise EdgemlError(f"{' '.join(line[:2])} did not finish in {_SECONDS // 60} minutes", 1) from None
    if done.returncode:
        said = [text for text in (done.stderr or done.stdout).splitlines() if text.strip()] or ["without a word"]
        raise EdgemlError(f"{' '.join(line[:2])} failed: {said[-1].strip()[-300:]}", 1)
    return done.stdout
