"""Rules for `edgeml.toml`: keys known and of their type, no secret, no placeholder; on demand, all that Azure needs.

The keys stand here again because importing the settings' own model costs more than the whole check; a test holds the
two together.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator

from edgeml.check.context import Context
from edgeml.check.document import MAX_BYTES, SYNTAX, Document
from edgeml.check.finding import ERROR, Finding, Place, Rule, found
from edgeml.errors import nearest

_WORKSPACE = (
    '[azure]\ntenant_id = "0"\nclient_id = "0"\nsubscription_id = "0"\nresource_group = "edge"\n'
    'workspace = "training"\n'
)
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
    f'# --- edgeml.toml\n[storage]\naccount_url = ""\n{_WORKSPACE}',
    f'# --- edgeml.toml\n[storage]\naccount_url = "https://rows.blob.local.azurestack.external"\n{_WORKSPACE}',
)
RULES = (KEY, PLACEHOLDER, NOT_READY)

KEYS: dict[str, dict[str, type]] = {
    "storage": {"account_url": str, "account_name": str, "container": str, "ca_bundle": str, "port": int},
    "registry": {"tracking_uri": str, "model": str, "to": str},
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
    "azure": dict.fromkeys(
        ("cloud", "metadata_url", "tenant_id", "client_id", "subscription_id", "resource_group", "workspace"), str
    ),
}
_SSH: dict[str, type] = {"kind": str, "address": str, "port": int, "user": str, "host_key": str}
COMPUTE, SITE = TABLES = ("compute", "site")  # one table a target, whose keys depend on its kind, and one a site
SITE_KEYS = {
    **{key: kind for key, kind in _SSH.items() if key != "kind"},
    **dict.fromkeys(("folder", "context", "namespace", "endpoint", "resource_id", "slot"), str),
    "serve_port": int,
}
KINDS: dict[str, dict[str, type]] = {
    "kubernetes": {"kind": str, "resource_id": str, "namespace": str, "instance_type": str, "outputs": str},
    "vm": {**_SSH, "resource_id": str, "outputs": str},
    "edge": {**_SSH, "folder": str},
}
SECRETS: dict[str, tuple[str, ...]] = {"storage": ("account_key", "sas_token"), "image": ("password", "signing_key")}
_SECRET = re.compile(r"(^|_)(secret|password|passphrase|token|private_key|ssh_key|account_key|access_key)s?$")
READY = {
    "azure": (
        ("storage", "account_url"),
        ("azure", "tenant_id"),
        ("azure", "client_id"),
        ("azure", "subscription_id"),
        ("azure", "resource_group"),
        ("azure", "workspace"),
    )
}
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
        if section in TABLES and isinstance(values, dict):
            for name, target in values.items():
                yield from _target(document, section, str(name), target)
        elif section not in KEYS or not isinstance(values, dict):
            near = nearest(section, [*KEYS, *TABLES])
            hint = f"; did you mean [{near}]?" if near else f"; there are: {', '.join([*KEYS, *TABLES])}"
            yield found(KEY, _place(document, section, ""), f"there is no section [{section}]{hint}")
        else:
            yield from _values(document, section, values, KEYS[section])


def _target(document: Document, table: str, name: str, values: object) -> Iterator[Finding]:
    """The findings of one compute target, `[compute.<name>]`, or of one site, `[site.<name>]`."""
    section = f"{table}.{name}"
    if not isinstance(values, dict):
        message = f"'{name}' must be a table of its own, [{table}.<name>]"
        yield found(KEY, _place(document, table, name), message)
        return
    if table == SITE:
        yield from _values(document, section, values, SITE_KEYS)
        return
    kind = values.get("kind")
    if not isinstance(kind, str) or kind not in KINDS:
        message = f"[{section}] needs kind = one of {', '.join(KINDS)}"
        yield found(KEY, _place(document, section, "kind"), message)
        return
    yield from _values(document, section, values, KINDS[kind])


def _values(document: Document, section: str, values: dict[str, object], known: dict[str, type]) -> Iterator[Finding]:
    for key, value in values.items():
        place = _place(document, section, key)
        if key in SECRETS.get(section, ()) or (key not in known and _SECRET.search(key)):
            variable = f"EDGEML_{section}_{key}".upper()
            how = f"the variable {variable}" if key in SECRETS.get(section, ()) else "an environment variable"
            message = f"'{key}' is a secret; remove it, renew it, and give it as {how}"
            yield found(KEY, place, message)
        elif key not in known:
            near = nearest(key, known)
            hint = f"; did you mean '{near}'?" if near else f"; it takes {', '.join(known)}"
            yield found(KEY, place, f"[{section}] has no key '{key}'{hint}")
        elif type(value) is not known[key] and not (known[key] is float and type(value) is int):
            yield found(KEY, place, f"'{key}' must be {_WORDS[known[key]]}")
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
