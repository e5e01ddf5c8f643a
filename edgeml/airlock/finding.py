"""What the gate's rules say, and the words that they share: artifacts, views and findings."""

from __future__ import annotations

from typing import NamedTuple, Protocol

POLICY, CONTENT = "policy", "content"


class Rule(NamedTuple):
    """A rule by its stable id. `kind` tells the policy of formats and sizes from what looks at content.

    Not every rule can be waived: no signature lets stored rows out.
    """

    id: str
    kind: str
    title: str
    why: str
    waivable: bool = True


class Finding(NamedTuple):
    """Why something may not leave. No field ever holds a private value, nor a key or file name that could be one.

    `file` is the artifact's path below the examined folder, `place` a tensor's name, a JSON path or a line inside it.
    `column` is a column of the private table, `rows` and `cells` count what was recognised, `bits` is the evidence.
    """

    rule: str
    file: str
    place: str
    message: str
    fix: str
    column: str = ""
    rows: int = 0
    cells: int = 0
    bits: float = 0.0


class Artifact(NamedTuple):
    """A file that wants to leave, or a member of one (`outer.zip!inner.json`), with the format that its bytes show."""

    name: str
    format: str
    data: bytes


class Text(NamedTuple):
    """Text found in an artifact, as it stands or decoded; `place` says where and through which decodings."""

    file: str
    place: str
    text: str


class Examiner(Protocol):
    """A rule set that compares what wants to leave with the private table, which streams past it once.

    `feed` gets every batch of private rows (a `pyarrow.RecordBatch`), in order; `findings` is asked afterwards.
    """

    def feed(self, batch: object) -> None: ...

    def findings(self) -> list[Finding]: ...
