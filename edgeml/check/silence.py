"""Silencers: `# edgeml: allow RULE, because …` beside a finding, or alone on the line above it."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

from edgeml.check.document import Document
from edgeml.check.finding import ERROR, WARNING, Finding, Place, Rule, found

UNUSED = Rule(
    "unused-silencer",
    WARNING,
    "A silencer silences something",
    "One that outlived its finding would hide the next one.",
    "type: pipeline  # edgeml: allow unknown-key, because of a preview\njobs:\n  a: {command: echo a}\n",
    "type: pipeline\njobs:\n  a: {command: echo a}\n",
)
BARE = Rule(
    "silencer-without-reason",
    ERROR,
    "A silencer names a rule and says why",
    "Whoever reads the file next must be able to judge whether the exception still holds.",
    "type: pipeline\njobs:\n  a: {command: echo a, shiny: 1}  # edgeml: allow unknown-key\n",
    "type: pipeline\n"
    "jobs:\n  a: {command: echo a, shiny: 1}  # edgeml: allow unknown-key, because the service has it in preview\n",
)
RULES = (UNUSED, BARE)

_SILENCER = re.compile(r"#\s*edgeml:\s*allow\s+(?P<rule>[a-z-]+)\s*,?\s*(?P<reason>.*)$")


def apply(document: Document, findings: Iterable[Finding], firm: frozenset[str] = frozenset()) -> Iterator[Finding]:
    """The findings that nobody silenced, and those about the silencers themselves; `firm` rules cannot be silenced."""
    allowed: dict[tuple[int, str], tuple[Place, str]] = {}
    for number, line in enumerate(document.lines, start=1):
        match = _SILENCER.search(line)
        if match:
            target = number + 1 if not line[: match.start()].strip() else number
            allowed[target, match["rule"]] = (Place(document.path, number, match.start() + 1), match["reason"])
    used = set()
    for finding in findings:
        key = (finding.line, finding.rule)
        if key in allowed and allowed[key][1] and finding.rule not in firm:
            used.add(key)
        else:
            yield finding
    for key, (place, reason) in allowed.items():
        if not reason:
            yield found(BARE, place, f"this silencer of {key[1]} gives no reason; add ', because …'")
        elif key[1] in firm:
            yield found(
                UNUSED, place, f"{key[1]} cannot be silenced, the residency policy decides; remove the silencer"
            )
        elif key not in used:
            yield found(UNUSED, place, f"there is no finding of {key[1]} here; remove the silencer")
