"""Puts a step's private outputs into the storage on the edge, and gets its private inputs from there.

One standalone file beside the step's own script and `blob_client.py`, for computes on which Azure ML cannot write to
that storage: each port of the pipeline then carries a marker, which says where the content lies and nothing of it.

    python edgeml_stow.py fetch CONTAINER FOLDER NAME=PORT...   each PORT's content to FOLDER/NAME
    python edgeml_stow.py stow CONTAINER FOLDER PREFIX NAME=PORT...   FOLDER/NAME below PREFIX, a marker to PORT
    python edgeml_stow.py log CONTAINER FILE PREFIX   what the step printed

Content is written below a name that nobody had before and listed last, so what a marker names is whole: an attempt
that was cut short has left none. A port without a marker is ordinary data and is linked.
"""

from __future__ import annotations

import hashlib
import json
import os
import sys
import uuid
from concurrent.futures import ThreadPoolExecutor, wait
from typing import TYPE_CHECKING, Any

import blob_client
from blob_client import StorageError

if TYPE_CHECKING:
    from azure.storage.blob import ContainerClient

MARKER = "edgeml-stowed.json"
"""Name of the marker in a port that is a folder; one that is a file is the marker itself."""

LONGEST = 4096
"""Bytes of a marker; a larger file is none."""

AT_ONCE = 4
"""Files that are on their way at the same time."""


def main(argv: list[str] | None = None) -> int:
    verb, container, *rest = sys.argv[1:] if argv is None else argv
    try:
        client = blob_client.container(container)
        if verb == "fetch":
            folder, *ports = rest
            for name, port in pairs(ports):
                fetch(client, port, os.path.join(folder, name))
        elif verb == "stow":
            folder, prefix, *ports = rest
            for name, port in pairs(ports):
                stow(client, os.path.join(folder, name), f"{prefix}/{uuid.uuid4().hex}/{name}", port)
        else:
            file, prefix = rest
            with open(file, "rb") as stream, blob_client.explained("the step's log"):
                client.upload_blob(f"{prefix}/{uuid.uuid4().hex}.txt", stream)
    except StorageError as error:
        print(f"edgeml_stow: {error}", file=sys.stderr)
        return 1
    return 0


def pairs(words: list[str]) -> list[tuple[str, str]]:
    return [(name, port) for name, _, port in (word.partition("=") for word in words)]


def stow(client: ContainerClient, path: str, place: str, port: str) -> None:
    """Upload a file or all files of a folder below `place`, then their list, then write the marker."""
    if not os.path.lexists(path):
        raise StorageError(f"the step did not write its output {os.path.basename(path)}")
    whole = os.path.isfile(path)
    files = [""] if whole else sorted(inner(path))

    def upload(name: str) -> dict[str, Any]:
        source = os.path.join(path, name) if name else path
        with open(source, "rb") as stream, blob_client.explained("storing an output"):
            client.upload_blob(f"{place}/content/{name}" if name else f"{place}/content", stream)
            stream.seek(0)
            digest = hashlib.file_digest(stream, "sha256").hexdigest()
        return {"name": name, "size": os.path.getsize(source), "sha256": digest}

    listed = at_once(upload, files)
    with blob_client.explained("storing the list of an output"):
        client.upload_blob(f"{place}/list.json", json.dumps(listed))
    marker = port
    if not whole:
        os.makedirs(port, exist_ok=True)
        marker = os.path.join(port, MARKER)
    os.makedirs(os.path.dirname(marker) or ".", exist_ok=True)
    with open(marker, "w", encoding="utf-8") as out:
        json.dump({"edgeml.stowed": place}, out)


def fetch(client: ContainerClient, port: str, path: str) -> None:
    """Download what a port's marker names; a port without one is linked as it is."""
    os.makedirs(os.path.dirname(path), exist_ok=True)
    place = marked(port)
    if not place:
        os.symlink(os.path.abspath(port), path)
        return
    with blob_client.explained("the list of an input"):
        listed = json.loads(client.download_blob(f"{place}/list.json").readall())

    def download(entry: dict[str, Any]) -> None:
        name = str(entry["name"])
        if os.path.isabs(name) or ".." in name.split("/"):
            raise StorageError("the list of an input names a file outside it; make the input anew")
        blob = client.get_blob_client(f"{place}/content/{name}" if name else f"{place}/content")
        target = os.path.join(path, name) if name else path
        os.makedirs(os.path.dirname(target), exist_ok=True)
        with blob_client.explained("fetching an input"):
            etag = str(blob.get_blob_properties().etag)
        digest = hashlib.sha256()
        with open(target, "wb") as out:
            for piece in blob_client.chunks(blob, size=int(entry["size"]), etag=etag):
                out.write(piece)
                digest.update(piece)
        if digest.hexdigest() != entry["sha256"]:
            raise StorageError("an input is not what the step before stored; run that step again")

    if [entry["name"] for entry in listed] != [""]:
        os.makedirs(path, exist_ok=True)
    at_once(download, listed)


def marked(port: str) -> str:
    """Where the content of a port lies; empty where the port has it itself."""
    file = os.path.join(port, MARKER) if os.path.isdir(port) else port
    try:
        if os.path.getsize(file) > LONGEST:
            return ""
        with open(file, "rb") as stream:
            return str(json.load(stream)["edgeml.stowed"])
    except (OSError, ValueError, KeyError, TypeError):
        return ""


def inner(folder: str) -> list[str]:
    """All files of a folder, by their names in it with `/` between."""
    return [
        os.path.relpath(os.path.join(parent, name), folder).replace(os.sep, "/")
        for parent, _, names in os.walk(folder)
        for name in names
    ]


def at_once(work: Any, items: list[Any]) -> list[Any]:
    with ThreadPoolExecutor(AT_ONCE) as pool:
        started = [pool.submit(work, item) for item in items]
        wait(started)
    return [one.result() for one in started]


if __name__ == "__main__":
    sys.exit(main())
