"""Tokens at the door of the API: beside keys, with the same answers."""

import json
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from bobrai.access import secrets
from bobrai.store.pool import Database
from bobrai.telemetry import logs
from tests.integration.access.conftest import Keys, bearer, closed_api, keys
from tests.integration.api.conftest import Api, store
from tests.support.databases import Database as OwnDatabase
from tests.support.identity_provider import AUDIENCE, IdentityProvider

__all__ = ["keys", "store"]

TASKS = "/api/v1/tasks"
ROLES = [
    {"value": "operator", "scopes": ["tasks:read", "tasks:control", "queues:read"]},
    {"value": "sender", "scopes": ["tasks:submit", "tasks:read"], "own_tasks": True, "rate": "3/m", "burst": 3},
]


@pytest.fixture
async def api(
    database: OwnDatabase, store: Database, provider: IdentityProvider, free_port: Callable[[], int]
) -> AsyncIterator[Api]:
    """A client of an API that trusts the provider, and wants a credential."""
    issuer = {"name": "idp", "issuer": provider.url, "audiences": [AUDIENCE], "roles": ROLES}
    async with closed_api(database.url, free_port(), oidc=json.dumps([issuer])) as client:
        yield client


def with_token(provider: IdentityProvider, role: str, **claims: Any) -> dict[str, str]:
    return bearer(provider.token(claims={"scope": role, **claims}))


async def test_a_token_does_what_its_role_may_and_nothing_else(api: Api, provider: IdentityProvider) -> None:
    operator = with_token(provider, "openid operator")
    assert (await api.get(TASKS, headers=operator)).status_code == 200
    refused = await api.post(TASKS, json={"type": "echo", "payload": 1}, headers=operator)
    assert (refused.status_code, refused.json()["scope"]) == (403, "tasks:submit")
    nothing = await api.get(TASKS, headers=with_token(provider, "stranger"))
    assert nothing.status_code == 401
    assert 'error="invalid_token"' in nothing.headers["www-authenticate"]


async def test_subjects_have_tasks_and_rates_of_their_own(api: Api, provider: IdentityProvider) -> None:
    ada, bob = with_token(provider, "sender", sub="ada"), with_token(provider, "sender", sub="bob")
    task = {"type": "echo", "payload": 1}
    first = await api.post(TASKS, json=task, headers=ada)
    assert first.headers["ratelimit-policy"] == '"oidc";q=3;w=60'
    path = f"{TASKS}/{first.json()['task_id']}"
    assert [(await api.get(path, headers=each)).status_code for each in (ada, bob)] == [200, 404]
    # another token of the same subject
    again = with_token(provider, "sender", sub="ada", jti="another")
    codes = [(await api.get(path, headers=again)).status_code for _ in range(2)]
    assert codes == [200, 429]
    assert (await api.get(TASKS, headers=bob)).json()["tasks"] == []


async def test_keys_are_taken_beside_tokens(api: Api, keys: Keys) -> None:
    assert (await api.get(TASKS, headers=bearer((await keys.make()).secret))).status_code == 200


async def test_forged_and_ended_tokens_are_401_and_an_issuer_that_is_away_is_503(
    api: Api, provider: IdentityProvider
) -> None:
    assert (await api.get(TASKS, headers=with_token(provider, "operator"))).status_code == 200
    for order in ({"claims": {"scope": "operator", "exp": 1}}, {"signed": "by_another"}, {"signed": "not_at_all"}):
        answer = await api.get(TASKS, headers=bearer(provider.token(**order)))
        assert (answer.status_code, answer.json()["type"]) == (401, "urn:bobrai:problem:unauthorized"), order
    text = (await api.get("/metrics")).text
    assert 'bobrai_access_refused_total{reason="expired"}' in text
    assert 'bobrai_access_refused_total{reason="signature"}' in text
    assert 'bobrai_oidc_keys_age_seconds{issuer="idp"}' in text


async def test_keys_of_an_issuer_that_were_never_had_make_no_token_wrong(
    database: OwnDatabase, store: Database, provider: IdentityProvider, free_port: Callable[[], int]
) -> None:
    token = provider.token(claims={"scope": "operator"})
    provider.process.kill()
    issuer = {"name": "idp", "issuer": provider.url, "audiences": [AUDIENCE], "roles": ROLES}
    async with closed_api(database.url, free_port(), oidc=json.dumps([issuer])) as api:
        answer = await api.get(TASKS, headers=bearer(token))
        assert (answer.status_code, answer.json()["type"]) == (503, "urn:bobrai:problem:unavailable")
        assert "issuer" in answer.json()["detail"]
        assert int(answer.headers["retry-after"]) >= 1


async def test_why_a_credential_is_refused_stands_in_the_answer_and_in_the_log(
    api: Api, provider: IdentityProvider
) -> None:
    shown = {
        "expired": provider.token(claims={"exp": 1}),
        "signature": provider.token(signed="by_another"),
        "audience": provider.token(claims={"aud": "somebody-else"}),
        "claims": provider.token(claims={"scope": "stranger"}),
        "malformed": "an-opaque-token",
        "unknown": secrets.new_secret(secrets.new_id()),
    }
    with logs.captured() as lines:
        answers = {reason: await api.get(TASKS, headers=bearer(text)) for reason, text in shown.items()}
        answers["missing"] = await api.get(TASKS)
    assert {reason: answer.json()["reason"] for reason, answer in answers.items()} == {each: each for each in answers}
    assert [line["refused"] for line in lines if line["event"] == "http.request"] == [*shown, "missing"]


async def test_the_reason_is_in_the_log_where_an_address_shows_too_many(
    database: OwnDatabase, store: Database, provider: IdentityProvider, free_port: Callable[[], int]
) -> None:
    issuer = {"name": "idp", "issuer": provider.url, "audiences": [AUDIENCE], "roles": ROLES}
    async with closed_api(database.url, free_port(), oidc=json.dumps([issuer]), refused_rate="1/h") as api:
        expired = bearer(provider.token(claims={"exp": 1}))
        with logs.captured() as lines:
            assert [(await api.get(TASKS, headers=expired)).status_code for _ in range(2)] == [401, 429]
    assert [line["refused"] for line in lines if line["event"] == "http.request"] == ["expired", "expired"]
