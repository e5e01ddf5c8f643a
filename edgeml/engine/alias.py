"""Paths that a shell can take unquoted.

Azure ML puts paths into commands as they are, and its own never hold a space; a laptop's do. Such a path is
handed to a step as a link from a temporary folder of this run's.
"""

from __future__ import annotations

import os
import re
import threading

_SAFE = re.compile(r"[\w@%+=:,./-]*", re.ASCII)


class Aliases:
    """Links for one run, removed with `close`."""

    def __init__(self) -> None:
        self._folder = ""
        self._links: dict[str, str] = {}
        self._lock = threading.Lock()

    def of(self, path: str) -> str:
        """The path itself, or a link to it without characters that a shell would interpret."""
        if _SAFE.fullmatch(path):
            return path
        folder, name = os.path.split(path)
        if _SAFE.fullmatch(name):
            return os.path.join(self._link(folder), name)
        return self._link(path) if os.path.exists(path) else path

    def close(self) -> None:
        if self._folder:
            for link in self._links.values():
                os.unlink(link)
            os.rmdir(self._folder)

    def _link(self, path: str) -> str:
        with self._lock:
            if path not in self._links:
                if not self._folder:
                    import tempfile

                    self._folder = tempfile.mkdtemp(prefix="edgeml-")
                link = os.path.join(self._folder, str(len(self._links)) + os.path.splitext(path)[1].replace(" ", ""))
                os.symlink(path, link)
                self._links[path] = link
            return self._links[path]
