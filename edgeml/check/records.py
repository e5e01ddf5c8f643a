"""Rules for deployment records, `deployments/<site>.yml`: what must run at a site, and the evidence for it.

A record may name a `base`, another record whose keys it takes where it has none of its own: differences only.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator

from edgeml.check import format
from edgeml.check.context import Context
from edgeml.check.document import Document, entries, scalar
from edgeml.check.finding import ERROR, Finding, Rule, found
from edgeml.check.kinds import ANY, BOOLEAN, INTEGER, NUMBER, TEXT, Fields, Names, Scalar, Shape
from edgeml.pipeline.libyaml import yaml

_GOOD = (
    "# --- deployments/ward.yml\n"
    "site: ward\nkind: edge-vm\nmodel: {name: breast-cancer, version: '3'}\n"
    f"image: registry.example/scoring@sha256:{'a' * 64}\n"
    "evidence:\n"
    f"  job: train-1\n  commit: {'b' * 40}\n  data: sha256:{'c' * 64}\n  gate: sha256:{'d' * 64}\n"
    "  metrics:\n    roc_auc: {value: 0.99, low: 0.98, high: 1.0}\n"
    "  verdict: {promote: true}\n"
)
IMAGE = Rule(
    "record-image",
    ERROR,
    "A record names its image by digest",
    "A tag can be moved: two sites with the same record would run different code, and a rollback would not go back.",
    _GOOD.replace(f"scoring@sha256:{'a' * 64}", "scoring:3"),
    _GOOD,
)
VERSION = Rule(
    "record-version",
    ERROR,
    "A record names an exact version of the model",
    "'latest' is another model tomorrow, and versions compared as text put 9 behind 10.",
    _GOOD.replace("version: '3'", "version: latest"),
    _GOOD,
)
DIGEST = Rule(
    "record-digest",
    ERROR,
    "Commit, data and gate manifest are whole digests",
    "What runs at a site must lead back to exactly one commit, one table and one decision of the gate.",
    _GOOD.replace("b" * 40, "b" * 7),
    _GOOD,
)
EVIDENCE = Rule(
    "record-evidence",
    ERROR,
    "The evidence supports the deployment",
    "A verdict that says no is overridden only by name and with a reason, and a metric lies within its interval.",
    _GOOD.replace("promote: true", "promote: false"),
    _GOOD,
)
SITE = Rule(
    "record-site",
    ERROR,
    "A record stands in the file of its site, and its base exists",
    "Promotion and rollback find a site by its file.",
    _GOOD.replace("site: ward", "site: clinic"),
    _GOOD,
)
SIGNATURE = Rule(
    "record-signature",
    ERROR,
    "Only a site on Kubernetes says who verifies its signatures",
    "A machine of the kind edge-vm always verifies by itself, and Azure never does; the key would change neither.",
    _GOOD.replace("kind: edge-vm", "kind: edge-vm\nsignature: workflow"),
    _GOOD.replace("kind: edge-vm", "kind: kubernetes\nsignature: workflow"),
)
RULES = (IMAGE, VERSION, DIGEST, EVIDENCE, SITE, SIGNATURE)

SITES = ("edge-vm", "kubernetes", "azureml-online", "app-service")
_ESTIMATE = Fields("metric", {"value": NUMBER, "low": NUMBER, "high": NUMBER}, ("value", "low", "high"))
_RECORD: dict[str, Shape] = {
    "base": TEXT,
    "site": TEXT,
    "kind": Scalar("text", SITES, exact=True),
    "signature": Scalar("text", ("cluster", "workflow"), exact=True),
    "model": Fields("model", {"name": TEXT, "version": ANY}, ("name", "version")),
    "image": TEXT,
    "evidence": Fields(
        "evidence",
        {
            "job": TEXT,
            "commit": TEXT,
            "data": TEXT,
            "gate": TEXT,
            "metrics": Names(_ESTIMATE),
            "verdict": Fields("verdict", {"promote": BOOLEAN, "override": ANY, "approver": TEXT}, ("promote",)),
        },
        ("job", "commit", "data", "gate", "metrics", "verdict"),
    ),
    "rollout": Fields(
        "rollout",
        {
            "health_seconds": INTEGER,
            "memory_mb": INTEGER,
            "cpus": NUMBER,
            "replicas": INTEGER,
            "traffic_percent": INTEGER,
            "instance_type": TEXT,
        },
    ),
}
_NEEDED = ("site", "kind", "model", "image", "evidence")
RECORD = Fields("deployment record", _RECORD, ())

_IMAGE = re.compile(r"[a-z0-9.:/_-]+@sha256:[0-9a-f]{64}")
_VERSION = re.compile(r"[0-9]{1,9}|[0-9a-f]{12,64}")
_COMMIT, _SHA256 = re.compile(r"[0-9a-f]{40}"), re.compile(r"sha256:[0-9a-f]{64}")
_BASES = 5  # how deep bases may lie

Entries = dict[str, tuple[yaml.Node, yaml.Node]]


def check(document: Document, context: Context) -> Iterator[Finding]:
    """The findings of a deployment record."""
    yield from format.check(document, RECORD)
    own = entries(document.root)
    name = os.path.splitext(os.path.basename(document.path))[0]
    chain, missing = bases(document, context)
    inherited = {key for base in chain for key in entries(base.root)}
    yield from missing
    if not missing and name != "base":
        for key in _NEEDED:
            if key not in own and key not in inherited:
                place = document.place(document.root) if document.root is not None else None
                if place is not None:
                    yield found(format.MISSING_KEY, place, f"this deployment record has no '{key}'; add it")
    kinds = [found["kind"][1] for found in (own, *(entries(base.root) for base in chain)) if "kind" in found]
    if "signature" in own and kinds and scalar(kinds[0]) != "kubernetes":
        message = f"'signature' is for the kind kubernetes, and this site is of the kind {scalar(kinds[0])}; remove it"
        yield found(SIGNATURE, document.place(own["signature"][0]), message)
    site = own.get("site")
    if site is not None and scalar(site[1]) != name:
        message = f"the record of site '{scalar(site[1])}' stands in {name}.yml; rename one of them"
        yield found(SITE, document.place(site[1]), message)
    yield from _matches(document, own, "image", IMAGE, _IMAGE, "name the image by digest, name@sha256:…")
    model = entries(own["model"][1]) if "model" in own else {}
    exact = "name one version exactly, by its number or digest"
    yield from _matches(document, model, "version", VERSION, _VERSION, exact)
    evidence = entries(own["evidence"][1]) if "evidence" in own else {}
    yield from _matches(document, evidence, "commit", DIGEST, _COMMIT, "give all 40 digits of the commit")
    for key in ("data", "gate"):
        yield from _matches(document, evidence, key, DIGEST, _SHA256, "give the whole digest, sha256:…")
    yield from _evidence(document, evidence)


def bases(document: Document, context: Context) -> tuple[list[Document], list[Finding]]:
    """The bases of a record, the nearest first, and what is wrong with the chain of them."""
    chain: list[Document] = []
    here, seen = document, {os.path.realpath(document.path)}
    for _ in range(_BASES):
        base = entries(here.root).get("base")
        if base is None:
            return chain, []
        name = scalar(base[1]) or ""
        path = os.path.join(os.path.dirname(here.path), name)
        if os.path.basename(name) != name or not os.path.isfile(path) or os.path.realpath(path) in seen:
            message = f"the base '{name}' is not there, or leads back to this record; name a file beside it"
            return chain, [found(SITE, here.place(base[1]), message)]
        seen.add(os.path.realpath(path))
        here = context.read(path)[0]
        chain.append(here)
    return chain, []


def _matches(
    document: Document, present: Entries, key: str, rule: Rule, pattern: re.Pattern[str], fix: str
) -> Iterator[Finding]:
    if key in present and not pattern.fullmatch(scalar(present[key][1]) or ""):
        yield found(rule, document.place(present[key][1]), f"'{key}' is '{scalar(present[key][1])}'; {fix}")


def _evidence(document: Document, evidence: Entries) -> Iterator[Finding]:
    verdict = entries(evidence["verdict"][1]) if "verdict" in evidence else {}
    if "promote" in verdict and scalar(verdict["promote"][1]) != "true":
        approved = all(scalar(verdict[key][1]) if key in verdict else None for key in ("override", "approver"))
        if not approved:
            message = "the verdict is against this model; choose another, or say why in 'override', with its 'approver'"
            yield found(EVIDENCE, document.place(verdict["promote"][1]), message)
    for name, (key, node) in entries(evidence["metrics"][1] if "metrics" in evidence else None).items():
        bounds = [scalar(entries(node)[part][1]) for part in ("low", "value", "high") if part in entries(node)]
        try:
            numbers = [float(bound or "") for bound in bounds]
        except ValueError:
            continue
        if len(numbers) == 3 and not numbers[0] <= numbers[1] <= numbers[2]:
            message = f"the value of '{name}' lies outside of its interval; write what the evaluation says"
            yield found(EVIDENCE, document.place(key), message)
