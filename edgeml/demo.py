"""The whole loop on one machine: private rows in a container, a pipeline over them, a registered model, a report."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NamedTuple

from edgeml import project
from edgeml.errors import EdgemlError

if TYPE_CHECKING:
    from edgeml.pipeline import Graph
    from edgeml.registry import Version

PIPELINE = "pipelines/train.yml"
PREFIX = "patients/"
# Whatever a team's settings name: on this machine the demo neither asks nor changes anything of theirs. Sample rows do
# not belong into a container of patients, and a pull request's check has no credential for it.
HERE = {
    "EDGEML_STORAGE_ACCOUNT_URL": "",
    "EDGEML_STORAGE_ACCOUNT_NAME": "",
    "EDGEML_STORAGE_ACCOUNT_KEY": "",
    "EDGEML_STORAGE_SAS_TOKEN": "",
    "EDGEML_STORAGE_CA_BUNDLE": "",
    "EDGEML_REGISTRY_TRACKING_URI": "",
    "EDGEML_REGISTRY_TO": "local",
}


class Score(NamedTuple):
    """One answer over HTTP: what served the model, the file with the request, the model's folder, the prediction."""

    served_by: str
    request: str
    model: str
    answer: dict[str, Any]


class Demo(NamedTuple):
    """What the loop left behind: seconds by stage, the run's record and folder, the model, the report's page.

    `image` is the image's reference; empty where none could be made on this machine.
    """

    seconds: dict[str, float]
    record: dict[str, Any]
    run: str
    model: str
    created: bool
    metrics: dict[str, dict[str, float]]
    report: str
    image: str
    score: Score


def loop(say: Callable[[str], None], target: str = "") -> Demo:
    """Storage, sample rows, training, registration and report, each only as far as something changed.

    `say` hears one line a stage. The pipeline runs here, or on the edge VM that is the `target`. Raises EdgemlError,
    exit code 1, where a step failed.
    """
    from edgeml import registry, storage
    from edgeml.engine import runs
    from edgeml.pipeline import resolve

    os.chdir(project.root())
    if not os.path.isfile(PIPELINE):
        raise EdgemlError(f"there is no {PIPELINE} here; call `edgeml demo` inside the repository")
    if target:
        from edgeml.edge import executor

        executor.target_of(target)
    else:
        os.environ.update(HERE)
    seconds: dict[str, float] = {}
    champion = _champion()
    graph = resolve(PIPELINE, champion)
    with _tracking_store(graph.experiment), _timed(seconds, "storage"), storage.session() as environment:
        say("private storage is up at " + environment["EDGEML_STORAGE_ACCOUNT_URL"])
        with _timed(seconds, "data"):
            say(_push_sample(environment))
        with _timed(seconds, "run"):
            path = _there(target, champion, say) if target else _here(graph, say)
    seconds["storage"] -= seconds["data"] + seconds["run"]
    with _timed(seconds, "register"):
        version, created = registry.register(path)
    with _timed(seconds, "package"):
        reference = _package(str(version), say)
    with _timed(seconds, "score"):
        score = _score(version, reference)
    with _timed(seconds, "report"):
        from edgeml import report

        page = report.write(path)
    release = os.path.join(path, "outputs", "release")
    record = runs.find("", path).record
    return Demo(seconds, record, path, str(version), created, _metrics(release), str(page), reference, score)


def _here(graph: Graph, say: Callable[[str], None]) -> str:
    """Run the pipeline on this machine; returns the run's folder."""
    from edgeml.commands.run import explain_failures, run
    from edgeml.engine.sandbox import bwrap

    say(f"running {PIPELINE}")
    result = run(graph, unprotected=bwrap.missing())  # the rows are public samples: the demo goes on without
    if result.status != "completed":
        explain_failures(result)
        raise EdgemlError("the pipeline failed, see above; mend the step and run `make demo` again", 1)
    return result.path


def _there(target: str, inputs: dict[str, str], say: Callable[[str], None]) -> str:
    """Run the pipeline on an edge VM and report it to the tracking store; returns the fetched run's folder."""
    from edgeml import settings
    from edgeml.edge import executor
    from edgeml.edge.report import report

    job = executor.job_name(PIPELINE, inputs)
    submitted = executor.submit(target, PIPELINE, job, inputs, say)
    say(f"{PIPELINE} runs on {target} as {job}" + (", as before" if submitted.attached else ""))
    finished = executor.follow(target, job, say)
    if finished.state != "completed":
        for step, why in finished.failures.items():
            say(f"edgeml: {step + ': ' if step else ''}{why}")
        raise EdgemlError(f"job {job} is {finished.state} on {target}; mend what is named above and run it again", 1)
    # A fork writes the key of its gate into the settings; here it is taken as the pinned connection tells it.
    keys = [*settings.load().airlock.public_keys, executor.gate_key(target)]
    os.environ["EDGEML_AIRLOCK_PUBLIC_KEYS"] = json.dumps(keys)
    path = executor.fetch(target, job)
    report(path, settings.tracking_uri(settings.load()))
    return path


def _push_sample(environment: dict[str, str]) -> str:
    from edgeml import settings
    from edgeml.storage import blob_client, sample, transfer

    folder = project.state() / "sample"
    if not folder.is_dir():
        unfinished = folder.with_name("sample.unfinished")
        sample.write(unfinished)
        unfinished.rename(folder)
    container = settings.load().storage.container
    with blob_client.container(container, environment) as client:
        done = transfer.push(client, transfer.sources([folder], PREFIX))
    return f"sample rows lie in {container}/{PREFIX}: {len(done.moved)} blobs pushed, {len(done.skipped)} there already"


def _package(model: str, say: Callable[[str], None]) -> str:
    """The reference of the model's image; where this machine cannot make one, it is said why, and the demo goes on."""
    from edgeml import image

    try:
        return image.package(model, push=False, say=say).reference
    except EdgemlError as error:
        say(f"no image of {model}: {error}")
        return ""


def _score(version: Version, reference: str) -> Score:
    """Serve the model for a moment and let it answer for one made-up row."""
    import json
    import socket
    from urllib.request import Request, urlopen

    from edgeml import registry
    from edgeml.image import golden, packaging, runtime

    folder = registry.path(version)
    documents = {}
    for name in ("signature", "lineage"):
        with open(os.path.join(folder, f"{name}.json"), encoding="utf-8") as stream:
            documents[name] = json.load(stream)
    row = golden.made_up(documents["signature"], documents["lineage"], version.sha256)[0]
    request = str(project.state() / "request.json")
    with open(request, "w", encoding="utf-8") as stream:
        json.dump({"input_data": [row]}, stream, indent=1)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    run = runtime.image(packaging.layout(), reference.rpartition("@")[2]) if reference else None
    with runtime.serving(run, folder, version.name, port) as served_by, open(request, "rb") as body:
        asked = Request(f"http://127.0.0.1:{port}/score", body.read(), {"Content-Type": "application/json"})
        with urlopen(asked, timeout=30) as answer:  # noqa: S310
            return Score(served_by, request, folder, json.load(answer))


def _champion() -> dict[str, str]:
    """The pipeline's input for the champion, where the registry names one."""
    from edgeml import registry, settings

    name = settings.load().registry.model
    for version in registry.versions(name):
        if registry.CHAMPION in version.aliases:
            return {"champion": registry.path(version)}
    return {}


def _metrics(release: str) -> dict[str, dict[str, float]]:
    with open(os.path.join(release, "metrics.json"), encoding="utf-8") as stream:
        metrics: dict[str, dict[str, float]] = json.load(stream)["metrics"]
    return metrics


@contextmanager
def _tracking_store(experiment: str) -> Iterator[None]:
    """Make MLflow's store beside the other work: its migrations take seconds, once."""
    command = [
        sys.executable,
        "-c",
        "import sys; from edgeml import registry; registry.prepare(sys.argv[1])",
        experiment,
    ]
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        yield
    except BaseException:
        process.terminate()
        raise
    finally:
        process.wait()


@contextmanager
def _timed(seconds: dict[str, float], stage: str) -> Iterator[None]:
    began = time.perf_counter()
    yield
    seconds[stage] = time.perf_counter() - began
