"""One issue that says which sites are not in step with their records: opened, brought up to date, and closed by itself.

Nothing is mended or trained by it: what to do about a site is a decision of people.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from edgeml.gitops.evidence import code
from edgeml.gitops.github import connect

TITLE = "Sites are not in step with their records"
LABEL = "edgeml-monitor"  # by which the issue is found again, whatever people make of its title


def tell(sites: list[dict[str, Any]], say: Callable[[str], None]) -> None:
    """Open, update or close the issue. `sites` are as `edgeml status --json` prints them."""
    repository = connect()
    issues = repository.rest.issues
    found = next(repository.every(issues.list_for_repo, labels=LABEL, state="open"), None)
    wrong = [site for site in sites if site["state"] != "in step"]
    if not wrong:
        if found is not None:
            repository.ask(issues.update, found.number, state="closed", state_reason="completed")
            say(f"issue #{found.number} is closed: all sites are in step")
        return
    text = body(wrong)
    if found is None:
        made = repository.ask(issues.create, title=TITLE, body=text, labels=[LABEL])
        say(f"issue #{made.number} is opened")
    elif found.body != text:
        repository.ask(issues.update, found.number, body=text)
        say(f"issue #{found.number} is brought up to date")


def body(wrong: list[dict[str, Any]]) -> str:
    """The issue's text; the same for the same state."""
    rows = [f"| {code(s['site'])} | {s['state']} | {_named(s['wanted'])} | {_named(s['running'])} |" for s in wrong]
    table = "\n".join(["| site | state | its record says | it runs |", "|---|---|---|---|", *rows])
    advice = "Deploy the newest release tag again, or take the site back with `edgeml rollback SITE`."
    return f"{table}\n\n{advice}\n"


def _named(image: str) -> str:
    return code(image) if image else "nothing"
