"""CODEOWNERS: who must be among those who approve a file. What cannot be read closes the gate."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection
from typing import NamedTuple

from edgeml.errors import EdgemlError

PLACES = (".github/CODEOWNERS", "CODEOWNERS", "docs/CODEOWNERS")  # where GitHub looks, the first that exists
_OWNER = re.compile(r"@[A-Za-z0-9][A-Za-z0-9-]*(?:/[A-Za-z0-9._-]+)?|[^\s@]+@[^\s@]+\.[^\s@]+")


class Missing(NamedTuple):
    """A file that has owners, none of whom approved."""

    path: str
    owners: tuple[str, ...]


def missing(
    text: str, paths: Collection[str], approvers: Collection[str], is_member: Callable[[str, str], bool]
) -> list[Missing]:
    """The files of `paths` that lack an owner's approval.

    `is_member` tells whether a person belongs to a team, `ORGANISATION/TEAM`. An owner by e-mail address is nobody that
    GitHub's API can find, so he does not count. Raises EdgemlError where a line is not understood: GitHub ignores such
    a line, and with it what its author wanted to protect.
    """
    from codeowners import CodeOwners

    owners_of = CodeOwners(_checked(text))
    lacking = []
    for path in paths:
        owners = tuple(name for _, name in owners_of.of(path))
        if owners and not any(_is_owner(person, owner, is_member) for owner in owners for person in approvers):
            lacking.append(Missing(path, owners))
    return lacking


def _is_owner(person: str, owner: str, is_member: Callable[[str, str], bool]) -> bool:
    if not owner.startswith("@"):
        return False
    name = owner[1:]
    return is_member(name, person) if "/" in name else name.lower() == person.lower()


def _checked(text: str) -> str:
    """The lines without remarks. Raises EdgemlError for what GitHub would not take."""
    lines = []
    for number, line in enumerate(text.splitlines(), start=1):
        pattern, *owners = re.split(r"(?:^|\s)#", line, maxsplit=1)[0].split() or [""]
        wrong = next((owner for owner in owners if not _OWNER.fullmatch(owner)), None)
        if wrong is not None or pattern.startswith("!") or "[" in pattern:
            shown = wrong or pattern
            raise EdgemlError(f"CODEOWNERS line {number} says '{shown}', which GitHub ignores; mend the line", 1)
        lines.append(" ".join((pattern, *owners)))
    return "\n".join(lines)
