"""The commit that a run was made from."""

from __future__ import annotations

import os
import subprocess
from typing import NamedTuple

COMMIT = "EDGEML_COMMIT"  # of a tree that was laid out from it, without a repository: on the edge VM


class Commit(NamedTuple):
    """A commit's 40 hex digits (empty outside of a repository) and whether tracked files differ from it."""

    commit: str
    dirty: bool


class Question:
    """`git status` of the repository around a file, asked while the steps run and answered at the end."""

    def __init__(self, path: str) -> None:
        self._process: subprocess.Popen[bytes] | None = None
        folder = os.path.dirname(os.path.abspath(path))
        if not _in_repository(folder):
            return
        command = ["git", "-C", folder, "status", "--porcelain=v2", "--branch", "--untracked-files=no"]
        try:
            self._process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
            )
        except OSError:  # no git on this machine
            return

    def answer(self) -> Commit:
        if self._process is None:
            return Commit(os.environ.get(COMMIT, ""), False)
        output = self._process.communicate()[0].decode("utf-8", "replace")
        lines = output.splitlines()
        commit = next((line.split()[2] for line in lines if line.startswith("# branch.oid ")), "")
        return Commit("" if commit == "(initial)" else commit, any(not line.startswith("#") for line in lines))


def _in_repository(folder: str) -> bool:
    while not os.path.exists(os.path.join(folder, ".git")):
        parent = os.path.dirname(folder)
        if parent == folder:
            return False
        folder = parent
    return True
