"""Runs of kind `edge` in the workspace's experiments: each once, whole, whatever happens in between."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from edgeml import settings
from edgeml.azure.workspace import Workspace
from edgeml.edge import tracking
from edgeml.edge.report import Content
from edgeml.errors import EdgemlError
from tests.azure import cycles, loop
from tests.azure.running import Running
from tests.azure.server import KINDS, Request

# More tags than one batch may have, so that there is a middle in which something can go wrong.
CONTENT = Content(
    job="train-0123456789abcdef",
    experiment="breast-cancer",
    status="FINISHED",
    start=1_790_000_000_000,
    end=1_790_000_060_000,
    digest="ab" * 32,
    metrics={"roc_auc": 0.987, "seconds.train_model": 2.5},
    params={"task": "classification"},
    tags={f"lineage.{number}": str(number) for number in range(150)},
)


def report(content: Content = CONTENT) -> str:
    with cycles.hurried():
        return tracking.report(Workspace(settings.load()), content, lambda _: None)


def mlflow(request: Request) -> bool:
    return "/api/2.0/mlflow/" in request.path


def whole(running: Running, run_id: str) -> None:
    """The workspace has one run of the job, with each thing once."""
    (run,) = running.service.state.experiments.alive()
    assert run.info.run_id == run_id
    assert (run.info.run_name, run.info.start_time, run.info.end_time) == (CONTENT.job, CONTENT.start, CONTENT.end)
    assert run.info.status == 3  # FINISHED
    assert sorted((one.key, one.value) for one in run.data.metrics) == sorted(CONTENT.metrics.items())
    assert {one.key: one.value for one in run.data.params} == CONTENT.params
    own = {"edgeml.job": CONTENT.job, "edgeml.release": CONTENT.digest}
    assert {one.key: one.value for one in run.data.tags} == CONTENT.tags | own


def test_a_run_is_reported_once_and_with_nothing_else(running: Running, project: Path) -> None:
    first = report()
    whole(running, first)
    running.cloud.clear()
    assert report() == first
    assert [r.path.rpartition("/mlflow/")[2] for r in running.cloud.requests if mlflow(r)] == [
        "experiments/get-by-name",
        "runs/search",
    ]
    assert list(running.service.state.experiments.ids) == [CONTENT.experiment]


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "404"])
def test_what_passes_is_waited_out_and_doubles_nothing(running: Running, project: Path, kind: str) -> None:
    """Each call goes wrong once, the creation of the run among them, whose answer may be lost after it was done."""
    for call in ("by-name", "experiments/create", "runs/create", "search", "log-batch", "update", "set-tag"):
        running.cloud.fail(kind, lambda request, call=call: mlflow(request) and request.path.endswith(call))
    whole(running, report())
    assert len(running.cloud.thrown) == 7
    assert running.service.state.experiments.created == 1


@pytest.mark.parametrize("number", [1, 3, 4, 6, 7])
def test_a_report_that_was_killed_is_completed(
    running: Running, project: Path, number: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed as the n-th answer comes, and then run again: what is there is not sent anew."""
    real, count = Workspace.send, iter(range(1, 100))

    def killed(self: Workspace, *given: object, **more: str) -> object:
        done = real(self, *given, **more)  # type: ignore[arg-type]
        if next(count) == number:
            raise KeyboardInterrupt
        return done

    report(CONTENT._replace(job="another", digest="cd"))  # so that the experiment is there
    running.service.state.experiments.runs.clear()
    with monkeypatch.context() as patched:
        patched.setattr(Workspace, "send", killed)
        with pytest.raises(KeyboardInterrupt):
            report()
    whole(running, report())


def test_two_reports_at_once_leave_one_run(running: Running, project: Path) -> None:
    with ThreadPoolExecutor(2) as pool:
        both = list(pool.map(lambda _: report(CONTENT._replace(metrics={}, tags={})), range(2)))
    assert report(CONTENT._replace(metrics={}, tags={})) in both
    assert len(running.service.state.experiments.alive()) == 1


def test_a_run_that_released_something_else_is_brought_up_to_date(running: Running, project: Path) -> None:
    first = report(CONTENT._replace(digest="none", status="FAILED", metrics={}, params={}, tags={}))
    assert report() == first
    whole(running, first)


BAD = {
    "no permission": "this identity may not do Microsoft.MachineLearningServices/workspaces/mlflow/action; give it",
    "workspace gone": "there is no workspace 'edge-training' in 'edge'; check azure.workspace",
    "wrong subscription": "there is no subscription 99999999-9999-9999-9999-999999999999 that this identity sees",
    "a tracking store elsewhere": "as its tracking store, which is none of its own",
}


@pytest.mark.parametrize("title", BAD)
def test_what_is_wrong_is_one_sentence(
    running: Running, project: Path, monkeypatch: pytest.MonkeyPatch, title: str
) -> None:
    if title == "no permission":
        running.service.denied = ("POST", "mlflow")
    elif title == "workspace gone":
        running.service.gone = True
    elif title == "wrong subscription":
        monkeypatch.setenv("EDGEML_AZURE_SUBSCRIPTION_ID", "99999999-9999-9999-9999-999999999999")
    else:
        running.service.tracking_uri = f"azureml://elsewhere.example/mlflow/v1.0{loop.WORKSPACE_ID[:-1]}x"
    with pytest.raises(EdgemlError) as refused:
        report()
    assert BAD[title] in str(refused.value) and "\n" not in str(refused.value)
    assert running.service.state.experiments.created == 0
