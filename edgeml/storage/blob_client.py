"""Blobs on Azure Stack Hub by the Azure SDK, within what Stack Hub offers.

One standalone file: the package uses it, and components get a copy of it beside their script through
`additional_includes`. It reads where the private rows lie, and the one credential for them, from

    EDGEML_STORAGE_ACCOUNT_URL     https://<account>.blob.<region>.<fqdn>, or https://127.0.0.1:<port>/<account>
    EDGEML_STORAGE_ACCOUNT_NAME    optional: the account, when it is not the first label of the host
    EDGEML_STORAGE_ACCOUNT_KEY     either this
    EDGEML_STORAGE_SAS_TOKEN       or this
    EDGEML_STORAGE_CA_BUNDLE       optional: PEM file of the authority that signed the endpoint's certificate

Facts it rests on (azure-storage-blob 12.27.1, read in its source): the service version must be set to
2019-07-07; a key given as a string is refused for a host outside Azure's own domains, as a named key
it is accepted; ranges come through in reads of 4 KiB unless the transport is told otherwise.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Generator, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from azure.core import MatchConditions
from azure.core.credentials import AzureNamedKeyCredential, AzureSasCredential
from azure.core.exceptions import (
    AzureError,
    ClientAuthenticationError,
    HttpResponseError,
    ServiceRequestError,
    ServiceResponseError,
)
from azure.core.pipeline.transport import RequestsTransport
from azure.storage.blob import BlobClient, BlobServiceClient, ContainerClient, ExponentialRetry

API_VERSION = "2019-07-07"
"""The newest version of the blob service that Azure Stack Hub speaks."""

CHUNK = 5 << 20
"""Bytes of one ranged read. Above 4 MiB, because up to that the embedded server reads a range twice, for its MD5."""

READ = 1 << 20
"""Bytes that the transport takes from the connection at a time."""

CONNECTIONS = 3
"""Ranges of one blob that are on their way at the same time."""

MAX_BLOCK = 100 << 20
MAX_PUT = 256 << 20


class StorageError(Exception):
    """A failure of the storage that is explained by its message alone, in one sentence."""


class StackHubError(StorageError):
    """A request that Azure Stack Hub would refuse; it was not sent."""


def service(environ: Mapping[str, str] | None = None) -> BlobServiceClient:
    """The client of the storage account that the environment names; a `StorageError` says what it lacks."""
    env = os.environ if environ is None else environ
    url = env.get("EDGEML_STORAGE_ACCOUNT_URL", "").rstrip("/")
    key, token = env.get("EDGEML_STORAGE_ACCOUNT_KEY", ""), env.get("EDGEML_STORAGE_SAS_TOKEN", "").lstrip("?")
    bundle = env.get("EDGEML_STORAGE_CA_BUNDLE", "")
    if not url:
        raise StorageError("EDGEML_STORAGE_ACCOUNT_URL is not set; give it the blob endpoint of the storage account")
    if not url.startswith("https://"):
        raise StorageError("EDGEML_STORAGE_ACCOUNT_URL does not start with https://; the rows must not travel in clear")
    if bool(key) == bool(token):
        raise StorageError(
            "exactly one of EDGEML_STORAGE_ACCOUNT_KEY and EDGEML_STORAGE_SAS_TOKEN must be set, "
            f"but {'both are' if key else 'neither is'}"
        )
    if bundle and not os.path.isfile(bundle):
        raise StorageError(f"EDGEML_STORAGE_CA_BUNDLE names {bundle}, which is not a file")
    local = is_loopback(url)
    try:
        return BlobServiceClient(
            url,
            credential=AzureNamedKeyCredential(account_of(url, env), key) if key else AzureSasCredential(token),
            api_version=API_VERSION,
            transport=StackHubTransport(
                connection_verify=bundle or True,
                connection_data_block_size=READ,
                connection_timeout=10,
                read_timeout=60,
                use_env_settings=not local,  # a proxy has no business between us and our own machine
            ),
            # What is on this machine and does not answer is not there: only a remote end is asked again.
            retry_policy=ExponentialRetry(
                initial_backoff=1, increment_base=2, random_jitter_range=1, retry_connect=0 if local else 3
            ),
            max_single_get_size=CHUNK,
            max_chunk_get_size=CHUNK,
        )
    except ValueError as error:
        raise StorageError(f"the storage client cannot be made from the environment: {error}") from None


def container(name: str, environ: Mapping[str, str] | None = None) -> ContainerClient:
    """The client of one container of that account."""
    return service(environ).get_container_client(name)


def account_of(url: str, environ: Mapping[str, str]) -> str:
    """The account's name: as given, else the path on a loopback address, else the first label of the host."""
    given = environ.get("EDGEML_STORAGE_ACCOUNT_NAME", "")
    parts = urlsplit(url)
    return given or (parts.path.strip("/") if is_loopback(url) else (parts.hostname or "").partition(".")[0])


def is_loopback(url: str) -> bool:
    return urlsplit(url).hostname in ("localhost", "127.0.0.1", "::1")


class StackHubTransport(RequestsTransport):  # type: ignore[misc]
    """The last gate before the wire: refuses, on our side, what Azure Stack Hub lacks.

    The embedded server does not: it knows newer versions and features, and would let code pass that fails on
    a real stamp. A transport sees each request as it is sent, signature, retries and copied clients included.
    """

    def send(self, request: Any, **kwargs: Any) -> Any:
        length = int(request.headers.get("Content-Length") or 0)
        if reason := lacking(request.method, request.url, request.headers, length):
            raise StackHubError(f"Azure Stack Hub does not offer {reason}; the request was not sent")
        return super().send(request, **kwargs)


OPERATIONS = {
    "tags": "blob tags",
    "blobs": "searching by tags",
    "tier": "access tiers",
    "undelete": "soft delete",
    "query": "queries over blobs",
    "expiry": "expiry of blobs",
    "immutabilityPolicies": "immutability",
    "legalhold": "legal holds",
    "userdelegationkey": "Entra ID for storage",
}
PARAMETERS = {"versionid": "blob versions", "deletetype": "soft delete"}
INCLUDES = {
    "tags": "blob tags",
    "versions": "blob versions",
    "deleted": "soft delete",
    "deletedwithversions": "soft delete",
    "immutabilitypolicy": "immutability",
    "legalhold": "legal holds",
}
HEADERS = {
    "x-ms-tags": "blob tags",
    "x-ms-if-tags": "blob tags",
    "x-ms-access-tier": "access tiers",
    "x-ms-rehydrate-priority": "access tiers",
    "x-ms-encryption-scope": "encryption scopes",
    "x-ms-encryption-key": "keys of the customer",
    "x-ms-immutability-policy-until-date": "immutability",
    "x-ms-legal-hold": "legal holds",
    "x-ms-seal-blob": "sealed blobs",
}


def lacking(method: str, url: str, headers: Mapping[str, str], length: int = 0) -> str | None:
    """What a request asks for that Azure Stack Hub does not have, in words, or None."""
    names = {name.lower(): value for name, value in headers.items()}
    query = {name.lower(): value for name, value in parse_qsl(urlsplit(url).query)}
    operation = query.get("comp", "")
    if names.get("x-ms-version", API_VERSION) > API_VERSION:
        return f"version {names['x-ms-version']} of the blob service (the newest is {API_VERSION})"
    if query.get("sv", API_VERSION) > API_VERSION:
        return f"shared access signatures of version {query['sv']} (have one signed with version {API_VERSION})"
    if names.get("authorization", "").startswith("Bearer "):
        return "Entra ID for storage"
    found = [what for name, what in HEADERS.items() if name in names]
    found += [what for name, what in PARAMETERS.items() if name in query]
    found += [what for name, what in INCLUDES.items() if name in query.get("include", "").split(",")]
    if operation in OPERATIONS:
        found.append(OPERATIONS[operation])
    if method == "PUT" and operation == "block" and length > MAX_BLOCK:
        found.append("blocks of more than 100 MiB")
    if method == "PUT" and not operation and length > MAX_PUT:
        found.append("single uploads of more than 256 MiB")
    return found[0] if found else None


@contextmanager
def explained(what: str) -> Iterator[None]:
    """Turn the SDK's exceptions into one sentence that begins with what was being done."""
    try:
        yield
    except AzureError as error:
        raise StorageError(f"{what}: {sentence(error)}") from None


def sentence(error: AzureError) -> str:
    """The cause of a failed request and its fix. Never quotes the request, which may carry a signature."""
    code = str(getattr(getattr(error, "error_code", ""), "value", getattr(error, "error_code", "")) or "")
    status = getattr(error, "status_code", None)
    if isinstance(error, ServiceRequestError):
        if "CERTIFICATE_VERIFY_FAILED" in str(error):
            return (
                "the endpoint's certificate is not signed by an authority that is trusted here; "
                "set EDGEML_STORAGE_CA_BUNDLE (storage.ca_bundle) to the PEM file of its authority"
            )
        return "the storage endpoint cannot be reached; check storage.account_url and that it is up"
    if isinstance(error, ServiceResponseError):
        return "the storage endpoint stopped answering in the middle; run the same command again"
    if code == "ContainerNotFound":
        return "the container does not exist; check its name, or make it by pushing to it"
    if status == 412 or code == "ConditionNotMet":
        return "it was changed while it was being read; run again once nothing writes to it"
    if status == 404:
        return "it does not exist, or was deleted in the meantime"
    if isinstance(error, ClientAuthenticationError) or status in (401, 403):
        return (
            "the storage account refuses the credential; check EDGEML_STORAGE_ACCOUNT_KEY or EDGEML_STORAGE_SAS_TOKEN, "
            "its permissions and its dates, and this machine's clock"
        )
    if isinstance(error, HttpResponseError) and status:
        return f"the storage answered {status}{f' ({code})' if code else ''}"
    return f"the storage client failed ({type(error).__name__})"


def quoted(etag: str) -> str:
    """An etag as `If-Match` wants it; listings give it without quotes."""
    return etag if etag.startswith(('"', "W/")) else f'"{etag}"'


def chunks(
    blob: BlobClient, *, size: int, etag: str, start: int = 0, connections: int = CONNECTIONS
) -> Generator[bytes, None, None]:
    """The blob's bytes from `start` to `size`, in order, in pieces of `CHUNK` bytes.

    `connections` ranges are read at the same time and at most one more waits to be taken, so that memory is
    bounded by `CHUNK * (connections + 1)`. Each range is read only if the blob still has this etag: one that is
    overwritten or deleted in the middle raises a `StorageError` with its name, never a mixture.
    """

    def read(offset: int) -> bytes:
        length = min(CHUNK, size - offset)
        with explained(f"blob '{blob.blob_name}'"):
            piece: bytes = blob.download_blob(
                offset=offset, length=length, etag=quoted(etag), match_condition=MatchConditions.IfNotModified
            ).readall()
        if len(piece) != length:
            raise StorageError(f"blob '{blob.blob_name}': {len(piece)} bytes came instead of {length}; run again")
        return piece

    offsets = iter(range(start, size, CHUNK))
    with ThreadPoolExecutor(connections, thread_name_prefix="range") as pool:
        pending: deque[Future[bytes]] = deque()
        try:
            for offset in offsets:
                pending.append(pool.submit(read, offset))
                if len(pending) > connections:
                    yield pending.popleft().result()
            while pending:
                yield pending.popleft().result()
        finally:
            for future in pending:
                future.cancel()
