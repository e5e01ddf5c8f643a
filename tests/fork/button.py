"""What GitHub's "Use this template" makes of a checkout: its files as one first commit, and none of its history.

`python tests/fork/button.py FOLDER` does it with the checkout that it stands in; the workflow `template` begins so.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def git(folder: Path, *arguments: str) -> str:
    """One call of git, by somebody whom no configuration of the machine knows."""
    person = {"NAME": "cleo", "EMAIL": "cleo@clinic.example"}
    environment = {**os.environ, "GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_NOSYSTEM": "1"}
    environment |= {f"GIT_{role}_{key}": value for role in ("AUTHOR", "COMMITTER") for key, value in person.items()}
    done = subprocess.run(["git", "-C", str(folder), *arguments], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, f"git {' '.join(arguments)}: {done.stderr}"
    return done.stdout.strip()


def press(source: Path, folder: Path) -> Path:
    """A repository at `folder` whose one commit has the files of a checkout, uncommitted changes with them."""
    folder.mkdir(parents=True)
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard", "--deduplicate"],
        cwd=source,
        capture_output=True,
        check=True,
    ).stdout
    for name in filter(None, listed.decode().split("\0")):
        there = folder / name
        if os.path.lexists(source / name):
            there.parent.mkdir(parents=True, exist_ok=True)
            if (source / name).is_symlink():
                there.symlink_to(os.readlink(source / name))
            else:
                there.write_bytes((source / name).read_bytes())
                there.chmod((source / name).stat().st_mode)
    begin_history(folder)
    return folder


def begin_history(folder: Path) -> None:
    """A repository whose one commit has every file of a folder."""
    git(folder, "init", "--quiet", "--template=", "--initial-branch", "main")
    git(folder, "add", "--all", "--force")
    git(folder, "commit", "--quiet", "--message", "Initial commit")


if __name__ == "__main__":
    print(press(ROOT, Path(sys.argv[1])))
