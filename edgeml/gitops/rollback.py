"""Rollback: the pull request that takes a site's record back to what the default branch held before."""

from __future__ import annotations

from typing import NamedTuple

from edgeml.errors import EdgemlError
from edgeml.gitops import evidence, pulls, remote
from edgeml.gitops import record as records
from edgeml.gitops.github import Repository, connect
from edgeml.gitops.proposal import Outcome, Proposal, propose

BRANCH = "edgeml/rollback/{site}"
MOST = 20  # changes that are looked at


class _Before(NamedTuple):
    """The default branch as it was before a change, and whether that change was itself a rollback."""

    commit: str
    was_rollback: bool


def rollback(site: str, *, dry_run: bool = False) -> Outcome:
    """Open or update the pull request that reverts a site's record. Raises EdgemlError where there is none before it.

    What was itself rolled back is passed over: a second rollback goes further back, and not to the fault again.
    """
    from edgeml import settings
    from edgeml.gitops import gate

    gate.predecessor(settings.load().sites.order, site)
    repository = connect()
    path = records.path_of(site)
    main = repository.ask(repository.rest.git.get_ref, f"heads/{repository.branch}").object_.sha
    now = remote.blobs(repository, main)
    current = remote.record_at(repository, site, main).record
    commit, blob = _previous(repository, site, path, main, now[path])
    text = remote.text_of(repository, blob)
    bases = {name: remote.text_of(repository, now[name]) for name in now if name != path and name.endswith(".yml")}
    record = remote.read(bases | {path: text}, site)
    title = f"Roll {site} back to {record.model}"
    proposal = Proposal(BRANCH.format(site=site), path, text, title, evidence.rollback(record, current, commit))
    return Outcome("dry-run", proposal) if dry_run else propose(repository, proposal)


def _previous(repository: Repository, site: str, path: str, main: str, current: str) -> tuple[str, str]:
    """The newest state of the default branch that held another record, and the blob of it."""
    state, passing = main, False
    for _ in range(MOST):
        before = _before(repository, site, path, state)
        held = remote.blobs(repository, before.commit).get(path) if before else None
        if before is None or held is None:
            raise EdgemlError(
                f"{repository.branch} held no other record of {site} before; there is nothing to go back to", 1
            )
        if passing or before.was_rollback:
            passing = held != current
        elif held != current:
            return before.commit, held
        state = before.commit
    raise EdgemlError(f"the last {MOST} changes of {path} lead to no other record; write the one you want by hand", 1)


def _before(repository: Repository, site: str, path: str, state: str) -> _Before | None:
    """What the default branch held before the last change of a file."""
    origin = pulls.origin(repository, path, state)
    merged = origin.pull.merge_commit_sha if origin.pull else None
    parents = repository.ask(repository.rest.git.get_commit, merged or origin.commit).parents
    was_rollback = origin.pull is not None and origin.pull.head.ref == BRANCH.format(site=site)
    return _Before(parents[0].sha, was_rollback) if parents else None
