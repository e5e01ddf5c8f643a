"""Shared access signatures that Azure Stack Hub accepts.

The SDK signs with its newest service version only and offers no way to ask for another; Stack Hub knows nothing
newer than 2019-07-07. So this signs by hand, as the public specification of a service SAS of that version says
(version 2018-11-09 and later, before 2020-12-06: no field for an encryption scope). Proven against Azurite; that a
real stamp agrees is an assumption.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
from datetime import UTC, datetime
from urllib.parse import urlencode

from edgeml.storage.blob_client import API_VERSION


def container_sas(
    account: str,
    key: str,
    container: str,
    *,
    expires: datetime,
    starts: datetime | None = None,
    permissions: str = "rl",
    addresses: str = "",
) -> str:
    """A token for one container, by default to read and list only.

    `key` is the account key in base64, `expires` and `starts` are points in time with a zone, `addresses` is one IP
    address or a range `a-b`. HTTPS is demanded, always.
    """
    fields = {
        "sp": permissions,
        "st": _stamp(starts) if starts else "",
        "se": _stamp(expires),
        "canonicalized resource": f"/blob/{account}/{container}",
        "si": "",
        "sip": addresses,
        "spr": "https",
        "sv": API_VERSION,
        "sr": "c",
        "snapshot": "",
        "rscc": "",
        "rscd": "",
        "rsce": "",
        "rscl": "",
        "rsct": "",
    }
    signature = hmac.new(base64.b64decode(key), "\n".join(fields.values()).encode(), hashlib.sha256).digest()
    sent = {name: value for name, value in fields.items() if value and " " not in name}
    return urlencode({**sent, "sig": base64.b64encode(signature).decode()})


def _stamp(when: datetime) -> str:
    if when.tzinfo is None:
        raise ValueError("a shared access signature needs points in time with a zone")
    return when.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
