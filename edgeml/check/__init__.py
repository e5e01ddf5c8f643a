"""Everything that can be said to be wrong before anything runs.

check(paths)                          findings, by place
RULES                                 every rule
render(findings, rules, format)       text, github, json or sarif
"""

from edgeml.check.finding import Finding, Rule
from edgeml.check.rules import RULES
from edgeml.check.run import check
from edgeml.check.show import FORMATS, render

__all__ = ["FORMATS", "RULES", "Finding", "Rule", "check", "render"]
