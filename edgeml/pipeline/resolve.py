"""From a pipeline's YAML to its graph: components loaded, nested pipelines flattened, every binding followed."""

from __future__ import annotations

import os
from collections.abc import Callable
from collections.abc import Mapping as AbstractMapping
from typing import Any

from edgeml.pipeline import expressions, load
from edgeml.pipeline.expressions import Binding
from edgeml.pipeline.graph import (
    Component,
    Data,
    Distribution,
    FromStep,
    Graph,
    Parallel,
    Step,
    Sweep,
    Text,
    Value,
    order,
    sources_of,
)
from edgeml.pipeline.nodes import ANY, Components
from edgeml.pipeline.ports import Input, Output, outside, render, typed
from edgeml.pipeline.source import Mapping, PipelineError, at

# Where Azure ML puts what a step writes to ./outputs; it can be bound without being declared.
ARTIFACTS = "artifacts"
_UNKNOWN = Text(("",))  # stands for a literal of any type


def resolve(
    path: str,
    overrides: AbstractMapping[str, str] | None = None,
    maps: AbstractMapping[str, str] | None = None,
    *,
    here: bool = True,
) -> Graph:
    """The graph of a pipeline job (or of a single command job) as Azure ML would run it.

    `overrides` are values for the pipeline's inputs as text; `maps` gives remote references a local path.
    Raises PipelineError, with file and line, for whatever would stop the pipeline from running here; or, where it is
    not to run `here`, anywhere: remote data may then stay remote, and the pipeline's inputs without a value.
    """
    return _Resolver(maps or {}, here=here).graph(os.path.abspath(path), overrides or {})


class _Scope:
    """One pipeline, the outermost or nested: its document, its inputs' values and what its outputs become."""

    def __init__(self, document: Mapping, prefix: str, parent: _Scope | None, node: Mapping | None) -> None:
        self.document = document
        self.prefix = prefix
        self.parent = parent
        self.node = node  # the node in `parent` that this pipeline stands at
        self.jobs = load.section(document, "jobs")
        self.inputs: dict[str, Value | None] = {}
        self.components: dict[str, Component] = {}
        self.parallel: dict[str, Mapping] = {}  # documents of the nodes that are parallel
        self.nested: dict[str, _Scope] = {}


class _Resolver:
    def __init__(self, maps: AbstractMapping[str, str], *, here: bool) -> None:
        self.maps = maps
        self.here = here
        self.components = Components(maps)
        self.steps: dict[str, Step] = {}
        self.file = ""
        self.sought: dict[str, Mapping | None] = {}
        self.unmapped: list[tuple[str, int, str]] = []
        self.warnings: list[str] = []

    def graph(self, path: str, overrides: AbstractMapping[str, str]) -> Graph:
        self.file = path
        document = _as_pipeline(self.components.document(path))
        root = _Scope(document, "", None, None)
        settings = load.section(document, "settings")
        self.root_inputs(root, overrides)
        self.declare(root)
        self.build(root)
        self.refuse_unmapped()
        try:
            names = order({name: step.needs for name, step in self.steps.items()})
        except ValueError as error:
            cycle = error.args[0]
            raise PipelineError(
                "the steps wait for each other in a circle: " + " → ".join(cycle), path, self.steps[cycle[0]].line
            ) from None
        outputs = load.section(document, "outputs")
        name = load.text(document, "display_name") or load.text(document, "name") or _stem(path)
        return Graph(
            name=name,
            experiment=load.text(document, "experiment_name") or name,
            file=path,
            steps={name: self.steps[name] for name in names},
            inputs={name: value for name, value in root.inputs.items() if value is not None},
            outputs={str(name): self.pipeline_output(root, str(name)) for name in outputs},
            default_datastore=self.plain(root, settings, "default_datastore"),
            continue_on_failure=load.boolean(settings, "continue_on_step_failure", default=True),
            force_rerun=load.boolean(settings, "force_rerun", default=False),
            sources=tuple(self.components.documents),
            warnings=tuple(self.warnings),
        )

    # ---- declaring: what there is, so that bindings may point forward ----

    def declare(self, scope: _Scope) -> None:
        if not scope.jobs:
            raise at(scope.document, "jobs", "the pipeline has no jobs")
        for name in scope.jobs:
            node = scope.jobs[name]
            if not isinstance(node, Mapping):
                raise at(scope.jobs, name, f"node '{name}' must be a mapping")
            found = self.components.of(name, node)
            if found.component is not None:
                scope.components[name] = found.component
                if found.kind == "parallel":
                    scope.parallel[name] = found.document
            else:
                nested = _Scope(found.document, f"{scope.prefix}{name}.", scope, node)
                self.refuse_recursion(nested, node, name)
                scope.nested[name] = nested
                self.declare(nested)

    def refuse_recursion(self, scope: _Scope, node: Mapping, name: str) -> None:
        outer = scope.parent
        while outer is not None:
            if outer.document is scope.document:
                raise at(node, "component", f"node '{name}' nests the pipeline that it is part of")
            outer = outer.parent

    # ---- building: values and steps ----

    def build(self, scope: _Scope) -> None:
        for name in scope.jobs:
            node = scope.jobs[name]
            nested = scope.nested.get(name)
            if nested is None:
                self.steps[scope.prefix + name] = self.step(scope, name, node)
                continue
            declared = load.section(nested.document, "inputs")
            if nested.document is node:
                # Jobs written in the node itself: its inputs are values, not declarations.
                nested.inputs = {key: self.value(scope, declared, key) for key in declared}
            else:
                ports = {key: _pipeline_port(declared, key) for key in declared}
                nested.inputs = self.inputs(scope, name, node, ports)
            self.build(nested)

    def step(self, scope: _Scope, name: str, node: Mapping) -> Step:
        component = scope.components[name]
        sweep = self.sweep(scope, name, node, component)
        ports = component.inputs
        if sweep is not None:
            ports = {key: port._replace(optional=True) if key in sweep.space else port for key, port in ports.items()}
        inputs = self.inputs(scope, name, node, ports)
        given = load.section(node, "outputs")
        for output in given:
            if output not in component.outputs and output != ARTIFACTS:
                raise at(given, output, f"the component of node '{name}' declares no output '{output}'")
        variables: dict[str, Value] = dict(component.environment_variables)
        declared = load.section(node, "environment_variables")
        for variable in declared:
            bound = self.variable(scope, component, declared, variable)
            if bound is not None:
                variables[str(variable)] = bound
        values = [value for value in (*inputs.values(), *variables.values()) if value is not None]
        own = load.environment(node)
        return Step(
            name=scope.prefix + name,
            component=component,
            inputs={
                key: value
                for key, value in inputs.items()
                if value is not None and (sweep is None or key not in sweep.space)
            },
            outputs={output: self.output(scope, name, node, output) for output in component.outputs},
            environment=own or component.environment,
            environment_variables=variables,
            compute=self.plain(scope, node, "compute"),
            needs=frozenset(source.step for value in values for source in sources_of(value)),
            line=scope.jobs.line_of(name),
            environment_at=(
                (node.file, node.line_of("environment")) if own else (component.file, component.environment_line)
            ),
            sweep=sweep,
            parallel=self.parallel(scope, name, node, component, inputs),
            distribution=self.distribution(scope, node, component),
        )

    def variable(self, scope: _Scope, component: Component, declared: Mapping, name: str) -> Value | None:
        """An environment variable of a node; null gives none, as the SDK does not send it.

        One made of the step's own inputs and outputs stays text: it is filled in with the command.
        """
        written = declared[name]
        bound = expressions.references(written) if isinstance(written, str) else []
        if not any(binding.path[0] in ("inputs", "outputs") for binding in bound):
            return self.value(scope, declared, name)
        own = {("inputs", port) for port in component.inputs} | {("outputs", port) for port in component.outputs}
        for binding in bound:
            if (binding.path[0], ".".join(binding.path[1:])) not in own:
                raise at(declared, name, f"the variable '{name}' uses {binding}, which is not of the step itself")
        return str(written)

    def sweep(self, scope: _Scope, name: str, node: Mapping, component: Component) -> Sweep | None:
        if load.text(node, "type").lower() != "sweep":
            return None
        from edgeml.pipeline.sweep import bound_to_space, sweep_of

        made = sweep_of(node, name, self.reader(scope))
        made = bound_to_space(load.section(node, "inputs"), made)
        for key in made.space:
            if key not in component.inputs:
                known = ", ".join(component.inputs) or "none"
                raise at(
                    load.section(node, "search_space"),
                    key,
                    f"the trial of '{name}' has no input '{key}'; it has: {known}",
                )
        if made.early_termination:
            self.warnings.append(
                f"{os.path.relpath(node.file)}:{node.line_of('early_termination')}: early termination "
                f"({made.early_termination}) of '{name}' is not applied here; every trial runs to its end"
            )
        return made

    def parallel(
        self, scope: _Scope, name: str, node: Mapping, component: Component, inputs: dict[str, Value | None]
    ) -> Parallel | None:
        if name not in scope.parallel:
            return None
        from edgeml.pipeline.parallel import parallel_of

        return parallel_of(node, scope.parallel[name], component, name, self.reader(scope), inputs)

    def distribution(self, scope: _Scope, node: Mapping, component: Component) -> Distribution | None:
        declared = load.section(node, "distribution") if "distribution" in node else component.distribution
        if not declared:
            return None
        kind = load.text(declared, "type", "pytorch").lower()
        key = "worker_count" if kind == "tensorflow" else "process_count_per_instance"
        count = self.reader(scope)(declared, key)
        try:
            processes = 1 if count is None else int(count)
        except (TypeError, ValueError):
            processes = 0
        if processes < 1:
            raise at(declared, key, f"'{key}' must be 1 or more")
        return Distribution(kind, processes)

    def reader(self, scope: _Scope) -> Callable[[Mapping, str], Any]:
        """Reads a key that may be bound to a literal input of the pipeline."""

        def plain(mapping: Mapping, key: str) -> Any:
            written = mapping.get(key)
            if isinstance(written, str) and "${{" in written:
                return self.bound(scope, written, mapping, key)
            return written

        return plain

    # ---- inputs ----

    def root_inputs(self, root: _Scope, overrides: AbstractMapping[str, str]) -> None:
        declared = load.section(root.document, "inputs")
        for name in overrides:
            if name not in declared:
                known = ", ".join(map(str, declared)) or "none"
                raise at(root.document, "inputs", f"there is no input '{name}' to set; the pipeline has: {known}")
        for name in declared:
            port = _pipeline_port(declared, name)
            if name in overrides:
                root.inputs[name] = self.override(declared, name, port, overrides[name])
            else:
                root.inputs[name] = self.root_value(root, declared, name, port)

    def override(self, declared: Mapping, name: str, port: Input, given: str) -> Value:
        if not port.is_literal:
            path = self.maps.get(given, given)
            source = given if load.is_remote(given) else _reference(declared[name])
            if load.is_remote(path):
                raise at(declared, name, f"input '{name}' is {given}, which is not on this machine; give a local path")
            path = os.path.abspath(os.path.expanduser(path.removeprefix("file:")))
            if not os.path.exists(path):
                raise at(declared, name, f"input '{name}' is {given}, which does not exist")
            return Data(path, port.type, source)
        return _checked(given, port, declared, name)

    def root_value(self, root: _Scope, declared: Mapping, name: str, port: Input) -> Value | None:
        spec = declared[name]
        if isinstance(spec, Mapping) and "path" not in spec and "value" not in spec:
            if port.default is not None:
                return self.default(port, declared, name)
            if port.optional:
                return None
            if not self.here:
                return Data("", port.type) if not port.is_literal else _UNKNOWN
            raise at(declared, name, f"input '{name}' has no value; give one with --input {name}=VALUE")
        value = self.value(root, declared, name, port)
        return None if value is None else self.fit(value, port, declared, name)

    def inputs(self, scope: _Scope, name: str, node: Mapping, ports: dict[str, Input]) -> dict[str, Value | None]:
        """The values of a node's inputs by its component's ports: given, default, or None where optional."""
        given = load.section(node, "inputs")
        for key in given:
            if key not in ports:
                # The SDK drops these without a word.
                self.warnings.append(
                    f"{os.path.relpath(given.file)}:{given.line_of(key)}: "
                    f"input '{key}' of node '{name}' is not declared by its component and is ignored"
                )
        values: dict[str, Value | None] = {}
        for key, port in ports.items():
            value = self.value(scope, given, key, port) if key in given else None
            if value is not None:
                values[key] = self.fit(value, port, given, key)
            elif port.default is not None:
                values[key] = self.default(port, given, key)
            elif port.optional:
                values[key] = None
            else:
                raise at(given, key, f"input '{key}' of node '{name}' has no value, and its component requires one")
        return values

    def default(self, port: Input, mapping: Mapping, key: str) -> Value:
        return port.default if port.is_literal else self.data(str(port.default), port.type, mapping, key)

    def fit(self, value: Value, port: Input, mapping: Mapping, key: str) -> Value:
        """A value as the type of the port it arrives at."""
        if port.type == ANY or isinstance(value, (FromStep, Text)):
            return value
        if isinstance(value, Data):
            if port.is_literal:
                return value
            # A data asset does not become a model, which may be public, by arriving where one is asked for.
            kept = port.type.endswith("_model") and not value.type.endswith("_model")
            return value if kept else value._replace(type=port.type)
        if port.is_literal:
            return _checked(value, port, mapping, key)
        # A plain string at an input for data is its path.
        return self.data(str(value), port.type, mapping, key)

    def value(self, scope: _Scope, mapping: Mapping, key: str, port: Input | None = None) -> Value | None:
        """What is written at a key: a literal, a binding, text with bindings, or a mapping with a path or a value."""
        spec = mapping[key]
        if isinstance(spec, Mapping):
            if "path" in spec:
                return self.path(scope, spec, load.text(spec, "type") or (port.type if port else "") or "uri_folder")
            inner = next((name for name in ("value", "default") if spec.get(name) is not None), None)
            return None if inner is None else self.value(scope, spec, inner, port)
        if isinstance(spec, list):
            raise at(mapping, key, f"'{key}' is a list, which Azure ML does not take as an input")
        if isinstance(spec, str) and "${{" in spec:
            return self.bound(scope, spec, mapping, key)
        return spec  # type: ignore[no-any-return]  # None, or a literal as the YAML reader typed it

    def path(self, scope: _Scope, spec: Mapping, type_: str) -> Value | None:
        written = load.text(spec, "path")
        bound = self.bound(scope, written, spec, "path") if "${{" in written else written
        return self.data(bound, type_, spec, "path") if isinstance(bound, str) else bound

    def bound(self, scope: _Scope, written: str, mapping: Mapping, key: str) -> Value | None:
        parts = expressions.parse(written.strip())
        if len(parts) == 1 and isinstance(parts[0], Binding):
            return self.lookup(scope, parts[0], mapping, key)
        values: list[str | Data | FromStep] = []
        for part in parts:
            found = self.lookup(scope, part, mapping, key) if isinstance(part, Binding) else part
            if isinstance(found, Text):
                values.extend(found.parts)
            elif isinstance(found, (Data, FromStep)):
                values.append(found)
            else:
                values.append("" if found is None else render(found))
        if all(isinstance(item, str) for item in values):
            return "".join(item for item in values if isinstance(item, str))
        return Text(tuple(values))

    def lookup(self, scope: _Scope, binding: Binding, mapping: Mapping, key: str) -> Value | None:
        path = binding.path
        if path[:2] == ("parent", "inputs") and len(path) > 2:
            name = ".".join(path[2:])
            if name not in scope.inputs:
                raise at(mapping, key, f"{binding} names no input of the pipeline; declare '{name}' under its inputs")
            return scope.inputs[name]
        if path[:2] == ("parent", "jobs") and len(path) == 5 and path[3] == "outputs":
            return self.source(scope, path[2], path[4], mapping, key)
        if path[0] == "search_space":  # a value that each trial of the sweep gets
            return None
        hint = f"; did you mean ${{{{parent.{'.'.join(path)}}}}}?" if path[0] in ("inputs", "jobs", "outputs") else ""
        raise at(mapping, key, f"{binding} is not a binding that can be used here{hint}")

    def source(self, scope: _Scope, job: str, output: str, mapping: Mapping, key: str) -> FromStep:
        """The step that an output of a job comes from, through any depth of nested pipelines."""
        component, nested = scope.components.get(job), scope.nested.get(job)
        if component is not None:
            if output not in component.outputs and output != ARTIFACTS:
                known = ", ".join(component.outputs) or "none"
                raise at(mapping, key, f"job '{job}' has no output '{output}'; it has: {known}")
            return FromStep(scope.prefix + job, output)
        if nested is not None:
            found = self.promoted(nested, output)
            if found is None:
                raise at(mapping, key, f"no step inside '{job}' is bound to its output '{output}'")
            return found
        raise at(mapping, key, f"there is no job '{job}' in this pipeline")

    def promoted(self, scope: _Scope, output: str) -> FromStep | None:
        """The step whose output is bound to `${{parent.outputs.<output>}}` in a pipeline."""
        for job in scope.jobs:
            bound = load.section(scope.jobs[job], "outputs")
            for name in bound:
                if _parent_output(bound, name) == output:
                    return self.source(scope, job, str(name), bound, name)
        return None

    def data(self, written: str, type_: str, mapping: Mapping, key: str) -> Value:
        mapped = self.maps.get(written)
        path = written if mapped is None else os.path.abspath(mapped)
        if mapped is None:
            if load.is_remote(written):
                return self.remote(written, type_, mapping, key)
            path = load.local_path(written, mapping.file)
        if not os.path.exists(path):
            raise at(mapping, key, f"the path {os.path.relpath(path)} does not exist")
        return Data(path, type_, written if load.is_remote(written) else "")

    def remote(self, reference: str, type_: str, mapping: Mapping, key: str) -> Value:
        """What lies elsewhere: as a data asset beside the pipeline says, else noted, to be refused with the others."""
        if reference.startswith("azureml:") and reference not in self.sought:
            from edgeml.pipeline.assets import beside

            self.sought[reference] = beside(reference, [os.path.dirname(file) for file in (self.file, mapping.file)])
        asset = self.sought.get(reference)
        path = load.text(asset, "path") if asset is not None else ""
        if asset is None or (load.is_remote(path) and path not in self.maps):
            self.unmapped.append((mapping.file, mapping.line_of(key), reference))
            return Data(reference, type_, path or reference)
        self.components.documents[asset.file] = asset
        return self.data(path, load.text(asset, "type") or type_, asset, "path")

    def refuse_unmapped(self) -> None:
        if self.unmapped and self.here:
            file, line, first = self.unmapped[0]
            others = sorted({ref for _, _, ref in self.unmapped} - {first})
            more = f" (and so are {', '.join(others)})" if others else ""
            raise PipelineError(
                f"the input {first} is not on this machine{more}; give it a local source with --map {first}=PATH",
                file,
                line,
            )

    # ---- outputs ----

    def output(self, scope: _Scope, job: str, node: Mapping, name: str) -> Output:
        """What an output of a job is: where it is bound to its pipeline's output, that one's path decides.

        Azure ML drops the node's own path then; the type may be declared on any of the levels.
        """
        given = load.section(node, "outputs")
        own = load.output_port(given, name) if name in given else Output()
        if job in scope.components:
            own = _overlay(scope.components[job].outputs.get(name, Output()), own)
        parent = _parent_output(given, name) if name in given else ""
        return _overlay(own, self.scope_output(scope, parent, given, name)) if parent else own

    def scope_output(self, scope: _Scope, name: str, mapping: Mapping, key: str) -> Output:
        declared = load.section(scope.document, "outputs")
        if name not in declared:
            raise at(mapping, key, f"the pipeline declares no output '{name}'; add it under its outputs")
        own = load.output_port(declared, name)
        if scope.parent is None or scope.node is None:
            return own
        given = load.section(scope.node, "outputs")
        if name not in given:
            return own
        job = scope.prefix.rstrip(".").rpartition(".")[2]
        return _overlay(own, self.output(scope.parent, job, scope.node, name))

    def pipeline_output(self, root: _Scope, name: str) -> tuple[FromStep, Output]:
        declared = load.section(root.document, "outputs")
        binding = expressions.single(declared[name])
        source = (
            self.source(root, binding.path[2], binding.path[4], declared, name)
            if binding is not None and binding.path[:2] == ("parent", "jobs") and len(binding.path) == 5
            else self.promoted(root, name)
        )
        if source is None:
            raise at(declared, name, f"no job is bound to the pipeline's output '{name}'")
        step = self.steps[source.step]
        return source, step.outputs.get(source.output, Output(type="uri_folder"))

    def plain(self, scope: _Scope, mapping: Mapping, key: str) -> str:
        """A setting as text, which may be bound to a literal input of the pipeline."""
        written = mapping.get(key)
        if not isinstance(written, str) or "${{" not in written:
            return written if isinstance(written, str) else ""
        value = self.bound(scope, written, mapping, key)
        return value if isinstance(value, str) else ""


def _as_pipeline(document: Mapping) -> Mapping:
    """The document itself, or, for a command job, a pipeline of that one job."""
    if "jobs" in document or document.get("type") == "pipeline":
        return document
    if "command" not in document and document.get("type") != "sweep":
        raise PipelineError(
            "neither a pipeline (with 'jobs'), nor a command job (with 'command'), nor a sweep", document.file, 1
        )
    name = load.text(document, "name") or _stem(document.file)
    wrapped = Mapping(document.file, document.line)
    jobs = wrapped["jobs"] = Mapping(document.file, document.line)
    jobs[name if name.isidentifier() else "job"] = document
    return wrapped


def _pipeline_port(declared: Mapping, name: str) -> Input:
    spec = declared[name]
    if isinstance(spec, Mapping) and ("type" in spec or not spec.keys() & {"path", "value"}):
        return load.input_port(declared, name)
    return load.value_port(spec, declared.line_of(name))


def _reference(spec: Any) -> str:
    """The remote path of an input as declared, empty where there is none."""
    path = spec.get("path") if isinstance(spec, Mapping) else spec
    return path if isinstance(path, str) and load.is_remote(path) else ""


def _checked(value: Any, port: Input, mapping: Mapping, key: str) -> Value:
    try:
        made = typed(value, port.type)
    except ValueError as error:
        raise at(mapping, key, f"the value of input '{key}' {error}") from None
    problem = outside(made, port)
    if problem:
        raise at(mapping, key, f"the value {render(made)} of input '{key}' {problem}")
    return made


def _parent_output(mapping: Mapping, key: str) -> str:
    binding = expressions.single(mapping[key])
    if binding is None and isinstance(mapping[key], Mapping):
        binding = expressions.single(mapping[key].get("path"))
    if binding is None or binding.path[:2] != ("parent", "outputs") or len(binding.path) != 3:
        return ""
    return binding.path[2]


def _overlay(base: Output, over: Output) -> Output:
    return Output(over.type or base.type, over.mode or base.mode, over.uri or base.uri, base.line)


def _stem(path: str) -> str:
    return os.path.splitext(os.path.basename(path))[0]
