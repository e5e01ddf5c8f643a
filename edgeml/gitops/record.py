"""The deployment record of a site, `deployments/<site>.yml`: read with its bases, changed with a minimal diff.

What a record is stands in `edgeml.check.records`, once: reading obeys its shapes, and refuses what its rules refuse.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import yaml

from edgeml.check import records
from edgeml.check.context import Context
from edgeml.check.document import Document, entries, scalar
from edgeml.check.kinds import Fields, Names, Scalar, Shape
from edgeml.errors import EdgemlError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

FOLDER = "deployments"
SITE = re.compile(r"[a-z0-9][a-z0-9-]{0,62}")
HEADER = (
    "# What must run at {site}, and why it may. `edgeml promote` and `edgeml rollback` change it, by pull request.\n"
)
PROMOTED = ("model", "image", "evidence")  # what a promotion carries from site to site; the rest is the site's own


@dataclass(frozen=True)
class Record:
    """A record with what it has from its bases. `values` has the keys of the schema, in its order."""

    values: dict[str, Any]
    files: tuple[str, ...] = field(default=(), compare=False)
    """Paths in the repository of the record and its bases."""

    @property
    def site(self) -> str:
        return str(self.values["site"])

    @property
    def kind(self) -> str:
        return str(self.values["kind"])

    @property
    def model(self) -> str:
        """NAME:VERSION."""
        return "{name}:{version}".format(**self.values["model"])

    @property
    def image(self) -> str:
        """NAME@sha256:DIGEST."""
        return str(self.values["image"])

    @property
    def digest(self) -> str:
        """The image's digest, sha256:…; two sites run the same where theirs is the same."""
        return self.image.partition("@")[2]

    @property
    def signature(self) -> str:
        """Who verifies signatures at a site on Kubernetes: `cluster`, which must show it, or the `workflow` alone."""
        return str(self.values.get("signature", "cluster"))

    @property
    def evidence(self) -> dict[str, Any]:
        evidence: dict[str, Any] = self.values["evidence"]
        return evidence

    @property
    def rollout(self) -> dict[str, Any]:
        return dict(self.values.get("rollout") or {})

    def differences(self, other: Record | None) -> dict[str, tuple[Any, Any]]:
        """The keys whose values differ, by dotted path: what `other` says, and what this says."""
        before, after = (dict(_flat(each.values if each else {})) for each in (other, self))
        paths = [*before, *(path for path in after if path not in before)]
        return {path: (before.get(path), after.get(path)) for path in paths if before.get(path) != after.get(path)}


def path_of(site: str) -> str:
    """A record's path in the repository. Raises EdgemlError where the name can be none of a site."""
    if not SITE.fullmatch(site):
        raise EdgemlError(f"'{site}' is no name of a site; use small letters, digits and '-'")
    return f"{FOLDER}/{site}.yml"


def read(root: str, site: str) -> Record:
    """The record of a site in the repository at `root`. Raises EdgemlError where there is none or it is wrong."""
    path = path_of(site)
    if not os.path.isfile(os.path.join(root, path)):
        raise EdgemlError(f"{path} does not exist; the first `edgeml promote --site {site}` proposes it", 1)
    context = Context(root)
    document = context.read(os.path.join(root, path))[0]
    chain, findings = records.bases(document, context)
    for each in (document, *chain):
        findings += context.read(each.path)[1] or records.check(each, context)
    if findings:
        first = min(findings, key=lambda finding: (finding.path, finding.line))
        name = os.path.basename(first.path)
        raise EdgemlError(f"{FOLDER}/{name}:{first.line}: {first.message} [{first.rule}]", 1)
    nodes: dict[str, yaml.Node] = {}
    for each in reversed((document, *chain)):
        nodes |= {key: value for key, (_, value) in entries(each.root).items() if key != "base"}
    try:
        values = {key: _value(nodes[key], shape) for key, shape in records.RECORD.known.items() if key in nodes}
    except (KeyError, ValueError) as error:
        raise EdgemlError(f"{path}: {error.args[0]!r} is empty or no plain value; write what it is", 1) from None
    return Record(values, tuple(f"{FOLDER}/{os.path.basename(each.path)}" for each in (document, *chain)))


def base_of(text: str) -> str:
    """The file name of the base that a record's text names, empty without one or where the text is no YAML mapping."""
    try:
        return scalar(entries(yaml.compose(text, Loader=yaml.SafeLoader)).get("base", (None, None))[1]) or ""
    except (yaml.YAMLError, RecursionError, ValueError):
        return ""


def changed(text: str, before: Record | None, values: Mapping[str, Any]) -> str:
    """The text of a record once the keys in `values` say so; all other lines stay as they are, comments with them.

    `before` is what the text says with its bases: a key that has its value from a base already is not written.
    """
    known = before.values if before else {}
    wanted = {key: value for key, value in values.items() if key not in known or known[key] != value}
    if not text:
        text = HEADER.format(site=values["site"])
    document = Document("", yaml.compose(text, Loader=yaml.SafeLoader), text.splitlines(keepends=True))
    own = entries(document.root)
    lines = list(document.lines)
    if lines and not lines[-1].endswith("\n"):
        lines[-1] += "\n"
    for key, (name, value) in sorted(own.items(), key=lambda item: -item[1][0].start_mark.line):
        if key in wanted:
            lines[name.start_mark.line : _end(document, value)] = [_text(key, wanted[key])]
    order = [key for key in records.RECORD.known if key in wanted and key not in own]
    return "".join(lines) + "".join(_text(key, wanted[key]) for key in order)


def _end(document: Document, value: yaml.Node) -> int:
    """The line after a value's last one; the mark of a block stands where the next key begins."""
    last = value.end_mark.line + (1 if value.end_mark.column else 0)
    while last > value.start_mark.line + 1 and _is_remark(document.lines[last - 1]):
        last -= 1
    return last


def _is_remark(line: str) -> bool:
    return not line.strip() or line.lstrip().startswith("#")


def _text(key: str, value: Any) -> str:
    """A key in the one form that records are written in: evidence and metrics by the line, all else on one."""
    if key != "evidence":
        return _line(key, value)
    rows = "".join(_line(name, item, "  ") for name, item in value.items() if name not in ("metrics", "verdict"))
    metrics = "".join(_line(name, estimate, "    ") for name, estimate in value["metrics"].items())
    return f"evidence:\n{rows}  metrics:{'' if metrics else ' {}'}\n{metrics}" + _line(
        "verdict", value["verdict"], "  "
    )


def _line(key: str, value: Any, indent: str = "") -> str:
    in_flow = isinstance(value, dict)
    shown = yaml.safe_dump({key: value}, default_flow_style=in_flow, sort_keys=False, width=10**6, allow_unicode=True)
    return f"{indent}{shown.strip()[1:-1] if in_flow else shown.strip()}\n"


def _value(node: yaml.Node, shape: Shape) -> Any:
    """A value as its shape reads it. Raises KeyError or ValueError for what the rules let pass: null, and bindings."""
    if isinstance(shape, Fields):
        items = entries(node)
        missing = [key for key in shape.required if key not in items]
        if missing:
            raise KeyError(missing[0])
        return {key: _value(items[key][1], inner) for key, inner in shape.known.items() if key in items}
    if isinstance(shape, Names):
        return {key: _value(value, shape.of) for key, (_, value) in entries(node).items()}
    text = scalar(node)
    if not text or "${{" in text:
        raise ValueError(text)
    kind = shape.kind if isinstance(shape, Scalar) else "any"
    if kind == "boolean":
        return text == "true"
    return int(text) if kind == "integer" else float(text) if kind == "number" else text


def _flat(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in values.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value
