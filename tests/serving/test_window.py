"""The window of predictions: what /metrics tells of them, and what nobody can read from it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgeml.edge.on_vm import rollout
from edgeml.image import golden
from edgeml.serving import window
from edgeml.serving.model import Model
from edgeml.serving.settings import Settings, Unusable
from tests.serving import models
from tests.serving.conftest import Served, Start
from tests.serving.test_watch import metrics


def told(served: Served, name: str = "edgeml_predictions") -> list[int]:
    return [int(value) for key, value in metrics(served).items() if key.startswith(name + "{")]


def infer(served: Served, rows: list[list[Any]], **more: Any) -> None:
    """The same rows by the other way of asking."""
    kinds = {"string": "BYTES"}
    inputs = [
        {"name": name, "shape": [len(rows), 1], "datatype": kinds.get(kind, "FP32"), "data": list(column)}
        for (name, kind), column in zip(models.MIXED, zip(*rows, strict=True), strict=True)
    ]
    assert served.ask("POST", "/v2/models/model/infer", {"inputs": inputs, **more}).status == 200


def test_a_full_window_is_told_and_nothing_before(start: Start, tmp_path: Path) -> None:
    served = start(models.watched(tmp_path / "model"))
    assert told(served, "edgeml_predictions_expected") == [40, 20, 40]
    served.score(models.rows(59, 20, 70))
    infer(served, [[-9, 0, 0, "Aachen"]] * 50)
    served.score([[None, 0, False, "Aachen"]])  # no number, so no prediction
    assert served.score([[7]]).status == 400
    infer(served, [[9, 0, 0, "Aachen"]] * 40, id=window.GOLDEN)
    for key in ("input_data", "data"):
        assert len(served.score({"id": window.GOLDEN, key: models.rows(0, 0, 40)}).json["predictions"]) == 40
    assert told(served) == [] and metrics(served)["edgeml_predictions_windows_total"] == 0
    served.score(models.rows(1, 0, 0))
    assert told(served) == [110, 20, 70] and metrics(served)["edgeml_predictions_windows_total"] == 1
    served.score(models.rows(0, 199, 0))
    assert told(served) == [110, 20, 70], "the second window is not full"
    served.score(models.rows(1, 0, 0))
    assert told(served) == [200, 0], "one row joins its neighbours"


def test_a_request_that_fills_a_window_begins_the_next(start: Start, tmp_path: Path) -> None:
    served = start(models.watched(tmp_path / "model"))
    served.score(models.rows(199, 0, 202))
    assert metrics(served)["edgeml_predictions_windows_total"] == 2 and told(served) == [0, 0, 200]


@pytest.mark.parametrize("counts", [(200, 0, 0), (9, 0, 191), (191, 9, 0), (0, 5, 195), (1, 198, 1), (95, 9, 96)])
def test_no_bin_of_1_to_9_rows_is_told_and_none_follows_from_the_others(counts: tuple[int, ...]) -> None:
    made = window.Window([window.Bin(0, 0.3, 40), window.Bin(0.3, 0.7, 20), window.Bin(0.7, 1, 40)], 10)
    made.count(np.repeat([0.1, 0.5, 0.9], counts))
    rows = [each.rows for each in made.told]
    assert sum(rows) == 200 and all(each == 0 or each >= 10 for each in rows)
    assert (made.told[0].low, made.told[-1].high) == (0, 1)
    edges = [each.high for each in made.told[:-1]]
    assert edges == [each.low for each in made.told[1:]]


@pytest.mark.parametrize("lacks", ["curves.json", "lineage.json", "signature.json"])
def test_a_model_of_which_less_is_known_is_served_and_tells_nothing(start: Start, tmp_path: Path, lacks: str) -> None:
    (models.watched(tmp_path / "model") / lacks).unlink()
    made = Model(Settings(model=str(tmp_path / "model")))
    assert made.window.expected == []


@pytest.mark.parametrize(
    "bins",
    [
        [{"low": 0, "high": 1}],
        [{"low": 0, "high": 0.5, "count": 20}, {"low": 0.6, "high": 1, "count": 20}],
        [{"low": 1, "high": 0, "count": 20}],
        [{"low": 0, "high": 1, "count": -1}],
        {"low": 0},
        [7],
    ],
)
def test_a_distribution_that_is_none_stops_the_start(tmp_path: Path, bins: Any) -> None:
    folder = models.watched(tmp_path / "model")
    (folder / "curves.json").write_text(json.dumps({"distribution": bins}))
    with pytest.raises(Unusable, match=r"take (it|both) from the release"):
        Model(Settings(model=str(folder)))


def test_whoever_asks_a_golden_request_names_it_as_the_server_knows_it() -> None:
    assert window.GOLDEN == golden.ID == rollout._GOLDEN
