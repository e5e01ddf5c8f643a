"""Membership inference on the exported model, given rows that were not trained on."""

from __future__ import annotations

import numpy as np
from model_verdicts import examine
from model_zoo import Table, convert, fitted, table

from edgeml.airlock.finding import Artifact
from edgeml.airlock.models.membership import attack


def _split(estimator: object) -> tuple[list[Artifact], Table, Table]:
    data = table(2000, 2)
    model = convert(fitted(estimator, data, slice(0, 1000)))
    return [Artifact("model.onnx", "onnx", model)], data, Table(data.contract, data.batch.slice(1000))


def test_a_forest_that_knows_its_rows_by_heart_does_not_pass() -> None:
    from sklearn.ensemble import RandomForestClassifier

    artifacts, data, holdout = _split(RandomForestClassifier(30, bootstrap=False, max_features=0.3, random_state=0))
    examiner = examine(artifacts, data, holdout)
    assert "model.membership" in {finding.rule for finding in examiner.findings()}
    assert "AUC" in examiner.notes[0] and "overfitted" in examiner.notes[0]


def test_a_regular_model_passes_and_the_measure_is_told() -> None:
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    artifacts, data, holdout = _split(make_pipeline(StandardScaler(), LogisticRegression()))
    examiner = examine(artifacts, data, holdout)
    assert examiner.findings() == []
    assert "AUC" in examiner.notes[0]


def test_without_such_rows_it_is_skipped_with_the_reason() -> None:
    from sklearn.linear_model import LogisticRegression

    artifacts, data, _ = _split(LogisticRegression())
    examiner = examine(artifacts, data)
    assert examiner.findings() == []
    assert "skipped" in examiner.notes[0]


def test_the_measure_of_losses_that_are_alike_and_of_losses_that_are_not() -> None:
    random = np.random.default_rng(0)
    auc, tpr = attack(random.random(4000), random.random(4000))
    assert abs(auc - 0.5) < 0.03 and tpr < 0.03
    assert attack(random.random(4000), 1 + random.random(4000)) == (1.0, 1.0)
    assert attack(np.zeros(500), np.zeros(500))[0] == 0.5
