"""How the egress gate's evidence scales: megabytes of text that wants to leave, and rows of the private table.

- Text: a log, metrics as JSON lines, a dump of numbers as CSV, a JSON document of numbers and a report in Markdown, as
  a whole the way the gate looks at it: encodings (`views`), index of words and numbers and what was found (`examiner`),
  statistics (`disclosure`); against 30 columns (six of text) of 10,000 rows and of a million. The pass of the rows
  (profile and comparison) is told apart, and so is the whole gate with the text as the only file.
- Joins: 20 columns of numbers (Parquet) with 2 million rows (with --full 1, 2, 5 and 10), streamed past
  - a model's tensor of a million float32 numbers in which seven rows are hidden (`RowIndex`),
  - a text of a million numbers in which one row is hidden (`examiner`, with the pass for the profile).

Each measurement is a process of its own, so that its peak memory is its own. Prints the tables of docs/performance.md.

    python benchmarks/airlock_scale.py [--full] [--rows 1 2 5 10] [--tables 6000 100000] [--mb 1 10 50] [--texts log]

The tables are written to the temporary folder (TMPDIR) in pieces and removed.
"""

from __future__ import annotations

import argparse
import json
import os
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
MIXED = """\
name: mixed
version: 1
key: person
target: n23
task: regression
columns:
  person: {type: string, unique: true}
"""
NOTES = "pain mild severe reports after walking knee left right swelling fever at the end of day"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, nargs="*", help="millions of rows of the joins (default: 2)")
    parser.add_argument("--full", action="store_true", help="1, 2, 5 and 10 million rows")
    parser.add_argument("--mb", type=int, nargs="*", default=[10], help="megabytes of each text (default: 10)")
    parser.add_argument("--texts", nargs="*", choices=list(TEXTS), default=list(TEXTS), help="kinds (default: all)")
    parser.add_argument("--tables", type=int, nargs="*", default=[10_000, 1_000_000], help="rows of the texts' tables")
    parser.add_argument("--child", nargs=2, help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if chosen.child:
        _child(*chosen.child)
        return 0
    with tempfile.TemporaryDirectory(prefix="airlock-scale-") as scratch:
        folder = Path(scratch)
        good = [text_table(folder, rows, megabytes, chosen.texts) for rows in chosen.tables for megabytes in chosen.mb]
        millions = (1, 2, 5, 10) if chosen.full else (2,) if chosen.rows is None else chosen.rows
        good += [join_table(folder, millions)] if millions else []
    goals = f"{GOAL_SECONDS:.0f} s for 10 million rows, {GOAL_MEMORY:.0f} MB, {GOAL_TEXT:.0f} MB/s"
    print(f"\ngoals ({goals}): {'met' if all(good) else 'missed'}")
    return 0 if all(good) else 1


def text_table(folder: Path, rows: int, megabytes: int, kinds: list[str]) -> bool:
    """Seconds and rates of each text and of all, against a table of so many rows.

    MB/s is of the examination of the text with all rules, by the clock; of CPU s it takes what all processes used.
    The pass of the rows, which is made once for all texts, stands by itself; the whole gate's time has it.
    """
    (folder / "contract.yml").write_text(MIXED + "".join(f"  n{index:02}: {{type: number}}\n" for index in range(24)))
    write_mixed(folder / "table.parquet", rows)
    (folder / "mb").write_text(str(megabytes))
    parts = ("encodings s", "index s", "findings s", "statistics s", "CPU s", "MB/s", "MB/CPU s")
    heads = [f"against {rows:,} rows", "MB", *parts, "pass of the rows s", "CPU s", "whole gate s", "CPU s", "peak MB"]
    print(f"\n| {' | '.join(heads)} |\n|---{'|---:' * (len(heads) - 1)}|")
    every = [_measured(f"text-{name}", folder) for name in kinds]
    whole = {key: sum(told[key] for told in every) for key in every[0]}
    whole["peak"] = max(told["peak"] for told in every)
    for name, told in zip((*kinds, "**all**"), (*every, whole), strict=True):
        evidence = told["index"] + told["findings"]
        told["rate"] = told["mb"] / (told["views"] + evidence + told["statistics"])
        spent = [f"{told[key]:.2f}" for key in ("views", "index", "findings", "statistics", "cpu")]
        rates = [f"{told['rate']:.1f}", f"{told['mb'] / told['cpu']:.1f}"]
        rows_ = [f"{told[key]:.2f}" for key in ("rows", "rows cpu", "gate", "gate cpu")] + [f"{told['peak']:.0f}"]
        print("|", " | ".join([name, f"{told['mb']:.0f}", *spent, *rates, *rows_]), "|", flush=True)
    return bool(whole["rate"] >= GOAL_TEXT)


def join_table(folder: Path, millions: Any) -> bool:
    """Seconds of a tensor and of a text against tables of so many million rows."""
    print(f"\n| {NUMBERS:,} numbers | rows | s | CPU s | peak MB | found |\n|---|---:|---:|---:|---:|---:|")
    good = True
    write_contract(folder)
    for many in millions:
        write_table(folder / "table.parquet", many * 1_000_000)
        for name in ("tensor", "text"):
            told = _measured(name, folder)
            good &= told["seconds"] <= GOAL_SECONDS * many / 10 + 3 and told["peak"] <= GOAL_MEMORY
            good &= told["found"] > 0
            spent = f"{told['seconds']:.1f} | {told['cpu']:.1f} | {told['peak']:.0f} | {told['found']}"
            print(f"| {name} | {many * 1_000_000:,} | {spent} |", flush=True)
    return good


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


def write_mixed(path: Path, rows: int) -> None:
    """Six columns of text (a key, a name, an address, a place, a ward, notes) and 24 of numbers of several forms."""
    import numpy as np
    import pyarrow as pa
    import pyarrow.parquet as pq

    random = np.random.default_rng(rows)
    writer = None
    for start in range(0, rows, PIECE):
        size = min(PIECE, rows - start)
        columns: dict[str, Any] = {
            "person": [f"P{number * 7919 % 10_000_019:08}" for number in range(start, start + size)],
            "name": [f"Testname{number} Person{number % 997}" for number in range(start, start + size)],
            "mail": [f"t{number}.person@mail.test" for number in range(start, start + size)],
            "town": random.choice(["Leeds", "York", "Hull"], size),
            "ward": random.choice(["Alder", "Birch"], size),
            "note": [" ".join(words) for words in random.choice(NOTES.split(), (size, 14)).tolist()],
        }
        for index in range(24):
            drawn = random.normal(size=size)
            forms = drawn, (drawn * 15 + 75).round(1), (np.exp(drawn) * 3).round(3), (drawn * 20 + 100).round(2)
            columns[f"n{index:02}"] = forms[index % 4] if index % 8 != 5 else random.integers(18, 95, size) * 1.0
        table = pa.table(columns)
        writer = writer or pq.ParquetWriter(path, table.schema, compression="zstd")
        writer.write_table(table)
    if writer is not None:
        writer.close()


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
    told = work(private) if work else _rate(name.split("-")[1], int((Path(folder) / "mb").read_text()), private)
    if not work:
        told |= _gate(name.split("-")[1], Path(folder))
    status = Path("/proc/self/status").read_text()
    peak = next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM"))
    json.dump({**told, "peak": peak / 1024}, sys.stdout)


def _cpu() -> float:
    """Seconds of the processor that this process and those which it started have used."""
    return sum(os.times()[:4])


def _spent(began: float, used: float) -> dict[str, float]:
    return {"seconds": time.perf_counter() - began, "cpu": _cpu() - used}


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
    began, used = time.perf_counter(), _cpu()
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
    began, used = time.perf_counter(), _cpu()
    asked = examiner([Text("numbers.txt", "", text)], private)
    for batch in private.batches():
        asked.feed(batch)
    found = asked.findings()
    return {**_spent(began, used), "found": len(found)}


def _rate(name: str, megabytes: int, private: Any) -> dict[str, Any]:
    """Seconds of each part of the examination of one text, and of the pass of the rows."""
    from edgeml.airlock import disclosure
    from edgeml.airlock.evidence import examiner
    from edgeml.airlock.finding import Artifact, Text
    from edgeml.airlock.intake import formats, views

    text = TEXTS[name](megabytes * 1_000_000)
    artifacts = [Artifact(f"run.{name}", formats.of(text.encode()), text.encode())]
    next(private.batches())  # what is imported is imported
    told: dict[str, Any] = {"mb": len(text) / 1e6}
    used = 0.0

    def timed(part: str, work: Callable[[], Any]) -> Any:
        nonlocal used
        began, cpu = time.perf_counter(), _cpu()
        done = work()
        told[part] = time.perf_counter() - began
        used += _cpu() - cpu
        return done

    timed("profile", lambda: private.profile)
    examiner([Text("warm.txt", "", "1 warm")], private)
    used_by_rows, used = used, 0.0
    texts = timed("views", lambda: views.of(artifacts))
    asked = timed("index", lambda: examiner(texts, private))
    used_by_text, used = used, used_by_rows
    timed("feed", lambda: [asked.feed(batch) for batch in private.batches()])
    used_by_rows, used = used, used_by_text
    timed("findings", asked.findings)
    timed("statistics", lambda: disclosure.check(artifacts, private))
    return {**told, "cpu": used, "rows": told.pop("profile") + told.pop("feed"), "rows cpu": used_by_rows}


def _gate(name: str, folder: Path) -> dict[str, float]:
    """What the whole gate takes to examine a folder with one such text, from its file on."""
    from edgeml.airlock.gate import examine

    leaving = folder / f"leaving-{name}"
    leaving.mkdir(exist_ok=True)
    (leaving / f"run.{name}").write_text(TEXTS[name](int((folder / "mb").read_text()) * 1_000_000))
    began, used = time.perf_counter(), _cpu()
    examine([folder / "table.parquet"], folder / "contract.yml", leaving)
    spent = _spent(began, used)
    return {"gate": spent["seconds"], "gate cpu": spent["cpu"]}


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


def metrics_text(size: int) -> str:
    """One document a line, as trainers append them: nested metrics of each epoch, numbers of all lengths."""
    import numpy as np

    random = np.random.default_rng(4)
    lines, length, epoch = [], 0, 0
    while length < size:
        scores = [round(score, 6) for score in random.random(10).tolist()]
        train = {"loss": random.random(), "accuracy": round(random.random(), 6)}
        valid = {"loss": random.random(), "roc_auc": round(random.random(), 6), "per_class": scores}
        seconds = round(random.random() * 60, 3)
        document = {
            "epoch": epoch,
            "step": epoch * 100,
            "train": train,
            "valid": valid,
            "lr": 0.001,
            "seconds": seconds,
        }
        lines.append(json.dumps(document) + "\n")
        length += len(lines[-1])
        epoch += 1
    return "".join(lines)


def dump_text(size: int) -> str:
    """Twenty numbers a line, with commas."""
    return numbers_text(size // 9).replace(" ", ",")


def document_text(size: int) -> str:
    """One document of numbers: curves, matrices and importances by name."""
    import numpy as np

    random = np.random.default_rng(5)
    parts = [
        {"name": f"curve_{number}", "points": random.random((50, 3)).round(6).tolist(), "area": random.random()}
        for number in range(size // 1660 + 1)
    ]
    return json.dumps({"version": 1, "curves": parts})


def report_text(size: int) -> str:
    """A report in Markdown: headings, sentences and tables of metrics."""
    import numpy as np

    from edgeml.airlock.evidence.words import COMMON

    random, words = np.random.default_rng(6), sorted(COMMON)
    parts, length = ["# Report\n"], 0
    while length < size:
        said = " ".join(random.choice(words, 60).tolist())
        table = "".join(
            f"| fold {fold} | {a:.4f} | {b:.4f} | {c:.3f} |\n" for fold, (a, b, c) in enumerate(random.random((8, 3)))
        )
        parts.append(
            f"\n## Run {len(parts)}\n\nThe {said}.\n\n| fold | auc | recall | seconds |\n|---|---|---|---|\n{table}"
        )
        length += len(parts[-1])
    return "".join(parts)


TEXTS: dict[str, Callable[[int], str]] = {
    "log": log_text,
    "json": metrics_text,
    "csv": dump_text,
    "document": document_text,
    "report": report_text,
}


if __name__ == "__main__":
    raise SystemExit(main())
