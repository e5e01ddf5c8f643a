"""One pull request that changes one record: opened once, then updated, never doubled.

Branch and commit are made by GitHub's Git data API: no machine needs a credential to push with, and GitHub signs what a
bot commits. An update replaces the branch, which makes earlier approvals stale; so nothing is written where
nothing changed.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

from edgeml.gitops import remote
from edgeml.gitops.github import AbsentError, ConflictError, Repository

Action = Literal["opened", "updated", "unchanged", "none", "dry-run"]


class Proposal(NamedTuple):
    """What is proposed: the new text of one file, on a branch of its own, and what a reviewer reads."""

    branch: str
    path: str
    text: str
    title: str
    body: str


class Outcome(NamedTuple):
    """What became of it: `none` where the default branch holds it already. `commit` and `url` are empty without one."""

    action: Action
    proposal: Proposal
    number: int = 0
    url: str = ""
    commit: str = ""


def propose(repository: Repository, proposal: Proposal) -> Outcome:
    """Open the pull request of a proposal, or bring the open one up to date."""
    git, main = repository.rest.git, repository.branch
    base = repository.ask(git.get_ref, f"heads/{main}").object_.sha
    blob = repository.ask(git.create_blob, content=proposal.text, encoding="utf-8").sha
    commit = _standing(repository, proposal, base, blob)
    renewed = commit is None
    if commit is None:
        entry = {"path": proposal.path, "mode": remote.REGULAR, "type": "blob", "sha": blob}
        tree = repository.ask(git.create_tree, tree=[entry], base_tree=base)
        # No author is named: GitHub takes the token's, and signs.
        message = f"{proposal.title}\n\nProposed by edgeml; the pull request holds the evidence.\n"
        commit = repository.ask(git.create_commit, message=message, tree=tree.sha, parents=[base]).sha
        _point(repository, proposal.branch, commit)
    return _pull(repository, proposal, commit, renewed)


def _standing(repository: Repository, proposal: Proposal, base: str, blob: str) -> str | None:
    """The branch's commit, if it holds just this proposal and can still be merged; None where it must be made anew."""
    try:
        head = repository.ask(repository.rest.git.get_ref, f"heads/{proposal.branch}").object_.sha
    except AbsentError:
        return None
    compared = repository.ask(repository.rest.repos.compare_commits, f"{base}...{head}")
    if [file.filename for file in compared.files or []] != [proposal.path]:
        return None
    then, now, there = (
        remote.blobs(repository, sha).get(proposal.path) for sha in (compared.merge_base_commit.sha, base, head)
    )
    return head if there == blob and then == now else None


def _point(repository: Repository, branch: str, commit: str) -> None:
    git = repository.rest.git
    try:
        repository.ask(git.update_ref, f"heads/{branch}", sha=commit, force=True)
    except (AbsentError, ConflictError):  # GitHub answers 422 for a branch that is not there
        repository.ask(git.create_ref, ref=f"refs/heads/{branch}", sha=commit)


def _pull(repository: Repository, proposal: Proposal, commit: str, renewed: bool) -> Outcome:
    pulls, title, body = repository.rest.pulls, proposal.title, proposal.body
    found = _open(repository, proposal.branch)
    if found is None:
        try:
            made = repository.ask(
                pulls.create, title=title, body=body, head=proposal.branch, base=repository.branch, draft=False
            )
            return Outcome("opened", proposal, made.number, made.html_url, commit)
        except ConflictError:  # another run was faster
            found = _open(repository, proposal.branch)
            if found is None:
                raise
    if (found.title, (found.body or "").replace("\r\n", "\n")) != (title, body):
        repository.ask(pulls.update, found.number, title=title, body=body)
        renewed = True
    return Outcome("updated" if renewed else "unchanged", proposal, found.number, found.html_url, commit)


def _open(repository: Repository, branch: str) -> _Pull | None:
    head = f"{repository.owner}:{branch}"
    listed = repository.every(repository.rest.pulls.list, state="open", head=head, base=repository.branch)
    return next((_Pull(p.number, p.html_url, p.title, p.body or "") for p in listed if p.head.ref == branch), None)


class _Pull(NamedTuple):
    number: int
    html_url: str
    title: str
    body: str
