"""Draw the figures, fill the page, write both."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

from edgeml import project
from edgeml.report import facts as facts_of
from edgeml.report.facts import Facts, interval, metric_name

if TYPE_CHECKING:
    from matplotlib.figure import Figure

PAGE = "index.html"
TEMPLATE = "page.html.j2"


class Plot(NamedTuple):
    """A figure to draw: its file name, its title, a sentence on how to read it, what it shows, and how."""

    name: str
    title: str
    caption: str
    description: str
    draw: Callable[[Facts], Figure]
    source: str
    half: bool = False


class Drawn(NamedTuple):
    """A figure as it goes into the page (`svg`) and beside it (`png`)."""

    plot: Plot
    svg: str
    png: bytes


NAMES = ["roc", "precision_recall", "calibration", "confusion", "residuals", "importance", "champion", "slices"]
NAMES += ["graph", "timings"]


def write(run: str = "", out: str | None = None) -> str:
    """Write the report of a run (its name or folder; without one the newest) to `out`, by default RUN/report.

    Returns the path of the page; the plots lie beside it.

    Raises EdgemlError where there is no such run, or its record or release is damaged.
    """
    from edgeml.engine import runs

    found = runs.find(str(project.state()), run)
    facts = facts_of.gather(found)
    folder = os.path.abspath(out) if out else os.path.join(found.path, "report")
    drawn = draw(facts)
    page = render(facts, drawn)
    os.makedirs(folder, exist_ok=True)
    for name in NAMES:  # the plots of an earlier report of this folder
        if name not in {d.plot.name for d in drawn} and os.path.isfile(os.path.join(folder, f"{name}.png")):
            os.unlink(os.path.join(folder, f"{name}.png"))
    for d in drawn:
        _replace(os.path.join(folder, f"{d.plot.name}.png"), d.png)
    _replace(os.path.join(folder, PAGE), page.encode())
    return os.path.join(folder, PAGE)


def draw(facts: Facts) -> list[Drawn]:
    """Draw what there is to draw. Raises EdgemlError naming the file whose content cannot be drawn."""
    import warnings

    import matplotlib

    from edgeml.report import style

    drawn = []
    with matplotlib.rc_context(style.rc()), warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # a name in a script that the font of the PNG lacks
        for plot in plots_of(facts):
            with facts_of.reading(plot.source):
                figure = plot.draw(facts)
                drawn.append(Drawn(plot, style.svg(figure, plot.name, plot.description), style.png(figure)))
    return drawn


def plots_of(facts: Facts) -> list[Plot]:
    """The figures that this run has, in the order of the page."""
    from edgeml.report import graph, plots

    run = [
        Plot("graph", "Graph", "Every step and what it needs.", _graph_words(facts), graph.graph, "run.json"),
        Plot("timings", "Timings", "What each step took.", _timing_words(facts), graph.timings, "run.json"),
    ]
    if not facts.released:
        return run
    model: list[Plot] = []

    def add(name: str, title: str, caption: str, words: str, source: str, half: bool = False) -> None:
        model.append(Plot(name, title, caption, words, getattr(plots, name), source, half))

    with facts_of.reading("the release"):
        metrics, curves = facts.metrics, facts.documents["curves.json"]
        if "roc" in curves:
            area, precision = (interval(metrics[m]) if m in metrics else "" for m in ("roc_auc", "average_precision"))
            add("roc", "ROC", "How many positives are found for how many false alarms; the dashed line is chance.",
                f"ROC curve; ROC AUC {area}", "curves.json", True)  # fmt: skip
            add("precision_recall", "Precision and recall", "How many alarms are right, for how many positives found.",
                f"Precision-recall curve; average precision {precision}", "curves.json", True)  # fmt: skip
            add("calibration", "Calibration", "Dots on the dashed line: predicted probabilities mean what they say. "
                "Larger dots stand for more rows.", f"Calibration in {len(curves['calibration'])} bins",
                "curves.json", True)  # fmt: skip
            k = facts.documents["slices.json"]["k"]
            add("confusion", "Confusion", f"Test rows by actual and predicted class; hidden are cells of fewer than "
                f"{k} rows, and those that would give them away.", _confusion_words(facts), "confusion.json",
                True)  # fmt: skip
        if "residuals" in curves:
            add("residuals", "Residuals", "Actual minus predicted; bins with few rows are suppressed.",
                f"Histogram of residuals in {len(curves['residuals'])} bins", "curves.json")  # fmt: skip
        if features := facts.documents["importance.json"]["features"]:
            first = ", ".join(str(feature["name"]) for feature in features[:3])
            add("importance", "Importance", "What the model loses when one feature is shuffled, and one standard "
                "deviation to either side.", f"Feature importance; foremost {first}", "importance.json")  # fmt: skip
        if facts.champion is not None:
            add("champion", "Champion and challenger", "Each metric on a scale of its own; ↓ marks those of which less "
                "is better. Left of the solid line the challenger would be worse by more than the margin.",
                "Metrics of champion and challenger, and their difference", "promotion.json")  # fmt: skip
        if metric := plots.sliced_metric(facts):
            count = len(facts.documents["slices.json"]["slices"])
            add("slices", "Slices", f"{metric_name(metric)} in parts of the test rows; the band is the interval over "
                "all of them.", f"{metric_name(metric)} in {count} slices", "slices.json")  # fmt: skip
    return model + run


def render(facts: Facts, drawn: list[Drawn]) -> str:
    """The page, everything in it; every name is escaped."""
    from jinja2 import Environment, PackageLoader, StrictUndefined
    from markupsafe import Markup

    environment = Environment(
        loader=PackageLoader("edgeml.report", "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "interval": interval,
        "shown": facts_of.shown,
        "metric_name": metric_name,
        "duration": facts_of.duration,
    }
    figures: dict[str, Any] = {
        d.plot.name: {**d.plot._asdict(), "svg": Markup(d.svg)}  # noqa: S704 - drawn by us, its text escaped by matplotlib
        for d in drawn
    }
    with facts_of.reading("the release or run.json"):
        return environment.get_template(TEMPLATE).render(
            facts=facts,
            record=facts.record,
            documents=facts.documents,
            headline=facts_of.headline(facts),
            verdict=facts_of.verdict(facts),
            reasons=facts_of.reasons(facts),
            next_steps=facts_of.next_steps(facts),
            lineage=facts_of.lineage(facts),
            figures=figures,
        )


def _replace(path: str, data: bytes) -> None:
    temporary = f"{path}.{os.getpid()}.tmp"
    try:
        with open(temporary, "wb") as file:
            file.write(data)
        os.replace(temporary, path)
    except BaseException:
        if os.path.exists(temporary):
            os.unlink(temporary)
        raise


def _graph_words(facts: Facts) -> str:
    return "Graph of the run: " + "; ".join(
        f"{step.node} ({step.status})" + (f" after {', '.join(step.needs)}" if step.needs else "")
        for step in facts.steps
    )


def _timing_words(facts: Facts) -> str:
    return "Timings: " + "; ".join(f"{step.node} {facts_of.duration(step.seconds)}" for step in facts.steps)


def _confusion_words(facts: Facts) -> str:
    document = facts.documents["confusion.json"]
    labels = document["labels"]
    return "Confusion matrix: " + "; ".join(
        f"{actual} predicted as {predicted}: {'hidden' if cell is None else cell}"
        for actual, row in zip(labels, document["matrix"], strict=True)
        for predicted, cell in zip(labels, row, strict=True)
    )
