"""Push, list and pull: what goes over the wire, what does not, and what is refused."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from azure.storage.blob import ContainerClient

from edgeml.errors import EdgemlError
from edgeml.storage import blob_client, transfer
from edgeml.storage.blob_client import StorageError

SMALL_BLOCK = 1 << 16


@pytest.fixture
def container(storage: Any, request: pytest.FixtureRequest) -> ContainerClient:
    """A container that is not there yet, of the test's own."""
    name = "t" + hashlib.sha256(request.node.nodeid.encode()).hexdigest()[:20]
    return blob_client.container(name, storage.environment)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "rows"
    (folder / "deeper").mkdir(parents=True)
    (folder / "a.csv").write_bytes(b"x\n1\n")
    (folder / "deeper/b.csv").write_bytes(b"x\n2\n")
    (folder / "empty.csv").write_bytes(b"")
    return folder


@pytest.fixture
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transfer, "BLOCK", SMALL_BLOCK)
    monkeypatch.setattr(blob_client, "CHUNK", SMALL_BLOCK)


def contents(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_there_and_back(container: ContainerClient, folder: Path, tmp_path: Path) -> None:
    files = transfer.sources([folder], "p/")
    done = transfer.push(container, files)
    assert sorted(done.moved) == ["p/a.csv", "p/deeper/b.csv", "p/empty.csv"] and done.bytes == 8
    blobs = transfer.listing(container, "p/")
    assert [(blob.name, blob.bytes, blob.md5, blob.sha256) for blob in blobs] == [
        (f"p/{name}", len(data), hashlib.md5(data).hexdigest(), hashlib.sha256(data).hexdigest())
        for name, data in sorted(contents(folder).items())
    ]
    assert len(transfer.pull(container, blobs, tmp_path / "back").moved) == 3
    assert contents(tmp_path / "back/p") == contents(folder)
    again = transfer.push(container, files)
    assert (again.moved, again.bytes, len(again.skipped)) == ([], 0, 3)
    again = transfer.pull(container, blobs, tmp_path / "back")
    assert (again.moved, again.bytes, len(again.skipped)) == ([], 0, 3)


def test_what_differs_is_moved_even_at_the_same_size(container: ContainerClient, folder: Path, tmp_path: Path) -> None:
    transfer.push(container, transfer.sources([folder]))
    (folder / "a.csv").write_bytes(b"x\n9\n")
    assert transfer.push(container, transfer.sources([folder])).moved == ["a.csv"]
    back = tmp_path / "back"
    back.mkdir()
    (back / "a.csv").write_bytes(b"x\n1\n")
    transfer.pull(container, transfer.listing(container, "a"), back)
    assert (back / "a.csv").read_bytes() == b"x\n9\n"


def test_an_interrupted_push_sends_only_the_blocks_that_are_missing(
    container: ContainerClient, tmp_path: Path, small_blocks: None
) -> None:
    large = tmp_path / "large.csv"
    large.write_bytes(os.urandom(5 * SMALL_BLOCK + 17))
    container.create_container()
    blob = container.get_blob_client("large.csv")
    # What a killed push leaves: some blocks, none committed.
    transfer._stage(blob, _head(large, 3 * SMALL_BLOCK), 3 * SMALL_BLOCK, lambda _: None)
    seen: list[int] = []
    done = transfer.push(container, {"large.csv": large}, seen.append)
    assert done.bytes == 2 * SMALL_BLOCK + 17 and sum(seen) == large.stat().st_size
    assert blob.download_blob().readall() == large.read_bytes()
    assert transfer.listing(container)[0].md5 == hashlib.md5(large.read_bytes()).hexdigest()


def _head(path: Path, size: int) -> Path:
    head = path.with_suffix(".head")
    head.write_bytes(path.read_bytes()[:size])
    return head


def test_a_file_that_changes_while_it_is_pushed_is_refused(
    container: ContainerClient, tmp_path: Path, small_blocks: None
) -> None:
    large = tmp_path / "large.csv"
    large.write_bytes(os.urandom(3 * SMALL_BLOCK))

    def grow(_: int) -> None:
        with large.open("ab") as stream:
            stream.write(b"more")

    with pytest.raises(StorageError, match="was changed while it was pushed"):
        transfer.push(container, {"large.csv": large}, grow)
    assert transfer.listing(container) == []


def test_an_interrupted_pull_goes_on_where_it_stopped(
    container: ContainerClient, tmp_path: Path, small_blocks: None
) -> None:
    content = os.urandom(4 * SMALL_BLOCK + 5)
    (tmp_path / "large.csv").write_bytes(content)
    transfer.push(container, {"large.csv": tmp_path / "large.csv"})
    back = tmp_path / "back"

    class KilledError(Exception):
        pass

    def kill(size: int) -> None:
        if size == SMALL_BLOCK:
            raise KilledError

    with pytest.raises(KilledError):
        transfer.pull(container, transfer.listing(container), back, kill)
    assert not (back / "large.csv").exists(), "nothing half-written under its name"
    (part,) = back.iterdir()
    have = part.stat().st_size
    assert 0 < have < len(content)
    done = transfer.pull(container, transfer.listing(container), back)
    assert done.bytes == len(content) - have
    assert contents(back) == {"large.csv": content}


def test_a_part_of_another_version_is_not_gone_on_with(container: ContainerClient, tmp_path: Path) -> None:
    container.create_container()
    container.upload_blob("a.csv", b"new")
    back = tmp_path / "back"
    back.mkdir()
    (back / ".a.csv.0OTHER.part").write_bytes(b"ol")
    assert transfer.pull(container, transfer.listing(container), back).bytes == 3
    assert contents(back) == {"a.csv": b"new"}


def test_a_part_that_is_damaged_is_found_out(container: ContainerClient, folder: Path, tmp_path: Path) -> None:
    transfer.push(container, {"a.csv": folder / "a.csv"})
    (blob,) = transfer.listing(container)
    back = tmp_path / "back"
    back.mkdir()
    etag = "".join(filter(str.isalnum, blob.etag))
    (back / f".a.csv.{etag}.part").write_bytes(b"??")
    with pytest.raises(StorageError, match=r"'a\.csv' does not match its stored checksum"):
        transfer.pull(container, [blob], back)
    assert contents(back) == {}
    transfer.pull(container, [blob], back)
    assert contents(back) == {"a.csv": b"x\n1\n"}


def test_a_blob_whose_stored_checksum_is_wrong_is_refused(container: ContainerClient, tmp_path: Path) -> None:
    container.create_container()
    container.upload_blob("meta.csv", b"x", metadata={"sha256": "0" * 64})
    with pytest.raises(StorageError, match="checksum"):
        transfer.pull(container, transfer.listing(container), tmp_path / "back")


@pytest.mark.parametrize("link", ["file", "folder"])
def test_a_link_out_of_the_folder_is_refused_one_within_is_not(folder: Path, tmp_path: Path, link: str) -> None:
    (folder / "within.csv").symlink_to(folder / "a.csv")
    assert "within.csv" in transfer.sources([folder])
    secret = tmp_path / "secret"
    secret.mkdir()
    (secret / "s.csv").write_text("s")
    (folder / "out").symlink_to(secret / "s.csv" if link == "file" else secret)
    with pytest.raises(EdgemlError, match="is a link out of"):
        transfer.sources([folder])


def test_sources_that_are_refused(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("other")
    (tmp_path / "nothing").mkdir()
    for paths, message in [
        ([tmp_path / "gone"], "neither a file nor a folder"),
        ([folder, tmp_path / "a.csv"], "would both become the blob 'a.csv'"),
        ([tmp_path / "nothing"], "no file to push"),
    ]:
        with pytest.raises(EdgemlError, match=message):
            transfer.sources(paths)
    with pytest.raises(EdgemlError, match="880"):
        transfer.sources([folder], "p" * 880)


@pytest.mark.parametrize("name", ["../out.csv", "a/../../out.csv", "/etc/out.csv", "a\\..\\out.csv", "folder/"])
def test_a_blob_whose_name_leads_out_of_the_folder_is_not_pulled(name: str, tmp_path: Path) -> None:
    blob = transfer.Stored(name, 1, "", "", "0x1", "")
    unreached = blob_client.container("c", {**_anywhere(), "EDGEML_STORAGE_ACCOUNT_KEY": "a2V5"})
    with pytest.raises(EdgemlError, match="not a path within"):
        transfer.pull(unreached, [blob], tmp_path / "back")


def _anywhere() -> dict[str, str]:
    return {"EDGEML_STORAGE_ACCOUNT_URL": "https://127.0.0.1:9/edgeml"}


def edgeml(root: Path, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", "edgeml", *words], cwd=root, capture_output=True, text=True)


def test_the_commands(storage: Any, folder: Path) -> None:
    root = storage.root
    pushed = edgeml(root, "data", "push", str(folder), "--prefix", "cli/", "--json")
    assert sorted(json.loads(pushed.stdout)["moved"]) == ["cli/a.csv", "cli/deeper/b.csv", "cli/empty.csv"]
    assert pushed.stderr == "", "no bar where there is no terminal"
    listed = edgeml(root, "data", "list", "--prefix", "cli/", "--json")
    assert [blob["name"] for blob in json.loads(listed.stdout)] == ["cli/a.csv", "cli/deeper/b.csv", "cli/empty.csv"]
    assert edgeml(root, "data", "list").stdout.count("cli/") == 3
    pulled = edgeml(root, "data", "pull", "back", "--prefix", "cli/")
    assert pulled.stdout == "pulled 3 (8 bytes), 0 were there already\n"
    assert contents(root / "back/cli") == contents(folder)


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (["push", "gone"], 2, "neither a file nor a folder"),
        (["list", "--container", "not-there"], 1, "the container does not exist"),
        (["list", "--container", "N!"], 1, "the storage answered 400"),
        (["pull", "back", "--prefix", "none/"], 1, "no blob to pull"),
        (["synth", "--rows", "0"], 2, "at least one row"),
        (["synth", "--rows", "5", "--seed", "-1"], 2, "negative"),
        (["nothing"], 2, "invalid choice"),
    ],
)
def test_commands_that_fail_say_why_in_one_line(storage: Any, words: list[str], code: int, message: str) -> None:
    if words[0] == "pull":
        edgeml(storage.root, "data", "push", "edgeml.toml")
    done = edgeml(storage.root, "data", *words)
    assert (done.returncode, "Traceback" in done.stderr) == (code, False)
    assert message in done.stderr.splitlines()[-1]
