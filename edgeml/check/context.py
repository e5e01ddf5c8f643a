"""What rules may ask beyond their own document; each answer is worked out once."""

from __future__ import annotations

import os
from functools import cached_property

from edgeml.check import document
from edgeml.check.document import Document
from edgeml.check.finding import Finding
from edgeml.policy import Policy
from edgeml.project import SETTINGS_FILE


class Context:
    """The repository at `root` as the rules see it. `ready` names what must be configured, such as `azure`."""

    def __init__(self, root: str, ready: frozenset[str] = frozenset()) -> None:
        self.root = root
        self.ready = ready
        self._documents: dict[str, tuple[Document, list[Finding]]] = {}

    def read(self, path: str) -> tuple[Document, list[Finding]]:
        """A file's document, with its path relative to the working directory, and what is wrong with it as a file."""
        path = os.path.relpath(path)
        if path not in self._documents:
            if os.path.basename(path) == SETTINGS_FILE:
                from edgeml.check import settings

                self._documents[path] = settings.check(path, self)
            else:
                self._documents[path] = document.read(path)
        return self._documents[path]

    @cached_property
    def policy(self) -> Policy:
        """The residency policy of the repository. Raises PipelineError where it is not understood."""
        from edgeml import policy

        return policy.load(self.root)
