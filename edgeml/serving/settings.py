"""What the environment says: EDGEML_SERVE_<NAME>, each with a default; an unknown or senseless one stops the start."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

PREFIX = "EDGEML_SERVE_"
LOGGED = ("all", "errors")
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,254}")  # as the registry has it; it becomes a part of a path


class Unusable(Exception):  # noqa: N818 - told as one sentence, then the process ends
    """Why the server cannot start: the cause, then the fix."""


@dataclass(frozen=True)
class Settings:
    """Times are seconds, sizes bytes."""

    model: str = "/model"  # folder of a release, or an ONNX file
    name: str = "model"
    version: str = ""  # empty: the first twelve digits of the model's SHA-256
    host: str = "0.0.0.0"  # noqa: S104 - in a container, all its interfaces are the one it was given
    port: int = 8080
    log: str = "all"  # or "errors": only answers of 400 and above, start and end
    threads: int = 1  # of one call of the model; small models are slower with more
    body_bytes: int = 8 << 20
    rows: int = 10_000
    connections: int = 1_000
    buffer_bytes: int = 64 << 20  # request bodies held at once, over all connections
    request_seconds: int = 10  # to send one request whole, or to take its answer
    idle_seconds: int = 75  # between two requests; longer than the 60 s of common load balancers
    drain_seconds: int = 1  # still listening after SIGTERM, every answer saying `Connection: close`
    stop_seconds: int = 20  # for requests in progress after that


RANGES = {
    "port": (0, 65_535),
    "threads": (1, 256),
    "body_bytes": (1_024, 1 << 30),
    "rows": (1, 10_000_000),
    "connections": (1, 100_000),
    "buffer_bytes": (1_024, 1 << 34),
    "request_seconds": (1, 3_600),
    "idle_seconds": (1, 3_600),
    "drain_seconds": (0, 600),
    "stop_seconds": (0, 3_600),
}


def read(environment: Mapping[str, str]) -> Settings:
    """The settings of an environment. Raises Unusable."""
    known = {PREFIX + field.name.upper(): field.name for field in fields(Settings)}
    given: dict[str, Any] = {}
    for variable, value in environment.items():
        if not variable.startswith(PREFIX):
            continue
        if variable not in known:
            raise Unusable(f"{variable} is no setting of the server; it knows {', '.join(sorted(known))}")
        name = known[variable]
        given[name] = _number(variable, value, *RANGES[name]) if name in RANGES else value
    settings = Settings(**given)
    if settings.log not in LOGGED:
        raise Unusable(f"{PREFIX}LOG must be one of {', '.join(LOGGED)}")
    for name, value in (("NAME", settings.name), ("VERSION", settings.version or "1")):
        if not NAME.fullmatch(value):
            raise Unusable(f"{PREFIX}{name} must be of letters, digits, '.', '_' and '-'")
    if settings.buffer_bytes < settings.body_bytes:
        raise Unusable(f"{PREFIX}BUFFER_BYTES must be at least {PREFIX}BODY_BYTES")
    return settings


def _number(variable: str, value: str, low: int, high: int) -> int:
    if not re.fullmatch(r"[0-9]{1,12}", value) or not low <= int(value) <= high:
        raise Unusable(f"{variable} must be a whole number from {low} to {high}")
    return int(value)
