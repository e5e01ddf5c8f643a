"""Everything that can be said to be wrong before anything runs.

check(paths)                          findings, by place
fix(paths)                            the versions of environments written as their content demands
RULES                                 every rule
render(findings, rules, format)       text, github, json or sarif
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from edgeml.check.finding import Finding, Rule
    from edgeml.check.rules import RULES
    from edgeml.check.run import check, fix
    from edgeml.check.show import FORMATS, render

__all__ = ["FORMATS", "RULES", "Finding", "Rule", "check", "fix", "render"]

_HOMES = {
    "Finding": "finding",
    "Rule": "finding",
    "RULES": "rules",
    **dict.fromkeys(("check", "fix"), "run"),
    "FORMATS": "show",
    "render": "show",
}


def __getattr__(name: str) -> Any:
    """The face is fetched when it is asked for: `edgeml run` needs some of the rules, and none of the rest."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
