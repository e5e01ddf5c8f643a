"""Counters in Prometheus' text format 0.0.4, written by the event loop's thread alone.

Own, because it is forty lines: prometheus_client costs each request and the start more (docs/serving.md has the
numbers) and brings nothing else that is used here.
"""

from __future__ import annotations

import os
import resource
import time
from bisect import bisect_left
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from edgeml.serving.window import Window

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
BOUNDS = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5)  # seconds


class Metrics:
    def __init__(self) -> None:
        self.requests: dict[tuple[str, int], int] = {}
        self.rows = 0
        self.connections = 0
        self.dropped = 0  # lines of the log that nobody took
        self._buckets: dict[str, list[int]] = {}
        self._seconds: dict[str, float] = {}
        self._started = time.time()

    def count(self, route: str, status: int, seconds: float, rows: int) -> None:
        """One answered request; `seconds` from its last byte read to its answer handed over."""
        key = (route, status)
        self.requests[key] = self.requests.get(key, 0) + 1
        buckets = self._buckets.get(route)
        if buckets is None:
            buckets = self._buckets[route] = [0] * (len(BOUNDS) + 1)
            self._seconds[route] = 0.0
        buckets[bisect_left(BOUNDS, seconds)] += 1
        self._seconds[route] += seconds
        self.rows += rows

    def text(self, info: dict[str, str], window: Window) -> str:
        """The exposition; `info` labels the served model, `window` has its predictions."""
        lines = _head("edgeml_model_info", "gauge", "The served model.")
        lines.append("edgeml_model_info{" + ",".join(f'{key}="{value}"' for key, value in info.items()) + "} 1")
        lines += _head("edgeml_requests_total", "counter", "Answered requests.")
        lines += [
            f'edgeml_requests_total{{route="{route}",status="{status}"}} {count}'
            for (route, status), count in sorted(self.requests.items())
        ]
        lines += _head("edgeml_request_seconds", "histogram", "From the last byte of a request to its answer.")
        for route, buckets in sorted(self._buckets.items()):
            total = 0
            for bound, count in zip((*map(str, BOUNDS), "+Inf"), buckets, strict=True):
                total += count
                lines.append(f'edgeml_request_seconds_bucket{{route="{route}",le="{bound}"}} {total}')
            lines.append(f'edgeml_request_seconds_sum{{route="{route}"}} {self._seconds[route]:.6f}')
            lines.append(f'edgeml_request_seconds_count{{route="{route}"}} {total}')
        usage = resource.getrusage(resource.RUSAGE_SELF)
        for name, kind, text, value in (
            ("edgeml_rows_total", "counter", "Rows scored.", self.rows),
            ("edgeml_connections", "gauge", "Open connections.", self.connections),
            ("edgeml_log_lines_dropped_total", "counter", "Log lines that nobody took.", self.dropped),
            ("process_cpu_seconds_total", "counter", "Processor time.", usage.ru_utime + usage.ru_stime),
            ("process_start_time_seconds", "gauge", "Start, in Unix time.", self._started),
            ("process_resident_memory_bytes", "gauge", "Resident memory.", resident()),
        ):
            lines += [*_head(name, kind, text), f"{name} {value}"]
        if window.expected:
            for name, text, bins in (
                ("edgeml_predictions_expected", "Test rows by prediction, as they were released.", window.expected),
                ("edgeml_predictions", "Rows by prediction of the newest full window, none below k.", window.told),
            ):
                lines += _head(name, "gauge", text)
                lines += [f'{name}{{low="{each.low!r}",high="{each.high!r}"}} {each.rows}' for each in bins]
            lines += _head("edgeml_predictions_windows_total", "counter", "Full windows of predictions.")
            lines.append(f"edgeml_predictions_windows_total {window.full}")
        return "\n".join(lines) + "\n"


def resident() -> int:
    """Bytes of this process in memory; 0 where there is no /proc."""
    try:
        with open("/proc/self/statm", "rb") as file:
            return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        return 0


def _head(name: str, kind: str, text: str) -> list[str]:
    return [f"# HELP {name} {text}", f"# TYPE {name} {kind}"]
