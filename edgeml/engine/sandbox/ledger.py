"""Takes what private steps logged over into the run's MLflow store, beside the steps that follow.

The engine does not import MLflow, which takes seconds: a process of the steps' interpreter writes, and only at the end
of the run somebody waits for it.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Mapping

from edgeml.engine.sandbox.metrics import Logged
from edgeml.engine.step import StepFailed
from edgeml.engine.sweep import Tracker

_Entry = tuple[str, dict[str, str], Logged]


class Ledger:
    """One run's; nothing is started before the first entry. Made with what starts the writing process."""

    def __init__(self, tracker: Callable[[], Tracker]) -> None:
        self._tracker = tracker
        self._entries: queue.SimpleQueue[_Entry | None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None
        self._problem = ""
        self._lock = threading.Lock()

    def add(self, step: str, tags: Mapping[str, str], found: list[Logged]) -> None:
        """Take over what a step logged; its run is named as the step named it, or as the step."""
        for logged in found:
            if logged.params or logged.metrics:
                with self._lock:
                    if self._thread is None:
                        self._thread = threading.Thread(target=self._write, daemon=True)
                        self._thread.start()
                self._entries.put((logged.name or step, dict(tags), logged))

    def close(self) -> str:
        """Wait until all is written; a sentence where it could not be."""
        if self._thread is not None:
            self._entries.put(None)
            self._thread.join()
        return self._problem

    def _write(self) -> None:
        try:
            tracker = self._tracker()
            try:
                while (entry := self._entries.get()) is not None:
                    name, tags, logged = entry
                    run = tracker.ask({"start": name, "parent": "", "tags": tags})["run"]
                    tracker.ask({"log": run, "params": logged.params, "metrics": logged.metrics})
                    tracker.ask({"end": run, "metric": "", "failed": False})
            finally:
                tracker.close()
        except (StepFailed, OSError) as error:
            self._problem = f"what private steps logged is not in the MLflow store: the run {error}"
