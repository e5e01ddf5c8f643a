"""All vectors and all legitimate outputs, by importing the files that define them."""

from __future__ import annotations

from . import carriers, channels, files, statistics, stored_rows, vocabularies
from .legitimate import OUTPUTS
from .vectors import VECTORS

MADE_BY = (stored_rows, vocabularies, carriers, files, statistics, channels)
FAMILIES = tuple(dict.fromkeys(vector.family for vector in VECTORS))

__all__ = ["FAMILIES", "MADE_BY", "OUTPUTS", "VECTORS"]
