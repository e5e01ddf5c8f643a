"""Components out of YAML mappings: ports, command, code and environment, with every path made absolute."""

from __future__ import annotations

import os
from typing import Any

from edgeml.pipeline import expressions
from edgeml.pipeline.graph import Component
from edgeml.pipeline.ports import ANY, DATA_TYPES, LITERAL_TYPES, Input, Output, default_value, literal_type, typed
from edgeml.pipeline.source import Mapping, Refuse, at, halt, tried

REMOTE = ("azureml:", "http://", "https://", "wasb://", "wasbs://", "abfs://", "abfss://", "adl://", "git+", "git://")

_ANYTHING = Input(type=ANY, optional=True)  # stands for a port that is not understood


def is_remote(path: str) -> bool:
    """Whether a path names something that is not on this machine."""
    return path.startswith(REMOTE)


def local_path(path: str, base_file: str) -> str:
    """A path written in a YAML file (perhaps with `file:`), absolute; relative ones start at the file's folder."""
    path = path.removeprefix("file://") if path.startswith("file://") else path.removeprefix("file:")
    return os.path.normpath(os.path.join(os.path.dirname(os.path.abspath(base_file)), os.path.expanduser(path)))


def section(mapping: Mapping, key: str) -> Mapping:
    """A sub-mapping, empty where it is absent or null."""
    value = mapping.get(key)
    if value is None:
        return Mapping(mapping.file, mapping.line_of(key))
    if not isinstance(value, Mapping):
        raise at(mapping, key, f"'{key}' must be a mapping of names to values")
    return value


def text(mapping: Mapping, key: str, default: str = "") -> str:
    """A scalar as text; null and absence give the default."""
    value = mapping.get(key)
    if value is None:
        return default
    if isinstance(value, (dict, list)):
        raise at(mapping, key, f"'{key}' must be a plain value")
    return str(value)


def boolean(mapping: Mapping, key: str, *, default: bool) -> bool:
    value = mapping.get(key)
    if value is None:
        return default
    try:
        return bool(typed(value, "boolean"))
    except ValueError:
        raise at(mapping, key, f"'{key}' must be true or false") from None


def component(mapping: Mapping, name: str, refuse: Refuse = halt) -> Component:
    """A command component from its own file or from the `component:` of a node."""
    inputs = section(mapping, "inputs")
    return _command(
        mapping,
        name=text(mapping, "name", name),
        inputs={port: tried(refuse, _ANYTHING, input_port, inputs, port) for port in inputs},
        refuse=refuse,
    )


def inline_command(mapping: Mapping, name: str, inputs: dict[str, Input], refuse: Refuse = halt) -> Component:
    """The component that a node with its own `command:` stands for; its inputs' types are known from their values."""
    return _command(mapping, name=name, inputs=inputs, refuse=refuse)


def _command(mapping: Mapping, *, name: str, inputs: dict[str, Input], refuse: Refuse) -> Component:
    command = mapping.get("command")
    if not isinstance(command, str) or not command.strip():
        raise at(mapping, "command", f"component '{name}' has no command", "missing-key")
    outputs = section(mapping, "outputs")
    made = Component(
        name=name,
        version=text(mapping, "version"),
        command=command,
        code=tried(refuse, "", _code, mapping),
        includes=tried(refuse, (), _includes, mapping),
        environment=environment(mapping),
        environment_variables=variables(mapping),
        inputs=inputs,
        outputs={port: tried(refuse, Output(), output_port, outputs, port) for port in outputs},
        deterministic=boolean(mapping, "is_deterministic", default=True),
        tags={str(key): str(value) for key, value in section(mapping, "tags").items()},
        distribution=section(mapping, "distribution"),
        file=mapping.file,
        line=mapping.line_of("command"),
        environment_line=mapping.line_of("environment"),
    )
    _check_placeholders(made, mapping, refuse)
    return made


def input_port(inputs: Mapping, name: str) -> Input:
    """A declared input of a component (or of a pipeline that declares it with a type)."""
    spec = inputs[name]
    line = inputs.line_of(name)
    if isinstance(spec, str):  # the short form, `name: number`
        spec = _short(inputs, name, spec)
    if not isinstance(spec, Mapping):
        raise at(inputs, name, f"input '{name}' must be a mapping with a type")
    type_ = text(spec, "type", "uri_folder" if "path" in spec else "string").strip()
    if type_ not in LITERAL_TYPES | DATA_TYPES:
        raise at(spec, "type", f"input '{name}' has the type '{type_}', which this runner does not know", "wrong-value")
    try:
        default = spec.get("default")
        if default is not None and type_ in LITERAL_TYPES:
            default = default_value(default, type_)
        return Input(
            type=type_,
            optional=boolean(spec, "optional", default=False),
            default=default,
            minimum=_bound(spec, "min"),
            maximum=_bound(spec, "max"),
            enum=tuple(spec.get("enum") or ()),
            mode=text(spec, "mode"),
            line=line,
        )
    except ValueError as error:
        raise at(spec, "default", f"the default of input '{name}' {error}", "literal-type") from None


def value_port(value: Any, line: int) -> Input:
    """The input that an undeclared value stands for."""
    if isinstance(value, Mapping):
        type_ = text(value, "type", "uri_folder" if "path" in value else "")
        return Input(type=type_ or literal_type(value.get("value")), mode=text(value, "mode"), line=line)
    return Input(type=literal_type(value), line=line)


def output_port(outputs: Mapping, name: str) -> Output:
    """A declared output; `null` and a binding declare nothing but the name."""
    spec = outputs[name]
    line = outputs.line_of(name)
    if spec is None or expressions.single(spec):
        return Output(line=line)
    if isinstance(spec, str):
        spec = _short(outputs, name, spec)
    if not isinstance(spec, Mapping):
        raise at(outputs, name, f"output '{name}' must be a mapping with a type")
    type_ = text(spec, "type")
    if type_ and type_ not in DATA_TYPES | LITERAL_TYPES:
        raise at(
            spec, "type", f"output '{name}' has the type '{type_}', which this runner does not know", "wrong-value"
        )
    return Output(type=type_, mode=text(spec, "mode"), uri=text(spec, "path"), line=line)


def environment(mapping: Mapping) -> Any:
    """The declared environment: its reference, or its mapping with `conda_file` and `build.path` made absolute."""
    declared = mapping.get("environment")
    if isinstance(declared, Mapping):
        made: dict[str, Any] = {
            key: dict(value) if isinstance(value, Mapping) else value for key, value in declared.items()
        }
        if isinstance(made.get("conda_file"), str):
            made["conda_file"] = local_path(made["conda_file"], mapping.file)
        build = made.get("build")
        if isinstance(build, dict) and isinstance(build.get("path"), str) and not is_remote(build["path"]):
            build["path"] = local_path(build["path"], mapping.file)
        return made
    if isinstance(declared, str) and not is_remote(declared):
        return "file:" + local_path(declared, mapping.file)
    return declared or ""


def variables(mapping: Mapping) -> dict[str, str]:
    """`environment_variables` as text, booleans as the YAML reader's Python would print them, without null ones."""
    declared = section(mapping, "environment_variables")
    return {str(name): str(value) for name, value in declared.items() if value is not None}


def _short(mapping: Mapping, name: str, type_: str) -> Mapping:
    spec = Mapping(mapping.file, mapping.line_of(name))
    spec["type"] = type_
    return spec


def _bound(spec: Mapping, key: str) -> float | None:
    value = spec.get(key)
    if value is None:
        return None
    try:
        number = typed(value, "number")
    except ValueError as error:
        raise at(spec, key, f"'{key}' {error}", "literal-type") from None
    assert not isinstance(number, str)
    return number


def _code(mapping: Mapping) -> str:
    path = text(mapping, "code")
    if not path:
        return ""
    if is_remote(path):
        raise at(mapping, "code", f"the code '{path}' is not on this machine; check it out and name the folder")
    path = local_path(path, mapping.file)
    if not os.path.exists(path):
        raise at(mapping, "code", f"the code folder {os.path.relpath(path)} does not exist", "missing-path")
    return path


def _includes(mapping: Mapping) -> tuple[str, ...]:
    listed = mapping.get("additional_includes") or _listed_beside(mapping.file)
    if not isinstance(listed, list):
        raise at(mapping, "additional_includes", "'additional_includes' must be a list of paths")
    paths = []
    for item in listed:
        if not isinstance(item, str):
            raise at(mapping, "additional_includes", "only local paths can be included here, no artifacts of a feed")
        path = local_path(item, mapping.file)
        if not os.path.exists(path):
            message = f"the additional include {os.path.relpath(path)} does not exist"
            raise at(mapping, "additional_includes", message, "missing-path", item)
        paths.append(path)
    return tuple(paths)


def _listed_beside(file: str) -> list[str]:
    """The older form: a file of the component's own name that holds one path a line."""
    path = os.path.splitext(file)[0] + ".additional_includes"
    if not os.path.isfile(path):
        return []
    with open(path, encoding="utf-8-sig") as stream:
        return [line.strip() for line in stream if line.strip()]


def _check_placeholders(component: Component, mapping: Mapping, refuse: Refuse) -> None:
    """Every placeholder of the command names a declared input or output."""
    declared: dict[str, frozenset[str]] = {
        "inputs": frozenset(component.inputs),
        "outputs": frozenset(component.outputs),
    }
    for binding in expressions.references(component.command):
        if ".".join(binding.path[1:]) not in declared.get(binding.path[0], ()):
            message = f"the command of '{component.name}' uses {binding}, which the component does not declare"
            refuse(at(mapping, "command", message, "undeclared-placeholder", binding))
