"""The OpenAPI document of this very model, and the page that shows it; nothing is fetched from elsewhere."""

from __future__ import annotations

import base64
import hashlib
import html
import json
from typing import Any

import numpy as np

from edgeml.serving.model import Model
from edgeml.serving.settings import Settings
from edgeml.serving.signature import ANY, Column, Tensor
from edgeml.serving.window import GOLDEN

_TEXT = {"type": "string"}
_NUMBERS = {"number": "number", "integer": "integer", "boolean": "boolean", "string": "string"}


def document(model: Model, settings: Settings) -> dict[str, Any]:
    """OpenAPI 3.1, with the columns and tensors of the model as schemas and one neutral row as example."""
    base = f"/v2/models/{model.name}"
    versioned = f"{base}/versions/{model.version}"
    table = _post("score", "Score rows: named columns, rows in order, or records", "Table", "Predictions")
    infer = _post("infer", "Infer by the Open Inference Protocol, version 2", "InferenceRequest", "InferenceResponse")
    table["requestBody"]["content"]["application/json"]["example"] = example(model)
    infer["requestBody"]["content"]["application/json"]["example"] = example_v2(model)
    paths: dict[str, Any] = {
        "/score": {"post": table},
        "/v2": {"get": _get("server", "The server", "Server")},
        "/v2/health/live": {"get": _get("live", "Whether the process answers", "Live")},
        "/v2/health/ready": {"get": _get("ready", "Whether requests are welcome", "Ready", unready=True)},
        "/metrics": {"get": _text("metrics", "Counters for Prometheus", "text/plain")},
        "/openapi.json": {"get": _get("openapi", "This document", "Any")},
        "/": {"get": _text("page", "This document for people", "text/html")},
    }
    for path, suffix in ((base, ""), (versioned, "Version")):
        paths[path] = {"get": _get(f"model{suffix}", "The model and its tensors", "Model")}
        paths[f"{path}/ready"] = {
            "get": _get(f"modelReady{suffix}", "Whether requests are welcome", "Ready", unready=True)
        }
        paths[f"{path}/infer"] = {"post": infer | {"operationId": f"infer{suffix}"}}
    return {
        "openapi": "3.1.0",
        "info": {
            "title": model.name,
            "version": model.version,
            "description": f"Model sha256:{model.sha256}. At most {settings.rows} rows and {settings.body_bytes} bytes "
            "a request. A missing number is null; JSON has no NaN.",
        },
        "paths": paths,
        "components": {"schemas": _schemas(model)},
    }


def example(model: Model) -> dict[str, Any]:
    """A request for /score: one row of zeros and empty texts, which says nothing of anybody."""
    columns = model.signature.columns
    return {
        "input_data": {
            "columns": [column.name for column in columns],
            "data": [[_neutral(column.kind, column.shape) for column in columns]],
        }
    }


def example_v2(model: Model) -> dict[str, Any]:
    """The same for /infer."""
    inputs = []
    for tensor in model.signature.inputs:
        shape = [abs(size) for size in tensor.shape]
        data = [_neutral(_kind(tensor), ())] * int(np.prod(shape))
        inputs.append({"name": tensor.name, "shape": shape, "datatype": tensor.datatype, "data": data})
    return {"inputs": inputs}


def page(model: Model) -> tuple[bytes, str]:
    """The page, and the content security policy that lets nothing but its own parts run."""
    rows = "".join(
        f"<tr><td>{html.escape(column.name)}</td><td>{column.kind}</td><td>{_per_row(column)}</td></tr>"
        for column in model.signature.columns
    )
    base = f"/v2/models/{model.name}"
    ways = (
        ("POST", "/score", "named columns in, one prediction per row out"),
        ("POST", f"{base}/infer", "the same by the Open Inference Protocol"),
        ("GET", base, "the model's tensors"),
        ("GET", "/v2/health/live", "liveness"),
        ("GET", "/v2/health/ready", "readiness"),
        ("GET", "/metrics", "counters for Prometheus"),
        ("GET", "/openapi.json", "the OpenAPI document"),
    )
    table = "".join(f"<tr><td>{verb}</td><td><code>{path}</code></td><td>{what}</td></tr>" for verb, path, what in ways)
    body = html.escape(json.dumps(example(model), indent=1))
    content = (
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{model.name}</title>'
        f'<meta name="viewport" content="width=device-width"><style>{_STYLE}</style>'
        f"<h1>{model.name} <small>{model.version}</small></h1><p><code>sha256:{model.sha256}</code></p>"
        f"<h2>Ways in</h2><table>{table}</table>"
        f"<h2>Columns</h2><table><tr><th>name</th><th>type</th><th>values per row</th></tr>{rows}</table>"
        f'<h2>Try it</h2><textarea id="body" rows="12" spellcheck="false">{body}</textarea>'
        f'<p><button id="send">POST /score</button></p><pre id="answer"></pre><script>{_SCRIPT}</script>'
    )
    return content.encode(), _POLICY


_STYLE = (
    "body{font:16px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem;color:#222}"
    "small{font-weight:400;color:#595959}table{border-collapse:collapse}"
    "td,th{text-align:left;padding:.2rem 1rem .2rem 0;border-bottom:1px solid #ddd}"
    "textarea{width:100%;font:14px monospace}pre{white-space:pre-wrap}"
)
_SCRIPT = (
    "document.getElementById('send').onclick=async()=>{const answer=document.getElementById('answer');"
    "const got=await fetch('score',{method:'POST',headers:{'content-type':'application/json'},"
    "body:document.getElementById('body').value});answer.textContent=got.status+' '+await got.text()}"
)


def _hash(text: str) -> str:
    return "'sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode() + "'"


_POLICY = (
    f"default-src 'none'; style-src {_hash(_STYLE)}; script-src {_hash(_SCRIPT)}; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)


# ---- operations ----


def _post(name: str, summary: str, taken: str, given: str) -> dict[str, Any]:
    errors = {
        status: _answer(what, "Error")
        for status, what in (
            ("400", "The request does not fit the model; `field` names the column or tensor"),
            ("408", "The request did not arrive in time"),
            ("413", "Too many bytes or rows"),
            ("415", "A compressed body"),
            ("503", "A limit of the server is reached; try again"),
        )
    }
    return {
        "operationId": name,
        "summary": summary,
        "requestBody": {"required": True, "content": {"application/json": {"schema": _ref(taken)}}},
        "responses": {"200": _answer("The answer", given), **errors},
    }


def _get(name: str, summary: str, given: str, *, unready: bool = False) -> dict[str, Any]:
    responses = {"200": _answer(summary, given)}
    if unready:
        responses["503"] = _answer("The server is about to end", given)
    return {"operationId": name, "summary": summary, "responses": responses}


def _text(name: str, summary: str, kind: str) -> dict[str, Any]:
    return {
        "operationId": name,
        "summary": summary,
        "responses": {"200": {"description": summary, "content": {kind: {"schema": _TEXT}}}},
    }


def _answer(description: str, schema: str) -> dict[str, Any]:
    return {"description": description, "content": {"application/json": {"schema": _ref(schema)}}}


def _ref(name: str) -> dict[str, str]:
    return {"$ref": f"#/components/schemas/{name}"}


# ---- schemas ----


def _schemas(model: Model) -> dict[str, Any]:
    signature = model.signature
    names = [column.name for column in signature.columns]
    record = _closed({column.name: _cell(column) for column in signature.columns})
    row = {
        "type": "array",
        "prefixItems": [_cell(c) for c in signature.columns],
        "items": False,
        "minItems": len(names),
    }
    any_order = {"type": "array", "minItems": len(names), "maxItems": len(names)}
    split = _closed(
        {
            "columns": {**any_order, "items": {"enum": names}, "uniqueItems": True},
            "data": _list(any_order, least=1),
            "index": {},
        },
        optional=("index",),
    )
    lists: list[Any] = [_list(row, least=1), _list(_ref("Record"), least=1)]
    tensor = {"name": _TEXT, "datatype": _TEXT, "shape": _list({"type": "integer"})}
    parameters = {"type": ["object", "null"]}
    given = {
        "name": {"enum": [tensor.name for tensor in signature.inputs]},
        "shape": _list({"type": "integer", "minimum": 0}),
        "datatype": {"enum": sorted({tensor.datatype for tensor in signature.inputs})},
        "data": {"type": "array"},
        "parameters": parameters,
    }
    output = {"name": {"enum": [tensor.name for tensor in signature.outputs]}, "parameters": parameters}
    request = {
        "inputs": _list(_closed(given, optional=("parameters",))),
        "id": {"type": ["string", "null"]},
        "outputs": {"type": ["array", "null"], "items": _closed(output, optional=("parameters",))},
        "parameters": parameters,
    }
    answered = [
        _closed(
            {
                "name": {"const": port.name},
                "datatype": {"const": port.datatype},
                "shape": _list({"type": "integer"}),
                "data": _list(_element(_kind(port))),
            }
        )
        for port in signature.outputs
    ]
    named = {"model_name": {"const": model.name}, "model_version": {"const": model.version}}
    prediction = _closed({port.name: _predicted(port, signature.classes) for port in signature.outputs})
    return {
        "Record": record,
        "Table": {
            "anyOf": [
                *(
                    _closed({key: {"anyOf": [split, *lists]}, "id": {"const": GOLDEN}}, optional=("id",))
                    for key in ("input_data", "data")
                ),
                *lists,
            ]
        },
        "Predictions": _closed({**named, "predictions": _list(prediction, least=1)}),
        "InferenceRequest": _closed(request, optional=("id", "outputs", "parameters")),
        "InferenceResponse": _closed(
            {**named, "id": _TEXT, "outputs": _list({"anyOf": answered})},
            optional=("id",),
        ),
        "Model": _closed(
            {
                "name": {"const": model.name},
                "versions": _list({"const": model.version}),
                "platform": _TEXT,
                "inputs": _list(_closed(tensor)),
                "outputs": _list(_closed(tensor)),
            }
        ),
        "Server": _closed({"name": _TEXT, "version": _TEXT, "extensions": _list(_TEXT)}),
        "Live": _closed({"live": {"type": "boolean"}}),
        "Ready": _closed({"ready": {"type": "boolean"}, "name": _TEXT}, optional=("name",)),
        "Error": _closed({"error": _TEXT, "field": _TEXT}, optional=("field",)),
        "Any": {"type": "object"},
    }


def _closed(properties: dict[str, Any], optional: tuple[str, ...] = ()) -> dict[str, Any]:
    required = [name for name in properties if name not in optional]
    return {"type": "object", "properties": properties, "required": required, "additionalProperties": False}


def _list(items: Any, least: int = 0) -> dict[str, Any]:
    return {"type": "array", "items": items, **({"minItems": least} if least else {})}


def _cell(column: Column) -> dict[str, Any]:
    missing = np.dtype(column.dtype).kind in "fO"
    made: dict[str, Any] = {"type": [_NUMBERS[column.kind], "null"] if missing else _NUMBERS[column.kind]}
    for size in reversed(column.shape):
        made = _list(made) | ({"minItems": size, "maxItems": size} if size != ANY else {})
    return made


def _element(kind: str) -> dict[str, Any]:
    return {"type": ["number", "null"] if kind == "number" else kind}


def _predicted(port: Tensor, classes: tuple[str, ...]) -> dict[str, Any]:
    """One row's part of an output, as table.py writes it."""
    element = _element(_kind(port))
    if len(port.shape) == 2 and port.shape[1] == len(classes) and port.datatype.startswith("FP"):
        return _closed(dict.fromkeys(classes, element))
    for _ in port.shape[1:] if port.shape[1:] != (1,) else ():
        element = _list(element)
    return element


def _neutral(kind: str, shape: tuple[int, ...]) -> Any:
    value: Any = {"number": 0.0, "integer": 0, "boolean": False, "string": ""}[kind]
    for size in reversed(shape):
        value = [value] * abs(size)
    return value


def _kind(tensor: Tensor) -> str:
    return {"BYTES": "string", "BOOL": "boolean"}.get(
        tensor.datatype, "number" if tensor.datatype.startswith("FP") else "integer"
    )


def _per_row(column: Column) -> str:
    return "×".join("any" if size == ANY else str(size) for size in column.shape) or "1"
