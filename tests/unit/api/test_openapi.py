"""The OpenAPI document says what generators of clients and readers need, whatever types are known."""

import json
import re
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import jsonschema_rs
import pytest

from bobrai.api import docs_page, openapi, routes
from bobrai.api.catalog import KnownType
from bobrai.domain.access import anonymous
from bobrai.domain.task import TaskType

ODD = {
    "$id": "https://example.org/odd",
    "type": "object",
    "properties": {
        "title": {"$ref": "#/$defs/Text"},
        "again": {"$ref": "#/properties/title"},
        "self": {"$ref": "#"},
        "far": {"$ref": "https://example.org/other"},
        "any": True,
        "none": False,
    },
    "$defs": {"Text": {"type": "string", "default": {"$ref": "data"}}},
}
TYPES = {"demo": {}, "a.b": ODD, "a_b": {"type": "string"}, "never": False, "AB": True}


class Handlers(SimpleNamespace):
    """Stands where the handlers are: the document names none of them."""

    def __getattr__(self, name: str) -> Any:
        return name


@pytest.fixture(scope="module")
def document() -> dict[str, Any]:
    """The document of an API that knows types of every kind."""
    types = {name: KnownType(TaskType(name=name, payload_schema=json.dumps(shape))) for name, shape in TYPES.items()}
    handlers: Any = Handlers()
    return openapi.build(routes.operations(*[handlers] * 8), types, anonymous(()))


def answers(document: dict[str, Any]) -> Iterator[tuple[str, str, dict[str, Any]]]:
    for item in document["paths"].values():
        for operation in item.values():
            for status, answer in operation["responses"].items():
                for content in answer.get("content", {}).values():
                    yield operation["operationId"], status, content


def test_every_answer_and_problem_has_an_example_that_keeps_its_schema(document: dict[str, Any]) -> None:
    for operation, status, content in answers(document):
        shown = [each["value"] for each in content.get("examples", {}).values()]
        shown += [content["example"]] if "example" in content else []
        assert shown, f"{operation} shows no {status}: add an example to api/examples.py"
        schema = {**content["schema"], "components": document["components"]}
        for example in shown:
            jsonschema_rs.validate(schema, example)


def test_every_schema_has_a_name_for_generators_and_refers_to_components_only(document: dict[str, Any]) -> None:
    shapes = document["components"]["schemas"]
    bare = [re.sub("_", "", name).lower() for name in shapes]
    assert all(re.fullmatch(r"[A-Za-z0-9_]+", name) for name in shapes)
    assert len(set(bare)) == len(bare)
    text = json.dumps(shapes)
    assert "$defs" not in text
    assert "$id" not in text
    found = set(re.findall(r'"\$ref": "([^"]*)"', text)) - {"data"}
    assert found <= {f"#/components/schemas/{name}" for name in shapes}


def test_the_payload_of_every_type_is_a_component(document: dict[str, Any]) -> None:
    shapes = document["components"]["schemas"]
    names = shapes["TaskSubmission"]["properties"]["payload"]["x-payload-of-type"]
    assert set(names) == set(TYPES)
    odd = shapes[names["a.b"].rpartition("/")[2]]["properties"]
    assert odd["self"]["$ref"] == names["a.b"]
    assert shapes[odd["title"]["$ref"].rpartition("/")[2]]["default"] == {"$ref": "data"}
    assert (odd["far"], odd["any"], odd["none"]) == ({}, {}, {"not": {}})


def test_moments_and_numbers_of_answers_have_their_formats(document: dict[str, Any]) -> None:
    shapes = document["components"]["schemas"]
    task = shapes["TaskView"]["properties"]
    assert task["id"] == {"type": "integer", "format": "int64"}
    assert task["status"] == {"$ref": "#/components/schemas/TaskStatus"}
    for name in ("run_at", "created_at", "updated_at"):
        assert task[name]["format"] == "date-time"
    for name in ("started_at", "finished_at"):
        assert task[name]["anyOf"] == [{"type": "string", "format": "date-time"}, {"type": "null"}]
    figures = [name for name, field in walk(shapes) if field.get("type") == "integer" and "format" not in field]
    assert figures == []


def walk(node: Any, name: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    """Every object of a document, with its key."""
    if isinstance(node, dict):
        yield name, node
        for key, each in node.items():
            yield from walk(each, key)
    elif isinstance(node, list):
        for each in node:
            yield from walk(each, name)


def test_a_type_that_nobody_knows_yet_may_be_sent(document: dict[str, Any]) -> None:
    schema = {"$ref": "#/components/schemas/TaskSubmission", "components": document["components"]}
    jsonschema_rs.validate(schema, {"payload": 1, "type": "announced-tomorrow"})


def test_every_example_of_the_page_asks_for_a_path_that_there_is(document: dict[str, Any]) -> None:
    lines = [line for line in docs_page.render(document).splitlines() if "curl" in line]
    paths = re.findall(rf"{re.escape(docs_page.ADDRESS)}(\S*)", "\n".join(lines))
    assert "/api/v1/types/demo" in "".join(paths)
    assert not any("{" in path for path in paths)
