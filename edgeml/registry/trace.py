"""From a model to what it was made of and where it runs, and back from any of these; offline, from the records.

What is known lies in two places: the tags of registered versions, and the deployment records of Git.
"""

from __future__ import annotations

import os
from typing import Any, NamedTuple

from edgeml import project
from edgeml.errors import EdgemlError
from edgeml.registry.models import PUBLISHED, REFERENCE, find, versions
from edgeml.registry.store import Version

SHORTEST = 6  # digits of a digest that name it


class Trace(NamedTuple):
    """One model with all that is known of it; what is not known is empty. Digests without `sha256:`."""

    model: str
    sha256: str
    job: str
    commit: str
    data: str
    contract: str
    gate: str
    images: list[str]
    sites: list[str]
    azureml: str


def trace(what: str) -> list[Trace]:
    """The models that a reference, a digest, a job, a commit, a fingerprint or a site belongs to.

    Raises EdgemlError, exit code 1, where nothing here belongs to it.
    """
    every = _all()
    match = REFERENCE.fullmatch(what)
    named = match is not None and any(one.model.partition(":")[0] == match["name"] for one in every)
    if named and (":" in what or "@" in what):
        wanted = str(find(what))
        found = [one for one in every if one.model == wanted]
    else:
        found = [one for one in every if _belongs(one, what)]
    if not found:
        raise EdgemlError(f"nothing here belongs to '{what}'; `edgeml models list` shows the models that are known", 1)
    return found


def _belongs(one: Trace, what: str) -> bool:
    if what in (one.job, one.model.partition(":")[0], *one.sites, *one.images):
        return True
    digits = what.rpartition("sha256:")[2].lower()
    digests = (one.sha256, one.commit, one.data, one.gate, *(image.rpartition("sha256:")[2] for image in one.images))
    return len(digits) >= SHORTEST and any(digest.startswith(digits) for digest in digests if digest)


def _all() -> list[Trace]:
    """Every registered version, and every model that only a record knows, each with the sites that name it."""
    sites = _records()
    found = {str(version): _of_version(version) for version in versions()}
    for site, record in sites.items():
        model, evidence = record.get("model") or {}, record.get("evidence") or {}
        name = f"{model.get('name', '')}:{model.get('version', '')}"
        one = found.get(name) or Trace(
            name,
            _digits(model.get("sha256")),
            str(evidence.get("job") or ""),
            str(evidence.get("commit") or ""),
            _digits(evidence.get("data")),
            "",
            _digits(evidence.get("gate")),
            [],
            [],
            "",
        )
        image = str(record.get("image") or "")
        images = one.images if not image or image in one.images else [*one.images, image]
        found[name] = one._replace(images=images, sites=[*one.sites, site])
    return list(found.values())


def _of_version(version: Version) -> Trace:
    tags = version.tags
    contract = f"{tags.get('contract.name', '')}:{tags.get('contract.version', '')}".strip(":")
    return Trace(
        str(version),
        version.sha256,
        tags.get("run", ""),
        tags.get("git.commit", ""),
        _digits(tags.get("data.fingerprint")),
        contract,
        _digits(tags.get("egress.sha256")),
        [],
        [],
        tags.get(PUBLISHED, ""),
    )


def _records() -> dict[str, dict[str, Any]]:
    """The deployment records by site, each with what it takes from its base. An unreadable one is `edgeml check`'s."""
    import yaml

    folder = os.path.join(project.root_folder(), "deployments")
    if not os.path.isdir(folder):
        return {}

    def read(name: str) -> dict[str, Any]:
        if os.path.basename(name) != name:
            return {}
        try:
            with open(os.path.join(folder, name), encoding="utf-8") as stream:
                document = yaml.safe_load(stream)
        except (OSError, yaml.YAMLError, UnicodeDecodeError):
            return {}
        return document if isinstance(document, dict) else {}

    found = {}
    for name in sorted(os.listdir(folder)):
        record = read(name) if name.endswith(".yml") else {}
        if isinstance(record.get("base"), str):
            record = {**read(record["base"]), **record}
        if record.get("site"):
            found[str(record["site"])] = record
    return found


def _digits(digest: Any) -> str:
    return str(digest or "").rpartition(":")[2]
