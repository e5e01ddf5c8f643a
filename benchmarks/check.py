"""`edgeml check`: how long it takes, and what it finds beside azure-ai-ml's offline validation.

usage: python benchmarks/check.py     (called by `make bench-check`)

Times are of whole processes as a user starts them. The generated repository has 200 components and 50 pipelines of
ten nodes. The SDK is asked what it says offline about every tree of tests/corpus/bad: whatever stops it while it
loads counts as found, and so does every message of its validation but the one that no compute is named.
"""

from __future__ import annotations

import logging
import os
import statistics
import sys
import tempfile
import warnings
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

from measured import checkout, edgeml, measure, plain_environment, say

ROOT = Path(__file__).resolve().parent.parent
COMPONENTS, PIPELINES, NODES = 200, 50, 10
TURNS = 7
_SDK_LOAD = (
    "import logging, sys; logging.disable(logging.CRITICAL); from azure.ai.ml import load_job; "
    "job = load_job(sys.argv[1]); job._validate()"
)


def main() -> int:
    print(timings())
    print()
    print(comparison())
    return 0


# ---- how long ----


def timings() -> str:
    script = edgeml()
    with tempfile.TemporaryDirectory() as temporary:
        large = Path(temporary) / "large"
        generate(large)
        pipeline = str(ROOT / "pipelines/train.yml")
        rows = [
            ("the repository itself", [script, "check"], ROOT, "below 0.6 s"),
            ("one pipeline and its components", [script, "check", pipeline], ROOT, "below 0.15 s"),
            (
                f"{COMPONENTS} components and {PIPELINES} pipelines",
                [script, "check"],
                large,
                "below 5 s and 300 MB",
            ),
            (
                "azure-ai-ml: import, load and validate one pipeline",
                [sys.executable, "-c", _SDK_LOAD, pipeline],
                ROOT,
                "",
            ),
        ]
        lines = ["| checked, in a new process | s | peak MB | goal |", "|---|---:|---:|---|"]
        for name, command, folder, goal in rows:
            say(name)
            environment = plain_environment(HOME=temporary, **checkout())
            turns = [measure(command, folder, environment, Path(temporary) / "log") for _ in range(TURNS)]
            seconds = statistics.median(turn.seconds for turn in turns)
            peak = max(turn.peak for turn in turns)
            lines.append(f"| {name} | {seconds:.2f} | {peak:.0f} | {goal} |")
    return "\n".join(lines)


def generate(root: Path) -> None:
    """A repository of many components, each with a script of its own, and of pipelines that chain ten of them."""
    (root / "edgeml.toml").parent.mkdir(parents=True)
    (root / "edgeml.toml").write_text("")
    for number in range(COMPONENTS):
        folder = root / "components" / f"step_{number}"
        folder.mkdir(parents=True)
        (folder / "step.py").write_text(_SCRIPT)
        (folder / "component.yml").write_text(_COMPONENT.replace("NAME", f"step_{number}"))
    (root / "pipelines").mkdir()
    for number in range(PIPELINES):
        (root / "pipelines" / f"pipeline_{number}.yml").write_text(_pipeline(number))


_SCHEMA = "$schema: https://azuremlschemas.azureedge.net/latest"
_NUMBERS = ("alpha", "beta", "gamma", "delta")
_SCRIPT = (
    "import argparse\n\nparser = argparse.ArgumentParser()\n"
    + "".join(f'parser.add_argument("--{name}")\n' for name in ("rows", *_NUMBERS, "made"))
    + "arguments = parser.parse_args()\n"
)
_COMPONENT = (
    f"{_SCHEMA}/commandComponent.schema.json\ntype: command\nname: NAME\nversion: '1'\ninputs:\n"
    "  rows:\n    type: uri_folder\n    description: what the step reads\n"
    + "".join(f"  {name}:\n    type: number\n    default: 0.5\n    min: 0\n    max: 1\n" for name in _NUMBERS)
    + "outputs:\n  made:\n    type: uri_folder\ncode: .\nenvironment: azureml:training:1\n"
    "command: >-\n  python step.py\n"
    + "".join(f"  --{name} ${{{{inputs.{name}}}}}\n" for name in ("rows", *_NUMBERS))
    + "  --made ${{outputs.made}}\n"
)


def _pipeline(number: int) -> str:
    lines = [f"{_SCHEMA}/pipelineJob.schema.json", "type: pipeline", "inputs:", "  rows:", "    type: uri_folder"]
    lines += ["    path: azureml:rows:1", *(f"  {name}: 0.25" for name in _NUMBERS), "jobs:"]
    for node in range(NODES):
        rows = f"parent.jobs.node_{node - 1}.outputs.made" if node else "parent.inputs.rows"
        component = (number * 7 + node * 13) % COMPONENTS
        lines += [
            f"  node_{node}:",
            "    type: command",
            f"    component: ../components/step_{component}/component.yml",
        ]
        lines += ["    inputs:", f"      rows: ${{{{{rows}}}}}"]
        lines += [f"      {name}: ${{{{parent.inputs.{name}}}}}" for name in _NUMBERS]
    return "\n".join(lines) + "\n"


# ---- what is found ----


def comparison() -> str:
    """By rule of the format: how many of its bad trees each of the two says anything about."""
    from edgeml.check import bindings, check, document, format, ports, schemas, sweeps

    rules = (*document.RULES, *format.RULES, *schemas.RULES, *ports.RULES, *bindings.RULES, *sweeps.RULES)
    trees: dict[str, list[Path]] = defaultdict(list)
    for tree in sorted((ROOT / "tests/corpus/bad").iterdir()):
        named = [rule.id for rule in rules if tree.name == rule.id or tree.name.startswith(f"{rule.id}-")]
        if named:
            trees[max(named, key=len)].append(tree)
    lines = ["| rule | trees | edgeml check | azure-ai-ml, offline |", "|---|---:|---:|---:|"]
    totals = [0, 0, 0]
    for rule in rules:
        mine = [_ours(tree, check) for tree in trees[rule.id]]
        theirs = [_theirs(tree) for tree in trees[rule.id]]
        row = [len(mine), sum(mine), sum(theirs)]
        totals = [total + one for total, one in zip(totals, row, strict=True)]
        lines.append(f"| `{rule.id}` | {row[0]} | {row[1]} | {row[2]} |")
    lines.append(f"| all | {totals[0]} | {totals[1]} | {totals[2]} |")
    good = [tree for tree in sorted((ROOT / "tests/corpus/good").iterdir()) if _is_ours(tree)]
    false = [sum(_ours(tree, check) for tree in good), sum(_theirs(tree) for tree in good)]
    lines.append(f"| good trees, called bad | {len(good)} | {false[0]} | {false[1]} |")
    return "\n".join(lines)


def _is_ours(tree: Path) -> bool:
    return not (tree / "contracts").exists() and not (tree / ".github").exists()


def _ours(tree: Path, check: Callable[[list[str]], list[Any]]) -> bool:
    os.chdir(tree)
    return bool(check(["."]))


def _theirs(tree: Path) -> bool:
    return any(_sdk_says(path) for path in sorted(tree.rglob("*.yml")))


def _sdk_says(path: Path) -> list[str]:
    """What the SDK says against a file, loaded as what it is."""
    from azure.ai import ml

    kind = _kind(path)
    if not kind:
        return []
    loaders: dict[str, Callable[..., Any]] = {
        "job": ml.load_job,
        "component": ml.load_component,
        "environment": ml.load_environment,
        "data": ml.load_data,
        "compute": ml.load_compute,
        "datastore": ml.load_datastore,
    }
    logging.disable(logging.CRITICAL)
    warnings.simplefilter("ignore")
    try:
        made = loaders[kind](path)
        # The SDK has no validation beyond its schema for the other kinds, nor for a sweep by itself.
        validate = getattr(made, "_validate", None)
        errors = validate().error_messages if validate is not None and made.type != "sweep" else {}
    except Exception as error:  # whatever stops the SDK, refusing or stumbling
        return [str(error)]
    return [str(what) for where, what in errors.items() if not where.endswith("compute")]


def _kind(path: Path) -> str:
    """Which of the SDK's loaders a file is for; empty where it is nothing of Azure ML's."""
    from edgeml.check import kinds
    from edgeml.check.document import read

    kind = kinds.kind_of(read(str(path))[0])
    if kind is None:
        return "" if "azureml" not in path.read_text(errors="replace") else "job"
    name = kind.name
    for word, loader in (("component", "component"), ("environment", "environment"), ("data asset", "data")):
        if word in name:
            return loader
    return "datastore" if "datastore" in name else "job" if "job" in name else "compute"


if __name__ == "__main__":
    sys.exit(main())
