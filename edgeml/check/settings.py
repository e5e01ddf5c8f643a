"""Rules for `edgeml.toml`: keys known and of their type, no secret, no placeholder; on demand, all that Azure needs.

The keys stand here again because importing the settings' own model costs more than the whole check; a test holds the
two together.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from difflib import get_close_matches

from edgeml.check.context import Context
from edgeml.check.document import MAX_BYTES, SYNTAX, Document
from edgeml.check.finding import ERROR, Finding, Place, Rule, found

KEY = Rule(
    "settings-key",
    ERROR,
    "Every setting is known and of its type, and none is a secret",
    "A misspelt key would leave its default in force; a secret in a file is in the history for ever.",
    '# --- edgeml.toml\n[storage]\nacount_url = ""\n',
    '# --- edgeml.toml\n[storage]\naccount_url = ""\n',
)
PLACEHOLDER = Rule(
    "settings-placeholder",
    ERROR,
    "No placeholder is left",
    "A fork that keeps `<your-account>` fails in the first workflow that needs it, far from the cause.",
    '# --- edgeml.toml\n[storage]\naccount_url = "https://<account>.blob.local.azurestack.external"\n',
    '# --- edgeml.toml\n[storage]\naccount_url = "https://rows.blob.local.azurestack.external"\n',
)
NOT_READY = Rule(
    "settings-not-ready",
    ERROR,
    "What a target needs is set (`--ready azure`)",
    "On one machine the embedded parts serve; a workflow that signs in to Azure needs real addresses.",
    '# --- edgeml.toml\n[storage]\naccount_url = ""\n[registry]\ntracking_uri = "azureml://workspace.example"\n',
    '# --- edgeml.toml\n[storage]\naccount_url = "https://rows.blob.local.azurestack.external"\n'
    '[registry]\ntracking_uri = "azureml://workspace.example"\n',
)
RULES = (KEY, PLACEHOLDER, NOT_READY)

KEYS: dict[str, dict[str, type]] = {
    "storage": {"account_url": str, "account_name": str, "container": str, "ca_bundle": str, "port": int},
    "registry": {"tracking_uri": str, "model": str},
    "airlock": {"public_keys": list},
    "stackhub": {
        **dict.fromkeys(("arm_url", "tenant_id", "client_id", "client_certificate", "subscription_id"), str),
        "resource_group": str,
        "egress": list,
    },
    "sites": {"order": list, "approvals": int},
    "image": {
        "registry": str,
        "repository": str,
        "base": str,
        "key": str,
        "username": str,
        "latency_ms": float,
        "memory_mb": int,
    },
}
SECRETS: dict[str, tuple[str, ...]] = {"storage": ("account_key", "sas_token"), "image": ("password",)}
READY = {"azure": (("storage", "account_url"), ("registry", "tracking_uri"))}
TARGETS = tuple(READY)

_PLACEHOLDER = re.compile(r"<[^<>]+>|\b(?:TODO|FIXME|CHANGE_?ME|REPLACE_?ME)\b|\bxxx+\b|\byour[-_]\w+", re.IGNORECASE)
_WORDS = {str: "text in quotes", int: "a whole number", float: "a number", list: "a list"}


def check(path: str, context: Context) -> tuple[Document, list[Finding]]:
    """The lines of a settings file, as a document without a tree, and its findings."""
    start = Place(path, 1, 1)
    if os.path.getsize(path) > MAX_BYTES:
        return Document(path, None, []), [found(SYNTAX, start, "the file is too large for settings")]
    with open(path, "rb") as stream:
        text = stream.read().decode("utf-8", "replace")
    document = Document(path, None, text.splitlines())
    import tomllib  # of no use to the many files that are no settings

    try:
        content = tomllib.loads(text)
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        line = re.search(r"line (\d+)", str(error))
        place = start._replace(line=int(line[1])) if line else start
        return document, [found(SYNTAX, place, f"not valid TOML: {error}")]
    return document, [*_keys(document, content), *_readiness(document, content, context)]


def _keys(document: Document, content: dict[str, object]) -> Iterator[Finding]:
    for section, values in content.items():
        if section not in KEYS or not isinstance(values, dict):
            near = get_close_matches(section, KEYS, n=1)
            hint = f"; did you mean [{near[0]}]?" if near else f"; there are: {', '.join(KEYS)}"
            yield found(KEY, _place(document, section, ""), f"there is no section [{section}]{hint}")
            continue
        for key, value in values.items():
            place = _place(document, section, key)
            kind = KEYS[section].get(key)
            if key in SECRETS.get(section, ()):
                variable = f"EDGEML_{section}_{key}".upper()
                message = f"'{key}' is a secret; remove it, renew it, and give it as the variable {variable}"
                yield found(KEY, place, message)
            elif kind is None:
                near = get_close_matches(key, KEYS[section], n=1)
                hint = f"; did you mean '{near[0]}'?" if near else f"; it takes {', '.join(KEYS[section])}"
                yield found(KEY, place, f"[{section}] has no key '{key}'{hint}")
            elif type(value) is not kind and not (kind is float and type(value) is int):
                yield found(KEY, place, f"'{key}' must be {_WORDS[kind]}")
            elif any(_PLACEHOLDER.search(str(item)) for item in (value if isinstance(value, list) else [value])):
                yield found(PLACEHOLDER, place, f"'{key}' still holds a placeholder; set it, or leave it empty")


def _readiness(document: Document, content: dict[str, object], context: Context) -> Iterator[Finding]:
    for target in sorted(context.ready):
        for section, key in READY[target]:
            values = content.get(section)
            variable = f"EDGEML_{section}_{key}".upper()
            if not (isinstance(values, dict) and values.get(key)) and not os.environ.get(variable):
                message = f"'{section}.{key}' is empty, which {target} needs; set it here or as {variable}"
                yield found(NOT_READY, _place(document, section, key), message)


def _place(document: Document, section: str, key: str) -> Place:
    """The line of a key inside its section, else that of the section, else the first."""
    here, place = "", Place(document.path, 1, 1)
    for number, line in enumerate(document.lines, start=1):
        header = re.match(r"\s*\[\s*([\w.-]+)\s*\]", line)
        if header:
            here = header[1]
            if here == section:
                place = place._replace(line=number)
        elif here == section and key and re.match(rf"\s*[\"']?{re.escape(key)}[\"']?\s*=", line):
            return place._replace(line=number, column=len(line) - len(line.lstrip()) + 1)
    return place
