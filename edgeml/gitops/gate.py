"""The approval gate: whether a release tag may deploy to a site, decided on what GitHub and the registry say now.

Closed by default. Each question is asked even where another was answered with no, so that one run tells all that is
missing; a question that gets no answer is a no.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from edgeml.errors import EdgemlError
from edgeml.gitops import images as registries
from edgeml.gitops import pulls, reasons, remote, running
from edgeml.gitops import tag as tags
from edgeml.gitops.github import AbsentError, Repository, connect
from edgeml.gitops.reasons import Refusal, refuse

if TYPE_CHECKING:
    from edgeml.gitops.images import Images
    from edgeml.gitops.record import Record
    from edgeml.gitops.remote import Held
    from edgeml.gitops.running import Running


@dataclass
class Decision:
    """What the gate says of a tag at a site. `facts` is what it found, for readers."""

    site: str
    tag: str
    refusals: list[Refusal] = field(default_factory=list)
    facts: dict[str, str] = field(default_factory=dict)

    @property
    def allowed(self) -> bool:
        return not self.refusals

    def document(self) -> dict[str, Any]:
        """The decision for machines."""
        return {
            "version": 1,
            "site": self.site,
            "tag": self.tag,
            "allowed": self.allowed,
            "reasons": [refusal._asdict() for refusal in self.refusals],
            "facts": self.facts,
        }

    def json(self) -> str:
        return json.dumps(self.document(), indent=2)


def decide(site: str, ref: str, repository: Repository | None = None, images: Images | None = None) -> Decision:
    """Whether the release tag `ref` may deploy to a site. Raises EdgemlError where nothing can be asked."""
    from edgeml import settings

    sites = settings.load().sites
    before = predecessor(sites.order, site)
    repository = repository or connect()
    decision = Decision(site, ref.removeprefix("refs/tags/"))
    tag = tags.parse(ref)
    if tag is None:
        decision.refusals.append(refuse(reasons.TAG_FORM, f"'{ref}' is no release tag"))
        return decision
    decision.tag = str(tag)
    try:
        commit = remote.tag_commit(repository, str(tag))
    except AbsentError:
        decision.refusals.append(refuse(reasons.TAG_MISSING, f"GitHub knows no tag {tag} in {repository.full_name}"))
        return decision
    except EdgemlError as error:
        _no_answer(decision, error)
        return decision
    decision.facts["commit"] = commit
    _ask(decision, _on_main(repository, commit, tag))
    _ask(decision, _newer(repository, site, commit, tag, decision.facts))
    held = _held(decision, repository, commit)
    if held is not None:
        _ask(decision, _agreed(repository, held, commit, sites.approvals, decision.facts))
        _ask(decision, _next_in_order(repository, held, before, decision.facts))
        _ask(decision, _image(held, images))
    return decision


def predecessor(order: list[str], site: str) -> str | None:
    """The site before in the declared order. Raises EdgemlError where the site is not in it."""
    if site not in order:
        known = ", ".join(order) or "none"
        raise EdgemlError(f"'{site}' is none of the sites in sites.order ({known}); add it, or name one of them")
    place = order.index(site)
    return order[place - 1] if place else None


def _ask(decision: Decision, question: Iterable[Refusal]) -> None:
    """Take down the answer; none is a no. The same cause is told once."""
    try:
        for refusal in question:
            decision.refusals.append(refusal)
    except EdgemlError as error:
        _no_answer(decision, error)


def _no_answer(decision: Decision, error: EdgemlError) -> None:
    refusal = refuse(reasons.NO_ANSWER, str(error))
    if refusal not in decision.refusals:
        decision.refusals.append(refusal)


def _held(decision: Decision, repository: Repository, commit: str) -> Held | None:
    """The record at the commit; what is wrong with it is taken down."""
    try:
        held = remote.blobs(repository, commit)
        texts = remote.texts_at(repository, decision.site, held)
    except EdgemlError as error:
        _no_answer(decision, error)
        return None
    try:
        record = remote.read(texts, decision.site)
    except EdgemlError as error:
        decision.refusals.append(refuse(reasons.RECORD_MISSING, str(error)))
        return None
    decision.facts |= {"model": record.model, "image": record.image}
    return remote.Held(record, {path: held[path] for path in record.files})


def _on_main(repository: Repository, commit: str, tag: tags.Tag) -> Iterator[Refusal]:
    if not remote.contains(repository, repository.branch, commit):
        yield refuse(reasons.TAG_OFF_MAIN, f"{tag} is commit {commit[:12]}, which is not on {repository.branch}")


def _newer(repository: Repository, site: str, commit: str, tag: tags.Tag, facts: dict[str, str]) -> Iterator[Refusal]:
    now = running.at(repository, site)
    if now is None:
        facts["runs now"] = "nothing"
        return
    facts["runs now"] = now.tag
    there = tags.parse(now.tag)
    if now.commit == commit:
        return
    if there is not None and tag <= there:
        yield refuse(reasons.TAG_OLDER, f"{site} runs {there}, and {tag} is not newer")
    elif not remote.contains(repository, commit, now.commit):
        yield refuse(reasons.TAG_OLDER, f"{site} runs {now.tag}, whose commit {now.commit[:12]} {tag} does not contain")


def _agreed(repository: Repository, held: Held, commit: str, needed: int, facts: dict[str, str]) -> Iterator[Refusal]:
    """Each file of the record came from a merged pull request, is as it was there, and that was agreed on."""
    asked = {}
    for path, blob in held.blobs.items():
        origin = pulls.origin(repository, path, commit)
        if origin.pull is None:
            cause = f"{path} was last changed by {origin.commit[:12]}, which no merged pull request brought"
            yield refuse(reasons.RECORD_DIRECT, cause)
            continue
        if remote.blobs(repository, origin.pull.head.sha).get(path) != blob:
            cause = f"{path} is not what the last commit of #{origin.pull.number} holds"
            yield refuse(reasons.RECORD_DIFFERS, cause)
        asked[origin.pull.number] = origin.pull
    facts["pull requests"] = ", ".join(f"#{number}" for number in sorted(asked))
    for pull in asked.values():
        yield from pulls.objections(repository, pull, commit, needed)


def _next_in_order(repository: Repository, held: Held, before: str | None, facts: dict[str, str]) -> Iterator[Refusal]:
    """The site before runs this digest, or this site itself ran it: what it goes back to has been through the order."""
    if before is None:
        return
    record = held.record
    now = running.at(repository, before)
    digest = _digest(repository, before, now) if now else ""
    facts[f"{before} runs"] = f"{now.tag} ({digest[:19]})" if now else "nothing"
    if digest == record.digest:
        return
    if any(
        _digest(repository, record.site, each) == record.digest for each in running.history(repository, record.site)
    ):
        return
    what = f"{digest[:19]}…" if now else "nothing"
    yield refuse(reasons.ORDER, f"{before} runs {what}, and this record is of {record.digest[:19]}…")


def _digest(repository: Repository, site: str, deployed: Running) -> str:
    """What a deployment runs, by the record at its commit; one that is not on the default branch proves nothing."""
    if not remote.contains(repository, repository.branch, deployed.commit):
        return ""
    try:
        return remote.record_at(repository, site, deployed.commit).record.digest
    except AbsentError:
        return ""


def _image(held: Held, images: Images | None) -> Iterator[Refusal]:
    yield from image(held.record, images or registries.default())


def image(record: Record, registry: Images) -> Iterator[Refusal]:
    """What keeps the image of a record from being the one that was agreed on."""
    found = registry.find(record.image)
    if found is None:
        yield refuse(reasons.IMAGE_MISSING, f"the registry has no {record.image}")
        return
    if not registry.is_signed(record.image):
        yield refuse(reasons.IMAGE_UNSIGNED, f"no trusted key signed {record.image}")
    for name, expected in registries.labels(record).items():
        if found.labels.get(name) != expected:
            said = found.labels.get(name, "missing")
            yield refuse(reasons.IMAGE_LABELS, f"its label {name} is {said}, and the record says {expected}")
