"""What the gate sees: files once, archives within limits, text through every encoding; and no name is repeated."""

from __future__ import annotations

import base64
import bz2
import gzip
import html
import io
import json
import lzma
import os
import pickle
import quopri
import socket
import tarfile
import urllib.parse
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import polars as pl
import pytest
from onnx import helper, numpy_helper

from edgeml.airlock.finding import Artifact
from edgeml.airlock.intake import formats, inventory, unwrap, views

ROW = "Margaret O'Neill 17.993 10.381 122.81 1001.5"
DATA = ROW.encode()
NUMBERS = np.array([[17.993, 10.381, 122.81, 1001.5]] * 5)


def artifact(data: bytes, name: str = "") -> Artifact:
    return Artifact("entry-1", formats.of(data, name), data)


def seen(data: bytes, name: str = "") -> str:
    """All text of a file and of what is inside of it."""
    whole = [artifact(data, name)]
    return "\n".join(text.text for text in views.of([*whole, *unwrap.unwrap(whole).artifacts]))


def saved(save: Callable[[io.BytesIO], object]) -> bytes:
    stream = io.BytesIO()
    save(stream)
    return stream.getvalue()


def zipped(members: dict[str, bytes], comment: bytes = b"") -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        archive.comment = comment
        for name, data in members.items():
            archive.writestr(name, data)
    return stream.getvalue()


def tarred(mode: str = "w") -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode=mode) as archive:  # type: ignore[call-overload]
        member = tarfile.TarInfo("notes")
        member.size = len(DATA)
        archive.addfile(member, io.BytesIO(DATA))
    return stream.getvalue()


def model() -> bytes:
    text = helper.make_tensor("t", onnx.TensorProto.STRING, [1], [DATA])
    node = helper.make_node("Identity", ["t"], ["y"], name="n")
    graph = helper.make_graph(
        [node], "g", [], [helper.make_tensor_value_info("y", onnx.TensorProto.STRING, [1])], [text]
    )
    return bytes(helper.make_model(graph).SerializeToString())


DRESSES: dict[str, bytes] = {
    "UTF-16 with a mark": ROW.encode("utf-16"),
    "UTF-16": ROW.encode("utf-16-le"),
    "UTF-16, big-endian": ROW.encode("utf-16-be"),
    "UTF-32": ROW.encode("utf-32-le"),
    "base64": base64.b64encode(DATA),
    "base64 for URLs": base64.urlsafe_b64encode(DATA),
    "base64 in lines": base64.encodebytes(DATA * 5),
    "base64 in base64 in base64": base64.b64encode(base64.b64encode(base64.b64encode(DATA))),
    "base32": base64.b32encode(DATA),
    "base85": base64.b85encode(DATA),
    "hexadecimal": DATA.hex().encode(),
    "hexadecimal with spaces": DATA.hex(" ").encode(),
    "gzip in base64": base64.b64encode(gzip.compress(DATA)),
    "zlib in base64": base64.b64encode(zlib.compress(DATA)),
    "ZIP in base64": base64.b64encode(zipped({"a": DATA})),
    "URL": urllib.parse.quote(ROW, safe="").replace("1", "%31").encode(),
    "HTML entities": "".join(f"&#{ord(letter)};" for letter in ROW).encode(),
    "named entities": html.escape(ROW).replace("1", "&#49;").encode(),
    "Unicode escapes": "".join(f"\\u{ord(letter):04x}" for letter in ROW).encode(),
    "quoted-printable": quopri.encodestring(DATA.replace(b"1", b"=31")).replace(b"=3D31", b"=31"),
    "full-width letters": "".join(chr(ord(c) + 0xFEE0) if "!" <= c <= "~" else c for c in ROW).encode(),
    "invisible letters": "\u200b".join(ROW).encode(),
    "decimal commas": ROW.replace(".", ",").encode(),
    "a list of bytes": str(list(DATA)).encode(),
    "gzip": gzip.compress(DATA),
    "bz2": bz2.compress(DATA),
    "xz": lzma.compress(DATA),
    "behind a gzip stream": gzip.compress(b"nothing") + DATA,
    "two gzip streams": gzip.compress(b"nothing") + gzip.compress(DATA),
    "ZIP": zipped({"a.txt": DATA}),
    "a ZIP's comment": zipped({"a.txt": b""}, DATA),
    "before a ZIP": DATA + zipped({"a.txt": b""}),
    "ZIP in gzip in ZIP": zipped({"a": gzip.compress(zipped({"b": DATA}))}),
    "tar": tarred(),
    "tar.xz": tarred("w:xz"),
    "npy": saved(lambda stream: np.save(stream, NUMBERS)),
    "npy of float32": saved(lambda stream: np.save(stream, NUMBERS.astype("float32"))),
    "npz": saved(lambda stream: np.savez(stream, x=NUMBERS)),
    "pickle": pickle.dumps({"row": NUMBERS}),
    "pickle of float32": pickle.dumps(NUMBERS.astype("float32")),
    "memory in base64": base64.b64encode(NUMBERS.tobytes()),
    "Parquet": saved(pl.DataFrame(NUMBERS).write_parquet),
    "Arrow": saved(pl.DataFrame(NUMBERS).write_ipc),
    "a notebook": json.dumps({"cells": [{"outputs": [base64.b64encode(DATA).decode()]}]}).encode(),
    "JSON by lines": b'{"a": 17.993, "b": [10.381]}\n{"a": 1}\n',
    "ONNX": model(),
}


@pytest.mark.parametrize("title", DRESSES)
def test_text_is_seen_through(title: str) -> None:
    assert "17.993" in seen(DRESSES[title])


@pytest.mark.parametrize("title", ["ONNX", "ZIP in gzip in ZIP", "UTF-16", "hexadecimal", "pickle"])
def test_and_nothing_of_it_is_seen_where_it_is_not(title: str) -> None:
    assert "99.125" not in seen(DRESSES[title])


def test_places_name_known_keys_only() -> None:
    document = json.dumps({"metrics": {"Margaret": {"value": "a text"}}, "Ripon": ["another"]}).encode()
    texts = views.of([artifact(document)], frozenset({"metrics", "value"}))
    places = {text.place for text in texts}
    assert "$.metrics.#0.value" in places
    assert not any(name in place for name in ("Margaret", "Ripon") for place in places)
    assert any("Ripon" in text.text and "keys" in text.place for text in texts)


FORMATS: dict[str, tuple[bytes, str]] = {
    "json": (b'{"a": 1}', "a.json"),
    "onnx": (model(), "x"),
    "text": (b"a,b\n1,2\n", "a.csv"),
    "binary": (bytes(range(256)), "a.onnx2"),
    "html": (b"<!DOCTYPE html><html>", "a.json.txt"),
    "svg": (b'<?xml version="1.0"?><svg xmlns="x"/>', "a.svg"),
    "notebook": (b'{"cells": []}', "a.ipynb"),
    "pickle": (pickle.dumps([1]), "metrics.json"),
    "tar": (tarred(), "model.onnx"),
}


@pytest.mark.parametrize("expected", FORMATS)
def test_a_format_is_told_by_its_bytes(expected: str) -> None:
    assert formats.of(*FORMATS[expected]) == expected


# --- archives ---------------------------------------------------------------------------------------


def nested(depth: int) -> bytes:
    data = DATA
    for _ in range(depth):
        data = gzip.compress(data)
    return data


def linked() -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as archive:
        member = tarfile.TarInfo("link")
        member.type, member.linkname = tarfile.SYMTYPE, "/etc/passwd"
        archive.addfile(member)
    return stream.getvalue()


ARCHIVES: dict[str, tuple[bytes, str]] = {
    "a bomb": (gzip.compress(bytes(unwrap.BYTES + 1), 1), "archive.limit"),
    "too many members": (zipped({f"m{number}": b"" for number in range(unwrap.MEMBERS + 1)}), "archive.limit"),
    "nested too deep": (nested(unwrap.DEPTH + 1), "archive.limit"),
    "a path upwards": (zipped({"../../etc/cron.d/x": DATA}), "archive.member"),
    "an absolute path": (zipped({"/etc/x": DATA}), "archive.member"),
    "a link": (linked(), "archive.member"),
    "half a ZIP": (zipped({"a": DATA})[:40], "archive.broken"),
    "no gzip": (b"\x1f\x8b nothing", "archive.broken"),
    "a ZIP behind JSON": (b'{"a": 1}' + zipped({"a": DATA}), "archive.hidden"),
}


@pytest.mark.parametrize("title", ARCHIVES)
def test_an_archive_that_cannot_be_looked_into_is_told(title: str) -> None:
    data, rule = ARCHIVES[title]
    findings = unwrap.unwrap([artifact(data, "metrics.json")]).findings
    assert [finding.rule for finding in findings] == [rule]
    assert all("Margaret" not in str(finding) and "etc" not in str(finding) for finding in findings)


# --- the inventory ----------------------------------------------------------------------------------


def rules_of(folder: Path) -> dict[str, str]:
    return {finding.file: finding.rule for finding in inventory.take([folder]).findings}


def test_an_unlisted_file_is_read_and_never_named(tmp_path: Path) -> None:
    (tmp_path / "Margaret.csv").write_bytes(DATA)
    (tmp_path / "deep" / "er").mkdir(parents=True)
    (tmp_path / "deep" / "er" / "metrics.json").write_text("{}")
    (tmp_path / "empty").mkdir()
    found = inventory.take([tmp_path])
    assert {finding.rule for finding in found.findings} == {"inventory.unlisted"}
    assert [a.data for a in found.artifacts if a.name.endswith(".csv")] == [DATA]
    assert {text.text for text in found.names} >= {"Margaret.csv", "deep/er/metrics.json"}
    assert all("Margaret" not in str(finding) for finding in found.findings)
    assert found.listed == {}


def bind(path: Path) -> None:
    here = Path.cwd()
    os.chdir(path.parent)  # a socket's path must be short
    try:
        socket.socket(socket.AF_UNIX).bind(path.name)
    finally:
        os.chdir(here)


SPECIALS: dict[str, Callable[[Path], object]] = {
    "a link to a file": lambda path: path.symlink_to("/etc/hostname"),
    "a link to a folder": lambda path: path.symlink_to("/etc"),
    "a link to nothing": lambda path: path.symlink_to("nothing"),
    "a FIFO": os.mkfifo,
    "a socket": bind,
}


@pytest.mark.parametrize("name", ["metrics.json", "other.txt"])
@pytest.mark.parametrize("title", SPECIALS)
def test_what_is_no_regular_file_is_refused_and_not_opened(title: str, name: str, tmp_path: Path) -> None:
    SPECIALS[title](tmp_path / name)
    found = inventory.take([tmp_path])
    assert "inventory.kind" in {finding.rule for finding in found.findings}
    assert found.artifacts == []


def test_a_device_is_refused(tmp_path: Path) -> None:
    try:
        os.mknod(tmp_path / "metrics.json", 0o600 | 0o020000, os.makedev(1, 5))  # /dev/zero
    except PermissionError:
        pytest.skip("only root may make a device")
    assert rules_of(tmp_path) == {"metrics.json": "inventory.kind"}


def test_the_content_must_be_what_the_name_says(tmp_path: Path) -> None:
    (tmp_path / "metrics.json").write_bytes(pickle.dumps([1]))
    (tmp_path / "model.onnx").write_bytes(zipped({"a": DATA}))
    assert rules_of(tmp_path) == {"metrics.json": "inventory.format", "model.onnx": "inventory.format"}


def test_the_same_name_twice_leaves_once_at_most(tmp_path: Path) -> None:
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "metrics.json").write_text(f'{{"from": "{folder}"}}')
    found = inventory.take([tmp_path / "a", tmp_path / "b"])
    assert [finding.rule for finding in found.findings] == ["inventory.unlisted"]
    assert len(found.artifacts) == 2


def test_thousands_of_files_are_not_looked_at_for_ever(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inventory, "ENTRIES", 20)
    for number in range(40):
        (tmp_path / f"{number}.txt").write_text("1")
    assert rules_of(tmp_path)[""] == "inventory.many"


def test_numbers_of_a_model_are_no_text() -> None:
    tensor = numpy_helper.from_array(np.frombuffer(DATA.ljust(48), "float32"), "w")
    graph = helper.make_graph([helper.make_node("Identity", ["w"], ["y"])], "g", [], [], [tensor])
    assert "Margaret" not in seen(helper.make_model(graph).SerializeToString())
