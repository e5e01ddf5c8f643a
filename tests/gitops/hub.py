"""GitHub on loopback: its REST API over a real bare repository, stateful, every message held against the description.

`Hub` is what people, bots and checks do (commit, open, review, merge, tag); `serve` is what the API says of it.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

OWNER, NAME, MAIN = "clinic", "models", "main"
BOT = "edgeml-bot[bot]"


@dataclass
class Pull:
    number: int
    author: str
    ref: str
    title: str
    body: str
    base: str
    head: str
    state: str = "open"
    merged_at: str | None = None
    merge_commit: str | None = None
    brought: list[str] = field(default_factory=list)
    """Commits that the default branch has from it."""
    repo: tuple[str, str] = (OWNER, NAME)


@dataclass
class Hub:
    """One repository on GitHub, and everybody who works on it. `token` is who the API's caller is."""

    folder: Path
    token: str = BOT
    access: dict[str, str] = field(
        default_factory=lambda: {"ada": "write", "ben": "write", "cleo": "admin", "eve": "read"}
    )
    teams: dict[str, set[str]] = field(default_factory=dict)
    pulls: list[Pull] = field(default_factory=list)
    reviews: dict[int, list[dict[str, Any]]] = field(default_factory=dict)
    activities: list[dict[str, Any]] = field(default_factory=list)
    checks: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    statuses: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    deployments: list[dict[str, Any]] = field(default_factory=list)
    environments: dict[str, list[str]] = field(default_factory=dict)
    states: dict[int, list[str]] = field(default_factory=dict)
    issues: list[dict[str, Any]] = field(default_factory=list)
    dispatched: list[tuple[str, str, dict[str, str]]] = field(default_factory=list)
    """Workflows that were started through the API: file, ref and inputs."""
    faults: list[Callable[[str, str], Any]] = field(default_factory=list)
    requests: list[tuple[str, str]] = field(default_factory=list)
    breaches: list[str] = field(default_factory=list)
    clock: int = 1_780_000_000

    def __post_init__(self) -> None:
        self.git("init", "--quiet", "--bare", f"--initial-branch={MAIN}", str(self.folder), at=Path("/"))

    # --- git ---------------------------------------------------------------------------------------

    def git(self, *words: str, given: str | None = None, at: Path | None = None, index: str = "") -> str:
        self.clock += 1
        identity = {f"GIT_{who}_{what}": value for who in ("AUTHOR", "COMMITTER") for what, value in self._who()}
        environment = {"PATH": os.environ["PATH"], "HOME": "/nonexistent", **identity}
        if index:
            environment["GIT_INDEX_FILE"] = index
        done = subprocess.run(
            ["git", *words], cwd=at or self.folder, input=given, env=environment, capture_output=True, text=True
        )
        if done.returncode:
            raise KeyError(f"git {' '.join(words)}: {done.stderr}")
        return done.stdout.strip()

    def _who(self) -> list[tuple[str, str]]:
        return [("NAME", "someone"), ("EMAIL", "someone@clinic.example"), ("DATE", f"{self.clock} +0000")]

    def sha(self, name: str) -> str:
        return self.git("rev-parse", "--verify", "--quiet", name)

    def write(self, files: dict[str, str | None], onto: str = "") -> str:
        """The tree of a commit with some files changed, or taken away."""
        index = str(self.folder / f"index-{self.clock}")
        if onto:
            self.git("read-tree", onto, index=index)
        lines = []
        for path, text in files.items():
            blob = "0" * 40 if text is None else self.git("hash-object", "-w", "--stdin", given=text)
            lines.append(f"{'0' if text is None else '100644'} {blob}\t{path}")
        self.git("update-index", "--index-info", given="\n".join(lines) + "\n", index=index)
        tree = self.git("write-tree", index=index)
        os.unlink(index)
        return tree

    def point(self, ref: str, sha: str, who: str) -> None:
        """Move a branch, as a push does: its pull request follows, and the activity says who."""
        try:
            before = self.sha(ref)
        except KeyError:
            before = "0" * 40
        self.git("update-ref", ref, sha)
        kind = "branch_creation" if before == "0" * 40 else "push"
        self.activities.insert(0, {"ref": ref, "before": before, "after": sha, "actor": who, "activity_type": kind})
        for pull in self.pulls:
            if pull.state == "open" and f"refs/heads/{pull.ref}" == ref:
                pull.head = sha

    # --- people and bots ---------------------------------------------------------------------------

    def push(self, who: str, files: dict[str, str | None], branch: str = MAIN, message: str = "Change") -> str:
        """Commit on a branch, which begins at the default branch where it is new."""
        ref = f"refs/heads/{branch}"
        parent = ""
        for name in (ref, f"refs/heads/{MAIN}"):
            try:
                parent = self.sha(name)
                break
            except KeyError:
                continue
        parents = ["-p", parent] if parent else []
        commit = self.git("commit-tree", self.write(files, parent), *parents, "-m", message)
        self.point(ref, commit, who)
        return commit

    def begin(self, settings: str) -> str:
        """The first commit; the same in every hub."""
        return self.push("cleo", {"edgeml.toml": settings, "README.md": "A clinic's models.\n"}, message="Begin")

    def open(self, who: str, ref: str, title: str = "A change", body: str = "") -> Pull:
        head = self.sha(f"refs/heads/{ref}")
        pull = Pull(len(self.pulls) + 1, who, ref, title, body, self.sha(MAIN), head)
        self.pulls.append(pull)
        return pull

    def review(self, who: str, pull: Pull, state: str = "APPROVED", commit: str = "") -> dict[str, Any]:
        self.clock += 1
        review = {"user": who, "state": state, "commit_id": commit or pull.head, "submitted_at": self.now()}
        self.reviews.setdefault(pull.number, []).append(review)
        return review

    def check(self, pull: Pull, name: str = "pass", conclusion: str | None = "success") -> None:
        status = "completed" if conclusion else "in_progress"
        self.checks.setdefault(pull.head, []).append({"name": name, "status": status, "conclusion": conclusion})

    def merge(self, pull: Pull, method: str = "merge", files: dict[str, str | None] | None = None) -> str:
        """Merge as GitHub does; `files` is what whoever merged changed on the way."""
        main = self.sha(MAIN)
        commits = self.git("rev-list", "--reverse", f"{main}..{pull.head}").split()
        changed = self.git("diff", "--name-only", f"{main}...{pull.head}").split("\n")
        texts = {path: self.show(pull.head, path) for path in changed if path} | (files or {})
        tree = self.write(texts, main)
        if method == "merge":
            merged = self.git("commit-tree", tree, "-p", main, "-p", pull.head, "-m", f"Merge #{pull.number}")
            pull.brought = [*commits, merged]
        else:
            merged = self.git("commit-tree", tree, "-p", main, "-m", f"{pull.title} (#{pull.number})")
            pull.brought = [merged]
        self.git("update-ref", f"refs/heads/{MAIN}", merged)
        self.git("update-ref", "-d", f"refs/heads/{pull.ref}")
        self.clock += 60
        pull.state, pull.merged_at, pull.merge_commit = "closed", self.now(), merged
        return merged

    def tag(self, name: str, commit: str = MAIN, annotated: bool = False) -> str:
        sha = self.sha(commit)
        self.git("tag", *(["-a", "-m", name] if annotated else []), name, sha)
        return sha

    def deployed(self, site: str, tag: str, *states: str, task: str = "deploy:edgeml") -> int:
        """A deployment of a tag, its statuses in the order in which they came."""
        number = len(self.deployments) + 1
        self.deployments.append(
            {"id": number, "environment": site, "ref": tag, "sha": self.sha(f"{tag}^{{commit}}"), "task": task}
        )
        self.states[number] = list(states or ("in_progress", "success"))
        return number

    def show(self, commit: str, path: str) -> str | None:
        try:
            return self.git("show", f"{commit}:{path}") + "\n"
        except KeyError:
            return None

    def now(self) -> str:
        import time

        return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(self.clock))
