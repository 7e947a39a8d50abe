"""Accepted is committed: tasks and outbox rows together, once per idempotency key, in the order of the request."""

import asyncio
import traceback
from datetime import UTC, datetime, timedelta

import pytest

from bobrai.domain.errors import IdempotencyMismatch, StoreRejected
from bobrai.domain.task import IdempotencyKey
from bobrai.store import outbox, submission, tasks
from bobrai.store.pool import Database
from tests.integration.store.builders import new_task, outbox_rows, relayed, submitted


def key(fingerprint: bytes = b"body", *, ttl_seconds: float = 60.0, **fields: str) -> IdempotencyKey:
    """An idempotency key."""
    return IdempotencyKey(**{"key": "k", **fields}, fingerprint=fingerprint, ttl_seconds=ttl_seconds)


async def count(store: Database) -> int:
    """How many tasks exist."""
    return int((await store.fetch("SELECT count(*) AS n FROM tasks"))[0]["n"])


async def test_ids_come_back_in_the_order_of_the_request(store: Database) -> None:
    batches = await asyncio.gather(
        *(submission.submit(store, [new_task(payload=f"[{n}, {i}]") for i in range(100)]) for n in range(8))
    )
    for n, ids in enumerate(batches):
        assert ids == sorted(ids)
        rows = await tasks.read(store, ids)
        assert [rows[task_id]["payload"] for task_id in ids] == [f"[{n}, {i}]" for i in range(100)]
    assert [row["task_id"] for row in await outbox_rows(store)] == sorted(each for ids in batches for each in ids)


async def test_a_payload_is_kept_verbatim(store: Database) -> None:
    text = '{"b":1,  "a":[1.50, 1e5],"a":"\\u00fc ü"}'
    (task_id,) = await submission.submit(store, [new_task(payload=text)])
    assert (await tasks.get(store, task_id))["payload"] == text


async def test_one_bad_task_stores_none(store: Database) -> None:
    with pytest.raises(StoreRejected):
        await submission.submit(store, [new_task(), new_task(payload="not json"), new_task()])
    assert (await count(store), await outbox_rows(store)) == (0, [])


async def test_what_postgresql_says_of_a_bad_row_does_not_quote_it(store: Database) -> None:
    bad = new_task(payload='"hunter2"', type=None)
    with pytest.raises(StoreRejected, match="violates not-null constraint") as refused:
        await submission.submit(store, [bad])
    assert "hunter2" not in "".join(traceback.format_exception(refused.value))


async def test_a_delay_counts_from_the_databases_clock(store: Database) -> None:
    (delayed,) = await submitted(store, delay_seconds=30.0)
    row = await tasks.get(store, delayed)
    assert (row["run_at"] - row["created_at"]).total_seconds() == pytest.approx(30.0)
    assert await relayed(store) == []
    assert 25.0 < (await outbox.next_due(store) or 0.0) <= 30.0


async def test_run_at_wins_over_a_delay(store: Database) -> None:
    past = datetime.now(UTC) - timedelta(days=1)
    (task_id,) = await submitted(store, run_at=past, delay_seconds=60.0)
    assert [hint.task_id for hint in await relayed(store)] == [task_id]


async def test_a_key_gives_the_first_answer_again(store: Database) -> None:
    first = await submission.submit_keyed(store, [new_task(), new_task()], key())
    again = await submission.submit_keyed(store, [new_task(), new_task()], key())
    assert (first[1], again) == (False, ((first[0].ids, []), True))
    assert (await count(store), len(await outbox_rows(store))) == (2, 2)


async def test_fifty_parallel_submits_under_one_key_store_one(either_way: Database) -> None:
    answers = await asyncio.gather(*(submission.submit_keyed(either_way, [new_task()], key()) for _ in range(50)))
    assert len({tuple(stored.ids) for stored, _ in answers}) == 1
    assert [replayed for _, replayed in answers].count(False) == 1
    assert (await count(either_way), len(await outbox_rows(either_way))) == (1, 1)


async def test_a_key_with_another_body_is_refused(store: Database) -> None:
    await submission.submit_keyed(store, [new_task()], key(b"one"))
    with pytest.raises(IdempotencyMismatch):
        await submission.submit_keyed(store, [new_task()], key(b"two"))
    assert await count(store) == 1


async def test_keys_of_two_clients_do_not_meet(store: Database) -> None:
    mine, _ = await submission.submit_keyed(store, [new_task()], key(b"one", client_id="me"))
    theirs, replayed = await submission.submit_keyed(store, [new_task()], key(b"two", client_id="them"))
    assert (mine == theirs, replayed) == (False, False)


async def test_an_expired_key_is_new(store: Database) -> None:
    first, _ = await submission.submit_keyed(store, [new_task()], key(b"one", ttl_seconds=0.001))
    await store.fetch("UPDATE idempotency_keys SET expires_at = now() - interval '1 s'")
    answers = await asyncio.gather(*(submission.submit_keyed(store, [new_task()], key(b"two")) for _ in range(10)))
    assert {tuple(stored.ids) for stored, _ in answers} != {tuple(first.ids)}
    assert [replayed for _, replayed in answers].count(False) == 1
    assert await count(store) == 2


async def test_a_key_whose_request_was_refused_is_free(store: Database) -> None:
    with pytest.raises(StoreRejected):
        await submission.submit_keyed(store, [new_task(payload="not json")], key())
    assert (await submission.submit_keyed(store, [new_task()], key()))[1] is False


async def test_only_expired_keys_are_pruned(store: Database) -> None:
    for number in range(5):
        await submission.submit_keyed(store, [new_task()], key(key=f"old{number}"))
    await store.fetch("UPDATE idempotency_keys SET expires_at = now() - interval '1 s'")
    await submission.submit_keyed(store, [new_task()], key(key="fresh"))
    assert [await tasks.prune_idempotency_keys(store, limit=3) for _ in range(3)] == [3, 2, 0]
    assert [row["key"] for row in await store.fetch("SELECT key FROM idempotency_keys")] == ["fresh"]
