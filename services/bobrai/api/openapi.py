"""The OpenAPI 3.1 document, made from the operations, the schemas, the views and the task types that are known.

In: what ``routes`` declares and what the catalog knows. Out: one dictionary, which is served as JSON and rendered by
``docs_page``. Every limit of ``domain.limits`` stands in it as a schema keyword.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any, Final

from bobrai import __version__
from bobrai.api import components, examples, problems, schemas
from bobrai.api.catalog import KnownType
from bobrai.api.operations import Operation, Success
from bobrai.domain import limits
from bobrai.domain.access import MEANINGS, Principal, Scope
from bobrai.domain.children import APART

_PATH_PARAMETERS: Final[Mapping[str, dict[str, Any]]] = {
    "task_id": {"type": "integer", "format": "int64", "minimum": 1, "maximum": 2**63 - 1},
    "name": {"type": "string", "pattern": limits.QUEUE_PATTERN},
    "key_id": {"type": "string", "pattern": "^[a-z0-9]{1,32}$"},
    "type": {"type": "string", "pattern": limits.TYPE_PATTERN},
}
_HEADERS: Final[Mapping[str, tuple[dict[str, Any], str]]] = {
    "Idempotency-Key": (
        {"type": "string", "pattern": schemas.IDEMPOTENCY_KEY_PATTERN},
        (
            f"1 to {limits.MAX_IDEMPOTENCY_KEY} printable characters, quoted or not. The same key with the same body "
            "gives the first answer again; with another body, 422."
        ),
    ),
    "If-None-Match": ({"type": "string"}, "An ETag that the client has: 304 when the task has not changed since."),
    "traceparent": ({"type": "string"}, "W3C trace context; kept with the task. A malformed one is ignored."),
    "X-Request-ID": (
        {"type": "string"},
        (
            f"Up to {limits.MAX_REQUEST_ID} printable characters, kept with the task; another value is replaced. "
            "Every answer carries it."
        ),
    ),
}
_BEARER: Final = "bearer"
_SCHEMES: Final = {
    _BEARER: {
        "type": "http",
        "scheme": "bearer",
        "description": "An API key, or a token of an identity provider that the server trusts. Scopes: "
        + "; ".join(f"`{scope}`: {meaning}" for scope, meaning in MEANINGS.items())
        + ".",
    }
}
_INTRODUCTION: Final = """\
Submit tasks, read their results. **A task that was answered with 201 is never lost**: it is committed, and it ends as \
exactly one of `done`, `failed`, `cancelled`.

Every error is `application/problem+json` (RFC 9457); `type` says which kind it is, and `errors` names the places that \
are wrong.
"""


def build(operations: Sequence[Operation], types: Mapping[str, KnownType], anonymous: Principal) -> dict[str, Any]:
    """Return the document, with the types that its reader may know of, and what needs a credential here."""
    operations = [operation for operation in operations if operation.public]
    shapes = components.of_models(
        dict.fromkeys(operation.body for operation in operations if operation.body is not None),
        dict.fromkeys(
            success.view
            for operation in operations
            for success in operation.successes.values()
            if success.view is not None
        ),
    )
    _describe_types(shapes, types)
    paths: dict[str, dict[str, Any]] = {}
    for operation in operations:
        for number, path in enumerate(operation.paths):
            described = _operation(operation, path, anonymous, twin=number > 0)
            paths.setdefault(path, {})[operation.method.lower()] = described
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "bobrAI",
            "version": __version__,
            "summary": "A task-processing service.",
            "description": _INTRODUCTION,
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "servers": [{"url": "/"}],
        "tags": [{"name": name} for name in dict.fromkeys(operation.tag for operation in operations)],
        "paths": paths,
        "components": {"schemas": dict(sorted(shapes.items())), "securitySchemes": _SCHEMES},
    }


def _describe_types(shapes: components.Components, types: Mapping[str, KnownType]) -> None:
    submission = shapes["TaskSubmission"]
    submission["not"] = {"anyOf": [{"required": list(names)} for names in APART]}
    type_ = submission["properties"]["type"]
    # No closed list: workers announce types at any time, and a client that was made before must be able to send them.
    type_["description"] += " An open set: workers announce types as they start."
    if types:
        type_["description"] += f" Known now: {', '.join(f'`{name}`' for name in sorted(types))}."
        type_["examples"] = sorted(types)
        names = components.add_payloads(shapes, types)
        # No keyword of JSON Schema says which payload goes with which type without confusing generators.
        submission["properties"]["payload"]["x-payload-of-type"] = {
            type_name: components.REFERENCE + name for type_name, name in names.items()
        }


def _operation(operation: Operation, path: str, anonymous: Principal, *, twin: bool) -> dict[str, Any]:
    described: dict[str, Any] = {
        "operationId": operation.id + ("AtFirstPath" if twin else ""),
        "tags": [operation.tag],
        "summary": operation.summary,
        "description": f"The same as `{operation.paths[0]}`, for clients of the first version."
        if twin
        else operation.description,
        "parameters": _parameters(operation, path),
        "responses": _responses(operation),
        "security": _security(operation.scope, anonymous),
    }
    if operation.body is not None:
        content: dict[str, Any] = {"schema": {"$ref": components.REFERENCE + operation.body.__name__}}
        if operation.body_example is not None:
            content["example"] = operation.body_example
        described["requestBody"] = {
            "required": not operation.body_optional,
            "description": f"At most {operation.body_limit} bytes.",
            "content": {"application/json": content},
        }
    return described


def _security(scope: Scope | None, anonymous: Principal) -> list[dict[str, list[str]]]:
    if scope is None:
        return []
    needed: list[dict[str, list[str]]] = [{_BEARER: [scope]}]
    return [*needed, {}] if anonymous.may(scope) else needed  # the empty one: it may be left out


def _parameters(operation: Operation, path: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = [
        {"name": name, "in": "path", "required": True, "schema": dict(_PATH_PARAMETERS[name])}
        for name in re.findall(r"{(\w+)}", path)
    ]
    schema = components.plain(operation.query.model_json_schema(ref_template=components.REFERENCE + "{model}"))
    for name, field in schema.get("properties", {}).items():
        description = field.pop("description", "")
        found.append({"name": name, "in": "query", "required": False, "description": description, "schema": field})
    for name in (*operation.headers, "X-Request-ID"):
        header, description = _HEADERS[name]
        found.append(
            {"name": name, "in": "header", "required": False, "description": description, "schema": dict(header)}
        )
    return found


def _responses(operation: Operation) -> dict[str, Any]:
    found = {str(status): _success(success) for status, success in operation.successes.items()}
    by_status: dict[int, list[str]] = {}
    for kind in dict.fromkeys((*operation.problems, *_of_the_gate(operation))):
        by_status.setdefault(problems.KINDS[kind][0], []).append(kind)
    for status, kinds in sorted(by_status.items()):
        content = {
            "application/problem+json": {
                "schema": {"$ref": components.REFERENCE + "ProblemView"},
                "examples": {kind: {"value": examples.problem(kind)} for kind in kinds},
            }
        }
        headers = {"X-Request-ID": _header("The request's id.")}
        if status == 401:
            headers["WWW-Authenticate"] = _header("What to show (RFC 6750).")
        if status in {429, 503}:
            headers["Retry-After"] = {
                "description": "Seconds to wait.", "required": True, "schema": {"type": "integer", "minimum": 1},
            }  # fmt: skip
        existing = found.get(str(status))
        if existing is not None:
            existing["content"].update(content)
            continue
        found[str(status)] = {
            "description": " ".join(f"`{kind}`: {problems.KINDS[kind][2]}" for kind in kinds),
            "headers": headers,
            "content": content,
        }
    return found


def _of_the_gate(operation: Operation) -> tuple[str, ...]:
    """Return the kinds of problems that a request may meet before its operation is asked."""
    if operation.quiet and operation.scope is None:
        return ()
    kinds = ["bad-header", "unauthorized", "foreign-host", "rate-limited", "too-many-at-once", "overloaded"]
    if operation.scope is not None:
        kinds.append("forbidden")
    if operation.method not in {"GET", "HEAD"}:
        kinds.append("cross-origin")
    return tuple(kinds)


def _success(success: Success) -> dict[str, Any]:
    headers = {"X-Request-ID": "The request's id.", **success.headers}
    described: dict[str, Any] = {
        "description": success.description,
        "headers": {name: _header(text) for name, text in headers.items()},
    }
    if success.content_type:
        schema: dict[str, Any] = {"type": "object" if success.content_type == "application/json" else "string"}
        if success.view is not None:
            schema = {"$ref": components.REFERENCE + success.view.__name__}
        content = described["content"] = {success.content_type: {"schema": schema}}
        example = examples.of(success.view, success.content_type)
        if example is not None:
            content[success.content_type]["example"] = example
    return described


def _header(description: str) -> dict[str, Any]:
    return {"description": description, "schema": {"type": "string"}}
