"""What Azure's clients raise, as one sentence with cause and fix."""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Iterator
from typing import TYPE_CHECKING

from edgeml.errors import EdgemlError

if TYPE_CHECKING:
    from edgeml.settings import Settings

# What Azure says, and what to do. Names are the settings'.
_CODES = {
    "SubscriptionNotFound": (
        "there is no subscription {subscription} that this identity sees; check azure.subscription_id"
    ),
    "InvalidSubscriptionId": "'{subscription}' is no subscription id; check azure.subscription_id",
    "ResourceGroupNotFound": "the subscription has no resource group '{group}'; check azure.resource_group",
    "ResourceNotFound": "there is no workspace '{workspace}' in '{group}'; check azure.workspace, or create it again",
}


@contextlib.contextmanager
def explained(doing: str, settings: Settings) -> Iterator[None]:
    """Raise EdgemlError (exit code 1) for what azure-core, azure-identity and azure-ai-ml raise inside the block."""
    from azure.core.exceptions import AzureError

    try:
        yield
    except AzureError as error:
        if os.environ.get("EDGEML_DEBUG"):
            raise
        raise EdgemlError(f"{doing}: {sentence(error, settings)}", 1) from None


def sentence(error: Exception, settings: Settings) -> str:
    """One sentence for an exception of azure-core or of what is built on it."""
    from azure.core.exceptions import (
        HttpResponseError,
        ServiceRequestError,
        ServiceResponseError,
    )

    azure = settings.azure
    names = {"subscription": azure.subscription_id, "group": azure.resource_group, "workspace": azure.workspace}
    code = code_of(error)
    if code in _CODES:
        return _CODES[code].format(**names)
    if code == "AuthorizationFailed":
        action = re.search(r"perform action '([^']+)'", str(error))
        what = action[1] if action else "what was asked"
        return f"this identity may not do {what}; give it a role that has it, on the workspace"
    if refused_sign_in(error):
        return f"signing in failed: {_first_line(error)}; run `az login`, or check azure.tenant_id and azure.client_id"
    if isinstance(error, (ServiceRequestError, ServiceResponseError)):
        return f"Azure cannot be reached ({_first_line(error)}); check network, proxy and certificates"
    if isinstance(error, HttpResponseError):
        status = f"HTTP {error.status_code}, " if error.status_code else ""
        return f"Azure refused ({status}{code or type(error).__name__}): {_first_line(error)}"
    return f"{type(error).__name__}: {_first_line(error)}"


def code_of(error: Exception) -> str:
    """The code in an error's body, which names the cause better than its status does; empty where there is none."""
    inner = getattr(error, "error", None)
    code = getattr(inner, "code", "")
    if not code:
        match = re.match(r"\((\w+)\)", str(error))
        code = match[1] if match else ""
    return str(code or "")


def status_of(error: Exception) -> int:
    """The HTTP status of an error; 0 where there was no answer."""
    return int(getattr(error, "status_code", 0) or 0)


def refused_sign_in(error: Exception) -> bool:
    """Whether it is the sign-in that failed, for good, and not a token that was refused later."""
    from azure.core.exceptions import ClientAuthenticationError

    return isinstance(error, ClientAuthenticationError) and (not status_of(error) or "AADSTS" in str(error))


def is_missing(error: Exception) -> bool:
    """Whether what was asked for is not in the workspace, though the workspace itself is there."""
    return status_of(error) == 404 and code_of(error) not in _CODES


def _first_line(error: Exception) -> str:
    text = str(getattr(error, "message", "") or error)
    text = re.sub(r"^\(\w+\)\s*", "", next((line for line in text.splitlines() if line.strip()), type(error).__name__))
    return text.strip().rstrip(".")[:300]
