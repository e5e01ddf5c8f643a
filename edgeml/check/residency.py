"""The residency rules: what a pipeline may write where, what may run it, and what may come after the release.

They hold only where the repository has a residency policy; its names decide.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import NamedTuple

from edgeml import policy as policies
from edgeml.check import kinds, local, places
from edgeml.check.context import Context
from edgeml.check.document import Document, scalar
from edgeml.check.finding import ERROR, Finding, Place, Rule, found
from edgeml.check.places import Written, value
from edgeml.pipeline import Graph, PipelineError, Step, expressions, load
from edgeml.pipeline.graph import Data, data_of, datastore_of, sources_of
from edgeml.pipeline.libyaml import yaml
from edgeml.pipeline.resolve import ARTIFACTS
from edgeml.policy import POLICY_FILE, Policy

_POLICY = (
    f"# --- {POLICY_FILE}\nprivate: [stackhub]\ncloud: [lake]\nrelease: [release_artifacts]\ncomputes: [edge-vm]\n"
)
_SETTINGS = "settings: {default_datastore: azureml:stackhub, default_compute: azureml:edge-vm}\n"
_RELEASE = """# --- components/release_artifacts/component.yml
type: command
name: release_artifacts
version: 1
inputs: {model: {type: uri_file}}
outputs: {release: {type: uri_file}}
command: cp ${{inputs.model}} ${{outputs.release}}
"""


def _example(pipeline: str, *, release: bool = False, settings: str = _SETTINGS) -> str:
    tree = _POLICY + (_RELEASE if release else "")
    return f"{tree}# --- pipelines/train.yml\ntype: pipeline\n{settings}{pipeline}"


def _train(output: str) -> str:
    return f"jobs:\n  train:\n    command: echo > ${{{{outputs.model}}}}\n    outputs: {{model: {output}}}\n"


POLICY = Rule(
    "residency-policy",
    ERROR,
    "The residency policy is understood",
    "A policy that is not understood allows nothing, so `edgeml run` and every residency rule stop at it.",
    f"# --- {POLICY_FILE}\nprivate: [stackhub]\nclouds: [lake]\n",
    f"# --- {POLICY_FILE}\nprivate: [stackhub]\ncloud: [lake]\n",
)
OUTSIDE = Rule(
    "output-outside",
    ERROR,
    "Every output lies in a private datastore, except what a release component lets out",
    "An output without a datastore goes to the workspace's own storage, in the cloud, without a word; one that is "
    "bound to a cloud datastore goes around the egress gate.",
    _example(_train("{type: uri_file, path: azureml://datastores/lake/paths/model}")),
    _example(_train("{type: uri_file}")),
)
REGISTERED = Rule(
    "output-registered",
    ERROR,
    "Only the output of a release component is registered under a name",
    "A name on an output makes a data asset or a model of it in the workspace, in the cloud, before any gate has "
    "looked at it.",
    _example(
        _train("{type: custom_model, name: patients}")
        .replace("echo >", "touch")
        .replace("outputs.model", "outputs.model")
    ),
    _example(_train("{type: custom_model}").replace("echo >", "touch")),
)
CHANGED = Rule(
    "release-changed",
    ERROR,
    "A release component runs as its file says",
    "A node that gives the gate another environment or variables decides what the gate is.",
    _example(
        "jobs:\n  let_out:\n    component: ../components/release_artifacts/component.yml\n"
        "    environment_variables: {PYTHONPATH: /tmp}\n"
        "    inputs: {model: {type: uri_file, path: azureml://datastores/stackhub/paths/model}}\n",
        release=True,
    ),
    _example(
        "jobs:\n  let_out:\n    component: ../components/release_artifacts/component.yml\n"
        "    inputs: {model: {type: uri_file, path: azureml://datastores/stackhub/paths/model}}\n",
        release=True,
    ),
)
_AFTER = """jobs:
  let_out:
    component: ../components/release_artifacts/component.yml
    inputs: {model: {type: uri_file, path: azureml://datastores/stackhub/paths/model}}
    outputs: {release: {type: uri_file, path: azureml://datastores/lake/paths/release}}
  report:
    command: cat ${{inputs.release}} ${{inputs.rows}}
    inputs:
      release: ${{parent.jobs.let_out.outputs.release}}
"""
AFTER = Rule(
    "private-after-release",
    ERROR,
    "No step after a release reads private data",
    "What is released is meant to go on in the cloud. A step that joins it with private rows again makes something "
    "that no gate has seen.",
    _example(_AFTER + "      rows: {type: uri_file, path: azureml://datastores/stackhub/paths/rows}\n", release=True),
    _example(_AFTER + "      rows: {type: uri_file, path: azureml://datastores/lake/paths/words}\n", release=True),
)
LOCAL = Rule(
    "local-data",
    ERROR,
    "Only small configuration is given from local files",
    "Azure ML's client uploads a local input, data asset or model to the workspace's storage in the cloud. A "
    f"configuration is {local.WHAT}, within the repository.",
    _example(
        "inputs:\n  rows: {type: uri_file, path: ../rows.csv}\njobs:\n  train:\n    command: cat ${{inputs.rows}}\n"
        "    inputs: {rows: '${{parent.inputs.rows}}'}\n"
    )
    + "# --- rows.csv\nage,ill\n37,1\n",
    _example(
        "inputs:\n  rows: {type: uri_file, path: azureml://datastores/stackhub/paths/rows}\njobs:\n  train:\n"
        "    command: cat ${{inputs.rows}}\n    inputs: {rows: '${{parent.inputs.rows}}'}\n"
    ),
)
DATASTORE = Rule(
    "unknown-datastore",
    ERROR,
    "Every datastore is one that the policy names, and a private one is not in Azure",
    "Where an unknown datastore lies nobody has decided. A datastore without an `endpoint` lies in Azure's public "
    "cloud, whatever its name.",
    f"{_POLICY}# --- infra/stackhub.yml\n$schema: https://azuremlschemas.azureedge.net/latest/azureBlob.schema.json\n"
    "name: stackhub\ntype: azure_blob\naccount_name: account\ncontainer_name: private\n",
    f"{_POLICY}# --- infra/stackhub.yml\n$schema: https://azuremlschemas.azureedge.net/latest/azureBlob.schema.json\n"
    "name: stackhub\ntype: azure_blob\naccount_name: account\ncontainer_name: private\nendpoint: site.example.org\n",
)
COMPUTE = Rule(
    "compute-outside",
    ERROR,
    "Every step runs on a compute that the policy names",
    "Where a step runs, there its inputs are read. A step without a compute runs on serverless compute, in the cloud.",
    _example(_train("{type: uri_file}"), settings=_SETTINGS.replace("edge-vm", "cpu-cluster")),
    _example(_train("{type: uri_file}")),
)
SERVICE = Rule(
    "job-service",
    ERROR,
    "No job opens a service",
    "`services` (ssh, Jupyter, VS Code, TensorBoard) open a way through the cloud to the machine beside the rows, past "
    "every check of what leaves.",
    _example(_train("{type: uri_file}") + "    services: {shell: {type: ssh}}\n"),
    _example(_train("{type: uri_file}")),
)
REGION = Rule(
    "region-outside",
    ERROR,
    "Workspaces, computes and jobs lie in regions that the policy names",
    "Metrics, models and logs lie where the workspace lies.",
    f"{_POLICY}regions: [westeurope]\n# --- infra/workspace.yml\n"
    "$schema: https://azuremlschemas.azureedge.net/latest/workspace.schema.json\nname: ml\nlocation: eastus\n",
    f"{_POLICY}regions: [westeurope]\n# --- infra/workspace.yml\n"
    "$schema: https://azuremlschemas.azureedge.net/latest/workspace.schema.json\nname: ml\nlocation: West Europe\n",
)
UNJUDGED = Rule(
    "unjudged-pipeline",
    ERROR,
    "A pipeline resolves, so that it can be judged",
    "What does not resolve is found by other rules. Where those are silenced, because a component lies in a registry "
    "for example, nobody would know where its outputs go.",
    _example("jobs:\n  a:\n    component: azureml:theirs:1  # edgeml: allow cannot-run, because it is in a registry\n"),
    _example("jobs:\n  a: {component: {command: echo, name: ours, version: 1}}\n"),
)
RULES = (POLICY, UNJUDGED, OUTSIDE, REGISTERED, CHANGED, AFTER, LOCAL, DATASTORE, COMPUTE, SERVICE, REGION)

_SHORT = "azureml://datastores/"
_JOBS = (kinds.PIPELINE_JOB, kinds.COMMAND_JOB, kinds.SWEEP_JOB)


class _Pipeline(NamedTuple):
    """One pipeline under one policy."""

    document: Document
    graph: Graph
    policy: Policy
    written: dict[str, Written]
    private: frozenset[str]

    def place(self, step: Step, *path: str) -> Place:
        found = self.written.get(step.name)
        return found.place(*path) if found is not None else self.line(step.line)

    def line(self, line: int) -> Place:
        return Place(self.document.path, max(line, 1), 1)


def check_policy(context: Context) -> Iterator[Finding]:
    """The finding of a policy that is not understood."""
    try:
        _ = context.policy
    except PipelineError as error:
        yield found(POLICY, Place(os.path.relpath(error.file), error.line or 1, 1), error.message)


def is_job(document: Document) -> bool:
    """Whether a document is something that can be submitted, whatever else it says that it is."""
    kind = kinds.kind_of(document)
    return ("jobs" in places.fields(document.root) and kind is not kinds.PIPELINE_COMPONENT) or kind in _JOBS


def unjudged(files: list[str], kept: list[Finding], context: Context) -> Iterator[Finding]:
    """The pipelines that do not resolve and of which no other finding says so any more, because it was silenced."""
    if not context.is_governed:
        return
    wrong = {finding.path for finding in kept if finding.severity == ERROR}
    for file in files:
        if file not in wrong and is_job(context.read(file)[0]):
            try:
                context.graph(file)
            except PipelineError as error:
                at = os.path.relpath(error.file or file)
                if at not in wrong:
                    message = f"the pipeline does not resolve, so nobody knows where its data go: {error.message}"
                    yield found(UNJUDGED, Place(at, error.line or 1, 1), message)


def check(document: Document, context: Context) -> Iterator[Finding]:
    """The findings of a job; none without a policy, nor where it does not resolve, which another rule says."""
    try:
        policy, graph = context.policy, context.graph(document.path)
    except PipelineError:
        yield from check_policy(context)
        return
    if not policy.file:
        return
    written = places.steps(document, graph, context)
    pipeline = _Pipeline(document, graph, policy, written, policies.private_steps(graph, policy))
    for step in graph.steps.values():
        for rule in (_outputs, _registered, _changed, _after, _inputs, _compute, _services):
            yield from rule(pipeline, step)
    yield from _unbound(pipeline)
    yield from _pipeline_inputs(pipeline)
    yield from _nested(pipeline)
    yield from _opened(document, document.root, policy)


# ---- where outputs lie ----


def _outputs(pipeline: _Pipeline, step: Step) -> Iterator[Finding]:
    policy, release = pipeline.policy, policies.is_release(step, pipeline.policy)
    allowed = policy.private | policy.cloud if release else policy.private
    for name, output in step.outputs.items():
        # `stackhub` alone is a path on the client's machine, and a longer reference names another workspace.
        if not output.uri or (output.uri.startswith(_SHORT) and datastore_of(output.uri) in allowed):
            continue
        place = places.output(pipeline.written.get(step.name), step, name, pipeline.graph)
        yield found(OUTSIDE, place, _why_outside(pipeline, step, name, output.uri, release=release))
    for key, given in step.inputs.items():
        for source in sources_of(given):
            if source.output == ARTIFACTS and ARTIFACTS not in pipeline.graph.steps[source.step].outputs:
                message = (
                    f"input '{key}' is what '{source.step}' writes to ./outputs, which Azure ML keeps with the run "
                    "and in no private datastore; declare an output instead"
                )
                yield found(OUTSIDE, pipeline.place(step, "inputs", key), message)


def _why_outside(pipeline: _Pipeline, step: Step, name: str, uri: str, *, release: bool) -> str:
    policy, datastore = pipeline.policy, datastore_of(uri)
    what = f"output '{name}' of '{step.name}' is bound to "
    private = f"azureml://datastores/{min(policy.private)}/paths/…"
    if _is_long(uri):
        return f"{what}a workspace that the policy does not know; write {private}"
    if not uri.startswith(_SHORT):
        return f"{what}an address that is no datastore; write {private}"
    if release:
        known = ", ".join(sorted(policy.private | policy.cloud))
        return f"{what}the datastore '{datastore}', which the policy does not name; a release may go to {known}"
    kind = "in the cloud" if datastore in policy.cloud else "not private"
    gates = " or ".join(f"components/{gate}/component.yml" for gate in sorted(policy.release))
    fix = f"; bind it to {private}" + (f", or let it out by {gates}" if gates else "")
    if step.component.name in policy.release:
        fix = f"; only {gates} may write there, not a step that is called so"
    return f"{what}the datastore '{datastore}', which is {kind}{fix}"


def _unbound(pipeline: _Pipeline) -> Iterator[Finding]:
    """Outputs without a datastore of their own, said once at the default datastore, which decides for all of them."""
    graph, policy, root = pipeline.graph, pipeline.policy, pipeline.document.root
    default = "" if _is_long(graph.default_datastore) else datastore_of(graph.default_datastore)
    loose = [
        f"'{name}' of '{step.name}'"
        for step in graph.steps.values()
        for name, output in step.outputs.items()
        if not output.uri and not (default in policy.cloud and policies.is_release(step, policy))
    ]
    if not loose or default in policy.private:
        return
    decides = value(root, "settings", "default_datastore") or value(root, "settings") or value(root, "outputs")
    place = pipeline.document.place(decides) if decides is not None else pipeline.line(1)
    which = f"output {loose[0]}" + (f" and {len(loose) - 1} more" if len(loose) > 1 else "")
    goes = "goes" if len(loose) == 1 else "go"
    if not graph.default_datastore:
        where = "to the workspace's own storage, in the cloud, because there is no default datastore"
    else:
        where = f"to the default datastore {graph.default_datastore}, which is not private"
    store = min(policy.private)
    fix = f"write default_datastore: azureml:{store} under settings"
    if "jobs" not in places.fields(root):
        fix = f"write path: {_SHORT}{store}/paths/…"
    yield found(OUTSIDE, place, f"{which} {goes} {where}; {fix}")


def _nested(pipeline: _Pipeline) -> Iterator[Finding]:
    """Settings of pipelines within the pipeline: whether Azure ML heeds them or not, they must not say otherwise."""
    policy = pipeline.policy
    scopes = {id(scope.root): scope for node in pipeline.written.values() for scope in _outer(node)}
    for scope in scopes.values():
        assert scope.node is not None
        for where, root in ((scope.document, scope.root), (scope.node.scope.document, scope.node.node)):
            store, compute = value(root, "settings", "default_datastore"), value(root, "settings", "default_compute")
            name = scalar(store)
            if store is not None and name is not None and (datastore_of(name) not in policy.private or _is_long(name)):
                message = f"the default datastore of this inner pipeline is '{name}', which is not private; remove it"
                yield found(OUTSIDE, where.place(store), message)
            name = scalar(compute)
            if compute is not None and name is not None and name.removeprefix("azureml:") not in policy.computes:
                message = f"the policy names no compute '{name}', the default of this inner pipeline; remove it"
                yield found(COMPUTE, where.place(compute), message)


def _outer(node: Written) -> Iterator[places.Scope]:
    """The pipelines at nodes of others that a step lies in."""
    scope = node.scope
    while scope.node is not None:
        yield scope
        scope = scope.node.scope


def _is_long(uri: str) -> bool:
    """Whether a reference names a workspace too, which may be another one than the policy's."""
    return "subscriptions/" in uri


def _registered(pipeline: _Pipeline, step: Step) -> Iterator[Finding]:
    if policies.is_release(step, pipeline.policy):
        return
    node = pipeline.written.get(step.name)
    while node is not None:
        for where, outputs in ((node.scope.document, node.value("outputs")), (node.scope.document, _named_by(node))):
            for name, (_, output) in places.fields(outputs).items():
                named = value(output, "name")
                if scalar(named) is not None and named is not None:
                    message = (
                        f"output '{name}' is registered as '{scalar(named)}'; remove its name, only a release has one"
                    )
                    yield found(REGISTERED, where.place(named), message)
        node = node.scope.node


def _named_by(node: Written) -> yaml.Node | None:
    """The outputs of a node's pipeline that its own outputs are bound to."""
    outputs = node.value("outputs")
    bound = {places.parent_output(output) for _, output in places.fields(outputs).values()}
    declared = value(node.scope.root, "outputs")
    if not isinstance(declared, yaml.MappingNode) or node.node is node.scope.root:
        return None
    kept = [pair for pair in declared.value if scalar(pair[0]) in bound]
    return yaml.MappingNode(declared.tag, kept, declared.start_mark, declared.end_mark)


# ---- the gate ----


def _changed(pipeline: _Pipeline, step: Step) -> Iterator[Finding]:
    node = pipeline.written.get(step.name)
    if node is None or not policies.is_release(step, pipeline.policy):
        return
    for key in ("environment", "environment_variables", "resources", "distribution", "identity"):
        if node.value(key) is not None:
            message = f"'{step.name}' changes the {key} of the release component; remove it, or change the component"
            yield found(CHANGED, node.place(key), message)


def _after(pipeline: _Pipeline, step: Step) -> Iterator[Finding]:
    graph, policy = pipeline.graph, pipeline.policy
    if step.name not in pipeline.private:
        return
    seen: set[str] = set()
    waiting = list(step.needs)
    while waiting:
        name = waiting.pop()
        if name not in seen:
            seen.add(name)
            waiting += graph.steps[name].needs
    released = sorted(name for name in seen if policies.is_release(graph.steps[name], policy))
    if not released:
        return
    key, what = _private_input(pipeline, step)
    place = pipeline.place(step, "inputs", key) if key else pipeline.place(step)
    message = (
        f"'{step.name}' comes after the release '{released[0]}' and reads {what}; do it in a step before the release"
    )
    yield found(AFTER, place, message)


def _private_input(pipeline: _Pipeline, step: Step) -> tuple[str, str]:
    """The first input that makes a step private, and what it is."""
    graph, policy = pipeline.graph, pipeline.policy
    for key, given in step.inputs.items():
        if any(policies.is_private(data, policy) for data in data_of(given)):
            return key, f"the private input '{key}'"
        for source in sources_of(given):
            other = graph.steps[source.step]
            if source.step in pipeline.private and not policies.is_release(other, policy):
                return key, f"what '{source.step}' made of private rows"
            if datastore_of(_uri(other, source.output) or graph.default_datastore) in policy.private:
                return key, f"output '{source.output}' of '{source.step}', which lies in a private datastore"
    return "", "the private storage"


def _uri(step: Step, output: str) -> str:
    return step.outputs[output].uri if output in step.outputs else ""


# ---- what is read ----


def _pipeline_inputs(pipeline: _Pipeline) -> Iterator[Finding]:
    if "jobs" in places.fields(pipeline.document.root):
        for name, given in pipeline.graph.inputs.items():
            spec = value(pipeline.document.root, "inputs", name)
            for data in data_of(given):
                yield from _read(pipeline, data, name, value(spec, "path") or spec, pipeline.document)


def _inputs(pipeline: _Pipeline, step: Step) -> Iterator[Finding]:
    node = pipeline.written.get(step.name)
    for name, given in step.inputs.items():
        spec = node.value("inputs", name) if node is not None else None
        at = value(spec, "path") or spec
        if at is None or "${{" in (scalar(at) or ""):  # said where it is written
            continue
        assert node is not None
        for data in data_of(given):
            yield from _read(pipeline, data, name, at, node.scope.document)


def _read(pipeline: _Pipeline, data: Data, name: str, node: yaml.Node | None, document: Document) -> Iterator[Finding]:
    place = document.place(node) if node is not None else pipeline.line(1)
    root = os.path.dirname(os.path.dirname(pipeline.policy.file))
    if not data.source and os.path.isabs(data.path):
        why = local.why_not(data.path, root)
        if why and not load.is_remote(scalar(node) or ""):
            fix = (
                f"put it into a private datastore and write azureml://datastores/{min(pipeline.policy.private)}/paths/…"
            )
            yield found(LOCAL, place, f"the local input '{name}' would be uploaded to the cloud and {why}; {fix}")
    elif data.source.startswith("azureml://") and "/datastores/" in data.source:
        yield from named(datastore_of(data.source), pipeline.policy, place)


def named(datastore: str, policy: Policy, place: Place) -> Iterator[Finding]:
    """The finding of a datastore that the policy does not name."""
    if datastore not in policy.private | policy.cloud:
        message = f"the policy does not name the datastore '{datastore}'; list it in {POLICY_FILE} as private or cloud"
        yield found(DATASTORE, place, message)


# ---- what runs it ----


def _compute(pipeline: _Pipeline, step: Step) -> Iterator[Finding]:
    policy, root = pipeline.policy, pipeline.document.root
    known = ", ".join(sorted(policy.computes)) or "none yet"
    node = pipeline.written.get(step.name)
    own = node.value("compute") if node is not None else None
    compute, place = step.compute, pipeline.place(step, "compute")
    if own is None:
        default = value(root, "settings", "default_compute") or value(root, "compute")
        if default is not None:
            compute, place = _text(pipeline, default), pipeline.document.place(default)
    if compute.removeprefix("azureml:") in policy.computes:
        return
    if compute:
        message = f"the policy names no compute '{compute.removeprefix('azureml:')}'; it names {known}"
    elif own is not None or value(root, "settings", "default_compute") is not None:
        message = f"the compute is an input without a value, so it may be any; write one that the policy names: {known}"
    else:
        message = (
            f"'{step.name}' has no compute, so Azure ML runs it serverless, in the cloud; write default_compute under "
            f"settings (the policy names {known})"
        )
    yield found(COMPUTE, place, message)


def _text(pipeline: _Pipeline, node: yaml.Node) -> str:
    """A setting, which may be bound to an input of the pipeline."""
    written = scalar(node) or ""
    binding = expressions.single(written)
    if binding is None:
        return written
    given = pipeline.graph.inputs.get(".".join(binding.path[2:])) if binding.path[:2] == ("parent", "inputs") else None
    return given if isinstance(given, str) else ""


def _services(pipeline: _Pipeline, step: Step) -> Iterator[Finding]:
    node: Written | None = pipeline.written.get(step.name)
    while node is not None:
        yield from _opened(node.scope.document, node.node, pipeline.policy)
        node = node.scope.node


def _opened(document: Document, node: yaml.Node | None, policy: Policy) -> Iterator[Finding]:
    for name, (key, _) in places.fields(value(node, "services")).items():
        yield found(SERVICE, document.place(key), f"the job opens the service '{name}'; remove it")
    locations = value(node, "resources", "locations")
    for item in locations.value if isinstance(locations, yaml.SequenceNode) else ():
        yield from region(document, item, policy)


def region(document: Document, node: yaml.Node | None, policy: Policy) -> Iterator[Finding]:
    """The finding of a region that the policy does not name; `West Europe` is westeurope."""
    written = scalar(node)
    if node is not None and written is not None and written.replace(" ", "").lower() not in policy.regions:
        known = ", ".join(sorted(policy.regions)) or "none yet"
        yield found(REGION, document.place(node), f"the policy names no region '{written}'; it names {known}")
