"""Push, list and pull the blobs of a container: in parallel, verified, and each command may be killed and run again.

What is stored carries its MD5 (`Content-MD5`) and its SHA-256 (metadata `sha256`), so that a later push can tell what
is there already and a pull can tell that what arrived is what was stored.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from edgeml.errors import EdgemlError
from edgeml.storage.blob_client import StorageError, chunks, explained

if TYPE_CHECKING:
    from azure.storage.blob import BlobClient, ContainerClient

BLOCK = 8 << 20
MOST_BLOCKS = 50_000
LONGEST_NAME = 880
FILES_AT_ONCE = 3
BLOCKS_AT_ONCE = 3

Progress = Callable[[int], object]
"""Called with the number of bytes that were moved since its last call, from several threads."""


@dataclass(frozen=True)
class Stored:
    """A blob of the container. `md5` and `sha256` are hexadecimal, empty where the service keeps none."""

    name: str
    bytes: int
    md5: str
    sha256: str
    etag: str
    modified: str


@dataclass(frozen=True)
class Moved:
    """What a push or a pull did."""

    moved: list[str]
    skipped: list[str]
    bytes: int
    """Bytes that went over the wire: neither skipped files nor parts that an earlier attempt had moved."""


def sources(paths: Iterable[Path], prefix: str = "") -> dict[str, Path]:
    """The blob name of each file: a file under its own name, a folder's files under their paths within it.

    Raises `EdgemlError` for a path that is not there, a link that leads out of its folder, two files for one name,
    and a name that the service would refuse.
    """
    found: dict[str, Path] = {}
    for path in paths:
        if path.is_dir():
            files = {file.relative_to(path).as_posix(): file for file in sorted(_files(path))}
        elif path.is_file():
            files = {path.name: path}
        else:
            raise EdgemlError(f"{path} is neither a file nor a folder; check the path")
        for name, file in files.items():
            blob = prefix + name
            if blob in found:
                raise EdgemlError(f"{found[blob]} and {file} would both become the blob '{blob}'; push one of them")
            if len(blob) > LONGEST_NAME:
                raise EdgemlError(f"the blob name of {file} has more than {LONGEST_NAME} characters; shorten the path")
            found[blob] = file
    if not found:
        raise EdgemlError("there is no file to push; check the paths")
    return found


def _files(folder: Path) -> Iterator[Path]:
    inside = folder.resolve()
    for place, folders, names in os.walk(folder):
        for name in folders + names:
            path = Path(place, name)
            if path.is_symlink() and not path.resolve().is_relative_to(inside):
                raise EdgemlError(
                    f"{path} is a link out of {folder}; push what it points to by its own path, or remove it"
                )
        yield from (Path(place, name) for name in names if Path(place, name).is_file())


def push(client: ContainerClient, files: dict[str, Path], progress: Progress = lambda _: None) -> Moved:
    """Store each file under its name, making the container where it is missing.

    A blob whose size and MD5 are those of the file is skipped; blocks of an interrupted upload are used again.
    """
    _make(client)

    def one(item: tuple[str, Path]) -> int | None:
        with explained(f"blob '{item[0]}'"):
            return _push_one(client.get_blob_client(item[0]), item[1], progress)

    return _each(one, files.items(), lambda item: item[0])


def _make(client: ContainerClient) -> None:
    from azure.core.exceptions import ResourceExistsError

    with explained(f"container '{client.container_name}'"), suppress(ResourceExistsError):
        if not _exists(client):
            client.create_container()


def _exists(client: ContainerClient) -> bool:
    """Whether the container is there, as far as the credential may know: a SAS for one container may only list it."""
    from azure.core.exceptions import HttpResponseError, ResourceNotFoundError

    try:
        next(iter(client.list_blobs(results_per_page=1)), None)
    except ResourceNotFoundError:
        return False
    except HttpResponseError as error:
        if error.status_code != 403:
            raise
    return True


def _push_one(blob: BlobClient, path: Path, progress: Progress) -> int | None:
    """Bytes that were sent, or None if the blob was there already."""
    from azure.core.exceptions import ResourceNotFoundError
    from azure.storage.blob import ContentSettings

    before = path.stat()
    md5, sha256 = hashes(path)
    with suppress(ResourceNotFoundError):
        stored = blob.get_blob_properties()
        if stored.size == before.st_size and _hex(stored.content_settings.content_md5) == md5:
            progress(before.st_size)
            return None
    about: dict[str, Any] = {
        "content_settings": ContentSettings(content_type=_kind(path), content_md5=bytearray.fromhex(md5)),
        "metadata": {"sha256": sha256},
    }
    if before.st_size <= BLOCK:
        blob.upload_blob(path.read_bytes(), overwrite=True, validate_content=True, **about)
        progress(before.st_size)
        sent = before.st_size
    else:
        ids, sent = _stage(blob, path, before.st_size, progress)
        _unchanged(path, before)
        blob.commit_block_list(ids, **about)
    _unchanged(path, before)
    return sent


def _stage(blob: BlobClient, path: Path, size: int, progress: Progress) -> tuple[list[Any], int]:
    """Send the blocks that the service does not hold yet. A block's id is its place and its content's digest."""
    from azure.core.exceptions import ResourceNotFoundError
    from azure.storage.blob import BlobBlock

    length = max(BLOCK, -(-size // MOST_BLOCKS))
    held: set[str] = set()
    with suppress(ResourceNotFoundError):
        _, uncommitted = blob.get_block_list("uncommitted")
        held = {block.id for block in uncommitted}

    def one(offset: int) -> tuple[str, int]:
        with path.open("rb") as stream:
            stream.seek(offset)
            data = stream.read(length)
        name = f"{offset // length:06d}-{hashlib.sha256(data).hexdigest()[:32]}"
        sent = 0
        if name not in held:
            blob.stage_block(name, data, length=len(data), validate_content=True)
            sent = len(data)
        progress(len(data))
        return name, sent

    done = list(_parallel(one, range(0, size, length), BLOCKS_AT_ONCE))
    return [BlobBlock(block_id=name) for name, _ in done], sum(sent for _, sent in done)


def _unchanged(path: Path, before: os.stat_result) -> None:
    now = path.stat()
    if (now.st_size, now.st_mtime_ns) != (before.st_size, before.st_mtime_ns):
        raise StorageError(f"{path} was changed while it was pushed; push it again once nothing writes to it")


def listing(client: ContainerClient, prefix: str = "") -> list[Stored]:
    """The blobs under a prefix, in the order of their names."""
    with explained(f"container '{client.container_name}'"):
        found = list(client.list_blobs(name_starts_with=prefix or None, include=["metadata"]))
    return [
        Stored(
            name=item.name,
            bytes=item.size,
            md5=_hex(item.content_settings.content_md5),
            sha256=(item.metadata or {}).get("sha256", ""),
            etag=item.etag.strip('"'),
            modified=item.last_modified.isoformat(),
        )
        for item in found
    ]


def pull(client: ContainerClient, blobs: list[Stored], folder: Path, progress: Progress = lambda _: None) -> Moved:
    """Fetch blobs into a folder under their names, verified.

    A file that is there with the blob's content is skipped; an interrupted one goes on where it stopped, as long as
    the blob is still the same. A file appears under its name only when it is whole and its checksum agrees.
    """
    if not blobs:
        raise EdgemlError(f"there is no blob to pull from container '{client.container_name}'; check the prefix", 1)
    places = [_place(folder, blob.name) for blob in blobs]

    def one(item: tuple[Stored, Path]) -> int | None:
        return _pull_one(client.get_blob_client(item[0].name), *item, progress)

    return _each(one, list(zip(blobs, places, strict=True)), lambda item: item[0].name)


def _place(folder: Path, name: str) -> Path:
    """Where a blob lands. A name can hold anything, so one that would land outside the folder is refused."""
    parts = PurePosixPath(name).parts
    if not parts or name.startswith("/") or name.endswith("/") or ".." in parts or "\\" in name or "\0" in name:
        raise EdgemlError(f"the blob name '{name}' is not a path within a folder; it is not pulled", 1)
    path = folder.joinpath(*parts)
    if not path.parent.resolve().is_relative_to(folder.resolve()):
        raise EdgemlError(f"{path.parent} is a link out of {folder}; remove it", 1)
    return path


def _pull_one(client: BlobClient, blob: Stored, path: Path, progress: Progress) -> int | None:
    """Bytes that were fetched, or None if the file was there already."""
    if path.is_file() and path.stat().st_size == blob.bytes and _agrees(blob, *hashes(path), default=False):
        progress(blob.bytes)
        return None
    path.parent.mkdir(parents=True, exist_ok=True)
    # The etag is in the name: the part of another version of the blob is not taken for one of this.
    part = path.with_name(f".{path.name}.{re.sub(r'[^0-9A-Za-z]', '', blob.etag)}.part")
    for old in path.parent.glob(f".{_escaped(path.name)}.*.part"):
        if old != part:
            old.unlink()
    with part.open("ab") as stream:
        have = min(stream.tell(), blob.bytes)
        stream.truncate(have)
        progress(have)
        for chunk in chunks(client, size=blob.bytes, etag=blob.etag, start=have):
            stream.write(chunk)
            progress(len(chunk))
    if not _agrees(blob, *hashes(part), default=True):
        part.unlink()
        raise StorageError(f"blob '{blob.name}' does not match its stored checksum; pull again, or push it again")
    part.replace(path)
    return blob.bytes - have


def _escaped(name: str) -> str:
    from glob import escape

    return escape(name)


def _agrees(blob: Stored, md5: str, sha256: str, *, default: bool) -> bool:
    """Whether content is what was stored, by every checksum that the service keeps; `default` if it keeps none."""
    if not (blob.md5 or blob.sha256):
        return default
    return blob.md5 in ("", md5) and blob.sha256 in ("", sha256)


def hashes(path: Path) -> tuple[str, str]:
    """MD5 and SHA-256 of a file, hexadecimal."""
    md5, sha256 = hashlib.md5(usedforsecurity=False), hashlib.sha256()
    with path.open("rb") as stream:
        while data := stream.read(1 << 20):
            md5.update(data)
            sha256.update(data)
    return md5.hexdigest(), sha256.hexdigest()


def _hex(md5: bytes | bytearray | None) -> str:
    return bytes(md5).hex() if md5 else ""


def _kind(path: Path) -> str:
    kinds = {".csv": "text/csv", ".parquet": "application/vnd.apache.parquet", ".json": "application/json"}
    return kinds.get(path.suffix.lower(), "application/octet-stream")


def _each(one: Callable[[Any], int | None], items: Iterable[Any], name: Callable[[Any], str]) -> Moved:
    work = list(items)
    done = dict(zip(map(name, work), _parallel(one, work, FILES_AT_ONCE), strict=True))
    return Moved(
        moved=[name for name, sent in done.items() if sent is not None],
        skipped=[name for name, sent in done.items() if sent is None],
        bytes=sum(sent or 0 for sent in done.values()),
    )


def _parallel(one: Callable[[Any], Any], items: Iterable[Any], width: int) -> Iterator[Any]:
    """Results in order; the first failure ends what has not begun."""
    with ThreadPoolExecutor(width) as pool:
        futures = [pool.submit(one, item) for item in items]
        try:
            for future in futures:
                yield future.result()
        finally:
            for future in futures:
                future.cancel()
