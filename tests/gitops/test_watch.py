"""`edgeml status --issue` over a loopback GitHub and a real scoring server: what drifts becomes one issue."""

from __future__ import annotations

import json
import math
import random
from pathlib import Path
from typing import Any

import pytest

from edgeml.cli import main
from edgeml.gitops import drift
from tests.gitops.conftest import SETTINGS, Story, record_text
from tests.serving import models
from tests.serving.conftest import Served, Start, start

__all__ = ["start"]  # a fixture
STEP = f"registry.example/scoring@sha256:{'1' * 64}"


@pytest.fixture
def served(story: Story, start: Start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Served:
    """The site `staging` on this machine, its server asked as the site's own port is."""
    made = start(models.watched(tmp_path / "model"))
    place = f"[site.staging]\nserve_port = {made.port}\n"
    Path("edgeml.toml").write_text(SETTINGS.replace(', "production"', "") + place)
    Path("deployments").mkdir()
    Path("deployments/staging.yml").write_text(record_text("staging", 1))
    monkeypatch.setenv("HOME", str(tmp_path))
    container = {"container": "none", "image": STEP, "slot": made.port, "port": made.port, "memory_mb": 1, "cpus": 1}
    state = {"version": 1, "current": container, "previous": None, "trial": None, "failed": None}
    (tmp_path / "edgeml/sites/staging").mkdir(parents=True)
    (tmp_path / "edgeml/sites/staging/state.json").write_text(json.dumps(state))
    return made


def status(capsys: pytest.CaptureFixture[str], code: int = 0) -> dict[str, Any]:
    assert main(["status", "--issue", "--json"]) == code
    (site,) = json.loads(capsys.readouterr().out)["sites"]
    assert isinstance(site, dict)
    return site


def test_drift_opens_one_issue_brings_it_up_to_date_and_closes_it(
    story: Story, served: Served, capsys: pytest.CaptureFixture[str]
) -> None:
    branches = story.hub.git("for-each-ref")
    served.score(models.rows(99, 50, 50))
    site = status(capsys)
    assert site["state"] == "in step" and site["drift"]["state"] == drift.UNKNOWN
    assert "too few requests" in site["drift"]["reason"] and story.hub.issues == []
    served.score(models.rows(1, 0, 0))  # half, a quarter and a quarter, for 40, 20 and 40 of a hundred test rows
    assert status(capsys)["drift"]["state"] == drift.NONE and story.hub.issues == []
    served.score(models.rows(20, 20, 160))
    assert status(capsys)["drift"]["state"] == drift.DRIFTED
    (issue,) = story.hub.issues
    assert (
        issue["state"] == "open" and "`staging` drifts" in issue["body"] and "| 0.7 to 1 | 40% | 80% |" in issue["body"]
    )
    served.score(models.rows(0, 0, 200))
    status(capsys)
    assert status(capsys)["drift"]["psi"] > 1
    (issue,) = story.hub.issues
    assert "| 0 to 0.3 | 40% | 0% |" in issue["body"]
    served.score(models.rows(80, 40, 80))
    status(capsys)
    assert [each["state"] for each in story.hub.issues] == ["closed"]
    assert story.hub.git("for-each-ref") == branches and story.hub.pulls == [], "nothing is trained or changed"


def test_a_site_out_of_step_and_drift_share_the_issue(
    story: Story, served: Served, capsys: pytest.CaptureFixture[str]
) -> None:
    served.score(models.rows(0, 0, 200))
    Path("deployments/staging.yml").write_text(record_text("staging", 2))
    assert status(capsys, 1)["state"] == "differs"
    (issue,) = story.hub.issues
    assert "| differs |" in issue["body"] and "drifts" in issue["body"]
    served.stop()
    site = status(capsys, 1)
    assert site["drift"]["state"] == drift.UNKNOWN and "drifts" not in story.hub.issues[0]["body"]
    assert main(["status"]) == 1 and "drift    unknown: its metrics tell nothing" in capsys.readouterr().out


def test_chance_alone_seldom_drifts_and_a_shift_seldom_hides() -> None:
    """The limit holds for what it promises, also where test rows are few; a shift of a standard deviation is seen."""
    generator = random.Random(7)
    edges = [-1.2, -0.6, 0, 0.6, 1.2]

    def drawn(rows: int, shift: float = 0) -> list[int]:
        cells = [sum(generator.gauss(shift, 1) > edge for edge in edges) for _ in range(rows)]
        return [cells.count(cell) for cell in range(6)]

    def is_drift(released: list[int], seen: list[int]) -> bool:
        limit = max(drift.LIMIT, drift.by_chance(6, sum(released), sum(seen)))
        return drift.stability(released, seen) > limit

    assert sum(is_drift(drawn(60), drawn(200)) for _ in range(400)) <= 12
    assert sum(is_drift(drawn(300), drawn(200, 1)) for _ in range(100)) >= 95
    assert drift.stability([5000, 5000], [9000, 1000]) == pytest.approx(0.4 * math.log(9), rel=0.01)
    assert drift.by_chance(6, 100, 200) == pytest.approx(15.086 * (1 / 100 + 1 / 200), rel=0.01)  # of any table


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "tell nothing"),
        ('edgeml_predictions{low="0",high="1"} 200', "tell nothing"),
        ('edgeml_predictions_expected{low="0",high="1"} 9\nedgeml_predictions{low="0",high="2"} 200', ""),
        ('edgeml_predictions_expected{low="0",high="1"} 9\nedgeml_predictions{low="5",high="6"} 200', "two different"),
        ('edgeml_predictions_expected{low="0",high="1"} 9\nedgeml_predictions{low="0",high="1"} 0', "two different"),
        ('edgeml_predictions_expected{low="e",high="1"} 9\nedgeml_predictions{low="0",high="1"} 9', "tell nothing"),
        ('edgeml_predictions_expected{low="0",high="1"} -9', "tell nothing"),
    ],
)
def test_metrics_that_are_none_of_ours_say_nothing(text: str, reason: str) -> None:
    found = drift.measured(text)
    assert reason in found.reason and (found.state == drift.UNKNOWN) == bool(reason)
