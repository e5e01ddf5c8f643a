"""Everything that can be said to be wrong before anything runs.

check(paths)                          findings, by place
fix(paths)                            the versions of environments written as their content demands
RULES                                 every rule
render(findings, rules, format)       text, github, json or sarif
"""

from edgeml.check.finding import Finding, Rule
from edgeml.check.run import RULES, check, fix
from edgeml.check.show import FORMATS, render

__all__ = ["FORMATS", "RULES", "Finding", "Rule", "check", "fix", "render"]
