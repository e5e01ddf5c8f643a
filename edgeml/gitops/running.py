"""What runs at a site: GitHub deployments of a task of our own, written by `edgeml deploy`, read by the gate.

A deployment names a commit, and the record at that commit says what runs; nothing that is written into the deployment
itself is believed. GitHub makes deployments by itself too, for every job with an `environment`, and calls older ones
inactive: neither is looked at. The newest of ours that ever succeeded is what runs, since a failed one left the
one before it in place.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Literal, NamedTuple

from edgeml.errors import EdgemlError

if TYPE_CHECKING:
    from edgeml.gitops.github import Repository
    from edgeml.gitops.record import Record

TASK = "deploy:edgeml"
State = Literal["in_progress", "success", "failure", "error", "inactive"]


class Running(NamedTuple):
    """A deployment that succeeded: its release tag and commit."""

    number: int
    tag: str
    commit: str


def at(repository: Repository, site: str) -> Running | None:
    """What runs at a site, None where nothing was ever deployed."""
    return next(history(repository, site), None)


def history(repository: Repository, site: str) -> Iterator[Running]:
    """What succeeded at a site, the newest first."""
    listed = repository.every(repository.rest.repos.list_deployments, environment=site, task=TASK)
    for deployment in sorted(listed, key=lambda each: each.id, reverse=True):
        states = repository.every(repository.rest.repos.list_deployment_statuses, deployment.id)
        if any(status.state == "success" for status in states):
            yield Running(deployment.id, deployment.ref, deployment.sha)


def begin(repository: Repository, site: str, tag: str, record: Record) -> int:
    """Say that a deployment begins; returns its number. The payload is for readers only."""
    deployment = repository.ask(
        repository.rest.repos.create_deployment,
        ref=tag,
        environment=site,
        task=TASK,
        auto_merge=False,
        required_contexts=[],
        description=f"{record.model} to {site}",
        payload={"model": record.model, "image": record.image},
    )
    number = getattr(deployment, "id", None)
    if number is None:
        raise EdgemlError(f"GitHub did not make the deployment of {tag} to {site}; run again", 1)
    finish(repository, number, "in_progress")
    return int(number)


def finish(repository: Repository, number: int, state: State, description: str = "") -> None:
    """Say how a deployment stands; `success` only once the site serves it."""
    repository.ask(
        repository.rest.repos.create_deployment_status,
        number,
        state=state,
        description=description[:140],
        auto_inactive=False,
    )
