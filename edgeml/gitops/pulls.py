"""The pull request that brought a record to the default branch, and what it must show: approval, owners, checks."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple

from edgeml.gitops import approval, owners, reasons, remote
from edgeml.gitops.approval import Approval, Change, Review
from edgeml.gitops.github import PAGE, AbsentError, Repository
from edgeml.gitops.reasons import Refusal, refuse

if TYPE_CHECKING:
    from githubkit_schemas.v2022_11_28.models import PullRequestSimple

REQUIRED_CHECK = "pass"  # the one job of check.yml that needs all others and cannot be skipped
_GREEN = frozenset({"success", "neutral", "skipped"})
_WRITES = frozenset({"admin", "maintain", "write"})


class Origin(NamedTuple):
    """Where a file's content at a commit comes from: the last commit that changed it, and the pull request of that."""

    path: str
    commit: str
    pull: PullRequestSimple | None


def origin(repository: Repository, path: str, commit: str) -> Origin:
    """Who brought the content of a file at a commit to the default branch."""
    commits = repository.ask(repository.rest.repos.list_commits, sha=commit, path=path, per_page=1)
    if not commits:
        return Origin(path, commit, None)
    changed = commits[0].sha
    listed = repository.every(repository.rest.repos.list_pull_requests_associated_with_commit, changed)
    merged = [pull for pull in listed if pull.merged_at and _is_ours(pull, repository)]
    return Origin(path, changed, max(merged, key=lambda pull: (pull.merged_at, pull.number), default=None))


def objections(repository: Repository, pull: PullRequestSimple, commit: str, needed: int) -> Iterator[Refusal]:
    """What keeps a merged pull request from being an agreement; `commit` is the one that is to be deployed."""
    approved = judged(repository, pull, needed)
    name = f"#{pull.number}"
    if approved.opponents:
        people = _listed(approved.opponents)
        yield refuse(reasons.CHANGES_REQUESTED, f"{people} asked for changes of {name}")
    if len(approved.approvers) < approved.needed:
        yield refuse(reasons.NOT_APPROVED, f"{name} has {_counted(approved, needed)}")
    yield from _owners(repository, pull, commit, approved)
    yield from _checks(repository, pull.head.sha, name)


def judged(repository: Repository, pull: PullRequestSimple, needed: int) -> Approval:
    """The approval rule, asked of what GitHub lists for a pull request."""
    reviews = [
        Review(
            review.user.login,
            review.user.type == "User",
            review.state,
            review.commit_id or "",
            _time(review.submitted_at),
            review.id,
        )
        for review in repository.every(repository.rest.pulls.list_reviews, pull.number)
        if review.user is not None
    ]
    author = pull.user.login if pull.user else ""
    change = Change(author, _pusher(repository, pull), pull.head.sha, reviews)
    writers = [person for person in sorted(approval.reviewers(change)) if _may_write(repository, person)]
    return approval.judge(change, writers, needed)


def _is_ours(pull: PullRequestSimple, repository: Repository) -> bool:
    base = pull.base
    return str(base.ref) == repository.branch and str(base.repo.full_name).lower() == repository.full_name.lower()


def _pusher(repository: Repository, pull: PullRequestSimple) -> str | None:
    """Who pushed the last commit, as the activity of its branch tells; None where it does not."""
    if pull.head.repo is None:  # the fork is gone
        return None
    owner, name = pull.head.repo.full_name.split("/", 1)
    fork = replace(repository, owner=owner, name=name)
    ref = f"refs/heads/{pull.head.ref}"
    try:
        activities = fork.ask(fork.rest.repos.list_activities, ref=ref, per_page=PAGE)
    except AbsentError:
        return None
    for activity in activities:
        if activity.after == pull.head.sha and activity.ref == ref and activity.actor is not None:
            return str(activity.actor.login)
    return None


def _may_write(repository: Repository, person: str) -> bool:
    try:
        level = repository.ask(repository.rest.repos.get_collaborator_permission_level, person)
    except AbsentError:
        return False
    return str(level.permission) in _WRITES


def _owners(repository: Repository, pull: PullRequestSimple, commit: str, approved: Approval) -> Iterator[Refusal]:
    """What CODEOWNERS asks for, where the pull request began and at the commit: neither may be evaded."""
    texts = dict.fromkeys(_codeowners(repository, each) for each in (pull.base.sha, commit))
    if not any(texts):
        return
    paths = [file.filename for file in repository.every(repository.rest.pulls.list_files, pull.number)]
    seen = set()
    for text in texts:
        for missing in owners.missing(text, paths, approved.approvers, lambda t, p: _is_member(repository, t, p)):
            if missing not in seen:
                seen.add(missing)
                cause = f"none of {', '.join(missing.owners)} approved {missing.path} in #{pull.number}"
                yield refuse(reasons.OWNER_MISSING, cause)


def _codeowners(repository: Repository, commit: str) -> str:
    for place in owners.PLACES:
        text = remote.file_at(repository, place, commit)
        if text is not None:
            return text
    return ""


def _is_member(repository: Repository, team: str, person: str) -> bool:
    organisation, slug = team.split("/", 1)
    elsewhere = replace(repository, owner=organisation, name=slug)
    try:
        membership = elsewhere.ask(elsewhere.rest.teams.get_membership_for_user_in_org, person)
    except AbsentError:
        return False
    return str(membership.state) == "active"


def _checks(repository: Repository, head: str, name: str) -> Iterator[Refusal]:
    """Whether the checks of a commit are green: none red, none running, and the required one passed, not skipped."""
    runs = []
    for page in range(1, 31):
        answer = repository.ask(repository.rest.checks.list_for_ref, head, per_page=PAGE, page=page)
        runs += answer.check_runs
        if len(answer.check_runs) < PAGE:
            break
    status = repository.ask(repository.rest.repos.get_combined_status_for_ref, head, per_page=PAGE)
    pending = {run.name for run in runs if run.status != "completed"}
    red = {run.name for run in runs if run.status == "completed" and run.conclusion not in _GREEN}
    if status.total_count and status.state != "success":
        (pending if status.state == "pending" else red).update(
            s.context for s in status.statuses if s.state != "success"
        )
    if red:
        yield refuse(reasons.CHECKS_RED, f"on the last commit of {name}: {_listed(red)}")
    if pending:
        yield refuse(reasons.CHECKS_PENDING, f"on the last commit of {name}: {_listed(pending)}")
    passed = any(run.name == REQUIRED_CHECK and run.conclusion == "success" for run in runs)
    if not passed and REQUIRED_CHECK not in red | pending:
        yield refuse(reasons.CHECKS_MISSING, f"'{REQUIRED_CHECK}' never passed on the last commit of {name}")


def _counted(approved: Approval, needed: int) -> str:
    of = f"{len(approved.approvers)} of {approved.needed} approvals"
    more = " (one more than usual: GitHub does not tell who pushed last)" if approved.needed > needed else ""
    why = "; ".join(f"{person} {reason}" for person, reason in sorted(approved.discounted.items()))
    return of + more + (f"; {why}" if why else "")


def _listed(names: frozenset[str] | set[str]) -> str:
    shown = sorted(names)
    return ", ".join(shown[:5]) + (f" and {len(shown) - 5} more" if len(shown) > 5 else "")


def _time(when: object) -> str:
    return when.isoformat() if hasattr(when, "isoformat") else ""
