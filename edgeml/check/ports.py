"""Rules of one component: its placeholders, its defaults and its optional groups."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator

from edgeml.check import kinds
from edgeml.check.context import Context
from edgeml.check.document import Document, entries, scalar, walk
from edgeml.check.finding import ERROR, WARNING, Finding, Place, Rule, found
from edgeml.check.placed import occurrences
from edgeml.check.survey import component_of
from edgeml.pipeline import expressions, load
from edgeml.pipeline.graph import Component
from edgeml.pipeline.libyaml import yaml
from edgeml.pipeline.ports import ANY, outside, render
from edgeml.pipeline.source import PipelineError, at

_COMPONENT = "type: command\nname: c\nversion: 1\nenvironment: azureml:e:1\n"
PLACEHOLDER = Rule(
    "undeclared-placeholder",
    ERROR,
    "A command uses only inputs and outputs that are declared",
    "Nothing can be put in its place when the step starts.",
    f"{_COMPONENT}inputs: {{rows: {{type: uri_file}}}}\ncommand: cat ${{{{inputs.rows}}}} ${{{{inputs.row}}}}\n",
    f"{_COMPONENT}inputs: {{rows: {{type: uri_file}}}}\ncommand: cat ${{{{inputs.rows}}}}\n",
)
LITERAL_TYPE = Rule(
    "literal-type",
    ERROR,
    "A literal is of the type of its input",
    "The SDK's offline validation lets text pass for a number; the script's argument parser does not.",
    f"{_COMPONENT}inputs: {{count: {{type: integer, default: many}}}}\ncommand: echo ${{{{inputs.count}}}}\n",
    f"{_COMPONENT}inputs: {{count: {{type: integer, default: 3}}}}\ncommand: echo ${{{{inputs.count}}}}\n",
)
LITERAL_RANGE = Rule(
    "literal-range",
    ERROR,
    "A literal lies within the `min`, `max` and `enum` of its input",
    "The SDK's offline validation does not look at the limits that a component declares, and most scripts do not.",
    f"{_COMPONENT}inputs: {{rate: {{type: number, default: 2, max: 1}}}}\ncommand: echo ${{{{inputs.rate}}}}\n",
    f"{_COMPONENT}inputs: {{rate: {{type: number, default: 0.5, max: 1}}}}\ncommand: echo ${{{{inputs.rate}}}}\n",
)
MISSING_PATH = Rule(
    "missing-path",
    ERROR,
    "Every local path exists: components, code, includes and data",
    "The upload fails, or the step starts without the file.",
    "type: pipeline\njobs:\n  a: {component: ./absent.yml}\n",
    "# --- pipeline.yml\ntype: pipeline\njobs:\n  a: {component: ./a.yml}\n"
    f"# --- a.yml\n{_COMPONENT}command: echo a\n",
)
OPTIONAL = Rule(
    "optional-outside-group",
    ERROR,
    "An optional input without a default stands within `$[[ … ]]`",
    "Without a value nothing can be put in its place; the group is what Azure ML leaves out then.",
    f"{_COMPONENT}inputs: {{word: {{type: string, optional: true}}}}\ncommand: echo ${{{{inputs.word}}}}\n",
    f"{_COMPONENT}inputs: {{word: {{type: string, optional: true}}}}\ncommand: echo $[[${{{{inputs.word}}}}]]\n",
)
NEEDLESS = Rule(
    "needless-group",
    WARNING,
    "A group `$[[ … ]]` holds an optional input",
    "A group of required inputs is never left out; most often `optional: true` was forgotten.",
    f"{_COMPONENT}inputs: {{word: {{type: string}}}}\ncommand: echo $[[--word ${{{{inputs.word}}}}]]\n",
    f"{_COMPONENT}inputs: {{word: {{type: string}}}}\ncommand: echo --word ${{{{inputs.word}}}}\n",
)
RULES = (PLACEHOLDER, LITERAL_TYPE, LITERAL_RANGE, MISSING_PATH, OPTIONAL, NEEDLESS)

_GROUP = re.compile(r"\$\[\[(.*?)\]\]", re.DOTALL)


def check(document: Document, context: Context) -> Iterator[Finding]:
    from edgeml.check.bindings import finding_of, malformed

    kind = "parallel" if kinds.kind_of(document) is kinds.PARALLEL_COMPONENT else "command"
    path = os.path.abspath(document.path)
    component, problems = component_of(context, path, kind)
    yield from map(finding_of, problems)
    command = entries(document.root).get("command")
    if command is not None:
        yield from malformed(document, command[1])
    if component is not None and kind == "command":
        yield from map(finding_of, _defaults(document, component))
        if command is not None:
            yield from _groups(document, command[1], component)


def check_paths(document: Document, context: Context) -> Iterator[Finding]:
    """Local files that the resolver does not read: those of environments, and the data of an asset."""
    present = entries(document.root)
    if kinds.kind_of(document) is kinds.DATA and "path" in present:
        yield from _missing(document, present["path"][1])
    for node in walk(document.root):
        here = entries(node)
        if "conda_file" in here:
            yield from _missing(document, here["conda_file"][1])
        if "build" in here and "path" in entries(here["build"][1]):
            yield from _missing(document, entries(here["build"][1])["path"][1])
        if "environment" in here and (scalar(here["environment"][1]) or "").endswith((".yml", ".yaml")):
            yield from _missing(document, here["environment"][1])


def _missing(document: Document, node: yaml.Node) -> Iterator[Finding]:
    written = scalar(node)
    if not written or load.is_remote(written) or "${{" in written:
        return
    path = load.local_path(written, document.path)
    if not os.path.exists(path):
        yield found(MISSING_PATH, document.place(node), f"the path {os.path.relpath(path)} does not exist")


def _defaults(document: Document, component: Component) -> Iterator[PipelineError]:
    declared = document.mapping.get("inputs") if document.mapping is not None else None
    for name, port in component.inputs.items():
        spec = declared.get(name) if declared is not None else None
        if not isinstance(spec, dict) or declared is None:
            continue
        if port.minimum is not None and port.maximum is not None and port.minimum > port.maximum:
            yield at(spec, "min", f"the minimum of input '{name}' is above its maximum", LITERAL_RANGE.id)  # type: ignore[arg-type]
        elif port.default is not None and port.is_literal and (problem := outside(port.default, port)):
            message = f"the default {render(port.default)} of input '{name}' {problem}"
            yield at(spec, "default", message, LITERAL_RANGE.id)  # type: ignore[arg-type]


def _groups(document: Document, command: yaml.Node, component: Component) -> Iterator[Finding]:
    groups = list(_GROUP.finditer(component.command))
    optional = {name for name, port in component.inputs.items() if port.optional and port.type != ANY}
    for group in groups:
        names = _inputs(group[1])
        understood = all(name in component.inputs and component.inputs[name].type != ANY for name in names)
        if names and understood and not optional & set(names):
            message = f"no input in $[[{group[1]}]] is optional; declare one so, or write it without $[[ ]]"
            yield found(NEEDLESS, _first(document, command, r"\$\[\["), message)
    bare = {name for name in optional if component.inputs[name].default is None}
    outside_groups = _GROUP.sub("", component.command)
    for name in dict.fromkeys(_inputs(outside_groups)):
        if name in bare:
            message = f"input '{name}' is optional, so {{}} must stand within $[[ ]], as in $[[--{name} {{}}]]"
            written = f"${{{{inputs.{name}}}}}"
            place = _first(document, command, r"\$\{\{\s*inputs\." + re.escape(name) + r"\s*\}\}")
            yield found(OPTIONAL, place, message.replace("{}", written))


def _inputs(text: str) -> list[str]:
    return [".".join(one.path[1:]) for one in expressions.references(text) if one.path[0] == "inputs"]


def _first(document: Document, node: yaml.Node, pattern: str) -> Place:
    places = occurrences(document, node, re.compile(pattern))
    return places[0][0] if places else document.place(node)
