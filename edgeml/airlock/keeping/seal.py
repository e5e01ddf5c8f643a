"""The signature under a verdict: Ed25519 over `egress.json`, which names every file by its SHA-256.

The private key lies beside the private rows and never leaves; who registers a release needs the public key alone.
"""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from edgeml.errors import EdgemlError

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

VERDICT, SIGNATURE = "egress.json", "egress.sig"
KEY, PUBLIC_KEY = "key.pem", "key.pub"
KEY_VARIABLE = "EDGEML_AIRLOCK_KEY"


def key_of(state: Path, given: Path | None = None) -> Ed25519PrivateKey:
    """The key that signs: the file given, else the one that the environment names, else the state folder's own.

    Only the state folder's is made where it is missing. Raises EdgemlError for one that others may read.
    """
    named = given or (Path(os.environ[KEY_VARIABLE]) if os.environ.get(KEY_VARIABLE) else None)
    path = named or state / KEY
    if named is None and not path.exists():
        _make(path)
    key = _load(path)
    if named is None:
        publish(state, public(key))
    return key


def publish(state: Path, public_key: str) -> None:
    """Let the public key lie in the state folder, where `trusted` finds it."""
    path = state / PUBLIC_KEY
    if not path.is_file() or path.read_text("ascii").strip() != public_key:
        unfinished = path.with_name(f".{PUBLIC_KEY}.{os.getpid()}")
        unfinished.write_text(public_key + "\n", "ascii")
        os.replace(unfinished, path)


def public(key: Ed25519PrivateKey) -> str:
    """The public key as 64 hexadecimal digits."""
    return key.public_key().public_bytes_raw().hex()


def sign(data: bytes, key: Ed25519PrivateKey) -> bytes:
    """The signature's file. The same data and key give the same bytes."""
    document = {"algorithm": "ed25519", "public_key": public(key), "signature": key.sign(data).hex()}
    return (json.dumps(document, indent=2, sort_keys=True) + "\n").encode()


def verify(data: bytes, signature: bytes, trusted: Iterable[str]) -> str:
    """The public key that signed the data. Raises EdgemlError, exit code 1, unless it is one of those trusted."""
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

    trusted = set(trusted)
    try:
        document = json.loads(signature)
        name, sealed = str(document["public_key"]), bytes.fromhex(document["signature"])
        if document["algorithm"] != "ed25519":
            raise ValueError
    except (ValueError, KeyError, TypeError, RecursionError):
        raise EdgemlError(f"{SIGNATURE} is no signature; release the artifacts again", 1) from None
    if name not in trusted:
        raise EdgemlError(
            f"{VERDICT} is signed by a key that is not trusted here; if its gate is yours, add the gate's key.pub "
            "to airlock.public_keys in edgeml.toml",
            1,
        )
    try:
        Ed25519PublicKey.from_public_bytes(bytes.fromhex(name)).verify(sealed, data)
    except (InvalidSignature, ValueError):
        raise EdgemlError(f"the signature of {VERDICT} does not hold; release the artifacts again", 1) from None
    return name


def trusted(state: Path, more: Iterable[str] = ()) -> list[str]:
    """The public keys whose verdicts count: those given, and that of this machine's own gate."""
    path = state / PUBLIC_KEY
    return [*more, *([path.read_text("ascii").strip()] if path.is_file() else [])]


def _make(path: Path) -> None:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

    data = Ed25519PrivateKey.generate().private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    unfinished = path.with_name(f".{path.name}.{os.getpid()}")
    with open(os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o600), "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    try:
        os.link(unfinished, path)  # whoever is first; the other one loads that key
    except FileExistsError:
        pass
    finally:
        os.unlink(unfinished)


def _load(path: Path) -> Ed25519PrivateKey:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    try:
        with open(path, "rb") as file:
            if stat.S_IMODE(os.fstat(file.fileno()).st_mode) & 0o077:
                raise EdgemlError(f"the signing key {path} can be read by others; call `chmod 600` on it", 1)
            key = load_pem_private_key(file.read(1 << 16), None)
    except OSError as error:
        raise EdgemlError(f"the signing key {path} cannot be read ({error.strerror}); give --key FILE", 1) from None
    except (ValueError, TypeError):
        key = None
    if not isinstance(key, Ed25519PrivateKey):
        raise EdgemlError(f"{path} is no Ed25519 key; make one with `openssl genpkey -algorithm ed25519`", 1)
    return key
