"""The approval rule over every history of reviews that can be drawn, against its sentences written down once more."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from edgeml.gitops.approval import APPROVED, CHANGES_REQUESTED, DISMISSED, Approval, Change, Review, judge

PEOPLE = ("ada", "Ada", "ben", "cleo", "dan", "eve")
HEAD, OLD = "a" * 40, "b" * 40

reviews = st.lists(
    st.builds(
        Review,
        reviewer=st.sampled_from(PEOPLE),
        is_person=st.sampled_from((True, True, True, False)),
        state=st.sampled_from(
            (APPROVED, APPROVED, CHANGES_REQUESTED, DISMISSED, "COMMENTED", "PENDING", "approved", "")
        ),
        commit=st.sampled_from((HEAD, HEAD, OLD, "")),
        submitted=st.sampled_from(("2026-11-25T10:00:00", "2026-11-25T11:00:00", "")),
        number=st.integers(1, 1000),
    ),
    max_size=12,
    unique_by=lambda review: review.number,
)
changes = st.builds(
    Change,
    author=st.sampled_from((*PEOPLE, "bot[bot]")),
    pusher=st.none() | st.sampled_from((*PEOPLE, "bot[bot]")),
    head=st.just(HEAD),
    reviews=reviews,
)
writers = st.sets(st.sampled_from(PEOPLE))


def last_words(change: Change) -> dict[str, Review]:
    words: dict[str, Review] = {}
    for review in change.reviews:
        name = review.reviewer.lower()
        if review.state in (APPROVED, CHANGES_REQUESTED, DISMISSED):
            kept = words.get(name, review)
            words[name] = max(kept, review, key=lambda each: (each.submitted, each.number))
    return words


@settings(deadline=None)
@given(changes, writers, st.integers(1, 3))
def test_who_counts_and_who_does_not(change: Change, access: set[str], needed: int) -> None:
    approved = judge(change, access, needed)
    can_write = {name.lower() for name in access}
    involved = {change.author.lower(), (change.pusher or change.author).lower()}
    words = last_words(change)
    good = {
        name
        for name, review in words.items()
        if (review.state, review.commit, review.is_person) == (APPROVED, HEAD, True)
        and name in can_write
        and name not in involved
    }
    assert approved.approvers == good
    assert approved.opponents == {n for n, r in words.items() if r.state == CHANGES_REQUESTED and n in can_write}
    enough = len(good) >= needed + (change.pusher is None) and not approved.opponents
    assert approved.is_enough == enough


@settings(deadline=None)
@given(changes, writers, st.integers(1, 3), st.sampled_from(PEOPLE))
def test_one_more_no_never_opens_it(change: Change, access: set[str], needed: int, person: str) -> None:
    before = judge(change, access, needed)
    number = 1 + max((review.number for review in change.reviews), default=0)
    for state, commit in ((CHANGES_REQUESTED, HEAD), (DISMISSED, HEAD), (APPROVED, OLD), ("COMMENTED", HEAD)):
        more = Review(person, True, state, commit, "2026-11-26T00:00:00", number)
        after = judge(change._replace(reviews=[*change.reviews, more]), access, needed)
        took_back = state != CHANGES_REQUESTED and person.lower() in before.opponents
        assert before.is_enough or took_back or not after.is_enough


@settings(deadline=None)
@given(changes, writers, st.integers(1, 3), st.sampled_from(PEOPLE))
def test_access_and_an_unknown_pusher_only_ever_take_away(
    change: Change, access: set[str], needed: int, person: str
) -> None:
    def opens(approved: Approval) -> bool:
        return len(approved.approvers) >= approved.needed

    fewer = judge(change, access - {person}, needed)
    whole = judge(change, access, needed)
    assert fewer.approvers <= whole.approvers
    unknown = judge(change._replace(pusher=None), access, needed)
    for pusher in ("bot[bot]", *PEOPLE):
        assert not opens(unknown) or opens(judge(change._replace(pusher=pusher), access, needed))


@settings(deadline=None)
@given(changes, writers, st.integers(1, 3))
def test_the_order_in_which_reviews_are_listed_is_nothing(change: Change, access: set[str], needed: int) -> None:
    turned = change._replace(reviews=list(change.reviews)[::-1])
    assert judge(turned, access, needed)[:2] == judge(change, access, needed)[:2]
