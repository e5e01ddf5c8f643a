"""The figures about a run: its graph in layers, coloured by zone, and what each step took."""

from __future__ import annotations

from typing import TYPE_CHECKING

from edgeml.report import style
from edgeml.report.facts import Facts, Step, duration
from edgeml.report.style import BAD, CLOUD, CLOUD_LINE, EDGE, EDGE_LINE, INK, MUTED, PAPER, RULE, SMALL

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Dashes = str | tuple[float, tuple[float, float]]

BOX, GAP = (1.1, 0.46), (0.26, 0.24)  # inches: size of a step's box, space between boxes
MARGIN = 0.08
BAR = 0.28  # inches per row of the timings
STATUS = {"cached": "reused", "skipped": "not run", "cancelled": "not run"}


def layers(steps: list[Step]) -> list[list[Step]]:
    """The steps by how many others must come before them; a step's needs all lie in earlier layers."""
    by_name = {step.node: step for step in steps}
    depth: dict[str, int] = {}

    def find(step: Step, above: frozenset[str]) -> int:
        if step.node not in depth:
            needs = [by_name[need] for need in step.needs if need in by_name and need not in above]
            depth[step.node] = 1 + max((find(need, above | {step.node}) for need in needs), default=-1)
        return depth[step.node]

    found: list[list[Step]] = []
    for step in steps:
        level = find(step, frozenset({step.node}))
        found += [[] for _ in range(level + 1 - len(found))]
        found[level].append(step)
    return found


def positions(steps: list[Step]) -> dict[str, tuple[float, float]]:
    """The centre of each step's box in inches, y downwards, within a layer ordered by where its needs lie."""
    columns = layers(steps)
    tallest = max(map(len, columns), default=1)
    places: dict[str, tuple[float, float]] = {}
    for level, column in enumerate(columns):
        wanted = {
            step.node: sum(places[n][1] for n in step.needs if n in places) / max(len(step.needs), 1) for step in column
        }
        ordered = sorted(column, key=lambda step: wanted[step.node])
        top = (tallest - len(column)) / 2
        for row, step in enumerate(ordered):
            x = MARGIN + BOX[0] / 2 + level * (BOX[0] + GAP[0])
            places[step.node] = (x, MARGIN + BOX[1] / 2 + (top + row) * (BOX[1] + GAP[1]))
    return places


def graph(facts: Facts) -> Figure:
    """The pipeline from left to right. Edges that pass a layer by bend below it."""
    places = positions(facts.steps)
    level = {step.node: i for i, column in enumerate(layers(facts.steps)) for step in column}
    width = max((x for x, _ in places.values()), default=0) + BOX[0] / 2 + MARGIN
    lowest = max((y for _, y in places.values()), default=0) + BOX[1] / 2
    spans = sorted(
        (level[step.node] - level[need], need, step.node)
        for step in facts.steps
        for need in step.needs
        if need in places and level[step.node] - level[need] > 1
    )
    lanes = {(need, node): lowest + 0.16 + 0.11 * i for i, (_, need, node) in enumerate(spans)}
    height = max([lowest, *lanes.values()]) + 0.42
    width = max(width, style.FULL)
    figure = style.figure(width, height)
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set(xlim=(0, width), ylim=(height, 0))
    axes.set_axis_off()
    for step in facts.steps:
        for need in step.needs:
            if need in places:
                _edge(axes, places[need], places[step.node], lanes.get((need, step.node)))
    for step in facts.steps:
        _box(axes, step, *places[step.node])
    _legend(axes, facts, height - 0.14)
    return figure


def timings(facts: Facts) -> Figure:
    """One bar per step from its start to its end, in seconds since the run began."""
    steps = facts.steps
    figure = style.figure(style.FULL, BAR * max(len(steps), 1) + 0.55)
    names = [style.short(step.node, 20) for step in steps]
    axes = style.axes(figure, style.margin(names), 0.45, 1.0, 0.1)
    end = max([facts.record["seconds"], *(step.started + step.seconds for step in steps)], default=1) or 1
    for i, step in enumerate(steps):
        fill, line, style_ = _paint(step)
        if step.status in ("skipped", "cancelled"):
            axes.text(end * 0.005, i, "not run", va="center", color=MUTED, fontsize=SMALL)
            continue
        axes.barh(i, max(step.seconds, end * 0.002), left=step.started, height=0.56, facecolor=fill, edgecolor=line,
                  linewidth=1, linestyle=style_)  # fmt: skip
        took = "" if step.status == "cached" else duration(step.seconds)
        words = ", ".join(filter(None, [took, "" if step.status == "completed" else _status(step)]))
        colour = BAD if step.status == "failed" else MUTED
        axes.annotate(words, (step.started + step.seconds, i), xytext=(5, 0), textcoords="offset points", va="center",
                      fontsize=SMALL, color=colour, annotation_clip=False)  # fmt: skip
    axes.set(xlim=(0, end), ylim=(max(len(steps), 1) - 0.5, -0.5))
    axes.set_xlabel("Seconds since the run began", loc="right")
    axes.set_yticks(range(len(steps)), names)
    axes.tick_params(length=0)
    axes.tick_params(axis="y", labelcolor=INK)
    axes.spines["left"].set_visible(False)
    axes.grid(axis="x", color=RULE, linewidth=0.5, alpha=0.7)
    return figure


def _edge(axes: Axes, start: tuple[float, float], end: tuple[float, float], lane: float | None) -> None:
    from matplotlib.patches import FancyArrowPatch
    from matplotlib.path import Path

    (x0, y0), (x1, y1) = (start[0] + BOX[0] / 2, start[1]), (end[0] - BOX[0] / 2 - 0.02, end[1])
    move, curve, line = Path.MOVETO, Path.CURVE4, Path.LINETO
    if lane is None:
        middle = (x0 + x1) / 2
        path = Path([(x0, y0), (middle, y0), (middle, y1), (x1, y1)], [move, curve, curve, curve])
    else:
        reach = GAP[0] / 2
        points = [(x0, y0), (x0 + reach, y0), (x0 + reach * 0.4, lane), (x0 + 2 * reach, lane), (x1 - 2 * reach, lane)]
        points += [(x1 - reach * 0.4, lane), (x1 - reach, y1), (x1, y1)]
        path = Path(points, [move, curve, curve, curve, line, curve, curve, curve])
    axes.add_patch(
        FancyArrowPatch(
            path=path, arrowstyle="-|>,head_length=2.6,head_width=1.5", linewidth=0.9, edgecolor=MUTED,
            facecolor=MUTED, joinstyle="round", shrinkA=0, shrinkB=0, fill=True, zorder=1,
        )
    )  # fmt: skip


def _box(axes: Axes, step: Step, x: float, y: float) -> None:
    from matplotlib.patches import FancyBboxPatch

    fill, line, dashes = _paint(step)
    pad = 0.05
    axes.add_patch(
        FancyBboxPatch(
            (x - BOX[0] / 2 + pad, y - BOX[1] / 2 + pad), BOX[0] - 2 * pad, BOX[1] - 2 * pad,
            boxstyle=f"round,pad={pad},rounding_size=0.07", facecolor=fill, edgecolor=line, linewidth=1,
            linestyle=dashes, zorder=2,
        )
    )  # fmt: skip
    name = MUTED if line == RULE else INK
    axes.text(x, y - 0.07, style.short(step.node, 18), ha="center", va="center", fontsize=7.2, color=name, zorder=3)
    words = duration(step.seconds) if step.status in ("completed", "failed") else ""
    if step.status != "completed":
        words = ", ".join(filter(None, [_status(step), words]))
    colour = BAD if step.status == "failed" else MUTED
    axes.text(x, y + 0.1, words, ha="center", va="center", fontsize=6.8, color=colour, zorder=3)


def _legend(axes: Axes, facts: Facts, y: float) -> None:
    from matplotlib.patches import FancyBboxPatch

    statuses = {step.status for step in facts.steps}
    entries: list[tuple[str, str, str, Dashes]] = [
        ("stays on the premises", EDGE, EDGE_LINE, "-"),
        ("may go to the cloud", CLOUD, CLOUD_LINE, "-"),
    ]
    entries += [("reused", EDGE, EDGE_LINE, (0, (2, 1.5)))] if "cached" in statuses else []
    entries += [("failed", PAPER, BAD, "-")] if "failed" in statuses else []
    entries += [("not run", PAPER, RULE, "-")] if statuses & {"skipped", "cancelled"} else []
    x = MARGIN
    for words, fill, line, dashes in entries:
        axes.add_patch(
            FancyBboxPatch(
                (x + 0.03, y - 0.03), 0.1, 0.06, boxstyle="round,pad=0.03,rounding_size=0.03", facecolor=fill,
                edgecolor=line, linewidth=1, linestyle=dashes,
            )
        )  # fmt: skip
        axes.text(x + 0.22, y, words, va="center", fontsize=SMALL, color=MUTED)
        x += 0.5 + 0.066 * len(words)


def _paint(step: Step) -> tuple[str, str, Dashes]:
    """Fill, line and dashes of a step."""
    if step.status == "failed":
        return PAPER, BAD, "-"
    if step.status not in ("completed", "cached"):
        return PAPER, RULE, "-"
    fill, line = (CLOUD, CLOUD_LINE) if step.zone == "cloud" else (EDGE, EDGE_LINE)
    return fill, line, "-" if step.status == "completed" else (0, (2, 1.5))


def _status(step: Step) -> str:
    return STATUS.get(step.status, step.status)
