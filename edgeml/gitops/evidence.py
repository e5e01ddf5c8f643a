"""What a reviewer reads in a pull request: tables and charts in Markdown, of released facts only.

Names of columns and levels come from the data's owner and from a file: they are quoted, so that none of them is a link,
a mention or a table cell of its own. Charts are text, since a pull request can show no file that is not public.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from edgeml.errors import EdgemlError
from edgeml.gitops import chart
from edgeml.gitops.chart import Bar
from edgeml.report import facts

if TYPE_CHECKING:
    from edgeml.gitops.record import Record
    from edgeml.registry.release import Release

MOST_SLICES = 24
LONGEST = 60_000  # GitHub takes 65,536 characters


class Measured(NamedTuple):
    """What packaging measured of an image; None where it was not measured."""

    bytes: int | None = None
    milliseconds: float | None = None


class Released(NamedTuple):
    """The documents of a release that a reviewer is shown, and those of the champion's where they are at hand."""

    documents: dict[str, dict[str, Any]]
    champion: dict[str, dict[str, Any]]
    tags: dict[str, str]


def of(release: Release, champion: Release | None, tags: dict[str, str]) -> Released:
    """What a verified release says."""
    names = ("metrics.json", "promotion.json", "slices.json", "lineage.json", "signature.json", "egress.json")
    before = {"lineage.json": champion.document("lineage.json")} if champion else {}
    return Released({name: release.document(name) for name in names}, before, tags)


def promotion(
    record: Record, current: Record | None, before: str | None, released: Released | None, measured: Measured
) -> str:
    """The text of a promotion's pull request. `before` is the site that runs this already, None for the first."""
    place = f" in place of {code(current.model)}" if current else ", its first model"
    source = f" It is what {code(before)} runs." if before else ""
    parts = [f"Brings {code(record.model)} to **{record.site}**{place}.{source}"]
    with facts.reading("the release"):
        parts += _comparison(record, current, released)
        if released is not None:
            parts += [*_slices(released), *_data(released), *_gates(released)]
    parts += [*_image(record, current, measured), *_lineage(record, released), _next(record.site)]
    text = "\n\n".join(parts) + "\n"
    if len(text) > LONGEST:
        raise EdgemlError("the evidence is longer than a pull request may be; name fewer slices in the contract", 1)
    return text


def rollback(record: Record, current: Record, held_at: str) -> str:
    """The text of a rollback's pull request."""
    changes = current.differences(record)
    rows = [[code(key), _shown(now), _shown(then)] for key, (then, now) in changes.items()]
    return (
        "\n\n".join(
            [
                f"Takes **{record.site}** back from {code(current.model)} to {code(record.model)}: "
                f"the record as it was on the default branch at {held_at}.",
                _table(["", "now", "after this"], rows),
                _next(record.site),
            ]
        )
        + "\n"
    )


def code(value: object) -> str:
    """A value as quoted text that Markdown does nothing to."""
    return f"`{_plain(value)}`".replace("|", "\\|")


def _plain(value: object, most: int = 90) -> str:
    text = "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in str(value)).replace("`", "'")
    return (text if len(text) <= most else text[: most - 1] + "…") or " "


def _shown(value: object) -> str:
    return "" if value is None else code(value)


def _table(head: list[str], rows: list[list[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def _fence(lines: list[str]) -> str:
    return "\n".join(["```text", *lines, "```"])


def _comparison(record: Record, current: Record | None, released: Released | None) -> list[str]:
    """Challenger against champion: on the same test rows where the run compared them, else each on its own."""
    champion = (released.documents["promotion.json"].get("champion") if released else None) or {}
    before = champion.get("metrics") or (current.evidence["metrics"] if current else {})
    remark = ""
    if before and not champion:
        remark = "The champion's figures are those of its own record, of other test rows: they are no comparison.\n\n"
    elif champion.get("difference"):
        difference = champion["difference"]
        name = facts.metric_name(str(difference["metric"]))
        remark = f"Difference in {code(name)} on the same test rows: **{facts.signed(difference)}**.\n\n"
    rows, lines = [], []
    metrics = record.evidence["metrics"]
    for metric in [*(m for m in facts.NAMES if m in metrics), *(m for m in metrics if m not in facts.NAMES)]:
        name = _plain(facts.metric_name(metric), 40)
        rows.append(
            [code(name), facts.interval(before[metric]) if metric in before else "", facts.interval(metrics[metric])]
        )
        bars = [Bar("champion", before[metric])] if metric in before else []
        lines += chart.intervals([*bars, Bar("challenger", metrics[metric])], name)
    confidence = released.documents["metrics.json"]["bootstrap"]["confidence"] if released else 0.95
    head = ["metric", "champion", f"challenger, {confidence:.0%} interval"]
    return ["### Champion against challenger", remark + _table(head, rows), _fence(lines)] if rows else []


def _slices(released: Released) -> list[str]:
    slices = released.documents["slices.json"]["slices"]
    named = [metric for metric in (*facts.HEADLINES, *facts.NAMES) if any(metric in s["metrics"] for s in slices)]
    if not named:
        return []
    metric = named[0]
    overall = released.documents["metrics.json"]["metrics"].get(metric)
    bars = [Bar("all rows", overall)] if overall else []
    bars += [
        Bar(_plain(f"{s['column']} {s['slice']}", chart.NAME - 2), s["metrics"][metric])
        for s in slices
        if metric in s["metrics"]
    ][:MOST_SLICES]
    more = len(slices) - MOST_SLICES
    return [
        "### Slices" + (f" (the first {MOST_SLICES}; {more} more are in the release)" if more > 0 else ""),
        _fence(chart.intervals(bars, facts.metric_name(metric))),
    ]


def _data(released: Released) -> list[str]:
    """What changed in the data since the champion, as far as it was released: never a column's values."""
    now, then = released.documents["lineage.json"], released.champion.get("lineage.json")
    rows = []
    for name, keys in (
        ("rows", ("data", "rows")),
        ("fingerprint", ("data", "fingerprint")),
        ("contract", ("contract", "name")),
        ("contract version", ("contract", "version")),
    ):
        before = then[keys[0]][keys[1]] if then else None
        after = now[keys[0]][keys[1]]
        change = "" if then is None else "the same" if before == after else _growth(before, after)
        rows.append([name, _shown(before), code(after), change])
    remark = "Drift of single columns is measured on the premises and is no part of a release."
    if then is None:
        remark = "The champion's release is not at hand, so nothing is said of what changed. " + remark
    return ["### Data since the champion", _table(["", "champion", "challenger", ""], rows), remark]


def _growth(before: object, after: object) -> str:
    if isinstance(before, int) and isinstance(after, int) and before > 0 and after > 10:
        return f"{(after - before) / before:+.1%}"
    return "**changed**"


def _gates(released: Released) -> list[str]:
    promotion, egress = released.documents["promotion.json"], released.documents["egress.json"]
    rows = [
        [code(check["name"]), "passed" if check["passed"] is True else "**failed**", code(check["detail"])]
        for check in promotion["checks"]
    ]
    files = len(egress["files"])
    waivers = released.documents["lineage.json"]["egress"].get("waivers") or []
    waived = f", {len(waivers)} waived" if waivers else ""
    rows.append(["egress", "released", f"{files} files{waived}, rules {code(egress['rules_version'])}"])
    if released.tags.get("override.reason"):
        why = f"by {code(released.tags.get('override.user', ''))}: {code(released.tags['override.reason'])}"
        rows.append(["override", "**against the verdict**", why])
    return ["### Gates", _table(["check", "verdict", ""], rows)]


def _image(record: Record, current: Record | None, measured: Measured) -> list[str]:
    size = "not measured" if measured.bytes is None else f"{measured.bytes / 1e6:,.1f} MB"
    latency = "not measured" if measured.milliseconds is None else f"{measured.milliseconds:.2f} ms"
    was = f", in place of {code(current.digest)}" if current and current.digest != record.digest else ""
    rows = [["image", code(record.image) + was], ["size", size], ["latency, one row", latency]]
    return ["### Image", _table(["", ""], rows)]


def _lineage(record: Record, released: Released | None) -> list[str]:
    evidence, tags = record.evidence, released.tags if released else {}
    rows = [
        ["commit", evidence["commit"]],  # bare: GitHub makes a link of it
        ["job", code(evidence["job"])],
        ["data", code(evidence["data"])],
        ["egress verdict", code(evidence["gate"])],
    ]
    rows += [["model file", code(f"sha256:{tags['model.sha256']}")]] if tags.get("model.sha256") else []
    return ["### Lineage", _table(["", ""], rows)]


def _next(site: str) -> str:
    return (
        f"Once this is approved and merged, a release tag on that commit (`v1.2.3`) deploys it; `edgeml gate {site} "
        "--ref TAG` says whether it may. To go back: "
        f"`edgeml rollback {site}`."
    )
