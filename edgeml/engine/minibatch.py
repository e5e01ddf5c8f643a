"""Hands the files of a folder, in mini-batches, to an entry script with `init()` and `run(mini_batch)`.

Executed by the interpreter of a parallel step, in its working directory, as `python minibatch.py SPEC.json`; it must
not import anything of edgeml. Each worker is a process of its own that imports the script once. A mini-batch whose
`run` raises, or takes too long, is tried again in a fresh worker; what `run` returns is appended in the order of
the mini-batches, whichever ended first.

Source of the protocol: Azure ML's "Use parallel jobs in pipelines".
"""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import queue
import select
import subprocess
import sys
import threading
import traceback
from collections.abc import Iterator
from typing import Any

START_SECONDS = 3600  # for init(), which may load a large model


def main(argv: list[str]) -> int:
    with open(argv[0], encoding="utf-8") as stream:
        spec = json.load(stream)
    return worker(spec, int(argv[1])) if len(argv) > 1 else Driver(argv[0], spec).run()


# ---- the worker ----


def worker(spec: dict[str, Any], replies: int) -> int:
    """Answer each line of standard input, a list of paths, by one line on the descriptor `replies`."""
    sys.argv = [spec["script"], *spec["arguments"]]
    sys.path.insert(0, os.path.dirname(os.path.abspath(spec["script"])))
    answers = os.fdopen(replies, "w", encoding="utf-8")
    script = load(spec["script"])
    if hasattr(script, "init"):
        script.init()
    print(json.dumps({"ready": True}), file=answers, flush=True)
    for line in sys.stdin:
        files = json.loads(line)
        try:
            rows = rows_of(script.run(files))
            answer: dict[str, Any] = {"rows": rows, "failed": max(0, len(files) - len(rows)) if rows is not None else 0}
        except Exception:
            traceback.print_exc()
            answer = {"error": traceback.format_exc().strip().splitlines()[-1]}
        print(json.dumps(answer), file=answers, flush=True)
    if hasattr(script, "shutdown"):
        script.shutdown()
    return 0


def load(path: str) -> Any:
    spec = importlib.util.spec_from_file_location(os.path.splitext(os.path.basename(path))[0], path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # so that what the script defines can be pickled by its libraries
    spec.loader.exec_module(module)
    return module


def rows_of(returned: Any) -> list[str] | None:
    """What `run` returned as lines; None where it returned nothing that could be appended."""
    if returned is None:
        return None
    if hasattr(returned, "to_csv"):
        return str(returned.to_csv(header=False, index=False, sep=" ")).splitlines()
    return [str(item) for item in returned]


# ---- the driver ----


class Driver:
    """The mini-batches of one step and the workers that they go to."""

    def __init__(self, path: str, spec: dict[str, Any]) -> None:
        self.path = path
        self.spec = spec
        self.batches: queue.SimpleQueue[tuple[int, list[str], int]] = queue.SimpleQueue()
        self.ended: queue.SimpleQueue[tuple[int, dict[str, Any]]] = queue.SimpleQueue()
        self.count = 0

    def run(self) -> int:
        files = [path for source in self.spec["sources"] for path in sorted(listed(source))]
        if not files:
            print(f"there are no files in {', '.join(self.spec['sources'])}", file=sys.stderr)
            return 1
        for number, batch in enumerate(batches(files, self.spec["files"], self.spec["bytes"])):
            self.batches.put((number, batch, 0))
            self.count += 1
        print(f"{len(files)} files in {self.count} mini-batches, {self.spec['workers']} at a time", flush=True)
        for _ in range(min(self.spec["workers"], self.count)):
            threading.Thread(target=self.serve, daemon=True).start()
        return self.collect()

    def collect(self) -> int:
        """Append the rows in order, count what failed and decide."""
        waiting: dict[int, list[str]] = {}
        turn = failed_batches = failed_items = 0
        with open(self.spec["append_to"] or os.devnull, "w", encoding="utf-8") as out:
            for _ in range(self.count):
                number, answer = self.ended.get()
                if "fatal" in answer:
                    print(answer["fatal"], file=sys.stderr, flush=True)
                    return 1
                if "error" in answer:
                    failed_batches += 1
                    failed_items += answer["items"]
                    print(f"mini-batch {number} failed: {answer['error']}", file=sys.stderr, flush=True)
                else:
                    failed_items += answer["failed"]
                waiting[number] = answer.get("rows") or []
                while turn in waiting:
                    out.writelines(row + "\n" for row in waiting.pop(turn))
                    turn += 1
        return self.verdict(failed_batches, failed_items)

    def verdict(self, failed_batches: int, failed_items: int) -> int:
        if failed_batches == self.count:
            print("every mini-batch failed", file=sys.stderr)
            return 1
        for what, failed, allowed in (
            ("mini-batches", failed_batches, self.spec["failed_batches"]),
            ("items", failed_items, self.spec["failed_items"]),
        ):
            if 0 <= allowed < failed:
                print(f"{failed} {what} failed, more than the {allowed} that may", file=sys.stderr)
                return 1
        return 0

    def serve(self) -> None:
        """Keep one worker busy until no mini-batch is left; start another where it broke."""
        process: Worker | None = None
        while True:
            try:
                number, files, tried = self.batches.get_nowait()
            except queue.Empty:
                break
            try:
                process = process or Worker(self.path)
            except RuntimeError as error:
                self.ended.put((number, {"fatal": str(error)}))
                return
            answer = process.ask(files, self.spec["timeout"])
            if "error" in answer:
                process.end()
                process = None
                if tried < self.spec["retries"]:
                    self.batches.put((number, files, tried + 1))
                    continue
                answer["items"] = len(files)
            self.ended.put((number, answer))
        if process is not None:
            process.close()


class Worker:
    """A process that has imported the entry script. Raises RuntimeError where `init()` fails."""

    def __init__(self, path: str) -> None:
        self.replies, writing = os.pipe()
        self.process = subprocess.Popen(
            [sys.executable, os.path.abspath(__file__), path, str(writing)],
            stdin=subprocess.PIPE,
            pass_fds=[writing],
            text=True,
        )
        os.close(writing)
        self.answers = os.fdopen(self.replies, encoding="utf-8")
        if "error" in self.answer(START_SECONDS):
            self.end()
            raise RuntimeError("the entry script could not be started: init() failed, see above")

    def ask(self, files: list[str], seconds: float) -> dict[str, Any]:
        assert self.process.stdin is not None
        try:
            self.process.stdin.write(json.dumps(files) + "\n")
            self.process.stdin.flush()
        except OSError:
            return {"error": "its worker ended"}
        return self.answer(seconds)

    def answer(self, seconds: float) -> dict[str, Any]:
        if not select.select([self.replies], [], [], seconds)[0]:
            return {"error": f"it took more than {seconds:g} s"}
        line = self.answers.readline()
        answer: dict[str, Any] = json.loads(line) if line else {"error": "its worker ended"}
        return answer

    def end(self) -> None:
        self.process.kill()
        self.close()

    def close(self) -> None:
        assert self.process.stdin is not None
        with contextlib.suppress(OSError):  # it is gone, with what was on its way to it
            self.process.stdin.close()
        self.process.wait()
        self.answers.close()


def listed(path: str) -> Iterator[str]:
    """The file itself, or every file below a folder."""
    if os.path.isfile(path):
        yield path
    for folder, _, names in os.walk(path):
        for name in names:
            yield os.path.join(folder, name)


def batches(files: list[str], count: int, size: int) -> Iterator[list[str]]:
    """Consecutive files, at most `count` of them, or as many as `size` bytes hold (at least one)."""
    batch: list[str] = []
    held = 0
    for path in files:
        more = os.path.getsize(path) if size else 0
        if batch and ((count and len(batch) == count) or (size and held + more > size)):
            yield batch
            batch, held = [], 0
        batch.append(path)
        held += more
    if batch:
        yield batch


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
