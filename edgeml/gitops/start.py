"""Starting a workflow by GitHub's API.

What GITHUB_TOKEN pushes or opens starts no workflow, so that none can start itself without end; being asked outright,
`workflow_dispatch`, is the exception that GitHub makes. The token needs `actions: write`.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, NamedTuple

from edgeml.errors import EdgemlError
from edgeml.gitops.github import AbsentError, Repository, connect

if TYPE_CHECKING:
    from collections.abc import Mapping

_FILE = re.compile(r"[\w.-]+\.ya?ml")


class _Accepted(NamedTuple):
    """GitHub's answer of which only the success counts: it has no content."""

    status_code: int
    parsed_data: None = None


def workflow(
    file: str, ref: str = "", inputs: Mapping[str, str] | None = None, repository: Repository | None = None
) -> None:
    """Start a workflow, by its file's name, on a branch or tag; without one on the default branch.

    Raises EdgemlError, exit code 1, where there is no such workflow, or it may not be started so.
    """
    if not _FILE.fullmatch(file):
        raise EdgemlError(f"'{file}' is no file of .github/workflows; name it like train.yml")
    repository = repository or connect()
    given: dict[str, Any] = {"inputs": dict(inputs)} if inputs else {}
    branch = ref or repository.branch

    def ask(owner: str, name: str) -> Any:
        dispatch = repository.rest.actions.create_workflow_dispatch
        return _Accepted(dispatch(owner, name, file, ref=branch, **given).status_code)

    try:
        repository.ask(ask)
    except AbsentError:
        raise EdgemlError(
            f"GitHub knows no workflow {file}, or this token may not start it; it needs `actions: write`", 1
        ) from None
