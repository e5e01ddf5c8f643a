"""Calls that are made again until they succeed: only such as may be made twice."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from json import JSONDecodeError
from typing import TYPE_CHECKING, TypeVar

from edgeml.azure.explain import code_of, refused_sign_in, sentence, status_of
from edgeml.errors import EdgemlError

if TYPE_CHECKING:
    from edgeml.azure.arm import Arm

T = TypeVar("T")
FIRST, LONGEST = 0.5, 60.0  # seconds between two tries
_AGAIN = frozenset({401, 408, 409, 425, 429})
_NEVER = frozenset({"AuthorizationFailed", "SubscriptionNotFound", "ResourceGroupNotFound", "ResourceNotFound"})


class StillTrying(EdgemlError):  # noqa: N818 - nothing is known to be an error
    """The time was up before the call succeeded; nothing is known to have failed for good."""


def patiently(
    workspace: Arm, doing: str, call: Callable[[], T], until: float, say: Callable[[str], None] = lambda _: None
) -> T:
    """What `call` returns, tried again after whatever passes: lost networks, expired tokens, throttling, 5xx.

    `until` is on time.monotonic's clock. Raises EdgemlError, exit code 1, for what does not pass, and StillTrying.
    """
    from azure.core.exceptions import AzureError

    wait, told = FIRST, False
    while True:
        try:
            return call()
        except (AzureError, OSError, JSONDecodeError, KeyError) as error:
            if isinstance(error, KeyError) and not _is_discovery(error):
                raise
            if not passes(error):
                raise EdgemlError(f"{doing}: {sentence(error, workspace.settings)}", 1) from error
            if status_of(error) == 401:
                workspace.sign_in_again()
            pause = max(_asked(error), random.uniform(wait / 2, wait))  # noqa: S311
            if time.monotonic() + pause > until:
                raise StillTrying(f"{doing}: {sentence(error, workspace.settings)}; time is up", 1) from error
            if not told:
                say(f"{doing}: {sentence(error, workspace.settings)}; trying again")
                told = wait > FIRST  # the first failure may be a hiccup, the second is told, the rest are not news
            time.sleep(pause)
            wait = min(wait * 2, LONGEST)


def passes(error: Exception) -> bool:
    """Whether an error says nothing about what was asked, so that asking again makes sense."""
    from azure.core.exceptions import (
        DecodeError,
        HttpResponseError,
        IncompleteReadError,
        ServiceRequestError,
        ServiceResponseError,
    )

    if isinstance(error, (ServiceRequestError, ServiceResponseError, IncompleteReadError, DecodeError)):
        return True
    if code_of(error) in _NEVER or refused_sign_in(error):
        return False
    status = status_of(error)
    if status:
        return status in _AGAIN or status >= 500
    if isinstance(error, HttpResponseError):
        return True  # an answer that broke off in the middle has no status
    cause = error.__cause__ or error.__context__
    if isinstance(error, (JSONDecodeError, KeyError)):
        return True
    if isinstance(error, OSError):  # of a connection; one of the disk will be there the next time as well
        return type(error).__module__.partition(".")[0] in ("requests", "urllib3") or isinstance(error, ConnectionError)
    return isinstance(cause, Exception) and passes(cause)


def _is_discovery(error: KeyError) -> bool:
    """Whether the SDK took a refusal for the list of the workspace's endpoints: it looks at no status there."""
    return type(error.args[0]).__name__ == "WorkspaceDiscoveryUrlKey"


def _asked(error: Exception) -> float:
    """Seconds that the service asks to wait; never more than LONGEST at a time."""
    response = getattr(error, "response", None)
    try:
        return min(float(response.headers.get("Retry-After") or 0), LONGEST) if response is not None else 0.0
    except (AttributeError, TypeError, ValueError):
        return 0.0
