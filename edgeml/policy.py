"""The residency policy, `contracts/residency.yml`: where data may lie and what may run beside it.

Read on the path of `edgeml run`, so it imports nothing heavy and is checked by hand.
"""

from __future__ import annotations

import os
from typing import NamedTuple

POLICY_FILE = os.path.join("contracts", "residency.yml")


class Policy(NamedTuple):
    """Names as Azure ML knows them. Without a file nothing is private and nothing is allowed or refused."""

    private: frozenset[str] = frozenset()
    cloud: frozenset[str] = frozenset()
    release: frozenset[str] = frozenset()
    computes: frozenset[str] = frozenset()
    regions: frozenset[str] = frozenset()
    registries: frozenset[str] = frozenset()
    file: str = ""


def load(root: str) -> Policy:
    """The policy of the project at `root`.

    Raises PipelineError with file and line for an unknown key or a value that is no list of names: a policy that is
    not understood allows nothing.
    """
    path = os.path.join(root, POLICY_FILE)
    if not os.path.isfile(path):
        return Policy()
    from edgeml.pipeline.source import at, read

    document = read(path)
    names: dict[str, frozenset[str]] = {}
    for key, value in document.items():
        if key not in Policy._fields or key == "file":
            known = ", ".join(name for name in Policy._fields if name != "file")
            raise at(document, key, f"the policy has no key '{key}'; it takes {known}")
        if not isinstance(value, list) or not all(isinstance(name, str) for name in value):
            raise at(document, key, f"'{key}' must be a list of names")
        names[key] = frozenset(value)
    return Policy(**names, file=path)
