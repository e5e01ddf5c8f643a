"""Prints the table of rules in docs/egress-gate.md."""

from edgeml.airlock.rules import table

print(table(), end="")
