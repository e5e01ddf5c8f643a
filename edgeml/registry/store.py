"""The MLflow store: made ahead, locked for writing, and read quickly.

Importing mlflow takes one to two seconds and opening its SQLite store another, which is more than the
rest of `edgeml register` or `edgeml models path` does. So what is only read from the embedded store is read
with the standard library (the tables are those of the pinned mlflow, and a test compares the answers
with the client's); what is written, and every other tracking server, goes through `MlflowClient`.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urlsplit

from edgeml import project
from edgeml.errors import EdgemlError

if TYPE_CHECKING:
    from edgeml.settings import Settings

SQLITE = "sqlite:///"
DEFAULT = "Default"  # the experiment that every MLflow store has
DELETED = "Deleted_Internal"  # mlflow's stage of a version that was deleted

EXPERIMENT = "SELECT 1 FROM experiments WHERE name = ? AND lifecycle_stage = 'active'"
VERSIONS = f"SELECT name, version, creation_time FROM model_versions WHERE current_stage <> '{DELETED}'"  # noqa: S608
TAGS = "SELECT name, version, key, value FROM model_version_tags"
ALIASES = "SELECT name, version, alias FROM registered_model_aliases"


@dataclass(frozen=True, order=True)
class Version:
    """One version of a registered model; `created` is in milliseconds since 1970."""

    name: str
    version: int
    created: int = field(compare=False)
    tags: dict[str, str] = field(compare=False)
    aliases: tuple[str, ...] = field(compare=False)

    @property
    def sha256(self) -> str:
        return self.tags.get("model.sha256", "")

    def __str__(self) -> str:
        return f"{self.name}:{self.version}"


def prepare(experiment: str = DEFAULT, settings: Settings | None = None) -> str:
    """Make the tracking store and an experiment if they are not there, and return the store's URI.

    Call it before a pipeline runs: the first opening of an SQLite store runs all of mlflow's migrations (2 to
    4 s), and an experiment that a step created would keep its artifacts in that step's working directory.
    Safe in several processes at once, and wherever it is interrupted.
    """
    _, uri = _settings(settings)
    if _has_experiment(uri, experiment):
        return uri
    with lock():
        if not _has_experiment(uri, experiment):
            create(uri, experiment)
    return uri


def read_versions(settings: Settings | None = None) -> list[Version]:
    """All registered versions, by name and number."""
    _, uri = _settings(settings)
    if uri.startswith(SQLITE):
        with _query(uri) as database:
            if database is None:
                return []
            return _versions(database.execute(VERSIONS), database.execute(TAGS), database.execute(ALIASES))
    with writing(uri) as client:
        every = [v for page in _pages(client.search_model_versions) for v in page]
        models = [m for page in _pages(client.search_registered_models) for m in page]
        return _versions(
            ((v.name, v.version, v.creation_timestamp) for v in every),
            ((v.name, v.version, key, value) for v in every for key, value in v.tags.items()),
            ((m.name, version, alias) for m in models for alias, version in m.aliases.items()),
        )


@contextlib.contextmanager
def writing(uri: str) -> Iterator[Any]:
    """An `MlflowClient`; what MLflow says goes wrong becomes an EdgemlError."""
    os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"
    import logging

    from mlflow import MlflowClient
    from mlflow.exceptions import MlflowException

    for name in ("mlflow", "alembic"):
        logging.getLogger(name).setLevel(logging.ERROR)
    try:
        client = MlflowClient(tracking_uri=uri, registry_uri=uri)
    except Exception as error:  # sqlalchemy, alembic, urllib3: each has its own
        raise EdgemlError(
            f"the MLflow store {shown(uri)} cannot be opened ({type(error).__name__}); "
            "check registry.tracking_uri, or move a damaged file away and register again",
            1,
        ) from None
    try:
        yield client
    except MlflowException as error:
        raise EdgemlError(f"the MLflow store {shown(uri)} refused: {str(error).splitlines()[0]}", 1) from None


@contextlib.contextmanager
def lock() -> Iterator[None]:
    """One writer of the registry at a time on this machine; freed with the process, however it ends."""
    import fcntl

    folder = project.state()
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / "registry.lock", "w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def shown(uri: str) -> str:
    """A store's address without credentials, for messages."""
    parts = urlsplit(uri)
    return parts._replace(netloc=parts.netloc.rpartition("@")[2], query="").geturl()


def _settings(settings: Settings | None) -> tuple[Settings, str]:
    from edgeml import settings as all_settings

    settings = settings or all_settings.load()
    return settings, all_settings.tracking_uri(settings)


def create(uri: str, experiment: str = DEFAULT) -> None:
    """Make store and experiment where they are missing; call it with the lock held.

    The embedded store is made under another name and linked into place when it is whole: a process that is
    killed in the middle of mlflow's migrations leaves nothing that the next one would trip over.
    """
    if not uri.startswith(SQLITE):
        _create_experiment(uri, experiment, None)
        return
    file, location = uri.removeprefix(SQLITE), (project.state() / "mlartifacts").as_uri()
    if not os.path.exists(file):
        os.makedirs(os.path.dirname(file), exist_ok=True)
        unfinished = f"{file}.new"
        for leftover in (unfinished, f"{unfinished}-journal"):
            with contextlib.suppress(FileNotFoundError):
                os.unlink(leftover)
        _create_experiment(SQLITE + unfinished, experiment, location)
        with contextlib.suppress(FileExistsError):  # a step that logged was quicker: then its store is the store
            os.link(unfinished, file)
        os.unlink(unfinished)
    if not _has_experiment(uri, experiment):
        _create_experiment(uri, experiment, location)


def _create_experiment(uri: str, name: str, location: str | None) -> None:
    with writing(uri) as client:
        if client.get_experiment_by_name(name) is None:
            client.create_experiment(name, artifact_location=location)


def _has_experiment(uri: str, name: str) -> bool:
    if not uri.startswith(SQLITE):
        return False
    with _query(uri) as database:
        return database is not None and database.execute(EXPERIMENT, (name,)).fetchone() is not None


@contextlib.contextmanager
def _query(uri: str) -> Iterator[Any]:
    """A read-only connection to the embedded store; None where there is no store, or no tables in it yet."""
    import sqlite3

    file = uri.removeprefix(SQLITE)
    if not os.path.isfile(file):
        yield None
        return
    try:
        database = sqlite3.connect(f"file:{quote(file)}?mode=ro", uri=True, timeout=30)
        try:
            ready = database.execute(
                "SELECT count(*) FROM sqlite_master WHERE name IN ('model_version_tags', 'registered_model_aliases')"
            ).fetchone()[0]
            yield database if ready == 2 else None
        finally:
            database.close()
    except sqlite3.Error as error:
        raise EdgemlError(
            f"the MLflow store {file} cannot be read ({error}); if it is damaged, move it away and register again", 1
        ) from None


def _versions(rows: Any, tags: Any, aliases: Any) -> list[Version]:
    versions = {(n, int(v)): Version(n, int(v), int(created or 0), {}, ()) for n, v, created in rows}
    for name, version, key, value in tags:
        if (name, int(version)) in versions:
            versions[name, int(version)].tags[key] = value
    named: dict[tuple[str, int], list[str]] = {}
    for name, version, alias in aliases:
        named.setdefault((name, int(version)), []).append(alias)
    return sorted(
        Version(v.name, v.version, v.created, v.tags, tuple(sorted(named.get(key, [])))) for key, v in versions.items()
    )


def _pages(search: Any) -> Iterator[Any]:
    token = None
    while True:
        page = search(max_results=1000, page_token=token)
        yield page
        token = page.token
        if not token:
            return
