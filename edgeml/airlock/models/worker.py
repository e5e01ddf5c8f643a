"""The examination of models, in a process of its own that has limits and no way to speak but one pipe.

A model is untrusted: parsing or running it may crash, hang or fill the memory. `models` starts this module
and sends frames (a byte for the kind, eight for the length, the content); the answer is one JSON frame.
What libraries print is thrown away, because it may quote values.
"""

from __future__ import annotations

import json
import os
import pickle
import resource
import sys
from collections.abc import Iterable, Sequence
from pathlib import PurePosixPath
from typing import IO, Any

import pyarrow as pa

from edgeml.airlock.finding import POLICY, Artifact, Finding, Rule
from edgeml.airlock.models import hygiene
from edgeml.airlock.models.runner import Child, Runner, batch_of, content_of, keys_of, receive, send
from edgeml.airlock.models.scaled import Scaled
from edgeml.airlock.models.tensors import Tensors
from edgeml.airlock.models.trimming import Change
from edgeml.airlock.models.vocabularies import Vocabularies
from edgeml.airlock.models.walk import Unreadable, is_model, parse, places
from edgeml.contract import Contract

PARSE = Rule("model.parse", POLICY, "not a readable model", "what cannot be read cannot be examined", waivable=False)
RULES = (PARSE,)

MEMORY = 6 << 30
CPU_SECONDS = 3600


class Examination:
    """All models of a release against the private rows; each is run by a child of its own."""

    def __init__(
        self, artifacts: Iterable[Artifact], contract: Contract, holdout: bool, seconds: float, steps: Sequence[int]
    ) -> None:
        artifacts = list(artifacts)
        self.contract, self.holdout, self.seconds, self.steps = contract, holdout, seconds, steps
        self.outside: set[Any] = set()
        self.models: list[tuple[str, Any, bytes | None]] = []
        self.unread: list[Finding] = []
        self.children: list[Child] | None = None
        signatures = {_folder(a.name): a.data for a in artifacts if is_signature(a.name)}
        for artifact in artifacts:
            if is_model(artifact.name, artifact.format):
                try:
                    model = parse(artifact.data)
                    self.models.append((artifact.name, model, signatures.get(_folder(artifact.name))))
                except Unreadable as reason:
                    fix = "export the model to ONNX again"
                    self.unread.append(Finding(PARSE.id, artifact.name, "file", str(reason), fix))
        everything = [(file, place) for file, model, _ in self.models for place in places(model)]
        features = [column.name for column in contract.features]  # in the order in which models take them
        self.tensors = Tensors(everything, features, contract.k)
        self.scaled = Scaled(everything, contract)
        self.vocabularies = Vocabularies(everything, [(file, model) for file, model, _ in self.models], contract)

    def feed_holdout(self, batch: pa.RecordBatch) -> None:
        self.outside.update(keys_of(batch, self.contract.key))

    def feed(self, batch: pa.RecordBatch) -> None:
        content = content_of(batch)
        children = self._started()
        for child in children:
            child.tell(b"R", content)
        self.tensors.feed(batch)
        self.scaled.feed(batch)
        self.vocabularies.feed(batch)
        for child in children:
            child.answer()

    def _started(self) -> list[Child]:
        """The children, once everything is known that a fork must know."""
        if self.children is None:
            self.children = []
            for file, model, signature in self.models:
                outside = self.outside if self.holdout else None

                def make(
                    file: str = file, model: Any = model, signature: bytes | None = signature, outside: Any = outside
                ) -> Runner:
                    return Runner(file, model, self.contract, signature, outside, self.steps)

                self.children.append(Child(file, make, self.children, self.seconds))
        return self.children

    def again(self) -> bool:
        return self.tensors.again()

    def feed_again(self, batch: pa.RecordBatch) -> None:
        self.tensors.feed_again(batch)

    def verdict(self) -> tuple[list[Finding], list[str], dict[str, list[Change]]]:
        """Every finding, notes on membership inference, and what trimming would do to each model."""
        changes: dict[str, list[Change]] = {}
        found = [*self.unread, *self.tensors.findings(), *self.scaled.findings(), *self.vocabularies.findings()]
        notes = []
        for file, model, _ in self.models:
            found += hygiene.findings(file, model)
        for child in self._started():
            findings, note, changes[child.file] = child.findings()
            found += findings
            notes.append(
                note or f"{child.file}: membership inference was skipped, no rows outside of training were given"
            )
        return found, notes, changes


def is_signature(name: str) -> bool:
    return PurePosixPath(name).name == "signature.json"


def _folder(name: str) -> str:
    return str(PurePosixPath(name).parent)


# --- the process ----------------------------------------------------------------------------------


def serve(source: IO[bytes], sink: IO[bytes]) -> None:
    """Answer frames until told to end: A artifact, C contract, H holdout rows, R rows, E end of rows, S rows again."""
    artifacts: list[Artifact] = []
    examination: Examination | None = None
    while True:
        kind, content = receive(source)
        if kind == b"A":
            name, form, size = json.loads(content)
            artifacts.append(Artifact(name, form, source.read(size)))
        elif kind == b"C":
            examination = Examination(artifacts, *pickle.loads(content))  # noqa: S301 - our own parent's bytes
            send(sink, b"k")
        elif examination is None:
            raise EOFError
        elif kind in (b"H", b"R", b"S"):
            feed = {b"H": examination.feed_holdout, b"R": examination.feed, b"S": examination.feed_again}[kind]
            feed(batch_of(content))
            send(sink, b"k")
        elif kind == b"E":
            send(sink, b"k", b"again" if examination.again() else b"")
        else:
            findings, notes, changes = examination.verdict()
            answer = {"findings": findings, "notes": notes, "changes": changes}
            send(sink, b"k", json.dumps(answer).encode())
            return


def main() -> None:
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    resource.setrlimit(resource.RLIMIT_CPU, (CPU_SECONDS, CPU_SECONDS))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    sink = os.fdopen(os.dup(1), "wb")
    silence = os.open(os.devnull, os.O_WRONLY)
    os.dup2(silence, 1)
    os.dup2(silence, 2)
    try:
        serve(sys.stdin.buffer, sink)
    except BaseException:  # its message may quote values; that the pipe closes says enough
        os._exit(1)


if __name__ == "__main__":
    main()
