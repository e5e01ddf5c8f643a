"""What a deployment would change: each resource of the template beside what Resource Manager says is there.

Stack Hub has no what-if of its own, so this is ours: everything that the template states must be so; what it does not
state is the service's affair, but for lists, where one more entry (a rule of a firewall) is a difference.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from edgeml.infra.expression import Unknown
from edgeml.infra.target import Target
from edgeml.infra.template import Resource

CREATE, CHANGE, SAME = "create", "change", "same"
_UNREADABLE = ("protectedSettings", "adminPassword")


@dataclass(frozen=True)
class Difference:
    """One value that is not as the template says."""

    path: str
    there: Any
    wanted: Any

    def __str__(self) -> str:
        return f"{self.path}: {_shown(self.there)} -> {_shown(self.wanted)}"


@dataclass(frozen=True)
class Change:
    """What happens to one resource."""

    resource: Resource
    action: str
    differences: tuple[Difference, ...] = ()


def plan(target: Target) -> list[Change]:
    """The changes in the template's order; reads only."""
    found = []
    for one in target.deployment.resources:
        there = target.arm.get(one.id, one.api_version) if target.group_is_there else None
        if there is None:
            found.append(Change(one, CREATE))
            continue
        differences = tuple(compare(one.body, there))
        found.append(Change(one, CHANGE if differences else SAME, differences))
    return found


def compare(wanted: Any, there: Any, path: str = "") -> Iterator[Difference]:
    """Where `there` is not what `wanted` states."""
    if isinstance(wanted, Unknown) or path.rpartition(".")[2] in _UNREADABLE:
        return
    if isinstance(wanted, Mapping) and isinstance(there, Mapping):
        for key, value in wanted.items():
            here = f"{path}.{key}" if path else str(key)
            yield from compare(value, there.get(key), here)
    elif isinstance(wanted, list) and isinstance(there, list):
        yield from _lists(wanted, there, path)
    elif not _equal(wanted, there, path):
        yield Difference(path, there, wanted)


def _lists(wanted: list[Any], there: list[Any], path: str) -> Iterator[Difference]:
    """Entries with names (rules with types) are matched by them, texts as a set, others by their place."""
    both = [*wanted, *there]
    key = next((key for key in ("name", "type") if all(isinstance(one, Mapping) and key in one for one in both)), "")
    if key and both:
        have, want = ({str(one[key]): one for one in side} for side in (there, wanted))
        for name in [*want, *(name for name in have if name not in want)]:
            here = f"{path}[{name}]"
            if name not in have or name not in want:
                yield Difference(here, have.get(name), want.get(name))
            else:
                yield from compare(want[name], have[name], here)
    elif all(isinstance(one, str) for one in [*wanted, *there]):
        if sorted(map(_folded, wanted)) != sorted(map(_folded, there)):
            yield Difference(path, there, wanted)
    elif len(wanted) != len(there):
        yield Difference(path, there, wanted)
    else:
        for number, (one, other) in enumerate(zip(wanted, there, strict=True)):
            yield from compare(one, other, f"{path}[{number}]")


def _equal(wanted: Any, there: Any, path: str) -> bool:
    if isinstance(wanted, str) and isinstance(there, str):
        if path == "location":
            return wanted.replace(" ", "").casefold() == there.replace(" ", "").casefold()
        return _folded(wanted) == _folded(there)
    if isinstance(wanted, Mapping | list) and not wanted and there is None:
        return True
    return bool(wanted == there)


def _folded(text: str) -> str:
    """Ids mean the same in any case, other texts do not."""
    return text.casefold() if text.startswith("/subscriptions/") else text


def _shown(value: Any) -> str:
    text = "nothing" if value is None else value if isinstance(value, str) else repr(value)
    if len(text) <= 60:
        return text
    return f"{text[:24]}... ({len(text)} characters, sha256 {hashlib.sha256(text.encode()).hexdigest()[:8]})"


def lines(changes: list[Change]) -> list[str]:
    """The plan for people: a sign, the type and name, below it each difference."""
    signs = {CREATE: "+", CHANGE: "~", SAME: " "}
    found = []
    for one in changes:
        kind = one.resource.type.removeprefix("Microsoft.")
        found.append(f"{signs[one.action]} {kind} {one.resource.name}{'' if one.action != SAME else '  as written'}")
        found += [f"    {difference}" for difference in one.differences]
    counts = {action: sum(one.action == action for one in changes) for action in signs}
    found.append(f"{counts[CREATE]} to create, {counts[CHANGE]} to change, {counts[SAME]} as written")
    return found
