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
from edgeml.pipeline.nodes import Components
from edgeml.pipeline.ports import ANY, Input, Output, outside, render, typed
from edgeml.pipeline.scope import Scope, as_pipeline, parent_output, promoted_by, stem
from edgeml.pipeline.source import Mapping, PipelineError, at, tried

# Where Azure ML puts what a step writes to ./outputs; it can be bound without being declared.
ARTIFACTS = "artifacts"


class Unset(Text):
    """Stands for a value that nobody has given yet, of the declared `type`, or for one that is not understood."""

    type = ""


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
    return Resolver(maps or {}, here=here).graph(os.path.abspath(path), overrides or {})


class Resolver:
    """One resolution of one pipeline. `refuse` raises; where it does not, everything goes on with stand-ins."""

    def __init__(self, maps: AbstractMapping[str, str], *, here: bool) -> None:
        self.maps = maps
        self.here = here
        self.components = Components(maps)
        self.steps: dict[str, Step] = {}
        self.file = ""
        self.sought: dict[str, Mapping | None] = {}
        self.unmapped: list[tuple[str, int, str]] = []
        self.warnings: list[str] = []

    def refuse(self, error: PipelineError) -> None:
        raise error

    def graph(self, path: str, overrides: AbstractMapping[str, str]) -> Graph:
        self.file = path
        document = as_pipeline(self.components.document(path))
        root = Scope(document, "", None, None)
        settings = load.section(document, "settings")
        self.root_inputs(root, overrides)
        self.declare(root)
        self.build(root)
        self.refuse_unmapped()
        names = self.ordered()
        name = load.text(document, "display_name") or load.text(document, "name") or stem(path)
        return Graph(
            name=name,
            experiment=load.text(document, "experiment_name") or name,
            file=path,
            steps={name: self.steps[name] for name in names},
            inputs={name: value for name, value in root.inputs.items() if value is not None},
            outputs=self.pipeline_outputs(root),
            default_datastore=self.plain(root, settings, "default_datastore"),
            continue_on_failure=load.boolean(settings, "continue_on_step_failure", default=True),
            force_rerun=load.boolean(settings, "force_rerun", default=False),
            sources=tuple(self.components.documents),
            warnings=tuple(self.warnings),
        )

    def ordered(self) -> list[str]:
        try:
            return order({name: step.needs for name, step in self.steps.items()})
        except ValueError as error:
            cycle = error.args[0]
            message = "the steps wait for each other in a circle: " + " → ".join(cycle)
            raise PipelineError(message, self.file, self.steps[cycle[0]].line, rule="cycle") from None

    # ---- declaring: what there is, so that bindings may point forward ----

    def declare(self, scope: Scope) -> None:
        if not scope.jobs:
            raise at(scope.document, "jobs", "the pipeline has no jobs", "missing-key")
        for name in scope.jobs:
            node = scope.jobs[name]
            if not isinstance(node, Mapping):
                raise at(scope.jobs, name, f"node '{name}' must be a mapping")
            try:
                found = self.components.of(name, node)
            except PipelineError as error:
                self.refuse(error)
                continue
            if found.component is not None:
                scope.components[name] = found.component
                if found.kind == "parallel":
                    scope.parallel[name] = found.document
            else:
                nested = Scope(found.document, f"{scope.prefix}{name}.", scope, node)
                if self.is_recursion(nested):
                    message = f"node '{name}' nests the pipeline that it is part of"
                    self.refuse(at(node, "component", message, "cycle"))
                    continue
                scope.nested[name] = nested
                self.declare(nested)

    def is_recursion(self, scope: Scope) -> bool:
        outer = scope.parent
        while outer is not None and outer.document is not scope.document:
            outer = outer.parent
        return outer is not None

    # ---- building: values and steps ----

    def build(self, scope: Scope) -> None:
        for name in scope.jobs:
            node = scope.jobs[name]
            nested = scope.nested.get(name)
            if nested is None and name not in scope.components:
                continue  # refused before
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

    def step(self, scope: Scope, name: str, node: Mapping) -> Step:
        component = scope.components[name]
        sweep = self.sweep(scope, name, node, component)
        ports = component.inputs
        if sweep is not None:
            ports = {key: port._replace(optional=True) if key in sweep.space else port for key, port in ports.items()}
        inputs = self.inputs(scope, name, node, ports)
        given = load.section(node, "outputs")
        for output in given:
            if output not in component.outputs and output != ARTIFACTS:
                message = f"the component of node '{name}' declares no output '{output}'"
                self.refuse(at(given, output, message, "unknown-output"))
        variables: dict[str, Value] = dict(component.environment_variables)
        declared = load.section(node, "environment_variables")
        for variable in declared:
            bound = tried(self.refuse, None, self.variable, scope, component, declared, variable)
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
            parallel=tried(self.refuse, None, self.parallel, scope, name, node, component, inputs),
            distribution=tried(self.refuse, None, self.distribution, scope, node, component),
        )

    def variable(self, scope: Scope, component: Component, declared: Mapping, name: str) -> Value | None:
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
                message = f"the variable '{name}' uses {binding}, which is not of the step itself"
                self.refuse(at(declared, name, message, "undeclared-placeholder", binding))
        return str(written)

    def sweep(self, scope: Scope, name: str, node: Mapping, component: Component) -> Sweep | None:
        if load.text(node, "type").lower() != "sweep":
            return None
        from edgeml.pipeline.sweep import bound_to_space, sweep_of

        made = sweep_of(node, name, self.reader(scope), self.refuse)
        made = bound_to_space(load.section(node, "inputs"), made, self.refuse)
        for key in made.space:
            if key not in component.inputs:
                known = ", ".join(component.inputs) or "none"
                message = f"the trial of '{name}' has no input '{key}'; it has: {known}"
                self.refuse(at(load.section(node, "search_space"), key, message, "search-space"))
        if made.early_termination:
            self.warnings.append(
                f"{os.path.relpath(node.file)}:{node.line_of('early_termination')}: early termination "
                f"({made.early_termination}) of '{name}' is not applied here; every trial runs to its end"
            )
        return made

    def parallel(
        self, scope: Scope, name: str, node: Mapping, component: Component, inputs: dict[str, Value | None]
    ) -> Parallel | None:
        if name not in scope.parallel:
            return None
        from edgeml.pipeline.parallel import parallel_of

        return parallel_of(node, scope.parallel[name], component, name, self.reader(scope), inputs)

    def distribution(self, scope: Scope, node: Mapping, component: Component) -> Distribution | None:
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
            raise at(declared, key, f"'{key}' must be 1 or more", "wrong-value")
        return Distribution(kind, processes)

    def reader(self, scope: Scope) -> Callable[[Mapping, str], Any]:
        """Reads a key that may be bound to a literal input of the pipeline."""

        def plain(mapping: Mapping, key: str) -> Any:
            written = mapping.get(key)
            if isinstance(written, str) and "${{" in written:
                value = self.bound(scope, written, mapping, key)
                return None if isinstance(value, Unset) else value
            return written

        return plain

    # ---- inputs ----

    def root_inputs(self, root: Scope, overrides: AbstractMapping[str, str]) -> None:
        declared = load.section(root.document, "inputs")
        for name in overrides:
            if name not in declared:
                known = ", ".join(map(str, declared)) or "none"
                raise at(root.document, "inputs", f"there is no input '{name}' to set; the pipeline has: {known}")
        for name in declared:
            try:
                port = _pipeline_port(declared, name)
                if name in overrides:
                    root.inputs[name] = self.override(declared, name, port, overrides[name])
                else:
                    root.inputs[name] = self.root_value(root, declared, name, port)
            except PipelineError as error:
                self.refuse(error)
                root.inputs[name] = Unset(("",))

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

    def root_value(self, root: Scope, declared: Mapping, name: str, port: Input) -> Value | None:
        spec = declared[name]
        if isinstance(spec, Mapping) and "path" not in spec and "value" not in spec:
            if port.default is not None:
                return self.default(port, declared, name)
            if port.optional:
                return None
            if not self.here:
                return unset(port.type) if port.is_literal else Data("", port.type)
            raise at(declared, name, f"input '{name}' has no value; give one with --input {name}=VALUE")
        value = self.value(root, declared, name, port)
        return None if value is None else self.fit(value, port, declared, name)

    def inputs(self, scope: Scope, name: str, node: Mapping, ports: dict[str, Input]) -> dict[str, Value | None]:
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
            try:
                value = self.value(scope, given, key, port) if key in given else None
                if value is not None:
                    values[key] = self.fit(value, port, given, key)
                elif port.default is not None:
                    values[key] = self.default(port, given, key)
                elif port.optional:
                    values[key] = None
                else:
                    message = f"input '{key}' of node '{name}' has no value, and its component requires one"
                    raise at(given if "inputs" in node else node, key, message, "missing-input")
            except PipelineError as error:
                self.refuse(error)
                values[key] = Unset(("",))
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

    def value(self, scope: Scope, mapping: Mapping, key: str, port: Input | None = None) -> Value | None:
        """What is written at a key: a literal, a binding, text with bindings, or a mapping with a path or a value."""
        spec = mapping[key]
        if isinstance(spec, Mapping):
            if "path" in spec:
                return self.path(scope, spec, load.text(spec, "type") or (port.type if port else "") or "uri_folder")
            inner = next((name for name in ("value", "default") if spec.get(name) is not None), None)
            return None if inner is None else self.value(scope, spec, inner, port)
        if isinstance(spec, list):
            raise at(mapping, key, f"'{key}' is a list, which Azure ML does not take as an input", "literal-type")
        if isinstance(spec, str) and "${{" in spec:
            return self.bound(scope, spec, mapping, key)
        return spec  # type: ignore[no-any-return]  # None, or a literal as the YAML reader typed it

    def path(self, scope: Scope, spec: Mapping, type_: str) -> Value | None:
        written = load.text(spec, "path")
        bound = self.bound(scope, written, spec, "path") if "${{" in written else written
        return self.data(bound, type_, spec, "path") if isinstance(bound, str) else bound

    def bound(self, scope: Scope, written: str, mapping: Mapping, key: str) -> Value | None:
        parts = expressions.parse(written.strip())
        if len(parts) == 1 and isinstance(parts[0], Binding):
            return self.lookup(scope, parts[0], mapping, key)
        values: list[str | Data | FromStep] = []
        unknown = False
        for part in parts:
            found = self.lookup(scope, part, mapping, key) if isinstance(part, Binding) else part
            if isinstance(found, Unset):
                unknown = True
            elif isinstance(found, Text):
                values.extend(found.parts)
            elif isinstance(found, (Data, FromStep)):
                values.append(found)
            else:
                values.append("" if found is None else render(found))
        if unknown:
            return Unset(("",))
        if all(isinstance(item, str) for item in values):
            return "".join(item for item in values if isinstance(item, str))
        return Text(tuple(values))

    def lookup(self, scope: Scope, binding: Binding, mapping: Mapping, key: str) -> Value | None:
        path = binding.path
        if path[:2] == ("parent", "inputs") and len(path) > 2:
            name = ".".join(path[2:])
            if name in scope.inputs:
                return scope.inputs[name]
            message = f"{binding} names no input of the pipeline; declare '{name}' under its inputs"
            self.refuse(at(mapping, key, message, "unknown-input", binding))
            return Unset(("",))
        if path[:2] == ("parent", "jobs") and len(path) == 5 and path[3] == "outputs":
            return self.source(scope, path[2], path[4], mapping, key) or Unset(("",))
        if path[0] == "search_space":  # a value that each trial of the sweep gets
            return None
        hint = f"; did you mean ${{{{parent.{'.'.join(path)}}}}}?" if path[0] in ("inputs", "jobs", "outputs") else ""
        message = f"{binding} is not a binding that can be used here{hint}"
        self.refuse(at(mapping, key, message, "binding-form", binding))
        return Unset(("",))

    def source(self, scope: Scope, job: str, output: str, mapping: Mapping, key: str) -> FromStep | None:
        """The step that an output of a job comes from, through any depth of nested pipelines; None where refused."""
        written = f"${{{{parent.jobs.{job}.outputs.{output}}}}}"
        component, nested = scope.components.get(job), scope.nested.get(job)
        if component is not None:
            if output not in component.outputs and output != ARTIFACTS:
                known = ", ".join(component.outputs) or "none"
                message = f"job '{job}' has no output '{output}'; it has: {known}"
                self.refuse(at(mapping, key, message, "unknown-output", written))
                return None
            return FromStep(scope.prefix + job, output)
        if nested is not None:
            promoted = promoted_by(nested, output)
            if promoted is not None:
                return self.source(nested, *promoted)
            message = f"no step inside '{job}' is bound to its output '{output}'"
            self.refuse(at(mapping, key, message, "unknown-output", written))
        elif job not in scope.jobs:
            self.refuse(at(mapping, key, f"there is no job '{job}' in this pipeline", "unknown-job", written))
        return None

    def data(self, written: str, type_: str, mapping: Mapping, key: str) -> Value:
        mapped = self.maps.get(written)
        path = written if mapped is None else os.path.abspath(mapped)
        if mapped is None:
            if load.is_remote(written):
                return self.remote(written, type_, mapping, key)
            path = load.local_path(written, mapping.file)
        if not os.path.exists(path):
            raise at(mapping, key, f"the path {os.path.relpath(path)} does not exist", "missing-path")
        return Data(path, type_, written if load.is_remote(written) else "")

    def remote(self, reference: str, type_: str, mapping: Mapping, key: str) -> Value:
        """What lies elsewhere: as a data asset beside the pipeline says, else noted, to be refused with the others."""
        if reference.startswith("azureml:") and reference not in self.sought:
            from edgeml.pipeline.assets import beside

            folders = [os.path.dirname(file) for file in (self.file, mapping.file)]
            self.sought[reference] = beside(reference, folders, self.components.look)
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

    def output(self, scope: Scope, job: str, node: Mapping, name: str) -> Output:
        """What an output of a job is: where it is bound to its pipeline's output, that one's path decides.

        Azure ML drops the node's own path then; the type may be declared on any of the levels.
        """
        given = load.section(node, "outputs")
        own = load.output_port(given, name) if name in given else Output()
        if job in scope.components:
            own = _overlay(scope.components[job].outputs.get(name, Output()), own)
        parent = parent_output(given, name) if name in given else ""
        return _overlay(own, self.scope_output(scope, parent, given, name)) if parent else own

    def scope_output(self, scope: Scope, name: str, mapping: Mapping, key: str) -> Output:
        declared = load.section(scope.document, "outputs")
        if name not in declared:
            message = f"the pipeline declares no output '{name}'; add it under its outputs"
            self.refuse(at(mapping, key, message, "unknown-output", f"${{{{parent.outputs.{name}}}}}"))
            return Output()
        own = load.output_port(declared, name)
        if scope.parent is None or scope.node is None:
            return own
        given = load.section(scope.node, "outputs")
        if name not in given:
            return own
        job = scope.prefix.rstrip(".").rpartition(".")[2]
        return _overlay(own, self.output(scope.parent, job, scope.node, name))

    def pipeline_outputs(self, root: Scope) -> dict[str, tuple[FromStep, Output]]:
        declared = load.section(root.document, "outputs")
        made = {}
        for name in map(str, declared):
            source = self.pipeline_output(root, declared, name)
            if source is not None and source.step in self.steps:
                step = self.steps[source.step]
                made[name] = source, step.outputs.get(source.output, Output(type="uri_folder"))
        return made

    def pipeline_output(self, root: Scope, declared: Mapping, name: str) -> FromStep | None:
        binding = expressions.single(declared[name])
        if binding is not None and binding.path[:2] == ("parent", "jobs") and len(binding.path) == 5:
            return self.source(root, binding.path[2], binding.path[4], declared, name)
        promoted = promoted_by(root, name)
        if promoted is not None:
            return self.source(root, *promoted)
        self.refuse(at(declared, name, f"no job is bound to the pipeline's output '{name}'", "unbound-output"))
        return None

    def plain(self, scope: Scope, mapping: Mapping, key: str) -> str:
        """A setting as text, which may be bound to a literal input of the pipeline."""
        written = mapping.get(key)
        if not isinstance(written, str) or "${{" not in written:
            return written if isinstance(written, str) else ""
        value = self.bound(scope, written, mapping, key)
        return value if isinstance(value, str) else ""


def _pipeline_port(declared: Mapping, name: str) -> Input:
    spec = declared[name]
    if isinstance(spec, Mapping) and ("type" in spec or not spec.keys() & {"path", "value"}):
        return load.input_port(declared, name)
    return load.value_port(spec, declared.line_of(name))


def _reference(spec: Any) -> str:
    """The remote path of an input as declared, empty where there is none."""
    path = spec.get("path") if isinstance(spec, Mapping) else spec
    return path if isinstance(path, str) and load.is_remote(path) else ""


def unset(type_: str) -> Unset:
    made = Unset(("",))
    made.type = type_
    return made


def _checked(value: Any, port: Input, mapping: Mapping, key: str) -> Value:
    try:
        made = typed(value, port.type)
    except ValueError as error:
        raise at(mapping, key, f"the value of input '{key}' {error}", "literal-type") from None
    problem = outside(made, port)
    if problem:
        raise at(mapping, key, f"the value {render(made)} of input '{key}' {problem}", "literal-range")
    return made


def _overlay(base: Output, over: Output) -> Output:
    return Output(over.type or base.type, over.mode or base.mode, over.uri or base.uri, base.line)
