"""What a Dockerfile takes from elsewhere: the images that it names and the commands that it runs."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import NamedTuple

_ARG = re.compile(r"\$(?:\{(?P<braced>\w+)(?::-(?P<fallback>[^}]*))?\}|(?P<plain>\w+))")
_MOUNTED = re.compile(r"--mount=\S*?\bfrom=([^,\s]+)")
_HEREDOC = re.compile(r"<<-?\s*[\"']?(\w+)[\"']?")


class Instruction(NamedTuple):
    """One instruction in capitals with the rest of its line, and the line that it begins on."""

    line: int
    name: str
    rest: str


class Image(NamedTuple):
    """An image that a Dockerfile names; empty where it depends on an argument without a default, `argument`."""

    line: int
    reference: str
    argument: str = ""


def instructions(text: str) -> Iterator[Instruction]:
    """The instructions, with continued lines joined, comments left out and here-documents kept in the rest."""
    lines = [line.strip() for line in text.splitlines()]
    last = {line: number for number, line in enumerate(lines)}
    at = 0
    while at < len(lines):
        begin, parts = at, [lines[at]]
        at += 1
        if not parts[0] or parts[0].startswith("#"):
            continue
        while parts[-1].endswith("\\") and at < len(lines):
            if not lines[at].startswith("#"):
                parts[-1] = parts[-1][:-1]
                parts.append(lines[at])
            at += 1
        line = " ".join(parts)
        for marker in _HEREDOC.findall(line):
            if last.get(marker, -1) >= at:  # else it is no here-document, and what follows must not be hidden
                end = lines.index(marker, at)
                line = "\n".join([line, *lines[at:end]])
                at = end + 1
        name, _, rest = line.partition(" ")
        yield Instruction(begin + 1, name.upper(), rest.strip())


def commands(text: str) -> Iterator[tuple[int, str]]:
    """The shell commands that a Dockerfile runs, also those written as lists, with their lines."""
    for line, name, rest in instructions(text):
        if name == "RUN":
            command = re.sub(r"^(--\S+\s+)+", "", rest)
            words = _list(command) if command.startswith("[") else None
            yield line, command if words is None else " ".join(words)


def _list(text: str) -> list[str] | None:
    try:
        words = json.loads(text)
    except ValueError:
        return None
    return [str(word) for word in words] if isinstance(words, list) else None


def images(text: str) -> Iterator[Image]:
    """The images that are built upon or copied from; neither `scratch` nor the stages of the file itself."""
    arguments: dict[str, str] = {}
    stages: set[str] = set()
    begun = False
    for line, name, rest in instructions(text):
        if name == "ARG" and not begun:
            for assignment in rest.split():
                key, given, default = assignment.partition("=")
                if given:
                    arguments[key] = _filled(default.strip("\"'"), arguments)[0]
        elif name == "FROM":
            begun = True
            words = [word for word in rest.split() if not word.startswith("--")]
            if words and words[0].lower() not in stages:
                reference, missing = _filled(words[0], arguments)
                if reference != "scratch" or missing:
                    yield Image(line, "" if missing else reference, missing)
            if len(words) == 3 and words[1].upper() == "AS":
                stages.add(words[2].lower())
        else:
            named = [word.removeprefix("--from=") for word in rest.split() if word.startswith("--from=")]
            for reference in [*(named if name in ("COPY", "ADD") else []), *(_MOUNTED.findall(rest))]:
                if not reference.isdigit() and reference.lower() not in stages:
                    yield Image(line, reference)


def _filled(text: str, arguments: dict[str, str]) -> tuple[str, str]:
    """The text with its arguments' defaults, and the first argument that has none."""
    missing = ""

    def fill(match: re.Match[str]) -> str:
        nonlocal missing
        name = match["braced"] or match["plain"]
        value = arguments.get(name) or match["fallback"] or ""
        missing = missing or ("" if value else name)
        return value

    return _ARG.sub(fill, text), missing
