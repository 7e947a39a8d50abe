"""Figures of queues: counted by one dispatcher at a time, stored, and right."""

import asyncio

from bobrai.domain.task import OutcomeKind
from bobrai.store import attempts, queues
from bobrai.store.pool import Database, Record
from bobrai.store.queues import Wishes
from tests.integration.store.builders import claimed, outcome, submitted, submitted_one, worker
from tests.support.authors import SOMEBODY


async def measured(store: Database, **periods: float) -> dict[str, Record]:
    """Measure now, whatever was measured before."""
    rows = await queues.measure(
        store, {}, period_seconds=0.0, takeover_periods=0.0, waiting_period_seconds=0.0, **periods
    )
    return {row["name"]: row for row in rows.rows}


async def test_figures_are_what_the_rows_say(store: Database) -> None:
    me = await worker(store)
    await submitted(store, 4)
    await submitted(store, 3, delay_seconds=60.0)
    claim = await claimed(store, me, await submitted_one(store))
    await attempts.end(store, me, [outcome(claim, OutcomeKind.RETRY, delay_seconds=60.0)])
    await claimed(store, me, await submitted_one(store))
    await submitted(store, 2, queue="other")
    await store.fetch("UPDATE tasks SET run_at = now() - interval '5 min' WHERE id = 1")
    figures = await measured(store)
    names = ("due", "delayed", "between_attempts", "processing")
    assert [figures["default"][name] for name in names] == [4, 3, 1, 1]
    assert [figures["other"][name] for name in names] == [2, 0, 0, 0]
    assert 299.0 < figures["default"]["oldest_due_age_seconds"] < 360.0
    assert 0.0 <= figures["other"]["outbox_lag_seconds"] < 60.0
    assert [figures[name]["paused"] for name in ("default", "other")] == [False, False]
    stored = {row["name"]: row for row in await queues.every(store)}
    assert [stored["default"][name] for name in names] == [4, 3, 1, 1]
    assert stored["default"]["measured_age_seconds"] < 60.0


async def test_an_empty_queue_has_no_oldest_task(store: Database) -> None:
    assert (await measured(store))["default"]["oldest_due_age_seconds"] is None


async def test_one_dispatcher_measures_at_a_time(store: Database) -> None:
    await queues.ensure(store, [f"q{number}" for number in range(10)])

    async def once() -> set[str]:
        rows = await queues.measure(store, {}, period_seconds=60.0, takeover_periods=60.0, waiting_period_seconds=60.0)
        return {row["name"] for row in rows.rows}

    taken = await asyncio.gather(*(once() for _ in range(6)))
    assert sum(len(names) for names in taken) == 11
    assert await once() == set()


async def test_a_queue_stays_with_the_dispatcher_that_measures_it(store: Database) -> None:
    await measured(store)
    await store.fetch("UPDATE queues SET measured_every = 1.0")

    async def taken(own: dict[str, int | None]) -> bool:
        rows = await queues.measure(store, own, period_seconds=0.0, takeover_periods=60.0, waiting_period_seconds=60.0)
        return bool(rows.rows)

    assert not await taken({})
    assert await taken({"default": None})
    await store.fetch("UPDATE queues SET measured_every = 1.0, measured_at = now() - interval '61 s'")
    assert await taken({}), "its dispatcher left out sixty rounds"


async def test_counting_what_is_delayed_has_its_own_period(store: Database) -> None:
    await measured(store)
    await submitted(store, 2, delay_seconds=60.0)
    await submitted(store, 1)
    rows = await queues.measure(store, {}, period_seconds=0.0, takeover_periods=0.0, waiting_period_seconds=60.0)
    assert rows.waiting_seconds is None
    assert (rows.rows[0]["due"], rows.rows[0]["delayed"]) == (1, 0)


async def test_a_limit_can_be_set_and_taken_away(store: Database) -> None:
    async def limit(wishes: Wishes) -> int | None:
        assert await queues.change(store, "default", wishes, by=SOMEBODY)
        found: int | None = (await queues.every(store))[0]["max_backlog"]
        return found

    assert await limit(Wishes(max_backlog=10)) == 10
    assert await limit(Wishes()) == 10
    assert await limit(Wishes(max_backlog=None)) is None
    assert not await queues.change(store, "unknown", Wishes(paused=True), by=SOMEBODY)
