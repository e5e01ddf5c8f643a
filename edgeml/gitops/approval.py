"""Who approved a pull request: a rule over what GitHub lists, without asking anybody.

It holds on every plan of GitHub: neither branch protection nor environments are needed for it. A person's last word
counts. An approval counts if it is of the last commit, by a person with write access who neither opened the pull
request nor pushed that commit; a call for changes by anybody with write access stands until it is withdrawn.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from typing import NamedTuple

APPROVED, CHANGES_REQUESTED, DISMISSED = "APPROVED", "CHANGES_REQUESTED", "DISMISSED"
_WORDS = frozenset({APPROVED, CHANGES_REQUESTED, DISMISSED})


class Review(NamedTuple):
    """One review. `commit` is what was looked at; `submitted` orders the reviews, then `number`."""

    reviewer: str
    is_person: bool
    state: str
    commit: str
    submitted: str
    number: int


class Change(NamedTuple):
    """What the approval of a pull request hangs on. `pusher` pushed last; None where GitHub does not tell."""

    author: str
    pusher: str | None
    head: str
    reviews: Iterable[Review]


class Approval(NamedTuple):
    """The people whose approval counts, those who ask for changes, and why the others' approvals do not count."""

    approvers: frozenset[str]
    opponents: frozenset[str]
    discounted: Mapping[str, str]
    needed: int

    @property
    def is_enough(self) -> bool:
        return not self.opponents and len(self.approvers) >= self.needed


def reviewers(change: Change) -> frozenset[str]:
    """The people whose access matters."""
    return frozenset(review.reviewer for review in change.reviews)


def judge(change: Change, writers: Collection[str], needed: int) -> Approval:
    """Whether a change is approved. `writers` are the reviewers with write access, `needed` how many must approve.

    Where the last pusher is not known, he may be one of the approvers, and one more is needed.
    """
    author, pusher = change.author.lower(), (change.pusher or "").lower()
    access = {writer.lower() for writer in writers}
    approvers, opponents, discounted = set(), set(), {}
    for name, review in _last_words(change.reviews).items():
        if review.state == CHANGES_REQUESTED and name in access:
            opponents.add(name)
        if review.state != APPROVED:
            continue
        why = _objection(review, change.head)
        if name == author:
            why = "opened the pull request"
        elif pusher and name == pusher:
            why = "pushed the last commit"
        elif name not in access:
            why = "has no write access"
        if why:
            discounted[review.reviewer] = why
        else:
            approvers.add(name)
    unknown = change.pusher is None
    return Approval(frozenset(approvers), frozenset(opponents), discounted, needed + unknown)


def _objection(review: Review, head: str) -> str:
    if not review.is_person:
        return "is no person"
    return "" if review.commit == head else "approved an earlier commit"


def _last_words(reviews: Iterable[Review]) -> dict[str, Review]:
    """The last review of each person that says yes or no; a dismissed one says neither, and hides what came before."""
    last: dict[str, Review] = {}
    for review in sorted(reviews, key=lambda review: (review.submitted, review.number)):
        if review.state in _WORDS:
            last[review.reviewer.lower()] = review
    return last
