"""Rules of sweeps: what is varied, and what is asked for as the best."""

from __future__ import annotations

import ast
import os
import re
from collections.abc import Iterator

from edgeml.check.context import Context
from edgeml.check.document import Document
from edgeml.check.finding import ERROR, WARNING, Finding, Rule, found
from edgeml.check.placed import place_of
from edgeml.pipeline import load
from edgeml.pipeline.graph import Component
from edgeml.pipeline.source import at


def _sweep(objective: str, name: str = "rate", space: str = "{type: uniform, min_value: 0, max_value: 1}") -> str:
    return (
        "# --- pipeline.yml\ntype: pipeline\njobs:\n  tune:\n    type: sweep\n    trial: ./trial.yml\n"
        f"    search_space: {{{name}: {space}}}\n    objective: {objective}\n"
        "    limits: {max_total_trials: 4}\n"
        "# --- trial.yml\ntype: command\nname: trial\nversion: 1\nenvironment: azureml:e:1\n"
        "inputs: {rate: {type: number, default: 0.1}}\ncode: ./src\n"
        "command: python train.py --rate ${{inputs.rate}}\n"
        "# --- src/train.py\nimport argparse\n\nimport mlflow\n\nparser = argparse.ArgumentParser()\n"
        'parser.add_argument("--rate", type=float)\nmlflow.log_metric("test_f1", parser.parse_args().rate)\n'
    )


_BEST = "{goal: maximize, primary_metric: test_f1}"
SEARCH_SPACE = Rule(
    "search-space",
    ERROR,
    "A sweep varies inputs of its trial, by distributions that its sampling takes",
    "What the trial does not declare is never passed to it: every trial would be the same.",
    _sweep(_BEST, "rte"),
    _sweep(_BEST),
)
GOAL = Rule(
    "sweep-goal",
    WARNING,
    "The goal of a sweep is the direction in which its metric is better",
    "A sweep that minimises an F1 score ends without an error, with the worst model.",
    _sweep("{goal: minimize, primary_metric: test_f1}"),
    _sweep(_BEST),
)
METRIC = Rule(
    "sweep-metric",
    WARNING,
    "The trial logs the metric that the sweep looks at",
    "Without it no trial counts. Only names that stand in the trial's scripts are compared; where one is computed, "
    "or logged by MLflow itself, nothing is said.",
    _sweep("{goal: maximize, primary_metric: f1}"),
    _sweep(_BEST),
)
RULES = (SEARCH_SPACE, GOAL, METRIC)

_HIGHER = re.compile(
    r"accuracy|acc|auc|auroc|aucpr|f1|precision|recall|r2|iou|dice|ndcg|kappa|mcc|bleu|rouge|psnr|ssim|reward"
    r"|sensitivity|specificity"
)
_LOWER = re.compile(
    r"loss|logloss|error|err|rmse|mse|mae|mape|smape|rmsle|perplexity|wer|cer|hinge|deviance|mlogloss|brier"
)
_UNDECIDED = frozenset({"neg", "negative", "inverse", "minus", "gap", "std", "variance"})
_WORDS = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+\d*|\d+")
_MAX_FILES, _MAX_BYTES = 100, 1 << 20


def check(document: Document, context: Context) -> Iterator[Finding]:
    survey = context.survey(document.path)
    for name, step in survey.steps.items():
        if step.sweep is None:
            continue
        scope, job = survey.owners[name]
        objective = load.section(scope.jobs[job], "objective")
        metric, goal = step.sweep.metric, step.sweep.goal
        written = objective.get("primary_metric")
        if not isinstance(written, str) or "${{" in written:
            continue
        better = direction(metric)
        if better and goal in ("minimize", "maximize") and better != goal:
            message = f"the goal is to {goal} '{metric}', which is better the other way; the goal should be {better}"
            yield found(GOAL, place_of(at(objective, "goal", message)), message)
        logged = metrics_of(step.component)
        if logged and metric not in logged:
            message = f"the trial logs {', '.join(sorted(logged))}, but not '{metric}'; log it, or name one of them"
            yield found(METRIC, place_of(at(objective, "primary_metric", message)), message)


def direction(metric: str) -> str:
    """`maximize` or `minimize` where the metric's name says which is better; empty where it does not."""
    words = [word.lower() for word in _WORDS.findall(metric)]
    named = {*words, *(word.rstrip("0123456789") for word in words)}
    higher, lower = any(map(_HIGHER.fullmatch, named)), any(map(_LOWER.fullmatch, named))
    if higher == lower or named & _UNDECIDED:
        return ""
    return "maximize" if higher else "minimize"


def metrics_of(component: Component) -> set[str]:
    """The names of the metrics that a component's scripts log; empty where not all can be known."""
    names: set[str] = set()
    for path in _scripts(component):
        try:
            with open(path, encoding="utf-8") as stream:
                tree = ast.parse(stream.read(_MAX_BYTES))
        except (OSError, ValueError, SyntaxError, RecursionError, MemoryError):
            return set()
        for node in ast.walk(tree):
            if isinstance(node, ast.Call):
                logged = _logged(node)
                if logged is None:
                    return set()
                names |= logged
    return names


def _logged(call: ast.Call) -> set[str] | None:
    """The metrics that a call logs; None where their names cannot be known."""
    called = call.func.attr if isinstance(call.func, ast.Attribute) else getattr(call.func, "id", "")
    if called.endswith("autolog") or called in ("log_batch", "evaluate_and_log"):
        return None
    if called == "log_metric":
        named = call.args[0] if call.args else next((word.value for word in call.keywords if word.arg == "key"), None)
        return {named.value} if isinstance(named, ast.Constant) and isinstance(named.value, str) else None
    if called == "log_metrics":
        given = call.args[0] if call.args else None
        if not isinstance(given, ast.Dict):
            return None
        keys = [key.value for key in given.keys if isinstance(key, ast.Constant) and isinstance(key.value, str)]
        return set(keys) if len(keys) == len(given.keys) else None
    return set()


def _scripts(component: Component) -> list[str]:
    found = []
    for root in filter(None, (component.code, *component.includes)):
        if os.path.isfile(root):
            found.append(root)
        for folder, folders, names in os.walk(root):
            folders[:] = sorted(name for name in folders if not name.startswith("."))
            found += [os.path.join(folder, name) for name in sorted(names)]
            if len(found) > _MAX_FILES:
                return []
    return [path for path in found if path.endswith(".py")]
