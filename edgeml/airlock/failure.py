"""What goes wrong in the gate itself: closed by default, told without what a library's message may quote."""

from __future__ import annotations

import os
import traceback
from collections.abc import Iterator
from contextlib import contextmanager

from edgeml.airlock.finding import POLICY, Finding, Rule
from edgeml.airlock.intake.strict_json import Refused

RULES = (
    Rule("gate.error", POLICY, "the gate could examine everything", "What could not be examined is not known to be "
         "clean. The message of an error may quote a private value, so only its kind and place are told.",
         waivable=False),
    Rule("contract.invalid", POLICY, "the data contract is in order", "Without it nobody knows what is public and how "
         "many rows k are.", waivable=False),
    Rule("table.invalid", POLICY, "the private table can be read", "What cannot be compared with the rows is not known "
         "to be free of them.", waivable=False),
)  # fmt: skip
UNDECIDED = frozenset(rule.id for rule in RULES)

FIXES = {
    "gate.error": "run `edgeml airlock check` with EDGEML_DEBUG=1 beside the data to see the whole error",
    "contract.invalid": "mend the data contract",
    "table.invalid": "give the Parquet files that the artifacts were made from",
}


def failed(rule: str, file: str, message: str) -> Finding:
    return Finding(rule, file, "", message, FIXES[rule])


@contextmanager
def guard(findings: list[Finding], file: str, fixes: dict[str, str]) -> Iterator[None]:
    """Whatever goes wrong inside becomes a finding about the file."""
    try:
        yield
    except Refused as refused:
        findings.append(told(refused, file, fixes))
    except (KeyboardInterrupt, SystemExit):
        raise
    except BaseException as error:  # a panic of a library is no Exception
        if os.environ.get("EDGEML_DEBUG"):
            raise
        findings.append(failed("gate.error", file, f"could not be examined ({place(error)})"))


def told(refused: Refused, file: str, fixes: dict[str, str]) -> Finding:
    """A refusal as a finding: a detail that starts with a JSON path has its place there."""
    where, separator, rest = refused.detail.partition(": ")
    inside = separator and where.startswith("$")
    fix = fixes.get(refused.rule, "leave it out, or write it in the form that is asked for")
    return Finding(refused.rule, refused.file or file, where if inside else "", rest if inside else refused.detail, fix)


def place(error: BaseException) -> str:
    """The kind of an error and the line of ours where it arose."""
    frames = traceback.extract_tb(error.__traceback__)
    ours = [frame for frame in frames if "site-packages" not in frame.filename]
    return f"{type(error).__name__} at {os.path.basename(ours[-1].filename)}:{ours[-1].lineno}"
