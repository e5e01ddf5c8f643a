"""Every reason for which the gate says no, by its stable id; docs/promotion.md shows them, and a test holds it."""

from __future__ import annotations

from typing import NamedTuple


class Reason(NamedTuple):
    """A reason to refuse: what it is, why it matters, and what to do."""

    id: str
    title: str
    why: str
    fix: str


class Refusal(NamedTuple):
    """One refusal: the reason's id, what exactly was found, and what to do."""

    reason: str
    cause: str
    fix: str


TAG_FORM = Reason(
    "tag-form",
    "The tag is no release tag",
    "One form, so that 'newer' has one meaning.",
    "tag as v1.2.3: v and three numbers, nothing else",
)
TAG_MISSING = Reason(
    "tag-missing",
    "The repository has no such tag",
    "What is decided must be what GitHub holds, not what a machine has.",
    "push the tag, then run again",
)
TAG_OFF_MAIN = Reason(
    "tag-off-main",
    "The tag is not on the default branch",
    "What was never merged was never agreed on.",
    "merge first, then tag a commit of the default branch",
)
TAG_OLDER = Reason(
    "tag-older",
    "The tag is older than what runs at the site",
    "An old tag would undo what came after it, unseen. Going back is a change too: `edgeml rollback`.",
    "tag the newest commit of the default branch with a larger version",
)
RECORD_MISSING = Reason(
    "record-missing",
    "The site has no record at this tag, or a wrong one",
    "Only what a record says is deployed.",
    "mend the record by a pull request; `edgeml check deployments` says what is wrong with it",
)
RECORD_DIRECT = Reason(
    "record-outside-pull-request",
    "The record was last changed outside of a merged pull request",
    "A push to the default branch is one person's word.",
    "propose the record anew with `edgeml promote` or `edgeml rollback`, and have it merged",
)
RECORD_DIFFERS = Reason(
    "record-not-as-approved",
    "The record is not what the pull request held when it was approved",
    "A merge can change what was looked at.",
    "propose the record anew with `edgeml promote`, and have it approved as it is",
)
NOT_APPROVED = Reason(
    "not-approved",
    "Too few people approved the last commit of the pull request",
    "A person with write access who neither opened the pull request nor pushed its last commit must have looked at it.",
    "have it approved by somebody else with write access; an approval of a merged pull request counts, too",
)
CHANGES_REQUESTED = Reason(
    "changes-requested",
    "Somebody with write access asks for changes",
    "A no stands until who said it takes it back.",
    "settle it; they approve, or their review is dismissed",
)
OWNER_MISSING = Reason(
    "owner-missing",
    "CODEOWNERS names somebody who did not approve",
    "Ownership holds where branch protection is not to be had, too.",
    "have an owner of the file approve the pull request",
)
CHECKS_MISSING = Reason(
    "checks-missing",
    "The required check never ran on the pull request",
    "A pull request that GITHUB_TOKEN opened starts no workflow, and a skipped job looks like a passed one.",
    "let the workflow run: approve its start on the pull request, or open it with the token of a GitHub App",
)
CHECKS_RED = Reason(
    "checks-red",
    "A check of the pull request failed",
    "What fails in the check fails at the site.",
    "mend what failed, by a pull request",
)
CHECKS_PENDING = Reason(
    "checks-pending",
    "A check of the pull request has not finished",
    "Not yet known is no yes.",
    "wait for it, then run again",
)
IMAGE_MISSING = Reason(
    "image-missing",
    "The registry has no such digest",
    "A record of an image that is not there would stop the site half-way.",
    "push the image with `edgeml package`, or promote the model whose image is there",
)
IMAGE_UNSIGNED = Reason(
    "image-unsigned",
    "No signature of a trusted key lies under the image",
    "The registry is not who built it.",
    "sign it with `edgeml package`; never sign an image whose origin is unknown",
)
IMAGE_LABELS = Reason(
    "image-labels",
    "The image's labels are not the record's",
    "A digest that was swapped for that of another model would run with this model's evidence.",
    "promote the model that the image holds, or package the model of the record",
)
ORDER = Reason(
    "order",
    "The site before does not run this digest",
    "A site gets what the one before it has shown to run; only what a site ran before may come back to it directly.",
    "deploy to the site before first",
)
NO_ANSWER = Reason(
    "no-answer",
    "GitHub or the registry did not answer",
    "Not knowing is no yes.",
    "mend the cause, then run again",
)

REASONS = (
    TAG_FORM,
    TAG_MISSING,
    TAG_OFF_MAIN,
    TAG_OLDER,
    RECORD_MISSING,
    RECORD_DIRECT,
    RECORD_DIFFERS,
    NOT_APPROVED,
    CHANGES_REQUESTED,
    OWNER_MISSING,
    CHECKS_MISSING,
    CHECKS_RED,
    CHECKS_PENDING,
    IMAGE_MISSING,
    IMAGE_UNSIGNED,
    IMAGE_LABELS,
    ORDER,
    NO_ANSWER,
)


def refuse(reason: Reason, cause: str) -> Refusal:
    return Refusal(reason.id, cause, reason.fix)


def table() -> str:
    """The reasons as a Markdown table."""
    rows = "\n".join(f"| `{r.id}` | {r.title} | {r.why} | {r.fix} |" for r in REASONS)
    return f"| id | cause | why it matters | fix |\n|---|---|---|---|\n{rows}"
