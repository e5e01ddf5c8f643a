"""What a leak vector is, the list of them all, and the folder that one makes."""

from __future__ import annotations

import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from .release import copy_release
from .table import Table

Write = Callable[[Path, Table, np.random.Generator], None]


class Vector(NamedTuple):
    """One way out. `write` adds exactly one leak to a legitimate release in `folder`.

    `content` is False where rules over content alone cannot be asked to see it: nothing private can be read from the
    file as it lies there (a symbolic link, a device), or it was encoded by someone who knows the gate. `washed` is True
    where the gate need not refuse, because what it writes anew does not hold the leak.
    """

    name: str
    family: str
    write: Write
    content: bool = True
    washed: bool = False


VECTORS: list[Vector] = []


def leak(family: str, content: bool = True, washed: bool = False) -> Callable[[Write], Write]:
    """Put a function on the list under its own name."""

    def listed(write: Write) -> Write:
        VECTORS.append(Vector(write.__name__, family, write, content, washed))
        return write

    return listed


def add(family: str, name: str, write: Write, content: bool = True) -> None:
    VECTORS.append(Vector(name, family, write, content))


def build(vector: Vector, table: Table, destination: Path) -> Path:
    """A release of the table with this one leak in it; the same vector and table always give the same leak."""
    folder = copy_release(table, destination)
    vector.write(folder, table, generator(vector.name, table))
    return folder


def generator(name: str, table: Table) -> np.random.Generator:
    return np.random.default_rng([zlib.crc32(name.encode()), table.seed, table.rows])


def some(table: Table, rng: np.random.Generator, rows: int) -> list[int]:
    """Rows of the table, taken at random."""
    return [int(row) for row in rng.choice(table.rows, min(rows, table.rows), replace=False)]


def records(table: Table, rows: list[int], columns: list[str] | None = None) -> list[dict[str, Any]]:
    """Rows as they would be printed: numbers as the table has them."""
    frame = table.frame if columns is None else table.frame.select(columns)
    return [frame.row(row, named=True) for row in rows]
