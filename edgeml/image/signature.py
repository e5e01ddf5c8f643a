"""Signatures in the form that cosign writes and reads, so that standard tools and admission controllers verify them.

An ECDSA P-256 key signs a small JSON document that names the image's digest and its repository; it lies as a layer of
the manifest `sha256-<digest>.sig` in the image's own repository. Statements about an image are signed by the same key
in envelopes (DSSE).
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import json
import os
import stat
from typing import TYPE_CHECKING, Any

from edgeml.errors import EdgemlError
from edgeml.image import oci, parts

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey, EllipticCurvePublicKey

    from edgeml.image.oci import Store

PAYLOAD = "application/vnd.dev.cosign.simplesigning.v1+json"
NOTE = "dev.cosignproject.cosign/signature"
TYPE = "cosign container image signature"
ENVELOPE = "application/vnd.dsse.envelope.v1+json"
STATEMENT = "application/vnd.in-toto+json"
KEY, PUBLIC_KEY = "key.pem", "key.pub"
_MOST = 64  # signatures that are looked at


def key(path: str) -> EllipticCurvePrivateKey:
    """The key that signs: the file that is named, else that of the environment, else this project's own, made once."""
    from edgeml import settings

    given = settings.load().image.signing_key
    if given is not None and not path:
        return _parsed(given.get_secret_value().encode(), "EDGEML_IMAGE_SIGNING_KEY")
    named = path or os.path.join(parts.folder(), KEY)
    if not path and not os.path.exists(named):
        _make(named)
    return _load(named)


def public(signing: EllipticCurvePrivateKey) -> str:
    """The public key as PEM, as `cosign verify --key` and Kubernetes' policies take it."""
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

    return signing.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()


def trusted(pem: str) -> EllipticCurvePublicKey:
    """A public key from its PEM. Raises EdgemlError for anything but ECDSA P-256."""
    from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, EllipticCurvePublicKey
    from cryptography.hazmat.primitives.serialization import load_pem_public_key

    try:
        found = load_pem_public_key(pem.encode())
    except ValueError:
        found = None
    if not isinstance(found, EllipticCurvePublicKey) or not isinstance(found.curve, SECP256R1):
        raise EdgemlError("that is no public key of ECDSA P-256 in PEM; give the key.pub of whoever packages", 1)
    return found


def tag(digest: str) -> str:
    """Where cosign looks for an image's signatures."""
    return digest.replace(":", "-") + ".sig"


def sign(store: Store, digest: str, signing: EllipticCurvePrivateKey) -> None:
    """Sign an image for the repository that it lies in, unless this key has; signatures by others are kept."""
    if signed_by(store, digest, signing.public_key()):
        return
    payload = oci.encode(
        {
            "critical": {
                "identity": {"docker-reference": store.name},
                "image": {"docker-manifest-digest": digest},
                "type": TYPE,
            },
            "optional": None,
        }
    )
    note = {NOTE: base64.b64encode(_signature(signing, payload)).decode()}
    layers = [*_layers(store, digest), oci.add(store, PAYLOAD, payload, note)]
    config = {
        "architecture": "",
        "os": "",
        "created": "0001-01-01T00:00:00Z",
        "config": {},
        "history": [{"created": "0001-01-01T00:00:00Z"} for _ in layers],
        "rootfs": {"type": "layers", "diff_ids": [layer.digest for layer in layers]},
    }
    manifest = {
        "schemaVersion": 2,
        "mediaType": oci.MANIFEST,
        "config": oci.add(store, oci.CONFIG, oci.encode(config)).document(),
        "layers": [layer.document() for layer in layers],
    }
    store.add_manifest(oci.encode(manifest), tag(digest))


def signed_by(store: Store, digest: str, wanted: EllipticCurvePublicKey) -> bool:
    """Whether a key signed this very image for this very repository."""
    return any(_holds(store, layer, digest, wanted) for layer in _layers(store, digest))


def collected(store: Store, digest: str) -> list[tuple[bytes, bytes]]:
    """The payloads and signatures that lie with an image, by whomever, for somebody else to verify."""
    found = []
    for layer in _layers(store, digest):
        with contextlib.suppress(ValueError):
            found.append((oci.read(store, layer), base64.b64decode(layer.annotations.get(NOTE, ""), validate=True)))
    return found


def envelope(statement: bytes, signing: EllipticCurvePrivateKey) -> bytes:
    """A statement with its signature (DSSE)."""
    signature = _signature(signing, _encoded(statement))
    signed = {"keyid": key_id(signing.public_key()), "sig": base64.b64encode(signature).decode()}
    return oci.encode(
        {"payloadType": STATEMENT, "payload": base64.b64encode(statement).decode(), "signatures": [signed]}
    )


def opened(data: bytes, wanted: EllipticCurvePublicKey) -> dict[str, Any] | None:
    """The statement in an envelope that a key signed; None for any other."""
    try:
        document = json.loads(data)
        payload = base64.b64decode(document["payload"], validate=True)
        if document["payloadType"] != STATEMENT:
            return None
        for signed in document["signatures"][:_MOST]:
            if _verifies(wanted, base64.b64decode(signed["sig"], validate=True), _encoded(payload)):
                return oci.parse(payload, "a signed statement")
    except (ValueError, KeyError, TypeError, RecursionError):
        pass
    return None


def key_id(public_key: EllipticCurvePublicKey) -> str:
    """The SHA-256 of a public key in DER."""
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

    return hashlib.sha256(public_key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)).hexdigest()


def _layers(store: Store, digest: str) -> list[oci.Descriptor]:
    data = store.manifest(tag(digest))
    if data is None:
        return []
    found = oci.descriptors(oci.parse(data, tag(digest)))[1:]
    return [layer for layer in found if layer.media_type == PAYLOAD][:_MOST]


def _holds(store: Store, layer: oci.Descriptor, digest: str, wanted: EllipticCurvePublicKey) -> bool:
    try:
        signature = base64.b64decode(layer.annotations.get(NOTE, ""), validate=True)
        payload = oci.read(store, layer)
        if not _verifies(wanted, signature, payload):
            return False
        critical = json.loads(payload)["critical"]
        named = critical["image"]["docker-manifest-digest"], critical["identity"]["docker-reference"], critical["type"]
        return bool(named == (digest, store.name, TYPE))
    except (ValueError, KeyError, TypeError, RecursionError):
        return False


def _signature(signing: EllipticCurvePrivateKey, data: bytes) -> bytes:
    from cryptography.hazmat.primitives.asymmetric.ec import ECDSA
    from cryptography.hazmat.primitives.hashes import SHA256

    return signing.sign(data, ECDSA(SHA256(), deterministic_signing=True))


def _verifies(wanted: EllipticCurvePublicKey, signature: bytes, data: bytes) -> bool:
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives.asymmetric.ec import ECDSA
    from cryptography.hazmat.primitives.hashes import SHA256

    try:
        wanted.verify(signature, data, ECDSA(SHA256()))
    except InvalidSignature:
        return False
    return True


def _encoded(payload: bytes) -> bytes:
    """What is signed of an envelope, by the DSSE specification."""
    return b"DSSEv1 %d %s %d %s" % (len(STATEMENT), STATEMENT.encode(), len(payload), payload)


def _make(path: str) -> None:
    from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, generate_private_key
    from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

    made = generate_private_key(SECP256R1())
    os.makedirs(os.path.dirname(path), exist_ok=True)
    unfinished = f"{path}.{os.getpid()}"
    with open(os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o600), "wb") as file:
        file.write(made.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    try:
        os.link(unfinished, path)  # whoever is first; the other one loads that key
    except FileExistsError:
        pass
    finally:
        os.unlink(unfinished)
    with open(os.path.join(os.path.dirname(path), PUBLIC_KEY), "w", encoding="ascii") as stream:
        stream.write(public(_load(path)))


def _load(path: str) -> EllipticCurvePrivateKey:
    try:
        with open(path, "rb") as file:
            if stat.S_IMODE(os.fstat(file.fileno()).st_mode) & 0o077:
                raise EdgemlError(f"the signing key {path} can be read by others; call `chmod 600` on it", 1)
            content = file.read(1 << 16)
    except OSError as error:
        raise EdgemlError(f"the signing key {path} cannot be read ({error.strerror}); correct image.key", 1) from None
    return _parsed(content, path)


def _parsed(content: bytes, where: str) -> EllipticCurvePrivateKey:
    from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, EllipticCurvePrivateKey
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    found: object = None
    with contextlib.suppress(ValueError, TypeError):
        found = load_pem_private_key(content, None)
    if not isinstance(found, EllipticCurvePrivateKey) or not isinstance(found.curve, SECP256R1):
        make = "openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256"
        raise EdgemlError(f"{where} is no plain ECDSA P-256 key in PEM; make one with `{make}`", 1)
    return found
