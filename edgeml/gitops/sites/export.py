"""What an app-service site without containers gets: the model of a verified image, as one zip, and how to use it.

Not an app: which languages the workers of a stamp have, and in which versions, differs from stamp to stamp.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import tarfile
import zipfile
from typing import TYPE_CHECKING

from edgeml import project
from edgeml.errors import EdgemlError

if TYPE_CHECKING:
    from edgeml.gitops.deploy import Release
    from edgeml.gitops.record import Record
    from edgeml.image.golden import Golden

FOLDER = os.path.join(".edgeml", "exports")
LARGEST_LAYER = 2 << 30  # bytes
_MODEL = "model/"  # of the scoring image
_README = """# {model}, exported for {site}

**Nothing is deployed.** App Service on Azure Stack Hub documents web apps in ASP.NET, Node.js, Java, PHP and Python on
Windows workers, and no container. The image that the other kinds of site run,

    {image}

was verified, and this is what it holds of the model.

| file | what it is |
|---|---|
| `model/model.onnx` | the model, for ONNX Runtime in any of those languages that your stamp has |
| `model/signature.json` | its columns, types and outputs |
| `model/curves.json` | how its predictions were spread over the test rows, against which drift is seen |
| `golden.json` | a request with its answer: `inputs` as tensors, `rows` as a table, `outputs` within `tolerance` |
| `manifest.json` | where it comes from, and the SHA-256 of each file above |

An app of yours loads the model once, feeds it what `signature.json` says, and is right when it answers `golden.json`'s
`inputs` with its `outputs`. Ask that after each deployment, before callers come. Where a container may run beside App
Service, let it: a site of the kind `edge-vm` or `kubernetes` takes the image as it is, and goes back by itself.
"""


def write(record: Record, release: Release, golden: Golden) -> str:
    """Write the zip of a verified record; returns its path. The same record makes the same bytes."""
    files = _model(record.image)
    files["golden.json"] = _json(golden.document())
    digests = {name: hashlib.sha256(data).hexdigest() for name, data in sorted(files.items())}
    files["manifest.json"] = _json({"version": 1, "release": release.tag, "record": record.values, "sha256": digests})
    files["README.md"] = _README.format(model=record.model, site=record.site, image=record.image).encode()
    name = f"{record.model.replace(':', '-')}-{record.digest.removeprefix('sha256:')[:12]}.zip"
    path = os.path.join(project.root_folder(), FOLDER, record.site, name)
    os.makedirs(os.path.dirname(path), exist_ok=True)
    unfinished = f"{path}.{os.getpid()}"
    with open(unfinished, "wb") as stream:
        stream.write(_zip(files))
    os.replace(unfinished, path)
    return os.path.relpath(path)


def _model(image: str) -> dict[str, bytes]:
    """The files of the model in an image, each layer held against its digest."""
    from edgeml.image import oci, verification

    name, _, digest = image.partition("@")
    where = verification.store(name)
    data = where.manifest(digest)
    _, *layers = oci.descriptors(oci.parse(data or b"", digest))
    for layer in reversed(layers):  # the model is the last that a scoring image gets
        found: dict[str, bytes] = {}
        with tarfile.open(fileobj=io.BytesIO(oci.read(where, layer, LARGEST_LAYER))) as archive:
            for member in archive:
                inside = member.name.strip("/").removeprefix("./")
                content = archive.extractfile(member) if member.isfile() and inside.startswith(_MODEL) else None
                if content is not None:
                    found[inside] = content.read()
        if f"{_MODEL}model.onnx" in found:
            return found
    raise EdgemlError(f"{image} has no {_MODEL}model.onnx; package the model again", 1)


def _zip(files: dict[str, bytes]) -> bytes:
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in sorted(files.items()):
            entry = zipfile.ZipInfo(name, (1980, 1, 1, 0, 0, 0))
            entry.compress_type, entry.external_attr = zipfile.ZIP_DEFLATED, 0o644 << 16
            archive.writestr(entry, data)
    return made.getvalue()


def _json(document: object) -> bytes:
    return (json.dumps(document, indent=2, sort_keys=True) + "\n").encode()
