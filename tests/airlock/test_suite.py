"""The leak suite's fast part: ways out that the gate must close, honest outputs that it must let pass.

`make bench-airlock` runs all of it, over both tables and more rows.
"""

from __future__ import annotations

import base64
import gzip
import urllib.parse
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sklearn.decomposition import PCA
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import MinMaxScaler, PowerTransformer, RobustScaler, StandardScaler
from sklearn.svm import SVC

from edgeml.airlock import rules
from tests.airlock.suite import legitimate, models, vectors
from tests.airlock.suite.catalogue import FAMILIES, OUTPUTS, VECTORS
from tests.airlock.suite.files import in_log, tarred, zipped
from tests.airlock.suite.judge import Judged, judge, private_values, stopped
from tests.airlock.suite.release import copy_release
from tests.airlock.suite.table import Table, make
from tests.airlock.suite.vectors import Vector, some

ROWS = 300
LEAKS = {vector.name: vector for vector in VECTORS}
HONEST = {output.name: output for output in OUTPUTS}


def listed(names: str) -> list[str]:
    return names.split()


PICKED = listed("""
nearest_neighbours support_vectors gaussian_process_regressor local_outlier_factor standard_scaler_then_neighbours
pca_then_neighbours voting_with_neighbours neighbours_in_half_precision tree_with_one_row_leaves targets_by_name
one_hot_of_names ordinal_of_a_rare_place n_grams_of_notes names_as_json_keys name_in_a_file_name name_of_an_input
spare_initializer rows_in_a_used_constant standardised_rows metadata doc_string_of_a_node external_data
sparse_initializer
constant_in_a_subgraph spare_strings unknown_field head_to_two_decimals traceback_with_a_row one_mail_address
row_in_base64 slow_drip input_example parquet pickle tar_in_a_zip predictions_by_id one_row_in_a_large_log
slice_of_three_rows confusion_of_few extremes_of_every_column symbolic_link fifo bytes_behind_json
archive_named_like_metrics utf_16 homoglyphs row_as_importances requirement_comment
""")

PASSING = listed("""
release_linear release_gradient_boosting release_random_forest release_mlp model_pca_logistic_regression
model_naive_bayes model_forest model_histogram_boosting_regression model_robust_scaler_ridge model_mean_imputer
model_kmeans_of_8 model_quantised model_of_public_categories model_of_frequent_words metrics curve_of_51_points
scaler_statistics epoch_log lineage schema grouped_metrics model_card cross_validation traceback_without_data
drift_report bill_of_materials search_results settings counts_of_frequent_places
""")


@pytest.fixture(scope="module")
def clinic() -> Table:
    return make("clinic", 1, ROWS)


@pytest.fixture(scope="module")
def judged(clinic: Table) -> Callable[[Vector], Judged]:
    """What the gate says of a vector; each is judged once."""
    known: dict[str, Judged] = {}

    def of(vector: Vector) -> Judged:
        if vector.name not in known:
            known[vector.name] = judge(clinic, lambda folder: vectors.build(vector, clinic, folder))
        return known[vector.name]

    return of


@pytest.mark.parametrize("name", PICKED)
def test_a_leak_is_blocked(name: str, judged: Callable[[Vector], Judged]) -> None:
    found = judged(LEAKS[name])
    assert not found.broken, found.told()
    assert found.blocked and not found.approved


@pytest.fixture(scope="module")
def larger() -> Table:
    return make("clinic", 1, 20 * ROWS)


# Among 300 rows these are told by how many they are, and by values that few others have; among 6,000 by neither.
LARGER = listed("targets_in_a_constant neighbours_quantised_to_bytes quantile_transformer calibrated_by_steps")


@pytest.mark.parametrize("name", LARGER)
def test_a_leak_of_some_rows_of_many_is_blocked(name: str, larger: Table) -> None:
    found = judge(larger, lambda folder: vectors.build(LEAKS[name], larger, folder))
    assert found.content and not found.broken, found.told()
    assert not found.approved


def test_what_need_not_be_refused_is_washed_off(clinic: Table, judged: Callable[[Vector], Judged]) -> None:
    for vector in (vector for vector in VECTORS if vector.washed):
        assert stopped(vector, clinic, judged(vector)), vector.name


@pytest.mark.parametrize("name", [name for name in PICKED if LEAKS[name].content])
def test_content_alone_gives_a_leak_away(name: str, judged: Callable[[Vector], Judged]) -> None:
    """The policy of formats off: what counts is that somebody compared the file with the private rows."""
    found = judged(LEAKS[name])
    assert found.content, found.told()


def test_no_report_repeats_a_private_value(clinic: Table, judged: Callable[[Vector], Judged]) -> None:
    for name in PICKED:
        assert private_values(clinic, judged(LEAKS[name]).written) == [], name


def test_every_rule_that_speaks_is_on_the_list(judged: Callable[[Vector], Judged]) -> None:
    spoken = {rule for name in PICKED for rule in judged(LEAKS[name]).rules}
    assert spoken <= set(rules.known())


def test_the_search_for_private_values_finds_them(clinic: Table) -> None:
    form, long = clinic.form, clinic.cells(7)[clinic.names.index("filtration")]
    for text in (
        clinic.texts(form.key)[7],
        clinic.texts(form.person)[7].lower(),
        form.rare,
        f"x={long},",
    ):
        assert private_values(clinic, {"report.json": text.encode()}), text
    assert private_values(clinic, {f"{clinic.texts(form.key)[7]}.json": b""})
    assert not private_values(clinic, {"report.json": b'{"verdict": "blocked", "bits": 104.25, "rows": 12}'})


@pytest.mark.parametrize("name", PASSING)
def test_an_honest_output_passes(name: str, clinic: Table) -> None:
    output = HONEST[name]
    found = judge(clinic, lambda folder: legitimate.build(output, clinic, folder))
    assert not found.broken, found.told()
    if output.listed:
        assert found.verdict == "released", found.told()
        assert found.approved
    assert not found.alarms, found.told()


def test_the_suite_covers_what_it_promises() -> None:
    assert len(VECTORS) == len(LEAKS) >= 90
    assert len(OUTPUTS) == len(HONEST) >= 25
    assert {LEAKS[name].family for name in PICKED} == set(FAMILIES)
    everything = [vector for vector in VECTORS if vector.content]
    assert len(everything) >= 0.9 * len(VECTORS), "few vectors may be out of reach for content rules"


# --- what nobody wrote down: random rows, precision, encodings and containers ---------------------------

ENCODINGS: dict[str, Callable[[bytes], bytes]] = {
    "base64": base64.b64encode,
    "base32": base64.b32encode,
    "hexadecimal": lambda data: data.hex().encode(),
    "url": lambda data: urllib.parse.quote(data).encode(),
    "gzip in base64": lambda data: base64.b64encode(gzip.compress(data)),
    "utf-16": lambda data: data.decode().encode("utf-16"),
}
CONTAINERS: dict[str, Callable[[bytes], bytes]] = {
    "zip": lambda data: zipped({"a.txt": data}),
    "tar": lambda data: tarred({"a.txt": data}, "w"),
    "tar.gz": lambda data: tarred({"a.txt": data}),
    "gzip": gzip.compress,
}


@settings(max_examples=12, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck), database=None)
@given(
    first=st.integers(0, ROWS - 1),
    rows=st.integers(1, 4),
    decimals=st.sampled_from([None, 2]),
    separator=st.sampled_from([",", " ", ";", "\t", " | ", "\n"]),
    encodings=st.lists(st.sampled_from(sorted(ENCODINGS)), max_size=2),
    containers=st.lists(st.sampled_from(sorted(CONTAINERS)), max_size=2),
    prefix=st.sampled_from(["", "batch 7: ", "[DEBUG] x=["]),
)
def test_rows_in_any_dress_are_recognised(
    first: int,
    rows: int,
    decimals: int | None,
    separator: str,
    encodings: list[str],
    containers: list[str],
    prefix: str,
    clinic: Table,
) -> None:
    lines = (separator.join(clinic.cells((first + row) % ROWS, decimals)) for row in range(rows))
    data = (prefix + "\n".join(lines)).encode()
    for encoding in encodings:
        data = ENCODINGS[encoding](data) if encoding != "utf-16" or encoding == encodings[-1] else data
    for container in containers:
        data = CONTAINERS[container](data)

    def build(folder: Path) -> Path:
        copy_release(clinic, folder)
        (folder / "notes.txt").write_bytes(data)
        return folder

    found = judge(clinic, build)
    assert found.blocked and found.content, found.told()
    assert private_values(clinic, found.written) == []


SCALERS = {
    "standard": StandardScaler,
    "min-max": MinMaxScaler,
    "robust": RobustScaler,
    "power": PowerTransformer,
    "pca": lambda: PCA(7),
}
STORES = {"neighbours": lambda: KNeighborsClassifier(3), "vectors": SVC}


@settings(max_examples=4, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck), database=None)
@given(
    chain=st.lists(st.sampled_from(sorted(SCALERS)), max_size=3, unique=True),
    store=st.sampled_from(sorted(STORES)),
    rows=st.integers(30, ROWS),
)
def test_rows_stored_behind_any_preprocessing_are_recognised(
    chain: list[str], store: str, rows: int, clinic: Table
) -> None:
    def build(folder: Path) -> Path:
        copy_release(clinic, folder)
        steps = [SCALERS[name]() for name in chain] + [STORES[store]()]
        model = models.trained(clinic, f"{chain}{store}{rows}", lambda t: make_pipeline(*steps), "label", rows)
        models.put(folder, model)
        return folder

    found = judge(clinic, build)
    assert found.blocked and found.content, found.told()


@settings(max_examples=5, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck), database=None)
@given(seed=st.integers(0, 2**32 - 1), lines=st.integers(50, 2000), digits=st.integers(2, 8))
def test_random_numbers_are_no_leak(seed: int, lines: int, digits: int, clinic: Table) -> None:
    """Logs of random numbers of the size of the table's own: nothing in them is a row."""
    rng = np.random.default_rng(seed)
    own = clinic.matrix()[some(clinic, rng, 20)]
    wide = rng.uniform(own.min(axis=0), own.max(axis=0), (lines // 10, own.shape[1]))
    text = "\n".join(" ".join(f"{value:.{digits}g}" for value in line) for line in wide)

    def build(folder: Path) -> Path:
        folder.mkdir()
        in_log(folder, rng, text, lines)
        return folder

    found = judge(clinic, build)
    assert not found.broken and not found.alarms, found.told()
