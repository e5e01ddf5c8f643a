"""What was released before: two releases that differ by fewer than k rows tell about those rows.

Only counts of a fixed group of rows are kept: all rows, those evaluated, and the slices of named categories. A
confusion matrix depends on the model and a quartile on the data, so their differences are not those of a group.
"""

from __future__ import annotations

from typing import Any

from edgeml.airlock.finding import CONTENT, Finding, Rule
from edgeml.contract import Contract

RULES = (
    Rule("release.difference", CONTENT, "no two releases differ by fewer than k rows", "The difference of two counts, "
         "or of two metrics over them, is a statement about the rows that came or went between the two."),
)  # fmt: skip
FIX = "release again once at least k rows have come or gone, or ask for a waiver"


def counts(contract: Contract, documents: dict[str, Any]) -> dict[str, int]:
    """The released counts of fixed groups, by file and group."""
    found: dict[str, int] = {}
    if "lineage.json" in documents:
        found["lineage.json $.data.rows"] = documents["lineage.json"]["data"]["rows"]
    if "metrics.json" in documents:
        found["metrics.json $.rows"] = documents["metrics.json"]["rows"]
    for item in documents.get("slices.json", {}).get("slices", []):
        column = contract.columns.get(item["column"])
        if column is not None and (column.allowed is not None or column.type == "boolean"):
            found[f"slices.json {item['column']}={item['slice']}"] = item["rows"]
    return found


def differences(
    contract: Contract, fingerprint: str, now: dict[str, int], ledger: list[dict[str, Any]]
) -> list[Finding]:
    """Findings for counts that differ from those of an earlier release of other rows by 1 to k-1."""
    findings = []
    earlier = [e for e in ledger if e.get("decision") == "released" and e.get("contract") == contract.name]
    for name, count in sorted(now.items()):
        before = {e["counts"][name] for e in earlier if name in e.get("counts", {}) and e.get("data") != fingerprint}
        if any(0 < abs(count - other) < contract.k for other in before):
            file, _, place = name.partition(" ")
            column = place.partition("=")[0] if "=" in place else ""
            message = f"differs by fewer than k={contract.k} rows from the same count of an earlier release"
            findings.append(Finding("release.difference", file, "" if column else place, message, FIX, column=column))
    return findings
