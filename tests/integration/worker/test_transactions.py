"""``ctx.transaction()``: the handler's rows and its task's result are one commit, or neither is there."""

import asyncio
import contextlib

import asyncpg
import pytest

from bobrai import Context, PermanentFailure, Retry
from bobrai.store import tasks
from bobrai.worker.executor import Executor
from tests.integration.worker.service import Service
from tests.support.authors import SOMEBODY
from tests.support.eventually import eventually

ONCE = Retry(max_attempts=1)


@pytest.fixture(autouse=True)
async def effects_table(service: Service) -> None:
    await service.database.fetch("CREATE TABLE effects (task_id bigint, attempt integer, note text)")


async def effects(service: Service) -> list[tuple[int, int]]:
    return [tuple(row) for row in await service.database.fetch("SELECT task_id, attempt FROM effects")]


async def test_result_and_effect_are_committed_together(service: Service) -> None:
    before_commit: list[int] = []

    @service.task("effect")
    async def effect(ctx: Context) -> str:
        async with ctx.transaction() as conn:
            await conn.execute("INSERT INTO effects VALUES ($1, $2)", ctx.task_id, ctx.attempt)
            return "inside the block"

    @service.task("looks")
    async def looks(ctx: Context) -> None:
        async with ctx.transaction() as conn:
            await conn.execute("INSERT INTO effects VALUES ($1, $2)", ctx.task_id, ctx.attempt)
        # the block is over and nothing is committed yet: that happens with the result
        before_commit.append(len(await effects(service)))

    await service.worker()
    row = await service.run("effect")
    assert (row["status"], row["result"]) == ("done", "inside the block")
    assert await effects(service) == [(row["id"], 1)]
    await service.run("looks")
    assert before_commit == [1]
    assert len(await effects(service)) == 2


async def test_failed_attempts_leave_no_effect(service: Service) -> None:
    @service.task("third-time")
    async def third_time(ctx: Context) -> None:
        async with ctx.transaction() as conn:
            await conn.execute("INSERT INTO effects VALUES ($1, $2)", ctx.task_id, ctx.attempt)
        if ctx.attempt < 3:
            raise ValueError("after the block")

    @service.task("hopeless")
    async def hopeless(ctx: Context) -> None:
        async with ctx.transaction() as conn:
            await conn.execute("INSERT INTO effects VALUES ($1, $2)", ctx.task_id, ctx.attempt)
            raise PermanentFailure("inside the block")

    @service.task("wrong-result")
    async def wrong_result(ctx: Context) -> int:
        async with ctx.transaction() as conn:
            await conn.execute("INSERT INTO effects VALUES ($1, $2)", ctx.task_id, ctx.attempt)
        return "many"  # type: ignore[return-value]

    await service.worker()
    row = await service.run("third-time")
    assert (await service.run("hopeless"))["status"] == "failed"
    assert (await service.run("wrong-result"))["errors"][0]["reason"] == "invalid_result"
    assert await effects(service) == [(row["id"], 3)]


async def test_a_handler_submits_another_task_with_its_own_result_or_not_at_all(service: Service) -> None:
    @service.task("next")
    async def next_one(payload: int) -> int:
        return payload

    @service.task("first")
    async def first(ctx: Context) -> int:
        async with ctx.transaction() as conn:
            task_id: int = await conn.fetchval("SELECT bobrai_submit('next', $1)", str(ctx.attempt))
        if ctx.attempt < 3:
            raise ValueError("after the block")
        return task_id

    await service.worker()
    submitted = (await service.run("first"))["result"]
    assert (await service.final(submitted))["result"] == 3
    assert len(await service.database.fetch("SELECT FROM tasks WHERE type = 'next'")) == 1


async def test_timed_out_and_cancelled_attempts_leave_no_effect(service: Service) -> None:
    @service.task("hangs")
    async def hangs(ctx: Context) -> None:
        async with ctx.transaction() as conn:
            await conn.execute("INSERT INTO effects VALUES ($1, $2)", ctx.task_id, ctx.attempt)
            await asyncio.sleep(60)

    await service.worker(heartbeat_seconds=0.1)
    assert (await service.run("hangs", timeout_seconds=0.2, retry=ONCE))["status"] == "failed"
    task_id = await service.submit("hangs")
    await service.reached(task_id, "processing")
    await tasks.cancel(service.database, task_id, by=SOMEBODY)
    assert (await service.final(task_id))["status"] == "cancelled"
    assert await effects(service) == []


async def test_abandoned_handlers_transaction_is_cut(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Executor.__init__, "__defaults__", (0.2,))
    gate = asyncio.Event()
    after: list[type[BaseException] | None] = []

    @service.task("deaf")
    async def deaf(ctx: Context) -> None:
        async with ctx.transaction() as conn:
            await conn.execute("INSERT INTO effects VALUES ($1, $2)", ctx.task_id, ctx.attempt)
            while not gate.is_set():
                try:
                    await gate.wait()
                except asyncio.CancelledError:
                    continue
            try:
                await conn.execute("INSERT INTO effects VALUES ($1, $2)", ctx.task_id, ctx.attempt)
                after.append(None)
            except (asyncpg.InterfaceError, asyncpg.PostgresError) as error:
                after.append(type(error))

    await service.worker()
    assert (await service.run("deaf", timeout_seconds=0.2, retry=ONCE))["status"] == "failed"
    gate.set()
    await eventually(lambda: after)
    assert after[0] is not None
    assert await effects(service) == []


async def test_attempt_that_lost_its_claim_leaves_no_effect(service: Service) -> None:
    gate = asyncio.Event()

    @service.task("overtaken")
    async def overtaken(ctx: Context) -> int:
        async with ctx.transaction() as conn:
            await conn.execute("INSERT INTO effects VALUES ($1, $2)", ctx.task_id, ctx.attempt)
        if ctx.attempt == 1:
            await gate.wait()
        return ctx.attempt

    await service.worker()
    task_id = await service.submit("overtaken")
    await service.reached(task_id, "processing")
    # somebody took the task back, as the reaper does with a lost worker's
    await service.database.fetch(
        "WITH t AS (UPDATE tasks SET status = 'pending', worker_id = NULL WHERE id = $1 RETURNING id, attempt) "
        "INSERT INTO outbox SELECT id, attempt, 'default', 0, now() FROM t",
        task_id,
    )
    await service.final(task_id)
    gate.set()
    await service.nothing_is_left()
    await service.run("echo")
    assert (await service.row(task_id))["result"] == 2
    assert await effects(service) == [(task_id, 2)]


async def test_second_transaction_and_plain_handlers_are_refused(service: Service) -> None:
    @service.task("twice")
    async def twice(ctx: Context) -> None:
        async with ctx.transaction():
            pass
        async with ctx.transaction():
            pass

    @service.task("plain")
    def plain(ctx: Context) -> None:
        ctx.transaction()

    await service.worker()
    assert (await service.run("twice", retry=ONCE))["errors"][0]["type"] == "RuntimeError"
    assert "async handlers" in (await service.run("plain", retry=ONCE))["errors"][0]["message"]


async def test_more_transactions_than_connections_wait_for_each_other(service: Service) -> None:
    @service.task("holds")
    async def holds(ctx: Context) -> None:
        async with ctx.transaction() as conn:
            await conn.execute("INSERT INTO effects VALUES ($1, $2)", ctx.task_id, ctx.attempt)
            await asyncio.sleep(0.05)

    await service.worker(concurrency=40)
    ids = await service.submit_many(80, "holds")
    await service.all_final(ids)
    assert sorted(await effects(service)) == [(task_id, 1) for task_id in ids]


async def test_error_at_the_commit_is_the_attempts_error(service: Service) -> None:
    await service.database.fetch("CREATE TABLE once (id integer, UNIQUE (id) DEFERRABLE INITIALLY DEFERRED)")

    @service.task("deferred")
    async def deferred(ctx: Context) -> None:
        async with ctx.transaction() as conn:
            await conn.execute("INSERT INTO once VALUES (1), (1)")

    @service.task("caught")
    async def caught(ctx: Context) -> None:
        async with ctx.transaction() as conn:
            with contextlib.suppress(asyncpg.DivisionByZeroError):
                await conn.execute("SELECT 1 / 0")
            # PostgreSQL refuses everything in this transaction from here on

    await service.worker()
    for kind in ("deferred", "caught"):
        row = await service.run(kind, retry=ONCE)
        assert (row["status"], row["errors"][0]["reason"]) == ("failed", "error")


@pytest.mark.parametrize("committed", [True, False])
async def test_unanswered_commit_is_looked_up(
    service: Service, committed: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    cut: list[asyncpg.Connection] = []  # whose connection is lost when COMMIT is sent
    execute = asyncpg.Connection.execute

    async def lossy(connection: asyncpg.Connection, query: str, *arguments: object, **options: object) -> object:
        if connection in cut and query.startswith("COMMIT"):
            if committed:
                await execute(connection, query)
            connection.terminate()
            raise ConnectionResetError("the connection was lost")
        return await execute(connection, query, *arguments, **options)

    monkeypatch.setattr(asyncpg.Connection, "execute", lossy)

    @service.task("effect")
    async def effect(ctx: Context) -> int:
        async with ctx.transaction() as conn:
            await conn.execute("INSERT INTO effects VALUES ($1, $2)", ctx.task_id, ctx.attempt)
            if ctx.attempt == 1:
                cut.append(conn._con)
        return ctx.attempt

    await service.worker()
    row = await service.run("effect")
    attempt = 1 if committed else 2
    assert (row["status"], row["result"], row["attempt"]) == ("done", attempt, attempt)
    assert await effects(service) == [(row["id"], attempt)]


async def test_transactions_never_keep_outcomes_waiting(service: Service) -> None:
    gate = asyncio.Event()

    @service.task("holds")
    async def holds(ctx: Context) -> None:
        async with ctx.transaction():
            await gate.wait()

    worker = await service.worker(concurrency=40)
    held = await service.submit_many(20, "holds")
    await eventually(lambda: worker.inside.executor.running == 20)
    assert (await service.run("echo"))["status"] == "done"
    gate.set()
    await service.all_final(held)


async def test_an_attempt_ends_even_if_its_handler_cancels_the_roll_back(service: Service) -> None:
    @service.task("cancels")
    async def cancels(ctx: Context) -> None:
        async with ctx.transaction():
            pass
        task = asyncio.current_task()
        assert task is not None
        task.cancel()
        raise ValueError("no")

    worker = await service.worker()
    row = await service.run("cancels", retry=ONCE)
    assert (row["status"], row["errors"][-1]["type"]) == ("failed", "ValueError")
    assert worker.inside.executor.running == 0
