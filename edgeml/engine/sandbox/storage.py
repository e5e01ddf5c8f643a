"""The gate of the one step that needs the private storage: exactly one address, and no other."""

from __future__ import annotations

import ipaddress
import os
import shutil
import tempfile
from collections.abc import Mapping
from urllib.parse import urlsplit

from edgeml.engine.sandbox.relay import Relay
from edgeml.engine.step import StepFailed

INSIDE = "/run/edgeml/storage.sock"
_ADDRESS = "EDGEML_STORAGE_ACCOUNT_URL"
_RELAY = os.path.join(os.path.dirname(os.path.abspath(__file__)), "relay.py")


class Gate:
    """A socket that leads to the storage, in a folder that only this user can enter; removed with `close`.

    `address` and `port` are where it is expected inside, on loopback: the storage keeps its URL, and its name its
    certificate.
    """

    def __init__(self, host: str, port: int) -> None:
        self.host, self.port = host, port
        self.address = _loopback(host)
        self._folder = tempfile.mkdtemp(prefix="edgeml-")
        self.socket = os.path.join(self._folder, "storage.sock")
        self._relay = Relay(self.socket, host, port)

    @property
    def hosts(self) -> str:
        """The line of the hosts file by which the storage's name leads here."""
        return "" if _literal(self.host) or self.host == "localhost" else f"{self.address} {self.host}\n"

    def command(self, python: str, line: list[str], relay: str = _RELAY) -> list[str]:
        """A command with the inner end of the relay around it."""
        return [python, "-I", "-S", relay, INSIDE, self.address, str(self.port), *line]

    def close(self) -> None:
        self._relay.close()
        shutil.rmtree(self._folder, ignore_errors=True)


def gate_of(environment: Mapping[str, str]) -> Gate | None:
    """The gate for a step that was given the storage's address, None for every other. Raises StepFailed."""
    if not environment.get(_ADDRESS):
        return None
    url = urlsplit(environment[_ADDRESS])
    try:
        port = url.port or 443
    except ValueError:
        port = 0
    if url.scheme != "https" or not url.hostname or not port:
        raise StepFailed(f"was not started: {_ADDRESS} is no https:// address; mend it")
    return Gate(url.hostname, port)


def _loopback(host: str) -> str:
    literal = _literal(host)
    if literal is None:
        return "127.0.0.1"
    if not literal.is_loopback:
        raise StepFailed(
            f"was not started: {_ADDRESS} names a number, which leads nowhere within the sandbox; give the host's name"
        )
    return str(literal)


def _literal(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(host)
    except ValueError:
        return None
