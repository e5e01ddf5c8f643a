"""One form for images, whichever builder made them: same files and same settings, same digest.

The base's layers stay as they are, so that registries and machines share them. What lies above is written anew by
`tree.write` and compressed by the base's own zlib; of the config only what runs an image is kept.
"""

from __future__ import annotations

import os
import tarfile
import tempfile
from collections.abc import Sequence
from typing import Any

from edgeml.errors import EdgemlError
from edgeml.image import base as base_image
from edgeml.image import oci, parts, tree
from edgeml.image.base import Base
from edgeml.image.layout import Layout

_KEPT = ("User", "ExposedPorts", "Env", "Entrypoint", "Cmd", "Volumes", "WorkingDir", "Labels", "StopSignal")
HISTORY = {"created_by": "edgeml"}


def image(base: Base, layers: Sequence[tuple[oci.Descriptor, str]], settings: dict[str, Any], layout: Layout) -> str:
    """Write config and manifest of a base with layers (and the digests of their content) on it; returns the digest."""
    manifest, config = of_base(base, layout)
    below = config.get("config") or {}
    merged = {key: below.get(key) for key in _KEPT} | settings
    merged["Env"] = _merged([*(below.get("Env") or []), *(settings.get("Env") or [])])
    document = {
        "architecture": config.get("architecture"),
        "os": config.get("os"),
        "config": {key: value for key, value in merged.items() if value and key in _KEPT},
        "rootfs": {"type": "layers", "diff_ids": [*diffs(config), *(diff for _, diff in layers)]},
        # Without times or commands; but buildah builds on no image whose history does not count its layers.
        "history": [*(config.get("history") or [HISTORY] * len(diffs(config))), *[HISTORY] * len(layers)],
    }
    made = oci.add(layout, oci.CONFIG, oci.encode(document))
    # Docker's own media types for layers of a base become OCI's; the bytes are the same.
    lower = [entry._replace(media_type=oci.LAYER, annotations={}) for entry in oci.descriptors(manifest)[1:]]
    labels = settings.get("Labels") or {}
    notes = {key: value for key, value in labels.items() if key.startswith("org.opencontainers.image.")}
    return layout.add_manifest(
        oci.encode(
            {
                "schemaVersion": 2,
                "mediaType": oci.MANIFEST,
                "config": made.document(),
                "layers": [entry.document() for entry in (*lower, *(entry for entry, _ in layers))],
                "annotations": notes,
            }
        )
    )


def built(config: dict[str, Any], archives: Sequence[str], base: Base, labels: dict[str, str], layout: Layout) -> str:
    """The image of a config and the uncompressed layers that a builder put on the base; returns the digest.

    Of labels only those asked for are kept: some builders add their own version.
    """
    _, below = of_base(base, layout)
    own = diffs(config)
    if own[: len(diffs(below))] != diffs(below) or len(own) - len(diffs(below)) != len(archives):
        raise EdgemlError("the builder did not build on the base that it was given; look at the Dockerfile's FROM", 1)
    layers = []
    os.makedirs(parts.folder(), exist_ok=True)
    for path in archives:
        with tempfile.TemporaryDirectory(dir=parts.folder()) as folder, tarfile.open(path) as archive:
            diff = base_image.layer(tree.of_archive(archive), base.root, folder)
            layers.append((layout.adopt(os.path.join(folder, "layer.tar.gz"), oci.LAYER), diff))
    return image(base, layers, (config.get("config") or {}) | {"Labels": labels}, layout)


def of_base(base: Base, layout: Layout) -> tuple[dict[str, Any], dict[str, Any]]:
    """Manifest and config of a base in the layout."""
    manifest = oci.parse(layout.manifest(base.digest) or b"", base.reference)
    return manifest, oci.parse(oci.read(layout, oci.descriptors(manifest)[0]), base.reference)


def diffs(config: dict[str, Any]) -> list[str]:
    return [str(diff) for diff in (config.get("rootfs") or {}).get("diff_ids") or []]


def _merged(variables: list[str]) -> list[str]:
    """Each variable once, with its last value, in the order of its first."""
    return [f"{name}={value}" for name, value in dict(entry.split("=", 1) for entry in variables).items()]
