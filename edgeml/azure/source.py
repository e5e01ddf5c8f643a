"""Where the code of a job comes from, said outright: a tag's checkout has no branch, a remote may hold a token."""

from __future__ import annotations

import os
import subprocess
from typing import NamedTuple
from urllib.parse import urlsplit


class Source(NamedTuple):
    """Empty where it is not known. `branch` is a tag's or a branch's name."""

    repository: str = ""
    branch: str = ""
    commit: str = ""
    dirty: bool = False

    def properties(self) -> dict[str, str]:
        """Under the names that Azure ML and MLflow show; present ones keep the SDK from guessing its own."""
        found = {
            "azureml.git.repository_uri": self.repository,
            "mlflow.source.git.repoURL": self.repository,
            "azureml.git.branch": self.branch,
            "mlflow.source.git.branch": self.branch,
            "azureml.git.commit": self.commit,
            "mlflow.source.git.commit": self.commit,
            "azureml.git.dirty": str(self.dirty),
        }
        return {name: value for name, value in found.items() if value}


def of(file: str) -> Source:
    """The repository around a file; what GitHub says of a workflow's job is believed before git."""
    from edgeml.engine import git

    asked = git.Question(file)
    folder = os.path.dirname(os.path.abspath(file))
    server, name = os.environ.get("GITHUB_SERVER_URL", ""), os.environ.get("GITHUB_REPOSITORY", "")
    repository = f"{server}/{name}" if server and name else _git(folder, "config", "--get", "remote.origin.url")
    branch = os.environ.get("GITHUB_REF_NAME", "") or _git(folder, "symbolic-ref", "--quiet", "--short", "HEAD")
    commit, dirty = asked.answer()
    return Source(_public(repository), branch, commit, dirty)


def _git(folder: str, *arguments: str) -> str:
    try:
        done = subprocess.run(["git", "-C", folder, *arguments], capture_output=True, text=True, check=False)
    except OSError:
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""


def _public(url: str) -> str:
    """A remote's address without the credentials that a checkout may have put into it."""
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https"):
        return url
    return parts._replace(netloc=parts.netloc.rpartition("@")[2], query="").geturl()
