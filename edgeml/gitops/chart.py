"""Intervals drawn with letters: a pull request shows them everywhere, and no file has to be put anywhere for it."""

from __future__ import annotations

from typing import Any, NamedTuple

WIDTH = 40
NAME = 28


class Bar(NamedTuple):
    """One line: a name, and an estimate with `low`, `value` and `high`."""

    name: str
    estimate: dict[str, Any]


def intervals(bars: list[Bar], title: str = "") -> list[str]:
    """The lines of a chart of some intervals on one scale: `├──●──┤`."""
    low = min(float(bar.estimate["low"]) for bar in bars)
    high = max(float(bar.estimate["high"]) for bar in bars)
    head = f"{title:<{NAME}}  {_short(low)}{_short(high):>{WIDTH - len(_short(low))}}"
    return [head, *(f"{'  ' + bar.name:<{NAME}.{NAME}}  {_line(bar.estimate, low, high)}".rstrip() for bar in bars)]


def _line(estimate: dict[str, Any], low: float, high: float) -> str:
    left, middle, right = (_column(float(estimate[key]), low, high) for key in ("low", "value", "high"))
    cells = [" "] * WIDTH
    cells[left : right + 1] = "─" * (right + 1 - left)
    cells[left], cells[right] = "├", "┤"
    cells[middle] = "●"
    return "".join(cells)


def _column(value: float, low: float, high: float) -> int:
    return round((value - low) / (high - low) * (WIDTH - 1)) if high > low else WIDTH // 2


def _short(value: float) -> str:
    return f"{value:.3f}" if abs(value) < 100 else f"{value:,.0f}"
