"""Where the project is and what must be known of it before anything heavy is imported."""

from __future__ import annotations

import os
from pathlib import Path

from edgeml.errors import EdgemlError

SETTINGS_FILE = "edgeml.toml"
STATE_FOLDER = ".edgeml"


def root() -> Path:
    """The nearest folder at or above the working directory that holds `edgeml.toml`, else the working directory."""
    here = os.getcwd()
    folder = here
    while True:
        if os.path.isfile(os.path.join(folder, SETTINGS_FILE)):
            return Path(folder)
        parent = os.path.dirname(folder)
        if parent == folder:
            return Path(here)
        folder = parent


def state() -> Path:
    """The project's own folder for everything that can be made again: runs, cache, models, embedded storage."""
    return root() / STATE_FOLDER


def edge_datastores() -> frozenset[str]:
    """Names of the datastores that lie on Azure Stack Hub; every other datastore counts as cloud.

    Read without the settings' validation, because `edgeml run` must not import what that needs.
    """
    file = root() / SETTINGS_FILE
    if not file.is_file():
        return frozenset()
    import tomllib

    try:
        names = tomllib.loads(file.read_text("utf-8")).get("datastores", {}).get("edge", [])
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, AttributeError) as error:
        raise EdgemlError(f"{file} is not valid TOML ({error}); mend it or restore it with git") from None
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise EdgemlError(f'{file}: datastores.edge must be a list of names, for example ["stackhub"]')
    return frozenset(names)
