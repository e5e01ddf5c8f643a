"""Kind `vm`: a VM that Azure ML's own scheduler reaches by SSH, attached by its address or by its ARM id.

The SDK's entity has no `address`, which is what a VM on Azure Stack Hub has instead of an id that Azure knows, so the
documented REST shape is sent. Whether the service still takes an address is an assumption (docs/azure.md).
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from edgeml.azure import compute
from edgeml.errors import EdgemlError

if TYPE_CHECKING:
    from edgeml.azure.workspace import Workspace
    from edgeml.settings import VirtualMachine

KEY, KEY_FILE, PASSWORD = "EDGEML_SSH_KEY", "EDGEML_SSH_KEY_FILE", "EDGEML_SSH_PASSWORD"
STRONG = 4  # of zxcvbn's scores from 0 to 4
TYPE = "VirtualMachine"


def properties(name: str, settings: VirtualMachine, *, password: bool) -> dict[str, Any]:
    """What attaches the VM, with its credential from the environment. Raises EdgemlError where something is missing."""
    if bool(settings.address) == bool(settings.resource_id):
        raise EdgemlError(f"compute.{name} needs an address or a resource_id, one of the two; set it in edgeml.toml")
    account = {"username": settings.user, **(_password() if password else _key(name))}
    inner: dict[str, Any] = {"sshPort": settings.port, "administratorAccount": account}
    found: dict[str, Any] = {"computeType": TYPE, "properties": inner}
    if settings.address:
        inner["address"] = settings.address
    else:
        found["resourceId"] = settings.resource_id
    return found


def is_same(settings: VirtualMachine, there: dict[str, Any]) -> bool:
    """Whether what is attached is what the settings say; its key cannot be seen."""
    inner = there.get("properties") or {}
    return (
        str(inner.get("address") or "") == settings.address
        and str(there.get("resourceId") or "").lower() == settings.resource_id.lower()
        and int(inner.get("sshPort") or 22) == settings.port
        and (inner.get("administratorAccount") or {}).get("username") == settings.user
    )


def attach(workspace: Workspace, name: str, settings: VirtualMachine, say: Callable[[str], None], **how: bool) -> None:
    """Attach the VM, or find it attached; `rotate` sends a new key all the same, `password` lets a password do."""
    compute.attach(
        workspace,
        name,
        TYPE,
        lambda: properties(name, settings, password=how.get("password", False)),
        lambda there: not how.get("rotate") and is_same(settings, there),
        say,
    )


def _key(name: str) -> dict[str, str]:
    """The key pair for Azure ML, from the environment."""
    from cryptography.hazmat.primitives import serialization

    text, where = os.environ.get(KEY, ""), KEY
    if not text:
        where = os.environ.get(KEY_FILE, "")
        if not where:
            raise EdgemlError(f"no key for {name}: put it into {KEY}, or its file's name into {KEY_FILE}")
        try:
            with open(where, encoding="utf-8") as stream:
                text = stream.read()
        except (OSError, UnicodeDecodeError) as error:
            raise EdgemlError(f"the key {where} cannot be read ({type(error).__name__}); check {KEY_FILE}") from None
    load = serialization.load_ssh_private_key if "OPENSSH" in text else serialization.load_pem_private_key
    try:
        key: Any = load(text.encode(), password=None)
    except (TypeError, ValueError) as error:
        if "password" in str(error).lower() or "encrypted" in str(error).lower():
            raise EdgemlError(
                f"the key in {where} has a passphrase, which Azure ML could not give; make one for this target alone: "
                "ssh-keygen -t ed25519 -N '' -f edge-key"
            ) from None
        raise EdgemlError(f"{where} holds no private key; give the one that the VM lets in") from None
    public = key.public_key().public_bytes(serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH)
    return {"publicKeyData": public.decode(), "privateKeyData": text}


def _password() -> dict[str, str]:
    """A password, for a VM that takes nothing else; only one that nobody guesses."""
    from zxcvbn import zxcvbn

    password = os.environ.get(PASSWORD, "")
    if not password:
        raise EdgemlError(f"--password needs the password in {PASSWORD}; better give a key and leave it out")
    score = int(zxcvbn(password[:72])["score"])
    if score < STRONG:
        raise EdgemlError(
            f"the password in {PASSWORD} scores {score} of {STRONG} (zxcvbn); take a key, or a stronger one"
        )
    return {"password": password}
