"""JSON lines on standard output. What a request holds never gets here: no value, no path, no message about it."""

from __future__ import annotations

import os
import queue
import threading
import time
from typing import Any

import msgspec

HELD = 1 << 20  # bytes that wait for a reader; a log that nobody takes must not fill the memory
_ENCODER = msgspec.json.Encoder()


class Log:
    """Lines are gathered and written by a thread, so that a slow reader of the log never holds an answer."""

    def __init__(self, descriptor: int = 1) -> None:
        self.dropped = 0
        self._descriptor = descriptor
        self._lines: list[str] = []
        self._size = 0
        self._handed = self._written = 0  # bytes; each counted by one thread
        self._second, self._stamp = -1, ""
        self._queue: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._write, name="log", daemon=True)
        self._thread.start()

    def add(self, event: str, **fields: Any) -> None:
        """Gather one line; call it from one thread only."""
        self._gather(f'"event":"{event}",{_ENCODER.encode(fields).decode()[1:]}')

    def request(self, route: str, status: int, seconds: float, rows: int, field: str, name: str) -> None:
        """Gather the line of an answered request; `name` is the client's for it, of letters and digits only."""
        line = f'"event":"request","route":"{route}","status":{status},"ms":{seconds * 1000:.3f},"rows":{rows}'
        if field:
            line += f',"field":{_ENCODER.encode(field).decode()}'
        if name:
            line += f',"id":"{name}"'
        self._gather(f"{line}}}")

    def _gather(self, rest: str) -> None:
        now = time.time()
        second = int(now)
        if second != self._second:
            self._second, self._stamp = second, time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(second))
        if self._size + self._handed - self._written > HELD:
            self.dropped += 1
            return
        line = f'{{"time":"{self._stamp}.{int((now - second) * 1000):03}Z",{rest}'
        self._lines.append(line)
        self._size += len(line) + 1

    def flush(self) -> None:
        """Hand what was gathered to the thread."""
        if self._lines:
            data = "\n".join([*self._lines, ""]).encode()
            self._handed += len(data)
            self._queue.put(data)
            self._lines, self._size = [], 0

    def close(self) -> None:
        """Write what is left; waits at most a second for a reader that does not read."""
        self.flush()
        self._queue.put(None)
        self._thread.join(1)

    def _write(self) -> None:
        while (data := self._queue.get()) is not None:
            left = memoryview(data)
            try:
                while left:
                    left = left[os.write(self._descriptor, left) :]
            except OSError:  # the reader is gone: serve on
                pass
            self._written += len(data)
