"""What both kinds of site in Azure need: where it is, and the golden request over HTTPS, as callers ask it."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from edgeml.errors import EdgemlError

if TYPE_CHECKING:
    from edgeml.image.golden import Golden
    from edgeml.settings import Settings, Site

HEALTH_SECONDS = 30
PAUSE = 1.0  # seconds between two golden requests


def where(site: str, key: str, *, needed: bool = True) -> tuple[Settings, Site]:
    """The settings, and what they say of a site. Raises EdgemlError where the key that names it is missing."""
    from edgeml import settings

    loaded = settings.load()
    known = loaded.site.get(site)
    if known is None:
        raise EdgemlError(f"edgeml.toml does not say where {site} is; add [site.{site}] with {key}")
    if needed and not getattr(known, key):
        raise EdgemlError(f"site.{site}.{key} is empty; docs/settings.md says what it names")
    return loaded, known


def wrong(url: str, golden: Golden, headers: dict[str, str]) -> str:
    """Ask the golden request by POST; empty where the answer is the golden one, else what is wrong with it."""
    from azure.core import PipelineClient
    from azure.core.exceptions import AzureError
    from azure.core.pipeline.policies import RetryPolicy
    from azure.core.rest import HttpRequest

    from edgeml.image import golden as golden_request

    if not url.startswith("https://"):
        raise EdgemlError(f"{url} is not https, so rows and keys would go there in the clear; give it TLS", 1)
    client: Any = PipelineClient(url, policies=[RetryPolicy(retry_total=2)])
    with client:
        request = HttpRequest("POST", url, json={"id": golden_request.ID, "input_data": golden.rows}, headers=headers)
        try:
            response = client.send_request(request, connection_timeout=10, read_timeout=30)
            if response.status_code != 200:
                return f"the golden request was not answered (HTTP {response.status_code})"
            outputs = golden_request.scored(response.json())
        except AzureError as error:
            return f"the golden request was not answered ({type(error).__name__})"
        except (ValueError, KeyError, TypeError, AttributeError):
            return "the golden request got no answer of the scoring server"
    return "" if golden_request.equal(outputs, golden) else "the golden request got another answer"


def becomes(ask: Callable[[], str], seconds: float) -> str:
    """Ask until all is well, or the time is up; what was wrong the last time."""
    deadline = time.monotonic() + seconds
    while problem := ask():
        if time.monotonic() >= deadline:
            return problem
        time.sleep(PAUSE)
    return ""


def stays(ask: Callable[[], str], seconds: float) -> str:
    """Ask for a while, once at least; the first thing that is wrong."""
    deadline = time.monotonic() + seconds
    while not (problem := ask()):
        if time.monotonic() >= deadline:
            return ""
        time.sleep(min(PAUSE, max(0.05, deadline - time.monotonic())))
    return problem
