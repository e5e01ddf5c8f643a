"""What train_model makes by its defaults passes the egress gate, with every algorithm that it offers."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import polars as pl
import pytest

from edgeml.airlock import gate
from tests.components.conftest import run_chain

CLASSIFIERS = ("gradient_boosting", "random_forest", "mlp", "logistic_regression")
REGRESSORS = ("gradient_boosting", "random_forest", "mlp", "ridge")


def released(script: Callable[..., ModuleType], chain: Any, table: pl.DataFrame, folder: Path) -> gate.Verdict:
    evaluation, manifest = folder / "evaluation", folder / "manifest.json"
    argv = {"model": chain.model, "test": chain.test, "contract": chain.contract, "evaluation": evaluation}
    argv["samples"] = 200
    words = [word for name, value in argv.items() for word in (f"--{name}", str(value))]
    assert script("evaluate_model").main(words) == 0
    fingerprint = "sha256:" + hashlib.sha256(b"the sample").hexdigest()
    manifest.write_text(
        json.dumps({"version": 1, "rows": table.height, "bytes": 1, "fingerprint": fingerprint, "blobs": []})
    )
    return gate.check(
        [chain.table], chain.contract, [chain.model, evaluation], folder / "out", state=folder / "state",
        manifest=manifest, validation=chain.validation, holdout=chain.test,
    )  # fmt: skip


def told(verdict: gate.Verdict) -> list[tuple[str, str, str]]:
    return [(finding.rule, finding.place, finding.message) for finding in verdict.findings]


@pytest.mark.parametrize("algorithm", CLASSIFIERS)
def test_the_sample_is_released_with_the_defaults(
    algorithm: str, script: Any, sample_table: pl.DataFrame, sample_contract: Path, tmp_path: Path
) -> None:
    more = ("--folds", "0", "--algorithm", algorithm)
    chain = run_chain(script, sample_table, sample_contract, tmp_path / "chain", *more)
    verdict = released(script, chain, sample_table, tmp_path)
    assert told(verdict) == [] and verdict.verdict == gate.RELEASED
    assert verdict.trimming is not None and verdict.trimming["mantissa_bits"] <= 13 and verdict.trimming["weights"] > 0


@pytest.mark.parametrize("algorithm", REGRESSORS)
def test_a_regression_is_released_with_the_defaults(algorithm: str, script: Any, mixed: Any, tmp_path: Path) -> None:
    table, contract = mixed("regression")
    chain = run_chain(script, table, contract, tmp_path / "chain", "--folds", "0", "--algorithm", algorithm)
    verdict = released(script, chain, table, tmp_path)
    assert told(verdict) == [] and verdict.verdict == gate.RELEASED
    assert verdict.trimming is not None and verdict.trimming["metric"] == "rmse"
