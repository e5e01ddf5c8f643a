"""Which version of the template a fork has: `.template.json`.

A version is its tree: "Use this template" copies the files and not the history, so a fork's first commit and the
template's have the same tree and nothing else in common.
"""

from __future__ import annotations

import json
import re
from typing import NamedTuple

from edgeml.errors import EdgemlError
from edgeml.fork.git import Git
from edgeml.fork.line import FILE as LINE

FILE = ".template.json"
_TREE = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")


class Version(NamedTuple):
    """The tree of the template that the fork began with or was last brought to, and where later ones are."""

    tree: str
    source: str = ""

    def text(self) -> str:
        """As it stands in the file."""
        return json.dumps(self._asdict(), indent=2) + "\n"


def parse(text: str) -> Version:
    """A version as the file states it. Raises EdgemlError where it is not of the form."""
    try:
        found = json.loads(text)
        version = Version(**found)
    except (ValueError, TypeError, RecursionError):
        version = Version("")
    if not (isinstance(version.tree, str) and _TREE.fullmatch(version.tree) and isinstance(version.source, str)):
        raise EdgemlError(f"{FILE} is not of its form; restore it with git")
    return version


def first(git: Git) -> str:
    """The tree that this fork began with, empty where there is no commit.

    The first commit of a fork that "Use this template" made is the template's files. A clone has the template's history
    below it, so there it is what is checked out now: `edgeml upgrade` looks whether that was ever a version.
    """
    for commit in git.ask("rev-list", "--max-parents=0", "HEAD").split():
        if git.text_at(commit, LINE) is not None and git.ask("rev-parse", "--is-shallow-repository") == "false":
            return git.ask("rev-parse", f"{commit}^{{tree}}")
    return git.ask("rev-parse", "HEAD^{tree}")
