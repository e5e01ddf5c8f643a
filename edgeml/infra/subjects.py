"""What GitHub says of a job that signs in to Azure, and whether infra/azure trusts exactly that.

A token's subject names repository and environment; Azure compares it letter by letter. Repositories made or renamed
since July 2026 send it with the numbers of owner and repository, older ones without (Microsoft's page on immutable
subjects, read 2026-11), so both forms are trusted.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from edgeml import project
from edgeml.azure.doctor import Finding
from edgeml.infra import template

if TYPE_CHECKING:
    from edgeml.gitops.github import Repository
    from edgeml.settings import Settings

FILE = "infra/azure/parameters.json"


def examine(repository: Repository, settings: Settings) -> Iterator[Finding]:
    """What the parameters of infra/azure say against GitHub and the settings, then each subject, as Azure must hold it.

    Raises EdgemlError where GitHub does not answer.
    """
    there = repository.ask(repository.rest.repos.get)
    says: dict[str, Any] = {
        "owner": there.owner.login,
        "repository": there.name,
        "ownerId": str(there.owner.id),
        "repositoryId": str(there.id),
        "siteEnvironments": list(settings.sites.order),
    }
    parameters = template.values_of(project.root() / FILE)
    for key, value in says.items():
        told = f"{key} is {parameters.get(key, '')!r}"
        right = parameters.get(key, "") == value
        yield Finding(FILE, right, told if right else f"{told}, and should be {value!r}", f'set "{key}" in {FILE}')
    training = str(parameters.get("trainingEnvironment") or "training")
    for environment in (training, *settings.sites.order):
        identity = "training" if environment == training else "deploy"
        for form in ("{owner}/{repository}", "{owner}@{ownerId}/{repository}@{repositoryId}"):
            subject = f"repo:{form.format(**says)}:environment:{environment}"
            yield Finding(f"subject of {environment}", True, f"{subject}, trusted by the identity {identity}")
