"""A synthetic clinical table, its contract, and text that may leave: made from a seed, no value is anyone's."""

from __future__ import annotations

import json
import uuid
from pathlib import Path

import numpy as np
import polars as pl

from edgeml.airlock.evidence import Evidence, examiner
from edgeml.airlock.finding import Finding, Text
from edgeml.airlock.private import Private, open_private
from edgeml.contract import load

WORDS = "pain mild severe reports after walking knee left right swelling fever at the end of day radiating nausea dizzy"
CONTRACT = """\
name: clinic
version: 1
key: patient_id
target: outcome
task: classification
positive: ill
columns:
  patient_id: {type: string, unique: true}
  outcome: {type: string, allowed: [ill, well], public: true}
  age: {type: integer, min: 18, max: 120}
  ward: {type: string, allowed: [Alder, Birch], public: true}
"""
NUMBERS = ["age", "sex", "height", "weight", "bmi", "sbp", "dbp"]
NUMBERS += ["creatinine", "glucose", "hba1c", "crp", "score", "income", "risk"]


def table(rows: int, seed: int = 0) -> pl.DataFrame:
    """Ids, names, a category with four rows, notes, and fourteen columns of numbers of all precisions."""
    random = np.random.default_rng(seed)

    def measured(mean: float, spread: float, decimals: int) -> np.ndarray:
        return random.normal(mean, spread, rows).round(decimals)

    towns = random.choice(["Leeds", "York", "Hull"], rows).astype(object)
    towns[:4], towns[4:6] = "Ripon", "Reading"
    return pl.DataFrame(
        {
            "patient_id": [f"P{number:06}" for number in random.permutation(10**6)[:rows]],
            "outcome": random.choice(["ill", "well"], rows),
            "ward": ["Cedar"] + ["Alder"] * (rows - 1),
            "name": [f"{random.choice(['Mary', 'Aisha', 'Élodie'])} Testname{number}" for number in range(rows)],
            "mail": [f"t{number}.person@mail.test" for number in range(rows)],
            "town": towns,
            "note": [" ".join(random.choice(WORDS.split(), 14)) for _ in range(rows)],
            "age": random.integers(18, 95, rows),
            "sex": random.integers(0, 2, rows),
            "height": measured(170, 10, 1),
            "weight": measured(75, 15, 1),
            "bmi": measured(26, 4, 2),
            "sbp": random.integers(90, 190, rows),
            "dbp": random.integers(50, 110, rows),
            "creatinine": measured(1, 0.2, 3),
            "glucose": measured(5.5, 1, 2),
            "hba1c": measured(40, 8, 1),
            "crp": np.exp(random.normal(1, 1, rows)).round(3),
            "score": random.normal(size=rows),
            "income": np.exp(random.normal(10.3, 0.7, rows)).round(0),
            "risk": random.random(rows),
        }
    )


def private(frame: pl.DataFrame, folder: Path) -> Private:
    """The table as the gate opens it."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "contract.yml").write_text(CONTRACT)
    frame.write_parquet(folder / "table.parquet")
    return open_private([folder / "table.parquet"], load(folder / "contract.yml"))


def examine(table: Private, *texts: str, file: str = "run.log") -> list[Finding]:
    """The findings of the examiner of text."""
    return examined(table, *texts, file=file).findings()


def examined(table: Private, *texts: str, file: str = "run.log") -> Evidence:
    made = examiner([Text(file, "", text) for text in texts], table)
    for batch in table.batches():
        made.feed(batch)
    return made


def rules(findings: list[Finding]) -> set[str]:
    return {finding.rule for finding in findings}


def log(size: int, seed: int = 0) -> str:
    """A training log: times, counters, metrics, sizes, UUIDs, epochs."""
    random = np.random.default_rng(seed)
    lines, length, step = [], 0, 0
    while length < size:
        high, low = random.integers(0, 1 << 62, size=2).tolist()
        lines.append(
            f"2026-01-{step % 28 + 1:02}T10:{step % 60:02}:{step % 50:02}.{step % 1000:03}Z INFO worker-{step % 7} "
            f"step={step} loss={1 / (step / 500 + 1) + random.random() / 50:.6f} acc={random.random():.4f} lr=0.001 "
            f"time={random.random() * 3:.2f}s mem={random.integers(100, 900)}MB id={uuid.UUID(int=high << 64 | low)}\n"
        )
        if step % 50 == 0:
            lines.append(f"epoch {step // 50}/100 val_auc {random.random():.4f} best {random.random():.4f}\n")
        length += sum(map(len, lines[-2:]))
        step += 1
    return "".join(lines)


def legitimate(frame: pl.DataFrame, seed: int) -> dict[str, str]:
    """Texts that may leave, by kind."""
    random = np.random.default_rng(seed)
    numbers = frame.select(NUMBERS)
    weights = random.normal(scale=0.3, size=2000)
    digests = [random.bytes(32).hex() for _ in range(60)]
    drift = {
        name: {"edges": np.round(np.linspace(0, 100, 11), 1).tolist(), "counts": random.integers(10, 90, 10).tolist()}
        for name in NUMBERS
    }
    return {
        "log": log(150_000, seed),
        "metrics": json.dumps({f"metric_{index}": float(f"{random.random():.6g}") for index in range(200)}),
        "weights": " ".join(map(str, weights)),
        "float32 weights": "\n".join(map(str, weights.astype(np.float32))),
        "rounded weights": str(weights.round(4).tolist()),
        "decimal commas": ";".join(f"{weight * 100:.2f}".replace(".", ",") for weight in weights),
        "scaler": json.dumps({name: {"mean": numbers[name].mean(), "std": numbers[name].std()} for name in NUMBERS}),
        "drift": json.dumps(drift),
        "sbom": json.dumps(
            [
                {"name": f"package-{index}", "version": f"{index % 9}.{index % 7}.{index}", "sha256": digest}
                for index, digest in enumerate(digests)
            ]
        ),
        "images": "\n".join(
            f"registry.test/team/model@sha256:{digest} 10{index}MB" for index, digest in enumerate(digests)
        ),
        "epochs": "\n".join(f"{epoch},{random.random():.5f},{random.random():.5f},0.001" for epoch in range(100)),
        "importances": json.dumps(dict(zip(NUMBERS, random.dirichlet(np.ones(len(NUMBERS))).tolist(), strict=True))),
        "vocabulary": json.dumps(sorted(WORDS.split())),
        "card": "The model was trained at the end of the day on the wards Alder and Birch. Its AUC is 0.91.",
        "cv": json.dumps(
            {"folds": [{"fold": fold, "auc": random.random(), "rmse": random.random()} for fold in range(10)]}
        ),
        "tree": " ".join(str(value) for value in _thresholds(numbers, random)),
    }


def _thresholds(numbers: pl.DataFrame, random: np.random.Generator) -> list[np.float32]:
    """What trees print: midpoints between neighbouring values."""
    found: list[np.float32] = []
    for name in NUMBERS:
        levels = np.unique(numbers[name].to_numpy().astype(float))
        middles = (levels[1:] + levels[:-1]) / 2
        found += np.float32(random.choice(middles, min(40, len(middles)), replace=False)).tolist()
    return found
