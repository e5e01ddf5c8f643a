"""The egress gate: what wants to leave is looked at by every rule, and leaves only as what the gate wrote anew.

`check` decides and writes; `examine` only finds. Whatever policy refuses is still compared with the private rows,
which stream past all examiners once. An error of the gate itself is a finding, and one finding is enough: nothing
leaves but the verdict.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from edgeml import contract as contracts
from edgeml.airlock import failure, rules
from edgeml.airlock.failure import guard
from edgeml.airlock.finding import Artifact, Examiner, Finding, Text
from edgeml.airlock.intake import inventory, schemas, unwrap, views
from edgeml.airlock.intake.strict_json import Refused
from edgeml.airlock.keeping import history, ledger, report, seal, waivers
from edgeml.contract import Contract
from edgeml.errors import EdgemlError

if TYPE_CHECKING:
    from edgeml.airlock.keeping.waivers import Waiver
    from edgeml.airlock.models.trimming import Change
    from edgeml.airlock.private import Private

RELEASED, BLOCKED, UNDECIDED = "released", "blocked", "undecided"
EXIT = {RELEASED: 0, UNDECIDED: 1, BLOCKED: 2}
CLASSIFICATION_ONLY = frozenset({"confusion.json"})
FIXES = inventory.FIXES | unwrap.FIXES | schemas.FIXES


@dataclass(frozen=True)
class Verdict:
    """What was decided, and what leaves: `files` are empty unless it is `released`."""

    verdict: str
    findings: list[Finding]
    waived: list[Finding]
    waivers: list[Waiver]
    files: dict[str, bytes]
    digests: dict[str, tuple[int, str]]
    trimming: dict[str, Any] | None = None  # of the model's weights, as `egress.json` tells it

    def document(self) -> dict[str, Any]:
        """The report that stays with the data."""
        return report.local(self.egress(), self.digests)

    def egress(self) -> dict[str, Any]:
        """The document that leaves."""
        return report.egress(self.verdict, self.findings, self.waivers, self.files, self.waived, self.trimming)


class _Asked(NamedTuple):
    """What is to be looked at, and what it is compared with."""

    data: Sequence[Path]
    contract: Path
    folders: Sequence[Path]
    manifest: Path | None = None
    validation: Path | None = None
    holdout: Path | None = None
    mantissa_bits: int | None = None


@dataclass
class _Examined:
    """What looking at the artifacts brought to light."""

    contract: Contract | None = None
    taken: inventory.Inventory = field(default_factory=inventory.Inventory)
    documents: dict[str, Any] = field(default_factory=dict)
    rows: int | None = None
    findings: list[Finding] = field(default_factory=list)
    changes: list[Change] = field(default_factory=list)  # what trimming its weights would do to the model
    trimming: dict[str, Any] | None = None


def examine(data: Sequence[Path], contract: Path, artifacts: Path | Sequence[Path]) -> list[Finding]:
    """The findings about what lies in the folders, and nothing written. `rules.kind` tells policy from content."""
    return _examine(_Asked(data, contract, _folders(artifacts))).findings


def check(
    data: Sequence[Path],
    contract: Path,
    artifacts: Path | Sequence[Path],
    out: Path,
    *,
    waivers: Path | None = None,
    manifest: Path | None = None,
    validation: Path | None = None,
    key: Path | None = None,
    state: Path | None = None,
    holdout: Path | None = None,
    mantissa_bits: int | None = None,
) -> Verdict:
    """Decide about the artifacts and write what leaves to `out`, a folder that is empty or not there.

    `manifest` and `validation` say what was ingested and checked; from them comes `lineage.json`. `holdout` are rows
    that no model was trained on: with them membership inference is tried. The weights of the model leave with
    `mantissa_bits` of mantissa (without it MANTISSA_BITS of `canonical`), and with more where its predictions ask for
    more. Raises EdgemlError, exit code 1, where the verdict itself cannot be kept or written: then nothing leaves.
    """
    out.mkdir(parents=True, exist_ok=True)
    if any(out.iterdir()):
        raise EdgemlError(f"the folder {out} is not empty; give the gate an empty one", 1)
    asked = _Asked(data, contract, _folders(artifacts), manifest, validation, holdout, mantissa_bits)
    with _failing():
        home = ledger.state(state)
        ledger.prepare(home)
        signing = seal.key_of(home, key)
        examined = _examine(asked)
        given: list[Waiver] = []
        if waivers is not None:
            with guard(examined.findings, "waivers", FIXES):
                given = _read_waivers(waivers, examined)
        files: dict[str, bytes] = {}
        with guard(examined.findings, "", FIXES):
            files = _rewrite(examined, given)
        with ledger.locked(home):
            with guard(examined.findings, "", FIXES):
                _compare_with_history(examined, home)
            verdict = _decide(examined, given, files)
            _keep(verdict, examined, home, signing, out)
    return verdict


@contextmanager
def _failing() -> Iterator[None]:
    """No error of ours is told by its message, which may quote a private value."""
    try:
        yield
    except (EdgemlError, KeyboardInterrupt, SystemExit):
        raise
    except BaseException as error:
        if os.environ.get("EDGEML_DEBUG"):
            raise
        raise EdgemlError(f"the gate failed ({failure.place(error)}); nothing left", 1) from None


def _folders(artifacts: Path | Sequence[Path]) -> list[Path]:
    return [artifacts] if isinstance(artifacts, Path) else list(artifacts)


# --- looking --------------------------------------------------------------------------------------


def _examine(asked: _Asked) -> _Examined:
    examined = _Examined()
    findings = examined.findings
    try:
        examined.contract = loaded = contracts.load(asked.contract)
    except contracts.Refusal as refusal:  # tells of the contract, which lies in Git, and of nothing else
        findings.append(failure.failed("contract.invalid", "contract", str(refusal)))
        return examined
    with guard(findings, "", FIXES):
        try:
            examined.taken = inventory.take(asked.folders)
        except OSError as error:
            findings.append(failure.failed("gate.error", "", f"a folder cannot be read ({error.strerror})"))
    taken = examined.taken
    findings += taken.findings
    inside = unwrap.Unwrapped([], [], [])
    with guard(findings, "", FIXES):
        inside = unwrap.unwrap(taken.artifacts)
    findings += inside.findings
    everything = [*taken.artifacts, *inside.artifacts]
    examined.documents = schemas.read_documents(
        loaded, taken.listed, lambda name: guard(findings, name, FIXES)
    )  # fmt: skip
    if asked.manifest is not None and asked.validation is not None:
        with guard(findings, "lineage.json", FIXES):
            examined.documents["lineage.json"] = schemas.read_lineage(loaded, asked.manifest, asked.validation)
    texts = [Text(item.file, item.place, item.text) for item in (*taken.names, *inside.names)]
    with guard(findings, "", FIXES):
        texts = [*views.decoded(texts), *views.of(everything, _known_keys(loaded))]
    _compare(examined, asked, everything, texts)
    return examined


def _known_keys(contract: Contract) -> frozenset[str]:
    """The keys that a place may name: those of the schemas and of the contract."""
    return schemas.KEYS | frozenset(contract.columns)


def _compare(examined: _Examined, asked: _Asked, artifacts: list[Artifact], texts: list[Text]) -> None:
    """Let the private rows stream past every examiner."""
    from edgeml.airlock import disclosure, evidence, restated
    from edgeml.airlock.models import examine, trimming
    from edgeml.airlock.private import open_private

    findings, contract = examined.findings, examined.contract
    assert contract is not None
    try:
        private: Private = open_private(list(asked.data), contract)
        unseen = None if asked.holdout is None else open_private([asked.holdout], contract)
        examined.rows = private.rows
    except EdgemlError:  # its message names files, and names of private files may say something
        findings.append(failure.failed("table.invalid", "", "the private table is missing, empty or not readable"))
        return
    examiners: list[Examiner] = []
    steps = trimming.steps_from(asked.mantissa_bits)
    makers: list[Callable[[], Examiner]] = [
        lambda: evidence.examiner(texts, private),
        lambda: examine.examiner(artifacts, private, unseen, steps),
    ]
    for make in makers:
        with guard(findings, "", FIXES):
            examiners.append(make())
    with guard(findings, "", FIXES):
        findings += disclosure.check([*artifacts, *restated.of(artifacts, private)], private)
    with guard(findings, "", FIXES):
        for batch in private.batches():
            for examiner in examiners:
                examiner.feed(batch)
    for examiner in examiners:
        with guard(findings, "", FIXES):
            findings += examiner.findings()
            if isinstance(examiner, examine.ModelExaminer):
                examined.changes = examiner.changes.get("model.onnx", [])
    rows = examined.documents.get("lineage.json", {}).get("data", {}).get("rows")
    if rows is not None and rows != private.rows:
        refused = Refused("lineage.mismatch", "the private table has other rows than were ingested", "lineage.json")
        findings.append(failure.told(refused, "lineage.json", FIXES))


# --- writing anew ---------------------------------------------------------------------------------


def _rewrite(examined: _Examined, given: Sequence[Waiver]) -> dict[str, bytes]:
    """What would leave: every document printed again and the model in its canonical form, its weights trimmed."""
    from edgeml.airlock.models import canonical, trimming

    contract, documents, findings = examined.contract, examined.documents, examined.findings
    if contract is None:
        return {}
    files: dict[str, bytes] = {}
    for name in _wanted(contract):
        if name not in examined.taken.digests:
            findings.append(Finding("inventory.missing", name, "", "the file is missing", FIXES["inventory.missing"]))
    if "model.onnx" in examined.taken.listed and "signature.json" in documents:
        with guard(findings, "model.onnx", FIXES):
            trained = examined.taken.listed["model.onnx"]
            inputs, outputs = (
                [port["name"] for port in documents["signature.json"][side]] for side in ("inputs", "outputs")
            )
            origin = {"edgeml.contract": f"{contract.name}:{contract.version}"}
            if "lineage.json" in documents:
                origin["edgeml.data"] = documents["lineage.json"]["data"]["fingerprint"]
            origin["edgeml.egress_rules"] = report.RULES_VERSION
            change = trimming.chosen(examined.changes)
            examined.trimming = {"file": "model.onnx", **change.document()}
            files["model.onnx"] = canonical.rewrite(trained, inputs, outputs, origin, change.bits)
            if "lineage.json" in documents:
                digests = (hashlib.sha256(data).hexdigest() for data in (files["model.onnx"], trained))
                documents["lineage.json"]["model"] = dict(zip(("sha256", "trained_sha256"), digests, strict=True))
    if {"metrics.json", "slices.json", "signature.json", "lineage.json"} <= set(documents):
        for refused in schemas.reconcile(contract, documents):
            findings.append(failure.told(refused, refused.file, FIXES))
    if "lineage.json" in documents:
        egress = {"k": contract.k, "rules_version": report.RULES_VERSION}
        documents["lineage.json"]["egress"] = egress | {"waivers": [waiver._asdict() for waiver in given]}
    files |= {name: schemas.print_json(document) for name, document in documents.items()}
    _within_budgets(files, findings)
    return files


def _wanted(contract: Contract) -> list[str]:
    """The files that a release consists of."""
    classification = contract.task == "classification"
    return [name for name in inventory.LEAVES if classification or name not in CLASSIFICATION_ONLY]


def _within_budgets(files: dict[str, bytes], findings: list[Finding]) -> None:
    for name, budget in inventory.LEAVES.items():
        if len(files.get(name, b"")) > budget:
            refused = Refused("budget.file", f"larger than its budget of {budget} bytes once rewritten", name)
            findings.append(failure.told(refused, name, FIXES))
    if sum(map(len, files.values())) > inventory.TOTAL_BUDGET:
        refused = Refused("budget.total", f"larger than {inventory.TOTAL_BUDGET} bytes in total")
        findings.append(failure.told(refused, "", FIXES))


# --- deciding -------------------------------------------------------------------------------------


def _read_waivers(path: Path, examined: _Examined) -> list[Waiver]:
    digests = {sha256: name for name, (_, sha256) in examined.taken.digests.items()}
    given, wrong = waivers.read(path, rules.known(), digests)
    examined.findings += wrong
    return given


def _compare_with_history(examined: _Examined, home: Path) -> None:
    try:
        past = ledger.read(home)
    except EdgemlError as error:
        examined.findings.append(failure.failed("gate.error", "", str(error).replace(str(home), "the state folder")))
        return
    if examined.contract is not None and "lineage.json" in examined.documents:
        fingerprint = examined.documents["lineage.json"]["data"]["fingerprint"]
        now = history.counts(examined.contract, examined.documents)
        examined.findings += history.differences(examined.contract, fingerprint, now, past)


def _decide(examined: _Examined, given: Sequence[Waiver], files: dict[str, bytes]) -> Verdict:
    """Released if there is no finding that nobody answers for; undecided if the gate could not look."""
    pairs = {(waiver.sha256, waiver.rule) for waiver in given}
    waived: list[Finding] = []
    findings: list[Finding] = []
    known = rules.known()
    for finding in sorted(set(examined.findings)):
        rule = known.get(finding.rule)
        digest = examined.taken.digests.get(finding.file.partition("!")[0], (0, ""))[1]
        answered = rule is not None and rule.waivable and (digest, finding.rule) in pairs
        (waived if answered else findings).append(finding)
    unused = pairs - {(examined.taken.digests[f.file.partition("!")[0]][1], f.rule) for f in waived}
    for _, rule_id in sorted(unused):
        findings.append(waivers.unneeded(rule_id))
    if not findings and examined.contract is not None:  # a waiver does not make readable what cannot be written anew
        lost = [name for name in _wanted(examined.contract) if name not in files]
        fix = FIXES["json.schema"]
        findings += [Finding("inventory.missing", name, "", "cannot be written anew", fix) for name in lost]
    decided = [finding for finding in findings if finding.rule not in failure.UNDECIDED]
    verdict = BLOCKED if decided else UNDECIDED if findings else RELEASED
    leaving = files if verdict == RELEASED else {}
    if verdict == RELEASED and not leaving:
        raise EdgemlError("there is nothing to release; give the folders of the artifacts", 1)
    trimming = examined.trimming if verdict == RELEASED else None
    return Verdict(verdict, findings, waived, list(given), leaving, examined.taken.digests, trimming)


def _keep(verdict: Verdict, examined: _Examined, home: Path, signing: Any, out: Path) -> None:
    """Write decision and files: into quarantine, into the ledger, to where they belong, and at last to `out`."""
    egress = schemas.print_json(verdict.egress())
    local = verdict.document()
    name = hashlib.sha256(egress).hexdigest()
    leaving = {**verdict.files, seal.VERDICT: egress}
    if verdict.verdict == RELEASED:
        leaving[seal.SIGNATURE] = seal.sign(egress, signing)
    papers = {"report.json": schemas.print_json(local), "report.md": report.markdown(local).encode()}
    try:
        staged = ledger.stage(home, name, leaving if verdict.verdict == RELEASED else {seal.VERDICT: egress, **papers})
        ledger.append(home, _entry(verdict, examined, name))
        (ledger.approve if verdict.verdict == RELEASED else ledger.reject)(home, staged, name)
    except OSError as error:
        raise EdgemlError(f"the verdict could not be written ({error.strerror}); nothing left", 1) from None
    ledger.publish(leaving, out, seal.VERDICT)


def _entry(verdict: Verdict, examined: _Examined, name: str) -> dict[str, Any]:
    found = [finding.rule for finding in verdict.findings]
    entry: dict[str, Any] = {
        "decision": verdict.verdict,
        "egress": name,
        "rules": {rule: found.count(rule) for rule in sorted(set(found))},
        "waivers": [waiver._asdict() for waiver in verdict.waivers],
    }
    contract = examined.contract
    if contract is not None:
        entry["contract"] = contract.name
    if verdict.verdict == RELEASED and contract is not None and "lineage.json" in examined.documents:
        entry["data"] = examined.documents["lineage.json"]["data"]["fingerprint"]
        entry["counts"] = history.counts(contract, examined.documents)
    return entry
