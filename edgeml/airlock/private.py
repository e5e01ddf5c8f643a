"""The private table as the egress gate reads it: in batches, several times, never whole.

A table is a Parquet or CSV file or a folder of them. Several may be given (the whole, its parts); they stream one after
the other as one table whose columns are those of all. No message holds a value: what a library says of a file that it
cannot read may quote cells, so only the kind of its error is told.
"""

from __future__ import annotations

from collections.abc import Collection, Generator, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

from edgeml.airlock.profile import Profile, profile
from edgeml.contract import Contract
from edgeml.errors import EdgemlError

BATCH = 1 << 16
NUMBER, STRING, BOOLEAN, TIME = "number", "string", "boolean", "time"
_FORMATS = {".parquet": "parquet", ".csv": "csv"}
_DECLARED = {"string": STRING, "integer": NUMBER, "number": NUMBER, "boolean": BOOLEAN}


class PrivateColumn(NamedTuple):
    """A column: its kind, and whether the contract declares its values public. What is not declared is private."""

    name: str
    kind: str
    public: bool


class Table(NamedTuple):
    """One of the given tables."""

    name: str
    files: tuple[Path, ...]
    format: str
    rows: int


@dataclass(frozen=True)
class Private:
    """The tables, their columns in order, and what is known of them."""

    contract: Contract
    tables: tuple[Table, ...]
    columns: dict[str, PrivateColumn]

    @property
    def rows(self) -> int:
        return sum(table.rows for table in self.tables)

    def batches(self, columns: Sequence[str] | None = None, size: int = BATCH) -> Iterator[Any]:
        """Every row as `pyarrow.RecordBatch`es of one schema, at most `size` rows each.

        Numbers are float64, text is string, times are UTC microseconds; what a table lacks is null.
        """
        return _ahead(self._read(columns, size))

    def _read(self, columns: Sequence[str] | None, size: int) -> Generator[Any, None, None]:
        wanted = [self.columns[name] for name in (self.columns if columns is None else columns)]
        for table in self.tables:
            for file in table.files:
                with _told(file, table):
                    for batch in _batches(file, table.format, [column.name for column in wanted], self.contract, size):
                        yield _normal(batch, wanted)

    def count(self, values: Collection[str]) -> dict[str, dict[str, int]]:
        """In how many rows each of `values` stands, by string column; exact, by one pass. Values in none are absent."""
        import pyarrow as pa
        import pyarrow.compute as pc

        strings = [column.name for column in self.columns.values() if column.kind == STRING]
        asked = pa.array(sorted(set(values)), pa.string())
        counts: dict[str, dict[str, int]] = {name: {} for name in strings}
        if not strings or not len(asked):
            return counts
        for batch in self.batches(strings):
            for name in strings:
                found = pc.value_counts(batch[name].filter(pc.is_in(batch[name], value_set=asked)))
                for entry in found.to_pylist():
                    counts[name][entry["values"]] = counts[name].get(entry["values"], 0) + entry["counts"]
        return counts

    @cached_property
    def profile(self) -> Profile:
        """What one pass tells of every column; computed once."""
        return profile(self)


def open_private(paths: Sequence[Path], contract: Contract) -> Private:
    """The tables at `paths`, each row of which counts as one person: give none twice.

    Raises EdgemlError where a table is absent, empty, of another format or not readable.
    """
    if not paths:
        raise EdgemlError("no private table is given; name the rows that nothing may leak")
    tables: list[Table] = []
    kinds: dict[str, str] = {}
    for path in paths:
        files, form = _files(path)
        rows = 0
        for file in files:
            with _told(file, None):
                count, found = _shape(file, form, contract)
            rows += count
            for name, kind in found.items():
                kinds[name] = kind if kinds.get(name, kind) == kind else STRING
        tables.append(Table(path.name, files, form, rows))
    if not any(table.rows for table in tables):
        raise EdgemlError("the private table holds no row; give the rows that the artifacts were made from")
    declared = contract.columns
    columns = {
        name: PrivateColumn(name, kind, name in declared and declared[name].public) for name, kind in kinds.items()
    }
    return Private(contract, tuple(tables), columns)


def _ahead(batches: Generator[Any, None, None]) -> Iterator[Any]:
    """The batches, of which the next is read while one is looked at."""
    with ThreadPoolExecutor(1) as pool:
        try:
            waiting = pool.submit(next, batches, None)
            while (batch := waiting.result()) is not None:
                waiting = pool.submit(next, batches, None)
                yield batch
        finally:
            pool.submit(batches.close).result()


def _files(path: Path) -> tuple[tuple[Path, ...], str]:
    if path.is_dir():
        files = tuple(sorted(file for file in path.rglob("*") if file.suffix in _FORMATS and file.is_file()))
    else:
        files = (path,) if path.is_file() and path.suffix in _FORMATS else ()
    if not files:
        raise EdgemlError(f"{path} is no Parquet or CSV file and holds none; name the private table")
    forms = {_FORMATS[file.suffix] for file in files}
    if len(forms) > 1:
        raise EdgemlError(f"{path} mixes Parquet and CSV; keep one table in a folder")
    return files, forms.pop()


class _told:  # noqa: N801 - used like a function
    """Turns whatever goes wrong in reading a file into one sentence without its values."""

    def __init__(self, file: Path, table: Table | None) -> None:
        self._name = file.name if table is None else table.name

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: object) -> None:
        if isinstance(error, Exception) and not isinstance(error, EdgemlError):
            raise EdgemlError(
                f"the private table {self._name} cannot be read ({type(error).__name__}); give it anew"
            ) from None


def _shape(file: Path, form: str, contract: Contract) -> tuple[int, dict[str, str]]:
    """How many rows a file has, and the kind of each column."""
    if form == "parquet":
        import pyarrow.parquet as pq

        with pq.ParquetFile(file) as parquet:
            return parquet.metadata.num_rows, {field.name: _kind(field.type) for field in parquet.schema_arrow}
    rows, kinds = 0, {}
    for batch in _csv(file, contract):
        rows += batch.num_rows
        kinds = {field.name: _kind(field.type) for field in batch.schema}
    return rows, kinds


def _kind(dtype: Any) -> str:
    import pyarrow as pa

    if pa.types.is_dictionary(dtype):
        dtype = dtype.value_type
    if pa.types.is_integer(dtype) or pa.types.is_floating(dtype) or pa.types.is_decimal(dtype):
        return NUMBER
    if pa.types.is_boolean(dtype):
        return BOOLEAN
    return TIME if pa.types.is_timestamp(dtype) or pa.types.is_date(dtype) else STRING


def _batches(file: Path, form: str, names: Sequence[str], contract: Contract, size: int) -> Iterator[Any]:
    if form == "csv":
        for batch in _csv(file, contract):
            for start in range(0, batch.num_rows, size):
                yield batch.slice(start, size)
        return
    import pyarrow.parquet as pq

    with pq.ParquetFile(file, buffer_size=1 << 20) as parquet:
        held = set(parquet.schema_arrow.names)
        wanted = [name for name in names if name in held]
        for group in range(parquet.num_row_groups):  # one reader for all groups would keep each until the last
            yield from parquet.iter_batches(size, row_groups=[group], columns=wanted)


def _csv(file: Path, contract: Contract) -> Iterator[Any]:
    """The batches of a CSV file: declared columns by their declared type, others by what their first block shows."""
    import pyarrow as pa
    import pyarrow.csv as pc

    arrow = {STRING: pa.string(), NUMBER: pa.float64(), BOOLEAN: pa.bool_()}
    types = {name: arrow[_DECLARED[column.type]] for name, column in contract.columns.items()}
    convert = pc.ConvertOptions(column_types=types, strings_can_be_null=True)
    with pc.open_csv(file, convert_options=convert) as reader:
        yield from reader


def _normal(batch: Any, columns: Sequence[PrivateColumn]) -> Any:
    import pyarrow as pa

    arrow = {
        NUMBER: pa.float64(),
        STRING: pa.string(),
        BOOLEAN: pa.bool_(),
        TIME: pa.timestamp("us"),
    }
    arrays = []
    for column in columns:
        index = batch.schema.get_field_index(column.name)
        array = pa.nulls(batch.num_rows) if index < 0 else batch.column(index)
        arrays.append(_cast(array, arrow[column.kind]))
    return pa.RecordBatch.from_arrays(arrays, names=[column.name for column in columns])


def _cast(array: Any, dtype: Any) -> Any:
    import pyarrow as pa
    import pyarrow.compute as pc

    if array.type == dtype:
        return array
    if pa.types.is_dictionary(array.type):
        array = array.dictionary_decode()
    if pa.types.is_timestamp(array.type) and array.type.tz is not None:
        array = array.cast(pa.timestamp(array.type.unit))  # the same instant, named in UTC
    if pa.types.is_string(dtype) and pa.types.is_nested(array.type):
        return pa.array([None if value is None else str(value) for value in array.to_pylist()], dtype)
    return pc.cast(array, dtype, safe=False)
