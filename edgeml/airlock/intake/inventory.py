"""Which files want to leave, and their bytes, each read once.

Default deny: a file leaves only under a name of `LEAVES`, at the top of a folder, as a regular file within its
budget. Everything else is refused, and yet read as far as the limits go, so that the content rules see it, too.
A name that is not on the list may itself be a private value: findings call such a file by a number of ours.
"""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from edgeml.airlock.finding import POLICY, Artifact, Finding, Rule, Text
from edgeml.airlock.intake import formats
from edgeml.airlock.intake.strict_json import Refused

MEBIBYTE = 1 << 20
LEAVES = {  # name: budget in bytes
    "model.onnx": 20 * MEBIBYTE,
    "signature.json": MEBIBYTE // 4,
    "metrics.json": MEBIBYTE // 16,
    "curves.json": MEBIBYTE // 16,
    "confusion.json": MEBIBYTE // 16,
    "slices.json": MEBIBYTE // 4,
    "importance.json": MEBIBYTE // 4,
    "promotion.json": MEBIBYTE // 16,
}
STAYS = frozenset({"parity.json"})  # known, and never leaves
TOTAL_BUDGET = 21 * MEBIBYTE
SCANNED_FILE = 64 * MEBIBYTE  # of a file that is refused anyway
SCANNED_TOTAL = 256 * MEBIBYTE
ENTRIES = 10_000

RULES = (
    Rule("inventory.unlisted", POLICY, "only listed files leave", "What no rule understands cannot be judged. Plots "
         "and pages are drawn outside from the JSON files that left, logs and models in other formats stay."),
    Rule("inventory.kind", POLICY, "only regular files leave", "A link shows to other files, a FIFO, a socket or a "
         "device has no content that could be checked.", waivable=False),
    Rule("inventory.format", POLICY, "a file is what its name says", "Formats that carry objects or whole tables "
         "(pickle, NumPy, HDF5, Parquet, archives, images, pages) hold rows in forms without end."),
    Rule("inventory.missing", POLICY, "a release is complete", "A model without its signature, metrics and verdict "
         "cannot be judged by those who get it.", waivable=False),
    Rule("inventory.many", POLICY, "few files", "Thousands of files are a channel by their number and names.",
         waivable=False),
    Rule("budget.file", POLICY, "each file has a budget of bytes", "What is larger than its purpose needs has room "
         "for rows.", waivable=False),
    Rule("budget.total", POLICY, "all files have one budget of bytes", "What is larger than its purpose needs has "
         "room for rows.", waivable=False),
)  # fmt: skip

FIXES = {
    "inventory.unlisted": "write only the listed files into the folders that want to leave",
    "inventory.kind": "write the file itself",
    "inventory.format": "write the file in the format of its name",
    "inventory.missing": "let the step write the file",
    "inventory.many": "write only the listed files",
    "budget.file": "write less: fewer points, fewer features, a smaller model",
    "budget.total": "write less: fewer points, fewer features, a smaller model",
}


@dataclass
class Inventory:
    """What was found: every file as an artifact, the bytes of those on the list, names as texts, and findings."""

    artifacts: list[Artifact] = field(default_factory=list)
    listed: dict[str, bytes] = field(default_factory=dict)
    names: list[Text] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)
    digests: dict[str, tuple[int, str]] = field(default_factory=dict)
    entries: int = 0
    scanned: int = 0

    def refuse(self, rule: str, file: str, message: str) -> None:
        self.findings.append(Finding(rule, file, "", message, FIXES[rule]))


def take(folders: Iterable[Path]) -> Inventory:
    """Read everything below the folders. Raises OSError where one of them cannot be read at all."""
    found = Inventory()
    for folder in folders:
        os.stat(folder)
        for path, inside, directory in _walk(folder):
            found.entries += 1
            if found.entries > ENTRIES:
                found.refuse("inventory.many", "", f"more than {ENTRIES} entries; the rest was not looked at")
                return found
            _take(found, path, inside, directory)
    return found


def _walk(folder: Path) -> Iterator[tuple[str, str, int]]:
    """Every entry that is no folder, as its name, its path inside, and the open folder that holds it."""

    def broken(error: OSError) -> None:
        raise error

    for where, folders, files, directory in os.fwalk(folder, follow_symlinks=False, onerror=broken):
        folders.sort()
        inside = os.path.relpath(where, folder)
        # A link to a folder is listed as a folder, yet not entered.
        links = [name for name in folders if stat.S_ISLNK(os.lstat(name, dir_fd=directory).st_mode)]
        empty = [] if inside == "." or files or folders else [""]
        for name in sorted([*files, *links, *empty]):
            yield name, name if inside == "." else os.path.join(inside, name), directory


def _take(found: Inventory, name: str, inside: str, directory: int) -> None:
    if inside in STAYS and _is_file(name, directory):
        return
    title = inside if inside in LEAVES else f"entry-{found.entries}{formats.suffix(name)}"
    if title in found.listed:
        title = f"entry-{found.entries}{formats.suffix(name)}"
        found.refuse("inventory.unlisted", title, "a second file of a listed name")
    elif title != inside:
        found.refuse("inventory.unlisted", title, "the file is not on the list of what may leave")
        found.names.append(Text(title, "file name", inside))
    if not name:
        return
    budget = LEAVES.get(title, 0)
    try:
        data = _read(name, directory, max(budget, min(SCANNED_FILE, SCANNED_TOTAL - found.scanned)), title)
    except Refused as refused:
        found.refuse(refused.rule, title, refused.detail)
        return
    except OSError as error:
        found.refuse("inventory.kind", title, f"cannot be read ({error.strerror})")
        return
    found.scanned += len(data)
    shown = formats.of(data, name)
    found.artifacts.append(Artifact(title, shown, data))
    found.digests[title] = (len(data), hashlib.sha256(data).hexdigest())
    if title in LEAVES:
        if len(data) > budget:
            found.refuse("budget.file", title, f"larger than its budget of {budget} bytes")
        else:
            found.listed[title] = data
        if shown != title.rpartition(".")[2]:
            found.refuse("inventory.format", title, "the content is not what the name says")


def _is_file(name: str, directory: int) -> bool:
    return stat.S_ISREG(os.lstat(name, dir_fd=directory).st_mode)


def _read(name: str, directory: int, most: int, title: str) -> bytes:
    """At most one byte more than `most`. Between the look and the reading nothing can be put in its place."""
    try:
        handle = os.open(name, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_NOCTTY, dir_fd=directory)
    except OSError:
        if stat.S_ISREG(os.lstat(name, dir_fd=directory).st_mode):
            raise
        raise Refused("inventory.kind", "not a regular file", title) from None
    with open(handle, "rb") as file:
        if not stat.S_ISREG(os.fstat(handle).st_mode):
            raise Refused("inventory.kind", "not a regular file", title)
        return file.read(most + 1)


def read_file(path: Path, budget: int, title: str) -> bytes:
    """The bytes of one regular file that stays, of limited size; raise Refused where it is another thing."""
    try:
        with open(os.open(path, os.O_RDONLY | os.O_NONBLOCK), "rb") as file:
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                raise Refused("inventory.kind", "not a regular file", title)
            content = file.read(budget + 1)
    except OSError as error:
        raise Refused("inventory.missing", f"cannot be read ({error.strerror})", title) from None
    if len(content) > budget:
        raise Refused("budget.file", f"larger than its budget of {budget} bytes", title)
    return content
