"""Limits hold over all workers, from the moment they are set on, and delay nobody whom they are not for."""

import asyncio
import time
from collections import Counter
from typing import Any

import pytest

from bobrai import Context, Retry
from bobrai.store import tasks
from bobrai.store.purging import Purge
from tests.integration.worker.service import Service
from tests.support.authors import SOMEBODY
from tests.support.eventually import eventually, stays


class Running:
    """What runs at once, and what ran at once at most, by key; handlers wait for a gate, or a moment."""

    def __init__(self) -> None:
        self.now: Counter[str] = Counter()
        self.most: Counter[str] = Counter()
        self.starts: list[tuple[float, str]] = []
        self.gate = asyncio.Event()

    async def run(self, key: str, seconds: float | None) -> None:
        self.starts.append((time.monotonic(), key))
        for each in (key, "all"):
            self.now[each] += 1
            self.most[each] = max(self.most[each], self.now[each])
        try:
            await (self.gate.wait() if seconds is None else asyncio.sleep(seconds))
        finally:
            for each in (key, "all"):
                self.now[each] -= 1


@pytest.fixture
def running(service: Service) -> Running:
    """What the handlers `keyed` and `other` are doing."""
    seen = Running()

    async def keyed(payload: dict[str, Any]) -> None:
        await seen.run(str(payload["account"]), payload.get("seconds"))

    for name in ("keyed", "other"):
        service.task(name, retry=Retry(delay_seconds=0.02))(keyed)
    return seen


async def many(service: Service, key: str, count: int, seconds: float | None = 0.01, **more: Any) -> list[int]:
    return await service.submit_many(count, more.pop("type_", "keyed"), {"account": key, "seconds": seconds}, **more)


async def counted(service: Service, table: str) -> int:
    return int((await service.database.fetch(f"SELECT count(*) FROM {table}"))[0][0])


async def nothing_is_held_or_counted(service: Service) -> None:
    async def clean() -> bool:
        return await counted(service, "held") + await counted(service, "admissions") == 0

    await eventually(clean, 30, message="no hint is held, and no place is taken")


async def test_of_each_key_no_more_run_than_its_limit_over_all_workers(service: Service, running: Running) -> None:
    for _ in range(3):
        await service.worker()
    await service.limit({"per_key": {"key": "/account", "concurrency": 3}})
    ids = [each for key in "abcd" for each in await many(service, key, 40)]
    await service.all_final(ids)
    assert {key: running.most[key] for key in "abcd"} == dict.fromkeys("abcd", 3)
    assert running.most["all"] > 3
    await nothing_is_held_or_counted(service)


async def test_limits_of_queue_type_and_keys_hold_together(service: Service, running: Running) -> None:
    for _ in range(2):
        await service.worker(queues=("default", "second"))
    await service.limit({"concurrency": 4, "per_key": {"key": "/account", "concurrency": 3}})
    await service.limit({"concurrency": 5}, type_="keyed")
    ids = [
        each
        for key in "abc"
        for queue in ("default", "second")
        for each in await many(service, key if queue == "default" else key.upper(), 20, queue=queue)
    ]
    await service.all_final(ids)
    assert max(running.most[key] for key in "abc") <= 3
    assert running.most["all"] == 5
    await nothing_is_held_or_counted(service)


async def test_a_full_key_does_not_delay_others(service: Service, running: Running) -> None:
    await service.worker()
    await service.limit({"per_key": {"key": "/account", "concurrency": 2}})
    stuck = await many(service, "stuck", 50, None)
    await eventually(lambda: running.now["stuck"] == 2)
    await service.all_final(await many(service, "free", 30))
    await service.all_final(await many(service, "free", 30, type_="other"))
    assert running.most["stuck"] == 2
    running.gate.set()
    await service.all_final(stuck)


async def test_a_limit_holds_for_what_was_published_before_it(service: Service, running: Running) -> None:
    """Slow tasks wait in the broker for minutes: a limit that came after them would not be felt."""
    await service.worker()
    ids = await many(service, "a", 60, None)
    await eventually(lambda: running.now["a"] == 10)
    await service.limit({"concurrency": 2})
    running.gate.set()
    await eventually(lambda: running.now["a"] <= 2)
    running.most.clear()
    running.gate.clear()
    await eventually(lambda: running.now["a"] == 2)
    await stays(lambda: running.now["a"] == 2, 1.0)
    running.gate.set()
    await service.all_final(ids)
    await nothing_is_held_or_counted(service)


async def test_limits_that_are_lifted_let_everything_run(service: Service, running: Running) -> None:
    await service.worker()
    await service.limit({"per_key": {"key": "/account", "concurrency": 1}})
    ids = [each for key in "ab" for each in await many(service, key, 15, None)]
    await eventually(lambda: running.now["all"] == 2)
    await service.limit(None)
    await eventually(lambda: running.now["all"] == 10, message="as many run as there are slots")
    running.gate.set()
    await service.all_final(ids)
    await nothing_is_held_or_counted(service)


async def test_limits_by_another_key_hold_for_what_waits(service: Service, running: Running) -> None:
    await service.worker()
    await service.limit({"per_key": {"key": "/account", "concurrency": 1}})
    ids = [each for key in "ab" for each in await many(service, key, 15, None)]
    await eventually(lambda: running.now["all"] == 2)
    await service.limit({"per_key": {"key": "/seconds", "concurrency": 4}})  # the same for all of them
    await eventually(lambda: running.now["all"] == 4)
    await stays(lambda: running.now["all"] == 4, 1.0)
    running.gate.set()
    await service.all_final(ids)
    await nothing_is_held_or_counted(service)


async def test_no_more_start_in_any_time_than_rate_and_burst_allow(service: Service, running: Running) -> None:
    for _ in range(2):
        await service.worker()
    await service.limit({"rate": "20/s", "burst": 10})
    await service.all_final(await many(service, "a", 60))
    starts = await started_at(service)
    assert_rate(starts, per_second=20, burst=10)
    assert starts[-1] - starts[0] < 10, "it is a rate, no standstill"


async def test_what_was_let_through_while_no_worker_lived_counts_when_it_starts(
    service: Service, running: Running
) -> None:
    await service.limit({"rate": "20/s", "burst": 10})
    first = await service.worker()
    first.stop.request("for the test")
    await first.ended()
    ids = await many(service, "a", 50)
    await eventually(lambda: counted(service, "admissions"))
    await stays(lambda: is_at_most(service, "admissions", 10), seconds=1.0)
    await service.worker()
    await service.all_final(ids)
    assert_rate(await started_at(service), per_second=20, burst=10)


async def test_each_key_has_a_rate_of_its_own(service: Service, running: Running) -> None:
    await service.worker()
    await service.limit({"per_key": {"key": "/account", "rate": "1/h", "burst": 2}})
    ids = {key: await many(service, key, 5) for key in "abc"}
    await service.all_final([each for of_key in ids.values() for each in of_key[:2]])
    await stays(lambda: len(running.starts) == 6, 1.0)
    rows = await service.database.fetch("SELECT key FROM rate_buckets ORDER BY key")
    assert [row["key"] for row in rows] == ["a", "b", "c"]


async def is_at_most(service: Service, table: str, count: int) -> bool:
    return await counted(service, table) <= count


async def started_at(service: Service) -> list[float]:
    rows = await service.database.fetch(
        "SELECT extract(epoch FROM started_at)::float8 AS at FROM tasks WHERE started_at IS NOT NULL ORDER BY at"
    )
    return [row["at"] for row in rows]


def assert_rate(starts: list[float], *, per_second: float, burst: int) -> None:
    for first, at in enumerate(starts):
        for last in range(first, len(starts)):
            allowed = burst + per_second * (starts[last] - at)
            assert last - first + 1 <= allowed + 1e-6, f"{last - first + 1} started in {starts[last] - at:.3f} s"


async def test_a_flood_of_one_key_does_not_make_another_wait_its_turn_behind_it(
    service: Service, running: Running
) -> None:
    await service.worker(concurrency=5)
    await service.limit({"per_key": {"key": "/account"}})
    flood = await many(service, "flood", 2000)
    await eventually(lambda: running.starts and len(running.starts) > 50)
    before = len(running.starts)
    await service.all_final(await many(service, "small", 50))
    after = [key for _, key in running.starts[before:]]
    last = len(after) - 1 - after[::-1].index("small")
    assert after[:last].count("flood") < 60, "of the flood about as many ran as of the small one, at most"
    await Purge(service.database, "default", by=SOMEBODY).cancel_waiting(limit=10_000)
    await service.all_final(flood)
    await nothing_is_held_or_counted(service)


async def test_weights_give_a_key_more_turns(service: Service, running: Running) -> None:
    await service.worker(concurrency=2)
    await service.limit({"per_key": {"key": "/account", "weights": {"heavy": 4}}})
    ids = [each for key in ("light", "heavy") for each in await many(service, key, 300, None)]
    await eventually(lambda: is_least(service, "held", 500), message="both wait")
    running.gate.set()
    await service.all_final(ids, 60)
    begun = Counter(key for _, key in running.starts[:250])
    assert begun["heavy"] > 2 * begun["light"] > 0


async def is_least(service: Service, table: str, count: int) -> bool:
    return await counted(service, table) >= count


async def test_priorities_order_what_waits_within_a_key(service: Service, running: Running) -> None:
    order: list[tuple[str, int]] = []

    @service.task("ordered")
    async def ordered(ctx: Context, payload: dict[str, Any]) -> None:
        order.append((payload["account"], payload["number"]))
        if payload["number"] == 0:
            await running.gate.wait()

    await service.worker()
    await service.limit({"per_key": {"key": "/account", "concurrency": 1}})
    for key in "ab":
        await service.submit("ordered", {"account": key, "number": 0}, priority=9)
    await eventually(lambda: len(order) == 2)
    ids = [
        await service.submit("ordered", {"account": key, "number": priority}, priority=priority)
        for priority in (1, 7, 4)
        for key in "ab"
    ]
    await eventually(lambda: is_least(service, "held", 6))
    running.gate.set()
    await service.all_final(ids)
    for key in "ab":
        assert [number for of, number in order if of == key] == [0, 7, 4, 1]


async def test_what_a_limit_holds_back_can_be_cancelled_and_expires(service: Service, running: Running) -> None:
    await service.worker()
    await service.limit({"concurrency": 1})
    (first,) = await many(service, "a", 1, None)
    await eventually(lambda: running.now["a"] == 1)
    (cancelled,) = await many(service, "a", 1, None)
    (expired,) = await many(service, "a", 1, None, expires_seconds=0.5)
    await eventually(lambda: is_least(service, "held", 2))
    await tasks.cancel(service.database, cancelled, by=SOMEBODY)
    assert (await service.final(expired))["errors"][-1]["reason"] == "expired"
    assert await counted(service, "held") == 0
    running.gate.set()
    await service.all_final([first])
    assert len(running.starts) == 1
    await nothing_is_held_or_counted(service)


async def test_a_retry_gives_its_place_back_while_it_waits(service: Service, running: Running) -> None:
    @service.task("fails", retry=Retry(max_attempts=2, delay_seconds=600, max_delay_seconds=600))
    async def fails() -> None:
        raise ValueError("no")

    await service.worker()
    await service.limit({"concurrency": 1})
    for _ in range(3):
        await service.submit("fails", retry=Retry(max_attempts=2, delay_seconds=600, max_delay_seconds=600))
    await eventually(lambda: counts(service, "attempt = 1 AND status = 'pending'", 3))
    await nothing_is_held_or_counted(service)


async def counts(service: Service, condition: str, count: int) -> bool:
    return await service.count(condition) == count


async def test_a_shutdown_gives_its_places_back(service: Service, running: Running) -> None:
    first = await service.worker(drain_seconds=0.1)
    await service.limit({"concurrency": 2})
    ids = await many(service, "a", 6, None)
    await eventually(lambda: running.now["a"] == 2)
    first.stop.request("for the test")
    await first.ended()
    await service.worker()
    await eventually(lambda: running.now["a"] == 2)
    running.gate.set()
    await service.all_final(ids)
    assert running.most["a"] == 2
    await nothing_is_held_or_counted(service)


@pytest.mark.parametrize(
    ("payload", "key"),
    [
        ({"a/b": {"~": "x"}}, "x"),
        ({"a/b": {"~": 7}}, "7"),
        ({"a/b": {"~": "nul \x00 elsewhere"}}, None),
        ({"a/b": {"~": "x"}, "other": "\x00"}, "x"),
        ({"a/b": {"~": None}}, ""),
        ({"a/b": {}}, ""),
        ([1, 2], ""),
        ("text", ""),
        ({"a/b": {"~": "long" * 50}}, None),
    ],
)
async def test_any_payload_has_a_key_and_none_holds_up_the_others(
    service: Service, payload: object, key: str | None
) -> None:
    await service.limit({"per_key": {"key": "/a~1b/~0", "concurrency": 1}})
    await service.submit("keyed", payload)
    await eventually(lambda: is_least(service, "admissions", 1))
    found = (await service.database.fetch("SELECT queue_key FROM admissions"))[0]["queue_key"]
    assert len(found) <= 128
    assert key is None or found == key
