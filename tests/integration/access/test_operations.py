"""Every operation of the API asks who is there; the operations and their scopes are read from its own document."""

from typing import Any, NamedTuple

import httpx
import pytest

from bobrai.domain.access import Scope
from bobrai.store.pool import Database
from tests.integration.access.conftest import Keys, bearer, notify, refused
from tests.integration.api.conftest import Api
from tests.support.eventually import eventually

# Whoever adds an operation says here what it needs, or that everybody may ask it.
SCOPES = {
    "submitTask": "tasks:submit",
    "submitTaskAtFirstPath": "tasks:submit",
    "submitTasks": "tasks:submit",
    "readTask": "tasks:read",
    "readTaskAtFirstPath": "tasks:read",
    "listTasks": "tasks:read",
    "explainTask": "tasks:read",
    "cancelTask": "tasks:control",
    "replayTask": "tasks:control",
    "listQueues": "queues:read",
    "readQueue": "queues:read",
    "putQueue": "queues:control",
    "changeQueue": "queues:control",
    "removeQueue": "queues:control",
    "listTypes": "queues:read",
    "readType": "queues:read",
    "changeType": "queues:control",
    "listWorkers": "queues:read",
    "listKeys": "admin",
    "readKey": "admin",
    "createKey": "admin",
    "rotateKey": "admin",
    "revokeKey": "admin",
    "listAudit": "admin",
}
OPEN = {"health", "live", "ready", "metrics", "openapi", "docs"}
PARAMETERS = {"task_id": "1", "name": "other", "type": "echo", "key_id": "nosuchkey"}


class Operation(NamedTuple):
    """One operation with a request that is right in everything but who asks."""

    id: str
    method: str
    path: str
    scope: str | None
    body: Any


@pytest.fixture
async def operations(api: Api) -> list[Operation]:
    """Every operation of the document."""
    document = (await api.get("/api/openapi.json")).json()
    found = []
    for path, item in document["paths"].items():
        for method, each in item.items():
            security = each["security"]
            assert {} not in security, "nothing is open to anonymous requests here"
            scope = security[0]["bearer"][0] if security else None
            body = each.get("requestBody", {}).get("content", {}).get("application/json", {}).get("example")
            found.append(Operation(each["operationId"], method.upper(), path.format(**PARAMETERS), scope, body))
    return found


async def asked(api: Api, operation: Operation, secret: str | None) -> httpx.Response:
    """The answer to one request."""
    headers = {} if secret is None else bearer(secret)
    if operation.body is None:
        return await api.request(operation.method, operation.path, headers=headers)
    return await api.request(operation.method, operation.path, json=operation.body, headers=headers)


async def test_the_document_names_the_scope_of_every_operation(operations: list[Operation]) -> None:
    assert {each.id: each.scope for each in operations if each.scope} == SCOPES
    assert {each.id for each in operations if not each.scope} == OPEN


async def test_open_operations_ask_for_nothing(api: Api, operations: list[Operation]) -> None:
    for each in operations:
        if each.scope is None:
            assert (await asked(api, each, None)).status_code == 200, each


@pytest.fixture
async def bad_secrets(keys: Keys, store: Database) -> dict[str, str]:
    """Credentials that prove nothing, by what is wrong with them."""
    good, revoked, expired = await keys.make(), await keys.make(), await keys.make()
    await store.fetch("UPDATE api_keys SET revoked_at = now() WHERE id = $1", revoked.key_id)
    await store.fetch("UPDATE api_keys SET expires_at = now() WHERE id = $1", expired.key_id)
    await notify(store)
    return {
        "unknown": good.secret[:-1] + ("a" if good.secret[-1] != "a" else "b"),
        "of an id that nobody has": good.secret.replace(good.key_id, "nobodyhasit0"),
        "revoked": revoked.secret,
        "expired": expired.secret,
        "malformed": "letmein",
    }


async def test_without_a_credential_or_with_one_that_proves_nothing_every_operation_answers_401(
    api: Api, operations: list[Operation], bad_secrets: dict[str, str]
) -> None:
    for secret in bad_secrets.values():
        await eventually(lambda secret=secret: refused(api, secret, "/api/v1/tasks"))
    for each in operations:
        if each.scope is None:
            continue
        answer = await asked(api, each, None)
        assert answer.status_code == 401, each
        assert answer.headers["www-authenticate"] == 'Bearer realm="bobrai"'
        assert answer.json()["scope"] == each.scope
        for wrong, secret in bad_secrets.items():
            answer = await asked(api, each, secret)
            assert answer.status_code == 401, (wrong, each)
            assert answer.json()["type"] == "urn:bobrai:problem:unauthorized"
            assert 'error="invalid_token"' in answer.headers["www-authenticate"]
            assert (wrong in answer.json()["detail"]) == (wrong in {"revoked", "expired"})


async def test_with_all_scopes_but_its_own_every_operation_answers_403_and_names_the_scope(
    api: Api, operations: list[Operation], keys: Keys
) -> None:
    too_narrow = {
        scope: await keys.make(*(other for other in Scope if other not in {scope, Scope.ADMIN})) for scope in Scope
    }
    for each in operations:
        if each.scope is None:
            continue
        answer = await asked(api, each, too_narrow[Scope(each.scope)].secret)
        assert answer.status_code == 403, each
        problem = answer.json()
        assert (problem["type"], problem["scope"]) == ("urn:bobrai:problem:forbidden", each.scope)
        assert f'error="insufficient_scope", scope="{each.scope}"' in answer.headers["www-authenticate"]


async def test_with_its_own_scope_alone_every_operation_is_done(
    api: Api, operations: list[Operation], keys: Keys
) -> None:
    right = {scope: await keys.make(scope) for scope in Scope}
    for each in operations:
        if each.scope is not None:
            answer = await asked(api, each, right[Scope(each.scope)].secret)
            assert answer.status_code in {200, 201, 204, 404, 409}, (each, answer.text)


async def test_a_connection_whose_body_was_refused_unread_goes_on(api: Api, keys: Keys) -> None:
    key = await keys.make()
    for _ in range(3):
        answer = await api.post("/api/v1/tasks", json={"payload": "x" * 9000, "type": "echo"})
        assert answer.status_code == 401
        answer = await api.post("/api/v1/tasks", json={"payload": "x", "type": "echo"}, headers=bearer(key.secret))
        assert answer.status_code == 201


async def test_another_scheme_than_bearer_is_for_somebody_else_on_the_way(api: Api) -> None:
    answer = await api.get("/api/v1/tasks", auth=("user", "password"))
    assert answer.status_code == 401
    assert answer.headers["www-authenticate"] == 'Bearer realm="bobrai"'


async def test_the_document_tells_of_types_only_to_who_may_know_them(api: Api, keys: Keys) -> None:
    assert "numbers" not in (await api.get("/api/openapi.json")).text
    assert "numbers" not in (await api.get("/docs")).text
    some = await keys.make("tasks:submit", types=["ec*"])
    told = (await api.get("/api/openapi.json", headers=bearer(some.secret))).text
    assert "PayloadOf_echo" in told
    assert "numbers" not in told
    every = await keys.make("queues:read")
    assert "PayloadOf_numbers" in (await api.get("/docs", headers=bearer(every.secret))).text
