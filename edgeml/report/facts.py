"""What a report says, gathered from a run's record and its verified release; no drawing and no HTML."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from edgeml.errors import EdgemlError
from edgeml.registry import release as releases

if TYPE_CHECKING:
    from edgeml.engine.runs import Run
    from edgeml.registry import Version

NAMES = {
    "roc_auc": "ROC AUC",
    "average_precision": "Average precision",
    "accuracy": "Accuracy",
    "f1": "F1",
    "brier": "Brier score",
    "log_loss": "Log loss",
    "r2": "R²",
    "rmse": "RMSE",
    "mae": "MAE",
}
LOWER_IS_BETTER = frozenset({"brier", "log_loss", "rmse", "mae"})
HEADLINES = ("roc_auc", "r2", "average_precision", "accuracy", "rmse")


@dataclass(frozen=True)
class Step:
    """One step of the run, as the graph and the timings show it."""

    node: str
    status: str
    started: float
    seconds: float
    exit_code: int | None
    needs: tuple[str, ...]
    zone: str  # "cloud" where any of its outputs lies there, else "edge"


@dataclass(frozen=True)
class Facts:
    """Everything that a page shows. `documents` are those of the release, empty where nothing was released."""

    run: str
    record: dict[str, Any]
    steps: list[Step]
    documents: dict[str, dict[str, Any]]
    egress: dict[str, Any] | None
    sha256: str = ""
    versions: list[Version] = field(default_factory=list)

    @property
    def released(self) -> bool:
        return bool(self.documents)

    @property
    def promote(self) -> bool:
        return self.released and self.documents["promotion.json"].get("promote") is True

    @property
    def metrics(self) -> dict[str, dict[str, float]]:
        """The challenger's estimates, those that readers look for first in front."""
        metrics: dict[str, dict[str, float]] = self.documents["metrics.json"]["metrics"]
        order = [name for name in NAMES if name in metrics]
        return {name: metrics[name] for name in dict.fromkeys([*order, *metrics])}

    @property
    def headline(self) -> str:
        """The metric that speaks for the others."""
        return next((name for name in HEADLINES if name in self.metrics), next(iter(self.metrics), ""))

    @property
    def champion(self) -> dict[str, Any] | None:
        champion: dict[str, Any] | None = self.documents["promotion.json"].get("champion")
        return champion


def gather(run: Run) -> Facts:
    """Read a run. Raises EdgemlError, exit code 1, where its record or release is damaged."""
    with reading(os.path.join(run.path, "run.json")):
        steps = [_step(step) for step in run.record["steps"]]
        float(run.record["seconds"])
    egress = releases.verdict_of(run)
    if run.record["status"] != "completed" or egress is None or egress.get("released") is not True:
        return Facts(run.record["run"], run.record, steps, {}, egress)
    release = releases.of(run)
    names = ["signature.json", "lineage.json", "metrics.json", "promotion.json", "curves.json"]
    names += ["importance.json", "slices.json"]
    documents = {name: release.document(name) for name in names}
    if documents["signature.json"].get("task") == "classification":
        documents["confusion.json"] = release.document("confusion.json")
    return Facts(run.record["run"], run.record, steps, documents, egress, release.sha256, _versions(release.sha256))


@contextlib.contextmanager
def reading(file: str) -> Iterator[None]:
    """What is not of the form that a file must have becomes one sentence that names the file."""
    try:
        yield
    except (KeyError, TypeError, ValueError, IndexError, AttributeError):
        raise EdgemlError(f"{file} is not of the expected form; run the pipeline again", 1) from None


def metric_name(metric: str) -> str:
    return NAMES.get(metric, metric.replace("_", " "))


def shown(value: float) -> str:
    """A number for readers: three decimals, fewer where it is large."""
    return f"{value:.3f}" if abs(value) < 10 else f"{value:.1f}" if abs(value) < 1000 else f"{value:,.0f}"


def interval(estimate: Any) -> str:
    """`0.994 [0.987, 0.999]`, or the value alone."""
    if not isinstance(estimate, dict):
        return shown(estimate)
    return f"{shown(estimate['value'])} [{shown(estimate['low'])}, {shown(estimate['high'])}]"


def duration(seconds: float) -> str:
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest:02d} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02d} min"


def headline(facts: Facts) -> str:
    """The verdict in two or three words."""
    status = facts.record["status"]
    if status != "completed" and not (facts.egress and facts.egress.get("released") is False):
        return {"failed": "The run failed", "running": "Still running"}.get(status, "Interrupted")
    if not facts.released:
        return "Nothing was released"
    return "Promote" if facts.promote else "Do not promote"


def verdict(facts: Facts) -> str:
    """The verdict as one paragraph."""
    if facts.egress is not None and facts.egress.get("released") is False:
        findings = facts.egress.get("findings") or []
        return (
            f"The egress gate refused what this run made, for {_counted(len(findings), 'reason')}: no file of it left."
        )
    if facts.record["status"] != "completed":
        return _stopped(facts)
    if not facts.released:
        return "The run completed, but it has no output named release, so there is no model to judge."
    signature, metrics = facts.documents["signature.json"], facts.documents["metrics.json"]
    algorithm = str(signature["algorithm"]).replace("_", " ")
    sentences = [
        f"The challenger, {algorithm} for {signature['target']}, reached {metric_name(facts.headline)} "
        f"{interval(facts.metrics[facts.headline])} on {metrics['rows']:,} test rows."
    ]
    sentences.append(_comparison(facts))
    checks = facts.documents["promotion.json"]["checks"]
    failed = [check for check in checks if not check["passed"]]
    if failed:
        sentences.append(f"{len(failed)} of {_counted(len(checks), 'check')} failed.")
    elif facts.promote:
        sentences.append("Its check passed." if len(checks) == 1 else f"All {len(checks)} checks passed.")
    return " ".join(sentence for sentence in sentences if sentence)


def reasons(facts: Facts) -> list[str]:
    """Why not, in the words of whoever decided; empty where the answer is yes."""
    if facts.egress is not None and facts.egress.get("released") is False:
        findings = [finding for finding in facts.egress.get("findings") or [] if isinstance(finding, dict)]
        return [f"{f.get('file')}: {f.get('detail')} ({f.get('rule')})" for f in findings]
    if facts.released and not facts.promote:
        return [str(reason) for reason in facts.documents["promotion.json"].get("reasons") or []]
    return []


def next_steps(facts: Facts) -> list[tuple[str, str]]:
    """What to do now: a sentence, and the command where there is one."""
    if facts.egress is not None and facts.egress.get("released") is False:
        return [("Mend what the findings name, in the component that wrote it, then run again:", _again(facts))]
    if facts.record["status"] != "completed":
        failed = next((step.node for step in facts.steps if step.status == "failed"), None)
        look = [(f"Read what {failed} said; its log stays on the premises:", f"edgeml runs show {facts.run}")]
        return (look if failed else []) + [("Run it again; finished steps are reused:", _again(facts))]
    if not facts.released:
        return [("Name the output of release_artifacts `release` in the pipeline, then run again:", _again(facts))]
    if facts.versions:
        version = facts.versions[-1]
        if "champion" in version.aliases:
            return [(f"{version} is the champion. Train against it from now on:", _again(facts))]
        return [("Make it the champion that later runs must beat:", f"edgeml models alias {version} champion")]
    if facts.promote:
        return [("Register the model:", f"edgeml register {facts.run}")]
    return [
        ("Improve the model and run again:", _again(facts)),
        ("Or register it all the same; your reason is recorded:", f"edgeml register {facts.run} --override 'REASON'"),
    ]


def _versions(sha256: str) -> list[Version]:
    from edgeml import registry

    try:
        return [version for version in registry.versions() if version.sha256 == sha256]
    except EdgemlError:  # a registry out of reach does not keep a report from being written
        return []


def _step(step: dict[str, Any]) -> Step:
    zones = {output["zone"] for output in (step.get("outputs") or {}).values()}
    return Step(
        str(step["node"]),
        str(step["status"]),
        float(step.get("started") or 0),
        float(step.get("seconds") or 0),
        step.get("exit_code"),
        tuple(map(str, step.get("needs") or ())),
        "cloud" if "cloud" in zones else "edge",
    )


def _stopped(facts: Facts) -> str:
    failed = [step for step in facts.steps if step.status == "failed"]
    after = sum(step.status in ("skipped", "cancelled") for step in facts.steps)
    if not failed:
        return f"The run did not finish ({facts.record['status']})."
    code = "" if failed[0].exit_code is None else f" with exit code {failed[0].exit_code}"
    sentence = f"{failed[0].node} failed{code} after {duration(failed[0].seconds)}."
    return sentence + (f" {_counted(after, 'step')} did not run." if after else "")


def _comparison(facts: Facts) -> str:
    if facts.champion is None:
        return "There is no champion to compare it with."
    difference = facts.champion.get("difference")
    if not difference:
        return "It was not compared with the champion."
    low, high = difference["low"], difference["high"]
    sign = -1 if difference["metric"] in LOWER_IS_BETTER else 1
    better, worse = (low > 0, high < 0) if sign > 0 else (high < 0, low > 0)
    word = "better than" if better else "worse than" if worse else "not clearly different from"
    name = metric_name(difference["metric"])
    return f"It is {word} the champion: difference in {name} {signed(difference)}."


def signed(difference: dict[str, Any]) -> str:
    value, low, high = (f"{difference[key]:+.4f}".replace("-", "−") for key in ("value", "low", "high"))
    return f"{value} [{low}, {high}]"


def _again(facts: Facts) -> str:
    return f"edgeml run {facts.record.get('pipeline') or 'pipelines/train.yml'}"


def _counted(number: int, noun: str) -> str:
    return f"{number} {noun}" + ("" if number == 1 else "s")


def lineage(facts: Facts) -> list[tuple[str, str, str]]:
    """Where the model comes from: what, its identity, and a remark."""
    git = facts.record.get("git") or {}
    commit = str(git.get("commit") or "not in Git")
    rows = [
        ("Run", facts.run, f"{facts.record['status']} in {duration(float(facts.record['seconds']))}"),
        ("Commit", commit, "with uncommitted changes" if git.get("dirty") else ""),
        (
            "Pipeline",
            str(facts.record.get("pipeline_digest") or "").removeprefix("sha256:"),
            str(facts.record.get("pipeline") or ""),
        ),
    ]
    if not facts.released:
        return rows
    document = facts.documents["lineage.json"]
    data, contract = document["data"], document["contract"]
    named = ", ".join(str(v) + "".join(f" @{alias}" for alias in v.aliases) for v in facts.versions)
    return [
        ("Model", facts.sha256, named or "not registered"),
        ("Data", str(data["fingerprint"]).removeprefix("sha256:"), f"{data['rows']:,} rows, {data['bytes']:,} bytes"),
        ("Contract", str(contract["sha256"]), f"{contract['name']}, version {contract['version']}"),
        *rows,
    ]
