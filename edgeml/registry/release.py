"""A release folder, read once and verified: the signature of its egress verdict, and every file that this names."""

from __future__ import annotations

import hashlib
import json
import os
import stat
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from edgeml.airlock.keeping import seal
from edgeml.errors import EdgemlError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from edgeml.engine.runs import Run

VERDICT = "egress.json"
MODEL = "model.onnx"
SIGNATURE = "egress.sig"
RULES_VERSIONS = ("2", "3")
LARGEST = 64 << 20  # bytes of one file; the gate's own budgets are smaller


@dataclass(frozen=True)
class Release:
    """The files of a release as they were verified: what is used later is what was checked."""

    folder: str
    files: dict[str, bytes]

    @property
    def sha256(self) -> str:
        """The model's identity: the SHA-256 of model.onnx."""
        return hashlib.sha256(self.files[MODEL]).hexdigest()

    def document(self, name: str) -> dict[str, Any]:
        """One of the JSON files. Raises EdgemlError where it is missing or no object."""
        return parse(self.files.get(name), os.path.join(self.folder, name))


def folder_of(run: Run) -> str | None:
    """The release folder of a run: its output `release`, else the step output of that name; None without one."""
    outputs = [run.record.get("outputs") or {}]
    outputs += [step.get("outputs") or {} for step in run.record["steps"]]
    for candidates in outputs:
        if "release" in candidates:
            folder = os.path.realpath(os.path.join(run.path, str(candidates["release"].get("path"))))
            if os.path.commonpath([folder, os.path.realpath(run.path)]) != os.path.realpath(run.path):
                raise EdgemlError(f"the release of {run.record['run']} lies outside of its run folder; run it again", 1)
            return folder if os.path.isdir(folder) else None
    return None


def verdict_of(run: Run) -> dict[str, Any] | None:
    """The egress verdict of a run, whatever it says; None where the gate did not get to one.

    A refused release is no output of its step, so the verdict is looked for where the step wrote it, too.
    """
    folder = folder_of(run)
    folders = [folder] if folder else []
    for step in run.record["steps"]:
        folders += [os.path.join(run.path, zone, str(step["node"]), "release") for zone in ("cloud", "edge")]
    for candidate in folders:
        file = os.path.join(candidate, VERDICT)
        if os.path.isfile(file):
            return parse(_read(file), file)
    return None


def of(run: Run) -> Release:
    """The verified release of a run. Raises EdgemlError, exit code 1, where there is none to trust."""
    name = run.record["run"]
    if run.record["status"] != "completed":
        raise EdgemlError(f"run {name} is {run.record['status']}, not completed; run the pipeline again", 1)
    folder = folder_of(run)
    if folder is None:
        raise EdgemlError(f"run {name} released nothing; it needs an output named release", 1)
    return verify(folder)


def verify(folder: str, trusted: Sequence[str] | None = None) -> Release:
    """Read a release folder and compare every file with the signed egress verdict; whatever differs is refused.

    `trusted` are the public keys whose signature counts, without them the settings' and this machine's own gate's.
    """
    names = sorted(os.listdir(folder))
    if VERDICT not in names:
        raise EdgemlError(f"{folder} holds no {VERDICT}, so nothing was released; run the pipeline again", 1)
    files = {name: _read(os.path.join(folder, name)) for name in names}
    verdict = parse(files[VERDICT], os.path.join(folder, VERDICT))
    if verdict.get("released") is not True:
        raise EdgemlError(f"the egress gate released nothing: {summary(verdict)}", 1)
    if verdict.get("rules_version") not in RULES_VERSIONS:
        raise EdgemlError(f"{folder} was released under rules that this edgeml does not know; update edgeml", 1)
    try:
        listed = {str(file["name"]): (file["bytes"], file["sha256"]) for file in verdict["files"]}
    except (KeyError, TypeError):
        raise EdgemlError(f"{os.path.join(folder, VERDICT)} lists no files; run the pipeline again", 1) from None
    if extra := sorted(set(names) - set(listed) - {VERDICT, SIGNATURE}):
        raise EdgemlError(f"{folder} holds {len(extra)} files that the egress gate did not release; remove them", 1)
    for name, expected in listed.items():
        if name not in files:
            raise EdgemlError(f"{folder} lacks {name}, which the egress gate released; run the pipeline again", 1)
        if expected != (len(files[name]), hashlib.sha256(files[name]).hexdigest()):
            raise EdgemlError(f"{name} in {folder} is not what the egress gate released; run the pipeline again", 1)
    if MODEL not in files:
        raise EdgemlError(f"{folder} holds no {MODEL}; run the pipeline again", 1)
    if SIGNATURE not in files:
        raise EdgemlError(f"{folder} holds no {SIGNATURE}, so no gate answers for it; run the pipeline again", 1)
    seal.verify(files[VERDICT], files[SIGNATURE], _trusted() if trusted is None else trusted)
    return Release(folder, files)


def _trusted() -> list[str]:
    from edgeml import settings
    from edgeml.airlock.keeping import ledger

    return seal.trusted(ledger.state(), settings.load().airlock.public_keys)


def summary(verdict: dict[str, Any]) -> str:
    """The findings of an egress verdict as one line."""
    findings = verdict.get("findings") or []
    shown = [f"{f.get('file')}: {f.get('detail')} [{f.get('rule')}]" for f in findings if isinstance(f, dict)]
    more = f" and {len(shown) - 3} more" if len(shown) > 3 else ""
    return ("; ".join(shown[:3]) or "no reason was given") + more


def parse(data: bytes | None, where: str) -> dict[str, Any]:
    """A JSON object. Raises EdgemlError, exit code 1, naming the file."""
    if data is None:
        raise EdgemlError(f"{where} is missing; run the pipeline again", 1)
    try:
        document = json.loads(data)
    except (ValueError, RecursionError):
        document = None
    if not isinstance(document, dict):
        raise EdgemlError(f"{where} is not a JSON object; run the pipeline again", 1)
    return document


def _read(path: str) -> bytes:
    """A regular file's bytes; a link, a pipe or a monster is refused."""
    status = os.lstat(path)
    if not stat.S_ISREG(status.st_mode) or status.st_size > LARGEST:
        raise EdgemlError(f"{path} is not a regular file of at most {LARGEST >> 20} MiB; remove it", 1)
    with open(path, "rb") as file:
        return file.read(LARGEST + 1)
