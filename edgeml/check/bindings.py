"""Rules of a pipeline: what each binding names, what arrives at each input, and what is never used."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator

from edgeml.check import kinds, ports
from edgeml.check.context import Context
from edgeml.check.document import Document, children, entries, scalar, walk
from edgeml.check.finding import ERROR, WARNING, Finding, Rule, found
from edgeml.check.format import MISSING_KEY, WRONG_VALUE
from edgeml.check.placed import Placed, occurrences, place_of
from edgeml.check.survey import Survey
from edgeml.errors import nearest
from edgeml.pipeline import PipelineError
from edgeml.pipeline.libyaml import yaml
from edgeml.pipeline.resolve import ARTIFACTS
from edgeml.pipeline.scope import Scope

_MADE = "{command: 'echo 1 > ${{outputs.y}}', outputs: {y: {type: uri_file}}}"


def _given(value: str, inputs: str = "") -> str:
    """A pipeline whose only job gets one value, beside a job that makes a file."""
    return (
        f"type: pipeline\n{inputs}jobs:\n  a: {{command: 'cat ${{{{inputs.x}}}}', inputs: {{x: '{value}'}}}}\n"
        f"  b: {_MADE}\n"
    )


_COMPONENT = "type: command\nname: count\nversion: 1\nenvironment: azureml:e:1\n"
_COUNT = f"# --- count.yml\n{_COMPONENT}inputs: {{rows: {{type: uri_folder}}}}\ncommand: ls ${{{{inputs.rows}}}}\n"


def _counted(inputs: str, type_: str = "uri_folder") -> str:
    """A pipeline that gives a component something, and that component."""
    return (
        f"# --- pipeline.yml\ntype: pipeline\njobs:\n  make:\n    command: ls > ${{{{outputs.made}}}}\n"
        f"    outputs: {{made: {{type: {type_}}}}}\n  count: {{component: ./count.yml{inputs}}}\n{_COUNT}"
    )


_BOUND = ", inputs: {rows: '${{parent.jobs.make.outputs.made}}'}"
UNKNOWN_INPUT = Rule(
    "unknown-input",
    ERROR,
    "`${{parent.inputs.…}}` names an input of the pipeline",
    "The SDK's offline validation takes it; a script that adds the input on submission makes the file depend on it.",
    _given("${{parent.inputs.z}}"),
    _given("${{parent.inputs.z}}", "inputs: {z: 1}\n"),
)
UNKNOWN_JOB = Rule(
    "unknown-job",
    ERROR,
    "`${{parent.jobs.…}}` names a job of the pipeline",
    "The SDK's offline validation takes it, so that nothing says so before submission.",
    _given("${{parent.jobs.c.outputs.y}}"),
    _given("${{parent.jobs.b.outputs.y}}"),
)
UNKNOWN_OUTPUT = Rule(
    "unknown-output",
    ERROR,
    "A binding to an output names one that is declared",
    "The SDK's offline validation takes it, so that nothing says so before submission.",
    _given("${{parent.jobs.b.outputs.z}}"),
    _given("${{parent.jobs.b.outputs.y}}"),
)
BINDING_FORM = Rule(
    "binding-form",
    ERROR,
    "A binding has one of the forms that Azure ML knows",
    "What is no binding is passed on as text, so the script gets the braces.",
    _given("${{jobs.b.outputs.y}}"),
    _given("${{parent.jobs.b.outputs.y}}"),
)
BINDING_TYPE = Rule(
    "binding-type",
    ERROR,
    "What is bound to an input is of a type that the input can take",
    "A script that lists a folder fails on a file. Only contradictions are named: a file for a folder, data for a "
    "literal, text for a number. Folders of data and of models pass for each other.",
    _counted(_BOUND, "uri_file"),
    _counted(_BOUND),
)
UNDECLARED_INPUT = Rule(
    "undeclared-input",
    WARNING,
    "A node gives its component only inputs that it declares",
    "The SDK drops others without a word: a misspelt name leaves the default in force.",
    _counted(", inputs: {rows: '${{parent.jobs.make.outputs.made}}', row: 1}"),
    _counted(_BOUND),
)
MISSING_INPUT = Rule(
    "missing-input",
    ERROR,
    "A required input has a value",
    "The step has nothing to put in its place; edgeml does not start the pipeline without it.",
    _counted(""),
    _counted(_BOUND),
)
UNUSED_INPUT = Rule(
    "unused-input",
    WARNING,
    "Every input of a pipeline is used",
    "Whoever sets it believes that it has an effect.",
    "type: pipeline\ninputs: {rate: 0.1}\njobs:\n  a: {command: echo a}\n",
    "type: pipeline\ninputs: {rate: 0.1}\njobs:\n"
    "  a: {command: 'echo ${{inputs.rate}}', inputs: {rate: '${{parent.inputs.rate}}'}}\n",
)
UNBOUND_OUTPUT = Rule(
    "unbound-output",
    ERROR,
    "A job writes every output of its pipeline",
    "The output would stay empty, and whoever waits for it finds nothing.",
    f"type: pipeline\noutputs: {{made: {{type: uri_file}}}}\njobs:\n  b: {_MADE}\n",
    "type: pipeline\noutputs: {made: {type: uri_file}}\njobs:\n"
    "  b: {command: 'echo 1 > ${{outputs.y}}', outputs: {y: '${{parent.outputs.made}}'}}\n",
)
CYCLE = Rule(
    "cycle",
    ERROR,
    "No step waits for itself",
    "Such a pipeline never starts, and the SDK's offline validation does not say so.",
    "type: pipeline\njobs:\n"
    "  a: {command: 'cp ${{inputs.x}} ${{outputs.y}}', inputs: {x: '${{parent.jobs.a.outputs.y}}'}, outputs: {y: }}\n",
    "type: pipeline\njobs:\n  a: {command: 'ls > ${{outputs.y}}', outputs: {y: }}\n",
)
CANNOT_RUN = Rule(
    "cannot-run",
    ERROR,
    "Nothing else stops the pipeline from being resolved",
    "What `edgeml run` refuses before its first step, with the same words, where no other rule says it.",
    "type: pipeline\njobs:\n  a: {type: conjure}\n",
    "type: pipeline\njobs:\n  a: {command: echo a}\n",
)
RULES = (
    UNKNOWN_INPUT,
    UNKNOWN_JOB,
    UNKNOWN_OUTPUT,
    BINDING_FORM,
    BINDING_TYPE,
    UNDECLARED_INPUT,
    MISSING_INPUT,
    UNUSED_INPUT,
    UNBOUND_OUTPUT,
    CYCLE,
    CANNOT_RUN,
)

_BINDING = re.compile(r"\$\{\{\s*([^{}]*?)\s*\}\}")
_NEAR = re.compile(
    r"\$\{\{(?![^{}]*\}\})"  # opened, not closed
    r"|(?<!\$)\{\{\s*(?:parent|inputs|outputs)\.[\w.]+\s*\}\}"  # no dollar
    r"|\$\{\s*(?:parent|inputs|outputs)\.[\w.]+\s*\}"  # one brace
)
_PROSE = frozenset({"description", "display_name", "comment", "tags", "properties"})
_APART = frozenset({"jobs", *_PROSE})


def check(document: Document, context: Context) -> Iterator[Finding]:
    """The findings of a pipeline, and of the components that it uses."""
    survey = context.survey(document.path)
    bound = dict.fromkeys(one for scope in survey.scopes for one in _bindings(scope))
    yield from bound
    # The resolver stumbles over some of the same bindings; the first words are the better ones.
    told = {(one.rule, one.path, one.line, one.column) for one in bound}
    for one in dict.fromkeys(_resolved(document, context, survey)):
        if (one.rule, one.path, one.line, one.column) not in told:
            yield one
    yield from _unused(document)


def finding_of(error: PipelineError) -> Finding:
    from edgeml.check import sweeps

    known = (*ports.RULES, *RULES, *sweeps.RULES, MISSING_KEY, WRONG_VALUE)
    rule = next((rule for rule in known if rule.id == error.rule), CANNOT_RUN)
    return found(rule, place_of(error), error.message)


def _resolved(document: Document, context: Context, survey: Survey) -> Iterator[Finding]:
    unfit = set()
    for path in survey.library.documents:
        findings = context.unfit(path)
        if findings:
            unfit.add(path)
            yield from findings
        elif path != os.path.abspath(document.path):
            read, _ = context.read(path)
            if kinds.kind_of(read) in (kinds.COMMAND_COMPONENT, kinds.PARALLEL_COMPONENT):
                if path not in context.of_components:
                    context.of_components[path] = list(ports.check(read, context))
                yield from context.of_components[path]
    for path in survey.library.unread:
        yield from context.unfit(path)
    problems = [
        *survey.problems,
        *(error for path in survey.library.documents for error in context.problems.get(path, [])),
    ]
    yield from (finding_of(error) for error in problems if error.file not in unfit)


def _unused(document: Document) -> Iterator[Finding]:
    present = entries(document.root)
    if "jobs" not in present or "inputs" not in present:
        return
    used = set()
    for node in walk(document.root):
        for match in _BINDING.finditer(scalar(node) or ""):
            path = [part.strip() for part in match[1].split(".")]
            if path[:2] == ["parent", "inputs"] and len(path) > 2:
                used.add(path[2])
    for name, (key, _) in entries(present["inputs"][1]).items():
        if name not in used and name.partition(".")[0] not in used:
            message = f"the pipeline's input '{name}' is never used; bind ${{{{parent.inputs.{name}}}}} or remove it"
            yield found(UNUSED_INPUT, document.place(key), message)


def malformed(document: Document, node: yaml.Node) -> Iterator[Finding]:
    """What was meant as a binding, but is passed on as text."""
    if "{" not in (scalar(node) or "") or not _NEAR.search(scalar(node) or ""):
        return
    for place, match in occurrences(document, node, _NEAR):
        message = f"'{match[0]}' is no binding and is passed on as text; write ${{{{ and }}}} around what it names"
        yield found(BINDING_FORM, place, message)


def _bindings(scope: Scope) -> Iterator[Finding]:
    """Findings about every `${{parent.…}}` of a pipeline, those of the pipelines that it nests apart."""
    outer = scope.document
    nodes: list[yaml.Node] = []
    document: Document | None = None
    if isinstance(outer, Placed) and outer.node is not None and "jobs" in outer.nodes:
        document = outer.document
        nodes += [value for key, (_, value) in outer.nodes.items() if key not in _APART | {"inputs"}]
    for job in scope.jobs.values():
        if isinstance(job, Placed):
            document = job.document
            nodes += [value for key, (_, value) in job.nodes.items() if key not in _APART]
    if document is None:
        return
    for node in _scalars(nodes):
        text = scalar(node) or ""
        if "{" in text:
            yield from malformed(document, node)
        if "${{" not in text:
            continue
        for place, match in occurrences(document, node, _BINDING):
            rule, problem = _problem(scope, [part.strip() for part in match[1].split(".")], match[0])
            if rule is not None:
                yield found(rule, place, problem)


def _scalars(nodes: Iterable[yaml.Node]) -> Iterator[yaml.Node]:
    waiting = list(nodes)
    while waiting:
        node = waiting.pop()
        if isinstance(node, yaml.ScalarNode):
            yield node
        waiting += children(node)


def _problem(scope: Scope, path: list[str], written: str) -> tuple[Rule | None, str]:
    if path[:1] != ["parent"]:
        return None, ""
    if path[1:2] == ["inputs"] and len(path) > 2:
        declared = scope.document.get("inputs")
        names = [str(name) for name in declared] if isinstance(declared, dict) else []
        if ".".join(path[2:]) in names or path[2] in names:
            return None, ""
        return UNKNOWN_INPUT, f"{written} names no input of the pipeline; {_near(path[2], names, 'under its inputs')}"
    if path[1:2] == ["outputs"] and len(path) == 3:
        return None, ""  # the resolver looks at those
    if path[1:2] == ["jobs"] and len(path) == 5 and path[3] == "outputs":
        jobs = [str(name) for name in scope.jobs]
        if path[2] not in jobs:
            return (
                UNKNOWN_JOB,
                f"there is no job '{path[2]}' in this pipeline; {_near(path[2], jobs, 'under its jobs')}",
            )
        component = scope.components.get(path[2])
        if component is not None and path[4] not in component.outputs and path[4] != ARTIFACTS:
            hint = _near(path[4], list(component.outputs), "under its outputs")
            return UNKNOWN_OUTPUT, f"job '{path[2]}' has no output '{path[4]}'; {hint}"
        return None, ""
    forms = "${{parent.inputs.NAME}}, ${{parent.outputs.NAME}} and ${{parent.jobs.JOB.outputs.NAME}}"
    return BINDING_FORM, f"{written} is not a binding that can be used here; there are {forms}"


def _near(name: str, names: list[str], where: str) -> str:
    near = nearest(name, names)
    return f"did you mean '{near}'?" if near else f"declare '{name}' {where}"
