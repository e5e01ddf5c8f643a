"""Credentials by their form. What was found is never shown, only where and of which kind it is."""

from __future__ import annotations

import re
from collections.abc import Iterator

# A kind, words of which one must occur for the pattern to be tried at all, and the pattern.
_KINDS: tuple[tuple[str, tuple[str, ...], re.Pattern[str]], ...] = tuple(
    (kind, words, re.compile(pattern))
    for kind, words, pattern in (
        ("an access key of AWS", ("AKIA", "ASIA"), r"\b(?:AKIA|ASIA)[0-9A-Z]{16}\b"),
        ("a storage account's key", ("AccountKey=",), r"AccountKey=[A-Za-z0-9+/]{40,}={0,2}"),
        ("a shared access signature", ("sig=",), r"\bsig=[A-Za-z0-9%+/]{40,}"),
        ("a shared access key", ("SharedAccessKey=",), r"SharedAccessKey=[A-Za-z0-9+/]{30,}={0,2}"),
        ("a private key", ("PRIVATE KEY",), r"-----BEGIN (?:[A-Z]+ )*PRIVATE KEY-----"),
        ("a signed token (JWT)", ("eyJ",), r"\beyJ[\w-]{10,}\.eyJ[\w-]{10,}\.[\w-]{10,}"),
        ("a client secret of Entra ID", ("Q~",), r"(?<![\w~.-])[\w~.-]{3}\dQ~[\w~.-]{31,34}(?![\w~.-])"),
        ("a token of GitHub", ("gh",), r"\b(?:gh[pousr]_[A-Za-z0-9]{36,}|github_pat_\w{50,})"),
        ("a token of GitLab", ("glpat-",), r"\bglpat-[\w-]{20,}"),
        ("a token of Slack", ("xox",), r"\bxox[abprs]-[A-Za-z0-9-]{10,}"),
        ("a key of Google", ("AIza",), r"\bAIza[\w-]{35}"),
        ("a token of Hugging Face", ("hf_",), r"\bhf_[A-Za-z0-9]{34,}\b"),
        ("a key of a model service", ("sk-",), r"\bsk-(?=[\w-]*\d)[\w-]{32,}"),
        ("a token of Databricks", ("dapi",), r"\bdapi[0-9a-f]{32}\b"),
        ("a password in an address", ("://",), r"[a-z][a-z0-9+.-]+://[^\s:/@'\"{}$<>%]+:[^\s:/@'\"{}$<>%]{6,}@"),
        (
            "a password or secret written out",
            ("ecret", "ECRET", "assw", "ASSW", "api", "API"),
            r"(?i)\b\w*(?:client_?secret|password|passwd|api_?key|secret_?key)\w*[\"']?\s*[:=]\s*"
            r"[\"'](?=[^\"']*\d)(?=[^\"']*[a-z])[^\"'\s{}<>$%]{12,}[\"']",
        ),
    )
)
# Words of placeholders, and the key of the storage emulators, which is the same everywhere and in their manuals.
_NOT_REAL = re.compile(
    r"(?i)example|your|change|dummy|placeholder|xxxx|redacted|:pass(word)?@|Eby8vdM02xNOcqFlqUwJPLlmEtl"
)


def secrets(text: str) -> Iterator[tuple[int, int, str]]:
    """Line and column (from 1) of each credential in a text, with its kind."""
    for kind, words, pattern in _KINDS:
        if not any(word in text for word in words):
            continue
        for match in pattern.finditer(text):
            if not _NOT_REAL.search(match[0]):
                start = match.start()
                yield text.count("\n", 0, start) + 1, start - text.rfind("\n", 0, start), kind
