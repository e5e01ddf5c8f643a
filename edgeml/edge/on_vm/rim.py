"""Files, locks and answers, as all programs on the VM use them."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import re
import sys
from collections.abc import Iterator
from typing import Any

NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,199}")
_HEX = re.compile(r"[0-9a-f]{8,128}")


class Refused(Exception):  # noqa: N818 - an answer
    """What this machine will not do: a word, and what belongs to it."""

    def __init__(self, word: str, what: str = "") -> None:
        super().__init__(word, what)


def hexadecimal(text: Any) -> str:
    """A digest that becomes part of a path."""
    if not isinstance(text, str) or not _HEX.fullmatch(text):
        raise Refused("name", str(text)[:200])
    return text


@contextlib.contextmanager
def locked(root: str, name: str) -> Iterator[None]:
    """One at a time on this machine; freed with the process."""
    with open(os.path.join(root, name + ".lock"), "w") as stream:
        fcntl.flock(stream, fcntl.LOCK_EX)
        yield


def text(path: str) -> str:
    with open(path, encoding="utf-8", errors="replace") as stream:
        return stream.read()


def read(path: str) -> Any:
    """A JSON file's content; None where there is none to read."""
    try:
        return json.loads(text(path))
    except (OSError, ValueError):
        return None


def content(path: str) -> bytes:
    with open(path, "rb") as stream:
        return stream.read()


def write(path: str, content: Any) -> None:
    """Replace a JSON file, whole or not at all."""
    replace(path, json.dumps(content).encode())


def replace(path: str, content: bytes) -> None:
    """Replace a file, whole or not at all."""
    unfinished = f"{path}.{os.getpid()}"
    try:
        with open(unfinished, "wb") as stream:
            stream.write(content)
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(unfinished, path)
    finally:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(unfinished)


def say(answer: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(answer) + "\n")
    sys.stdout.flush()
