"""Private rows among a model's constants when every column was shifted and scaled on its own.

Rows that the model itself scales are met among its activations (see `activations`); these were scaled
before they came into the model. Tried are the scalings that the table gives by itself (mean and standard
deviation, range, median and quartiles, largest amount), which show a single row, and then whatever
scaling fits best: the constants are laid over the table by such a scaling, each of their rows is paired
with the nearest private row, every column's scale and shift are fitted to the pairs, and so on until
nothing moves. A fitted scaling can send two rows anywhere, so it counts from five rows on; by chance none
beyond the two comes within 1e-4 of a standard deviation in all columns.

Not seen: rows under a scaling that no start comes near, columns in another order than the table's or the
contract's, and in a table of more than KEPT rows those that are not in the sample.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa

from edgeml.airlock.finding import Finding
from edgeml.airlock.models.activations import FEW_ROWS, STORED, Space, shapes
from edgeml.airlock.models.batch import numbers
from edgeml.airlock.models.tensors import NUMBERED, THRESHOLDS
from edgeml.airlock.models.walk import Place
from edgeml.contract import Contract

KEPT = 20_000  # rows of the table
PAIRED = 48  # rows of a constant that a scaling is fitted to
NARROWEST = 3  # columns
ROUNDS = 10
CLOSE = 0.05  # standard deviations: what is that close after the last round is a pair
OWN = 8  # rows of a constant whose own mean and deviation are a start
Array = np.ndarray[Any, Any]


class Scaling(NamedTuple):
    """(cell - shift) / scale, by column."""

    shift: Array
    scale: Array


class Scaled:
    """The constants of some models, against a sample of the rows."""

    def __init__(self, places: Iterable[tuple[str, Place]], contract: Contract) -> None:
        self.contract = contract
        self.places = [(file, place) for file, place in places if place.role not in NUMBERED | THRESHOLDS]
        self.rows, self.stride = 0, 1
        self.kept: dict[str, list[Array]] = {}

    def feed(self, batch: pa.RecordBatch) -> None:
        """Keep every row, and where they are too many every second, fourth, …"""
        first = -self.rows % self.stride
        for name, cells in numbers(batch).items():
            self.kept.setdefault(name, []).append(cells[first :: self.stride].copy())
        self.rows += batch.num_rows
        if self.kept and sum(map(len, next(iter(self.kept.values())))) > 2 * KEPT:
            self.stride *= 2
            self.kept = {name: [np.concatenate(parts)[::2]] for name, parts in self.kept.items()}

    def findings(self) -> Iterator[Finding]:
        cells = {name: np.concatenate(parts) for name, parts in self.kept.items()}
        features = [column.name for column in self.contract.features if column.name in cells]
        found: dict[tuple[str, str], tuple[int, int, float]] = {}
        for names in dict.fromkeys((tuple(features), tuple(cells))):
            if len(names) < NARROWEST:
                continue
            table = np.stack([cells[name] for name in names], axis=1)
            filled = _filled(table)
            tables = [table, filled] if np.isnan(table).any() else [filled]
            known = [(one, given(one)) for one in tables]
            for (file, where), constant in self._constants(len(names)):
                for seen in self._seen(known, where, constant):
                    found[file, where] = max(found.get((file, where), seen), seen)
        for (file, where), (rows, count, bits) in found.items():
            yield Finding(
                STORED.id, file, where, f"equals {rows} private rows, each column of which was shifted and scaled",
                "train an estimator that keeps no rows (no neighbours, support vectors or Gaussian process)",
                rows=rows, cells=count, bits=round(bits, 1),
            )  # fmt: skip

    def _constants(self, width: int) -> Iterator[tuple[tuple[str, str], Array]]:
        """Every array that can be read as rows of so many columns, or of more if these come first."""
        for file, place in self.places:
            for array in shapes(place):
                wide = array.ndim == 2 and array.shape[1] > width
                if wide or array.size % width == 0:
                    rows = array[:, :width] if wide else array.reshape(-1, width)
                    if rows.any():
                        yield (file, place.where), rows

    def _seen(
        self, tables: list[tuple[Array, list[Scaling]]], where: str, constant: Array
    ) -> Iterator[tuple[int, int, float]]:
        for table, scalings in tables:
            for scaling in scalings:
                yield from self._judge(table, where, constant, scaling)
        filled, scalings = tables[-1]
        for fit in fitted(filled, scalings, constant):
            yield from (seen for seen in self._judge(filled, where, constant, fit) if seen[0] >= FEW_ROWS)

    def _judge(self, table: Array, where: str, constant: Array, scaling: Scaling) -> Iterator[tuple[int, int, float]]:
        with np.errstate(all="ignore"):
            rows = (table - scaling.shift) / scaling.scale
        space = Space(table.shape[1], rows, [(where, constant)], self.contract.k)
        space.feed(rows)
        for _, count, cells, bits in space.judge(self.rows):
            yield count, cells, bits


def _filled(table: Array) -> Array:
    """The table with the mean where nothing is known, as an imputer leaves it."""
    known = np.where(np.isfinite(table), table, np.nan)
    with np.errstate(all="ignore"):
        return np.where(np.isfinite(table), table, np.nan_to_num(np.nanmean(known, axis=0)))


def given(table: Array) -> list[Scaling]:
    """The scalings that a table gives by itself, the standard one first; where a column tells nothing it is kept."""
    known = np.where(np.isfinite(table), table, np.nan)
    with np.errstate(all="ignore"):
        mean, low, high = np.nanmean(known, axis=0), np.nanmin(known, axis=0), np.nanmax(known, axis=0)
        first, median, third = np.nanpercentile(known, [25, 50, 75], axis=0)
        deviations = [np.nanstd(known, axis=0, ddof=freedom) for freedom in (0, 1)]
        none, amount = np.zeros_like(mean), np.nanmax(np.abs(known), axis=0)
    pairs = [*((mean, deviation) for deviation in deviations), (low, high - low), (median, third - first)]
    pairs += [(none, amount), (none, deviations[0])]
    return [
        Scaling(np.nan_to_num(shift), np.where(np.isfinite(scale) & (scale > 0), scale, 1.0)) for shift, scale in pairs
    ]


def fitted(table: Array, scalings: list[Scaling], constant: Array) -> Iterator[Scaling]:
    """The scalings that lay most rows of a constant on rows of a table, from each start; mostly there is none."""
    constant = constant[np.isfinite(constant).all(axis=1)]
    if len(constant) < FEW_ROWS:
        return
    chosen = constant[np.linspace(0, len(constant) - 1, min(PAIRED, len(constant))).astype(int)]
    standard = scalings[0]
    rows = (table - standard.shift) / standard.scale
    starts = [(chosen * one.scale + one.shift - standard.shift) / standard.scale for one in scalings]
    spread = constant.std(axis=0)
    if len(constant) >= OWN and (spread > 0).all():
        starts.append((chosen - constant.mean(axis=0)) / spread)
    for start in starts:
        slope, offset = _closest(rows, chosen, start)
        if (slope != 0).all() and np.isfinite(slope).all():
            yield Scaling(standard.shift + standard.scale * offset, standard.scale * slope)


def _closest(rows: Array, constant: Array, start: Array) -> tuple[Array, Array]:
    """Slope and offset by column that lay the rows of a constant on `rows`, found from where `start` lays them.

    Iterated closest points: the better half of the pairs draws the rest along.
    """
    placed, before = start, np.zeros(0)
    squares = (rows**2).sum(axis=1)
    slope, offset = np.ones(rows.shape[1]), np.zeros(rows.shape[1])
    for _ in range(ROUNDS):
        nearest = np.argmin(squares - 2 * placed @ rows.T, axis=1)
        pairs = rows[nearest]
        apart = np.abs(placed - pairs).max(axis=1)
        near = apart <= max(CLOSE, float(np.median(apart)))
        slope, offset = _line(constant[near], pairs[near])
        placed = constant * slope + offset
        if np.array_equal(nearest, before):
            break
        before = nearest
    return slope, offset


def _line(x: Array, y: Array) -> tuple[Array, Array]:
    """The least squares line of each column."""
    centre, height = x.mean(axis=0), y.mean(axis=0)
    width = ((x - centre) ** 2).sum(axis=0)
    with np.errstate(all="ignore"):
        slope = np.where(width > 0, ((x - centre) * (y - height)).sum(axis=0) / width, 1.0)
    return slope, height - slope * centre
