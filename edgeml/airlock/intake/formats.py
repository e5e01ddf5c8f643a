"""What a file is, by its bytes; its name is asked last."""

from __future__ import annotations

import os
import re

MAGIC = (
    (b"PK\x03\x04", "zip"),
    (b"PK\x05\x06", "zip"),
    (b"\x1f\x8b", "gzip"),
    (b"BZh", "bz2"),
    (b"\xfd7zXZ\x00", "xz"),
    (b"\x28\xb5\x2f\xfd", "zstd"),
    (b"\x78\x01", "zlib"),
    (b"\x78\x9c", "zlib"),
    (b"\x78\xda", "zlib"),
    (b"7z\xbc\xaf\x27\x1c", "7z"),
    (b"\x93NUMPY", "npy"),
    (b"PAR1", "parquet"),
    (b"ARROW1", "arrow"),
    (b"\x89HDF\r\n\x1a\n", "hdf5"),
    (b"SQLite format 3\x00", "sqlite"),
    (b"\x89PNG\r\n\x1a\n", "png"),
    (b"\xff\xd8\xff", "jpeg"),
    (b"GIF8", "gif"),
    (b"%PDF", "pdf"),
    (b"\x7fELF", "elf"),
)
PICKLE = re.compile(rb"\x80[\x02-\x05]")
# A model begins with its version of the format (field 1, a varint) or with its producer (field 2, text).
ONNX = re.compile(rb"\x08[\x01-\x20][\x12\x1a\x22\x28\x32\x3a\x42]|\x12[\x01-\x40][A-Za-z]")
MARKUP = re.compile(r"\s*(?:<!doctype html|<html|<head|<body|<div|<style)", re.IGNORECASE)
SUFFIXES = re.compile(
    r"\.(arrow|bin|bz2|cfg|csv|db|feather|gif|gz|h5|hdf5|html|ipynb|jpg|joblib|json|jsonl|keras|log|md|npy|npz|onnx|"
    r"parquet|pb|pdf|pickle|pkl|png|pt|pth|py|safetensors|skops|sqlite|svg|tar|tgz|toml|tsv|txt|xlsx|xml|xz|yaml|yml|"
    r"zip|zst)"
)


def suffix(name: str) -> str:
    """The ending of a file's name where it is one that says nothing but a format, else nothing."""
    ending = os.path.splitext(name)[1].lower()
    return ending if SUFFIXES.fullmatch(ending) else ""


def of(data: bytes, name: str = "") -> str:
    """The format that bytes show: `json`, `onnx`, `text`, `zip`, …; `binary` where they show none."""
    for magic, format_ in MAGIC:
        if data.startswith(magic):
            return format_
    if len(data) > 262 and data[257:262] == b"ustar":
        return "tar"
    if PICKLE.match(data) and data.rstrip(b"\n").endswith(b"."):
        return "pickle"
    if ONNX.match(data) or (suffix(name) == ".onnx" and not is_text(data)):
        return "onnx"
    text = as_text(data)
    if text is None:
        return "binary"
    if MARKUP.match(text):
        return "html"
    start = text.lstrip("\ufeff \t\r\n")[:4096]
    if "<svg" in start:
        return "svg"
    if start[:1] in ("{", "[") or suffix(name) == ".json":
        return "notebook" if '"cells"' in start and suffix(name) == ".ipynb" else "json"
    return "text"


def is_text(data: bytes) -> bool:
    return as_text(data) is not None


def as_text(data: bytes) -> str | None:
    """Bytes as text: UTF-8, UTF-16 or UTF-32 with or without a mark; None where they are no text."""
    for mark, encoding in ((b"\xff\xfe\x00\x00", "utf-32"), (b"\x00\x00\xfe\xff", "utf-32"), (b"\xff\xfe", "utf-16"),
                           (b"\xfe\xff", "utf-16")):  # fmt: skip
        if data.startswith(mark):
            return _decoded(data, encoding)
    if b"\x00" in data[:4096]:
        guesses = (
            ["utf-32-le", "utf-32-be"]
            if len(data) % 4 == 0 and data[:4096].count(b"\x00") * 2 > len(data[:4096])
            else []
        )
        for encoding in (*guesses, "utf-16-le", "utf-16-be"):
            text = _decoded(data, encoding)
            if text is not None and _latin(text):
                return text
        return None
    return _decoded(data, "utf-8")


def _decoded(data: bytes, encoding: str) -> str | None:
    try:
        text = data.decode(encoding)
    except UnicodeDecodeError:
        return None
    sample = text[:65536]
    odd = sum(1 for letter in sample if letter < " " and letter not in "\t\n\r\x0b\x0c\x1b")
    return text if odd * 50 <= len(sample) else None


def _latin(text: str) -> bool:
    """Whether text that might be UTF-16 reads like text: chance makes letters of every script."""
    sample = text[:4096]
    return bool(sample) and sum(letter < "\u0250" for letter in sample) * 10 >= len(sample) * 9
