"""`edgeml data`: private rows into the container, out of it, and made up for trying."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from edgeml.errors import EdgemlError

if TYPE_CHECKING:
    from azure.storage.blob import ContainerClient

    from edgeml.storage.transfer import Moved

HELP = (
    "Push, list and pull the blobs of the private container, or make tables to try things with.\n"
    "The settings say which account and container: the embedded storage, which is started for as long as it is\n"
    "needed, or a real Azure Stack Hub."
)
EXAMPLES = [
    "edgeml data sample --out data/sample            # the breast-cancer sample as four CSV files",
    "edgeml data push data/sample --prefix patients/  # into the private container",
    "edgeml data list --prefix patients/",
    "edgeml data pull data/back --prefix patients/",
    "edgeml data synth --rows 1000000 --files 4 --out data/load",
]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    actions = parser.add_subparsers(dest="action", required=True, metavar="push|list|pull|register|sample|synth")
    push = actions.add_parser("push", help="store files; what is there already is skipped")
    push.add_argument("paths", nargs="+", type=Path, metavar="PATH", help="file or folder")
    listed = actions.add_parser("list", help="list blobs with size and checksum")
    pull = actions.add_parser("pull", help="fetch blobs; goes on where an interrupted pull stopped")
    pull.add_argument("folder", type=Path, metavar="DEST", help="folder to fetch into")
    for action in (push, listed, pull):
        action.add_argument("--prefix", default="", help="put before, or demanded of, each blob name")
        action.add_argument("--container", default="", help="container (default: the settings')")
    register = actions.add_parser("register", help="let the Azure ML workspace know of the rows, by reference only")
    register.add_argument("datastore", help="its name in the workspace, as the residency policy has it")
    register.add_argument("--prefix", default="", help="with --fingerprint: which rows")
    register.add_argument(
        "--fingerprint", default="", help="of the rows, from ingest_blobs' manifest: makes a data asset"
    )
    register.add_argument("--name", default="rows", metavar="ASSET", help="of the data asset (default: %(default)s)")
    sample = actions.add_parser("sample", help="write the breast-cancer sample as four CSV files")
    sample.add_argument("--out", type=Path, default=Path("data/sample"), metavar="DIR", help="default: data/sample")
    synth = actions.add_parser("synth", help="write a made-up table of mixed types, of any size")
    synth.add_argument("--rows", type=int, required=True, metavar="N")
    synth.add_argument("--seed", type=int, default=20260101, help="same seed, same bytes (default: 20260101)")
    synth.add_argument("--files", type=int, default=1, metavar="K", help="number of CSV files (default: 1)")
    synth.add_argument("--out", type=Path, default=Path("data/synth"), metavar="DIR", help="default: data/synth")
    for action in (push, listed, pull, sample, synth):
        action.add_argument("--json", action="store_true", help="print JSON")


def execute(args: argparse.Namespace) -> int:
    from edgeml.storage.blob_client import StorageError

    actions = {"push": _push, "list": _list, "pull": _pull, "register": _register, "sample": _sample, "synth": _synth}
    try:
        return actions[args.action](args)
    except StorageError as error:
        raise EdgemlError(str(error), 1) from None


def _push(args: argparse.Namespace) -> int:
    from edgeml.storage import transfer

    files = transfer.sources(args.paths, args.prefix)
    total = sum(path.stat().st_size for path in files.values())
    with _container(args.container) as client, bar("push", total, "B") as progress:
        done = transfer.push(client, files, progress)
    return _moved("pushed", done, args.json)


def _list(args: argparse.Namespace) -> int:
    from edgeml.storage import transfer

    with _container(args.container) as client:
        blobs = transfer.listing(client, args.prefix)
    if args.json:
        print(json.dumps([asdict(blob) for blob in blobs], indent=2, sort_keys=True))
    else:
        for blob in blobs:
            print(f"{blob.bytes:>14,}  {blob.md5 or '-':<32}  {blob.modified[:19]}  {blob.name}")
    return 0


def _pull(args: argparse.Namespace) -> int:
    from edgeml.storage import transfer

    with _container(args.container) as client:
        blobs = transfer.listing(client, args.prefix)
        with bar("pull", sum(blob.bytes for blob in blobs), "B") as progress:
            done = transfer.pull(client, blobs, args.folder, progress)
    return _moved("pulled", done, args.json)


def _register(args: argparse.Namespace) -> int:
    from edgeml import settings as all_settings
    from edgeml.azure import data
    from edgeml.azure.workspace import Workspace
    from edgeml.commands.submit import say

    settings = all_settings.load()
    workspace = Workspace(settings)
    data.register_datastore(workspace, args.datastore, settings.storage, say)
    if args.fingerprint:
        print(data.register_asset(workspace, args.name, args.datastore, args.prefix, args.fingerprint, say))
    return 0


def _sample(args: argparse.Namespace) -> int:
    from edgeml.storage import sample

    return _written(sample.write(args.out), args.json)


def _synth(args: argparse.Namespace) -> int:
    from edgeml.storage import synth

    if args.seed < 0:
        raise EdgemlError("the seed must not be negative")
    with bar("synth", args.rows, " rows") as progress:
        paths = synth.write(args.out, args.rows, seed=args.seed, files=args.files, progress=progress)
    return _written(paths, args.json)


@contextmanager
def _container(name: str) -> Iterator[ContainerClient]:
    """The client of the named container, or of the settings', while the storage is up."""
    from edgeml import settings, storage
    from edgeml.storage import blob_client

    with storage.session() as environment:
        yield blob_client.container(name or settings.load().storage.container, environment)


def _moved(did: str, done: Moved, as_json: bool) -> int:
    if as_json:
        print(json.dumps(asdict(done), indent=2, sort_keys=True))
    else:
        print(f"{did} {len(done.moved)} ({done.bytes:,} bytes), {len(done.skipped)} were there already")
    return 0


def _written(paths: list[Path], as_json: bool) -> int:
    if as_json:
        print(json.dumps([{"path": str(path), "bytes": path.stat().st_size} for path in paths], indent=2))
    else:
        for path in paths:
            print(f"{path.stat().st_size:>14,}  {path}")
    return 0


@contextmanager
def bar(what: str, total: int, unit: str) -> Iterator[Callable[[int], object]]:
    """A progress bar on standard error while it is a terminal; yields what to call with each advance."""
    if not sys.stderr.isatty():
        yield lambda _: None
        return
    from tqdm import tqdm

    colour = None if os.environ.get("NO_COLOR") else "cyan"
    with tqdm(total=total, desc=what, unit=unit, unit_scale=True, leave=False, colour=colour) as shown:
        yield shown.update
