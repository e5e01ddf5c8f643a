"""The rule for data contracts: each is read as the components will read it."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator

from edgeml.check.context import Context
from edgeml.check.document import Document, entries, walk
from edgeml.check.finding import ERROR, Finding, Place, Rule, found

_HEAD = "# --- contracts/ward.yml\nname: ward\nversion: 1\nkey: patient\ntarget: ill\ntask: classification\n"
_HEAD += "positive: true\n"
_COLUMNS = "columns:\n  patient: {type: string, unique: true}\n  ill: {type: boolean, public: true}\n"
CONTRACT = Rule(
    "data-contract",
    ERROR,
    "A data contract is whole and does not contradict itself",
    "Every step reads it first; what is wrong with it would stop each of them, beside the data and minutes later.",
    f"{_HEAD}k: 2\n{_COLUMNS}  age: {{type: integer}}\n",
    f"{_HEAD}k: 10\n{_COLUMNS}  age: {{type: integer}}\n",
)
RULES = (CONTRACT,)

_WORD = re.compile(r"[A-Za-z_][\w-]*")


def check(document: Document, context: Context) -> Iterator[Finding]:
    """What the contract's own reader refuses, at the line that it most likely means."""
    from pathlib import Path

    from edgeml import contract

    try:
        contract.load(Path(document.path))
    except contract.Refusal as refusal:
        message = str(refusal).removeprefix(f"{os.path.basename(document.path)}: ")
        yield found(CONTRACT, _place(document, message), message)


def _place(document: Document, message: str) -> Place:
    """The first key that the message names, the most deeply nested of them first; else the top."""
    named = _WORD.findall(message.partition(":")[0] if ":" in message else message)
    keys = {name: key for node in walk(document.root) for name, (key, _) in entries(node).items()}
    place = next((keys[word] for word in reversed(named) if word in keys), None)
    return document.place(place) if place is not None else Place(document.path, 1, 1)
