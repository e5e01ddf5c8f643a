"""Decide what may leave the edge zone, and write it anew.

Default deny: a file leaves only if its name is on the list below, and only as what this script
understood of it. JSON is parsed strictly, checked against a schema that knows every key, rounded to
six significant digits and printed again; the ONNX model is parsed, checked, stripped of every free
text and name that is not part of its interface, and serialized again. No byte is ever copied.

One refusal, or any error at all, and nothing leaves but `egress.json` with `released: false`; the
exit code is then 1. Findings name the rule, the file and the place, never a value, a key or a file
name that a step made up, because the verdict leaves too.

This is the policy of formats and sizes. Whether an admitted number repeats a private row is a
question for the content gate, `edgeml airlock check`, which will run between `examine` and `write`.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import re
import stat
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import contract as data_contract
from canonical_model import rewrite_model
from contract import METRICS, NAME, TYPES, Contract, Refusal, as_text
from strict_json import (
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

RULES_VERSION = "1"

MEBIBYTE = 1 << 20
BUDGETS = {  # bytes; a file that is not named here does not leave
    "model.onnx": 20 * MEBIBYTE,
    "signature.json": MEBIBYTE // 4,
    "metrics.json": MEBIBYTE // 16,
    "curves.json": MEBIBYTE // 16,
    "confusion.json": MEBIBYTE // 16,
    "slices.json": MEBIBYTE // 4,
    "importance.json": MEBIBYTE // 4,
    "promotion.json": MEBIBYTE // 16,
}
TOTAL_BUDGET = 21 * MEBIBYTE
STAYS_BUDGET = 16 * MEBIBYTE  # manifest, validation, contract: read, but they stay

MODEL_FILES = ("model.onnx", "signature.json")
MODEL_STAYS = ("parity.json",)
EVALUATION_FILES = ("metrics.json", "curves.json", "slices.json", "importance.json", "promotion.json")
CLASSIFICATION_FILES = ("confusion.json",)

OUTPUTS = frozenset({"label", "probabilities", "prediction"})

CURVE_POINTS = 51

LABEL = re.compile(r"[\w .,:()\[\]<>=≤≥+/–-]{1,64}")
SENTENCE = re.compile(r"[A-Za-z0-9 _.,:;%()\[\]<>=≤≥±+*/'\"`–-]{0,300}")


# --- inventory: which files there are, and their bytes -------------------------------------------


def inventory(folder: Path, title: str, leaves: Iterable[str], stays: Iterable[str] = ()) -> dict[str, bytes]:
    """The bytes of the files of `folder` that may leave; `Refused` if anything else lies there."""
    names = sorted(os.listdir(folder))
    leaves, known = tuple(leaves), {*leaves, *stays}
    if unlisted := len(set(names) - known):
        raise Refused(
            "inventory.unlisted",
            f"{unlisted} of {len(names)} entries are not on the list ({', '.join(sorted(known))})",
            title,
        )
    for name in names:
        mode = os.lstat(folder / name).st_mode
        if not stat.S_ISREG(mode):
            raise Refused("inventory.kind", "not a regular file", f"{title}/{name}")
    content = {}
    for name in leaves:
        if name not in names:
            raise Refused("inventory.missing", "the file is missing", f"{title}/{name}")
        content[name] = read_file(folder / name, BUDGETS[name], f"{title}/{name}", os.O_NOFOLLOW)
    return content


def read_file(path: Path, budget: int, title: str, flags: int = 0) -> bytes:
    """The bytes of one regular file of limited size.

    Hard links are no way out, because nothing leaves as it was read; and the cache of `edgeml run` is made of them.
    """
    with open(os.open(path, os.O_RDONLY | os.O_NONBLOCK | flags), "rb") as file:
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            raise Refused("inventory.kind", "not a regular file", title)
        content = file.read(budget + 1)
    if len(content) > budget:
        raise Refused("budget.file", f"larger than its budget of {budget} bytes", title)
    return content


# --- the schemas of what may leave ----------------------------------------------------------------

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
    if contract.task == "regression":
        return record({"version": version_1, "residuals": array(residual, CURVE_POINTS)})
    return record({"version": version_1, "roc": points, "pr": points, "calibration": array(bin_, 20)})


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


# --- the decision ---------------------------------------------------------------------------------


def examine(model: Path, evaluation: Path, manifest: Path, validation: Path, contract: Path) -> Verdict:
    """What may leave, as name to bytes, or the findings because of which nothing does."""
    verdict = Verdict()
    raw: dict[str, bytes] = {}
    documents: dict[str, Any] = {}
    try:
        rules = data_contract.load(contract)
    except Refusal as refusal:  # tells of the contract, which lies in Git, and of nothing else
        verdict.refuse(Refused("contract.invalid", str(refusal), "contract"))
        return verdict
    with verdict.guard("model"):
        raw |= inventory(model, "model", MODEL_FILES, MODEL_STAYS)
    with verdict.guard("evaluation"):
        kinds = EVALUATION_FILES + (CLASSIFICATION_FILES if rules.task == "classification" else ())
        raw |= inventory(evaluation, "evaluation", kinds)
    for name in sorted(set(raw) & set(SCHEMAS)):
        with verdict.guard(name):
            documents[name] = SCHEMAS[name](rules)(parse_json(raw[name]), "$")
    with verdict.guard("lineage.json"):
        documents["lineage.json"] = read_lineage(rules, manifest, validation)
    if "model.onnx" in raw and {"signature.json", "lineage.json"} <= set(documents):
        with verdict.guard("model.onnx"):
            sides = (documents["signature.json"][side] for side in ("inputs", "outputs"))
            inputs, outputs = ([port["name"] for port in side] for side in sides)
            origin = {
                "edgeml.contract": f"{rules.name}:{rules.version}",
                "edgeml.data": documents["lineage.json"]["data"]["fingerprint"],
                "edgeml.egress_rules": RULES_VERSION,
            }
            rewritten = rewrite_model(raw["model.onnx"], inputs, outputs, origin)
            verdict.files["model.onnx"] = rewritten
            trained, released = (hashlib.sha256(data).hexdigest() for data in (raw["model.onnx"], rewritten))
            documents["lineage.json"]["model"] = {"sha256": released, "trained_sha256": trained}
    if not verdict.findings:
        with verdict.guard("evaluation"):
            reconcile(rules, documents)
    verdict.files |= {name: print_json(document) for name, document in documents.items()}
    for name, budget in BUDGETS.items():
        if len(verdict.files.get(name, b"")) > budget:
            verdict.refuse(Refused("budget.file", f"larger than its budget of {budget} bytes once rewritten", name))
    if sum(map(len, verdict.files.values())) > TOTAL_BUDGET:
        verdict.refuse(Refused("budget.total", f"larger than {TOTAL_BUDGET} bytes in total"))
    return verdict


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


def reconcile(contract: Contract, documents: dict[str, Any]) -> None:
    """Refuse what each file alone may say, but not all of them together."""
    rows = documents["metrics.json"]["rows"]
    if rows > documents["lineage.json"]["data"]["rows"]:
        raise Refused("lineage.mismatch", "more rows were evaluated than ingested", "metrics.json")
    if confusion := documents.get("confusion.json"):
        if confusion["labels"] != documents["signature.json"].get("classes"):
            raise Refused("json.schema", "the labels are not the classes of signature.json", "confusion.json")
        if any(len(line) != len(confusion["labels"]) for line in [confusion["matrix"], *confusion["matrix"]]):
            raise Refused("json.schema", "the matrix is not as wide and high as the labels", "confusion.json")
        cells = [cell for line in confusion["matrix"] for cell in line]
        if cells.count(None) == 1:
            raise Refused("count.derivable", "the one suppressed cell follows from the total", "confusion.json")
    for column in contract.slices:
        shown = sum(item["rows"] for item in documents["slices.json"]["slices"] if item["column"] == column)
        if shown and 0 < rows - shown < contract.k:
            raise Refused("count.derivable", "a count below k follows from the total of one column", "slices.json")


@dataclass
class Verdict:
    """What was decided: the files that leave, if there is no finding."""

    files: dict[str, bytes] = field(default_factory=dict)
    findings: list[dict[str, str]] = field(default_factory=list)

    def refuse(self, refused: Refused, file: str = "") -> None:
        self.findings.append({"rule": refused.rule, "file": refused.file or file, "detail": refused.detail})

    @contextmanager
    def guard(self, file: str) -> Iterator[None]:
        """Closed by default: whatever goes wrong inside becomes a finding."""
        try:
            yield
        except Refused as refused:
            self.refuse(refused, file)
        except Exception as error:  # its message could hold a value, its type cannot
            self.refuse(Refused("error", f"could not be examined ({type(error).__name__})", file))

    def document(self) -> dict[str, Any]:
        released = not self.findings
        files = sorted(self.files.items()) if released else []
        return {
            "version": 1,
            "released": released,
            "rules_version": RULES_VERSION,
            "files": [
                {"name": name, "bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()} for name, data in files
            ],
            "findings": self.findings,
        }


def write(verdict: Verdict, release: Path) -> None:
    """Write the files, then the verdict: a release without a verdict was never finished."""
    if not verdict.findings:
        for name, data in verdict.files.items():
            (release / name).write_bytes(data)
    (release / "egress.json").write_bytes(print_json(verdict.document()))


def print_json(document: Any) -> bytes:
    return (json.dumps(document, indent=2, sort_keys=True, allow_nan=False) + "\n").encode()


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Decide what may leave the edge zone, and write it anew.")
    for name in ("model", "evaluation", "manifest", "validation", "contract", "release"):
        parser.add_argument(f"--{name}", type=Path, required=True)
    paths = vars(parser.parse_args(argv))
    release: Path = paths.pop("release")
    release.mkdir(parents=True, exist_ok=True)
    if os.listdir(release):
        print("release_artifacts: the release folder is not empty; give it an empty one", file=sys.stderr)
        return 1
    verdict = Verdict()
    with verdict.guard(""):
        verdict = examine(**paths)
    try:
        write(verdict, release)
    except OSError as error:
        for name in (*verdict.files, "egress.json"):
            (release / name).unlink(missing_ok=True)
        print(f"release_artifacts: the release could not be written ({error.strerror}); nothing left", file=sys.stderr)
        return 1
    for finding in verdict.findings:
        print(f"release_artifacts: {finding['file']}: {finding['detail']} [{finding['rule']}]", file=sys.stderr)
    if verdict.findings:
        print("release_artifacts: nothing leaves; mend what is named above", file=sys.stderr)
        return 1
    print(f"released {len(verdict.files)} files, {sum(map(len, verdict.files.values()))} bytes")
    return 0


if __name__ == "__main__":
    sys.exit(main())
