"""The figures about a model. Each takes what the release says and returns a matplotlib figure."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from edgeml.report import style
from edgeml.report.facts import LOWER_IS_BETTER, Facts, interval, metric_name, signed
from edgeml.report.style import BAD, CHALLENGER, CHAMPION, HALF, INK, MUTED, RULE, SMALL

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

SQUARE = 3.55  # inches of height of the half-width figures
MOST_FEATURES = 15
LONGEST_NAME, LONGEST_SLICE = 28, 42
ROW = 0.26  # inches per row of a dot plot


def roc(facts: Facts) -> Figure:
    figure, axes = _unit_square("False positive rate", "True positive rate")
    axes.plot([0, 1], [0, 1], color=RULE, linewidth=1, linestyle=(0, (4, 3)))
    points = _points(facts, "roc")
    axes.plot(*zip(*points, strict=True), color=CHALLENGER, linewidth=1.8, solid_joinstyle="round")
    _area(axes, points)
    _corner(axes, facts, "roc_auc")
    return figure


def precision_recall(facts: Facts) -> Figure:
    figure, axes = _unit_square("Recall", "Precision")
    points = _points(facts, "pr")
    axes.plot(*zip(*points, strict=True), color=CHALLENGER, linewidth=1.8, solid_joinstyle="round")
    _area(axes, points)
    _corner(axes, facts, "average_precision")
    return figure


def calibration(facts: Facts) -> Figure:
    """Mean prediction against observed fraction; the area of a dot grows with its rows."""
    figure, axes = _unit_square("Mean predicted probability", "Fraction positive")
    axes.plot([0, 1], [0, 1], color=RULE, linewidth=1, linestyle=(0, (4, 3)))
    bins = facts.documents["curves.json"]["calibration"]
    x, y = ([float(b[key]) for b in bins] for key in ("mean_predicted", "fraction_positive"))
    most = max((b["count"] for b in bins), default=1)
    axes.plot(x, y, color=CHALLENGER, linewidth=1.2, alpha=0.5)
    sizes = [16 + 50 * b["count"] / most for b in bins]
    axes.scatter(x, y, s=sizes, color=CHALLENGER, edgecolor=style.PAPER, linewidth=1, zorder=3, clip_on=False)
    _corner(axes, facts, "brier")
    return figure


def confusion(facts: Facts) -> Figure:
    """Counts of the test part. A hidden cell is below k, or would give one away that is; which, it does not tell."""
    from matplotlib.patches import Rectangle

    document = facts.documents["confusion.json"]
    matrix, names = document["matrix"], [style.short(label, 14) for label in document["labels"]]
    largest, size = max((cell or 0 for row in matrix for cell in row), default=0) or 1, len(names)
    figure = style.figure(HALF, SQUARE)
    axes = style.axes(figure, style.margin(names), 0.45 if size < 5 else 1.1, 0.12, 0.3)
    for i, row in enumerate(matrix):
        for j, cell in enumerate(row):
            colour = CHALLENGER if i == j else BAD
            tint = 0.06 + 0.5 * (cell or 0) / largest
            axes.add_patch(Rectangle((j, i), 1, 1, facecolor=colour, alpha=tint, edgecolor="none"))
            words, ink, most = ("hidden", MUTED, SMALL) if cell is None else (f"{cell:,}", INK, 15)
            axes.text(j + 0.5, i + 0.5, words, ha="center", va="center", fontsize=min(most, 44 / size), color=ink)
    for i in range(1, size):
        axes.axhline(i, color=style.PAPER, linewidth=3 if size < 6 else 1)
        axes.axvline(i, color=style.PAPER, linewidth=3 if size < 6 else 1)
    axes.set(xlim=(0, size), ylim=(size, 0))
    axes.set_xticks([i + 0.5 for i in range(size)], names, rotation=0 if size < 5 else 90)
    axes.set_yticks([i + 0.5 for i in range(size)], names)
    axes.tick_params(length=0, labelcolor=INK)
    axes.spines[:].set_visible(False)
    _name_axes(axes, "Predicted" if size < 5 else "", "Actual")
    return figure


def residuals(facts: Facts) -> Figure:
    bins = facts.documents["curves.json"]["residuals"]
    figure = style.figure(style.FULL, 2.6)
    axes = style.axes(figure, 0.3, 0.45, 0.15, 0.3)
    for b in bins:
        width = b["high"] - b["low"]
        axes.bar(b["low"] + width / 2, b["count"], width=width * 0.94, color=CHALLENGER, alpha=0.85)
    axes.axvline(0, color=INK, linewidth=0.8)
    axes.tick_params(length=0)
    _name_axes(axes, "Actual − predicted", "Test rows")
    return figure


def importance(facts: Facts) -> Figure:
    """The features that matter most: mean drop and its standard deviation."""
    features = facts.documents["importance.json"]["features"][:MOST_FEATURES]
    figure, axes = _rows([style.short(feature["name"], LONGEST_NAME) for feature in features])
    for i, feature in enumerate(features):
        _dot(axes, i, feature["mean"], feature["mean"] - feature["std"], feature["mean"] + feature["std"], CHALLENGER)
    axes.axvline(0, color=RULE, linewidth=1)
    _name_axes(axes, style.short(_method(facts), 90), "")
    return figure


def slices(facts: Facts) -> Figure:
    """One metric in each slice against the metric over all rows."""
    metric = sliced_metric(facts)
    shown_slices = [s for s in facts.documents["slices.json"]["slices"] if metric in s["metrics"]]
    figure, axes = _rows(
        [style.short(f"{s['column']} · {s['slice']}", LONGEST_SLICE) for s in shown_slices], right=0.75
    )
    overall = facts.metrics.get(metric)
    if overall:
        axes.axvspan(overall["low"], overall["high"], color=MUTED, alpha=0.12, linewidth=0)
        axes.axvline(overall["value"], color=MUTED, linewidth=1)
    before = None
    for i, item in enumerate(shown_slices):
        estimate = item["metrics"][metric]
        _dot(axes, i, estimate["value"], estimate["low"], estimate["high"], CHALLENGER)
        if before is not None and item["column"] != before:
            axes.axhline(i - 0.5, color=RULE, linewidth=0.8)
        before = item["column"]
        rows = f"{item['rows']:,} rows"
        axes.text(1.015, i, rows, transform=axes.get_yaxis_transform(), va="center", color=MUTED, fontsize=SMALL)
    _name_axes(axes, metric_name(metric), "")
    return figure


def sliced_metric(facts: Facts) -> str:
    """The metric that the most slices have, the headline first; empty without slices."""
    found = [name for item in facts.documents["slices.json"]["slices"] for name in item["metrics"]]
    return max(dict.fromkeys([facts.headline, *found]), key=found.count) if found else ""


def champion(facts: Facts) -> Figure:
    """Each metric of both models on a scale of its own, then the difference that was tested."""
    assert facts.champion is not None
    theirs, difference = facts.champion["metrics"], facts.champion.get("difference")
    names = [name for name in facts.metrics if name in theirs]
    row, left, right = 0.5, style.margin([_directed(name) for name in facts.metrics]) + 0.1, 2.75
    height = row * len(names) + (1.05 if difference else 0.1)
    figure = style.figure(style.FULL, height)
    axes = style.axes(figure, left, height - row * len(names), right, 0)
    axes.set(xlim=(-0.06, 1.06), ylim=(len(names) - 0.5, -0.5))
    axes.set_axis_off()
    for i, name in enumerate(names):
        ours_and_theirs = (_bounds(facts.metrics[name]), _bounds(theirs[name]))
        low = min(bounds[1] for bounds in ours_and_theirs)
        span = max(bounds[2] for bounds in ours_and_theirs) - low or 1
        _beside(axes, -0.02, i, _directed(name), ha="right")
        for who, estimate, colour, y in (
            ("Challenger", facts.metrics[name], CHALLENGER, i - 0.18),
            ("Champion", theirs[name], CHAMPION, i + 0.18),
        ):
            value, start, end = ((bound - low) / span for bound in _bounds(estimate))
            _dot(axes, y, value, start, end, colour)
            axes.plot(
                [1.045], [y], "o", color=colour, markersize=4, transform=axes.get_yaxis_transform(), clip_on=False
            )
            _beside(axes, 1.07, y, who, color=MUTED, fontsize=SMALL)
            _beside(axes, 1.29, y, interval(estimate), fontsize=SMALL)
        if i:
            axes.plot([-left, 2], [i - 0.5, i - 0.5], color=RULE, linewidth=0.6, clip_on=False)
    if difference:
        axes = style.axes(figure, left, 0.5, right, height - 0.95)
        axes.axvline(0, color=MUTED, linewidth=1, linestyle=(0, (4, 3)))
        _dot(axes, 0, *_bounds(difference), INK)
        axes.set_ylim(-0.6, 0.6)
        axes.set_yticks([])
        axes.tick_params(length=0)
        axes.spines["left"].set_visible(False)
        axes.locator_params(axis="x", nbins=5)
        _beside(axes, -0.02, 0, f"Difference in\n{metric_name(difference['metric'])}", ha="right")
        margin, p = difference.get("margin"), difference.get("p_value")
        if margin is not None:
            axes.axvline(-float(margin), color=BAD, linewidth=1)
        words = [f"margin {margin:g}" if margin is not None else "", f"p = {p:.3g}" if p is not None else ""]
        _beside(axes, 1.07, 0.25, ", ".join(filter(None, words)), color=MUTED, fontsize=SMALL)
        _beside(axes, 1.07, -0.25, signed(difference), fontsize=SMALL)
    return figure


def _beside(axes: Axes, x: float, y: float, words: str, **kind: Any) -> None:
    """Text beside the axes: `x` in their width, `y` as data."""
    axes.text(x, y, words, transform=axes.get_yaxis_transform(), va="center", **kind)


def _directed(metric: str) -> str:
    return metric_name(metric) + (" ↓" if metric in LOWER_IS_BETTER else "")


def _unit_square(x: str, y: str) -> tuple[Figure, Axes]:
    figure = style.figure(HALF, SQUARE)
    axes = style.axes(figure, 0.22, 0.45, 0.12, 0.3)
    ticks, names = [0, 0.25, 0.5, 0.75, 1], ["0", "¼", "½", "¾", "1"]
    axes.set(xlim=(0, 1), ylim=(0, 1.005))
    axes.set_xticks(ticks, names)
    axes.set_yticks(ticks, names)
    axes.grid(color=RULE, linewidth=0.5, alpha=0.7)
    axes.tick_params(length=0)
    _name_axes(axes, x, y)
    return figure, axes


def _name_axes(axes: Axes, x: str, y: str) -> None:
    """Name the axes where they end, both to be read without turning one's head."""
    inch = style.DPI / axes.get_window_extent().height
    axes.text(1, -0.25 * inch, x, ha="right", va="top", color=MUTED, fontsize=SMALL, transform=axes.transAxes)
    axes.text(0, 1 + 0.12 * inch, y, color=MUTED, fontsize=SMALL, transform=axes.transAxes)


def _points(facts: Facts, curve: str) -> list[tuple[float, float]]:
    return [(float(x), float(y)) for x, y in facts.documents["curves.json"][curve]]


def _area(axes: Axes, points: list[tuple[float, float]]) -> None:
    axes.fill_between([p[0] for p in points], [p[1] for p in points], color=CHALLENGER, alpha=0.08, linewidth=0)


def _corner(axes: Axes, facts: Facts, metric: str) -> None:
    """The figure's number, where the curve is not."""
    if metric in facts.metrics:
        axes.text(0.96, 0.12, metric_name(metric), ha="right", color=MUTED, fontsize=SMALL, transform=axes.transAxes)
        axes.text(0.96, 0.05, interval(facts.metrics[metric]), ha="right", transform=axes.transAxes)


def _rows(names: list[str], right: float = 0.15) -> tuple[Figure, Axes]:
    """Axes for a dot plot with a row for each name, the first at the top."""
    count = max(len(names), 1)
    figure = style.figure(style.FULL, ROW * count + 0.6)
    axes = style.axes(figure, style.margin(names), 0.5, right, 0.1)
    axes.set_ylim(count - 0.5, -0.5)
    axes.set_yticks(range(len(names)), names)
    axes.tick_params(length=0)
    axes.tick_params(axis="y", labelcolor=INK)
    axes.spines["left"].set_visible(False)
    axes.grid(axis="x", color=RULE, linewidth=0.5, alpha=0.7)
    return figure, axes


def _dot(axes: Axes, y: float, value: float, low: float, high: float, colour: str) -> None:
    low, value, high = float(low), float(value), float(high)  # matplotlib would take words for categories
    axes.plot([low, high], [y, y], color=colour, linewidth=1.6, solid_capstyle="round", alpha=0.55)
    axes.plot([value], [y], "o", color=colour, markersize=5)


def _bounds(estimate: Any) -> tuple[float, float, float]:
    """Value, low and high end; all the same where only the value is known."""
    ends = [estimate[key] for key in ("value", "low", "high")] if isinstance(estimate, dict) else [estimate] * 3
    value, low, high = map(float, ends)
    return value, low, high


def _method(facts: Facts) -> str:
    method = str(facts.documents["importance.json"]["method"])
    return method[:1].upper() + method[1:]
