"""Keys in the memory of a process: how soon it knows of a change, and what it believes while nobody can tell it."""

import asyncio
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from urllib.parse import urlsplit

import pytest

from bobrai.access import issuing
from bobrai.access.gate import Gate
from bobrai.domain.errors import CredentialRefused
from bobrai.settings import load
from bobrai.store import keys as keys_of_store
from bobrai.store.patience import PatientDatabase
from bobrai.store.pool import Database
from tests.integration.access.conftest import QUEUES, Keys, bearer, closed_api, notify, refused, status
from tests.integration.api.conftest import Api
from tests.support.authors import SOMEBODY
from tests.support.counting import CountingDatabase
from tests.support.databases import Database as OwnDatabase
from tests.support.eventually import eventually
from tests.support.tcp_proxy import TcpProxy

KEYS = "/api/v1/keys"


async def test_a_new_key_works_at_once_on_every_replica(
    api: Api, database: OwnDatabase, keys: Keys, free_port: Callable[[], int]
) -> None:
    async with closed_api(database.url, free_port()) as other:
        for _ in range(5):
            key = await keys.make()
            assert [await status(api, key.secret), await status(other, key.secret)] == [200, 200]


async def test_a_revocation_reaches_every_replica_within_two_seconds(
    api: Api, database: OwnDatabase, store: Database, keys: Keys, free_port: Callable[[], int]
) -> None:
    # so slow a poll would miss the bound: it is the notification that counts
    async with closed_api(database.url, free_port(), refresh_seconds=10.0) as other:
        key = await keys.make()
        assert [await status(api, key.secret), await status(other, key.secret)] == [200, 200]
        began = time.monotonic()
        assert (await keys_of_store.revoke(store, key.key_id, by=SOMEBODY)) is True
        await eventually(lambda: refused(other, key.secret), timeout=2.0)
        assert time.monotonic() - began < 2.0
        await eventually(lambda: refused(api, key.secret), timeout=2.0)


async def test_without_notifications_a_revocation_is_found_by_reading_again(
    database: OwnDatabase, store: Database, keys: Keys, free_port: Callable[[], int]
) -> None:
    async with closed_api(database.url, free_port(), refresh_seconds=0.5) as api:
        key = await keys.make()
        assert await status(api, key.secret) == 200
        # no notification goes with this one
        await store.fetch("UPDATE api_keys SET revoked_at = now() WHERE id = $1", key.key_id)
        await eventually(lambda: refused(api, key.secret), timeout=10.0)


async def test_a_revoked_key_is_gone_but_for_the_list(api: Api, keys: Keys) -> None:
    admin, key = bearer((await keys.make("admin")).secret), await keys.make()
    path = f"/api/v1/keys/{key.key_id}"
    assert (await api.get(path, headers=admin)).status_code == 200
    assert [(await api.delete(path, headers=admin)).status_code for _ in range(2)] == [204, 204]
    assert (await api.get(path, headers=admin)).status_code == 404
    listed = (await api.get("/api/v1/keys", headers=admin)).json()["keys"]
    assert [each["revoked_at"] is None for each in listed if each["id"] == key.key_id] == [False]


async def test_both_secrets_work_in_the_grace_of_a_rotation_and_then_the_new_one_alone(
    api: Api, store: Database, keys: Keys
) -> None:
    key = await keys.make()
    second = await issuing.rotate(store, key.key_id, grace_seconds=600, by=SOMEBODY)
    assert second is not None
    assert [await status(api, each.secret) for each in (key, second)] == [200, 200]
    await store.fetch("UPDATE api_keys SET previous_until = now()")
    await notify(store)
    await eventually(lambda: refused(api, key.secret), message="the grace is over")
    assert await status(api, second.secret) == 200


async def test_no_rotation_ends_a_secret_that_another_one_has_promised_a_grace(
    api: Api, store: Database, keys: Keys
) -> None:
    admin, key = bearer((await keys.make("admin")).secret), await keys.make()
    path = f"{KEYS}/{key.key_id}/rotate"
    at_once = await asyncio.gather(*(api.post(path, json={"grace_seconds": 600}, headers=admin) for _ in range(4)))
    assert sorted(each.status_code for each in at_once) == [200, 409, 409, 409]
    second = next(each.json()["key"] for each in at_once if each.status_code == 200)
    conflict = next(each for each in at_once if each.status_code == 409)
    assert conflict.json()["type"] == "urn:bobrai:problem:key-refused"
    assert "grace of 0" in conflict.json()["detail"]
    assert [await status(api, each) for each in (key.secret, second)] == [200, 200]
    third = await api.post(path, json={"grace_seconds": 0}, headers=admin)
    assert third.status_code == 200
    # the one that the process cannot know makes it read the keys again
    assert [await status(api, each) for each in (third.json()["key"], key.secret, second)] == [200, 401, 401]


async def test_a_grace_of_nothing_ends_the_secret_so_far(api: Api, store: Database, keys: Keys) -> None:
    key = await keys.make()
    second = await issuing.rotate(store, key.key_id, grace_seconds=0, by=SOMEBODY)
    assert second is not None
    assert await status(api, second.secret) == 200
    assert await status(api, key.secret) == 401


async def test_a_key_ends_at_its_moment_without_anybody_saying_so(api: Api, keys: Keys) -> None:
    key = await keys.make(expires_seconds=1.0)
    await eventually(lambda: refused(api, key.secret))
    answer = await api.get(QUEUES, headers=bearer(key.secret))
    assert answer.json()["detail"] == "This key has expired"


async def test_unknown_keys_are_looked_for_a_few_times_a_second_however_many_come(
    database: OwnDatabase, keys: Keys
) -> None:
    good = await keys.make()
    pool = CountingDatabase(load(database={"url": database.url}).database, "known_keys")
    await pool.open()
    patient = PatientDatabase(pool, 1.0)
    gate = Gate(pool, patient, load(auth={"anonymous_scopes": "none", "refused_rate": "none"}))
    forged = [f"Bearer {good.secret[:-6]}{number:06}".encode() for number in range(500)]
    began = time.monotonic()
    answers = await asyncio.gather(*(gate.principal(each, "127.0.0.1") for each in forged), return_exceptions=True)
    seconds = time.monotonic() - began
    assert [type(each) for each in answers] == [CredentialRefused] * 500
    assert 1 <= pool.count <= seconds / 0.2 + 2
    principal = await gate.principal(f"Bearer {good.secret}".encode(), "127.0.0.1")
    assert principal.id == f"key:{good.key_id}"
    await patient.close()
    await pool.close()


async def test_while_the_database_is_away_nobody_is_refused_by_mistake_and_known_keys_go_on_for_a_while(
    database: OwnDatabase, keys: Keys, free_port: Callable[[], int], tcp_proxy: Callable[[str, int], TcpProxy]
) -> None:
    parts = urlsplit(database.url)
    proxy = tcp_proxy(parts.hostname or "", parts.port or 0)
    known, unknown = await keys.make(), await keys.make()
    async with closed_api(proxy.url(database.url), free_port(), stale_seconds=4.0, refresh_seconds=1.0) as api:
        document = "/api/openapi.json"  # which needs no database
        assert (await api.get(document, headers=bearer(known.secret))).status_code == 200
        proxy.refuse()
        proxy.cut()
        made_meanwhile = await keys.make()  # past the proxy: nobody tells this API
        answer = await api.get(document, headers=bearer(known.secret))
        assert answer.status_code == 200
        assert "PayloadOf_numbers" in answer.text
        for secret in (made_meanwhile.secret, f"{unknown.secret[:-3]}abc"):
            answer = await api.get(document, headers=bearer(secret))
            assert (answer.status_code, answer.json()["type"]) == (503, "urn:bobrai:problem:unavailable")

        async def is_over() -> bool:
            return (await api.get(document, headers=bearer(known.secret))).status_code == 503

        await eventually(is_over, message="a known key is believed for no longer")
        proxy.pass_through()

        async def is_back() -> bool:
            return (await api.get(document, headers=bearer(made_meanwhile.secret))).status_code == 200

        await eventually(is_back)


async def test_the_time_of_the_last_use_is_kept_and_written_at_most_once_a_minute(
    database: OwnDatabase, store: Database, keys: Keys, free_port: Callable[[], int]
) -> None:
    used = "SELECT last_used_at FROM api_keys WHERE id = $1"
    async with closed_api(database.url, free_port(), refresh_seconds=0.2) as api:
        key, other = await keys.make(), await keys.make()
        assert await status(api, key.secret) == 200

        async def is_noted() -> bool:
            return (await store.fetch(used, key.key_id))[0][0] is not None

        await eventually(is_noted)
        noted = (await store.fetch(used, key.key_id))[0][0]
        # the second key's note proves that rounds have gone by since the first one's second use
        assert await status(api, key.secret) == 200
        assert await status(api, other.secret) == 200
        key = other
        await eventually(is_noted)
        assert noted in [row[0] for row in await store.fetch("SELECT last_used_at FROM api_keys")]


async def test_the_name_of_a_key_that_has_expired_is_free(api: Api, keys: Keys) -> None:
    admin = bearer((await keys.make("admin")).secret)
    wish = {"name": "ci", "scopes": ["tasks:read"]}
    first = (await api.post(KEYS, json={**wish, "expires_seconds": 0.5}, headers=admin)).json()
    assert (await api.post(KEYS, json=wish, headers=admin)).status_code == 409
    await eventually(lambda: refused(api, first["key"]))
    second = await api.post(KEYS, json=wish, headers=admin)
    assert second.status_code == 201
    assert (await api.post(KEYS, json=wish, headers=admin)).status_code == 409
    assert (await api.post(f"{KEYS}/{first['id']}/rotate", headers=admin)).status_code == 404
    listed = (await api.get(KEYS, headers=admin)).json()["keys"]
    assert [(each["id"], each["expired"]) for each in listed if each["name"] == "ci"] == [
        (first["id"], True), (second.json()["id"], False),
    ]  # fmt: skip


@pytest.mark.parametrize(("days", "words"), [(-1, "must be in the future"), (10 * 366 + 1, "within 10 years")])
async def test_a_key_ends_in_the_future_and_within_ten_years(api: Api, keys: Keys, days: int, words: str) -> None:
    admin = bearer((await keys.make("admin")).secret)
    wish = {"name": "ci", "scopes": ["tasks:read"]}
    ends = (datetime.now(UTC) + timedelta(days=days)).isoformat()
    answer = await api.post(KEYS, json={**wish, "expires_at": ends}, headers=admin)
    assert (answer.status_code, answer.json()["type"]) == (409, "urn:bobrai:problem:key-refused")
    assert words in answer.json()["detail"]


async def test_one_credential_is_shown_and_in_one_way(api: Api, keys: Keys) -> None:
    good = (await keys.make()).secret
    for several in ([f"Bearer {good}", "Bearer letmein"], ["Bearer letmein", f"Bearer {good}"], ["Basic eA==", good]):
        answer = await api.get(QUEUES, headers=[("Authorization", each) for each in several])
        assert (answer.status_code, answer.json()["type"]) == (400, "urn:bobrai:problem:bad-header")
        assert "Authorization" in answer.json()["detail"]
    said = {f"Bearer\t{good}": 200, f"bEARER   {good}": 200, "Bearer": 401, good: 401, f"Token {good}": 401}
    for header, expected in said.items():
        assert (await api.get("/api/openapi.json", headers={"Authorization": header})).status_code == expected, header
    twice = [("Idempotency-Key", "a"), ("Idempotency-Key", "b"), *bearer(good).items()]
    answer = await api.post("/api/v1/tasks", json={"type": "echo", "payload": 1}, headers=twice)
    assert (answer.status_code, answer.json()["type"]) == (400, "urn:bobrai:problem:bad-header")
