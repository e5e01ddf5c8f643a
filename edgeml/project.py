"""Where the project is and what must be known of it before anything heavy is imported."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from edgeml.errors import EdgemlError

if TYPE_CHECKING:
    from pathlib import Path

SETTINGS_FILE = "edgeml.toml"
STATE_FOLDER = ".edgeml"
EDGE_VARIABLE = "EDGEML_DATASTORES_EDGE"


def root() -> Path:
    """The nearest folder at or above the working directory that holds `edgeml.toml`, else the working directory."""
    from pathlib import Path

    return Path(_root())


def state() -> Path:
    """The project's own folder for everything that can be made again: runs, cache, models, embedded storage."""
    return root() / STATE_FOLDER


def state_folder() -> str:
    """The path of `state()`, for callers that must not pay for the import of pathlib."""
    return os.path.join(_root(), STATE_FOLDER)


def edge_datastores() -> frozenset[str]:
    """Names of the datastores that lie on Azure Stack Hub; every other datastore counts as cloud.

    Read without the settings' validation, because `edgeml run` must not import what that needs.
    """
    given = os.environ.get(EDGE_VARIABLE)
    names = _from_file() if given is None else _from_json(given)
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        where = SETTINGS_FILE if given is None else EDGE_VARIABLE
        raise EdgemlError(f'{where}: datastores.edge must be a list of names, for example ["stackhub"]')
    return frozenset(names)


def _from_file() -> object:
    file = os.path.join(_root(), SETTINGS_FILE)
    if not os.path.isfile(file):
        return []
    import tomllib

    try:
        with open(file, "rb") as stream:
            return tomllib.load(stream).get("datastores", {}).get("edge", [])
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, AttributeError) as error:
        raise EdgemlError(f"{file} is not valid TOML ({error}); mend it or restore it with git") from None


def _from_json(text: str) -> object:
    import json

    try:
        return json.loads(text)
    except ValueError:
        return None


def _root() -> str:
    here = folder = os.getcwd()
    while not os.path.isfile(os.path.join(folder, SETTINGS_FILE)):
        parent = os.path.dirname(folder)
        if parent == folder:
            return here
        folder = parent
    return folder
