"""A verdict on paper: the document that leaves with a release, and the report that stays with the data.

Both name rules, files, places, columns and counts. What leaves holds no digest of anything that stays: the digest
of a small file could be guessed. The report that stays has them, because a waiver names a file by its digest.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

from edgeml.airlock.finding import Finding
from edgeml.airlock.keeping.waivers import Waiver
from edgeml.airlock.rules import known

RULES_VERSION = "3"
MOST = 200  # findings in the document that leaves: their number is a channel, too


def egress(verdict: str, findings: Sequence[Finding], waivers: Sequence[Waiver], files: Mapping[str, bytes],
           waived: Sequence[Finding], trimming: Mapping[str, Any] | None = None) -> dict[str, Any]:  # fmt: skip
    """`egress.json`: what was decided, by which rules, and the digest of every file that leaves.

    `trimming` says how many bits of the model's weights leave, and what that changed on the private rows.
    """
    document = {
        "version": 3,
        "released": verdict == "released",
        "verdict": verdict,
        "rules_version": RULES_VERSION,
        "files": [
            {"name": name, "bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
            for name, data in sorted(files.items())
        ],
        "findings": [shown(finding) for finding in findings[:MOST]],
        "waived": [shown(finding) for finding in waived[:MOST]],
        "waivers": [waiver._asdict() for waiver in waivers],
    }
    return document if trimming is None else document | {"trimming": dict(trimming)}


def trimmed(trimming: Mapping[str, Any]) -> str:
    """What was done to the weights, in a sentence."""
    if not trimming["weights"]:
        return f"the weights of {trimming['file']} leave as they were trained"
    told = (
        f"{trimming['weights']} weights of {trimming['file']} leave with {trimming['mantissa_bits']} bits of mantissa"
    )
    told += f"; no prediction of a private row changes by more than {trimming['largest_change']:g}"
    if "metric" in trimming:
        told += f", {trimming['metric']} by {trimming['metric_change']:g}"
    return told


def shown(finding: Finding) -> dict[str, Any]:
    """A finding for machines, without what it does not say."""
    place = f"{finding.place}: " if finding.place else ""
    document = {"rule": finding.rule, "file": finding.file, "detail": place + finding.message, "fix": finding.fix}
    more = {"column": finding.column, "rows": finding.rows, "cells": finding.cells, "bits": round(finding.bits, 1)}
    return document | {key: value for key, value in more.items() if value}


def local(document: Mapping[str, Any], digests: Mapping[str, tuple[int, str]]) -> dict[str, Any]:
    """The report that stays: the verdict, and every file that wanted to leave with its digest."""
    wanted = [{"name": name, "bytes": size, "sha256": sha} for name, (size, sha) in sorted(digests.items())]
    return {**document, "wanted": wanted}


def markdown(report: Mapping[str, Any]) -> str:
    """The report for people."""
    lines = [f"# Egress verdict: {report['verdict']}", ""]
    if report["released"]:
        lines += [f"{len(report['files'])} files leave.", ""]
        if "trimming" in report:
            lines += [trimmed(report["trimming"]).capitalize() + ".", ""]
    else:
        lines += ["Nothing leaves.", ""]
    for title, findings in (("Findings", report["findings"]), ("Waived", report["waived"])):
        if findings:
            lines += [f"## {title}", "", "| rule | file | what | evidence | fix |", "|---|---|---|---|---|"]
            lines += [_row(finding) for finding in findings] + [""]
    if report["waivers"]:
        lines += ["## Waivers", "", "| rule | file | reason | approved by |", "|---|---|---|---|"]
        names = {wanted["sha256"]: wanted["name"] for wanted in report.get("wanted", [])}
        lines += [
            f"| {w['rule']} | {names.get(w['sha256'], w['sha256'][:12])} | {_cell(w['reason'])} "
            f"| {_cell(w['approved_by'])} |"
            for w in report["waivers"]
        ] + [""]  # fmt: skip
    lines += ["## Files that wanted to leave", "", "| file | bytes | SHA-256 |", "|---|---|---|"]
    lines += [f"| {w['name']} | {w['bytes']} | `{w['sha256']}` |" for w in report.get("wanted", [])]
    return "\n".join(lines) + "\n"


def _row(finding: Mapping[str, Any]) -> str:
    evidence = [f"column {finding['column']}"] if finding.get("column") else []
    evidence += [f"{finding[key]} {key}" for key in ("rows", "cells", "bits") if finding.get(key)]
    title = known()[finding["rule"]].title if finding["rule"] in known() else ""
    cells = [f"`{finding['rule']}`<br>{title}", finding["file"], finding["detail"], ", ".join(evidence), finding["fix"]]
    return "| " + " | ".join(map(_cell, cells)) + " |"


def _cell(text: str) -> str:
    return str(text).replace("|", "\\|").replace("\n", " ")
