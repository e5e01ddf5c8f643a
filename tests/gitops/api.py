"""GitHub's published API description (npm `@octokit/openapi`), reduced to what is used, and what is held against it.

A request must name a described operation, with described parameters and a body of its schema; an answer must be of the
schema of its status. What an answer lacks of required properties is filled in from the schema, so the server
says only what matters and is always of the whole form.
"""

from __future__ import annotations

import copy
import json
import re
import shutil
from functools import cache, cached_property
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from jsonschema import Draft202012Validator

from edgeml.storage import install

RECIPE = Path(__file__).parent / "api"
VERSION = "23.0.2"  # here too, since what is kept was made by this very file
R = "/repos/{owner}/{repo}"
OPERATIONS = {
    R: "get",
    f"{R}/git/ref/{{ref}}": "get",
    f"{R}/git/refs": "post",
    f"{R}/git/refs/{{ref}}": "patch",
    f"{R}/git/tags/{{tag_sha}}": "get",
    f"{R}/git/trees/{{tree_sha}}": "get",
    f"{R}/git/trees": "post",
    f"{R}/git/blobs/{{file_sha}}": "get",
    f"{R}/git/blobs": "post",
    f"{R}/git/commits/{{commit_sha}}": "get",
    f"{R}/git/commits": "post",
    f"{R}/contents/{{path}}": "get",
    f"{R}/commits": "get",
    f"{R}/commits/{{commit_sha}}/pulls": "get",
    f"{R}/commits/{{ref}}/check-runs": "get",
    f"{R}/commits/{{ref}}/status": "get",
    f"{R}/compare/{{basehead}}": "get",
    f"{R}/pulls": "get post",
    f"{R}/pulls/{{pull_number}}": "patch",
    f"{R}/pulls/{{pull_number}}/reviews": "get",
    f"{R}/pulls/{{pull_number}}/files": "get",
    f"{R}/collaborators/{{username}}/permission": "get",
    f"{R}/activity": "get",
    f"{R}/deployments": "get post",
    f"{R}/environments/{{environment_name}}": "get",
    f"{R}/deployments/{{deployment_id}}/statuses": "get post",
    f"{R}/actions/workflows/{{workflow_id}}/dispatches": "post",
    f"{R}/issues": "get post",
    f"{R}/issues/{{issue_number}}": "patch",
    "/orgs/{org}/teams/{team_slug}/memberships/{username}": "get",
}
_WORDS = frozenset({"description", "example", "examples", "title", "deprecated", "externalDocs"})
_DEEP = frozenset({"ref", "path"})  # parameters that may hold slashes, last in their path


class BreachError(AssertionError):
    """Something that GitHub's description does not allow."""


def description(state: Path) -> dict[str, Any]:
    """The reduced description, installed and cut down once under the project's state folder."""
    assert json.loads((RECIPE / "package.json").read_text("utf-8"))["dependencies"]["@octokit/openapi"] == VERSION
    folder = install.kept(state / "github-api", Path(__file__), lambda new: _cut(new, state))
    reduced: dict[str, Any] = json.loads((folder / "api.json").read_text("utf-8"))
    return reduced


def _cut(new: Path, state: Path) -> None:
    install.npm_ci(new, RECIPE, state)
    whole = json.loads((new / "node_modules/@octokit/openapi/generated/api.github.com.json").read_text("utf-8"))
    (new / "api.json").write_text(json.dumps(reduce(whole)), "utf-8")
    shutil.rmtree(new / "node_modules")


def reduce(whole: dict[str, Any]) -> dict[str, Any]:
    """The operations that are used and the components that they reach, as JSON Schema (3.0's `nullable` is none)."""
    paths = {
        path: {
            "parameters": whole["paths"][path].get("parameters", []),
            **{m: _operation(whole["paths"][path][m]) for m in methods.split()},
        }
        for path, methods in OPERATIONS.items()
    }
    components: dict[str, dict[str, Any]] = {}
    waiting = [paths]
    while waiting:
        for kind, name in _references(waiting.pop()):
            if name not in components.setdefault(kind, {}):
                components[kind][name] = whole["components"][kind][name]
                waiting.append(components[kind][name])
    return {"paths": _schema(paths), "components": _schema(components)}


def _operation(operation: dict[str, Any]) -> dict[str, Any]:
    return {key: operation[key] for key in ("parameters", "requestBody", "responses") if key in operation}


def _references(part: Any) -> set[tuple[str, str]]:
    if isinstance(part, dict):
        own = part.get("$ref")
        found = {tuple(own.split("/")[2:4])} if isinstance(own, str) and "/examples/" not in own else set()
        return found.union(*(_references(value) for key, value in part.items() if key not in _WORDS))  # type: ignore[return-value]
    return set().union(*map(_references, part)) if isinstance(part, list) else set()


def _schema(part: Any) -> Any:
    if isinstance(part, list):
        return [_schema(each) for each in part]
    if not isinstance(part, dict):
        return part
    made = {
        key: {name: _schema(each) for name, each in value.items()} if key == "properties" else _schema(value)
        for key, value in part.items()
        if key not in _WORDS or not isinstance(part.get("type"), str | type(None))
    }
    if made.pop("nullable", False) is True:
        if "enum" in made:
            made["enum"] = [*made["enum"], None]
        if isinstance(made.get("type"), str):
            made["type"] = [made["type"], "null"]
        else:
            made = {"anyOf": [made, {"type": "null"}]}
    return made


class Api:
    """The description at work."""

    def __init__(self, reduced: dict[str, Any]) -> None:
        self.reduced = reduced
        self._patterns = [(_pattern(path), path) for path in sorted(OPERATIONS, key=lambda p: (p.count("{"), -len(p)))]

    def match(self, method: str, path: str) -> tuple[str, dict[str, str]]:
        """The described path and its parameters. Raises `BreachError` for an operation that is not described."""
        for pattern, name in self._patterns:
            found = pattern.fullmatch(path)
            if found and method.lower() in self.reduced["paths"][name]:
                return name, {key: unquote(value) for key, value in found.groupdict().items()}
        raise BreachError(f"{method} {path} is no operation that is described here")

    def check_request(self, method: str, name: str, query: dict[str, str], body: Any) -> None:
        operation, both = self.reduced["paths"][name][method.lower()], self.reduced["paths"][name]["parameters"]
        known = [self._resolved(parameter) for parameter in (*both, *operation.get("parameters", []))]
        described = {each["name"]: each["schema"] for each in known if each["in"] == "query"}
        for key, value in query.items():
            if key not in described:
                raise BreachError(f"{method} {name} has no parameter {key}")
            self._validate(_typed(value, described[key]), described[key], f"{method} {name} ?{key}")
        schema = operation.get("requestBody", {}).get("content", {}).get("application/json", {}).get("schema")
        if body is not None and schema is None:
            raise BreachError(f"{method} {name} takes no body")
        if schema is not None:
            self._validate(body, schema, f"{method} {name} body")
            if unknown := set(body) - set(self._properties(schema)):
                raise BreachError(f"{method} {name} has no body property {sorted(unknown)}")

    def answer(self, method: str, name: str, status: int, partial: Any) -> Any:
        """The answer with all that its schema requires. Raises `BreachError` where it does not fit."""
        response = self._resolved(self.reduced["paths"][name][method.lower()]["responses"][str(status)])
        if "content" not in response:
            return b""
        schema = response["content"]["application/json"]["schema"]
        whole = self.filled(schema, copy.deepcopy(partial))
        self._validate(whole, schema, f"{method} {name} {status}")
        return whole

    def filled(self, schema: dict[str, Any], value: Any) -> Any:
        schema = self._resolved(schema)
        if isinstance(value, list):
            return [self.filled(schema.get("items", {}), each) for each in value]
        if not isinstance(value, dict):
            return value
        for part in schema.get("allOf", []):
            value = self.filled(part, value)
        for part in [p for key in ("anyOf", "oneOf") for p in schema.get(key, [])]:
            if not self._errors(self.filled(part, copy.deepcopy(value)), part):
                value = self.filled(part, value)
                break
        for key, inner in schema.get("properties", {}).items():
            if key in value:
                value[key] = self.filled(inner, value[key])
            elif key in schema.get("required", []):
                value[key] = self._least(inner)
        return value

    def _least(self, schema: dict[str, Any]) -> Any:
        """The smallest value that a schema takes."""
        schema = self._resolved(schema)
        if "null" in (kinds := schema.get("type", [])) or schema.get("anyOf", [{}])[-1].get("type") == "null":
            return None
        if "enum" in schema:
            return schema["enum"][0]
        for key in ("anyOf", "oneOf"):
            if key in schema:
                return self._least(schema[key][0])
        if kinds == "object" or "properties" in schema or "allOf" in schema:
            return self.filled(schema, {})
        plain = {"array": [], "boolean": False, "integer": 1, "number": 1}
        formats = {"date-time": "2026-11-25T00:00:00Z", "uri": "https://github.example/x"}
        return plain.get(kinds, formats.get(schema.get("format", ""), "x"))  # type: ignore[arg-type]

    def _properties(self, schema: dict[str, Any]) -> dict[str, Any]:
        schema = self._resolved(schema)
        found = dict(schema.get("properties", {}))
        for part in [p for key in ("allOf", "anyOf", "oneOf") for p in schema.get(key, [])]:
            found |= self._properties(part)
        return found

    def _resolved(self, part: dict[str, Any]) -> dict[str, Any]:
        while "$ref" in part:
            _, _, kind, name = part["$ref"].split("/")
            part = self.reduced["components"][kind][name]
        return part

    @cached_property
    def _validators(self) -> dict[str, Draft202012Validator]:
        return {}

    def _errors(self, value: Any, schema: dict[str, Any]) -> list[str]:
        key = json.dumps(schema, sort_keys=True)
        if key not in self._validators:
            self._validators[key] = Draft202012Validator({**schema, "components": self.reduced["components"]})
        errors = self._validators[key].iter_errors(value)
        return [f"{'/'.join(map(str, error.absolute_path))}: {error.message[:200]}" for error in errors]

    def _validate(self, value: Any, schema: dict[str, Any], where: str) -> None:
        if errors := self._errors(value, schema):
            raise BreachError(f"{where}: {errors[0]}")


def _typed(value: str, schema: dict[str, Any]) -> Any:
    return int(value) if schema.get("type") == "integer" and value.isdigit() else value


@cache
def _pattern(path: str) -> re.Pattern[str]:
    def group(match: re.Match[str]) -> str:
        deep = match[1] in _DEEP and path.endswith(match[0])
        return f"(?P<{match[1]}>{'.+' if deep else '[^/]+'})"

    return re.compile(re.sub(r"\{(\w+)\}", group, path))
