"""Images in a registry, by the OCI distribution API 1.1: Azure Container Registry, Debian's, any other.

Encrypted wherever the registry is not on this very machine. A token is asked for when the registry says where, and
kept for this process alone.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import IO, TYPE_CHECKING, Any, cast
from urllib.parse import urljoin, urlsplit
from urllib.request import getproxies

from edgeml.errors import EdgemlError
from edgeml.image import credentials, oci

if TYPE_CHECKING:
    import requests

_SECONDS = (10, 120)  # to connect, and between two bytes
_LOOPBACK = re.compile(r"(localhost|127(\.\d{1,3}){3}|\[::1\])(:\d+)?")
_HOST = re.compile(r"(\[[0-9a-fA-F:]+\]|[A-Za-z0-9.-]+)(:\d{1,5})?")
_PATH = re.compile(r"[a-z0-9]+([._-]+[a-z0-9]+)*(/[a-z0-9]+([._-]+[a-z0-9]+)*)*")
_ACCEPTED = ", ".join((oci.MANIFEST, oci.INDEX, oci.DOCKER_MANIFEST, oci.DOCKER_INDEX))
_CHALLENGE = re.compile(r'(\w+)="([^"]*)"')


class Remote:
    """One repository of a registry."""

    def __init__(self, host: str, path: str) -> None:
        if not _HOST.fullmatch(host) or not _PATH.fullmatch(path):
            raise EdgemlError(f"'{host}/{path}' names no repository; write HOST/PATH, the path in small letters")
        self.name = f"{host}/{path}"
        self.host = host
        scheme = "http" if _LOOPBACK.fullmatch(host) else "https"
        self._base = f"{scheme}://{host}/v2/{path}/"
        self._path = path
        self._session: requests.Session | None = None

    def has(self, digest: str) -> bool:
        return self._ask("HEAD", f"blobs/{_checked(digest)}", allowed=(200, 404)).status_code == 200

    def open(self, digest: str) -> IO[bytes]:
        answer = self._ask("GET", f"blobs/{_checked(digest)}", allowed=(200, 404), stream=True)
        if answer.status_code == 404:
            raise EdgemlError(f"{self.name} lacks the blob {digest}; push the image again", 1)
        answer.raw.decode_content = False
        return cast("IO[bytes]", answer.raw)

    def add(self, source: IO[bytes], digest: str, size: int) -> None:
        if self.has(digest):
            return
        begun = self._ask("POST", "blobs/uploads/", allowed=(202,))
        place = urljoin(begun.url, begun.headers["Location"])
        if urlsplit(place).netloc != urlsplit(self._base).netloc:
            raise EdgemlError(f"{self.host} sends uploads to another host; push to that one", 1)
        headers = {"Content-Type": "application/octet-stream", "Content-Length": str(size)}
        self._ask("PUT", place, allowed=(201,), params={"digest": _checked(digest)}, data=_Sized(source, size),
                  headers=headers)  # fmt: skip

    def manifest(self, reference: str) -> bytes | None:
        if not oci.is_digest(reference) and not oci.TAG.fullmatch(reference):
            raise EdgemlError(f"'{reference}' is neither a tag nor a digest", 1)
        answer = self._ask("GET", f"manifests/{reference}", allowed=(200, 404), headers={"Accept": _ACCEPTED},
                           stream=True)  # fmt: skip
        if answer.status_code == 404:
            return None
        data: bytes = answer.raw.read(oci.LARGEST_DOCUMENT + 1, decode_content=True)
        answer.close()
        if oci.is_digest(reference) and oci.digest_of(data) != reference:
            raise EdgemlError(f"{self.name} holds other bytes under {reference}; push the image again", 1)
        return data

    def add_manifest(self, data: bytes, tag: str = "") -> str:
        document = oci.parse(data, "a manifest")
        digest = oci.digest_of(data)
        headers = {"Content-Type": str(document.get("mediaType") or oci.MANIFEST)}
        answer = self._ask("PUT", f"manifests/{tag or digest}", allowed=(201,), data=data, headers=headers)
        subject = document.get("subject")
        if isinstance(subject, dict) and "OCI-Subject" not in answer.headers:
            self._list_referrer(str(subject.get("digest")), document, oci.Descriptor(
                headers["Content-Type"], digest, len(data)))  # fmt: skip
        return digest

    def referrers(self, digest: str, artifact_type: str) -> list[str]:
        answer = self._ask("GET", f"referrers/{_checked(digest)}", allowed=(200, 404), headers={"Accept": oci.INDEX})
        data = answer.content if answer.status_code == 200 else self.manifest(_fallback(digest))
        entries = oci.parse(data, f"the referrers of {digest}").get("manifests") if data else []
        return [
            entry["digest"]
            for entry in (entries if isinstance(entries, list) else [])
            if isinstance(entry, dict) and entry.get("artifactType") == artifact_type and oci.is_digest(entry["digest"])
        ]

    def _list_referrer(self, subject: str, document: dict[str, Any], made: oci.Descriptor) -> None:
        """What the specification asks of a client whose registry does not list referrers: an index under a tag."""
        old = self.manifest(_fallback(subject))
        entries = oci.parse(old, _fallback(subject)).get("manifests") if old else []
        entry = made.document() | {"artifactType": document.get("artifactType")}
        kept = [known for known in entries or [] if known.get("digest") != made.digest]
        index = {"schemaVersion": 2, "mediaType": oci.INDEX, "manifests": [*kept, entry]}
        self._ask("PUT", f"manifests/{_fallback(subject)}", allowed=(201,), data=oci.encode(index),
                  headers={"Content-Type": oci.INDEX})  # fmt: skip

    def _ask(self, method: str, path: str, allowed: tuple[int, ...], **options: Any) -> requests.Response:
        """One request; a challenge is answered once. Raises EdgemlError, exit code 1, for any other answer."""
        import requests

        if self._session is None:
            self._session = requests.Session()
            self._session.trust_env = False  # no .netrc: credentials come from the places that we name
        session = self._session
        session.proxies = {} if self._base.startswith("http:") else getproxies()
        rewind = options["data"].source if isinstance(options.get("data"), _Sized) else None
        begin = rewind.tell() if rewind and rewind.seekable() else 0
        try:
            answer = session.request(method, urljoin(self._base, path), timeout=_SECONDS, **options)
            if answer.status_code == 401 and self._authorize(session, answer):
                if rewind is not None:
                    rewind.seek(begin)
                    options["data"] = _Sized(rewind, options["data"].size)
                answer = session.request(method, urljoin(self._base, path), timeout=_SECONDS, **options)
        except requests.exceptions.SSLError as error:
            raise EdgemlError(f"the certificate of {self.host} is not trusted ({_cause(error)}); add its authority "
                              "to this machine", 1) from None  # fmt: skip
        except requests.RequestException as error:
            raise EdgemlError(f"the registry {self.host} does not answer ({_cause(error)}); check that it runs and "
                              "call this again, it goes on from there", 1) from None  # fmt: skip
        if answer.status_code not in allowed:
            raise EdgemlError(_refusal(self.host, self._path, method, answer), 1)
        return answer

    def _authorize(self, session: requests.Session, answer: requests.Response) -> bool:
        """Whether there is a credential to ask with now: user and password, or a token of the service named."""
        challenge = answer.headers.get("WWW-Authenticate", "")
        known = credentials.of(self.host)
        if challenge.lower().startswith("basic"):
            if known == credentials.NOBODY:
                return False
            session.auth = (known.user, known.password)
            return True
        fields = dict(_CHALLENGE.findall(challenge))
        realm = fields.get("realm", "")
        if urlsplit(realm).scheme != "https" and not _LOOPBACK.fullmatch(urlsplit(realm).netloc):
            return False  # a password must not go where anybody can read it
        asked = {"service": fields.get("service", ""), "scope": f"repository:{self._path}:pull,push"}
        if known.identity_token:
            form = asked | {"grant_type": "refresh_token", "refresh_token": known.identity_token}
            told = session.post(realm, data=form, timeout=_SECONDS)
        else:
            user = (known.user, known.password) if known != credentials.NOBODY else None
            told = session.get(realm, params=asked, auth=user, timeout=_SECONDS)
        if told.status_code != 200:
            return False
        document = oci.parse(told.content, f"the answer of {urlsplit(realm).netloc}")
        token = document.get("access_token") or document.get("token")
        session.headers["Authorization"] = f"Bearer {token}"
        return bool(token)


class _Sized:
    """A file of which exactly `size` bytes are sent."""

    def __init__(self, source: IO[bytes], size: int) -> None:
        self.source, self.size = source, size

    def __len__(self) -> int:
        return self.size

    def __iter__(self) -> Iterator[bytes]:
        left = self.size
        while left and (block := self.source.read(min(left, 1 << 20))):
            left -= len(block)
            yield block


def _checked(digest: str) -> str:
    if not oci.is_digest(digest):
        raise EdgemlError(f"'{digest}' is no digest; write sha256: and 64 hexadecimal digits", 1)
    return digest


def _fallback(digest: str) -> str:
    return digest.replace(":", "-")


def _cause(error: Exception) -> str:
    """The innermost reason of an error of the network, without the addresses and objects around it."""
    text = str(error)
    found = re.search(
        r"(Connection refused|timed out|Name or service not known|Temporary failure in name resolution"
                      r"|certificate verify failed[^(]*|Connection reset|Broken pipe|No route to host)", text,
    )  # fmt: skip
    return found[1].strip().lower() if found else type(error).__name__


def _refusal(host: str, path: str, method: str, answer: requests.Response) -> str:
    """One sentence for an answer that is none of those expected."""
    import contextlib

    said = ""
    with contextlib.suppress(ValueError, LookupError, TypeError, AttributeError):
        first = answer.json()["errors"][0]
        said = f" ({first.get('code', '')}: {first.get('message', '')})"[:200]
    code = answer.status_code
    if code in (401, 403):
        wanted = "push to" if method in ("PUT", "POST") else "read"
        return (f"{host} does not let you {wanted} {path}{said}; log in with `docker login {host}`, or give "
                "EDGEML_IMAGE_USERNAME and EDGEML_IMAGE_PASSWORD")  # fmt: skip
    if code in (500, 502, 503, 507):
        return f"the registry {host} failed with {code}{said}; look whether its disk is full, then call this again"
    return f"the registry {host} answered {code} to {method} {path}{said}; nothing was published"
