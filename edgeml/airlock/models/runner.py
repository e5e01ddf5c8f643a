"""One model at work on the private rows, in a process of its own: the runtime may crash on a model (it does).

The process is a fork of the worker, which is cheap, and speaks the same frames: a byte for the kind,
eight for the length, the content.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import struct
from collections.abc import Callable, Iterator, Sequence
from typing import IO, Any

import numpy as np
import pyarrow as pa

from edgeml.airlock.finding import CONTENT, Finding, Rule
from edgeml.airlock.models import hygiene
from edgeml.airlock.models.activations import Failed, Run
from edgeml.airlock.models.batch import numbers, strings
from edgeml.airlock.models.inputs import Mismatch, plans
from edgeml.airlock.models.membership import Losses
from edgeml.airlock.models.trees import Leaves
from edgeml.airlock.models.trimming import Change, Trimming
from edgeml.airlock.models.walk import places
from edgeml.contract import Contract, as_text

UNEXAMINED = Rule(
    "model.unexamined", CONTENT, "could not be examined",
    "a model that does not run on the private rows may hold them in a form that only running it shows", waivable=False,
)  # fmt: skip
RULES = (UNEXAMINED,)

ENDED = "its examination ended before it was done"


class Runner:
    """What runs one model; `failed` says why it could not be run."""

    def __init__(
        self,
        file: str,
        proto: Any,
        contract: Contract,
        signature: bytes | None,
        outside: set[Any] | None,
        steps: Sequence[int],
    ) -> None:
        self.file, self.proto, self.contract, self.failed = file, proto, contract, ""
        self.steps = steps
        self.trimming: tuple[Run | None, Trimming | None] = (None, None)  # of the first run
        self.outside = outside  # keys of the rows that were not trained on, if they are known
        self.runs: list[Run] = []
        self.losses = Losses(contract.classes)
        try:
            if any(rule == hygiene.EXTERNAL.id for rule, *_ in hygiene.findings(file, proto)):
                raise Mismatch("it keeps tensors outside of the file")
            ways = plans(proto, contract, signature)
            self.runs = [Run(proto, way, list(places(proto)), contract.k) for way in ways]
        except (Mismatch, Failed) as reason:
            self.failed = str(reason)
        self.leaves_of = [Leaves(proto, contract.k) for _ in self.runs]

    def feed(self, batch: pa.RecordBatch) -> None:
        """Run every plan on the rows. One that fails is dropped; the last that does fails the model."""
        targets, member = targets_of(batch, self.contract), None
        if self.outside is not None:
            member = np.array([key not in self.outside for key in keys_of(batch, self.contract.key)])
        for run, leaves in list(zip(self.runs, self.leaves_of, strict=True)):
            try:
                for start, values in run.feed(batch):
                    some = slice(start, start + run.chunk)
                    leaves.feed(values, targets[some] if not self.contract.classes else None)
                    if run is not self.runs[0]:
                        continue
                    self._trim(run, values, targets[some])
                    if member is not None:
                        outputs = {port.name: values[port.name] for port in self.proto.graph.output}
                        self.losses.feed(outputs, targets[some], member[some])
            except Failed as reason:
                place = self.runs.index(run)
                del self.runs[place], self.leaves_of[place]
                self.failed = "" if self.runs else str(reason)

    def _trim(self, run: Run, values: dict[str, Any], targets: np.ndarray[Any, Any]) -> None:
        known, trimming = self.trimming
        if known is not run or trimming is None:
            trimming = Trimming(self.proto, self.contract.classes, self.steps)
            self.trimming = (run, trimming)
        trimming.feed({name: values[name] for name in run.inputs}, values, targets)

    def changes(self) -> list[Change]:
        """What trimming the weights would do, step by step; nothing where the model did not run."""
        trimming = self.trimming[1]
        return [] if self.failed or trimming is None else trimming.changes()

    def findings(self) -> Iterator[Finding]:
        if self.failed or not self.runs:
            yield unexamined(self.file, self.failed or "it was not run")
            return
        seen = set()
        for run in self.runs:
            for finding in run.findings(self.file):
                if finding.place not in seen:
                    seen.add(finding.place)
                    yield finding
        # Rows in a wrong order of columns reach other leaves: the order that spreads them best is the right one.
        best = min(self.leaves_of, key=lambda leaves: sum(f.few(leaves.k).size for _, f in leaves.forests))
        yield from best.findings(self.file, not self.contract.classes)

    def membership(self) -> tuple[str, Finding | None]:
        return self.losses.note(self.file) if self.outside is not None else ("", None)


def unexamined(file: str, reason: str) -> Finding:
    return Finding(
        UNEXAMINED.id, file, "model", f"could not be examined: {reason}",
        "give signature.json beside it, and inputs that are columns of the contract or one matrix of its features",
    )  # fmt: skip


def targets_of(batch: pa.RecordBatch, contract: Contract) -> np.ndarray[Any, Any]:
    """The targets as numbers: values, or positions among the contract's classes; NaN where unknown."""
    name, classes = contract.target, contract.classes
    if name not in batch.schema.names:
        return np.full(batch.num_rows, np.nan)
    if not classes:
        return numbers(batch).get(name, np.full(batch.num_rows, np.nan))
    positions = {text: number for number, text in enumerate(classes)}
    cells = batch.column(name).to_pylist()
    texts = [as_text(int(c) if isinstance(c, float) and c.is_integer() else c) for c in cells]
    if contract.columns[name].type == "boolean":
        texts = [as_text(bool(c)) if c is not None else "" for c in cells]
    return np.array([positions.get(text, np.nan) for text in texts], dtype=np.float64)


def keys_of(batch: pa.RecordBatch, key: str) -> list[Any]:
    columns: dict[str, Any] = {**numbers(batch), **strings(batch)}
    found = columns.get(key)
    return [None] * batch.num_rows if found is None else list(found)


# --- the process ----------------------------------------------------------------------------------


def send(pipe: IO[bytes], kind: bytes, content: bytes = b"") -> None:
    pipe.write(kind + struct.pack("<Q", len(content)) + content)
    pipe.flush()


def receive(pipe: IO[bytes]) -> tuple[bytes, bytes]:
    head = pipe.read(9)
    if len(head) != 9:
        raise EOFError
    size = struct.unpack("<Q", head[1:])[0]
    content = pipe.read(size)
    if len(content) != size:
        raise EOFError
    return head[:1], content


def batch_of(content: bytes) -> pa.RecordBatch:
    with pa.ipc.open_stream(pa.py_buffer(content)) as reader:
        return reader.read_next_batch()


def content_of(batch: Any) -> bytes:
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, batch.schema) as writer:
        writer.write_batch(batch)
    return bytes(sink.getvalue())


class Child:
    """A fork of this process that runs one model. Whatever ends it early makes the model unexamined."""

    def __init__(self, file: str, make: Callable[[], Runner], others: list[Child], seconds: float) -> None:
        self.file, self.failed, self.seconds = file, "", seconds
        ours, theirs = os.pipe(), os.pipe()
        self.process = os.fork()
        if self.process == 0:
            try:
                for other in others:  # so that every one of them sees when the worker is gone
                    other.close()
                os.close(ours[1])
                os.close(theirs[0])
                _serve(make(), os.fdopen(ours[0], "rb"), os.fdopen(theirs[1], "wb"))
            finally:  # whatever went wrong, nothing is said but that the pipe closes
                os._exit(0)
        os.close(ours[0])
        os.close(theirs[1])
        self.sink, self.source = os.fdopen(ours[1], "wb"), os.fdopen(theirs[0], "rb")

    def tell(self, kind: bytes, content: bytes = b"") -> None:
        if not self.failed:
            try:
                send(self.sink, kind, content)
            except OSError:
                self._fail(ENDED)

    def answer(self) -> bytes:
        if self.failed:
            return b""
        if not select.select([self.source], [], [], self.seconds)[0]:
            self._fail(f"it took more than {self.seconds:g} seconds for one batch of rows")
            return b""
        try:
            return receive(self.source)[1]
        except (EOFError, OSError):
            self._fail(ENDED)
            return b""

    def findings(self) -> tuple[list[Finding], str, list[Change]]:
        """What was found, a note on membership, and what trimming the weights would do."""
        self.tell(b"F")
        told = self.answer()
        self._end()
        if self.failed:
            note = f"{self.file}: membership inference was skipped, it did not run"
            return [unexamined(self.file, self.failed)], note, []
        answer = json.loads(told)
        changes = [Change(*fields) for fields in answer["changes"]]
        return [Finding(*fields) for fields in answer["findings"]], answer["note"], changes

    def _fail(self, reason: str) -> None:
        self.failed = reason
        self._end()

    def _end(self) -> None:
        if self.process:
            os.kill(self.process, 9)
            os.waitpid(self.process, 0)
            self.process = 0
            self.close()

    def close(self) -> None:
        for pipe in (self.sink, self.source):
            with contextlib.suppress(OSError):
                pipe.close()


def _serve(runner: Runner, source: IO[bytes], sink: IO[bytes]) -> None:
    while True:
        kind, content = receive(source)
        if kind == b"R":
            runner.feed(batch_of(content))
            send(sink, b"k")
        else:
            note, finding = runner.membership()
            findings = [*runner.findings(), *([finding] if finding else [])]
            answer = {"findings": findings, "note": note, "changes": runner.changes()}
            send(sink, b"k", json.dumps(answer).encode())
            return
