"""Every rule of the gate by its id, and the page that lists them."""

from __future__ import annotations

from functools import cache
from importlib import import_module

from edgeml.airlock.finding import CONTENT, POLICY, Finding, Rule

MODULES = (  # in the order of the page
    "intake.inventory",
    "intake.unwrap",
    "intake.schemas",
    "models.canonical",
    "models.examine",
    "evidence",
    "disclosure",
    "keeping.history",
    "keeping.waivers",
    "failure",
)


@cache
def known() -> dict[str, Rule]:
    """The rules of all rule modules. An id that two modules give is a mistake of ours."""
    rules: dict[str, Rule] = {}
    for module in MODULES:
        for rule in import_module(f"edgeml.airlock.{module}").RULES:
            if rules.setdefault(rule.id, rule) != rule:
                raise AssertionError(f"two rules are called {rule.id}")
    return rules


def kind(finding: Finding) -> str:
    """Whether a finding comes from the policy of formats and sizes or from what looks at content."""
    return known()[finding.rule].kind


def explain(rule: Rule) -> str:
    """A rule for people."""
    waivable = "A waiver can release it." if rule.waivable else "No waiver can release it."
    return f"{rule.id} ({rule.kind})\n{rule.title}.\n\n{rule.why}\n\n{waivable}"


def table() -> str:
    """The rules as the table of docs/egress-gate.md: the policy first."""
    rules = [rule for wanted in (POLICY, CONTENT) for rule in known().values() if rule.kind == wanted]
    rows = [
        f"| `{rule.id}` | {rule.kind} | {rule.title} | {rule.why} | {'can' if rule.waivable else 'cannot'} |"
        for rule in rules
    ]
    return "\n".join(["| rule | kind | what holds | why | be waived |", "|---|---|---|---|---|", *rows]) + "\n"
