"""What a file says that it is: its `$schema`, its name and its version."""

from __future__ import annotations

import re
from collections.abc import Iterator

from edgeml.check import kinds
from edgeml.check.document import Document, entries, scalar
from edgeml.check.finding import ERROR, WARNING, Finding, Rule, found
from edgeml.check.kinds import Fields
from edgeml.errors import nearest

_HEAD = "$schema: https://azuremlschemas.azureedge.net/latest/"
SCHEMA_URL = Rule(
    "schema-url",
    WARNING,
    "`$schema` is the address of the schema of this kind of file",
    "Editors complete and check the file by it. The SDK takes any, so a wrong one stays, and misleads.",
    f"{_HEAD}pipelinJob.schema.json\ntype: pipeline\njobs:\n  a: {{command: echo a}}\n",
    f"{_HEAD}pipelineJob.schema.json\ntype: pipeline\njobs:\n  a: {{command: echo a}}\n",
)
ASSET_NAME = Rule(
    "asset-name",
    ERROR,
    "Names and versions of assets, and names of experiments, are those that Azure ML takes",
    "A component of another name is refused by the SDK; a reference `azureml:name:version` cannot hold every text.",
    "type: command\nname: Train-Model\nversion: 1\nenvironment: azureml:e:1\ncommand: echo a\n",
    "type: command\nname: train_model\nversion: 1\nenvironment: azureml:e:1\ncommand: echo a\n",
)
RULES = (SCHEMA_URL, ASSET_NAME)

_ADDRESS = re.compile(r"https://azuremlschemas(prod)?\.azureedge\.net/[\w.-]+/\w+\.schema\.json")
_KNOWN = (*kinds.BY_SCHEMA, *sorted(kinds.OTHER_SCHEMAS))
_COMPONENTS = frozenset(
    kind.name for kind in (kinds.COMMAND_COMPONENT, kinds.PARALLEL_COMPONENT, kinds.PIPELINE_COMPONENT)
)
_COMPONENT_NAME = re.compile(r"[a-z][a-z0-9_]{0,254}")
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,254}")
_EXPERIMENT = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,254}")
_VERSION = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]*")


def check(document: Document, kind: Fields | None) -> Iterator[Finding]:
    yield from _schema(document, kind)
    if kind is not None:
        yield from _names(document, kind)


def _schema(document: Document, kind: Fields | None) -> Iterator[Finding]:
    present = entries(document.root)
    written = scalar(present["$schema"][1]) if "$schema" in present else None
    if written is None or (kind is None and "azureml" not in written.lower()):
        return
    problem = _problem(written, kinds.schema_of(document), document)
    if problem:
        yield found(SCHEMA_URL, document.place(present["$schema"][1]), problem)


def _problem(written: str, name: str, document: Document) -> str:
    if written.startswith("http://"):
        return f"'{written}' is not the address that Azure ML documents; it begins with https://"
    if name not in _KNOWN:
        near = nearest(name or written.rpartition("/")[2], _KNOWN)
        hint = f"; did you mean '{near}.schema.json'?" if near else ""
        return f"'{written}' is none of Azure ML's schemas{hint}"
    if not _ADDRESS.fullmatch(written):
        return f"'{written}' is none of Azure ML's schemas; they lie at https://azuremlschemas.azureedge.net/latest/"
    own = kinds.BY_SCHEMA[name][1] if name in kinds.BY_SCHEMA else ""
    present = entries(document.root)
    type_ = ((scalar(present["type"][1]) if "type" in present else None) or own).lower()
    if own and type_ != own:
        return f"the schema {name} is that of type '{own}', but the file is of type '{type_}'"
    return ""


def _names(document: Document, kind: Fields) -> Iterator[Finding]:
    component = kind.name in _COMPONENTS
    patterns = {
        "name": (
            (_COMPONENT_NAME, "a lower-case letter, then lower-case letters, digits and underscores")
            if component
            else (_NAME, "letters, digits, hyphens, dots and underscores")
        ),
        "experiment_name": (_EXPERIMENT, "letters, digits, hyphens and underscores, and no other first"),
        "version": (_VERSION, "letters, digits, dots and hyphens, and no other first"),
    }
    present = entries(document.root)
    for key, (pattern, takes) in patterns.items():
        text = scalar(present[key][1]) if key in present else None
        if text is not None and not pattern.fullmatch(text):
            message = f"'{key}' is '{text}', which Azure ML does not take; it takes {takes}"
            yield found(ASSET_NAME, document.place(present[key][1]), message)
