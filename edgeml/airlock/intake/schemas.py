"""What the JSON files that leave may say: every key known, every number rounded, every count k or more.

A schema is made for a contract, because names and classes are the contract's. What is accepted is written
anew by `print_json`; no byte of a file is ever copied.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from edgeml.airlock.finding import POLICY, Rule
from edgeml.airlock.intake import entropy
from edgeml.airlock.intake.inventory import read_file
from edgeml.airlock.intake.strict_json import (
    Check,
    Refused,
    array,
    boolean,
    count,
    digest,
    either,
    integer,
    mapping,
    number,
    one_of,
    parse_json,
    record,
    text,
)
from edgeml.contract import METRICS, NAME, TYPES, Contract, as_text

STAYS_BUDGET = 16 << 20  # manifest and validation: read, but they stay

OUTPUTS = frozenset({"label", "probabilities", "prediction"})

CURVE_POINTS = 51

LABEL = re.compile(r"[\w .,:()\[\]<>=≤≥+/–-]{1,64}")
SENTENCE = re.compile(r"[A-Za-z0-9 _.,:;%()\[\]<>=≤≥±+*/'\"`–-]{0,300}")

RULES = (
    Rule("json.syntax", POLICY, "JSON is strict", "A parser that forgives reads less than what leaves: bytes behind "
         "the document, keys given twice, comments and other encodings can carry rows past every check.",
         waivable=False),
    Rule("json.schema", POLICY, "JSON holds what its schema knows", "Free keys and free text are where rows travel. "
         "Each file has a schema that knows every key, the length of every list and the form of every string.",
         waivable=False),
    Rule("text.opaque", POLICY, "no long runs that look encoded", "512 characters without a break can hold rows "
         "in base64 or in a cipher, which no comparison with the private table sees.",
         waivable=False),
    Rule("text.entropy", POLICY, "strings are words", "A string of any form can carry bytes for those who want it to. "
         "What looks encoded does not leave, and all strings of a file together tell 2,048 bytes at the most.",
         waivable=False),
    Rule("count.small", POLICY, "no count below k", "A number about fewer than k rows is a statement about persons.",
         waivable=False),
    Rule("count.derivable", POLICY, "no count below k by subtraction", "A suppressed count that follows from a total "
         "is not suppressed."),
    Rule("lineage.invalid", POLICY, "the rows passed the contract", "What was learnt from rows that broke the "
         "contract has no known meaning, and columns that nobody declared may be in it.", waivable=False),
    Rule("lineage.mismatch", POLICY, "the files speak of the same rows", "A release whose parts were made from "
         "different rows cannot be traced, and the gate would compare it with the wrong table.", waivable=False),
)  # fmt: skip

FIXES = {
    "json.syntax": "write plain JSON in UTF-8 with `json.dumps(…, allow_nan=False)`",
    "json.schema": "write only the keys and forms that docs/egress-gate.md lists",
    "text.opaque": "leave encoded content out; what must leave has a file and a form of its own",
    "text.entropy": "write words and numbers, and few of them",
    "count.small": "suppress counts below k where they are written (`null`, or leave the entry out)",
    "count.derivable": "suppress a second count as well, or merge small groups",
    "lineage.invalid": "validate the table that was ingested, and train only after it passed",
    "lineage.mismatch": "run the pipeline again, from ingest on",
}


null = one_of([None])
fraction = number(0, 1)
version_1 = one_of([1])
estimate = record({"value": number(), "low": number(), "high": number()})
sentence = text(SENTENCE)
identifier = text(NAME)


def metric(contract: Contract) -> Check:
    return one_of(METRICS[contract.task])


def signature_schema(contract: Contract) -> Check:
    features = {column.name for column in contract.features}
    label = one_of(contract.classes)

    def ports(names: Iterable[str]) -> Check:
        size = either(null, integer(-1), identifier)
        port = {"name": one_of(names), "dtype": text(re.compile(r"[a-z0-9()_]{1,24}"))}
        return array(record(port, {"shape": array(size, 4)}), 5000, 1)

    return record(
        {
            "version": version_1,
            "task": one_of([contract.task]),
            "target": one_of([contract.target]),
            "features": array(record({"name": one_of(features), "type": one_of(TYPES)}), 5000, 1),
            "inputs": ports({*features, "features"}),
            "outputs": ports(OUTPUTS),
            "algorithm": identifier,
            "parameters": mapping(identifier, either(null, boolean, integer(-(2**53)), number(), identifier)),
        },
        {"classes": either(null, array(label, 100)), "positive": either(null, label)},
    )


def metrics_schema(contract: Contract) -> Check:
    bootstrap = {"samples": integer(1), "confidence": fraction, "seed": integer()}
    return record(
        {
            "version": version_1,
            "rows": count(contract.k),
            "metrics": mapping(metric(contract), estimate),
            "bootstrap": record(bootstrap),
        }
    )


def curves_schema(contract: Contract) -> Check:
    points = array(array(fraction, 2, 2), CURVE_POINTS)
    rows = count(contract.k)
    bin_ = record({"mean_predicted": fraction, "fraction_positive": fraction, "count": rows})
    residual = record({"low": number(), "high": number(), "count": rows})
    more = {"distribution": array(residual, 20)}  # of the predictions
    if contract.task == "regression":
        return record({"version": version_1, "residuals": array(residual, CURVE_POINTS)}, more)
    return record({"version": version_1, "roc": points, "pr": points, "calibration": array(bin_, 20)}, more)


def confusion_schema(contract: Contract) -> Check:
    cell = either(null, count(contract.k, zero=True))
    label = either(text(LABEL), integer(-(2**31)), boolean)
    return record({"version": version_1, "labels": array(label, 100, 1), "matrix": array(array(cell, 100, 1), 100, 1)})


def slices_schema(contract: Contract) -> Check:
    rows = count(contract.k)
    shape = {"column": one_of(contract.slices), "slice": text(LABEL, digits=3), "rows": rows}
    item = record({**shape, "metrics": mapping(metric(contract), estimate)})

    def a_slice(value: Any, where: str) -> Any:
        shown = item(value, where)
        allowed = contract.columns[shown["column"]].allowed
        if allowed is not None:  # numbers are cut at quantiles, and named by their place
            one_of(map(as_text, allowed))(value["slice"], f"{where}.slice")
        return shown

    return record(
        {
            "version": version_1,
            "k": integer(contract.k),
            "slices": array(a_slice, 500),
            "suppressed": integer(0, 10_000),
        }
    )


def importance_schema(contract: Contract) -> Check:
    feature = record({"name": one_of(column.name for column in contract.features), "mean": number(), "std": number(0)})
    return record({"version": version_1, "method": sentence, "features": array(feature, 5000)})


def promotion_schema(contract: Contract) -> Check:
    difference = record(
        {"metric": metric(contract), "value": number(), "low": number(), "high": number()},
        {
            "p_value": either(null, fraction),
            "samples": integer(1),
            "confidence": fraction,
            "margin": number(),
        },
    )
    champion = record(
        {
            "model_sha256": digest,
            "metrics": mapping(metric(contract), either(number(), estimate)),
            "difference": either(null, difference),
        }
    )
    check = record({"name": text(LABEL), "passed": boolean, "detail": sentence})
    return record(
        {
            "version": version_1,
            "promote": boolean,
            "reasons": array(sentence, 50),
            "checks": array(check, 100),
            "champion": either(null, champion),
        }
    )


SCHEMAS: dict[str, Callable[[Contract], Check]] = {
    "signature.json": signature_schema,
    "metrics.json": metrics_schema,
    "curves.json": curves_schema,
    "confusion.json": confusion_schema,
    "slices.json": slices_schema,
    "importance.json": importance_schema,
    "promotion.json": promotion_schema,
}


# The keys that the schemas know by name; a place may show them.
KEYS = frozenset(
    re.findall(
        r"\w+",
        """version task target features inputs outputs algorithm parameters classes positive name dtype shape type rows
        metrics bootstrap samples confidence seed value low high mean_predicted fraction_positive count residuals roc pr
        distribution calibration labels matrix column slice k slices suppressed mean std method promote reasons checks
        champion passed detail metric p_value margin model_sha256 difference""",
    )
).union(*METRICS.values())


def read_documents(contract: Contract, files: dict[str, bytes], guard: Callable[[str], Any]) -> dict[str, Any]:
    """The listed JSON files as what their schemas accept; `guard(file)` is entered around each."""
    documents: dict[str, Any] = {}
    columns = contract.columns.values()
    known = KEYS | {*contract.columns, *contract.classes} | {as_text(v) for c in columns for v in c.allowed or ()}
    for name in sorted(set(files) & set(SCHEMAS)):
        with guard(name):
            document = SCHEMAS[name](contract)(parse_json(files[name]), "$")
            digests = {(document.get("champion") or {}).get("model_sha256", "")}  # the one that is no text
            if why := entropy.excess(document, known | digests):
                raise Refused("text.entropy", why)
            documents[name] = document
    return documents


def read_lineage(contract: Contract, manifest: Path, validation: Path) -> dict[str, Any]:
    """Where the release comes from: digests and counts of what stays."""
    ingested = parse_json(read_file(manifest, STAYS_BUDGET, "manifest"))
    report = parse_json(read_file(validation, STAYS_BUDGET, "validation"))
    if report["valid"] is not True:
        raise Refused("lineage.invalid", "the data did not pass the contract", "validation")
    if digest(report["contract"]["sha256"], "$.contract.sha256") != contract.sha256:
        raise Refused("lineage.mismatch", "the data were checked against another contract", "validation")
    if report["rows"] != ingested["rows"]:
        raise Refused("lineage.mismatch", "the rows that were checked are not those that were ingested", "validation")
    return {
        "version": 1,
        "data": {
            "fingerprint": "sha256:" + digest(ingested["fingerprint"], "$.fingerprint"),
            "rows": count(contract.k)(ingested["rows"], "$.rows"),
            "bytes": integer()(ingested["bytes"], "$.bytes"),
        },
        "contract": contract.identity,
    }


def reconcile(contract: Contract, documents: dict[str, Any]) -> Iterator[Refused]:
    """What each file alone may say, but not all of them together."""
    rows = documents["metrics.json"]["rows"]
    if rows > documents["lineage.json"]["data"]["rows"]:
        yield Refused("lineage.mismatch", "more rows were evaluated than ingested", "metrics.json")
    if confusion := documents.get("confusion.json"):
        labels, matrix = confusion["labels"], confusion["matrix"]
        if labels != documents["signature.json"].get("classes"):
            yield Refused("json.schema", "the labels are not the classes of signature.json", "confusion.json")
        if any(len(line) != len(labels) for line in [matrix, *matrix]):
            yield Refused("json.schema", "the matrix is not as wide and high as the labels", "confusion.json")
        if [cell for line in matrix for cell in line].count(None) == 1:
            yield Refused("count.derivable", "the one suppressed cell follows from the total", "confusion.json")
    for column in contract.slices:
        shown = sum(item["rows"] for item in documents["slices.json"]["slices"] if item["column"] == column)
        if shown and 0 < rows - shown < contract.k:
            yield Refused("count.derivable", "a count below k follows from the total of one column", "slices.json")


def print_json(document: Any) -> bytes:
    return (json.dumps(document, indent=2, sort_keys=True, allow_nan=False) + "\n").encode()
