"""The one exception that a user is meant to read, and what its sentences share."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable


class EdgemlError(Exception):
    """A failure that is explained by its message alone: the cause, then the fix, in one sentence.

    Raise it wherever the user can do something about it; the command line prints the message
    without a traceback and exits with `exit_code` (1: the work failed or was refused, 2: it could
    not be started because of what was asked or of what is missing).
    """

    def __init__(self, message: str, exit_code: int = 2) -> None:
        super().__init__(message)
        self.exit_code = exit_code


def nearest(name: str, known: Iterable[str]) -> str:
    """The known name that was probably meant; empty where none is near."""
    from difflib import get_close_matches  # imported where something is wrong already, and not by every command

    return next(iter(get_close_matches(name, list(known), n=1)), "")
