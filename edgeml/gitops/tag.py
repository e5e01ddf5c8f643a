"""Release tags: `v1.2.3`, nothing before and nothing behind; newer is what is larger, number by number."""

from __future__ import annotations

import re
from typing import NamedTuple

_FORM = re.compile(r"v(0|[1-9][0-9]{0,5})\.(0|[1-9][0-9]{0,5})\.(0|[1-9][0-9]{0,5})")


class Tag(NamedTuple):
    major: int
    minor: int
    patch: int

    def __str__(self) -> str:
        return f"v{self.major}.{self.minor}.{self.patch}"


def parse(text: str) -> Tag | None:
    """The tag that a text or a ref names, None where it is no release tag."""
    match = _FORM.fullmatch(text.removeprefix("refs/tags/"))
    return Tag(*map(int, match.groups())) if match else None
