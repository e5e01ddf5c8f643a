"""The client that stays within Azure Stack Hub, against the embedded server, which would let everything pass."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from azure.storage.blob import BlobServiceClient, ContainerClient, StandardBlobTier

from edgeml.storage import blob_client
from edgeml.storage.blob_client import StackHubError, StorageError, lacking
from edgeml.storage.sas import container_sas


@pytest.fixture(scope="module")
def container(storage: Any) -> ContainerClient:
    client = blob_client.container("client", storage.environment)
    client.create_container()
    client.upload_blob("a.csv", b"x\n1\n")
    return client


def test_every_request_names_the_version_that_stack_hub_speaks(container: ContainerClient) -> None:
    sent: list[str] = []
    container.download_blob("a.csv", raw_request_hook=lambda r: sent.append(r.http_request.headers["x-ms-version"]))
    assert sent == ["2019-07-07"]


@pytest.mark.parametrize(
    ("method", "query", "headers", "what"),
    [
        ("GET", "", {"x-ms-version": "2019-12-12"}, "version 2019-12-12"),
        ("GET", "sv=2025-11-05&sig=x", {}, "signatures of version 2025-11-05"),
        ("GET", "", {"Authorization": "Bearer x"}, "Entra ID"),
        ("PUT", "comp=tags", {}, "blob tags"),
        ("PUT", "", {"x-ms-tags": "a=b"}, "blob tags"),
        ("PUT", "comp=tier", {}, "access tiers"),
        ("PUT", "", {"X-Ms-Access-Tier": "Cool"}, "access tiers"),
        ("GET", "versionid=1", {}, "blob versions"),
        ("PUT", "comp=undelete", {}, "soft delete"),
        ("GET", "restype=container&comp=list&include=metadata,versions", {}, "blob versions"),
        ("PUT", "comp=immutabilityPolicies", {}, "immutability"),
        ("POST", "restype=service&comp=userdelegationkey", {}, "Entra ID"),
        ("PUT", "comp=block&blockid=x", {"Content-Length": str((100 << 20) + 1)}, "blocks of more than 100 MiB"),
        ("PUT", "", {"Content-Length": str((256 << 20) + 1)}, "more than 256 MiB"),
    ],
)
def test_what_stack_hub_lacks(method: str, query: str, headers: dict[str, str], what: str) -> None:
    length = int(headers.get("Content-Length", 0))
    assert what in str(lacking(method, f"https://a.blob.r.example.org/c/b?{query}", headers, length))


@pytest.mark.parametrize(
    ("method", "query", "length"),
    [
        ("GET", "", 0),
        ("GET", "restype=container&comp=list&include=metadata&prefix=tags", 0),
        ("GET", "sv=2019-07-07&sp=rl&sig=x", 0),
        ("PUT", "comp=block&blockid=x", 100 << 20),
        ("PUT", "comp=blocklist", 300 << 20),
    ],
)
def test_what_stack_hub_has(method: str, query: str, length: int) -> None:
    headers = {"x-ms-version": "2019-07-07", "Authorization": "SharedKey a:b"}
    assert lacking(method, f"https://a.blob.r.example.org/c/tier?{query}", headers, length) is None


def test_a_refused_request_is_not_sent(container: ContainerClient) -> None:
    with pytest.raises(StackHubError, match="does not offer blob tags"):
        container.get_blob_client("a.csv").set_blob_tags({"a": "b"})
    with pytest.raises(StackHubError, match="access tiers"):
        container.upload_blob("tiered.csv", b"x", standard_blob_tier=StandardBlobTier.COOL)
    assert not container.get_blob_client("tiered.csv").exists()


def test_a_client_of_a_newer_version_is_refused_too(storage: Any) -> None:
    env = storage.environment
    newer = BlobServiceClient(
        env["EDGEML_STORAGE_ACCOUNT_URL"],
        credential={"account_name": "edgeml", "account_key": env["EDGEML_STORAGE_ACCOUNT_KEY"]},
        transport=blob_client.StackHubTransport(connection_verify=env["EDGEML_STORAGE_CA_BUNDLE"]),
    )
    with pytest.raises(StackHubError, match="newest is 2019-07-07"):
        list(newer.list_containers())


def sas(storage: Any, **options: Any) -> dict[str, str]:
    """The environment of a step that has a token instead of the key."""
    env = dict(storage.environment)
    key, name = env.pop("EDGEML_STORAGE_ACCOUNT_KEY"), env["EDGEML_STORAGE_ACCOUNT_NAME"]
    options = {"expires": datetime.now(UTC) + timedelta(hours=1), **options}
    return {**env, "EDGEML_STORAGE_SAS_TOKEN": container_sas(name, key, "client", **options)}


def test_a_signature_of_ours_reads_and_lists_and_no_more(storage: Any, container: ContainerClient) -> None:
    reader = blob_client.container("client", sas(storage))
    assert reader.download_blob("a.csv").readall() == b"x\n1\n"
    assert "a.csv" in [blob.name for blob in reader.list_blobs()]
    with pytest.raises(StorageError, match="refuses the credential"), blob_client.explained("write"):
        reader.upload_blob("b.csv", b"x")
    elsewhere = blob_client.container("other", sas(storage))
    with pytest.raises(StorageError, match="refuses the credential"), blob_client.explained("list"):
        list(elsewhere.list_blobs())
    assert [blob.name for blob in container.list_blobs(name_starts_with="b")] == []


# The embedded server does not look at the addresses of a signature: that limit is not proven here.
@pytest.mark.parametrize(
    "options",
    [
        {"expires": datetime.now(UTC) - timedelta(hours=1)},
        {"starts": datetime.now(UTC) + timedelta(minutes=30)},
        {"permissions": "w"},
    ],
)
def test_a_signature_holds_within_its_limits_only(
    storage: Any, container: ContainerClient, options: dict[str, Any]
) -> None:
    with pytest.raises(StorageError, match="refuses the credential"), blob_client.explained("read"):
        blob_client.container("client", sas(storage, **options)).download_blob("a.csv").readall()


def test_a_signature_wants_a_zone() -> None:
    with pytest.raises(ValueError, match="zone"):
        container_sas("a", "a2V5", "c", expires=datetime(2026, 1, 1))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"EDGEML_STORAGE_ACCOUNT_URL": ""}, "EDGEML_STORAGE_ACCOUNT_URL is not set"),
        ({"EDGEML_STORAGE_ACCOUNT_URL": "http://127.0.0.1:1/a"}, "does not start with https://"),
        ({"EDGEML_STORAGE_ACCOUNT_KEY": ""}, "neither is"),
        ({"EDGEML_STORAGE_SAS_TOKEN": "sv=x"}, "both are"),
        ({"EDGEML_STORAGE_CA_BUNDLE": "/nowhere.pem"}, "not a file"),
    ],
)
def test_an_environment_that_lacks_something(storage: Any, changes: dict[str, str], message: str) -> None:
    with pytest.raises(StorageError, match=message):
        blob_client.service({**storage.environment, **changes})


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"EDGEML_STORAGE_ACCOUNT_KEY": "d3Jvbmc="}, "refuses the credential"),
        ({"EDGEML_STORAGE_ACCOUNT_URL": "https://127.0.0.1:9/edgeml"}, "cannot be reached"),
        ({"EDGEML_STORAGE_CA_BUNDLE": ""}, "not signed by an authority that is trusted here"),
    ],
)
def test_an_account_that_does_not_answer_as_hoped(
    storage: Any, changes: dict[str, str], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("HTTPS_PROXY", "https_proxy"):  # our own machine is reached without one
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    client = blob_client.container("client", {**storage.environment, **changes})
    with pytest.raises(StorageError, match=message), blob_client.explained("read"):
        client.download_blob("a.csv")


def test_a_container_that_is_missing(storage: Any) -> None:
    with pytest.raises(StorageError, match="container does not exist"), blob_client.explained("list"):
        list(blob_client.container("missing", storage.environment).list_blobs())


@pytest.mark.parametrize(
    ("url", "account"),
    [
        ("https://clinic.blob.east.example.org", "clinic"),
        ("https://127.0.0.1:10000/edgeml", "edgeml"),
        ("https://localhost:10000/edgeml/", "edgeml"),
    ],
)
def test_the_account_is_known_from_the_address(url: str, account: str) -> None:
    assert blob_client.account_of(url, {}) == account
    assert blob_client.account_of(url, {"EDGEML_STORAGE_ACCOUNT_NAME": "other"}) == "other"


@pytest.mark.parametrize("credential", [{"EDGEML_STORAGE_ACCOUNT_KEY": "a2V5"}, {"EDGEML_STORAGE_SAS_TOKEN": "?sig=x"}])
def test_both_credentials_work_with_a_stack_hub_host(credential: dict[str, str]) -> None:
    url = "https://clinic.blob.east.example.org"
    client = blob_client.service({"EDGEML_STORAGE_ACCOUNT_URL": url, **credential})
    assert client.url.startswith(url) and client.api_version == "2019-07-07"


class TestChunks:
    @pytest.fixture
    def large(self, container: ContainerClient, monkeypatch: pytest.MonkeyPatch) -> tuple[Any, bytes]:
        """A blob of seven chunks, the chunks made small."""
        monkeypatch.setattr(blob_client, "CHUNK", 1000)
        content = bytes(range(256)) * 26
        blob = container.get_blob_client("large.bin")
        blob.upload_blob(content, overwrite=True)
        return blob, content

    def test_come_in_order_from_where_asked(self, large: tuple[Any, bytes]) -> None:
        blob, content = large
        etag = blob.get_blob_properties().etag
        for start in (0, 1, 999, 1000, 6000, len(content)):
            read = list(blob_client.chunks(blob, size=len(content), etag=etag, start=start))
            assert b"".join(read) == content[start:] and all(len(chunk) <= 1000 for chunk in read)

    @pytest.mark.parametrize("change", ["overwrite", "delete"])
    def test_a_blob_that_changes_between_two_chunks_is_an_error(self, large: tuple[Any, bytes], change: str) -> None:
        blob, content = large
        reading = blob_client.chunks(
            blob, size=len(content), etag=blob.get_blob_properties().etag.strip('"'), connections=1
        )
        assert next(reading) == content[:1000]
        if change == "overwrite":
            blob.upload_blob(b"\0" * len(content), overwrite=True)
        else:
            blob.delete_blob()
        with pytest.raises(StorageError, match=r"blob 'large.bin': it (was changed|does not exist, or was deleted)"):
            list(reading)
