"""The text in artifacts: as it stands, decoded, taken out of structures, and salvaged from binary formats.

Every `Text` says where it was found and through which decodings. Nothing here judges; the more that is found,
the more the content rules see. Limits bound the work, not the verdict: what is larger has been refused by policy.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from edgeml.airlock.finding import Artifact, Text
from edgeml.airlock.intake import decodings, formats, json_views, salvage
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
        yield from json_views.of(text, known)


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
