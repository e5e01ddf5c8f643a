"""How the egress gate's evidence scales: rows of the private table, and megabytes of text that wants to leave.

- Joins: a table of 20 columns of numbers (Parquet) with 2 million rows (with --full 1, 2, 5 and 10), streamed past
  - a model's tensor of a million float32 numbers in which seven rows are hidden (`RowIndex`),
  - a text of a million numbers in which one row is hidden (`examiner`, with the pass for the profile).
- Text: megabytes a second of logs and of numbers, tokens and evidence, against a table of 6,000 rows.

Each measurement is a process of its own, so that its peak memory is its own.

    python benchmarks/airlock_scale.py [--full] [--rows 1 2 5 10] [--mb 10]

The table is written to the temporary folder (TMPDIR) in pieces and removed.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

COLUMNS = 20
NUMBERS = 1_000_000
GOAL_SECONDS, GOAL_MEMORY, GOAL_TEXT = 10.0, 2000.0, 20.0
PIECE = 250_000

CONTRACT = """\
name: scale
version: 1
key: c00
target: c19
task: regression
columns:
"""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, nargs="*", help="millions of rows (default: 2)")
    parser.add_argument("--full", action="store_true", help="1, 2, 5 and 10 million rows")
    parser.add_argument("--mb", type=int, default=10, help="megabytes of text")
    parser.add_argument("--child", nargs=2, help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if chosen.child:
        _child(*chosen.child)
        return 0
    good = True
    with tempfile.TemporaryDirectory(prefix="airlock-scale-") as scratch:
        folder = Path(scratch)
        write_contract(folder)
        print(f"{'':26}{'rows':>12}{'seconds':>10}{'CPU s':>8}{'MB peak':>10}{'found':>8}")
        for millions in (1, 2, 5, 10) if chosen.full else [2] if chosen.rows is None else chosen.rows:
            rows = millions * 1_000_000
            write_table(folder / "table.parquet", rows)
            for name in ("tensor", "text"):
                told = _measured(name, folder)
                good &= told["seconds"] <= GOAL_SECONDS * millions / 10 + 3 and told["peak"] <= GOAL_MEMORY
                good &= told["found"] > 0
                title = f"{NUMBERS:,} numbers, {name}"
                print(
                    f"{title:26}{rows:>12,}{told['seconds']:>10.1f}{told['cpu']:>8.1f}{told['peak']:>10.0f}{told['found']:>8}"
                )
        write_table(folder / "table.parquet", 6_000)
        print(f"\n{'':26}{'MB':>12}{'seconds':>10}{'CPU s':>8}{'MB/s':>10}{'MB peak':>10}")
        (folder / "mb").write_text(str(chosen.mb))
        for name in ("tokens-log", "tokens-numbers", "examine-log", "examine-numbers"):
            told = _measured(name, folder)
            rate = told["mb"] / told["seconds"]
            good &= rate >= GOAL_TEXT
            print(
                f"{name:26}{told['mb']:>12.1f}{told['seconds']:>10.2f}{told['cpu']:>8.2f}{rate:>10.1f}{told['peak']:>10.0f}"
            )
    goals = f"{GOAL_SECONDS:.0f} s for 10 million rows, {GOAL_MEMORY:.0f} MB, {GOAL_TEXT:.0f} MB/s"
    print(f"\ngoals ({goals}): {'met' if good else 'missed'}")
    return 0 if good else 1


def write_contract(folder: Path) -> None:
    lines = [f"  c{index:02}: {{type: number}}" for index in range(COLUMNS)]
    (folder / "contract.yml").write_text(CONTRACT + "\n".join(lines) + "\n")


def write_table(path: Path, rows: int) -> None:
    """Twenty columns of measurements, a third of them printed to two decimals, in pieces."""
    import numpy as np
    import pyarrow as pa
    import pyarrow.parquet as pq

    random = np.random.default_rng(rows)
    schema = pa.schema([(f"c{index:02}", pa.float64()) for index in range(COLUMNS)])
    with pq.ParquetWriter(path, schema, compression="zstd") as writer:
        for start in range(0, rows, PIECE):
            size = min(PIECE, rows - start)
            cells = random.normal(size=(COLUMNS, size))
            cells[::3] = np.round(cells[::3] * 20 + 100, 2)
            writer.write_table(pa.table(list(cells), schema=schema))


def _measured(name: str, folder: Path) -> dict[str, Any]:
    done = subprocess.run([sys.executable, __file__, "--child", name, str(folder)], capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"{name} failed: {done.stderr.strip().splitlines()[-1:]}")
    told: dict[str, Any] = json.loads(done.stdout)
    return told


def _child(name: str, folder: str) -> None:
    from edgeml.airlock.private import open_private
    from edgeml.contract import load

    private = open_private([Path(folder) / "table.parquet"], load(Path(folder) / "contract.yml"))
    work = {"tensor": _tensor, "text": _text}.get(name)
    told = work(private) if work else _rate(name, int((Path(folder) / "mb").read_text()), private)
    status = Path("/proc/self/status").read_text()
    peak = next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM"))
    json.dump({**told, "peak": peak / 1024}, sys.stdout)


def _spent(began: float, used: float) -> dict[str, float]:
    return {"seconds": time.perf_counter() - began, "cpu": time.process_time() - used}


def _hidden(private: Any, count: int) -> Any:
    """Some rows of the table, as floats."""
    import numpy as np

    batch = next(private.batches())
    return np.stack([batch[name].to_numpy() for name in batch.schema.names], axis=1)[17 : 17 + count]


def _tensor(private: Any) -> dict[str, Any]:
    import numpy as np

    from edgeml.airlock.evidence.join import RowIndex

    numbers = np.random.default_rng(1).normal(size=(NUMBERS // 100, 100)).astype(np.float32)
    for at, row in enumerate(_hidden(private, 7)):
        numbers[at * 31, 40:60] = row
    began, used = time.perf_counter(), time.process_time()
    index = RowIndex(numbers, "weights", "model.onnx")
    for batch in private.batches():
        index.feed([column.to_numpy() for column in batch.columns])
    found = index.matches()
    spent = _spent(began, used)
    return {**spent, "found": sum(match.cells == COLUMNS for match in found)}


def _text(private: Any) -> dict[str, Any]:
    from edgeml.airlock.evidence import examiner
    from edgeml.airlock.finding import Text

    text = numbers_text(NUMBERS) + "\n" + " ".join(f"{cell:.4g}" for cell in _hidden(private, 1)[0])
    began, used = time.perf_counter(), time.process_time()
    asked = examiner([Text("numbers.txt", "", text)], private)
    for batch in private.batches():
        asked.feed(batch)
    found = asked.findings()
    return {**_spent(began, used), "found": len(found)}


def _rate(name: str, megabytes: int, private: Any) -> dict[str, Any]:
    from edgeml.airlock.evidence import examiner
    from edgeml.airlock.evidence.tokens import encoded, tokens
    from edgeml.airlock.finding import Text

    text = log_text(megabytes * 1_000_000) if name.endswith("log") else numbers_text(megabytes * 125_000)
    batches = list(private.batches())
    tokens(b"1 warm")
    private.profile  # noqa: B018 - not of the text
    work: Callable[[], Any] = lambda: tokens(encoded(text))  # noqa: E731
    if name.startswith("examine"):

        def work() -> Any:
            asked = examiner([Text("run.log", "", text)], private)
            for batch in batches:
                asked.feed(batch)
            return asked.findings()

    began, used = time.perf_counter(), time.process_time()
    work()
    return {**_spent(began, used), "mb": len(text) / 1e6}


def numbers_text(count: int) -> str:
    import numpy as np

    cells = np.random.default_rng(2).normal(size=(count // 20, 20))
    return "\n".join(" ".join(f"{cell:.5f}" for cell in row) for row in cells.tolist())


def log_text(size: int) -> str:
    """Lines with times, counters, metrics and UUIDs."""
    import uuid

    import numpy as np

    random = np.random.default_rng(3)
    lines, length, step = [], 0, 0
    while length < size:
        high, low = random.integers(0, 1 << 62, size=2).tolist()
        lines.append(
            f"2026-01-{step % 28 + 1:02}T10:{step % 60:02}:{step % 50:02}.{step % 1000:03}Z INFO worker-{step % 7} "
            f"step={step} loss={random.random():.6f} auc={random.random():.4f} lr=0.001 "
            f"id={uuid.UUID(int=high << 64 | low)}\n"
        )
        length += len(lines[-1])
        step += 1
    return "".join(lines)


if __name__ == "__main__":
    raise SystemExit(main())
