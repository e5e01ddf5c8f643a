"""Prints docs/rules.md."""

from edgeml.check import RULES
from edgeml.check.show import page

print(page(RULES), end="")
