"""Waivers: a person answers for a finding, by name and with a reason, for exactly one file.

A waiver names the file's SHA-256, so it dies with the file. It is written into the verdict and the lineage. What is
wrong with it is a finding of its own; a waiver is never quietly without effect.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from edgeml.airlock.finding import POLICY, Finding, Rule
from edgeml.airlock.intake.inventory import read_file
from edgeml.airlock.intake.strict_json import Refused

BUDGET = 1 << 16
FORM = {
    "sha256": r"[0-9a-f]{64}",
    "rule": r"[a-z_.-]{3,60}",
    "reason": r"[^\n]{10,300}",
    "approved_by": r"[^\n]{3,100}",
}

RULES = (
    Rule("waiver.invalid", POLICY, "a waiver names file, rule, reason and approver", "A waiver opens the gate, so it "
         "must say for what, why and on whose word; one for a file or a rule that is not there is a mistake.",
         waivable=False),
)  # fmt: skip
FIX = "give sha256, rule, reason and approved_by, for a finding that this very file has and whose rule can be waived"


class Waiver(NamedTuple):
    """One finding that a person answers for."""

    sha256: str
    rule: str
    reason: str
    approved_by: str


def read(path: Path, rules: Mapping[str, Rule], digests: Mapping[str, str]) -> tuple[list[Waiver], list[Finding]]:
    """The waivers of a file that are in order, and findings for those that are not. `digests` are names by SHA-256."""
    try:
        entries = _entries(read_file(path, BUDGET, "waivers"))
    except Refused as refused:
        return [], [_finding("", refused.detail)]
    waivers, findings = [], []
    for number, entry in enumerate(entries):
        place = f"waivers[{number}]"
        problem = _problem(entry, rules, digests)
        if problem:
            findings.append(_finding(place, problem))
        else:
            waivers.append(Waiver(**entry))
    return waivers, findings


def _entries(data: bytes) -> list[Any]:
    import yaml

    try:
        document = yaml.safe_load(data)
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError):
        raise Refused("waiver.invalid", "not valid YAML") from None
    if not isinstance(document, dict) or set(document) != {"version", "waivers"} or document["version"] != 1:
        raise Refused("waiver.invalid", "not a document of `version: 1` and `waivers`")
    if not isinstance(document["waivers"], list):
        raise Refused("waiver.invalid", "waivers is not a list")
    return document["waivers"]


def _problem(entry: Any, rules: Mapping[str, Rule], digests: Mapping[str, str]) -> str:
    if not isinstance(entry, dict) or set(entry) != set(FORM):
        return f"must have exactly the keys {', '.join(FORM)}"
    for key, form in FORM.items():
        if not isinstance(entry[key], str) or not re.fullmatch(form, entry[key].strip()):
            return f"{key} is missing or not of the permitted form"
    if entry["rule"] not in rules:
        return "names a rule that does not exist"
    if not rules[entry["rule"]].waivable:
        return f"the rule {entry['rule']} cannot be waived"
    if entry["sha256"] not in digests:
        return "names a file that is not among those that want to leave; it may have changed since"
    return ""


def _finding(place: str, message: str) -> Finding:
    return Finding("waiver.invalid", "waivers", place, message, FIX)


def unneeded(rule: str) -> Finding:
    """A waiver for a finding that the file does not have: nobody knows what its approver looked at."""
    return _finding("", f"a waiver for {rule} answers no finding")
