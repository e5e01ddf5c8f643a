"""`edgeml run`: an Azure ML pipeline, unedited, on this machine."""

from __future__ import annotations

import json
import os
import sys
from contextlib import ExitStack
from typing import TYPE_CHECKING

from edgeml import policy, project
from edgeml.errors import EdgemlError

if TYPE_CHECKING:
    import argparse
    from collections.abc import Mapping

    from edgeml.engine.environment import Sandbox
    from edgeml.engine.run import Result
    from edgeml.pipeline import Graph

_AIRLOCK, _AIRLOCK_KEY = "EDGEML_AIRLOCK_STATE", "EDGEML_AIRLOCK_KEY"
_ENVIRONMENTS = ("local", "conda", "docker")
HELP = "Run an Azure ML v2 pipeline on this machine: the very file that Azure ML would be sent."
EXAMPLES = [
    "edgeml run pipelines/train.yml",
    "edgeml run pipelines/train.yml --input seed=7 --output-dir out",
    "edgeml run pipelines/train.yml --dry-run        # what would run, with every binding resolved",
    "edgeml run pipeline.yml --map azureml:cars@latest=data/cars.csv",
    "edgeml run pipeline.yml --env docker            # each step in a container of its declared environment",
    "edgeml run pipeline.yml --json | jq .outputs",
]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("pipeline", help="YAML file of a pipeline job (or of a single command job)")
    add = parser.add_argument
    add("--input", action="append", default=[], metavar="NAME=VALUE", help="set an input of the pipeline; repeatable")
    add(
        "--map",
        action="append",
        default=[],
        metavar="REF=PATH",
        help="local source of a remote reference (of an environment also an image); repeatable",
    )
    add(
        "--env",
        choices=_ENVIRONMENTS,
        default="local",
        help="where steps run: in this Python, or in what they declare (default: %(default)s)",
    )
    add("--output-dir", default="", metavar="DIR", help="the run's folder (default: .edgeml/runs/NAME)")
    add("--jobs", type=int, default=0, metavar="N", help="steps at once (default: the number of processors)")
    add(
        "--no-sandbox",
        action="store_true",
        help="run private steps without a sandbox: they reach the network; the run's record says so",
    )
    add("--force", action="store_true", help="run every step, also those whose outputs could be reused")
    add("--dry-run", action="store_true", help="print the resolved graph and run nothing")
    add("--no-check", action="store_true", help="run in spite of what `edgeml check` would call an error")
    add("--python", default="", metavar="PATH", help="interpreter of the steps (default: this one)")
    add("--json", action="store_true", help="print the run's record (or the graph) as JSON")


def execute(args: argparse.Namespace) -> int:
    from edgeml.pipeline import resolve

    if args.jobs < 0:
        raise EdgemlError(f"--jobs {args.jobs}: give the number of steps that may run at once, 1 or more")
    if args.python and args.env != "local":
        raise EdgemlError(f"--python goes with --env local; with --env {args.env} a step's environment has its own")
    maps = pairs(args.map, "--map")
    graph = resolve(args.pipeline, pairs(args.input, "--input"), maps)
    for warning in graph.warnings:
        print(f"edgeml: {warning}", file=sys.stderr)
    if not args.no_check:
        _refuse_faulty(graph, dry=args.dry_run)
    if args.dry_run:
        _print_graph(graph, as_json=args.json)
        return 0
    if args.env == "local":
        _tell_of_unused(graph, args.python or "this Python")
    result = run(
        graph,
        output_dir=args.output_dir,
        force=args.force,
        jobs=args.jobs,
        python=args.python,
        env=args.env,
        maps=maps,
        unprotected="--no-sandbox" if args.no_sandbox else "",
    )
    for warning in result.record["warnings"][len(graph.warnings) :]:
        _say(warning)
    if args.json:
        print(json.dumps(result.record, indent=2))
    else:
        _print_result(result)
    return 0 if result.status == "completed" else 1


def run(
    graph: Graph,
    *,
    output_dir: str = "",
    force: bool = False,
    jobs: int = 0,
    python: str = "",
    env: str = "local",
    maps: Mapping[str, str] | None = None,
    unprotected: str = "",
) -> Result:
    """Run a graph with what the project provides: its storage where a component asks for it, its datastores' zones.

    `env` is where steps run, `maps` gives remote environments a local source. Private steps run in a sandbox,
    unless there is a reason to leave them `unprotected`. Raises EdgemlError where nothing could be started.
    """
    from edgeml.engine.progress import Progress
    from edgeml.engine.run import NEEDS_TAG, Options, check_tools
    from edgeml.engine.run import run as run_graph

    check_tools(graph, python)
    rules = policy.governing(graph.file)
    private = policy.private_steps(graph, rules)
    if private and not unprotected and env == "conda":
        raise EdgemlError(
            f"step '{min(private)}' is private, and --env conda has no sandbox; run with --env local or --env docker, "
            "or without protection, which the run's record will say (--no-sandbox)"
        )
    launcher = None
    confined: Sandbox | None = None
    if private and not unprotected and env == "local":
        from edgeml.engine.sandbox import bwrap

        confined = bwrap.prepare(_interpreter(python))
    if env != "local":
        from edgeml.engine import environment

        launcher = environment.prepare(env, graph, maps or {}, project.state_folder(), _say)
        if private and not unprotected:
            from edgeml.engine.sandbox import container

            confined = container.confined(launcher)
    if private and unprotected:
        steps = "private step runs" if len(private) == 1 else "private steps run"
        _say(f"{len(private)} {steps} without a sandbox ({unprotected})")
    asked = {need for step in graph.steps.values() for need in step.component.tags.get(NEEDS_TAG, "").split()}
    with ExitStack() as stack:
        provided = {}
        if "storage" in asked:
            from edgeml import storage

            stack.enter_context(storage.session())
            provided["storage"] = storage.step_environment()
        if "airlock" in asked:
            provided["airlock"] = _airlock(graph, rules)
        variables = {}
        if _uses_mlflow(graph):
            from edgeml import registry

            variables["MLFLOW_TRACKING_URI"] = registry.prepare(graph.experiment)
        if env == "docker":
            _tell_of_lost_metrics(variables)
        options = Options(
            state=project.state_folder(),
            output_dir=output_dir,
            force=force,
            jobs=jobs,
            python=_interpreter(python),
            edge_datastores=rules.private,
            provided=provided,
            variables=variables,
            launcher=launcher,
            private=private,
            sandbox=confined,
        )
        width = max(map(len, graph.steps))
        with Progress(len(graph.steps), width) as progress:
            return run_graph(graph, options, progress)


def _refuse_faulty(graph: Graph, *, dry: bool) -> None:
    """Raise EdgemlError for what `edgeml check` calls an error in the pipeline or in what it is made of."""
    from edgeml.check import before

    question = before.Question(graph, project.state_folder(), note=not dry)
    if not dry:
        from edgeml.engine import progress, run  # noqa: F401 - needed next, and had while the question is thought about
    found = question.answer()
    for finding in found:
        print(f"{finding.path}:{finding.line}:{finding.column} {finding.rule} {finding.message}", file=sys.stderr)
    if found:
        raise EdgemlError("the pipeline was not run: mend what is named above, or run it as it is with --no-check")


def _airlock(graph: Graph, rules: policy.Policy) -> dict[str, str]:
    """The way to the egress gate's folder, with its ledger, and to its key, which only release components get."""
    for step in graph.steps.values():
        if "airlock" in step.component.tags.get("edgeml.needs", "").split() and not policy.is_release(step, rules):
            raise EdgemlError(
                f"step '{step.name}' asks for the egress gate's folder, which only release components of the residency "
                "policy get; remove the tag edgeml.needs, or name the component in contracts/residency.yml"
            )
    folder = os.environ.get(_AIRLOCK) or os.path.join(project.state_folder(), "airlock")
    os.makedirs(folder, mode=0o700, exist_ok=True)
    key = os.environ.get(_AIRLOCK_KEY)
    return {_AIRLOCK: os.path.abspath(folder)} | ({_AIRLOCK_KEY: os.path.abspath(key)} if key else {})


def _tell_of_unused(graph: Graph, python: str) -> None:
    count = len({str(step.environment) for step in graph.steps.values() if step.environment})
    if count:
        which, them = ("environment is", "it") if count == 1 else ("environments are", "them")
        _say(f"steps run in {python}; {count} declared {which} not used (--env docker honours {them})")


def _tell_of_lost_metrics(variables: Mapping[str, str]) -> None:
    from edgeml.engine.docker import is_file_store

    if is_file_store(variables.get("MLFLOW_TRACKING_URI") or os.environ.get("MLFLOW_TRACKING_URI", "")):
        _say("containers do not reach the MLflow store, which is a file; set MLFLOW_TRACKING_URI to a server's address")


def _say(message: str) -> None:
    print(f"edgeml: {message}", file=sys.stderr, flush=True)


def _uses_mlflow(graph: Graph) -> bool:
    """Whether the MLflow store must be there before two steps race for it: for a sweep, or scripts that speak of it.

    Asked only where edgeml has MLflow itself; elsewhere the steps make their own store.
    """
    if os.environ.get("MLFLOW_TRACKING_URI"):
        return False
    if not any(step.sweep is not None for step in graph.steps.values()) and not _speaks_of_mlflow(graph):
        return False
    from importlib.util import find_spec

    return find_spec("mlflow") is not None


def _speaks_of_mlflow(graph: Graph) -> bool:
    folders = {step.component.code for step in graph.steps.values() if os.path.isdir(step.component.code)}
    for folder in folders:
        for name in os.listdir(folder):
            path = os.path.join(folder, name)
            if name.endswith(".py") and os.path.isfile(path):
                with open(path, "rb") as stream:
                    if b"mlflow" in stream.read():
                        return True
    return False


def pairs(given: list[str], flag: str) -> dict[str, str]:
    pairs = {}
    for item in given:
        # A reference may hold `=` (a SAS in a URL), a path hardly ever does.
        name, equals, value = item.rpartition("=") if flag == "--map" else item.partition("=")
        if not equals or not name:
            raise EdgemlError(f"{flag} {item}: write it as {'REF=PATH' if flag == '--map' else 'NAME=VALUE'}")
        pairs[name] = value
    return pairs


def _interpreter(python: str) -> str:
    if not python:
        return ""
    path = os.path.abspath(os.path.expanduser(python))
    if not os.access(path, os.X_OK) or os.path.isdir(path):
        raise EdgemlError(f"--python {python}: there is no such program; name a Python interpreter")
    return path


def _print_graph(graph: Graph, *, as_json: bool) -> None:
    from edgeml.pipeline.graph import describe, summary

    if as_json:
        print(json.dumps(describe(graph), indent=2, default=str))
        return
    print(f"{graph.name}  ({os.path.relpath(graph.file)}, {len(graph.steps)} steps)")
    for step in graph.steps.values():
        print(f"\n{step.name}")
        print(f"  component  {step.component.name}")
        for line in step.component.command.strip().splitlines():
            print(f"  command    {line.strip()}")
        for name, value in step.inputs.items():
            print(f"  input      {name} = {summary(value)}")
        for name, output in step.outputs.items():
            print(f"  output     {name} ({output.type or 'uri_folder'}){' → ' + output.uri if output.uri else ''}")


def _print_result(result: Result) -> None:
    explain_failures(result)
    where = os.path.relpath(result.path)
    count = {status: sum(s["status"] == status for s in result.record["steps"]) for status in _ORDER}
    told = ", ".join(f"{number} {status}" for status, number in count.items() if number)
    print(f"{result.status} in {result.record['seconds']:.2f} s: {told}")
    print(f"run  {where}")
    for name in result.record["outputs"]:
        print(f"output  {name}: {os.path.join(where, 'outputs', name)}")


def explain_failures(result: Result) -> None:
    """Print, for each step that failed, the cause, the last lines of its log, its command and where to look."""
    from edgeml.engine.step import tail

    for name, outcome in result.failures.items():
        print(f"\nedgeml: step '{name}' {outcome.message}", file=sys.stderr)
        log = os.path.join(result.path, "jobs", name, "log.txt")
        command = next(step["command"] for step in result.record["steps"] if step["node"] == name)
        for line in tail(log):
            print(f"  | {line}", file=sys.stderr)
        print("  command " + "\n          ".join(command.strip().splitlines()), file=sys.stderr)
        kept = os.path.join(result.path, "quarantine", name, "log.txt")
        print(f"  log     {os.path.relpath(kept if os.path.isfile(kept) else log)}", file=sys.stderr)
        work = os.path.join(result.path, "jobs", name, "work")
        if os.path.isdir(work):
            print(f"  folder  {os.path.relpath(work)}", file=sys.stderr)


_ORDER = ("completed", "cached", "failed", "skipped", "cancelled")
