"""ARM templates: read strictly, and evaluated with the parameters of one deployment into what it would make."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from edgeml.errors import EdgemlError
from edgeml.infra.expression import ExpressionError, Scope, Unknown, resolve, resource_id

MAX_BYTES = 4 << 20  # Resource Manager's own limit for a template
SCHEMA = "https://schema.management.azure.com/schemas/2019-04-01/deploymentTemplate.json#"
PARAMETERS_SCHEMA = "https://schema.management.azure.com/schemas/2019-04-01/deploymentParameters.json#"
MAX_COPIES = 800
_TOP = {"$schema", "contentVersion", "metadata", "parameters", "variables", "resources", "outputs"}
_TYPES: dict[str, type | tuple[type, ...]] = {
    "string": str,
    "securestring": str,
    "int": int,
    "bool": bool,
    "array": list,
    "object": dict,
    "secureobject": dict,
}
_PARAMETER = {"type", "defaultValue", "allowedValues", "minLength", "maxLength", "minValue", "maxValue", "metadata"}
_NAMED = re.compile(r"\b(parameters|variables)\('(\w+)'\)", re.IGNORECASE)
_RESOURCE = {"type", "apiVersion", "name", "condition", "copy", "dependsOn", "comments", "scope"}


class TemplateError(EdgemlError):
    """A template, or the parameters given to it, that Resource Manager would not accept."""


@dataclass(frozen=True)
class Place:
    """Where a template is deployed."""

    subscription: str
    group: str
    location: str
    tenant: str = "00000000-0000-0000-0000-000000000000"


@dataclass(frozen=True)
class Resource:
    """One resource as it would be sent: everything but type, name and version is in `body`."""

    type: str
    api_version: str
    name: str
    id: str
    body: dict[str, Any]
    depends_on: tuple[str, ...]
    where: str
    """Its place in the template, for messages: `resources[3]`."""


@dataclass(frozen=True)
class Deployment:
    """A template evaluated: loops unrolled, what its conditions leave out apart, and what nothing asks for."""

    resources: list[Resource]
    left_out: set[str]
    """Ids of resources whose condition is false."""
    outputs: dict[str, Any]
    unused: set[str] = field(default_factory=set)

    @property
    def by_id(self) -> dict[str, Resource]:
        return {resource.id.lower(): resource for resource in self.resources}


def load(path: Path) -> dict[str, Any]:
    """A JSON file of templates: strict JSON, no key twice. Raises TemplateError naming the file."""
    if path.stat().st_size > MAX_BYTES:
        raise TemplateError(f"{path} is larger than Resource Manager takes ({MAX_BYTES >> 20} MB); split it")
    try:
        document = json.loads(path.read_text("utf-8"), object_pairs_hook=_once, parse_constant=_no_constant)
    except (json.JSONDecodeError, UnicodeDecodeError, RecursionError, TemplateError) as error:
        raise TemplateError(f"{path} is not valid JSON ({error}); mend it") from None
    if not isinstance(document, dict):
        raise TemplateError(f"{path} does not hold an object; it is no template")
    return document


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        twice = sorted({key for key, _ in pairs if sum(key == other for other, _ in pairs) > 1})
        raise TemplateError(f"the key '{twice[0]}' stands twice")
    return found


def _no_constant(name: str) -> Any:
    raise TemplateError(f"{name} is no JSON")


def values_of(path: Path) -> dict[str, Any]:
    """The values of a deployment parameters file. Raises TemplateError."""
    document = load(path)
    if document.get("$schema") != PARAMETERS_SCHEMA or not isinstance(document.get("parameters"), dict):
        raise TemplateError(f"{path} is no deployment parameters file; its $schema must be {PARAMETERS_SCHEMA}")
    found = {}
    for name, entry in document["parameters"].items():
        if not isinstance(entry, dict) or set(entry) != {"value"}:
            raise TemplateError(f"{path}: parameter '{name}' must be an object with 'value' alone")
        found[name] = entry["value"]
    return found


def evaluate(template: Mapping[str, Any], values: Mapping[str, Any], place: Place) -> Deployment:
    """What a template would make of `values` at `place`. Raises TemplateError, naming the part at fault."""
    _known_keys(template, _TOP, "the template")
    if template.get("$schema") != SCHEMA:
        raise TemplateError(f"$schema must be {SCHEMA}")
    parameters = arguments(template.get("parameters", {}), values, place)
    scope = Scope(
        parameters=parameters,
        variables=_without_copy(template.get("variables", {})),
        subscription=place.subscription,
        group=place.group,
        location=place.location,
        tenant=place.tenant,
        at_run_time=False,
    )
    entries = template.get("resources")
    if not isinstance(entries, list) or not entries:
        raise TemplateError("resources must be a list of at least one; a template without them makes nothing")
    found: list[Resource] = []
    left_out: set[str] = set()
    loops: dict[str, tuple[str, ...]] = {}
    for number, entry in enumerate(entries):
        where = f"resources[{number}]"
        for copies in _copies(entry, where, scope):
            scope.copies = copies
            resource, wanted = _resource(entry, where, scope)
            for loop in copies:
                loops[loop] = (*loops.get(loop, ()), resource.id)
            if wanted:
                found.append(resource)
            else:
                left_out.add(resource.id.lower())
        scope.copies = {}
    twice = {one.id for one in found if sum(one.id.lower() == other.id.lower() for other in found) > 1}
    if twice:
        raise TemplateError(f"{sorted(twice)[0]} is made twice; one of the two must go, or have another name")
    found = [replace(one, depends_on=_unrolled(one, loops)) for one in found]
    scope.at_run_time = True
    outputs = {}
    for name, output in template.get("outputs", {}).items():
        _known_keys(output, {"type", "value", "condition", "metadata"}, f"outputs.{name}")
        if resolve(output.get("condition", True), scope) is True:
            outputs[name] = _in(f"outputs.{name}", output.get("value"), scope)
    named = {f"{kind.lower()}/{name}" for kind, name in _NAMED.findall(json.dumps(template))}
    declared = {f"parameters/{name}" for name in parameters} | {f"variables/{name}" for name in scope.variables}
    return Deployment(found, left_out, outputs, declared - named)


def arguments(declared: Mapping[str, Any], values: Mapping[str, Any], place: Place) -> dict[str, Any]:
    """The parameters' values: as given, else their defaults. Raises TemplateError for one that may not be."""
    strange = sorted(set(values) - set(declared))
    if strange:
        raise TemplateError(f"the template has no parameter '{strange[0]}'; it has {', '.join(sorted(declared))}")
    scope = Scope({}, {}, place.subscription, place.group, place.location, place.tenant, at_run_time=False)
    found: dict[str, Any] = {}
    for name, one in declared.items():
        _known_keys(one, _PARAMETER, f"parameters.{name}")
        if name in values:
            found[name] = values[name]
        elif "defaultValue" in one:
            found[name] = _in(f"parameters.{name}", one["defaultValue"], scope)
        else:
            raise TemplateError(f"the parameter '{name}' has no value; give it one")
        _fits(name, one, found[name])
    return found


def _fits(name: str, declared: Mapping[str, Any], value: Any) -> None:
    kind = _TYPES.get(str(declared.get("type", "")).lower())
    if kind is None:
        raise TemplateError(f"parameters.{name}: type must be one of {', '.join(_TYPES)}")
    if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
        raise TemplateError(f"the parameter '{name}' must be of type {declared['type']}")
    allowed = declared.get("allowedValues")
    if allowed is not None and value not in allowed:
        raise TemplateError(f"the parameter '{name}' must be one of {', '.join(map(str, allowed))}")
    size = len(value) if isinstance(value, str | list) else value if isinstance(value, int) else None
    unit = "characters" if isinstance(value, str) else "items" if isinstance(value, list) else ""
    if size is None:
        return
    least, most = (declared.get("minLength"), declared.get("maxLength")) if unit else _bounds(declared)
    if (least is not None and size < least) or (most is not None and size > most):
        span = f"{least if least is not None else 'any'} to {most if most is not None else 'any'}"
        raise TemplateError(f"the parameter '{name}' must have {span} {unit}".rstrip() + f", not {size}")


def _bounds(declared: Mapping[str, Any]) -> tuple[int | None, int | None]:
    return declared.get("minValue"), declared.get("maxValue")


def _copies(entry: Any, where: str, scope: Scope) -> Iterator[dict[str, int]]:
    """The loop counters of each copy of a resource; one without any where it is not copied."""
    if not isinstance(entry, dict):
        raise TemplateError(f"{where} must be an object")
    copy = entry.get("copy")
    if copy is None:
        yield {}
        return
    _known_keys(copy, {"name", "count", "mode", "batchSize"}, f"{where}.copy")
    count = _in(f"{where}.copy", copy.get("count"), scope)
    if not isinstance(count, int) or not 0 <= count <= MAX_COPIES:
        raise TemplateError(f"{where}.copy: count must be a number from 0 to {MAX_COPIES}")
    for index in range(count):
        yield {str(copy.get("name")): index}


def _resource(entry: Mapping[str, Any], where: str, scope: Scope) -> tuple[Resource, bool]:
    for key in ("type", "apiVersion", "name"):
        if not isinstance(entry.get(key), str):
            raise TemplateError(f"{where}: {key} is missing; state it, an API profile does not")
    scope.at_run_time = False
    kind, version = str(entry["type"]), str(entry["apiVersion"])
    name = _in(f"{where}.name", entry["name"], scope)
    wanted = _in(f"{where}.condition", entry.get("condition", True), scope)
    if not isinstance(wanted, bool):
        raise TemplateError(f"{where}.condition must be true or false")
    base = scope.group_id
    if "scope" in entry:
        base = _identity(_in(f"{where}.scope", entry["scope"], scope), f"{where}.scope")
    depends = tuple(
        _identity(_in(f"{where}.dependsOn", one, scope), f"{where}.dependsOn") for one in entry.get("dependsOn", [])
    )
    scope.at_run_time = True
    body = {key: value for key, value in entry.items() if key not in _RESOURCE}
    if wanted:
        body = _in(where, body, scope)
    try:
        found = resource_id(base, kind, *str(name).split("/"))
    except ValueError as error:
        raise TemplateError(f"{where}: the name does not fit its type ({error}); one name for each part") from None
    return Resource(kind, version, str(name), found, body, depends, where), wanted


def _identity(value: Any, where: str) -> str:
    """What `scope` and `dependsOn` name: an id from resourceId(), or the name of a loop."""
    if not isinstance(value, str) or ("/" in value and not value.startswith("/")):
        raise TemplateError(f"{where}: {value!r} names no resource; use resourceId()")
    return value


def _unrolled(resource: Resource, loops: Mapping[str, tuple[str, ...]]) -> tuple[str, ...]:
    """The ids that a resource waits for, a loop's name replaced by what the loop makes."""
    found: list[str] = []
    for one in resource.depends_on:
        if not one.startswith("/") and one not in loops:
            raise TemplateError(f"{resource.where}.dependsOn: there is no loop '{one}'; use resourceId() for resources")
        found += loops.get(one, (one,))
    return tuple(found)


def _in(where: str, value: Any, scope: Scope) -> Any:
    try:
        return resolve(value, scope)
    except ExpressionError as error:
        raise TemplateError(f"{where}: {error}") from None


def _known_keys(value: Any, known: set[str], where: str) -> None:
    if not isinstance(value, Mapping):
        raise TemplateError(f"{where} must be an object")
    strange = sorted(set(value) - known)
    if strange:
        raise TemplateError(f"{where} has the key '{strange[0]}', which is not of the form used here")


def _without_copy(variables: Any) -> Mapping[str, Any]:
    if not isinstance(variables, dict) or "copy" in variables:
        raise TemplateError("variables must be an object without 'copy'; loops are for resources")
    return variables


def leaves(value: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """Every text, number, truth and unknown of a value, with its path: `properties.sku.name`, `rules[ssh].access`."""
    if isinstance(value, Mapping):
        for key, item in value.items():
            yield from leaves(item, f"{path}.{key}" if path else str(key))
    elif isinstance(value, list):
        for number, item in enumerate(value):
            yield from leaves(item, f"{path}[{number}]")
    else:
        yield path, value


__all__ = ["Deployment", "Place", "Resource", "TemplateError", "Unknown", "evaluate", "leaves", "load", "values_of"]
