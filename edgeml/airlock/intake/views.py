"""The text in artifacts: as it stands, decoded, taken out of structures, and salvaged from binary formats.

Every `Text` says where it was found and through which decodings. Nothing here judges; the more that is found,
the more the content rules see. Limits bound the work, not the verdict: what is larger has been refused by policy.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator
from typing import Any

from edgeml.airlock.finding import Artifact, Text
from edgeml.airlock.intake import decodings, formats, salvage
from edgeml.airlock.intake.unwrap import unwrap

DEPTH = 4  # decodings within decodings
CHARACTERS = 64 << 20  # per artifact, of everything that was decoded


def of(artifacts: Iterable[Artifact], known: frozenset[str] = frozenset()) -> list[Text]:
    """Every text of every artifact. `known` are the keys that a place may name; another key may be private."""
    texts: list[Text] = []
    for artifact in artifacts:
        room = [CHARACTERS]
        for place, text in _of(artifact, known):
            if text.strip():
                texts.append(Text(artifact.name, place, text))
                texts += [Text(artifact.name, *found) for found in _decoded(place, text, DEPTH, room)]
    return texts


def decoded(texts: Iterable[Text]) -> list[Text]:
    """The texts, and what is encoded in them: for names of files, which come from no artifact."""
    all_texts = []
    for text in texts:
        all_texts.append(text)
        all_texts += [Text(text.file, *found) for found in _decoded(text.place, text.text, DEPTH, [CHARACTERS])]
    return all_texts


def _of(artifact: Artifact, known: frozenset[str]) -> Iterator[tuple[str, str]]:
    data = artifact.data
    if artifact.format == "onnx":
        yield from salvage.onnx(data)
        return
    text = formats.as_text(data)
    if text is None:
        yield from salvage.binary(data, artifact.format)
        return
    yield "text", text
    if artifact.format in ("json", "notebook"):
        yield from _json(text, known)


def _json(text: str, known: frozenset[str]) -> Iterator[tuple[str, str]]:
    """Strings one by one, and the scalars of each innermost object or list as one line."""
    for number, document in enumerate(_documents(text)):
        place = "$" if number == 0 else f"line {number + 1}"
        strings: dict[str, list[str]] = {}
        lines: dict[str, list[str]] = {}
        try:
            _flatten(document, place, known, strings, lines)
        except RecursionError:
            continue
        yield from ((where, "\n".join(found)) for where, found in strings.items())
        yield from ((where, "\n".join(found)) for where, found in lines.items())


def _documents(text: str) -> Iterator[Any]:
    try:
        yield json.loads(text)
        return
    except (ValueError, RecursionError):
        pass
    for line in text.splitlines()[:100_000]:
        try:
            yield json.loads(line)
        except (ValueError, RecursionError):
            continue


def _flatten(
    value: Any, place: str, known: frozenset[str], strings: dict[str, list[str]], lines: dict[str, list[str]]
) -> None:
    children: Iterable[tuple[str, Any]]
    if isinstance(value, dict):
        children = [
            (f"{place}.{key if key in known else f'#{i}'}", item) for i, (key, item) in enumerate(value.items())
        ]
        strings.setdefault(f"{place} keys", []).extend(key for key in value if key not in known)
    elif isinstance(value, list):
        children = ((f"{place}[]", item) for item in value)
    else:
        children = [(place, value)]
    scalars = []
    for where, item in children:
        if isinstance(item, dict | list):
            _flatten(item, where, known, strings, lines)
        elif isinstance(item, str):
            strings.setdefault(where, []).append(item)
            scalars.append(item)
        elif isinstance(item, float | int) and not isinstance(item, bool) and math.isfinite(item):
            scalars.append(repr(item))
    if len(scalars) > 1:
        lines.setdefault(f"{place} values", []).append(" ".join(scalars))


def _decoded(place: str, text: str, depth: int, room: list[int]) -> Iterator[tuple[str, str]]:
    """What is encoded in a text, and in what that decodes to."""
    if depth == 0:
        return
    seen = {text}
    for way, found in decodings.of(text):
        where = f"{place}, {way}"
        inner = _bytes(where, found) if isinstance(found, bytes) else [(where, found)]
        for inside, content in inner:
            if content in seen or not content.strip():
                continue
            seen.add(content)
            room[0] -= len(content)
            if room[0] < 0:
                return
            yield inside, content
            if way not in decodings.LAST:
                yield from _decoded(inside, content, depth - 1, room)


def _bytes(place: str, data: bytes) -> Iterator[tuple[str, str]]:
    """The texts of bytes that were encoded as text: a file within a text."""
    whole = Artifact("", formats.of(data), data)
    for artifact in [whole, *unwrap([whole]).artifacts]:
        where = place if artifact.format in ("text", "binary") else f"{place}, {artifact.format}"
        for inside, text in _of(artifact, frozenset()):
            yield where if inside == "text" else f"{where}, {inside}", text
