"""What lies inside archives and compressed files, down to a depth and within limits of bytes.

Nothing is written to disk, so no member's name can lead anywhere. No archive leaves; it is opened so that the
content rules see what was in it.
"""

from __future__ import annotations

import bz2
import io
import lzma
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from edgeml.airlock.finding import POLICY, Artifact, Finding, Rule, Text
from edgeml.airlock.intake import formats

DEPTH = 16  # the bytes of all levels are counted together
MEMBERS = 2_000
BYTES = 128 << 20  # of everything that was unwrapped, per file
PIECE = 1 << 20

RULES = (
    Rule("archive.limit", POLICY, "archives open within limits", "An archive that does not end (a bomb, or nested ever "
         "deeper) keeps its inside from being looked at.", waivable=False),
    Rule("archive.member", POLICY, "archives hold plain files at plain paths", "A member that is a link, or whose path "
         "leads out of the archive, is made to fool what opens it.", waivable=False),
    Rule("archive.broken", POLICY, "archives can be opened", "What cannot be opened here, because it is encrypted or "
         "damaged, cannot be looked at.", waivable=False),
    Rule("archive.hidden", POLICY, "a file is one thing", "A file that is an archive as well as what its name says "
         "shows one side to a check and the other to its reader.", waivable=False),
)  # fmt: skip

FIXES = {
    "archive.limit": "leave archives out",
    "archive.member": "leave archives out",
    "archive.broken": "leave archives out",
    "archive.hidden": "write the file as nothing but what its name says",
}


class Unwrapped(NamedTuple):
    """Everything inside the artifacts, the names of members as texts, and why something could not be opened."""

    artifacts: list[Artifact]
    names: list[Text]
    findings: list[Finding]


class _Limit(Exception):  # noqa: N818
    pass


class _Room:
    """What is left of the limits, shared by one file and everything inside of it."""

    def __init__(self) -> None:
        self.bytes, self.members = BYTES, MEMBERS

    def read(self, stream: Any) -> bytes:
        """All of a stream, piece by piece, so that a bomb is noticed before it is whole."""
        pieces = []
        while piece := stream.read(PIECE):
            self.take(len(piece))
            pieces.append(piece)
        return b"".join(pieces)

    def take(self, count: int) -> None:
        self.bytes -= count
        if self.bytes < 0:
            raise _Limit

    def member(self) -> None:
        self.members -= 1
        if self.members < 0:
            raise _Limit


def unwrap(artifacts: list[Artifact]) -> Unwrapped:
    """Open every artifact that is an archive, and what is inside."""
    result = Unwrapped([], [], [])
    for artifact in artifacts:
        _open(artifact, 0, _Room(), result)
    return result


def _open(artifact: Artifact, depth: int, room: _Room, result: Unwrapped) -> None:
    opener = OPENERS.get(artifact.format)
    if opener is None:
        opener = _hidden(artifact, result)
    if opener is None:
        return
    if depth == DEPTH:
        _refuse(result, "archive.limit", artifact.name, f"nested deeper than {DEPTH} archives")
        return
    try:
        for number, (name, data, odd) in enumerate(opener(artifact.data, room)):
            inner = f"{artifact.name}!{number}{formats.suffix(name)}"
            if odd:
                _refuse(result, "archive.member", inner, odd)
            if name:
                result.names.append(Text(inner, "name of an archive's member", name))
            member = Artifact(inner, formats.of(data, name), data)
            result.artifacts.append(member)
            _open(member, depth + 1, room, result)
    except _Limit:
        _refuse(
            result, "archive.limit", artifact.name, f"holds more than {BYTES >> 20} MiB or {MEMBERS} members unwrapped"
        )
    except Exception as error:  # its message may quote the content
        _refuse(result, "archive.broken", artifact.name, f"cannot be opened ({type(error).__name__})")


def _refuse(result: Unwrapped, rule: str, file: str, message: str) -> None:
    if all((found.rule, found.file) != (rule, file) for found in result.findings):
        result.findings.append(Finding(rule, file, "", message, FIXES[rule]))


_Members = Iterator[tuple[str, bytes, str]]  # name, content, what is odd about it


def _hidden(artifact: Artifact, result: Unwrapped) -> Callable[[bytes, _Room], _Members] | None:
    """The opener of an archive behind or within another format."""
    if b"PK\x05\x06" in artifact.data and zipfile.is_zipfile(io.BytesIO(artifact.data)):
        _refuse(result, "archive.hidden", artifact.name, "a ZIP archive lies within the file")
        return _zip
    return None


def _zip(data: bytes, room: _Room) -> _Members:
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        if archive.comment:
            yield "", archive.comment, ""
        if (start := min((info.header_offset for info in archive.infolist()), default=0)) > 0:
            yield "", data[:start], ""
        for info in archive.infolist():
            room.member()
            if info.comment or info.extra:
                yield "", info.comment + info.extra, ""
            if info.is_dir():
                yield info.filename, b"", _odd_path(info.filename)
                continue
            odd = "a link" if stat.S_ISLNK(info.external_attr >> 16) else _odd_path(info.filename)
            with archive.open(info) as stream:
                yield info.filename, room.read(stream), odd


def _tar(data: bytes, room: _Room) -> _Members:
    with tarfile.open(fileobj=io.BytesIO(data), mode="r:") as archive:
        for member in archive:
            room.member()
            about = "\n".join([member.linkname, member.uname, member.gname, *map(str, member.pax_headers.values())])
            if about.strip():
                yield "", about.encode("utf-8", "replace"), ""
            if member.isreg():
                stream = archive.extractfile(member)
                yield member.name, room.read(stream) if stream else b"", _odd_path(member.name)
            else:
                yield member.name, b"", "" if member.isdir() else "neither a file nor a folder"


def _odd_path(name: str) -> str:
    plain = not name.startswith(("/", "\\")) and ".." not in name.replace("\\", "/").split("/") and ":" not in name
    return "" if plain else "a path that leads out of the archive"


def _gzip(data: bytes, room: _Room) -> _Members:
    header = data[3:4]
    if header and header[0] & 0b11000:  # the name of the original file, or a comment
        for piece in data[10:2048].split(b"\x00")[:2]:
            yield "", piece, ""
    yield from _stream(lambda: zlib.decompressobj(31))(data, room)


def _stream(make: Callable[[], Any]) -> Callable[[bytes, _Room], _Members]:
    """The opener of a compressed stream, or of several one after the other, with what lies behind them."""

    def opened(data: bytes, room: _Room) -> _Members:
        whole, rest = [], data
        while rest:
            decoder = make()
            pending = rest
            try:
                while not decoder.eof and pending:
                    piece = decoder.decompress(pending, PIECE)
                    room.take(len(piece))
                    whole.append(piece)
                    pending = getattr(decoder, "unconsumed_tail", b"")
                    if not pending and not decoder.eof:
                        if getattr(decoder, "needs_input", True):
                            raise EOFError
                        while not decoder.eof and not decoder.needs_input:
                            piece = decoder.decompress(b"", PIECE)
                            room.take(len(piece))
                            whole.append(piece)
            except (zlib.error, OSError, lzma.LZMAError, ValueError, EOFError):
                if len(rest) == len(data):
                    if not whole:
                        raise
                else:  # what lies behind a stream that ended well
                    yield "", rest, ""
                break
            rest = decoder.unused_data
        yield "", b"".join(whole), ""

    return opened


OPENERS: dict[str, Callable[[bytes, _Room], _Members]] = {
    "zip": _zip,
    "tar": _tar,
    "gzip": _gzip,
    "zlib": _stream(zlib.decompressobj),
    "bz2": _stream(bz2.BZ2Decompressor),
    "xz": _stream(lzma.LZMADecompressor),
}
