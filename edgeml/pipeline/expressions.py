"""The `${{ … }}` bindings and `$[[ … ]]` optional groups of Azure ML."""

from __future__ import annotations

import re
from typing import NamedTuple

_BINDING = re.compile(r"\$\{\{\s*([^{}]*?)\s*\}\}")
_GROUP = re.compile(r"\$\[\[(.*?)\]\]", re.DOTALL)


class Binding(NamedTuple):
    """One `${{ a.b.c }}`: the parts between the dots."""

    path: tuple[str, ...]

    def __str__(self) -> str:
        return "${{" + ".".join(self.path) + "}}"


def parse(text: str) -> list[str | Binding]:
    """A string as literal text and bindings, in order; empty text is left out."""
    parts: list[str | Binding] = []
    end = 0
    for match in _BINDING.finditer(text):
        if match.start() > end:
            parts.append(text[end : match.start()])
        parts.append(Binding(tuple(part.strip() for part in match[1].split("."))))
        end = match.end()
    if end < len(text):
        parts.append(text[end:])
    return parts


def single(text: object) -> Binding | None:
    """The binding that a value consists of, or None where it is anything else."""
    if not isinstance(text, str) or "${{" not in text:
        return None
    parts = parse(text.strip())
    return parts[0] if len(parts) == 1 and isinstance(parts[0], Binding) else None


def references(text: str) -> list[Binding]:
    """All bindings of a string, in order."""
    return [part for part in parse(text) if isinstance(part, Binding)] if "${{" in text else []


def drop_unset_groups(command: str, unset: frozenset[str]) -> str:
    """The command with each `$[[ … ]]` group unwrapped, or gone where it names an input without a value.

    Source: Azure ML's component YAML reference, "optional inputs".
    """
    if "$[[" not in command:
        return command

    def unwrap(match: re.Match[str]) -> str:
        bound = references(match[1])
        missing = any(binding.path[0] == "inputs" and ".".join(binding.path[1:]) in unset for binding in bound)
        return "" if missing else match[1]

    return _GROUP.sub(unwrap, command)
