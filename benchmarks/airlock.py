"""The whole leak suite against the egress gate: caught, false alarms, margin, ablation, speed; and other scanners.

usage: python benchmarks/airlock.py [--quick] [--tables clinic] [--no-peers] [--only WORD] [--keep FILE]
       (called by `make bench-airlock`, without options)

Prints the tables of docs/egress-gate.md. The clinic's table under seed 1 is what the gate was developed with; the
plant's, under another seed, is held out. --quick takes 300 rows only. Exit code 1 if a bar is missed.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, TypeAlias

from measured import say

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

Table: TypeAlias = Any  # the suite lies with the tests, which mypy does not read
Vector: TypeAlias = Any
Output: TypeAlias = Any
Judged: TypeAlias = Any

DEVELOPED, HELD_OUT = ("clinic", 1), ("plant", 20261124)
ROWS = (300, 6_000)
MANY = 200_000  # rows, for what is quick enough to make of them
OF_MANY = (
    "release_linear release_gradient_boosting model_forest model_perceptron model_pca_logistic_regression "
    "model_kmeans_of_8 model_robust_scaler_ridge metrics scaler_statistics epoch_log log_of_1_mb drift_report "
    "search_results cross_validation counts_of_frequent_places grouped_metrics"
)
BARS = {"blocked": 1.0, "content": 0.95, "developed": 0.0, "held out": 0.01}


@dataclass(frozen=True)
class Result:
    """What the gate said of one folder."""

    honest: bool
    listed: bool  # of an honest output: its names may leave; of a leak: content rules can see it
    table: str
    rows: int
    name: str
    family: str
    stopped: bool
    rules: tuple[str, ...]
    content: tuple[str, ...]
    alarms: int
    bits: float  # of the strongest finding; of an honest output of what was below the thresholds as well
    broken: tuple[str, ...]
    seconds: float
    megabytes: float
    told: tuple[str, ...]

    @property
    def alarm(self) -> bool:
        """An honest output that content rules stop, or any rule where its names may leave."""
        return bool(self.alarms or self.broken or (self.listed and self.stopped))


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Measure the egress gate with the whole leak suite.")
    parser.add_argument("--quick", action="store_true", help="tables of 300 rows only")
    parser.add_argument("--no-peers", action="store_true", help="leave the other scanners out")
    parser.add_argument("--tables", nargs="*", default=["clinic", "plant"], help="which tables")
    parser.add_argument("--only", default="", help="names or families that contain this")
    parser.add_argument("--keep", type=Path, help="write every single result to this file, as JSON lines")
    options = parser.parse_args(argv)
    warnings.simplefilter("ignore")
    sizes = ROWS[:1] if options.quick else ROWS
    leaks, honest = [], []
    tables = [table for table in (DEVELOPED, HELD_OUT) if table[0] in options.tables]
    for (title, seed), rows in [(table, rows) for table in tables for rows in sizes]:
        leaks += kept(options.keep, judge_leaks(title, seed, rows, options.only))
        honest += kept(options.keep, judge_honest(title, seed, rows, options.only))
    if not options.quick:
        for title, seed in tables:
            honest += kept(options.keep, judge_honest(title, seed, MANY, options.only, OF_MANY.split()))
    for part in (
        caught_table(leaks),
        alarms_table(honest),
        margin_table(leaks, honest),
        ablation_table(leaks),
        speed_table([*leaks, *honest]),
        [] if options.no_peers else peers_table(),
        missed_list(leaks, honest),
    ):
        print("\n".join(part) + "\n" if part else "", flush=True)
    return 0 if within_bars(leaks, honest) else 1


def kept(file: Path | None, results: Iterable[Result]) -> list[Result]:
    """The results, each written as it comes."""
    collected = []
    for result in results:
        collected.append(result)
        if file is not None:
            with file.open("a") as stream:
                stream.write(json.dumps(asdict(result)) + "\n")
    return collected


# --- running ----------------------------------------------------------------------------------------


def judge_leaks(title: str, seed: int, rows: int, only: str) -> Iterator[Result]:
    from tests.airlock.suite import judge, table, vectors
    from tests.airlock.suite.catalogue import VECTORS

    made = table.make(title, seed, rows)
    chosen = [vector for vector in VECTORS if only in vector.name or only in vector.family]
    say(f"{len(chosen)} leaks of {title}, {rows} rows")
    for vector in chosen:

        def build(folder: Path, vector: Vector = vector) -> Path:
            return vectors.build(vector, made, folder)

        judged = judge.judge(made, build)
        yield _result(
            judged, False, vector.content, made, vector.name, vector.family, judge.stopped(vector, made, judged)
        )


def judge_honest(title: str, seed: int, rows: int, only: str, names: Sequence[str] = ()) -> Iterator[Result]:
    from tests.airlock.suite import judge, legitimate, table
    from tests.airlock.suite.catalogue import OUTPUTS

    made = table.make(title, seed, rows)
    chosen = [o for o in OUTPUTS if only in o.name and (not names or o.name in names)]
    say(f"{len(chosen)} honest outputs of {title}, {rows} rows")
    for output in chosen:

        def build(folder: Path, output: Output = output) -> Path:
            return legitimate.build(output, made, folder)

        judged = judge.judge(made, build)
        result = _result(judged, True, output.listed, made, output.name, "", judged.verdict != "released")
        yield replace(result, bits=judge.strongest(made, build))


def _result(judged: Judged, honest: bool, listed: bool, made: Table, name: str, family: str, stopped: bool) -> Result:
    return Result(
        honest=honest,
        listed=listed,
        table=made.form.title,
        rows=made.rows,
        name=name,
        family=family,
        stopped=stopped,
        rules=judged.rules,
        content=judged.content_rules,
        alarms=len(judged.alarms),
        bits=max((found.bits for found in judged.content), default=0.0),
        broken=tuple(found.message for found in judged.broken),
        seconds=judged.seconds,
        megabytes=judged.megabytes,
        told=tuple(judged.told()[:12]),
    )


# --- tables -----------------------------------------------------------------------------------------


def caught_table(leaks: list[Result]) -> list[str]:
    """Caught per family, by content alone and by the whole gate, over all tables and sizes."""
    lines = [
        "| family | vectors | content alone | of those that content can see | whole gate |",
        "|---|---:|---:|---:|---:|",
    ]
    families = list(dict.fromkeys(result.family for result in leaks))
    for family in [*families, ""]:
        mine = [result for result in leaks if not family or result.family == family]
        seen = [result for result in mine if result.listed]
        content, visible = sum(bool(r.content) for r in mine), sum(bool(r.content) for r in seen)
        title = family or "**all**"
        stopped = sum(result.stopped for result in mine)
        lines.append(f"| {title} | {len(mine)} | {content} | {visible} of {len(seen)} | {stopped} |")
    return lines


def alarms_table(honest: list[Result]) -> list[str]:
    lines = ["| table | rows | honest outputs | false alarms |", "|---|---:|---:|---:|"]
    groups = dict.fromkeys((result.table, result.rows) for result in honest)
    for title, rows in groups:
        mine = [result for result in honest if (result.table, result.rows) == (title, rows)]
        lines.append(f"| {title} | {rows:,} | {len(mine)} | {sum(result.alarm for result in mine)} |")
    return [*lines, f"| **all** | | {len(honest)} | {sum(result.alarm for result in honest)} |"]


def margin_table(leaks: list[Result], honest: list[Result]) -> list[str]:
    """The weakest leak that was recognised by evidence in bits, and the strongest evidence in an honest text."""
    bits: dict[str, list[tuple[float, str]]] = {}
    for result in leaks:
        if result.bits > 0:
            bits.setdefault(result.family, []).append((result.bits, result.name))
    lines = ["| family | recognised by bits | weakest, bits | which |", "|---|---:|---:|---|"]
    for family, found in bits.items():
        weakest, name = min(found)
        lines.append(f"| {family} | {len(found)} | {weakest:.0f} | {name} |")
    if honest:
        strongest = max(honest, key=lambda result: result.bits)
        lines.append(f"| strongest honest output | {len(honest)} | {strongest.bits:.0f} | {strongest.name} |")
    return lines


def ablation_table(leaks: list[Result]) -> list[str]:
    """For every rule: the leaks that it is the only one to see, among all rules and among those of content."""
    alone, content, fires = Counter[str](), Counter[str](), Counter[str]()
    examples: dict[str, list[str]] = {}
    for result in leaks:
        fires.update(result.rules)
        if len(result.rules) == 1:
            alone.update(result.rules)
        if len(result.content) == 1:
            content.update(result.content)
            examples.setdefault(result.content[0], []).append(result.name)
    lines = ["| rule off | fires on | fall through content | fall through the whole gate | for example |"]
    lines.append("|---|---:|---:|---:|---|")
    for rule, count in sorted(fires.items()):
        some = ", ".join(dict.fromkeys(examples.get(rule, [])[:3]))
        lines.append(f"| `{rule}` | {count} | {content[rule]} | {alone[rule]} | {some} |")
    return lines


def speed_table(results: list[Result]) -> list[str]:
    """Seconds of a look at a small release, and seconds per MB of the large ones."""
    lines = ["| table | rows | a small folder, median s | large files, s per MB | slowest s | which |"]
    lines.append("|---|---:|---:|---:|---:|---|")
    for title, rows in dict.fromkeys((result.table, result.rows) for result in results):
        mine = [result for result in results if (result.table, result.rows) == (title, rows)]
        small = sorted(result.seconds for result in mine if result.megabytes < 0.2)
        large = [result.seconds / result.megabytes for result in mine if result.megabytes > 0.9]
        slowest = max(mine, key=lambda result: result.seconds)
        median = f"{small[len(small) // 2]:.2f}" if small else ""
        rate = f"{sum(large) / len(large):.2f}" if large else ""
        lines.append(f"| {title} | {rows:,} | {median} | {rate} | {slowest.seconds:.1f} | {slowest.name} |")
    return lines


def missed_list(leaks: list[Result], honest: list[Result]) -> list[str]:
    """Everything that a bar is about, one by one."""
    lines = []
    for result in leaks:
        where = f"{result.name} ({result.family}; {result.table}, {result.rows:,} rows)"
        if not result.stopped:
            lines.append(f"- LEFT: {where}")
        elif result.listed and not result.content:
            lines.append(f"- not seen by content: {where}; {', '.join(result.rules)}")
    for result in honest:
        if result.alarm:
            told = "; ".join(result.told[:3])
            lines.append(f"- false alarm: {result.name} ({result.table}, {result.rows:,} rows): {told}")
    return lines


def within_bars(leaks: list[Result], honest: list[Result]) -> bool:
    def share(hits: Callable[[Result], Any], of: list[Result]) -> float:
        return sum(bool(hits(result)) for result in of) / max(len(of), 1)

    developed = [result for result in honest if result.table == DEVELOPED[0]]
    held_out = [result for result in honest if result.table == HELD_OUT[0]]
    found = {
        "blocked": share(lambda r: r.stopped, leaks),
        "content": share(lambda r: r.content, [result for result in leaks if result.listed]),
        "developed": share(lambda r: r.alarm, developed),
        "held out": share(lambda r: r.alarm, held_out),
    }
    for name, value in found.items():
        say(f"{name}: {value:.2%} (bar {BARS[name]:.0%})")
    reached = found["blocked"] >= BARS["blocked"] and found["content"] >= BARS["content"]
    return reached and found["developed"] <= BARS["developed"] and found["held out"] <= BARS["held out"]


def peers_table() -> list[str]:
    from airlock_peers import compare

    with tempfile.TemporaryDirectory(prefix="edgeml-peers-") as folder:
        return compare(Path(folder))


if __name__ == "__main__":
    sys.exit(main())
