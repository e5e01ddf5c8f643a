"""Azure Resource Manager over REST: the same few calls for Azure and for Azure Stack Hub, each of a stated version.

Microsoft's command line has dropped Stack Hub, so nothing of it is used here but its sign-in. A failed read or write is
asked again by azure-core (429, 5xx, lost connections); what stays wrong is one sentence with Azure's own words.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, NamedTuple

from edgeml.errors import EdgemlError

if TYPE_CHECKING:
    from azure.core.credentials import TokenCredential

SECONDS = 60.0
_HINTS = {
    "AuthorizationFailed": "give this identity a role that has it",
    "InvalidAuthenticationToken": "sign in again",
    "SubscriptionNotFound": "check the subscription in the settings",
    "ResourceGroupNotFound": "check the resource group in the settings",
    "QuotaExceeded": "ask the operator for quota, or choose a smaller size",
    "DeploymentActive": "wait for it, or cancel it in the portal",
    "SkuNotAvailable": "choose a size that the target has",
}


class Answer(NamedTuple):
    """What Resource Manager said: the status, the document, and after how many seconds it wants to be asked again."""

    status: int
    body: Any
    again: float | None


class Arm:
    """One Resource Manager, spoken to with one credential."""

    def __init__(self, endpoint: str, credential: TokenCredential, audience: str, ca_bundle: str = "") -> None:
        from azure.core import PipelineClient
        from azure.core.pipeline.policies import BearerTokenCredentialPolicy

        self.endpoint = endpoint.rstrip("/")
        self._client: PipelineClient[Any, Any] = PipelineClient(
            self.endpoint,
            policies=[
                _agent(),
                _retries(),
                BearerTokenCredentialPolicy(credential, f"{audience.rstrip('/')}/.default"),
            ],
            transport=_transport(ca_bundle),
        )

    def get(self, path: str, version: str, **query: str) -> Any:
        """The document at `path`; None where nothing is there. Raises EdgemlError, exit code 1."""
        answer = self.send("GET", path, version, query=query)
        return None if answer.status == 404 else answer.body

    def send(
        self, method: str, path: str, version: str, body: Any = None, query: dict[str, str] | None = None
    ) -> Answer:
        """One request. A 404 is an answer; anything else that is no success raises EdgemlError, exit code 1."""
        from azure.core.exceptions import AzureError, ClientAuthenticationError
        from azure.core.rest import HttpRequest

        request = HttpRequest(
            method, f"{self.endpoint}{path}", params={"api-version": version, **(query or {})}, json=body
        )
        try:
            response = self._client.send_request(request)
            status, text = int(response.status_code), response.text()
        except ClientAuthenticationError as error:
            first = str(error).strip().splitlines()[0]
            raise EdgemlError(f"signing in failed: {first}; run `az login`, or check the certificate", 1) from None
        except AzureError as error:
            why = f"{type(error).__name__}: {str(error)[:200]}"
            raise EdgemlError(f"{self.endpoint} cannot be reached ({why}); check network and certificate", 1) from None
        if status >= 400 and status != 404:
            raise EdgemlError(f"{method} {path}: {_sentence(status, text)}", 1)
        try:
            document = json.loads(text) if text.strip() else None
        except ValueError:
            raise EdgemlError(
                f"{method} {path}: the answer is no JSON; is {self.endpoint} Resource Manager?", 1
            ) from None
        if status == 404 and code_of(document) in ("SubscriptionNotFound", "InvalidSubscriptionId"):
            raise EdgemlError(f"{method} {path}: {_sentence(status, text)}", 1)
        return Answer(status, document, _seconds(response.headers.get("Retry-After")))


def metadata(url: str, name: str = "", ca_bundle: str = "") -> dict[str, Any]:
    """What a private cloud's Resource Manager tells everybody about itself: where to sign in, and for what audience.

    `name` picks one of several clouds. Raises EdgemlError, exit code 1. The form is of Microsoft's documentation, not
    seen on a stamp by us.
    """
    from azure.core import PipelineClient
    from azure.core.exceptions import AzureError
    from azure.core.rest import HttpRequest

    try:
        client: PipelineClient[Any, Any] = PipelineClient(
            url, policies=[_agent(), _retries()], transport=_transport(ca_bundle)
        )
        response = client.send_request(HttpRequest("GET", url))
        response.raise_for_status()
        document = response.json()
        found = next(one for one in document if one["name"] == name) if isinstance(document, list) else document
        found["authentication"]["loginEndpoint"].rstrip("/")
        found["authentication"]["audiences"][0].rstrip("/")
    except AzureError as error:
        kind = type(error).__name__
        raise EdgemlError(f"{url} does not say where to sign in ({kind}); check address and certificate", 1) from None
    except (KeyError, TypeError, ValueError, IndexError, AttributeError, StopIteration):
        raise EdgemlError(f"{url} does not describe a cloud; check the address in the settings", 1) from None
    return dict(found)


def code_of(document: Any) -> str:
    """The code in an error's document; empty where there is none."""
    error = document.get("error") if isinstance(document, dict) else None
    return str(error.get("code", "")) if isinstance(error, dict) else ""


def said(document: Any) -> str:
    """The innermost message of an error's document, which names the cause; the outer ones only name the deployment."""
    error = document.get("error", document) if isinstance(document, dict) else {}
    for _ in range(8):
        inner = error.get("details") if isinstance(error, dict) else None
        if not (isinstance(inner, list) and inner and isinstance(inner[0], dict)):
            break
        error = inner[0]
    if not isinstance(error, dict):
        return ""
    return f"{error.get('code', '')}: {' '.join(str(error.get('message', '')).split())[:300].rstrip('.')}"


def _sentence(status: int, text: str) -> str:
    try:
        document = json.loads(text)
    except ValueError:
        document = None
    code = code_of(document)
    hint = _HINTS.get(code, "")
    return f"Azure refused (HTTP {status}, {said(document) or 'without a reason'})" + (f"; {hint}" if hint else "")


def _seconds(header: str | None) -> float | None:
    try:
        return max(0.0, float(header)) if header is not None else None
    except ValueError:
        return None


def _agent() -> Any:
    from azure.core.pipeline.policies import UserAgentPolicy

    return UserAgentPolicy("edgeml")


def _retries() -> Any:
    from azure.core.pipeline.policies import RetryPolicy

    return RetryPolicy(retry_total=5, retry_backoff_factor=0.5, retry_backoff_max=30)


def _transport(ca_bundle: str) -> Any:
    from azure.core.pipeline.transport import RequestsTransport

    return RequestsTransport(connection_timeout=10, read_timeout=SECONDS, connection_verify=ca_bundle or True)
