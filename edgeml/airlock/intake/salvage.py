"""Text out of formats that are no text: tables, arrays, models, and whatever else holds strings and numbers.

Those formats do not leave. They are read so that a finding can say what was in them, and so that what the content
rules can do is known apart from what the policy of formats refuses anyway. Nothing is unpickled.
"""

from __future__ import annotations

import io
import re
from collections.abc import Iterator
from typing import Any

from edgeml.airlock.intake import formats

NUMBERS = 2_000_000  # of one array
MEMORY = 16 << 20  # bytes in which numbers are looked for
PRINTABLE = re.compile(rb"[\x20-\x7e\xc2-\xf4\x80-\xbf\t]{4,}")
WIDE = re.compile(rb"(?:[\x20-\x7e]\x00){4,}")
PER_LINE = 32


def binary(data: bytes, format_: str) -> Iterator[tuple[str, str]]:
    """What can be read out of a format that is no text."""
    reader = {"npy": _npy, "parquet": _parquet, "arrow": _arrow}.get(format_)
    if reader is not None:
        try:
            yield from reader(data)
            return
        except Exception:  # noqa: S110 - damaged or of objects: what can be salvaged is below
            pass
    yield from _strings(data)
    yield from _memory(data)


def _strings(data: bytes) -> Iterator[tuple[str, str]]:
    found = [match[0].decode("utf-8", "replace") for match in PRINTABLE.finditer(data)]
    if found:
        yield "strings", "\n".join(found)
    wide = [match[0].decode("utf-16-le") for match in WIDE.finditer(data)]
    if wide:
        yield "wide strings", "\n".join(wide)


def _memory(data: bytes) -> Iterator[tuple[str, str]]:
    """Runs of numbers as they lie in memory, at whatever offset and in either byte order: 8-byte and 4-byte floats."""
    import numpy as np

    data = data[:MEMORY]
    for kind, width, least in (("<f8", 8, 4), ("<f4", 4, 8), (">f8", 8, 4), (">f4", 4, 8)):
        for offset in range(min(width, max(0, len(data) - width * least + 1))):
            numbers = np.frombuffer(data, kind, count=(len(data) - offset) // width, offset=offset)
            with np.errstate(all="ignore"):
                size = np.abs(numbers)
                likely = (numbers == 0) | ((size > 1e-6) & (size < 1e9))
            for start, stop in _runs(likely, least):
                run = numbers[start:stop]
                if np.count_nonzero(run) * 2 >= len(run):
                    yield f"numbers at byte {offset + start * width}", lines(run.astype(kind.replace(">", "<")))


def _runs(flags: Any, least: int) -> Iterator[tuple[int, int]]:
    import numpy as np

    edges = np.flatnonzero(np.diff(np.concatenate([[False], flags, [False]]).astype(np.int8)))
    for start, stop in zip(edges[::2], edges[1::2], strict=True):
        if stop - start >= least:
            yield int(start), int(stop)


def lines(numbers: Any, width: int = PER_LINE) -> str:
    """Numbers as they would be printed, the shortest that give the same float again."""
    import numpy as np
    import pyarrow as pa

    flat = np.ascontiguousarray(numbers).reshape(-1)[:NUMBERS]
    if flat.dtype.kind not in "fiub":
        return "\n".join(str(item) for item in flat.tolist())
    if flat.dtype == np.float16:
        flat = flat.astype(np.float32)
    words = pa.array(flat).cast(pa.string()).to_pylist()
    return "\n".join(" ".join(words[start : start + width]) for start in range(0, len(words), width))


def _npy(data: bytes) -> Iterator[tuple[str, str]]:
    import numpy as np

    array = np.load(io.BytesIO(data), allow_pickle=False)
    if array.dtype.names:
        for name in array.dtype.names:
            yield "field", lines(array[name])
        return
    yield "array", lines(array, array.shape[-1] if array.ndim > 1 else PER_LINE)
    if array.ndim == 2:
        yield "array by column", lines(array.T, array.shape[0])


def _parquet(data: bytes) -> Iterator[tuple[str, str]]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    yield from _table(pq.read_table(pa.BufferReader(data)))


def _arrow(data: bytes) -> Iterator[tuple[str, str]]:
    import pyarrow as pa
    import pyarrow.feather as feather

    yield from _table(feather.read_table(pa.BufferReader(data)))


def _table(table: Any) -> Iterator[tuple[str, str]]:
    import pyarrow as pa
    from pyarrow import csv

    flat = table.slice(0, 200_000).flatten()
    sink = io.BytesIO()
    plain = [column.cast(pa.string()) if not _plain(column.type) else column for column in flat.columns]
    csv.write_csv(pa.table(plain, names=flat.column_names), sink)
    yield "table", sink.getvalue().decode("utf-8", "replace")
    if table.schema.metadata:
        about = [piece.decode("utf-8", "replace") for pair in table.schema.metadata.items() for piece in pair]
        yield "metadata of the table", "\n".join(about)


def _plain(kind: Any) -> bool:
    import pyarrow as pa

    checks = (pa.types.is_integer, pa.types.is_floating, pa.types.is_string, pa.types.is_boolean)
    return any(check(kind) for check in checks)


def onnx(data: bytes) -> Iterator[tuple[str, str]]:
    """Every string of a model: names, descriptions, metadata, text in tensors and attributes."""
    import onnx as library

    model = library.ModelProto()
    try:
        model.ParseFromString(data)
    except Exception:  # its message quotes the content
        yield from _strings(data)
        yield from _memory(data)
        return
    found: dict[str, list[str]] = {}
    _collect(model, found)
    for kind, strings in found.items():
        yield f"{kind} in the model", "\n".join(strings)
    rest = model.ByteSize()
    model.DiscardUnknownFields()
    if model.ByteSize() != rest:
        yield from _strings(data)


def _collect(message: Any, found: dict[str, list[str]]) -> None:
    if message.DESCRIPTOR.name == "TensorProto" and message.data_type in (2, 3) and formats.is_text(message.raw_data):
        found.setdefault("bytes of a tensor", []).append(message.raw_data.decode("utf-8", "replace"))
    for field, value in message.ListFields():
        if field.message_type is not None:
            for child in [value] if hasattr(value, "ListFields") else value:
                _collect(child, found)
        elif field.cpp_type == field.CPPTYPE_STRING and field.name != "raw_data":
            pieces = [value] if isinstance(value, str | bytes) else value
            for piece in pieces:
                text = piece if isinstance(piece, str) else piece.decode("utf-8", "replace")
                if text:
                    found.setdefault(field.name, []).append(text)
