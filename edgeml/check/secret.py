"""Credentials by their form. What was found is never shown, only where and of which kind it is."""

from __future__ import annotations

import re
from collections.abc import Iterator

# A kind, words of which one must occur for the pattern to be tried at all, and the pattern. Every repetition is
# bounded, so that no text takes more than linear time.
_KINDS: tuple[tuple[str, tuple[str, ...], str], ...] = (
    ("an access key of AWS", ("AKIA", "ASIA"), r"\b(?:AKIA|ASIA)[0-9A-Z]{16}\b"),
    ("a storage account's key", ("AccountKey=",), r"AccountKey=[A-Za-z0-9+/]{40,200}"),
    ("a shared access signature", ("sig=",), r"\bsig=[A-Za-z0-9%+/]{40,200}"),
    ("a shared access key", ("SharedAccessKey=",), r"SharedAccessKey=[A-Za-z0-9+/]{30,200}"),
    ("a private key", ("PRIVATE KEY",), r"-----BEGIN (?:[A-Z]{1,20} ){0,3}PRIVATE KEY-----"),
    ("a signed token (JWT)", ("eyJ",), r"\beyJ[\w-]{10,400}\.eyJ[\w-]{10,2000}\.[\w-]{10,}"),
    ("a client secret of Entra ID", ("Q~",), r"(?<![\w~.-])[\w~.-]{3}\dQ~[\w~.-]{31,34}(?![\w~.-])"),
    ("a token of GitHub", ("gh",), r"\b(?:gh[pousr]_[A-Za-z0-9]{36,200}|github_pat_\w{50,200})"),
    ("a token of GitLab", ("glpat-",), r"\bglpat-[\w-]{20,200}"),
    ("a token of Slack", ("xox",), r"\bxox[abprs]-[A-Za-z0-9-]{10,200}"),
    ("a key of Google", ("AIza",), r"\bAIza[\w-]{35}"),
    ("a token of Hugging Face", ("hf_",), r"\bhf_[A-Za-z0-9]{34,100}\b"),
    ("a key of a model service", ("sk-",), r"\bsk-(?=[\w-]{0,200}\d)[\w-]{32,200}"),
    ("a token of Databricks", ("dapi",), r"\bdapi[0-9a-f]{32}\b"),
    (
        "a password in an address",
        ("://",),
        r"[a-z][a-z0-9+.-]{1,20}://[^\s:/@'\"{}$<>%]{1,100}:[^\s:/@'\"{}$<>%]{6,200}@",
    ),
    (
        "a password or secret written out",
        ("ecret", "ECRET", "assw", "ASSW", "api", "API"),
        r"(?i)\b\w{0,40}(?:client_?secret|password|passwd|api_?key|secret_?key)\w{0,40}[\"']?\s{0,9}[:=]\s{0,9}"
        r"[\"'](?=[^\"']{0,200}\d)(?=[^\"']{0,200}[a-z])[^\"'\s{}<>$%]{12,200}[\"']",
    ),
)
# Words of placeholders, and the key of the storage emulators, which is the same everywhere and in their manuals.
_NOT_REAL = r"(?i)example|your|change|dummy|placeholder|xxxx|redacted|:pass(word)?@|Eby8vdM02xNOcqFlqUwJPLlmEtl"


def secrets(text: str) -> Iterator[tuple[int, int, str]]:
    """Line and column (from 1) of each credential in a text, with its kind."""
    for kind, words, pattern in _KINDS:
        if not any(word in text for word in words):
            continue
        for match in re.finditer(pattern, text):
            if not re.search(_NOT_REAL, match[0]):
                start = match.start()
                yield text.count("\n", 0, start) + 1, start - text.rfind("\n", 0, start), kind
