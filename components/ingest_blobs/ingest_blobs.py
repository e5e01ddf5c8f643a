"""Stream the CSV and Parquet blobs under a prefix to Parquet, and say exactly what was read.

Memory is bounded whatever the blobs' sizes: ranges are fetched a few at a time (`blob_client.chunks`),
hashed in order, parsed block by block and written row group by row group, each stage while the others work.
Each range is read only if the blob still has the etag it was listed with, and length and checksum must
agree at the end, so that what is written is what one writer stored, never a mixture.

Column types are inferred from the first block of the first blob. A value further on that does not fit widens
its column (`WIDER`) and the blobs are read again; what a value was is never said, in no message.

The outputs are a pure function of the blobs' names and bytes: no times, no etags, no random names.
"""

from __future__ import annotations

import argparse
import codecs
import csv as plain
import ctypes
import gc
import hashlib
import io
import json
import os
import re
import sys
import tempfile
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import blob_client
import pyarrow as pa
import pyarrow.parquet as pq
from blob_client import StorageError
from pyarrow import csv

BLOCK = 512 << 10
"""Bytes of CSV that are parsed at a time, and pyarrow reads dozens ahead; also the longest row."""

ROW_GROUP = 8 << 20
"""Bytes in memory of the rows that become one row group."""

BLOBS = 2
"""Blobs that are read at the same time: while one begins or ends, the other keeps the machine busy."""

CONNECTIONS = 2
"""Ranges that are on their way at the same time, over all blobs."""

NULLS = ["", "NA", "N/A", "#N/A", "n/a", "NaN", "nan", "null", "NULL"]
"""Cells that are missing values. Short on purpose: pyarrow's own list doubles the time of parsing."""

WIDER: dict[pa.DataType, pa.DataType] = {
    pa.null(): pa.int64(),
    pa.int64(): pa.float64(),
    pa.float64(): pa.string(),
    pa.bool_(): pa.string(),
    pa.date32(): pa.timestamp("s"),
    pa.timestamp("s"): pa.timestamp("ns"),
    pa.timestamp("ns"): pa.string(),
    pa.time32("s"): pa.string(),
}
"""The type that a column takes when a value does not fit into its present one."""

Types = dict[str, pa.DataType]


class IngestError(Exception):
    """A refusal that is explained by its message alone and quotes no value."""


class NarrowError(Exception):
    """A column needs a wider type than the one that it was read with."""

    def __init__(self, column: str, wider: pa.DataType) -> None:
        super().__init__(column)
        self.column, self.wider = column, wider


@dataclass(frozen=True)
class Blob:
    """A blob as it was listed: what every later read must agree with."""

    name: str
    size: int
    etag: str
    md5: bytes | None
    sha256: str | None


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Stream blobs to Parquet.")
    parser.add_argument("--container", required=True)
    parser.add_argument("--prefix", required=True, help='names start with this; "/" for all')
    parser.add_argument("--table", required=True, type=Path, help="folder for part-<n>.parquet")
    parser.add_argument("--manifest", required=True, type=Path, help="JSON file to write")
    args = parser.parse_args(argv)
    one_heap()
    gc.freeze()  # what was imported lives to the end: no collection, nor the exit, need visit it
    try:
        manifest = ingest(args.container, args.prefix, args.table)
    except (IngestError, StorageError) as error:
        print(f"ingest_blobs: {error}", file=sys.stderr)
        return 1
    args.manifest.parent.mkdir(parents=True, exist_ok=True)
    args.manifest.write_text(json.dumps(manifest, indent=2, sort_keys=True) + "\n", "utf-8")
    print(f"{manifest['rows']} rows, {len(manifest['columns'])} columns, {manifest['bytes']} bytes")
    print(f"fingerprint {manifest['fingerprint']}")
    return 0


def one_heap() -> None:
    """Let all threads share one heap. glibc gives each its own and hands little of it back: a third more memory."""
    with suppress(OSError, AttributeError):  # another C library has no such setting, and no such habit
        ctypes.CDLL(None).mallopt(-8, 1)  # M_ARENA_MAX


def ingest(container: str, prefix: str, table: Path) -> dict[str, Any]:
    """Write the table and return its manifest."""
    client = blob_client.container(container)
    prefix = prefix.removeprefix("/")
    blobs = listing(client, prefix)
    table.mkdir(parents=True, exist_ok=True)
    types: Types = {}
    while True:
        try:
            read = read_all(client, blobs, table, types)
            break
        except NarrowError as found:
            # Ends: each turn moves one column one step up a chain of at most four.
            types[found.column] = found.wider
            print(f"column '{found.column}' is read again as {found.wider}", file=sys.stderr)
    return {
        "version": 1,
        "container": container,
        "prefix": prefix,
        "blobs": read,
        "rows": sum(blob["rows"] for blob in read),
        "bytes": sum(blob["bytes"] for blob in read),
        "columns": [{"name": name, "type": str(kind)} for name, kind in types.items()],
        "fingerprint": fingerprint(read),
    }


def fingerprint(blobs: list[dict[str, Any]]) -> str:
    """SHA-256 over one sorted line `name, bytes, sha256` (as JSON) for each blob."""
    lines = sorted(json.dumps([blob["name"], blob["bytes"], blob["sha256"]]) for blob in blobs)
    return "sha256:" + hashlib.sha256("\n".join(lines).encode()).hexdigest()


def listing(client: Any, prefix: str) -> list[Blob]:
    """The CSV and Parquet blobs under the prefix, in the order of their names."""
    with blob_client.explained(f"container '{client.container_name}'"):
        found = list(client.list_blobs(name_starts_with=prefix or None, include=["metadata"]))
    blobs = [
        Blob(
            name=item.name,
            size=item.size,
            etag=item.etag,
            md5=bytes(item.content_settings.content_md5) if item.content_settings.content_md5 else None,
            sha256=(item.metadata or {}).get("sha256"),
        )
        for item in found
        if item.name.lower().endswith((".csv", ".parquet"))
    ]
    if not blobs:
        raise IngestError(
            f"container '{client.container_name}' has no .csv or .parquet blob under the prefix '{prefix}'; "
            "check the prefix, or push some with `edgeml data push`"
        )
    return sorted(blobs, key=lambda blob: blob.name)


def read_all(client: Any, blobs: list[Blob], table: Path, types: Types) -> list[dict[str, Any]]:
    """Read every blob with the same types, `BLOBS` at a time.

    The first in order of the blobs' names says what is wrong, whichever failed first: so that types, and with them
    the outputs, do not depend on how threads take turns.
    """
    if not types:
        with suppress(IngestError), opened(client, beginning(blobs[0]), 1) as content:
            next(batches(content, types), None)
    if not types:  # what is wrong with the first blob is said of the whole of it
        with opened(client, blobs[0], 1) as content:
            next(batches(content, types), None)

    connections = max(1, CONNECTIONS // min(BLOBS, len(blobs)))

    def one(number: int) -> dict[str, Any]:
        blob = blobs[number]
        with opened(client, blob, connections) as content:
            rows = write(table / f"part-{number:05d}.parquet", batches(content, types), types)
            return {"name": blob.name, "bytes": blob.size, "rows": rows, "sha256": content.verify()}

    with ThreadPoolExecutor(BLOBS) as pool:
        futures = [pool.submit(one, number) for number in range(len(blobs))]
        try:
            return [future.result() for future in futures]
        finally:
            for future in futures:
                future.cancel()


def beginning(blob: Blob) -> Blob:
    """As much of a blob as shows its types."""
    return replace(blob, size=min(blob.size, 2 * BLOCK)) if blob.name.lower().endswith(".csv") else blob


def opened(client: Any, blob: Blob, connections: int) -> closing[Content]:
    return closing(Content(client.get_blob_client(blob.name), blob, connections))


def batches(content: Content, types: Types) -> Iterator[pa.RecordBatch]:
    """The rows of a blob, in batches of one schema: that of `types`, which the first blob settles."""
    read = csv_batches if content.blob.name.lower().endswith(".csv") else parquet_batches
    return read(content, types)


class Content:
    """A blob's bytes, in order, as a file for pyarrow to read; hashed on the way and compared at the end."""

    def __init__(self, client: Any, blob: Blob, connections: int) -> None:
        self.blob = blob
        self.closed = False
        self.tail = b""
        self._chunks = blob_client.chunks(client, size=blob.size, etag=blob.etag, connections=connections)
        self._lock = threading.Lock()  # pyarrow reads ahead in a thread of its own while we may close
        self._rest = memoryview(b"")
        self._read = 0
        self._sha256 = hashlib.sha256()
        self._md5 = hashlib.md5(usedforsecurity=False)

    def read(self, size: int) -> memoryview:
        """Up to `size` bytes, at least one before the end, without copying them."""
        piece = self.peek()[:size]
        self._rest = self._rest[len(piece) :]
        return piece

    def peek(self) -> memoryview:
        """The bytes that were fetched and not yet read: some, unless the end is reached."""
        with self._lock:
            if not self._rest and not self.closed:
                chunk = next(self._chunks, b"")
                self._read += len(chunk)
                self._sha256.update(chunk)
                if self.blob.md5 and not self.blob.sha256:  # one checksum of the service is enough, and MD5 is slow
                    self._md5.update(chunk)
                self.tail = (self.tail + chunk[-4:])[-4:]
                self._rest = memoryview(chunk)
            return self._rest

    def verify(self) -> str:
        """The SHA-256 of the content, once its length and the checksums that the service keeps agree."""
        sha256 = self._sha256.hexdigest()
        if self._read != self.blob.size:
            raise IngestError(f"blob '{self.blob.name}': {self._read} bytes were read of {self.blob.size}; run again")
        stored, found = (self.blob.sha256, sha256) if self.blob.sha256 else (self.blob.md5, self._md5.digest())
        if stored and stored != found:
            raise IngestError(f"blob '{self.blob.name}' does not match its stored checksum; push it again")
        return sha256

    def close(self) -> None:
        with self._lock:
            self.closed = True
            self._chunks.close()

    def readable(self) -> bool:
        return True

    def writable(self) -> bool:
        return False

    def seekable(self) -> bool:
        return False


def csv_batches(content: Content, types: Types) -> Iterator[pa.RecordBatch]:
    """The rows of a CSV blob: columns of known type read as that, the others as their first block shows."""
    names = header(content)
    agree(names, types, content.blob.name)
    ragged: list[csv.InvalidRow] = []

    def refuse(row: csv.InvalidRow) -> str:
        ragged.append(row)
        return "error"

    try:
        reader = csv.open_csv(
            pa.PythonFile(content, mode="r"),
            read_options=csv.ReadOptions(block_size=BLOCK),
            parse_options=csv.ParseOptions(newlines_in_values=True, invalid_row_handler=refuse),
            convert_options=csv.ConvertOptions(
                column_types=known(types), null_values=NULLS, strings_can_be_null=True, quoted_strings_can_be_null=False
            ),
        )
        settle(types, reader.schema, content.blob.name)
        last: pa.RecordBatch | None = None
        for batch in reader:
            last = batch
            yield batch.select(list(types))
    except pa.ArrowInvalid as error:
        raise reworded(str(error), content.blob.name, names, types, ragged) from None
    if last and swallowed(last[names[-1]][-1].as_py(), content.tail):
        raise IngestError(f"blob '{content.blob.name}' ends within a quote that is never closed; close it")


def swallowed(cell: object, tail: bytes) -> bool:
    """Whether the last cell of a file is the rest of the file after a quote, which pyarrow takes without a word."""
    return isinstance(cell, str) and "\n" in cell and not tail.rstrip(b"\r\n").endswith(b'"')


def header(content: Content) -> list[str]:
    """The names of a CSV blob's columns."""
    try:
        text = codecs.getincrementaldecoder("utf-8-sig")().decode(bytes(content.peek()[:BLOCK]))
        names = next((row for row in plain.reader(io.StringIO(text, newline="")) if row), [])
    except UnicodeDecodeError:
        raise IngestError(f"blob '{content.blob.name}' is not UTF-8; store it as UTF-8") from None
    except plain.Error:
        names = []
    if not names:
        raise IngestError(f"blob '{content.blob.name}' is empty; remove it, or store a header line and rows")
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise IngestError(f"blob '{content.blob.name}' has the column '{twice[0]}' twice; rename one")
    return names


def agree(names: list[str], types: Types, blob: str) -> None:
    """Every blob has the same columns, in any order."""
    if not types:
        return
    for column in types:
        if column not in names:
            raise IngestError(f"blob '{blob}' lacks the column '{column}', which the blobs before it have")
    for column in names:
        if column not in types:
            raise IngestError(f"blob '{blob}' has the column '{column}', which the blobs before it lack")


def known(types: Types) -> Types:
    """The columns whose type some value has shown."""
    return {name: kind for name, kind in types.items() if not pa.types.is_null(kind)}


def settle(types: Types, schema: pa.Schema, blob: str) -> None:
    """Take over what a blob shows of the types that were not known."""
    first = not types
    for field in schema:
        if pa.types.is_binary(field.type):
            raise IngestError(f"blob '{blob}': column '{field.name}' is not UTF-8; store the blob as UTF-8")
        if first:
            types[field.name] = field.type
        elif field.name not in known(types) and not pa.types.is_null(field.type):
            raise NarrowError(field.name, field.type)  # the parts before were written without a type for it


def reworded(
    message: str, blob: str, names: list[str], types: Types, ragged: list[csv.InvalidRow]
) -> IngestError | NarrowError:
    """What pyarrow's message means. Only its beginning is looked at: the rest may quote a cell."""
    if ragged:
        row = ragged[0]
        return IngestError(
            f"blob '{blob}' has a row of {row.actual_columns} cells where its header has {row.expected_columns}"
        )
    if place := re.match(r"In CSV column #(\d+): ", message):
        column = names[int(place[1])]
        if pa.types.is_string(types[column]):
            return IngestError(f"blob '{blob}': column '{column}' is not UTF-8; store the blob as UTF-8")
        return NarrowError(column, WIDER.get(types[column], pa.string()))
    if message.startswith("straddling object"):
        return IngestError(f"blob '{blob}' has a row of more than {BLOCK >> 10} KiB, or a quote that is never closed")
    if message.startswith(("Empty CSV file", "CSV parse error: Empty CSV")):
        return IngestError(f"blob '{blob}' has no rows and no line end after its header; store one")
    return IngestError(f"blob '{blob}' cannot be read as CSV")


def parquet_batches(content: Content, types: Types) -> Iterator[pa.RecordBatch]:
    """The rows of a Parquet blob. Its index lies at its end, so it passes through a temporary file."""
    blob = content.blob.name
    with tempfile.TemporaryFile() as spool:
        while piece := content.read(BLOCK):
            spool.write(piece)
        content.verify()
        try:
            file = pq.ParquetFile(spool)
            schema = pa.schema([(field.name, plain_type(field.type)) for field in file.schema_arrow])
            agree(schema.names, types, blob)
            settle(types, schema, blob)
            for field in schema:
                fits(field, types, blob)
            target = pa.schema(list(types.items()))
            for batch in file.iter_batches(batch_size=1 << 15):
                yield batch.select(target.names).cast(target, safe=False)
        except (pa.ArrowException, OSError):
            raise IngestError(f"blob '{blob}' cannot be read as Parquet") from None


def plain_type(kind: pa.DataType) -> pa.DataType:
    """The type of CSV's few that holds the same values: 64-bit numbers and plain strings."""
    if pa.types.is_dictionary(kind):
        return plain_type(kind.value_type)
    if pa.types.is_integer(kind):
        return pa.int64()
    if pa.types.is_floating(kind):
        return pa.float64()
    if pa.types.is_large_string(kind) or pa.types.is_string_view(kind):
        return pa.string()
    return kind


def fits(field: pa.Field, types: Types, blob: str) -> None:
    """A Parquet column's type is the known one, or one of the two widens to the other."""
    have, want = field.type, types[field.name]
    if have == want or pa.types.is_null(have) or want in wider(have):
        return
    if have in wider(want):
        raise NarrowError(field.name, have)
    if pa.string() in wider(want) and pa.string() in wider(have):
        raise NarrowError(field.name, pa.string())
    raise IngestError(f"blob '{blob}': column '{field.name}' is of type {have}, in the blobs before it of type {want}")


def wider(kind: pa.DataType) -> list[pa.DataType]:
    chain = []
    while kind in WIDER:
        kind = WIDER[kind]
        chain.append(kind)
    return chain


def write(path: Path, batches: Iterator[pa.RecordBatch], types: Types) -> int:
    """Write the batches as one Parquet file and return the number of rows.

    Uncompressed, with dictionaries for the few-valued strings only: the table is read once, on this machine, and
    compression took longer than it saved.
    """
    batch = next(batches, None)  # settles the types
    schema = pa.schema(list(types.items()))
    strings = [field.name for field in schema if pa.types.is_string(field.type)]
    rows, held, size = 0, [], 0
    with pq.ParquetWriter(
        path,
        schema,
        compression="none",
        use_dictionary=strings,
        dictionary_pagesize_limit=1 << 16,
        write_statistics=False,
    ) as writer:
        while batch is not None:
            held.append(batch)
            rows += batch.num_rows
            size += batch.nbytes
            batch = next(batches, None)
            if size >= ROW_GROUP or batch is None:
                writer.write_table(pa.Table.from_batches(held, schema))
                held, size = [], 0
    return rows


if __name__ == "__main__":
    code = main()
    sys.stdout.flush()
    sys.stderr.flush()
    # A thread of pyarrow's may hold a `Content` a moment longer, and one that asks for Python's lock while Python
    # ends aborts the process: one run in a hundred on a busy machine. All is written, so end without that ending.
    os._exit(code)
