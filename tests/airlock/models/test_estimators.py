"""Converted estimators: what stores rows, targets or texts is found by its content, what does not passes."""

from __future__ import annotations

import pytest
from model_verdicts import verdicts
from model_zoo import leaks, legitimate, regression_leaks, regression_legitimate

from edgeml.airlock.finding import CONTENT
from edgeml.airlock.models.examine import RULES
from tests.whole import whole

CONTENT_RULES = {rule.id for rule in RULES if rule.kind == CONTENT} - {"model.unexamined"}
EXPECTED = {
    "knn": "model.rows", "svc": "model.rows", "one-class-svm": "model.rows", "gpc": "model.rows", "lof": "model.rows",
    "knn-imputer": "model.rows", "kmeans-n": "model.rows", "std+knn": "model.stored-rows",
    "minmax+svc": "model.stored-rows", "pca5+knn": "model.stored-rows", "std+pca2+knn": "model.stored-rows",
    "power+knn": "model.stored-rows", "quantile+lr": "model.column", "tree-leaf-1": "model.leaves",
    "one-hot-names": "model.vocabulary", "ordinal-city": "model.vocabulary", "tfidf-bigrams": "model.vocabulary",
    "knn-regressor": "model.rows", "svr": "model.rows", "robust+svr": "model.stored-rows", "gpr": "model.rows",
    "std+gpr": "model.stored-rows", "forest-leaf-1": "model.leaf-targets", "extra-trees-leaf-1": "model.leaf-targets",
    "tree-regressor-leaf-1": "model.leaf-targets",
}  # fmt: skip
LARGE = ["knn", "svc", "std+knn", "minmax+svc", "pca5+knn", "std+pca2+knn", "power+knn", "tree-leaf-1"]
LARGE += ["one-hot-names", "ordinal-city", "tfidf-bigrams"]


@pytest.mark.parametrize("name", leaks())
def test_a_small_table_is_found_in_what_stores_it(name: str) -> None:
    assert EXPECTED[name] in {finding.rule for finding in verdicts("leaks", 300, 1)[name]} & CONTENT_RULES


@whole("takes 30 s")
@pytest.mark.parametrize("name", LARGE)
def test_a_larger_table_is_found_in_what_stores_it(name: str) -> None:
    assert EXPECTED[name] in {finding.rule for finding in verdicts("leaks", 2000, 2)[name]} & CONTENT_RULES


@pytest.mark.parametrize("name", regression_leaks())
def test_rows_and_targets_are_found_in_regressors(name: str) -> None:
    assert EXPECTED[name] in {finding.rule for finding in verdicts("regression leaks", 300, 1)[name]} & CONTENT_RULES


def test_targets_that_a_regressor_keeps_are_a_dump_of_their_column() -> None:
    columns = {finding.column for finding in verdicts("regression leaks", 300, 1)["knn-regressor"]}
    assert "cost" in columns


@pytest.mark.parametrize(("rows", "seed"), [(300, 1), (2000, 2)])
@pytest.mark.parametrize("name", legitimate())
def test_what_stores_nothing_passes(name: str, rows: int, seed: int) -> None:
    assert verdicts("legitimate", rows, seed)[name] == []


@pytest.mark.parametrize(("rows", "seed"), [(300, 1), (2000, 2)])
@pytest.mark.parametrize("name", regression_legitimate())
def test_regressors_that_store_nothing_pass(name: str, rows: int, seed: int) -> None:
    assert verdicts("regression legitimate", rows, seed)[name] == []


def test_a_model_that_crashes_the_runtime_is_not_examined_and_harms_no_other() -> None:
    found = verdicts("leaks", 300, 1)
    assert "model.unexamined" in {finding.rule for finding in found["gpc"]}
    assert "model.unexamined" not in {finding.rule for finding in found["knn"]}


def test_no_finding_holds_a_private_value() -> None:
    from model_zoo import table

    private = {str(text).casefold() for name in ("name", "patient_id") for text in table(300, 1).column(name)}
    for findings in verdicts("leaks", 300, 1).values():
        for finding in findings:
            told = " ".join(map(str, finding[:5])).casefold()
            assert not any(value in told for value in private)
