"""Whether a package that something installs is exactly the one that it was: of pip, of conda, in any place."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*(\[[^\]]*\])?")
_EXACT = re.compile(r"={2,3}\s*[^\s*,;<>=]+$")
_CONDA_EXACT = re.compile(r"={1,2}[0-9][^\s*,|<>=]*\.[^\s*,|<>=]+(=[^\s*,|<>=]+)?$")
_HASH = re.compile(r"[#&](sha256|sha384|sha512)=[0-9a-f]{64,}")
_COMMIT = re.compile(r"@[0-9a-f]{40}(#|$)")
_LOCAL = re.compile(r"(\.{1,2}(/|$|\[)|/|~/|file:|\S*\.(whl|tar\.gz|zip)$)")
_INSTALL = re.compile(r"(?:^|[\s;&|(/\"'`])(?:uv\s+)?pip[0-9.]*\s+(?:-\S+\s+)*install\s")
_ENDS = frozenset({";", "&", "&&", "|", "||", ")", ">", ">>", "<", "2>"})
_OPTIONS = """
    -c --constraint -r --requirement -i --index-url --extra-index-url -f --find-links -t --target --platform
    --python-version --implementation --abi --root --prefix --src -b --build --progress-bar --cache-dir --log --proxy
    --retries --timeout --exists-action --trusted-host --cert --client-cert --upgrade-strategy --no-binary
    --only-binary --global-option --config-settings -C --root-user-action --report --python -p --index --default-index
"""
_WITH_VALUE = frozenset(_OPTIONS.split())

_LONGEST = 1000  # characters


def why_unpinned(requirement: str) -> str:
    """Why what pip is asked for may be another package tomorrow; empty where it may not.

    `name==version` is exact, so is an address with the digest of its content or with a whole commit, and so is a path,
    whose content is in the repository.
    """
    if len(requirement) > _LONGEST:
        return "is longer than any requirement"
    text = requirement.split(";", 1)[0].strip().strip("\"'")
    name, at, address = text.partition("@")
    named = bool(at and _NAME.fullmatch(name.strip()))
    if "://" in (address if named else text):
        link = address.strip() if named else text
        exact = _HASH.search(link) or (link.startswith("git+") and _COMMIT.search(link))
        return "" if exact or link.startswith("file:") else "names an address that may serve other content"
    if _LOCAL.match(text):
        return ""
    if _EXACT.search(text):
        return ""
    return "is a wildcard" if "*" in text else "names no exact version"


def why_unpinned_conda(dependency: str) -> str:
    """The same for a dependency of a conda file, where `name=1.2.3` is exact."""
    if len(dependency) > _LONGEST:
        return "is longer than any requirement"
    text = dependency.split("#", 1)[0].strip().replace(" =", "=").replace("= ", "=")
    exact = _HASH.search(text) if "://" in text else _CONDA_EXACT.search(text)
    return "" if exact else "names no exact version"


def of_file(text: str) -> Iterator[tuple[int, str]]:
    """The requirements of a requirements file with their lines: no options, no comments, no other files."""
    number = 0
    parts: list[str] = []
    for at, line in enumerate(text.splitlines(), start=1):
        number = number if parts else at
        parts.append(line.rstrip("\\"))
        if line.endswith("\\"):
            continue
        requirement, parts = re.split(r"(?:^|\s)#", "".join(parts), maxsplit=1)[0].strip(), []
        requirement = re.sub(r"^(-e|--editable)[\s=]+", "", requirement)
        if requirement and not requirement.startswith("-"):
            yield number, re.split(r"\s--?[a-z]", requirement, maxsplit=1)[0].strip()


def of_command(text: str) -> Iterator[tuple[int, str]]:
    """What `pip install` is asked for in a shell command, with the offset of the call in its text."""
    flat = re.sub(r"\\\r?\n", "  ", text)
    calls = list(_INSTALL.finditer(flat))
    ends = [*(call.start() for call in calls), len(flat)][1:]
    for match, following in zip(calls, ends, strict=True):
        asked = flat[match.end() : following].partition("\n")[0]
        if match[0][0] in "\"'`":  # the call is a quoted command, which ends with its quote
            asked = asked.partition(match[0][0])[0]
        skip = False
        for word in _words(asked):
            if word in _ENDS:
                break
            if skip or word.startswith("-"):
                skip = not skip and word in _WITH_VALUE
            else:
                yield match.start(), word


def _words(text: str) -> list[str]:
    import shlex

    lexer = shlex.shlex(text, posix=True, punctuation_chars=";&|()")
    lexer.whitespace_split = True
    lexer.commenters = ""
    words: list[str] = []
    with contextlib.suppress(ValueError):  # a quote that is open; what was read so far stands
        words.extend(lexer)
    return words
