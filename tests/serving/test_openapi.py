"""What the server answers is what its own document says, and the page fetches nothing from elsewhere."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from tests.serving.conftest import Answer, Served
from tests.serving.test_score import NAMES, RECORD, ROW

Check = Callable[[str, str, Answer], None]


@pytest.fixture(scope="module", params=["mixed", "every"])
def served(request: pytest.FixtureRequest) -> Served:
    found: Served = request.getfixturevalue(request.param)
    return found


@pytest.fixture
def document(served: Served) -> Any:
    return served.ask("GET", "/openapi.json").json


def validator(document: Any, schema: dict[str, Any]) -> Draft202012Validator:
    return Draft202012Validator(schema | {"components": document["components"]})


def check(document: Any, method: str, path: str, answer: Answer) -> None:
    """The status, type and body of an answer are documented ones."""
    documented = document["paths"][path][method.lower()]["responses"]
    assert str(answer.status) in documented, f"{answer.status} is not documented for {path}"
    kind = answer.headers["content-type"].partition(";")[0]
    content = documented[str(answer.status)]["content"]
    assert list(content) == [kind]
    if kind == "application/json":
        validator(document, content[kind]["schema"]).validate(answer.json)


def test_every_documented_get_answers_as_documented(served: Served, document: Any) -> None:
    asked = [path for path, item in document["paths"].items() if "get" in item]
    assert len(asked) == 10
    for path in asked:
        check(document, "GET", path, served.ask("GET", path))


def test_every_documented_example_is_valid_and_works(served: Served, document: Any) -> None:
    posts = [(path, item["post"]) for path, item in document["paths"].items() if "post" in item]
    assert len(posts) == 3
    for path, operation in posts:
        content = operation["requestBody"]["content"]["application/json"]
        validator(document, content["schema"]).validate(content["example"])
        got = served.ask("POST", path, content["example"])
        assert got.status == 200, got.body
        check(document, "POST", path, got)


def test_the_schema_takes_and_refuses_what_the_server_does(mixed: Served) -> None:
    document = mixed.ask("GET", "/openapi.json").json
    schema = document["paths"]["/score"]["post"]["requestBody"]["content"]["application/json"]["schema"]
    for body in (
        {"input_data": {"columns": NAMES, "data": [ROW], "index": [0]}},
        {"data": [ROW]},
        [RECORD],
        [RECORD | {"age": None}],
        {"data": []},
        [ROW[:3]],
        [[*ROW, 1]],
        [RECORD | {"age": "2"}],
        [RECORD | {"more": 2}],
        {"input_data": {"columns": NAMES[:3], "data": [ROW[:3]]}},
        {"rows": [ROW]},
        {"data": [ROW], "input_data": [ROW]},
    ):
        got = mixed.score(body)
        check(document, "POST", "/score", got)
        assert validator(document, schema).is_valid(body) == (got.status == 200), body


def test_operations_have_names_of_their_own_and_references_resolve(document: Any) -> None:
    operations = [operation["operationId"] for item in document["paths"].values() for operation in item.values()]
    assert len(set(operations)) == len(operations) == 13
    Draft202012Validator.check_schema({"components": document["components"]})
    references = set(re.findall(r"'#/components/schemas/(\w+)'", str(document)))
    assert references <= set(document["components"]["schemas"])


def test_the_page_fetches_nothing_and_may_not(served: Served) -> None:
    got = served.ask("GET", "/")
    assert got.headers["content-type"] == "text/html; charset=utf-8"
    text = got.body.decode()
    assert not re.search(r"(?:src|href)=|//[a-z]|@import|url\(", text)
    assert "default-src 'none'" in got.headers["content-security-policy"]
    assert "unsafe" not in got.headers["content-security-policy"]
    assert "<h2>Columns</h2>" in text
