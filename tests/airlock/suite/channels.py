"""Leaks: containers, links and side channels, and private values within the files that may leave."""

from __future__ import annotations

import codecs
import gzip
import io
import json
import marshal
import os
import socket
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from .files import csv_of, tarred, zipped
from .release import on_disk
from .statistics import edit
from .table import Table
from .vectors import add, leak, records, some

CONTAINERS = "containers"
CHANNELS = "channels"


def _text(table: Table, rng: np.random.Generator, rows: int = 5) -> str:
    return csv_of(table, some(table, rng, rows))


def _person(table: Table, rng: np.random.Generator) -> str:
    return table.texts(table.form.person)[some(table, rng, 1)[0]]


# --- containers -----------------------------------------------------------------------------------


@leak(CONTAINERS, content=False)
def symbolic_link(folder: Path, table: Table, rng: np.random.Generator) -> None:
    (folder / "sample.parquet").symlink_to(on_disk(table)[0] / "part-0.parquet")


@leak(CONTAINERS, content=False)
def symbolic_link_in_place_of_a_file(folder: Path, table: Table, rng: np.random.Generator) -> None:
    (folder / "metrics.json").unlink()
    (folder / "metrics.json").symlink_to(on_disk(table)[0] / "part-0.parquet")


@leak(CONTAINERS, content=False)
def symbolic_link_to_a_folder(folder: Path, table: Table, rng: np.random.Generator) -> None:
    (folder / "cache").symlink_to(on_disk(table)[0], target_is_directory=True)


@leak(CONTAINERS)
def hard_link(folder: Path, table: Table, rng: np.random.Generator) -> None:
    source = on_disk(table)[0].parent / "linked.csv"
    if not source.exists():
        source.write_text(csv_of(table, list(range(50))))
    os.link(source, folder / "sample.csv")


@leak(CONTAINERS, content=False)
def fifo(folder: Path, table: Table, rng: np.random.Generator) -> None:
    os.mkfifo(folder / "metrics.pipe")


@leak(CONTAINERS, content=False)
def fifo_in_place_of_a_file(folder: Path, table: Table, rng: np.random.Generator) -> None:
    (folder / "metrics.json").unlink()
    os.mkfifo(folder / "metrics.json")


@leak(CONTAINERS, content=False)
def unix_socket(folder: Path, table: Table, rng: np.random.Generator) -> None:
    """Also the stand-in for a device, which only root can make."""
    home = Path.cwd()
    os.chdir(folder)  # the name of a socket may have 107 bytes only
    try:
        socket.socket(socket.AF_UNIX).bind("run.sock")
    finally:
        os.chdir(home)


@leak(CONTAINERS)
def zip_slip(folder: Path, table: Table, rng: np.random.Generator) -> None:
    (folder / "logs.zip").write_bytes(zipped({"../../approved/sample.csv": _text(table, rng).encode()}))


@leak(CONTAINERS)
def zip_comment(folder: Path, table: Table, rng: np.random.Generator) -> None:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        archive.writestr("log.txt", "done\n")
        archive.comment = _text(table, rng, 1).encode()
    (folder / "logs.zip").write_bytes(stream.getvalue())


@leak(CONTAINERS)
def member_named_after_a_person(folder: Path, table: Table, rng: np.random.Generator) -> None:
    (folder / "logs.tar").write_bytes(tarred({f"{_person(table, rng)}.txt": b"done\n"}, "w"))


@leak(CONTAINERS)
def comment_of_gzip(folder: Path, table: Table, rng: np.random.Generator) -> None:
    stream = io.BytesIO()
    with gzip.GzipFile(_person(table, rng), "wb", fileobj=stream) as file:
        file.write(b"done\n")
    (folder / "train.log.gz").write_bytes(stream.getvalue())


@leak(CONTAINERS, content=False)
def zip_bomb(folder: Path, table: Table, rng: np.random.Generator) -> None:
    """A hundred megabytes of nothing in a hundred kilobytes, with a row behind them."""
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        for member in range(10):
            archive.writestr(f"{member}.bin", bytes(10 << 20))
        archive.writestr("z.csv", _text(table, rng))
    (folder / "logs.zip").write_bytes(stream.getvalue())


@leak(CONTAINERS)
def archive_in_depth(folder: Path, table: Table, rng: np.random.Generator) -> None:
    data = _text(table, rng).encode()
    for depth in range(12):
        data = zipped({f"{depth}.zip": data})
    (folder / "logs.zip").write_bytes(data)


@leak(CONTAINERS)
def model_and_archive_in_one(folder: Path, table: Table, rng: np.random.Generator) -> None:
    """A file that is a model from its front and an archive from its end."""
    path = folder / "model.onnx"
    path.write_bytes(path.read_bytes() + zipped({"sample.csv": _text(table, rng).encode()}))


@leak(CONTAINERS)
def bytes_behind_the_model(folder: Path, table: Table, rng: np.random.Generator) -> None:
    path = folder / "model.onnx"
    path.write_bytes(path.read_bytes() + b"\n" + _text(table, rng).encode())


@leak(CONTAINERS)
def bytes_behind_json(folder: Path, table: Table, rng: np.random.Generator) -> None:
    path = folder / "metrics.json"
    path.write_text(path.read_text() + "\n" * 200 + _text(table, rng))


@leak(CONTAINERS)
def bytes_behind_an_image(folder: Path, table: Table, rng: np.random.Generator) -> None:
    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = struct.pack(">IIBBBBB", 1, 1, 8, 0, 0, 0, 0)
    image = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(b"\0\0")) + chunk(b"IEND", b"")
    (folder / "plot.png").write_bytes(image + _text(table, rng).encode())


@leak(CONTAINERS)
def table_named_like_a_model(folder: Path, table: Table, rng: np.random.Generator) -> None:
    (folder / "model.onnx").write_text(_text(table, rng, 20))


@leak(CONTAINERS)
def archive_named_like_metrics(folder: Path, table: Table, rng: np.random.Generator) -> None:
    (folder / "metrics.json").write_bytes(zipped({"sample.csv": _text(table, rng, 20).encode()}))


@leak(CONTAINERS)
def core_dump(folder: Path, table: Table, rng: np.random.Generator) -> None:
    """The head of an ELF core with the memory of a frame behind it, as a stand-in for a real one."""
    memory = rng.bytes(4096) + table.matrix()[:64].astype("float64").tobytes() + rng.bytes(4096)
    (folder / "core.4711").write_bytes(b"\x7fELF\x02\x01\x01" + bytes(9) + b"\x04\0\x3e\0" + memory)


@leak(CONTAINERS)
def compiled_cache(folder: Path, table: Table, rng: np.random.Generator) -> None:
    """Bytecode whose constants are records."""
    code = compile(f"SAMPLE = {records(table, some(table, rng, 4))!r}", "sample.py", "exec")
    (folder / "__pycache__").mkdir()
    (folder / "__pycache__" / "sample.cpython-311.pyc").write_bytes(bytes(16) + marshal.dumps(code))


@leak(CONTAINERS)
def object_of_git(folder: Path, table: Table, rng: np.random.Generator) -> None:
    text = _text(table, rng).encode()
    (folder / ".git" / "objects" / "ab").mkdir(parents=True)
    content = zlib.compress(b"blob %d\0" % len(text) + text)
    (folder / ".git" / "objects" / "ab" / "cdef0123456789").write_bytes(content)


@leak(CONTAINERS)
def header_of_tar(folder: Path, table: Table, rng: np.random.Generator) -> None:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w", format=tarfile.PAX_FORMAT) as archive:
        entry = tarfile.TarInfo("log.txt")
        entry.pax_headers = {"comment": _text(table, rng, 1)}
        archive.addfile(entry)
    (folder / "logs.tar").write_bytes(stream.getvalue())


# --- spellings ------------------------------------------------------------------------------------

HOMOGLYPHS = str.maketrans("aeopcxyABEHKMOPCTX", "аеорсхуАВЕНКМОРСТХ")
WIDE = {code: code + 0xFEE0 for code in range(0x21, 0x7F)}


def _spelled(name: str, change: Callable[[str], str | bytes], content: bool = True) -> None:
    """A vector that adds a text file of five rows, spelled another way."""

    def write(folder: Path, table: Table, rng: np.random.Generator) -> None:
        changed = change(_text(table, rng))
        (folder / "notes.txt").write_bytes(changed if isinstance(changed, bytes) else changed.encode())

    add(CHANNELS, name, write, content)


_spelled("utf_16", lambda text: text.encode("utf-16"))
_spelled("utf_16_without_mark", lambda text: text.encode("utf-16-be"))
_spelled("utf_32", lambda text: text.encode("utf-32"))
_spelled("homoglyphs", lambda text: text.translate(HOMOGLYPHS))
_spelled("full_width", lambda text: text.translate(WIDE))
_spelled("zero_width_between", lambda text: "\u200b".join(text))
_spelled("soft_hyphens", lambda text: "\u00ad".join(text))
_spelled("capitals", str.upper)
_spelled("utf_7", lambda text: text.encode("utf-7"))
_spelled("quoted_printable", lambda text: codecs.encode(text.encode(), "quopri"))
_spelled("uu_encoded", lambda text: codecs.encode(text.encode(), "uu"))
_spelled("ebcdic", lambda text: text.encode("cp037", "replace"), content=False)
_spelled("backwards", lambda text: text[::-1], content=False)
_spelled("rot_13", lambda text: codecs.encode(text, "rot13"), content=False)
_spelled("exclusive_or", lambda text: bytes(byte ^ 0x5A for byte in text.encode()), content=False)
_spelled("compressed_with_zlib", lambda text: zlib.compress(text.encode()))


# --- within what may leave, and beside it -----------------------------------------------------------


def _inside(name: str, file: str, change: Callable[[Any, Table, np.random.Generator], None]) -> None:
    def write(folder: Path, table: Table, rng: np.random.Generator) -> None:
        edit(folder / file, lambda document: change(document, table, rng))

    add(CHANNELS, name, write)


def _cells(table: Table, rng: np.random.Generator) -> list[float]:
    return [float(value or 0) for value in table.frame.select(table.names).row(some(table, rng, 1)[0])]


def _parameters(document: Any, table: Table, rng: np.random.Generator) -> None:
    document["parameters"] |= {f"p{index}": value for index, value in enumerate(_cells(table, rng))}


def _importances(document: Any, table: Table, rng: np.random.Generator) -> None:
    """The cells of one row in the place of the features' importances."""
    for feature, value in zip(document["features"], _cells(table, rng), strict=False):
        feature["mean"] = value


def _intervals(document: Any, table: Table, rng: np.random.Generator) -> None:
    """The cells of one row in the place of the metrics' intervals."""
    cells = iter(_cells(table, rng) * 2)
    for estimate in document["metrics"].values():
        estimate.update(value=next(cells), low=next(cells), high=next(cells))


def _reason(document: Any, table: Table, rng: np.random.Generator) -> None:
    document["reasons"] = ["checked with " + ", ".join(f"{value:g}" for value in _cells(table, rng))]


_inside("row_as_parameters", "signature.json", _parameters)
_inside("row_as_importances", "importance.json", _importances)
_inside("row_as_intervals", "metrics.json", _intervals)
_inside("row_as_a_reason", "promotion.json", _reason)
_inside("name_as_a_reason", "promotion.json", lambda d, t, rng: d.update(reasons=[f"agreed by {_person(t, rng)}"]))
_inside("name_as_a_method", "importance.json", lambda d, t, rng: d.update(method=f"shuffled {_person(t, rng)}"))
_inside("id_as_an_algorithm", "signature.json", lambda d, t, rng: d.update(algorithm=t.texts(t.form.key)[0]))


def _beside(name: str, file: str, text: Callable[[Table, np.random.Generator], str]) -> None:
    def write(folder: Path, table: Table, rng: np.random.Generator) -> None:
        path = folder / file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text(table, rng))

    add(CHANNELS, name, write)


def _escaped(table: Table, rng: np.random.Generator) -> str:
    """A name in JSON, every letter of it escaped."""
    return '{"note": "' + "".join(f"\\u{ord(letter):04x}" for letter in _person(table, rng)) + '"}'


def _twice(table: Table, rng: np.random.Generator) -> str:
    """A key given twice: most readers see the second alone."""
    return json.dumps({"a": _text(table, rng, 1)})[:-1] + ', "a": 1}'


_beside("run_name", "meta.yaml", lambda t, rng: f"run_name: retrain for {_person(t, rng)}\nstatus: FINISHED\n")
_beside("tag", "tags/mlflow.note", lambda t, rng: records(t, some(t, rng, 1))[0][t.form.note])
_beside("logged_parameter", "params/seed_row", lambda t, rng: str(records(t, some(t, rng, 1), t.names)[0]))
_beside(
    "requirement_comment", "requirements.txt", lambda t, rng: f"numpy==2.4.6  # {_text(t, rng, 1).splitlines()[1]}\n"
)
_beside("environment_file", ".env", lambda t, rng: f"OWNER={records(t, some(t, rng, 1))[0][t.form.mail]}\n")
_beside("comment_in_code", "train.py", lambda t, rng: f"# e.g. {records(t, some(t, rng, 1))[0]}\nprint(1)\n")
_beside("name_in_json_escapes", "note.json", _escaped)
_beside("key_given_twice", "note.json", _twice)
_beside("hidden_history", ".python_history", lambda t, rng: f"df[df.{t.form.key} == '{t.texts(t.form.key)[3]}']\n")
_beside("deep_folders", "a/b/c/d/e/f/g/h/x.csv", lambda t, rng: _text(t, rng))


@leak(CHANNELS, content=False, washed=True)
def white_space(folder: Path, table: Table, rng: np.random.Generator) -> None:
    """Bits as spaces and tabs behind the lines of a file that may leave."""
    path = folder / "importance.json"
    bits = "".join(f"{byte:08b}" for byte in _text(table, rng, 1).encode())
    path.write_text(path.read_text() + bits.replace("0", " ").replace("1", "\t"))
