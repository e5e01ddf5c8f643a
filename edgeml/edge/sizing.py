"""How large a VM the rows need, and which of Azure Stack Hub's sizes is the smallest that holds them.

The rule is an assumption of this project, on the safe side of what `benchmarks/` saw on one table, not a promise:
training holds the rows as 64-bit floats several times (the table, its parts, what the estimator makes of them), the
system and the interpreter want two GiB more, and the disk holds the rows as Parquet for ingestion, for the parts and
once more in the cache, beside the system and the packages.
"""

from __future__ import annotations

from typing import NamedTuple

GIB = 1 << 30
MEMORY_BASE, MEMORY_FACTOR = 2 * GIB, 6
DISK_BASE, DISK_FACTOR = 10 * GIB, 4
RULE = "memory = 2 GiB + 6 x the rows, free disk = 10 GiB + 4 x the rows (an assumption, see docs/edge.md)"


class Size(NamedTuple):
    """A VM size: virtual processors, memory in GiB, graphics cards."""

    name: str
    processors: int
    memory: float
    cards: int = 0


# Sizes that Microsoft lists for Azure Stack Hub (read in its documentation, not asked of a stamp: an operator
# may offer fewer). The smallest first.
SIZES = (
    Size("Standard_DS1_v2", 1, 3.5),
    Size("Standard_DS2_v2", 2, 7),
    Size("Standard_DS3_v2", 4, 14),
    Size("Standard_DS4_v2", 8, 28),
    Size("Standard_DS5_v2", 16, 56),
    Size("Standard_DS14_v2", 16, 112),
    Size("Standard_NC6s_v3", 6, 112, 1),
    Size("Standard_NC12s_v3", 12, 224, 2),
    Size("Standard_NC24s_v3", 24, 448, 4),
)


class Need(NamedTuple):
    """Bytes of memory and of free disk, and the size that has them; None where no one machine does."""

    memory: int
    disk: int
    size: Size | None


def need(data: int, *, cards: int = 0) -> Need:
    """What `data` bytes of rows need, with so many graphics cards."""
    memory = MEMORY_BASE + MEMORY_FACTOR * data
    fitting = [size for size in SIZES if size.memory * GIB >= memory and size.processors > 1 and size.cards >= cards]
    return Need(memory, DISK_BASE + DISK_FACTOR * data, next(iter(fitting), None))
