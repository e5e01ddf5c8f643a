"""What is sent to the VM: the files of a commit, and files that are handed in as inputs, each by its content."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import NamedTuple

from edgeml.errors import EdgemlError

_LINK, _COMMIT = "120000", "160000"
_BLOCK = 1 << 20


class Tree(NamedTuple):
    """Files as (path, mode, Git's digest), and the digest of them all. `sources` are paths by digest, of files that
    lie outside of a commit; `commit` is empty for those."""

    identity: str
    files: list[tuple[str, str, str]]
    commit: str = ""
    sources: Mapping[str, str] = MappingProxyType({})
    root: str = ""

    def blobs(self, wanted: set[str]) -> Iterator[bytes]:
        """Those of the blobs that are wanted, as the VM's `put` reads them."""
        if self.sources:
            for blob in wanted & self.sources.keys():
                size = os.path.getsize(self.sources[blob])
                yield json.dumps({"name": blob, "size": size}).encode() + b"\n"
                with open(self.sources[blob], "rb") as stream:
                    while block := stream.read(_BLOCK):
                        yield block
            return
        asked = "".join(f"{blob}\n" for _, _, blob in self.files if blob in wanted)
        done = subprocess.run(["git", "cat-file", "--batch"], cwd=self.root, input=asked.encode(), capture_output=True)
        content, sent = memoryview(done.stdout), set()
        while content:
            head, _, _ = bytes(content[:200]).partition(b"\n")
            blob, size = head.decode().split()[0], int(head.split()[2])
            begin = len(head) + 1
            if blob not in sent:
                sent.add(blob)
                yield json.dumps({"name": blob, "size": size}).encode() + b"\n"
                yield bytes(content[begin : begin + size])
            content = content[begin + size + 1 :]


def committed(root: str) -> tuple[Tree, bool]:
    """The tree of the project's last commit, and whether tracked files differ from it. Raises EdgemlError."""
    commit = _git(root, "rev-parse", "--verify", "--quiet", "HEAD").strip()
    if not commit:
        raise EdgemlError(f"{root} has no commit, and the edge runs what is committed; commit your work with git")
    files = []
    for line in _git(root, "ls-tree", "-r", "-z", "HEAD").split("\0")[:-1]:
        head, _, path = line.partition("\t")
        mode, _, blob = head.split()
        if mode in (_LINK, _COMMIT):
            kind = "symbolic link" if mode == _LINK else "submodule"
            raise EdgemlError(f"{path} is a {kind}, which is not sent to the edge; commit its files instead")
        files.append((path, mode, blob))
    dirty = bool(_git(root, "status", "--porcelain", "--untracked-files=no", "--", ".").strip())
    return Tree(_git(root, "rev-parse", "HEAD:./").strip(), files, commit, root=root), dirty


def of_path(path: str) -> Tree:
    """A file or a folder outside of a commit. Raises EdgemlError for what is neither."""
    top = os.path.abspath(path)
    folder = os.path.dirname(top)
    found = [top] if os.path.isfile(top) else []
    for inner, _, names in os.walk(top):
        found += [os.path.join(inner, name) for name in names]
    if not found or not all(os.path.isfile(name) for name in found):
        raise EdgemlError(f"{path} is no file or folder of files, so it cannot be an input; check the path")
    sources: dict[str, str] = {}
    files = []
    for name in sorted(found):
        blob = _blob(name)
        sources[blob] = name
        files.append((os.path.relpath(name, folder), "100644", blob))
    return Tree(hashlib.sha256(json.dumps(files).encode()).hexdigest(), files, sources=sources)


def _blob(path: str) -> str:
    made = hashlib.sha1(b"blob %d\0" % os.path.getsize(path), usedforsecurity=False)
    with open(path, "rb") as stream:
        while block := stream.read(_BLOCK):
            made.update(block)
    return made.hexdigest()


def _git(root: str, *arguments: str) -> str:
    try:
        done = subprocess.run(["git", *arguments], cwd=root, capture_output=True)
    except FileNotFoundError:
        raise EdgemlError("there is no git on this machine, which knows what is committed; install git") from None
    return done.stdout.decode("utf-8", "surrogateescape") if done.returncode == 0 else ""
