"""git, called with a clean environment, its failures one sentence."""

from __future__ import annotations

import os
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

from edgeml.errors import EdgemlError

# Set by hooks and by `git rebase --exec`: they would point a call at another repository or index.
_MISLEADING = ("GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE", "GIT_OBJECT_DIRECTORY", "GIT_PREFIX", "GIT_NAMESPACE")
# Nothing but what moves data: `ext::` would run a command that a file of the repository names.
_PROTOCOLS = "file:git:http:https:ssh"
_TAB, _NUL = "\t", "\0"

Entries = dict[str, str]
"""A tree flattened: `MODE TYPE ID` by path."""


@dataclass(frozen=True)
class Git:
    """The repository whose top is `root`."""

    root: Path

    def run(self, *arguments: str, given: str = "", index: str = "") -> subprocess.CompletedProcess[str]:
        """One call, whatever becomes of it. `given` is its standard input, `index` replaces the repository's own."""
        environment = {key: value for key, value in os.environ.items() if key not in _MISLEADING}
        environment |= {"LC_ALL": "C", "GIT_ALLOW_PROTOCOL": _PROTOCOLS}
        if index:
            environment["GIT_INDEX_FILE"] = index
        command = ["git", "-C", str(self.root), *arguments]
        try:
            return subprocess.run(
                command, input=given, env=environment, capture_output=True, text=True, errors="surrogateescape"
            )
        except FileNotFoundError:
            raise EdgemlError("git is not installed; install it") from None

    def __call__(self, *arguments: str, given: str = "", index: str = "") -> str:
        """What one call prints, without the line's end. Raises EdgemlError with git's own last words."""
        done = self.run(*arguments, given=given, index=index)
        if done.returncode != 0:
            raise EdgemlError(f"git {arguments[0]}: {said(done)}", 1)
        return done.stdout.removesuffix("\n")

    def ask(self, *arguments: str) -> str:
        """What one call prints, empty where it fails."""
        done = self.run(*arguments)
        return done.stdout.strip() if done.returncode == 0 else ""

    def is_top(self) -> bool:
        """Whether `root` is the top of a repository's working tree."""
        return self.run("rev-parse", "--show-cdup").stdout == "\n"

    def text_at(self, tree: str, path: str) -> str | None:
        """A file of a commit or tree as text, None where it has none."""
        done = self.run("cat-file", "blob", f"{tree}:{path}")
        return done.stdout if done.returncode == 0 else None

    def entries(self, tree: str) -> Entries:
        """The files of a commit or tree."""
        listed = self("ls-tree", "-r", "-z", "--full-tree", tree)
        found = (line.partition(_TAB) for line in listed.split(_NUL) if line)
        return {path: what for what, _, path in found}

    def write_tree(self, entries: Entries) -> str:
        """The id of a tree of these files; working tree and index stay as they are."""
        with tempfile.TemporaryDirectory(prefix="edgeml-index-") as folder:
            index = os.path.join(folder, "index")
            listed = "".join(f"{what}{_TAB}{path}{_NUL}" for path, what in entries.items())
            self("update-index", "-z", "--index-info", given=listed, index=index)
            return self("write-tree", index=index)

    def write_blob(self, text: str) -> str:
        """A regular file of this text, as an entry."""
        return f"100644 blob {self('hash-object', '-w', '--stdin', given=text)}"

    def commit_tree(self, tree: str, message: str, *parents: str) -> str:
        """The id of a new commit, which no branch knows yet."""
        above = [word for parent in parents for word in ("-p", parent)]
        return self("commit-tree", tree, *above, "-F", "-", given=message)


def said(done: subprocess.CompletedProcess[str]) -> str:
    """What git says of a failure: the line that names it."""
    lines = [line.strip() for line in (done.stderr or done.stdout).splitlines() if line.strip()]
    named = [line for line in lines if line.startswith(("fatal:", "error:"))]
    return (named or lines or ["it ended without a word"])[0].removeprefix("fatal: ").removeprefix("error: ")[:300]
