"""Why a step of one run is not what it was in another: which parts of its key differ.

A run's record holds short digests of the parts, and its `code.json` those of each code file, so what differs is
named without any content being kept. Values are shown only where the record has them already.
"""

from __future__ import annotations

import json
import os
from typing import Any

from edgeml.engine.folder import CODE
from edgeml.engine.run import CACHED, DONE, FAILED
from edgeml.engine.runs import Run

_NAMED = {
    "command": "the command changed",
    "environment": "the declared environment changed",
    "interpreter": "the interpreter, or what is installed beside it, changed",
    "outputs": "the declared outputs changed",
    "kind": "the settings of its sweep, mini-batches or processes changed",
}

Reason = dict[str, Any]


def between(new: Run, old: Run) -> dict[str, Any]:
    """What differs from `old` to `new`, by step: plain data, each reason with its `part` and a sentence as `text`."""
    before = {step["node"]: step for step in old.record["steps"]}
    files = _code(new), _code(old)
    steps = [
        {
            "node": step["node"],
            "status": step["status"],
            "reasons": _reasons(step, before[step["node"]], bool(new.record.get("forced")), files)
            if step["node"] in before
            else [_reason("step", f"is not in {old.record['run']}")],
        }
        for step in new.record["steps"]
    ]
    present = {step["node"] for step in new.record["steps"]}
    removed = [node for node in before if node not in present]
    return {"run": new.record["run"], "against": old.record["run"], "steps": steps, "removed": removed}


def _reasons(new: Reason, old: Reason, forced: bool, files: tuple[Any, Any]) -> list[Reason]:
    """Why the step ran, or what differs of it although it was reused."""
    for step, which in ((new, "in this run"), (old, "in the other run")):
        if not step.get("key"):
            return [_reason("absent", f"was not reached {which} ({step['status']})")]
        if not step.get("parts"):
            return [_reason("unknown", f"was recorded {which} by an edgeml that did not note what made it")]
    found = _changed(new, old, files)
    if not found and new["key"] != old["key"]:
        found.append(_reason("edgeml", "was keyed by another version of edgeml"))
    if new["status"] == CACHED:
        return found
    if not new["deterministic"]:
        found.append(_reason("deterministic", "says is_deterministic: false, so it always runs"))
    if forced:
        found.append(_reason("forced", "was forced to run"))
    if not found and old["status"] == FAILED:
        found.append(_reason("failed", "failed in the other run, and a failure is never reused"))
    if not found and old["status"] not in DONE:
        found.append(_reason("unfinished", f"did not finish in the other run ({old['status']})"))
    if not found:
        found.append(_reason("cache", "nothing differs, but its outputs were no longer in the cache as it wrote them"))
    return found


def _changed(new: Reason, old: Reason, files: tuple[Any, Any]) -> list[Reason]:
    parts, before = new["parts"], old["parts"]
    found = [_reason(part, text) for part, text in _NAMED.items() if parts[part] != before[part]]
    if parts["code"] != before["code"]:
        found.append(_code_reason(files[0].get(parts["code"]), files[1].get(before["code"])))
    found += [
        _reason("variable", f"the environment variable {name} {_verb(name, parts, before)}", name=name)
        for name in _differing(parts["variables"], before["variables"])
    ]
    inputs = (_input_reason(name, new, old) for name in sorted({*new["inputs"], *old["inputs"]}))
    return found + [reason for reason in inputs if reason]


def _code_reason(new: dict[str, str] | None, old: dict[str, str] | None) -> Reason:
    if new is None or old is None:
        return _reason("code", "the code changed (its list of files is gone)", added=[], removed=[], changed=[])
    added, removed = sorted(new.keys() - old.keys()), sorted(old.keys() - new.keys())
    changed = sorted(name for name in new.keys() & old.keys() if new[name] != old[name])
    told = [f"{verb} {', '.join(names)}" for verb, names in _verbs(added, removed, changed) if names]
    return _reason("code", f"code: {'; '.join(told)}", added=added, removed=removed, changed=changed)


def _verbs(added: list[str], removed: list[str], changed: list[str]) -> list[tuple[str, list[str]]]:
    return [("added", added), ("removed", removed), ("changed", changed)]


def _input_reason(name: str, new: Reason, old: Reason) -> Reason | None:
    """Why an input differs, or None where it is the same. Its digest leaves out a file's name, which counts too."""
    digests = new["parts"]["inputs"].get(name), old["parts"]["inputs"].get(name)
    value, before = new["inputs"].get(name), old["inputs"].get(name)
    if None in digests:
        text = f"input '{name}' was not set before" if digests[1] is None else f"input '{name}' is no longer set"
        return _input(name, "unset", text, before, value)
    kind, kind_before = _kind(value), _kind(before)
    if kind != kind_before:
        return _input(name, kind, f"input '{name}': {_shown(before)} -> {_shown(value)}", before, value)
    if kind == "data":
        file, file_before = os.path.basename(value["path"]), os.path.basename(before["path"])
        if digests[0] != digests[1]:
            return _input(name, kind, f"input '{name}': the content of {file} changed", before, value)
        if file != file_before:
            return _input(name, kind, f"input '{name}': {file_before} is named {file} now", before, value)
        return None
    if digests[0] == digests[1]:
        return None
    if kind == "output":
        source = f"output '{value['output']}' of step '{value['step']}'"
        moved = "" if value == before else f" (before: {_shown(before)})"
        return _input(name, kind, f"input '{name}': {source} changed{moved}", before, value)
    if value == before:  # text around data or outputs whose content changed
        return _input(name, kind, f"input '{name}': the content of what it names changed", before, value)
    return _input(name, kind, f"input '{name}': {_shown(before)} -> {_shown(value)}", before, value)


def _input(name: str, kind: str, text: str, old: Any, new: Any) -> Reason:
    return _reason("input", text, name=name, kind=kind, old=old, new=new)


def _kind(value: Any) -> str:
    if isinstance(value, dict):
        return "data" if "path" in value else "output" if "step" in value else "text"
    return "literal"


def _shown(value: Any) -> str:
    kind = _kind(value)
    if kind == "data":
        return str(value["path"])
    if kind == "output":
        return f"{value['step']}.{value['output']}"
    if kind == "text":
        return "".join(part if isinstance(part, str) else _shown(part) for part in value["text"])
    return json.dumps(value, default=str)


def _differing(new: dict[str, str], old: dict[str, str]) -> list[str]:
    return sorted(name for name in {*new, *old} if new.get(name) != old.get(name))


def _verb(name: str, new: Reason, old: Reason) -> str:
    if name not in new["variables"]:
        return "was removed"
    return "changed" if name in old["variables"] else "was added"


def _reason(part: str, text: str, **details: Any) -> Reason:
    return {"part": part, "text": text, **details}


def _code(run: Run) -> dict[str, dict[str, str]]:
    try:
        with open(os.path.join(run.path, CODE), encoding="utf-8") as stream:
            read = json.load(stream)
    except (OSError, ValueError):
        return {}
    return read if isinstance(read, dict) else {}
