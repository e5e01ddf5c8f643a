"""One repository on GitHub, through its REST API: every answer of the published form, every failure one sentence.

githubkit's models are made from GitHub's own description of its API, so an answer of another form is refused where it
arrives. The token comes from GITHUB_TOKEN only, and goes to no other host: redirections are not followed.
"""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import timedelta
from functools import cached_property
from typing import TYPE_CHECKING, Any, Concatenate, Literal, ParamSpec, TypeVar

from edgeml import project
from edgeml.errors import EdgemlError

if TYPE_CHECKING:
    from githubkit import GitHub
    from githubkit.exception import GitHubException
    from githubkit.response import Response
    from githubkit_schemas.v2022_11_28.rest import RestNamespace

API_VERSION: Literal["2022-11-28"] = "2022-11-28"  # what GitHub Enterprise Server speaks, too
DEFAULT_URL = "https://api.github.com"
SECONDS = 20.0
ATTEMPTS, PAUSE = 3, 0.2  # for what only reads, where GitHub fails by itself; seconds, then four times as many
PAGE, MOST_PAGES = 100, 30

P = ParamSpec("P")
T = TypeVar("T")
_LOOPBACK = re.compile(r"http://(?:127\.0\.0\.1|localhost|\[::1\])(?::\d+)?(?:/|$)")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*/[A-Za-z0-9._-]+")
_REMOTE = re.compile(
    r"(?:https?://(?:[^@/]+@)?[^/]+/|ssh://(?:[^@/]+@)?[^/]+/|[^@/]+@[^:/]+:)(?P<name>[^/]+/[^/]+?)(?:\.git)?/?"
)


class AbsentError(EdgemlError):
    """GitHub answers that it has no such thing, or that this token may not see it."""


class ConflictError(EdgemlError):
    """GitHub refuses what is there already, or is not of the state that was assumed (422)."""


@dataclass(frozen=True)
class Repository:
    """A repository, and the client that speaks for `GITHUB_TOKEN`."""

    client: GitHub[Any]
    owner: str
    name: str

    @property
    def rest(self) -> RestNamespace:
        return self.client.rest(API_VERSION)

    @property
    def full_name(self) -> str:
        return f"{self.owner}/{self.name}"

    @cached_property
    def branch(self) -> str:
        """The default branch, `main`: what is not on it was not agreed on."""
        return str(self.ask(self.rest.repos.get).default_branch)

    def ask(self, method: Callable[Concatenate[str, str, P], Response[T, Any]], *args: P.args, **kwargs: P.kwargs) -> T:
        """What GitHub answers to one request. Raises EdgemlError, exit code 1; `AbsentError` for a 404."""
        return _parsed(lambda: method(self.owner, self.name, *args, **kwargs))

    def every(self, method: Callable[..., Response[list[T], Any]], *args: Any, **kwargs: Any) -> Iterator[T]:
        """All items of a listing, page after page. Raises as `ask`, and where there is no end to it."""
        for page in range(1, MOST_PAGES + 1):
            items = self.ask(method, *args, **kwargs, per_page=PAGE, page=page)
            yield from items
            if len(items) < PAGE:
                return
        raise EdgemlError(f"GitHub lists more than {PAGE * MOST_PAGES} items; this is beyond what is looked at", 1)


def connect() -> Repository:
    """The repository that GITHUB_REPOSITORY names, else that of the remote `origin`. Raises EdgemlError without one."""
    token = os.environ.get("GITHUB_TOKEN", "")
    if not token:
        raise EdgemlError("GITHUB_TOKEN is not set; a workflow gives it, a person makes one in GitHub's settings")
    url = os.environ.get("GITHUB_API_URL") or DEFAULT_URL
    if not url.startswith("https://") and not _LOOPBACK.match(url):
        raise EdgemlError("GITHUB_API_URL is not https, and the token would be read on its way; give an https address")
    owner, name = _repository().split("/")
    from githubkit import GitHub, TokenAuthStrategy
    from githubkit.exception import RequestError, RequestFailed
    from githubkit.retry import RetryOption
    from httpx import HTTPError

    def again(error: GitHubException, retries: int) -> RetryOption:
        if not isinstance(error, RequestError) or not isinstance(error.exc, HTTPError):
            return RetryOption(False)
        failed = not isinstance(error, RequestFailed) or error.response.status_code >= 500
        reads = failed and error.exc.request.method == "GET"
        return RetryOption(reads and retries < ATTEMPTS - 1, timedelta(seconds=PAUSE * 4**retries))

    client = GitHub(
        TokenAuthStrategy(token),
        base_url=url,
        timeout=SECONDS,
        follow_redirects=False,
        http_cache=False,
        auto_retry=again,
        user_agent="edgeml",
    )
    # Entered until the process ends: else each request would read all authorities and connect anew.
    client.__enter__()  # type: ignore[no-untyped-call]
    return Repository(client, owner, name)


def _repository() -> str:
    name = named()
    if not _NAME.fullmatch(name):
        raise EdgemlError(
            "no GitHub repository is named; set GITHUB_REPOSITORY to OWNER/NAME, or add the remote origin"
        )
    return name


def named() -> str:
    """OWNER/NAME as GITHUB_REPOSITORY or the remote `origin` says it, empty where neither does."""
    name = os.environ.get("GITHUB_REPOSITORY", "")
    if not name:
        command = ["git", "-C", project.root_folder(), "remote", "get-url", "origin"]
        said = subprocess.run(command, capture_output=True, text=True).stdout.strip()
        match = _REMOTE.fullmatch(said)
        name = match["name"] if match else ""
    return name


def _parsed(call: Callable[[], Response[T, Any]]) -> T:
    from githubkit.exception import GitHubException
    from pydantic import ValidationError

    try:
        response = call()
        if response.status_code >= 300:
            raise EdgemlError("GitHub says that the repository moved; set GITHUB_REPOSITORY to its name now", 1)
        return response.parsed_data
    except GitHubException as error:
        raise _explained(error) from None
    except (ValidationError, ValueError) as error:
        what = type(error).__name__
        raise EdgemlError(
            f"GitHub's answer is not of the published form ({what}); nothing is decided on it", 1
        ) from None


def _explained(error: GitHubException) -> EdgemlError:
    """One sentence for a failed request, without its headers; the cause in GitHub's own words where it has some."""
    from githubkit.exception import RateLimitExceeded, RequestFailed

    if isinstance(error, RateLimitExceeded):
        minutes = max(1, round(error.retry_after.total_seconds() / 60))
        return EdgemlError(f"GitHub's rate limit is used up; run again in {minutes} min", 1)
    if not isinstance(error, RequestFailed):
        return EdgemlError(f"GitHub does not answer ({error}); check the network and GITHUB_API_URL, run again", 1)
    status, where = error.response.status_code, f"{error.request.method} {error.request.url.path}"
    if status == 401:
        return EdgemlError("GitHub does not accept GITHUB_TOKEN; it has expired or was revoked, make another", 1)
    if status == 403:
        return EdgemlError(f"GITHUB_TOKEN may not do {where} ({_said(error)}); give it that permission", 1)
    if status == 404:
        return AbsentError(
            f"GitHub has nothing at {where}, or GITHUB_TOKEN may not see it; check the name and the token", 1
        )
    kind = ConflictError if status == 422 else EdgemlError
    return kind(f"GitHub answers {status} to {where} ({_said(error)}); run again, or see its status page", 1)


def _said(error: Any) -> str:
    try:
        document = error.response.json()
    except ValueError:
        return "without a reason"
    if not isinstance(document, dict):
        return "without a reason"
    details = [d.get("message") or d.get("code") for d in document.get("errors") or [] if isinstance(d, dict)]
    return ": ".join(str(part)[:200] for part in (document.get("message"), *details[:2]) if part) or "without a reason"
