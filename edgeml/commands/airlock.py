"""`edgeml airlock`: the egress gate. What may leave, what left, and whether it is still what was released."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from edgeml.errors import EdgemlError

if TYPE_CHECKING:
    import argparse

HELP = """The egress gate: compare what wants to leave with every private row, and write anew what may.

`check` exits with 0 if the release was written, with 2 if something blocks it, and with 1 if the gate could not
decide; in both of these cases nothing leaves but the verdict."""
EXAMPLES = [
    "edgeml airlock check --data TABLE --contract contracts/breast_cancer.yml --artifacts MODEL --out RELEASE",
    "edgeml airlock check --data TABLE --contract CONTRACT.yml --artifacts DIR --out RELEASE --waivers waivers.yml",
    "edgeml airlock verify RELEASE          # manifest and signature",
    "edgeml airlock status --json           # every decision that was taken here",
    "edgeml airlock --explain count.small",
]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--explain", default="", metavar="RULE", help="say what a rule holds and why")
    actions = parser.add_subparsers(dest="action", metavar="ACTION")
    check = actions.add_parser("check", help="decide about artifacts and write what may leave", allow_abbrev=False)
    check.add_argument("--data", type=Path, action="append", required=True, metavar="TABLE", help="the private table")
    check.add_argument("--contract", type=Path, required=True, metavar="FILE", help="the data contract")
    check.add_argument(
        "--artifacts", type=Path, action="append", required=True, metavar="DIR", help="what wants to leave; repeatable"
    )
    check.add_argument("--out", type=Path, required=True, metavar="DIR", help="where the release goes: an empty folder")
    check.add_argument("--holdout", type=Path, metavar="TABLE", help="rows that no model was trained on")
    check.add_argument("--manifest", type=Path, metavar="FILE", help="what was ingested, for the lineage")
    check.add_argument("--validation", type=Path, metavar="FILE", help="the report of the contract's check")
    check.add_argument("--waivers", type=Path, metavar="FILE", help="findings that a person answers for")
    check.add_argument("--report", type=Path, metavar="FILE.json", help="write the report here, and as .md beside it")
    check.add_argument("--key", type=Path, metavar="FILE", help="signing key (default: EDGEML_AIRLOCK_KEY, else own)")
    check.add_argument("--state", type=Path, metavar="DIR", help="the gate's folder (default: EDGEML_AIRLOCK_STATE)")
    check.add_argument(
        "--mantissa-bits", type=int, choices=range(7, 24), metavar="N",
        help="bits of each weight that leave, 7 to 23 (default: 10); more where predictions would change by 1e-3",
    )  # fmt: skip
    check.add_argument("--json", action="store_true", help="print the report as JSON")
    verify = actions.add_parser("verify", help="compare a release with its manifest and signature", allow_abbrev=False)
    verify.add_argument("folder", type=Path, metavar="DIR")
    verify.add_argument("--public-key", action="append", default=[], metavar="HEX", help="a gate that is trusted")
    verify.add_argument("--state", type=Path, metavar="DIR", help="folder of the gate of this machine")
    verify.add_argument("--json", action="store_true", help="print the verdict as JSON")
    status = actions.add_parser("status", help="list what was decided here", allow_abbrev=False)
    status.add_argument("--state", type=Path, metavar="DIR", help="the gate's folder")
    status.add_argument("--json", action="store_true", help="print the ledger as JSON")


def execute(args: argparse.Namespace) -> int:
    if args.explain:
        return _explain(args.explain)
    if args.action is None:
        raise EdgemlError("say what to do: `edgeml airlock check`, `verify` or `status`; --help shows examples")
    return {"check": _check, "verify": _verify, "status": _status}[args.action](args)


def _check(args: argparse.Namespace) -> int:
    from edgeml.airlock import gate
    from edgeml.airlock.keeping import report

    verdict = gate.check(
        args.data,
        args.contract,
        args.artifacts,
        args.out,
        waivers=args.waivers,
        manifest=args.manifest,
        validation=args.validation,
        key=args.key,
        state=args.state,
        holdout=args.holdout,
        mantissa_bits=args.mantissa_bits,
    )
    document = verdict.document()
    if args.report:
        args.report.write_text(json.dumps(document, indent=2) + "\n", "utf-8")
        args.report.with_suffix(".md").write_text(report.markdown(document), "utf-8")
    if args.json:
        print(json.dumps(document, indent=2))
    for finding in document["findings"]:
        evidence = [f"column {finding['column']}"] if "column" in finding else []
        evidence += [f"{finding[key]} {key}" for key in ("rows", "cells", "bits") if key in finding]
        shown = f" ({', '.join(evidence)})" if evidence else ""
        where = f"{finding['file']}: " if finding["file"] else ""
        print(f"airlock: {where}{finding['detail']}{shown} [{finding['rule']}]; {finding['fix']}", file=sys.stderr)
    for finding in document["waived"]:
        print(f"airlock: waived: {finding['file']}: {finding['detail']} [{finding['rule']}]", file=sys.stderr)
    if verdict.verdict != gate.RELEASED:
        print(f"airlock: {verdict.verdict}; nothing leaves but the verdict", file=sys.stderr)
    elif not args.json:
        print(f"released {len(verdict.files)} files, {sum(map(len, verdict.files.values()))} bytes")
        print(report.trimmed(document["trimming"]))
    return gate.EXIT[verdict.verdict]


def _verify(args: argparse.Namespace) -> int:
    from edgeml.airlock.keeping import ledger, seal
    from edgeml.registry import release

    trusted = args.public_key or seal.trusted(ledger.state(args.state), _settled())
    found = release.verify(str(args.folder), trusted)
    if args.json:
        print(json.dumps(found.document(release.VERDICT), indent=2))
    else:
        print(f"{args.folder} is what the gate released: {len(found.files) - 2} files, model sha256:{found.sha256}")
    return 0


def _settled() -> list[str]:
    from edgeml import settings

    return settings.load().airlock.public_keys


def _status(args: argparse.Namespace) -> int:
    from edgeml.airlock.keeping import ledger

    folder = ledger.state(args.state)
    entries = ledger.read(folder)
    if args.json:
        print(json.dumps(entries, indent=2))
        return 0
    print(f"{folder}: {len(entries)} decisions, the ledger is whole")
    for entry in entries:
        why = ", ".join(f"{count} {rule}" for rule, count in entry["rules"].items())
        waived = f"{len(entry['waivers'])} waivers" if entry["waivers"] else ""
        print("  ".join(filter(None, [entry["time"], f"{entry['decision']:9}", entry["egress"][:12], why, waived])))
    return 0


def _explain(wanted: str) -> int:
    from edgeml.airlock import rules

    known = rules.known()
    if wanted not in known:
        raise EdgemlError(f"there is no rule '{wanted}'; there are: {', '.join(known)}")
    print(rules.explain(known[wanted]))
    return 0
