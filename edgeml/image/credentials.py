"""Who may push and pull: from the environment, else from docker's own configuration. Never from a file of the project.

`docker login` and `az acr login` leave a user and a password there, an identity token, or the name of a helper program
that keeps them; all three are understood.
"""

from __future__ import annotations

import base64
import json
import os
import re
import shutil
import subprocess
from typing import NamedTuple

from edgeml.errors import EdgemlError

_TOKEN_USER = "<token>"  # noqa: S105 - how docker's helpers say that the secret is an identity token
_SECONDS = 60


class Credential(NamedTuple):
    """A user and a password, or an identity token that is exchanged for an access token."""

    user: str = ""
    password: str = ""
    identity_token: str = ""

    def entry(self) -> dict[str, str]:
        """The registry's entry in docker's configuration; empty for nobody."""
        if self.identity_token:
            return {"identitytoken": self.identity_token}
        pair = f"{self.user}:{self.password}".encode()
        return {"auth": base64.b64encode(pair).decode()} if self.user else {}


NOBODY = Credential()


def of(host: str) -> Credential:
    """The credential for a registry; `NOBODY` where none is known."""
    from edgeml import settings

    chosen = settings.load().image
    if chosen.password is not None:
        if not chosen.username:
            raise EdgemlError("EDGEML_IMAGE_PASSWORD is set without EDGEML_IMAGE_USERNAME; set both")
        return Credential(chosen.username, chosen.password.get_secret_value())
    return _of_docker(host)


def _of_docker(host: str) -> Credential:
    folder = os.environ.get("DOCKER_CONFIG") or os.path.expanduser("~/.docker")
    path = os.path.join(folder, "config.json")
    try:
        with open(path, encoding="utf-8") as stream:
            document = json.load(stream)
        helper = (document.get("credHelpers") or {}).get(host) or ""
        entry = (document.get("auths") or {}).get(host)
        store = document.get("credsStore") or ""
        if helper or (store and not (entry or {}).get("auth")):
            return _of_helper(str(helper or store), host)
        return _of_entry(entry) if entry else NOBODY
    except FileNotFoundError:
        return NOBODY
    except (OSError, ValueError, AttributeError, TypeError):
        raise EdgemlError(
            f"{path} cannot be read as docker's configuration; log in again with `docker login`"
        ) from None


def _of_entry(entry: dict[str, str]) -> Credential:
    user, _, password = base64.b64decode(entry.get("auth") or "").decode().partition(":")
    return Credential(user or entry.get("username", ""), password or entry.get("password", ""),
                      entry.get("identitytoken", ""))  # fmt: skip


def _of_helper(name: str, host: str) -> Credential:
    program = shutil.which(f"docker-credential-{name}") if re.fullmatch(r"[A-Za-z0-9_-]+", name) else None
    if program is None:
        raise EdgemlError(f"docker's configuration names the helper '{name}', which is not on the PATH; install it")
    asked = subprocess.run([program, "get"], input=host, capture_output=True, text=True, timeout=_SECONDS)
    if asked.returncode:  # it knows none
        return NOBODY
    found = json.loads(asked.stdout)
    user, secret = str(found.get("Username", "")), str(found.get("Secret", ""))
    return Credential(identity_token=secret) if user == _TOKEN_USER else Credential(user, secret)
