"""Where the project is and what must be known of it before anything heavy is imported."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

SETTINGS_FILE = "edgeml.toml"
STATE_FOLDER = ".edgeml"


def root() -> Path:
    """The nearest folder at or above the working directory that holds `edgeml.toml`, else the working directory."""
    from pathlib import Path

    return Path(root_folder())


def state() -> Path:
    """The project's own folder for everything that can be made again: runs, cache, models, embedded storage."""
    return root() / STATE_FOLDER


def root_folder() -> str:
    """The path of `root()`, for callers that must not pay for the import of pathlib."""
    here = folder = os.getcwd()
    while not os.path.isfile(os.path.join(folder, SETTINGS_FILE)):
        parent = os.path.dirname(folder)
        if parent == folder:
            return here
        folder = parent
    return folder


def state_folder() -> str:
    """The path of `state()`, likewise."""
    return os.path.join(root_folder(), STATE_FOLDER)
