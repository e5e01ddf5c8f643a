"""The private rows of one batch as numpy arrays."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute

Array = np.ndarray[Any, Any]


def numbers(batch: pa.RecordBatch) -> dict[str, Array]:
    """Every column of numbers or booleans as float64, with NaN for null."""
    found = {}
    for name, column in zip(batch.schema.names, batch.columns, strict=True):
        if pa.types.is_boolean(column.type):
            column = column.cast(pa.int8())
        if pa.types.is_timestamp(column.type):  # as seconds since 1970
            micro = column.cast(pa.timestamp("us", column.type.tz)).cast(pa.int64())
            column = pa.compute.divide(micro.cast(pa.float64(), safe=False), 1e6)
        if pa.types.is_decimal(column.type):
            column = column.cast(pa.float64())
        if pa.types.is_integer(column.type) or pa.types.is_floating(column.type):
            found[name] = np.asarray(column.cast(pa.float64(), safe=False).to_numpy(zero_copy_only=False), np.float64)
    return found


def strings(batch: pa.RecordBatch) -> dict[str, list[str | None]]:
    """Every column of text."""
    found = {}
    for name, column in zip(batch.schema.names, batch.columns, strict=True):
        if pa.types.is_dictionary(column.type):
            column = column.cast(column.type.value_type)
        if pa.types.is_string(column.type) or pa.types.is_large_string(column.type):
            found[name] = column.to_pylist()
    return found
