"""How figures look: one palette, one type scale, sizes in inches, and an SVG that follows the page's colours.

The palette is Okabe and Ito's, which colour-blind readers can tell apart. In the SVG that goes into the
page each colour becomes a CSS variable, so that one drawing serves light, dark and paper.
"""

from __future__ import annotations

import io
import re
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

INK, MUTED, RULE, PAPER = "#1b1f24", "#667080", "#d8dce2", "#ffffff"
CHALLENGER, CHAMPION, BAD = "#0072b2", "#e69f00", "#d55e00"
EDGE, CLOUD, EDGE_LINE, CLOUD_LINE = "#fdf3df", "#e3f0f8", "#c98b00", "#0071b1"
VARIABLES = {
    INK: "--ink",
    MUTED: "--muted",
    RULE: "--rule",
    PAPER: "--paper",
    CHALLENGER: "--challenger",
    CHAMPION: "--champion",
    BAD: "--bad",
    EDGE: "--edge",
    CLOUD: "--cloud",
    EDGE_LINE: "--edge-line",
    CLOUD_LINE: "--cloud-line",
}

FULL, HALF = 8.0, 3.85  # inches; both are shown at the same scale
DPI = 160
SMALL, TEXT = 7.5, 8.5  # points

_RC: dict[str, Any] = {
    "font.family": "DejaVu Sans",
    "font.size": TEXT,
    "text.color": INK,
    "text.parse_math": False,  # a name with a dollar sign is a name
    "axes.edgecolor": RULE,
    "axes.labelcolor": MUTED,
    "axes.labelsize": SMALL,
    "axes.linewidth": 0.8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "xtick.color": RULE,
    "ytick.color": RULE,
    "xtick.labelcolor": MUTED,
    "ytick.labelcolor": MUTED,
    "xtick.labelsize": SMALL,
    "ytick.labelsize": SMALL,
    "figure.facecolor": PAPER,
    "axes.facecolor": "none",
    "savefig.facecolor": PAPER,
    "svg.fonttype": "none",
    "svg.hashsalt": "edgeml",
    "path.simplify": False,
}


def rc() -> Any:
    """Settings for matplotlib's `rc_context` (whose type is a list of all names there are)."""
    return _RC


def short(name: object, most: int) -> str:
    """A name as it fits: cut, and without what cannot be printed."""
    text = "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in str(name))
    return text if len(text) <= most else text[: most - 1] + "…"


def margin(names: list[str]) -> float:
    """Inches that the longest of these names takes left of the axes."""
    return 0.16 + 0.0675 * max(map(len, names), default=0)


def figure(width: float, height: float) -> Figure:
    """An empty figure, in inches."""
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), dpi=DPI)


def axes(figure: Figure, left: float, bottom: float, right: float = 0.15, top: float = 0.15) -> Axes:
    """Axes with margins in inches, so that the frames of neighbouring figures align."""
    width, height = figure.get_size_inches()
    box = (left / width, bottom / height, (width - left - right) / width, (height - bottom - top) / height)
    return figure.add_axes(box)


def png(figure: Figure) -> bytes:
    """The figure as PNG; the same figure gives the same bytes."""
    buffer = io.BytesIO()
    # The fastest compression: half the time of the default, a fifth more bytes.
    figure.savefig(buffer, format="png", dpi=DPI, metadata={"Software": None}, pil_kwargs={"compress_level": 1})
    return buffer.getvalue()


def svg(figure: Figure, name: str, description: str) -> str:
    """The figure as inline SVG in the page's colours and type, its ids its own."""
    from html import escape

    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", metadata={"Date": None})
    drawing = buffer.getvalue()
    drawing = drawing[drawing.index("<svg") :]
    drawing = re.sub(r"<!--.*?-->|<metadata>.*?</metadata>", "", drawing, flags=re.DOTALL)
    drawing = re.sub(r'<g id="[^"]*"', "<g", drawing)
    drawing = re.sub(r'(\bid="|href="#|url\(#)', rf"\g<1>{name}-", drawing)
    drawing = re.sub(r"font: (?:(\d+|bold) )?([\d.]+)px [^;\"]*", _font, drawing)
    for colour, variable in VARIABLES.items():
        drawing = drawing.replace(colour, f"var({variable})")
    width, height = (72 * inches for inches in figure.get_size_inches())
    head = (
        f'<svg viewBox="0 0 {width:g} {height:g}" xmlns="http://www.w3.org/2000/svg" '
        f'xmlns:xlink="http://www.w3.org/1999/xlink" role="img" aria-label="{escape(description)}">'
    )
    return head + drawing[drawing.index(">") + 1 :].rstrip()


def _font(found: re.Match[str]) -> str:
    weight = f"font-weight: {found[1]}; " if found[1] else ""
    return f"{weight}font-size: {found[2]}px"
