"""The schemas of the OpenAPI document: every shape is a component of its own, as generators of clients need it.

In: the classes of ``schemas`` and ``views``, and the payload schemas that types have announced. Out: components whose
names are letters, digits and ``_``, and whose references lead to components only. A payload's schema is a user's: what
a document cannot hold (anchors, addresses, parts without a name) is moved or left out, so that no type spoils it.
"""

import re
from collections.abc import Iterable, Mapping
from typing import Any, Final

import msgspec
from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from bobrai.api import views
from bobrai.api.catalog import KnownType

REFERENCE: Final = "#/components/schemas/"
Components = dict[str, Any]

# Keywords by what their values are; the value of any other is data, and stays as it is.
_SCHEMA: Final = frozenset({"items", "contains", "not", "if", "then", "else", "propertyNames", "contentSchema"})
_OPEN: Final = frozenset({"additionalProperties", "unevaluatedProperties", "unevaluatedItems"})  # often true or false
_SCHEMAS: Final = frozenset({"allOf", "anyOf", "oneOf", "prefixItems"})
_NAMED_SCHEMAS: Final = frozenset({"properties", "patternProperties", "dependentSchemas"})
_LEFT_OUT: Final = frozenset(
    {"$schema", "$id", "$anchor", "$dynamicAnchor", "$dynamicRef", "$recursiveRef", "$recursiveAnchor", "$vocabulary"}
    | {"$comment", "$defs", "definitions", "title"}
)
_FORMATS: Final = {"integer": "int64", "number": "double"}


def of_models(bodies: Iterable[type[BaseModel]], seen: Iterable[type[msgspec.Struct]]) -> Components:
    """Return the shapes of requests and answers, with the formats that tell 64 bits."""
    template = REFERENCE + "{}"
    _, requests = models_json_schema([(body, "validation") for body in bodies], ref_template=template.format("{model}"))
    _, replies = msgspec.json.schema_components([*seen, views.ProblemView], ref_template=template.format("{name}"))
    return {name: plain(schema) for name, schema in {**requests.get("$defs", {}), **replies}.items()}


def plain(schema: Any) -> Any:
    """Return one of our own schemas without titles, which repeat the names, and with formats."""
    shape = _walk(schema, lambda reference: reference)
    return _formatted(shape)


def _formatted(node: Any) -> Any:
    if isinstance(node, list):
        return [_formatted(each) for each in node]
    if not isinstance(node, dict):
        return node
    found = {key: _formatted(value) for key, value in node.items()}
    kind = found.get("type")
    if isinstance(kind, str) and kind in _FORMATS:
        found.setdefault("format", _FORMATS[kind])
    if "enum" in found and kind is None and all(isinstance(each, str) for each in found["enum"]):
        found["type"] = "string"
    return found


def add_payloads(components: Components, types: Mapping[str, KnownType]) -> dict[str, str]:
    """Add the payload of every known type; returns the component's name for each type."""
    names = {}
    for type_name, known in sorted(types.items()):
        name = names[type_name] = _free(f"PayloadOf_{type_name}", components)
        _Payload(components, name, known.payload_schema).add()
        shape = components[name]
        shape.setdefault("description", known.type.description or f"What `{type_name}` takes.")
    return names


class _Payload:
    """One user's schema on its way into the components: each part that it refers to becomes a component too."""

    def __init__(self, components: Components, name: str, schema: Any) -> None:
        self._components = components
        self._name = name
        self._schema = schema
        self._moved = {"#": name}

    def add(self) -> None:
        """Add the schema and all its parts."""
        self._components[self._name] = {}  # the name is taken, also by what refers to itself
        self._components[self._name] = self._object(self._schema)

    def _object(self, schema: Any) -> dict[str, Any]:
        walked = _walk(schema, self._refer)
        return walked if isinstance(walked, dict) else {}

    def _refer(self, reference: str) -> str | None:
        """Where a reference leads from now on; None: to nothing that a document can hold."""
        if reference in self._moved:
            return REFERENCE + self._moved[reference]
        part = _part(self._schema, reference)
        if part is None:
            return None
        name = _free(f"{self._name}_{reference.rpartition('/')[2]}", self._components)
        self._moved[reference] = name
        self._components[name] = {}
        self._components[name] = self._object(part)
        return REFERENCE + name


def _part(schema: Any, reference: str) -> Any:
    if not reference.startswith("#/"):
        return None
    for step in reference[2:].split("/"):
        key = step.replace("~1", "/").replace("~0", "~")
        if isinstance(schema, list) and key.isdecimal() and int(key) < len(schema):
            schema = schema[int(key)]
        elif isinstance(schema, dict):
            schema = schema.get(key)
        else:
            return None
    return schema if isinstance(schema, dict | bool) else None


def _walk(schema: Any, refer: Any) -> Any:
    """Return a copy in which every reference is what ``refer`` makes of it, and True and False are objects."""
    if isinstance(schema, bool):
        return {} if schema else {"not": {}}
    if not isinstance(schema, dict):
        return schema
    copy: dict[str, Any] = {}
    for key, value in schema.items():
        if key == "$ref":
            moved = refer(value) if isinstance(value, str) else None
            if moved is not None:
                copy[key] = moved
        elif key in _NAMED_SCHEMAS and isinstance(value, dict):
            copy[key] = {name: _walk(each, refer) for name, each in value.items()}
        elif key in _SCHEMAS and isinstance(value, list):
            copy[key] = [_walk(each, refer) for each in value]
        elif key in _SCHEMA or (key in _OPEN and isinstance(value, dict)):
            copy[key] = _walk(value, refer)
        elif key not in _LEFT_OUT:
            copy[key] = value
    return copy


def _free(wish: str, taken: Mapping[str, Any]) -> str:
    """Return a name like the wish that no generator takes for another one: they drop ``_`` and change case."""
    wish = re.sub(r"[^A-Za-z0-9]+", "_", wish).strip("_")
    known = {_bare(name) for name in taken}
    number, name = 1, wish
    while _bare(name) in known:
        number += 1
        name = f"{wish}_{number}"
    return name


def _bare(name: str) -> str:
    return name.replace("_", "").lower()
