"""Registering a released model, and finding it again."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

from edgeml import project
from edgeml.errors import EdgemlError
from edgeml.registry import release, store
from edgeml.registry.store import Version

if TYPE_CHECKING:
    from edgeml.engine.runs import Run
    from edgeml.registry.release import Release

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,254}")  # what MLflow and Azure ML both accept
ALIAS = re.compile(r"[A-Za-z][A-Za-z0-9_-]{0,254}")
REFERENCE = re.compile(r"(?P<name>[^:@]+)(?::(?P<version>[0-9]+)|@(?P<alias>[^:@]+))?")
CHAMPION = "champion"


class Registered(NamedTuple):
    """The version that a run's model has, and whether it was registered just now."""

    version: Version
    created: bool


AZUREML = "azureml"
PUBLISHED = "azureml"  # the tag of a version that is in the workspace too: its id there


def publish(version: Version, say: Callable[[str], None] = lambda _: None) -> tuple[str, bool]:
    """Register a version in the Azure ML workspace as well; returns its id there and whether it was made just now.

    The tags of the version here go with it, and its id there becomes one. Raises EdgemlError, exit code 1.
    """
    from edgeml import settings as all_settings
    from edgeml.azure import models
    from edgeml.azure.workspace import Workspace

    settings = all_settings.load()
    tags = {key: value for key, value in version.tags.items() if key != PUBLISHED}
    tags |= {"edgeml.version": str(version.version), "job": version.tags.get("run", "")}
    done = models.publish(Workspace(settings), version.name, version.sha256, path(version), tags, say)
    if version.tags.get(PUBLISHED) != done.id:
        with store.lock(), store.writing(all_settings.tracking_uri(settings)) as client:
            client.set_model_version_tag(version.name, str(version.version), PUBLISHED, done.id)
    return done.id, done.created


def register(run: str = "", name: str = "", override: str | None = None) -> Registered:
    """Register the model that a run released; the same content has the same version, whoever asks.

    `run` is a name or folder, without one the newest completed run. `override` is the reason for registering
    in spite of a verdict `promote: false`; it is recorded with the user's name. Raises EdgemlError, exit code 1,
    where the release cannot be trusted or the verdict says no.
    """
    from edgeml import settings as all_settings
    from edgeml.engine import runs

    settings = all_settings.load()
    name = name or settings.registry.model
    if not NAME.fullmatch(name):
        raise EdgemlError(f"'{name}' is no model name; use letters, digits, '.', '_' and '-'")
    if override is not None and not override.strip():
        raise EdgemlError("an override needs its reason; give it as --override 'why this model may go on'")
    found = runs.find(str(project.state()), run, "" if run else "completed")
    released = release.of(found)
    sha256 = _checked(released)
    with store.lock():
        for version in store.read_versions(settings):
            if version.name == name and version.sha256 == sha256:
                _keep(released, sha256)
                return Registered(version, created=False)
        tags = _tags(found, released, override)
        folder = _keep(released, sha256)
        uri = all_settings.tracking_uri(settings)
        store.create(uri)
        with store.writing(uri) as client:
            _create_model(client, name)
            made = client.create_model_version(name, source=folder, tags=tags, await_creation_for=0)
        return Registered(Version(name, int(made.version), int(made.creation_timestamp), tags, ()), created=True)


def versions(name: str = "") -> list[Version]:
    """What is registered, by name and number; of one name where it is given."""
    return [version for version in store.read_versions() if not name or version.name == name]


def find(reference: str) -> Version:
    """The version that `NAME:VERSION` or `NAME@ALIAS` names; a bare `NAME` means its champion."""
    match = REFERENCE.fullmatch(reference)
    if match is None:
        raise EdgemlError(f"'{reference}' names no model; write NAME:VERSION, NAME@ALIAS, or NAME for its champion")
    name, number, alias = match["name"], match["version"], match["alias"] or CHAMPION
    known = versions(name)
    if not known:
        raise EdgemlError(f"no model '{name}' is registered; `edgeml models list` shows those that are", 1)
    for version in known:
        if version.version == int(number) if number else alias in version.aliases:
            return version
    if number:
        raise EdgemlError(f"{name} has no version {number}; its versions are {_numbers(known)}", 1)
    raise EdgemlError(f"{name} has no {alias}; name one with `edgeml models alias {name}:VERSION {alias}`", 1)


def path(version: Version) -> str:
    """The folder of a version's files, verified now. Raises EdgemlError where it is gone or was changed."""
    folder = _folder(version.sha256)
    if not version.sha256 or not os.path.isdir(folder):
        raise EdgemlError(f"the files of {version} are not on this machine; register its run here again", 1)
    if release.verify(folder).sha256 != version.sha256:
        raise EdgemlError(f"{folder} does not hold {version} any more; register its run again", 1)
    return folder


def set_alias(reference: str, alias: str) -> Version:
    """Let an alias name this version and no other of the model; returns the version."""
    from edgeml import settings as all_settings

    if not ALIAS.fullmatch(alias) or alias == "latest" or re.fullmatch(r"v\d+", alias):
        raise EdgemlError(f"'{alias}' is no alias; use a word such as {CHAMPION}, neither 'latest' nor a version")
    if ":" not in reference:
        raise EdgemlError(f"'{reference}' is no NAME:VERSION; an alias is given to an exact version")
    version = find(reference)
    path(version)
    settings = all_settings.load()
    with store.lock(), store.writing(all_settings.tracking_uri(settings)) as client:
        client.set_registered_model_alias(version.name, alias, str(version.version))
    return find(reference)


def set_tags(version: Version, tags: dict[str, str]) -> None:
    """Let a version know more, for example its image; what it knows already costs nothing."""
    from edgeml import settings as all_settings

    new = {key: value for key, value in tags.items() if value and version.tags.get(key) != value}
    if new:
        with store.lock(), store.writing(all_settings.tracking_uri(all_settings.load())) as client:
            for key, value in new.items():
                client.set_model_version_tag(version.name, str(version.version), key, value)


def _checked(released: Release) -> str:
    """The model's digest, once the lineage names the same."""
    lineage = released.document("lineage.json")
    if _inner(lineage, "model", "sha256") != released.sha256:
        raise EdgemlError(f"the lineage in {released.folder} is that of another model; run the pipeline again", 1)
    return released.sha256


def _tags(run: Run, released: Release, override: str | None) -> dict[str, str]:
    """The lineage. Raises EdgemlError where the verdict is no and nobody overrides it."""
    promotion = released.document("promotion.json")
    if promotion.get("promote") is True:
        return lineage(run, released)
    if override is None:
        reasons = [str(reason) for reason in promotion.get("reasons") or []]
        raise EdgemlError(
            "the verdict is not to promote this model:\n"
            + "\n".join(f"  - {reason}" for reason in reasons or ["no reason was given"])
            + "\nto register it all the same, give your reason: "
            f"edgeml register {run.record['run']} --override 'REASON' (recorded with your name)",
            1,
        )
    return lineage(run, released) | {"override.reason": override.strip(), "override.user": _user()}


def lineage(run: Run, released: Release) -> dict[str, str]:
    """Where a released model comes from, how good it is and what was decided, as flat tags."""
    source, promotion = released.document("lineage.json"), released.document("promotion.json")
    signature, metrics = released.document("signature.json"), released.document("metrics.json")
    verdict = released.document(release.VERDICT)
    reasons = [str(reason) for reason in promotion.get("reasons") or []]
    git = run.record.get("git") or {}
    tags = {
        "run": run.record["run"],
        "pipeline": run.record.get("pipeline"),
        "pipeline.digest": run.record.get("pipeline_digest"),
        "git.commit": git.get("commit"),
        "git.dirty": git.get("dirty"),
        "sandbox": _sandbox(run.record),
        "data.fingerprint": _inner(source, "data", "fingerprint"),
        "data.rows": _inner(source, "data", "rows"),
        "contract.name": _inner(source, "contract", "name"),
        "contract.version": _inner(source, "contract", "version"),
        "contract.sha256": _inner(source, "contract", "sha256"),
        "model.sha256": released.sha256,
        "model.task": signature.get("task"),
        "model.algorithm": signature.get("algorithm"),
        "promotion.promote": promotion.get("promote") is True,
        "promotion.reasons": "; ".join(reasons),
        "egress.sha256": hashlib.sha256(released.files[release.VERDICT]).hexdigest(),
        "egress.rules_version": verdict.get("rules_version"),
        "egress.mantissa_bits": (verdict.get("trimming") or {}).get("mantissa_bits"),
    }
    for metric, estimate in (metrics.get("metrics") or {}).items():
        for bound, suffix in (("value", ""), ("low", ".low"), ("high", ".high")):
            tags[f"metric.{metric}{suffix}"] = _inner(estimate, bound)
    return {key: _text(value) for key, value in tags.items()}


def _sandbox(record: dict[str, Any]) -> str:
    """What the private steps of a run ran in: `none` if one of them ran without, empty if no step was private."""
    kinds = {str(step.get("sandbox")) for step in record.get("steps") or [] if step.get("private")}
    return "none" if "none" in kinds else ",".join(sorted(kinds))


def _text(value: Any) -> str:
    return "" if value is None else str(value).lower() if isinstance(value, bool) else str(value)


def _inner(document: Any, *keys: str) -> Any:
    for key in keys:
        if not isinstance(document, dict) or key not in document:
            raise EdgemlError(f"the release does not say its {'.'.join(keys)}; run the pipeline again", 1)
        document = document[key]
    return document


def _user() -> str:
    import getpass

    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container's user need not have a name
        return f"uid {os.getuid()}"


def _folder(sha256: str) -> str:
    return str(project.state() / "models" / sha256)


def _keep(released: Release, sha256: str) -> str:
    """Store the released files under their model's digest, whole or not at all; call it with the lock held."""
    folder = _folder(sha256)
    if os.path.isdir(folder):
        try:
            if release.verify(folder).sha256 == sha256:
                return folder
        except EdgemlError:  # changed or torn: what was released replaces it
            pass
        shutil.rmtree(folder)
    temporary = f"{folder}.new"  # one writer at a time: what lies there was left by one that was killed
    shutil.rmtree(temporary, ignore_errors=True)
    os.makedirs(temporary)
    for name, data in released.files.items():
        with open(os.path.join(temporary, name), "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
    os.rename(temporary, folder)
    return folder


def _create_model(client: Any, name: str) -> None:
    from mlflow.exceptions import MlflowException

    try:
        client.create_registered_model(name)
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise


def _numbers(known: list[Version]) -> str:
    return ", ".join(str(version.version) for version in known)
