"""One issue that says which sites are not in step with their records, or asked about others than their model was tested
on: opened, brought up to date, and closed by itself.

Nothing is mended or trained by it: what to do about a site is a decision of people.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from edgeml.gitops import drift
from edgeml.gitops.evidence import code
from edgeml.gitops.github import connect

TITLE = "Sites are not in step with their records, or drift"
LABEL = "edgeml-monitor"  # by which the issue is found again, whatever people make of its title


def tell(sites: list[dict[str, Any]], say: Callable[[str], None]) -> None:
    """Open, update or close the issue. `sites` are as `edgeml status --json` prints them."""
    repository = connect()
    issues = repository.rest.issues
    found = next(repository.every(issues.list_for_repo, labels=LABEL, state="open"), None)
    text = body(sites)
    if not text:
        if found is not None:
            repository.ask(issues.update, found.number, state="closed", state_reason="completed")
            say(f"issue #{found.number} is closed: all sites are in step, and none is known to drift")
        return
    if found is None:
        made = repository.ask(issues.create, title=TITLE, body=text, labels=[LABEL])
        say(f"issue #{made.number} is opened")
    elif found.body != text:
        repository.ask(issues.update, found.number, body=text)
        say(f"issue #{found.number} is brought up to date")


def body(sites: list[dict[str, Any]]) -> str:
    """The issue's text, the same for the same state; empty where there is nothing to tell."""
    wrong = [site for site in sites if site["state"] != "in step"]
    drifted = [site for site in sites if site["drift"]["state"] == drift.DRIFTED]
    return "\n".join([*(_out_of_step(wrong) if wrong else []), *(line for site in drifted for line in _drift(site))])


def _out_of_step(wrong: list[dict[str, Any]]) -> list[str]:
    rows = [f"| {code(s['site'])} | {s['state']} | {_named(s['wanted'])} | {_named(s['running'])} |" for s in wrong]
    advice = "Deploy the newest release tag again, or take the site back with `edgeml rollback SITE`."
    return ["| site | state | its record says | it runs |", "|---|---|---|---|", *rows, "", advice, ""]


def _drift(site: dict[str, Any]) -> list[str]:
    """The bins of a site's newest window beside those of the test rows, in shares: never a row, nor a column."""
    found = site["drift"]
    totals = [sum(pair[side][2] for pair in found["bins"]) for side in (0, 1)]
    rows = [
        f"| {now[0]:g} to {now[1]:g} | {then[2] / totals[0]:.0%} | {now[2] / totals[1]:.0%} |"
        for then, now in found["bins"]
    ]
    return [
        f"### {code(site['site'])} drifts",
        f"The predictions of its newest {totals[1]} rows are not spread as those of the {totals[0]} test rows: the "
        f"population stability index is {found['psi']:.3f}, more than {found['limit']:.3f}.",
        "",
        f"| prediction | test rows | {code(site['site'])} |",
        "|---|---|---|",
        *rows,
        "",
        "Look first at what feeds it: units, devices, who is asked about. Nothing is trained by this; where the "
        "patients have changed, bring in new rows and train anew.",
        "",
    ]


def _named(image: str) -> str:
    return code(image) if image else "nothing"
