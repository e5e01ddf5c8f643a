"""What a person sees while a pipeline runs: a live line for each step in a terminal, plain lines elsewhere."""

from __future__ import annotations

import os
import sys
import threading
import time
from typing import TextIO

from edgeml.engine.run import CACHED, CANCELLED, COMPLETED, FAILED, SKIPPED, Outcome
from edgeml.pipeline.graph import Step

_COLOURS = {COMPLETED: "32", CACHED: "36", FAILED: "31", SKIPPED: "33", CANCELLED: "33"}
_SPINNER = "⠋⠙⠹⠸⠼⠴⠦⠧⠇⠏"
_TICK = 0.1


class Progress:
    """A listener of a run that writes to standard error; use as a context manager."""

    def __init__(self, steps: int, width: int, stream: TextIO | None = None) -> None:
        self.stream = stream or sys.stderr
        self.live = self.stream.isatty() and os.environ.get("TERM") != "dumb"
        self.colour = self.live and not os.environ.get("NO_COLOR")
        self.width = width
        self.steps = steps
        self.ended = 0
        self.running: dict[str, float] = {}
        self.drawn = 0
        self.lock = threading.Lock()
        self.stop = threading.Event()
        self.ticker: threading.Thread | None = None

    def __enter__(self) -> Progress:
        if self.live:
            self.ticker = threading.Thread(target=self._tick, daemon=True)
            self.ticker.start()
        return self

    def __exit__(self, *unused: object) -> None:
        self.stop.set()
        if self.ticker is not None:
            self.ticker.join()
        with self.lock:
            self._erase()
            self.stream.flush()

    def __call__(self, event: str, step: Step, outcome: Outcome) -> None:
        with self.lock:
            self._erase()
            if event == "start":
                self.running[step.name] = time.perf_counter()
                if not self.live:
                    self._line(step.name, "running", "")
            else:
                self.running.pop(step.name, None)
                self.ended += 1
                seconds = f"{outcome.seconds:8.2f} s" if outcome.status in (COMPLETED, FAILED, CACHED) else ""
                self._line(step.name, outcome.status, seconds)
            self._draw()
            self.stream.flush()

    def _line(self, name: str, status: str, seconds: str) -> None:
        shown = f"{status:<9}"
        if self.colour and status in _COLOURS:
            shown = f"\x1b[{_COLOURS[status]}m{shown}\x1b[0m"
        self.stream.write(f"  {name:<{self.width}}  {shown}{seconds}".rstrip() + "\n")

    def _tick(self) -> None:
        while not self.stop.wait(_TICK):
            with self.lock:
                self._erase()
                self._draw()
                self.stream.flush()

    def _draw(self) -> None:
        if not self.live:
            return
        now = time.perf_counter()
        frame = _SPINNER[int(now / _TICK) % len(_SPINNER)]
        lines = [f"{frame} {name:<{self.width}}  running  {now - since:8.1f} s" for name, since in self.running.items()]
        if lines:
            lines.append(f"  {self.ended} of {self.steps} steps done")
            self.stream.write("".join(line + "\n" for line in lines))
        self.drawn = len(lines)

    def _erase(self) -> None:
        if self.drawn:
            self.stream.write(f"\x1b[{self.drawn}F\x1b[J")
            self.drawn = 0
