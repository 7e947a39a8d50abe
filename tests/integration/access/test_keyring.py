"""Keys in the memory of a process: how soon it knows of a change, and what it believes while nobody can tell it."""

import asyncio
import time
from collections.abc import Callable

import pytest

from bobrai.access import issuing
from bobrai.store.pool import Database
from tests.integration.access.conftest import Keys, bearer, closed_api
from tests.integration.api.conftest import Api
from tests.support.databases import Database as OwnDatabase
from tests.support.eventually import eventually

PATH = "/api/v1/queues"


async def status(api: Api, secret: str) -> int:
    """What a request with this key is answered."""
    return (await api.get(PATH, headers=bearer(secret))).status_code


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
        assert (await issuing.revoke(store, key.key_id, by="a test")) is True
        await eventually(lambda: _refused(other, key.secret), timeout=2.0)
        assert time.monotonic() - began < 2.0
        await eventually(lambda: _refused(api, key.secret), timeout=2.0)


async def test_without_notifications_a_revocation_is_found_by_reading_again(
    database: OwnDatabase, store: Database, keys: Keys, free_port: Callable[[], int]
) -> None:
    async with closed_api(database.url, free_port(), refresh_seconds=0.5) as api:
        key = await keys.make()
        assert await status(api, key.secret) == 200
        # no notification goes with this one
        await store.fetch("UPDATE api_keys SET revoked_at = now() WHERE id = $1", key.key_id)
        await eventually(lambda: _refused(api, key.secret), timeout=10.0)


async def _refused(api: Api, secret: str) -> bool:
    return await status(api, secret) == 401


async def test_both_secrets_work_in_the_grace_of_a_rotation_and_then_the_new_one_alone(
    api: Api, store: Database, keys: Keys
) -> None:
    key = await keys.make()
    second = await issuing.rotate(store, key.key_id, grace_seconds=600, by="a test")
    assert second is not None
    assert [await status(api, each.secret) for each in (key, second)] == [200, 200]
    third = await issuing.rotate(store, key.key_id, grace_seconds=600, by="a test")
    assert third is not None
    await eventually(lambda: _refused(api, key.secret), message="the one before the one before has ended")
    assert [await status(api, each.secret) for each in (second, third)] == [200, 200]
    await store.fetch("UPDATE api_keys SET previous_until = now(); ")
    await store.fetch("SELECT pg_notify('bobrai_access', '')")
    await eventually(lambda: _refused(api, second.secret), message="the grace is over")
    assert await status(api, third.secret) == 200


async def test_a_grace_of_nothing_ends_the_secret_so_far(api: Api, store: Database, keys: Keys) -> None:
    key = await keys.make()
    second = await issuing.rotate(store, key.key_id, grace_seconds=0, by="a test")
    assert second is not None
    assert await status(api, second.secret) == 200
    assert await status(api, key.secret) == 401


async def test_a_key_ends_at_its_moment_without_anybody_saying_so(api: Api, keys: Keys) -> None:
    key = await keys.make(expires_seconds=1.0)
    await eventually(lambda: _refused(api, key.secret))
    answer = await api.get(PATH, headers=bearer(key.secret))
    assert answer.json()["detail"] == "This key has expired"


async def test_unknown_keys_are_looked_for_a_few_times_a_second_however_many_come(
    api: Api, database: OwnDatabase, keys: Keys
) -> None:
    good = await keys.make()
    assert await status(api, good.secret) == 200
    async with database.connect() as connection:
        await connection.execute("CREATE EXTENSION IF NOT EXISTS pg_stat_statements")
        reads = "SELECT coalesce(sum(calls), 0)::int FROM pg_stat_statements WHERE query LIKE '%known_keys%'"
        try:
            before = await connection.fetchval(reads)
        except Exception as error:  # noqa: BLE001 - the server that is there may lack the library
            pytest.skip(f"pg_stat_statements cannot be asked: {error}")
        began = time.monotonic()
        forged = [good.secret[:-6] + f"{number:06}" for number in range(300)]
        answers = await asyncio.gather(*(status(api, each) for each in forged))
        seconds = time.monotonic() - began
        assert set(answers) == {401}
        assert await connection.fetchval(reads) - before <= seconds / 0.2 + 2
    assert await status(api, good.secret) == 200


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
