"""What is said of ONNX models: the examiner that runs beside the others, and the rules of its parts.

All of it happens in a child process with limits on memory and time, and every model runs in a child of
its own, because a model is not trusted: it may crash the parser or the runtime, loop for ever or fill the
memory. Then it could not be examined, which is a finding. The children load no operators but those that
the runtime brings along, and models that keep tensors in other files are not run. Private rows go to the
children by pipes; nothing is written.
"""

from __future__ import annotations

import contextlib
import json
import os
import pickle
import select
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgeml.airlock.finding import Artifact, Finding, Rule
from edgeml.airlock.models import (
    activations,
    hygiene,
    membership,
    runner,
    tensors,
    trees,
    trimming,
    vocabularies,
    worker,
)
from edgeml.airlock.models.runner import ENDED, content_of, receive, send, unexamined
from edgeml.airlock.models.walk import is_model
from edgeml.airlock.models.worker import is_signature

if TYPE_CHECKING:
    from edgeml.airlock.private import Private

RULES: tuple[Rule, ...] = (
    *worker.RULES,
    *runner.RULES,
    *hygiene.RULES,
    *tensors.RULES,
    *activations.RULES,
    *trees.RULES,
    *vocabularies.RULES,
    *membership.RULES,
)

SECONDS = 600.0  # for one batch of rows, or for the verdict


class ModelExaminer:
    """The examination of all models among some artifacts.

    `notes` holds what is worth telling but no finding, `changes` what trimming the weights would do to each model.
    """

    def __init__(
        self,
        artifacts: Sequence[Artifact],
        private: Private,
        holdout: Private | None = None,
        seconds: float = SECONDS,
        steps: Sequence[int] = trimming.STEPS,
    ) -> None:
        self.private, self.seconds = private, seconds
        self.notes: list[str] = []
        self.changes: dict[str, list[trimming.Change]] = {}
        self.models = [a.name for a in artifacts if is_model(a.name, a.format)]
        self.failure = ""
        self._child: subprocess.Popen[bytes] | None = None
        self._waiting = False
        if not self.models:
            return
        root = str(Path(__file__).resolve().parents[3])
        environment = {name: os.environ[name] for name in ("PATH", "LANG", "TMPDIR") if name in os.environ}
        environment |= {"PYTHONPATH": root, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
        self._child = subprocess.Popen(
            [sys.executable, "-m", worker.__name__],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=environment,
            cwd="/",
        )
        for artifact in artifacts:
            if artifact.name in self.models or is_signature(artifact.name):
                header = json.dumps([artifact.name, artifact.format, len(artifact.data)]).encode()
                self._tell(b"A", header, artifact.data)
        self._ask(b"C", pickle.dumps((private.contract, holdout is not None, seconds, steps)))
        if holdout is not None:
            for batch in holdout.batches():
                self._ask(b"H", content_of(batch))

    def feed(self, batch: object) -> None:
        """Send one batch of private rows; it is examined while the next is being read."""
        if self._child is not None and not self.failure:
            self._ask(b"R", content_of(batch))

    def findings(self) -> list[Finding]:
        """Every finding. May stream the private rows once more, where the first pass left a suspicion."""
        if self._child is None:
            return []
        again = self._ask(b"E", wait=True)
        if again == b"again":
            for batch in self.private.batches():
                self._ask(b"S", content_of(batch))
        answer = self._ask(b"F", wait=True)
        self._end()
        if self.failure:
            return [unexamined(name, self.failure) for name in self.models]
        told: dict[str, Any] = json.loads(answer)
        self.notes = told["notes"]
        self.changes = {file: [trimming.Change(*one) for one in some] for file, some in told["changes"].items()}
        return [Finding(*fields) for fields in told["findings"]]

    def _tell(self, kind: bytes, content: bytes = b"", more: bytes = b"") -> None:
        assert self._child is not None and self._child.stdin is not None
        if self.failure:
            return
        try:
            send(self._child.stdin, kind, content)
            if more:
                self._child.stdin.write(more)
        except OSError:
            self._fail(ENDED)

    def _ask(self, kind: bytes, content: bytes = b"", wait: bool = False) -> bytes:
        """Wait for the answer to what was asked before, ask, and wait for this answer too if it is wanted now."""
        if self._waiting:
            self._answer()
        self._tell(kind, content)
        self._waiting = True
        return self._answer() if wait else b""

    def _answer(self) -> bytes:
        self._waiting = False
        if self.failure:
            return b""
        assert self._child is not None and self._child.stdout is not None
        ready, _, _ = select.select([self._child.stdout], [], [], self.seconds * (1 + len(self.models)))
        if not ready:
            self._fail(f"it took more than {self.seconds:g} seconds for one batch of rows")
            return b""
        try:
            return receive(self._child.stdout)[1]
        except (EOFError, OSError):
            self._fail(ENDED)
            return b""

    def _fail(self, reason: str) -> None:
        self.failure = self.failure or reason
        self._end()

    def _end(self) -> None:
        if self._child is not None:
            self._child.kill()
            self._child.wait()
            for pipe in (self._child.stdin, self._child.stdout):
                if pipe is not None:
                    with contextlib.suppress(OSError):
                        pipe.close()

    def __del__(self) -> None:
        self._end()


def examiner(
    artifacts: Sequence[Artifact],
    private: Private,
    holdout: Private | None = None,
    steps: Sequence[int] = trimming.STEPS,
) -> ModelExaminer:
    """Examine the models among some artifacts; `holdout` are rows that they were not trained on."""
    return ModelExaminer(artifacts, private, holdout, steps=steps)
