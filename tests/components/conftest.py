"""What the tests of the training components share: the sample, a mixed table, and how to run a step."""

from __future__ import annotations

import importlib
import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import polars as pl
import pytest
import yaml

ROOT = Path(__file__).parents[2]
COMPONENTS = ROOT / "components"


@pytest.fixture(scope="session")
def script() -> Callable[[str], ModuleType]:
    """A component's script, or what it includes, as a module: import of what a snapshot would hold."""

    def load(name: str, component: str = "") -> ModuleType:
        for folder in (ROOT / "edgeml", COMPONENTS / (component or name)):
            if str(folder) not in sys.path:
                sys.path.append(str(folder))
        return importlib.import_module(name)

    return load


@dataclass(frozen=True)
class Outcome:
    """What a step did: its exit code and everything it printed."""

    code: int
    out: str
    err: str


@pytest.fixture
def step(script: Callable[..., ModuleType], capfd: pytest.CaptureFixture[str]) -> Callable[..., Outcome]:
    """Run a component's `main` in this process: step("split_data", table=…, seed=1)."""

    def run(name: str, **options: Any) -> Outcome:
        argv = [part for key, value in options.items() for part in (f"--{key.replace('_', '-')}", str(value))]
        capfd.readouterr()
        code = script(name).main(argv)
        captured = capfd.readouterr()
        return Outcome(code, captured.out, captured.err)

    return run


@pytest.fixture(scope="session")
def command(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Run a component as an executor does: a copy of its code and includes, and the command of its YAML."""

    def run(name: str, **values: Any) -> subprocess.CompletedProcess[str]:
        spec = yaml.safe_load((COMPONENTS / name / "component.yml").read_text())
        snapshot = tmp_path_factory.mktemp(name) / "code"
        shutil.copytree(COMPONENTS / name, snapshot, ignore=shutil.ignore_patterns("__pycache__"))
        for include in spec["additional_includes"]:
            shutil.copy(COMPONENTS / name / include, snapshot)
        line = spec["command"]
        for optional in [part.split("]]")[0] for part in line.split("$[[")[1:]]:
            given = any(f"inputs.{key}}}}}" in optional for key in values)
            line = line.replace(f"$[[{optional}]]", optional if given else "")
        defaults = {key: port["default"] for key, port in spec["inputs"].items() if "default" in port}
        for key, value in (defaults | values).items():
            side = "outputs" if key in spec["outputs"] else "inputs"
            line = line.replace(f"${{{{{side}.{key}}}}}", str(value))
        line = line.replace("python ", f"{sys.executable} ", 1)
        environment = {"PATH": "/usr/bin:/bin", "MLFLOW_DISABLE_TELEMETRY": "true"}
        return subprocess.run(
            ["bash", "-c", line], cwd=snapshot, env=environment, capture_output=True, text=True, check=False
        )

    return run


@pytest.fixture(scope="session")
def sample_contract() -> Path:
    return ROOT / "contracts" / "breast_cancer.yml"


@pytest.fixture(scope="session")
def sample_table() -> pl.DataFrame:
    """The Wisconsin table as the product's sample has it: patient_id, thirty features, diagnosis."""
    from sklearn.datasets import load_breast_cancer

    bunch = load_breast_cancer()
    features = {str(name).replace(" ", "_"): bunch.data[:, index] for index, name in enumerate(bunch.feature_names)}
    ids = [f"P{index:06d}" for index in range(len(bunch.target))]
    return pl.DataFrame(
        {"patient_id": ids, **features, "diagnosis": np.where(bunch.target == 0, "malignant", "benign").tolist()}
    )


@dataclass(frozen=True)
class Chain:
    """The folders and files of one run of the training components."""

    contract: Path
    table: Path
    validation: Path
    train: Path
    test: Path
    model: Path


def run_chain(load: Callable[..., ModuleType], table: pl.DataFrame, contract: Path, root: Path, *more: str) -> Chain:
    chain = Chain(contract, *(root / name for name in ("table", "validation.json", "train", "test", "model")))
    write_parts(table, chain.table)

    def main(name: str, *fields: str) -> None:
        argv = [part for field in fields for part in (f"--{field}", str(getattr(chain, field)))]
        assert load(name).main(argv + list(more if name == "train_model" else ())) == 0, name

    main("validate_data", "table", "contract", "validation")
    main("split_data", "table", "validation", "contract", "train", "test")
    main("train_model", "train", "test", "contract", "model")
    return chain


def write_parts(table: pl.DataFrame, folder: Path, parts: int = 3) -> Path:
    """A table as ingest_blobs leaves it."""
    folder.mkdir(parents=True)
    size = -(-table.height // parts)
    for index in range(parts):
        table.slice(index * size, size).write_parquet(folder / f"part-{index:05d}.parquet")
    return folder


@pytest.fixture(scope="session")
def parts() -> Callable[..., Path]:
    return write_parts


@pytest.fixture(scope="session")
def sample(
    script: Callable[..., ModuleType],
    sample_table: pl.DataFrame,
    sample_contract: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> Chain:
    """The sample, validated, divided and learnt, without cross-validation."""
    return run_chain(script, sample_table, sample_contract, tmp_path_factory.mktemp("sample"), "--folds", "0")


MIXED = """
name: mixed
version: 1
key: id
target: {target}
task: {task}
{positive}
k: 10
columns:
  id: {{type: string, unique: true}}
  dose: {{type: number, nullable: true}}
  year: {{type: integer}}
  smoker: {{type: boolean, nullable: true}}
  ward: {{type: string, allowed: [north, south, east, west], public: true, nullable: true}}
  {column}
slices: [ward, dose, smoker]
thresholds: {thresholds}
rows: {{min_rows: 100}}
"""

TARGETS = {
    "binary": "outcome: {type: string, allowed: [ill, well], public: true}",
    "boolean": "outcome: {type: boolean}",
    "three": "outcome: {type: integer, allowed: [0, 1, 2], public: true}",
    "regression": "outcome: {type: number}",
}


@pytest.fixture(scope="session")
def mixed(
    tmp_path_factory: pytest.TempPathFactory,
) -> Callable[..., tuple[pl.DataFrame, Path]]:
    """A made-up table with every type and with nulls, and its contract, for one of `TARGETS`."""

    def make(kind: str, rows: int = 600, seed: int = 7) -> tuple[pl.DataFrame, Path]:
        generator = np.random.default_rng(seed)
        dose = generator.normal(1000, 0.5, rows)  # far from zero: scaling in float32 must not lose it
        year = generator.integers(1990, 2026, rows)
        smoker, ward = generator.random(rows) < 0.4, generator.integers(0, 4, rows)
        signal = 2 * (dose - 1000) + smoker + 0.7 * (ward == 2) + generator.normal(0, 0.7, rows)
        targets: dict[str, list[Any]] = {
            "binary": np.where(signal > 0.5, "ill", "well").tolist(),
            "boolean": (signal > 0.5).tolist(),
            "three": np.digitize(signal, [-0.2, 1.2]).tolist(),
            "regression": (signal * 50 + 300).tolist(),
        }
        table = pl.DataFrame(
            {
                "id": [f"id-{index}" for index in range(rows)],
                "dose": dose,
                "year": year,
                "smoker": smoker,
                "ward": np.array(["north", "south", "east", "west"])[ward],
                "outcome": targets[kind],
            }
        )
        hole = {name: pl.Series(generator.random(rows) < 0.05) for name in ("dose", "smoker", "ward")}
        table = table.with_columns(
            pl.when(mask).then(None).otherwise(pl.col(name)).alias(name) for name, mask in hole.items()
        )
        positive = {"binary": "positive: ill", "boolean": "positive: true", "three": "positive: 2", "regression": ""}
        task = "regression" if kind == "regression" else "classification"
        thresholds = "{r2: 0.5, rmse: 60}" if task == "regression" else "{roc_auc: 0.8}"
        text = MIXED.format(
            target="outcome", task=task, positive=positive[kind], column=TARGETS[kind], thresholds=thresholds
        )
        contract = tmp_path_factory.mktemp("contract") / "mixed.yml"
        contract.write_text(text)
        return table, contract

    return make


@pytest.fixture(scope="session")
def chain(
    script: Callable[..., ModuleType],
    mixed: Callable[..., tuple[pl.DataFrame, Path]],
    tmp_path_factory: pytest.TempPathFactory,
) -> Callable[..., Chain]:
    """A run of the components over the mixed table, kept for the session."""
    done: dict[tuple[str, ...], Chain] = {}

    def run(kind: str, *more: str) -> Chain:
        if (kind, *more) not in done:
            table, contract = mixed(kind)
            folder = tmp_path_factory.mktemp(kind)
            done[(kind, *more)] = run_chain(script, table, contract, folder, "--folds", "0", *more)
        return done[(kind, *more)]

    return run


def read_json(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))
