"""How much it tells that a number which wants to leave fits a private cell, in bits.

A cell tells -log2 of the chance that an unrelated number fits it as well. Rows need the evidence that singles them out
of all rows and of all places where they could stand, and a margin. What is left over is the evidence: with s bits, one
in 2^s tables or texts would show as much by chance. Legitimate text stays below 0 bits, a whole row is at 40 to 120.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from edgeml.airlock.private import Private
from edgeml.airlock.profile import BINS, Numbers

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

RUN, WINDOW = 15.0, 25.0  # bits: cells in the order of the columns, and cells in any order
TENSOR = 60.0
OCCUPIED = 0.2  # share of a column's lattice from which on any number of its range is likely to be someone's
_BITS_PER_DIGIT = math.log2(10)
_PIECE = 1 << 13


def numeric(private: Private) -> list[str]:
    """The columns of numbers in order, booleans too: they are printed as numbers or as true and false."""
    return [column.name for column in private.columns.values() if column.kind in ("number", "boolean")]


def chance(column: Numbers, value: NDArray[np.float64], half: NDArray[np.float64]) -> NDArray[np.float64]:
    """The chance that a number like those of the column, or any of its range, lies within `half` of `value`."""
    import numpy as np

    span = column.high - column.low
    if span <= 0 or not column.count:
        return np.ones(len(value))
    ends = np.concatenate([[0.0], np.cumsum(column.shares)])
    # Piece by piece, so that what is computed stays in the processor's cache.
    parts = [
        _chance(column, ends, value[at : at + _PIECE], np.maximum(half[at : at + _PIECE], column.lattice / 2))
        for at in range(0, len(value), _PIECE)
    ]
    return np.concatenate(parts) if parts else np.zeros(0)


def _chance(
    column: Numbers, ends: NDArray[np.float64], value: NDArray[np.float64], half: NDArray[np.float64]
) -> NDArray[np.float64]:
    """`chance` of some numbers; `ends` is the share of rows below each step of the range."""
    import numpy as np

    span = column.high - column.low
    sides = []
    for side in (value - half, value + half):
        side -= column.low
        side *= BINS / span
        sides.append(np.minimum(np.maximum(side, 0, out=side), BINS - 1e-9, out=side))
    first, last = (side.astype(np.int64) for side in sides)
    mass = (sides[1] - sides[0]) * column.shares.take(first)
    across = np.flatnonzero(first != last)
    mass[across] = _below(ends, sides[1][across]) - _below(ends, sides[0][across])
    if len(column.atoms):
        begin = np.searchsorted(column.atoms, value - half, "left")
        near = np.flatnonzero(np.searchsorted(column.atoms, value + half, "right") > begin)
        for atom, weight in zip(column.atoms.tolist(), column.weights.tolist(), strict=True) if len(near) else ():
            fits = np.abs(value[near] - atom) <= half[near]
            mass[near] = np.maximum(mass[near], np.where(fits, weight, 0.0))
    half *= 2 / span
    return np.clip(np.maximum(mass, half, out=mass), 1e-12, 1.0, out=mass)


def evidence(
    column: Numbers, value: NDArray[np.float64], half: NDArray[np.float64], digits: NDArray[np.int64]
) -> NDArray[np.float64]:
    """Bits by number, if it fits a cell: no more than the column's levels or the printed digits can tell apart."""
    import numpy as np

    if column.levels < 2:
        return np.zeros(len(value))
    bits = -np.log2(chance(column, value, half))
    return np.asarray(np.minimum(np.minimum(bits, most(column)), digits * _BITS_PER_DIGIT + 1))


def most(column: Numbers) -> float:
    """The most bits that a number of the column can tell."""
    return math.log2(max(1, column.levels)) + 4


def _below(ends: NDArray[np.float64], points: NDArray[np.float64]) -> NDArray[np.float64]:
    """The share of values below points, which are given in steps of the column's range."""
    import numpy as np

    step = points.astype(np.int64)
    return np.asarray(ends[step] + (points - step) * (ends[step + 1] - ends[step]))
