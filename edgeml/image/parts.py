"""What images are made of and can be made again: a folder per part under `.edgeml/image/parts`, named by its inputs.

A part is made beside its place and renamed when it is whole; who finds it uses it as it is.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable
from typing import Any

from edgeml import project

FOLDER = "image"


def folder() -> str:
    """The folder of everything that this room keeps."""
    return os.path.join(project.state_folder(), FOLDER)


def of(kind: str, inputs: Any, make: Callable[[str], None]) -> str:
    """The folder of a part; `make` fills a new one where nobody did for the same inputs."""
    named = hashlib.sha256(json.dumps(inputs, sort_keys=True).encode()).hexdigest()[:20]
    place = os.path.join(folder(), "parts", f"{kind}-{named}")
    if os.path.isdir(place):
        return place
    unfinished = f"{place}.{os.getpid()}"
    shutil.rmtree(unfinished, ignore_errors=True)
    os.makedirs(unfinished)
    try:
        make(unfinished)
        if not os.path.isdir(place):  # else another process was quicker, with the same
            os.rename(unfinished, place)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
    return place


def digest(path: str) -> str:
    """The SHA-256 of a file, or of all files below a folder with their names."""
    if os.path.isfile(path):
        with open(path, "rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()
    found = []
    for where, folders, names in os.walk(path):
        folders[:] = [name for name in folders if name != "__pycache__"]
        for name in names:
            file = os.path.join(where, name)
            found.append([os.path.relpath(file, path), digest(file)])
    return hashlib.sha256(json.dumps(sorted(found)).encode()).hexdigest()
