"""What one pass over the private table tells of its columns, in bounded memory.

The smallest and largest number of a column are exact. Levels, lattice and the share of rows by value come from at most
SAMPLE rows, spread evenly over the table: up to that many rows they are exact too.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from edgeml.airlock.private import Private

SAMPLE = 200_000
BINS = 4096
MOST_VALUES = 50_000
_ATOM = 0.005
_DECIMALS = range(-6, 10)  # of the finest unit that all numbers of a column are multiples of


@dataclass(frozen=True)
class Numbers:
    """A column of numbers (times as seconds).

    `lattice` is the unit that all values are multiples of, 0.0 where there is none; `occupancy` the share of its points
    between `low` and `high` that occur. `shares` is the share of values in each of BINS equal steps from low to high,
    `atoms` are single values that many rows hold, `weights` the share of each.
    """

    count: int
    low: float
    high: float
    levels: int
    lattice: float
    occupancy: float
    shares: NDArray[np.float64]
    atoms: NDArray[np.float64]
    weights: NDArray[np.float64]


@dataclass(frozen=True)
class Strings:
    """A column of text: in how many rows each value stands; None beyond MOST_VALUES values (`Private.count` tells)."""

    count: int
    counts: dict[str, int] | None


class Profile(NamedTuple):
    numbers: dict[str, Numbers]
    strings: dict[str, Strings]


def profile(private: Private) -> Profile:
    """One pass over `private`."""
    numeric = [column.name for column in private.columns.values() if column.kind != "string"]
    textual = [column.name for column in private.columns.values() if column.kind == "string"]
    samples: dict[str, list[Any]] = {name: [] for name in numeric}
    extremes = {name: (0, float("inf"), float("-inf")) for name in numeric}
    counters = {name: _Counter() for name in textual}
    step, row = max(1, private.rows // SAMPLE), 0
    for batch in private.batches(numeric + textual):
        for name in numeric:
            values = as_numbers(batch[name])
            samples[name].append(values[-row % step :: step].copy())  # a view would keep all rows
            extremes[name] = _widened(extremes[name], values)
        for name in textual:
            counters[name].add(batch[name])
        row += batch.num_rows
    return Profile(
        {name: _numbers(extremes[name], samples[name]) for name in numeric},
        {name: Strings(counter.total, counter.counts) for name, counter in counters.items()},
    )


def as_numbers(array: Any) -> NDArray[np.float64]:
    """A column of a batch as float64 with NaN for null; times as seconds since 1970."""
    import numpy as np
    import pyarrow as pa

    if pa.types.is_timestamp(array.type):
        seconds = array.cast(pa.int64()).cast(pa.float64(), safe=False).to_numpy(zero_copy_only=False)
        return np.asarray(seconds / 1e6, dtype=np.float64)
    if pa.types.is_boolean(array.type):
        array = array.cast(pa.uint8()).cast(pa.float64())
    return np.asarray(array.to_numpy(zero_copy_only=False), dtype=np.float64)


def _widened(extremes: tuple[int, float, float], values: NDArray[np.float64]) -> tuple[int, float, float]:
    import numpy as np

    count, low, high = extremes
    if not len(values):
        return extremes
    least, most = float(np.fmin.reduce(values)), float(np.fmax.reduce(values))
    if not (np.isfinite(least) and np.isfinite(most)):
        values = values[np.isfinite(values)]
        if not len(values):
            return extremes
        least, most = float(values.min()), float(values.max())
    present = len(values) - int(np.count_nonzero(values != values))
    return count + present, min(low, least), max(high, most)


def _numbers(extremes: tuple[int, float, float], samples: list[NDArray[np.float64]]) -> Numbers:
    import numpy as np

    count, low, high = extremes
    sample = np.concatenate(samples) if samples else np.zeros(0)
    sample = sample[np.isfinite(sample)]
    shares = np.zeros(BINS)
    if not count or not len(sample):
        return Numbers(count, 0.0, 0.0, 0, 0.0, 0.0, shares, np.zeros(0), np.zeros(0))
    if high > low:
        places = np.clip((sample - low) * (BINS / (high - low)), 0, BINS - 1).astype(np.int64)
        shares = np.bincount(places, minlength=BINS) / len(sample)
    else:
        shares[0] = 1.0
    levels, counts = np.unique(sample, return_counts=True)
    many = counts > _ATOM * len(sample)
    lattice = _lattice(levels)
    points = (high - low) / lattice + 1 if lattice else 0.0
    occupancy = min(1.0, len(levels) / points) if points else 0.0
    weights = counts[many] / len(sample)
    return Numbers(count, low, high, len(levels), lattice, occupancy, shares, levels[many], weights)


def _lattice(levels: NDArray[np.float64]) -> float:
    """The largest power of ten that every level is a multiple of; 0.0 where none down to a thousand-millionth is."""
    import numpy as np

    tolerance = np.maximum(np.abs(levels) * 1e-7, 1e-12)  # float32 columns hold 0.1 as 0.10000000149
    for decimals in _DECIMALS:
        unit = 10.0**-decimals
        if np.all(np.abs(np.round(levels / unit) * unit - levels) <= np.minimum(tolerance, unit / 4)):
            return unit
    return 0.0


class _Counter:
    """Counts the values of a column until there are too many."""

    def __init__(self) -> None:
        self.total = 0
        self.counts: dict[str, int] | None = {}

    def add(self, array: Any) -> None:
        self.total += len(array) - array.null_count
        if self.counts is None:
            return
        entries = array.value_counts()
        if len(entries) + len(self.counts) > 4 * MOST_VALUES:
            self.counts = None
            return
        for value, count in zip(entries.field(0).to_pylist(), entries.field(1).to_pylist(), strict=True):
            if value is not None:
                self.counts[value] = self.counts.get(value, 0) + count
        if len(self.counts) > MOST_VALUES:
            self.counts = None
