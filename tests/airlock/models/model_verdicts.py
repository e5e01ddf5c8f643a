"""What the examiner says of the estimators, made once per session."""

from __future__ import annotations

from collections.abc import Iterable
from functools import cache

from model_zoo import Made, Table, legitimate, regression_leaks, regression_legitimate, table
from model_zoo import leaks as classification_leaks

from edgeml.airlock.finding import Artifact, Finding
from edgeml.airlock.models.examine import ModelExaminer

SLOW = {"gpc", "knn-imputer", "lof", "quantile+lr", "kmeans-n"}


def examine(
    artifacts: Iterable[Artifact], data: Table, holdout: Table | None = None, seconds: float = 60
) -> ModelExaminer:
    """An examiner that has seen all rows."""
    examiner = ModelExaminer(list(artifacts), data, holdout, seconds)  # type: ignore[arg-type]
    for batch in data.batches():
        examiner.feed(batch)
    return examiner


def by_file(findings: Iterable[Finding]) -> dict[str, list[Finding]]:
    found: dict[str, list[Finding]] = {}
    for finding in findings:
        found.setdefault(finding.file, []).append(finding)
    return found


@cache
def verdicts(kind: str, rows: int, seed: int) -> dict[str, list[Finding]]:
    """What is found of every estimator of a kind, by its name."""
    regression = kind.startswith("regression")
    made: Made = {
        "leaks": classification_leaks,
        "legitimate": legitimate,
        "regression leaks": regression_leaks,
        "regression legitimate": regression_legitimate,
    }[kind]()
    data = table(rows, seed, "regression" if regression else "classification")
    if rows > 500 and "leaks" in kind:
        made = {name: build for name, build in made.items() if name not in SLOW}
    artifacts = [Artifact(name, "onnx", build(data)) for name, build in made.items()]
    found = by_file(examine(artifacts, data).findings())
    return {artifact.name: found.get(artifact.name, []) for artifact in artifacts}
