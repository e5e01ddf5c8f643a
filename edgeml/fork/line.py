"""Whose a file is: `template.toml`, the line between the team and the template."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from typing import TYPE_CHECKING

from edgeml.errors import EdgemlError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from pathspec import GitIgnoreSpec

FILE = "template.toml"
MAX_BYTES = 64 << 10
TEAM, TEMPLATE = "team", "template"


@dataclass(frozen=True)
class Line:
    """The two sides, each as patterns."""

    team: GitIgnoreSpec
    template: GitIgnoreSpec

    def sides(self, path: str) -> list[str]:
        """The sides that claim a file, by its path in the repository: one, for each file of the template."""
        return [name for name, spec in ((TEAM, self.team), (TEMPLATE, self.template)) if spec.match_file(path)]


def parse(text: str) -> Line:
    """The line that the text of `template.toml` draws. Raises EdgemlError where it is not of the form."""
    from pathspec import GitIgnoreSpec

    if len(text) > MAX_BYTES:
        raise EdgemlError(f"{FILE} is too large for what it holds; restore it with git")
    try:
        found = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise EdgemlError(f"{FILE} is not valid TOML ({error}); mend it or restore it with git") from None
    if set(found) != {TEAM, TEMPLATE} or not all(_is_patterns(patterns) for patterns in found.values()):
        raise EdgemlError(
            f"{FILE} must hold two lists of patterns, '{TEAM}' and '{TEMPLATE}', and nothing else; mend it"
        )
    try:
        return Line(*(GitIgnoreSpec.from_lines(found[side]) for side in (TEAM, TEMPLATE)))
    except ValueError as error:
        raise EdgemlError(f"{FILE} holds a pattern that .gitignore would not take ({error}); mend it") from None


def _is_patterns(value: object) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(item, str) and item.strip() for item in value)


def team_paths(lines: Iterable[Line], paths: Iterable[str]) -> set[str]:
    """Those of `paths` that any of the lines gives to the team."""
    specs = [line.team for line in lines]
    return {path for path in paths if any(spec.match_file(path) for spec in specs)}
