"""Records as GitHub holds them at a commit, by the Git data API: exact blobs, no links, no checkout."""

from __future__ import annotations

import base64
import re
import tempfile
from pathlib import Path
from typing import NamedTuple

from edgeml.errors import EdgemlError
from edgeml.gitops import record as records
from edgeml.gitops.github import AbsentError, Repository
from edgeml.gitops.record import Record

REGULAR = "100644"
_DESCENDS = frozenset({"ahead", "identical"})
_SHA = re.compile(r"[0-9a-f]{40}")
_MOST_BASES = 5


class Held(NamedTuple):
    """A record at a commit, and the blobs that it is made of by path."""

    record: Record
    blobs: dict[str, str]


def tag_commit(repository: Repository, tag: str) -> str:
    """The commit that a tag names, through annotated tags. Raises `AbsentError` without such a tag."""
    found = repository.ask(repository.rest.git.get_ref, f"tags/{tag}").object_
    for _ in range(3):
        if found.type == "commit":
            return str(found.sha)
        found = repository.ask(repository.rest.git.get_tag, found.sha).object_
    raise EdgemlError(f"the tag {tag} names no commit; tag a commit of {repository.branch}", 1)


def contains(repository: Repository, head: str, commit: str) -> bool:
    """Whether `head`, a branch or commit, contains a commit."""
    compared = repository.ask(repository.rest.repos.compare_commits, f"{commit}...{head}", per_page=1)
    return compared.status in _DESCENDS


def blobs(repository: Repository, commit: str) -> dict[str, str]:
    """The regular files directly in `deployments/` at a commit: their blobs by path."""
    folder = {entry.path: entry for entry in _tree(repository, commit)}.get(records.FOLDER)
    if folder is None or folder.type != "tree":
        return {}
    return {
        f"{records.FOLDER}/{entry.path}": entry.sha for entry in _tree(repository, folder.sha) if entry.mode == REGULAR
    }


def text_of(repository: Repository, blob: str) -> str:
    """A blob as text. Raises EdgemlError where it is none."""
    held = repository.ask(repository.rest.git.get_blob, blob)
    try:
        return (base64.b64decode(held.content) if held.encoding == "base64" else held.content.encode()).decode("utf-8")
    except ValueError:
        raise EdgemlError(f"the blob {blob} is no UTF-8 text; restore the file", 1) from None


def texts_at(repository: Repository, site: str, held: dict[str, str]) -> dict[str, str]:
    """The texts of a site's record and its bases by path, of the blobs that a commit holds."""
    texts: dict[str, str] = {}
    path = records.path_of(site)
    while path in held and path not in texts and len(texts) <= _MOST_BASES:
        texts[path] = text_of(repository, held[path])
        path = f"{records.FOLDER}/{records.base_of(texts[path])}"
    return texts


def record_at(repository: Repository, site: str, commit: str) -> Held:
    """The record of a site at a commit. Raises EdgemlError, exit code 1, where there is none or it is wrong."""
    held = blobs(repository, commit)
    record = read(texts_at(repository, site, held), site)
    return Held(record, {path: held[path] for path in record.files})


def read(texts: dict[str, str], site: str) -> Record:
    """A record from texts instead of files, by the same rules."""
    with tempfile.TemporaryDirectory(prefix="edgeml-record-") as root:
        for path, text in texts.items():
            file = Path(root, path)
            file.parent.mkdir(exist_ok=True)
            file.write_text(text, "utf-8", newline="")
        return records.read(root, site)


def file_at(repository: Repository, path: str, commit: str) -> str | None:
    """The text of one file at a commit, None where there is none."""
    try:
        content = repository.ask(repository.rest.repos.get_content, path, ref=commit)
    except AbsentError:
        return None
    sha = getattr(content, "sha", "")
    if getattr(content, "type", "") != "file" or not _SHA.fullmatch(sha):
        raise EdgemlError(f"{path} is no file at {commit[:12]}; restore it", 1)
    return text_of(repository, sha)


def _tree(repository: Repository, sha: str) -> list[_Entry]:
    tree = repository.ask(repository.rest.git.get_tree, sha)
    if tree.truncated:
        raise EdgemlError(f"the folder {sha[:12]} holds more files than GitHub lists; make it smaller", 1)
    return [_Entry(e.path or "", e.mode or "", e.type or "", e.sha or "") for e in tree.tree]


class _Entry(NamedTuple):
    path: str
    mode: str
    type: str
    sha: str
