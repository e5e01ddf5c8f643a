"""A made-up table of mixed types, as large as asked, for trying things under load.

The rows are a pure function of the seed: the same seed gives the same bytes, and cutting the table
into another number of files does not change its rows. Memory does not grow with the rows.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from edgeml.errors import EdgemlError

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy as np
    import pyarrow as pa

CHUNK = 1 << 16
"""Rows that are made at a time; each chunk has a generator of its own, seeded by its number."""

SITES = ("north", "south", "east", "west", "harbour")
WARDS = ("cardiology", "oncology", "surgery", "paediatrics", None)


def write(
    folder: Path, rows: int, *, seed: int = 20260101, files: int = 1, progress: Callable[[int], object] | None = None
) -> list[Path]:
    """Write `rows` rows to `files` CSV files `part-<n>.csv` of nearly equal length and return their paths.

    `progress` is called with the number of rows that were written since its last call.
    """
    from pyarrow import csv

    if rows < 1 or not 1 <= files <= rows:
        raise EdgemlError(f"{rows} rows cannot be written to {files} files; give at least one row for each file")
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for number in range(files):
        start, end = rows * number // files, rows * (number + 1) // files
        path = folder / f"part-{number:0{len(str(files - 1))}d}.csv"
        partial = path.with_name(path.name + ".part")
        options = csv.WriteOptions(batch_size=CHUNK)
        with (
            partial.open("wb") as stream,
            csv.CSVWriter(stream, chunk(seed, 0, 1).schema, write_options=options) as out,
        ):
            for index in range(start // CHUNK, -(-end // CHUNK)):
                first = max(start, index * CHUNK)
                last = min(end, (index + 1) * CHUNK)
                out.write(chunk(seed, index, last - index * CHUNK).slice(first - index * CHUNK))
                if progress:
                    progress(last - first)
        partial.replace(path)
        paths.append(path)
    return paths


def chunk(seed: int, index: int, rows: int = CHUNK) -> pa.RecordBatch:
    """The first `rows` rows of the chunk with this number."""
    import numpy as np
    import pyarrow as pa
    import pyarrow.compute as pc

    draw = np.random.default_rng([seed, index])
    number = pa.array(np.arange(index * CHUNK + 1, index * CHUNK + 1 + rows))
    age = draw.integers(18, 96, CHUNK)[:rows]
    weight = np.round(draw.normal(74, 14, CHUNK)[:rows], 1)
    glucose = np.round(draw.gamma(9, 11, CHUNK)[:rows], 2)
    pressure = np.round(draw.normal(95, 12, CHUNK)[:rows] + age * 0.4, 1)
    markers = {f"marker_{k}": np.round(draw.normal(k, 1, CHUNK)[:rows], 4) for k in range(1, 9)}
    admitted = np.datetime64("2019-01-01") + draw.integers(0, 2500, CHUNK)[:rows].astype("timedelta64[D]")
    smoker = (draw.random(CHUNK) < 0.27)[:rows]
    outcome = draw.random(CHUNK)[:rows] < 1 / (1 + np.exp(-(age - 60) / 12 - smoker - (markers["marker_1"] - 1)))
    columns: dict[str, pa.Array] = {
        "patient_id": pc.binary_join_element_wise("P", pc.utf8_lpad(pc.cast(number, pa.string()), 9, "0"), ""),
        "site": pa.array(SITES).take(pa.array(draw.integers(0, len(SITES), CHUNK)[:rows])),
        "ward": pa.array(WARDS).take(pa.array(draw.integers(0, len(WARDS), CHUNK)[:rows])),
        "admitted": pa.array(admitted),
        "age": pa.array(age),
        "visits": pa.array(draw.poisson(3, CHUNK)[:rows]),
        "weight": _with_nulls(weight, draw),
        "glucose": _with_nulls(glucose, draw),
        "pressure": pa.array(pressure),
        **{name: pa.array(values) for name, values in markers.items()},
        "smoker": pa.array(smoker),
        "outcome": pa.array(outcome.astype(np.int64)),
    }
    return pa.RecordBatch.from_pydict(columns)


def _with_nulls(values: np.ndarray, draw: np.random.Generator) -> pa.Array:
    """One value in twenty is missing."""
    import pyarrow as pa

    return pa.array(values, mask=(draw.random(CHUNK) < 0.05)[: len(values)])
