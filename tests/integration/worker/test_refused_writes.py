"""PostgreSQL answers every write with an error of its own: outcomes are kept until they are written, each by itself."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from bobrai import Context, Retry
from bobrai.domain.errors import DatabaseUnavailable
from bobrai.domain.message import Hint
from bobrai.store import attempts
from bobrai.store.pool import Database
from bobrai.telemetry.logs import captured as capture_logs
from bobrai.worker import completions
from bobrai.worker import worker as worker_module
from tests.integration.worker.service import Service
from tests.support.eventually import eventually
from tests.support.refusing import allow, ignore, refuse

ONCE = Retry(max_attempts=1)
# Another owner, a table that is not ready, a damaged disk, a read-only session, a trigger of somebody's own.
SERVERS_FAULTS = ["42501", "55000", "58030", "XX000", "25006", "P0001"]


def gated(service: Service) -> asyncio.Event:
    """Declare the type "waits": when the event is set it fails or returns the number of its attempt, as it is told."""
    gate = asyncio.Event()

    @service.task("waits")
    async def waits(ctx: Context, fails: bool) -> int:
        await gate.wait()
        if fails:
            raise ValueError("as planned")
        return ctx.attempt

    return gate


async def test_a_result_that_is_refused_like_everything_else_is_kept(service: Service) -> None:
    """Though the answer speaks of values, nothing could be stored: so it was not the result's fault."""
    gate = gated(service)
    worker = await service.worker()
    ids = await service.submit_many(2, "waits", payload=False)
    ids.append(await service.submit("waits", payload=True, retry=ONCE))
    await eventually(lambda: worker.inside.executor.running == 3)
    with capture_logs() as logs:
        async with refusing(service, "54000", "OLD.status = 'processing'"):
            gate.set()
            await eventually(lambda: sum(line["event"] == "task.outcome_refused" for line in logs) == 3)
            assert worker.inside.executor.unsettled == 3
        await service.all_final(ids)
    rows = [await service.row(task_id) for task_id in ids]
    assert [(row["status"], row["result"], row["attempt"]) for row in rows] == [
        ("done", 1, 1), ("done", 1, 1), ("failed", None, 1)
    ]  # fmt: skip
    assert "as planned" in rows[2]["errors"][0]["message"]


@pytest.mark.parametrize("fails", [False, True], ids=["result", "failure"])
async def test_an_outcome_is_kept_whole_whenever_a_refusal_of_everything_ends(service: Service, fails: bool) -> None:
    """After any number of writes, though each is refused as if for its values."""

    @service.task("reports")
    async def reports(ctx: Context) -> str:
        ctx.progress({"step": 1})
        if fails:
            raise ValueError("as planned")
        return "kept"

    await service.worker()
    for refused in range(1, 12):
        await service.database.fetch(f"CREATE SEQUENCE refused{refused}")
        ends = "TG_OP = 'UPDATE' AND OLD.status = 'processing' AND NEW.status <> 'processing'"
        async with refusing(service, "54000", f"{ends} AND nextval('refused{refused}') <= {refused}"):
            row = await service.run("reports", retry=ONCE)
        if fails:
            assert "as planned" in row["errors"][0]["message"], f"after {refused} refusals"
        else:
            assert (row["status"], row["result"]) == ("done", "kept"), f"after {refused} refusals"
        assert row["progress"] == {"step": 1}, f"after {refused} refusals"


async def test_only_the_values_that_are_refused_are_left_out(service: Service) -> None:
    @service.task("ends")
    async def ends(ctx: Context, fails: bool) -> str:
        ctx.progress("bad")
        if fails:
            raise ValueError("bad")
        return "kept"

    await service.worker()
    values = "concat(NEW.progress, NEW.errors) LIKE '%bad%'"
    async with refusing(service, "22000", f"TG_OP = 'UPDATE' AND {values} AND NEW.status <> 'processing'"):
        done, failed = await service.run("ends", payload=False), await service.run("ends", payload=True, retry=ONCE)
    assert (done["status"], done["result"], done["progress"]) == ("done", "kept", None)
    [error] = failed["errors"]
    assert (failed["status"], error["type"], error["reason"]) == ("failed", "Error", "error")


async def test_values_that_are_refused_at_the_commit_are_left_out(service: Service) -> None:
    await service.database.fetch("CREATE TABLE forbidden (result text PRIMARY KEY)")
    await service.database.fetch("INSERT INTO forbidden VALUES ('\"bad\"')")
    async with service.database.transaction() as connection:
        await connection.execute("""
            CREATE FUNCTION forbid() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
            IF NEW.result::text IN (SELECT result FROM forbidden) THEN
                RAISE EXCEPTION 'not this one' USING ERRCODE = '23514';
            END IF; RETURN NULL; END $$;
            CREATE CONSTRAINT TRIGGER forbid AFTER UPDATE ON tasks DEFERRABLE INITIALLY DEFERRED
            FOR EACH ROW EXECUTE FUNCTION forbid()
        """)
    await service.worker()
    row = await service.run("echo", "bad")
    assert (row["status"], row["errors"][0]["reason"]) == ("failed", "invalid_result")
    assert (await service.run("echo", "good"))["result"] == "good"


async def test_a_plainer_outcome_whose_commit_is_not_answered_is_no_lost_claim(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    unanswered = []

    @asynccontextmanager
    async def lossy(self: Database) -> AsyncIterator[Any]:
        async with begin(self) as connection:
            yield connection
        if self._name == "bobrai-worker" and not unanswered:
            unanswered.append(self)
            raise DatabaseUnavailable("the connection is gone")

    begin = Database.transaction
    monkeypatch.setattr(Database, "transaction", lossy)
    await service.database.fetch("ALTER TABLE tasks ADD CHECK (result::text IS DISTINCT FROM '\"bad\"')")
    worker = await service.worker()
    with capture_logs() as logs:
        row = await service.run("echo", "bad")
        await eventually(lambda: worker.inside.executor.unsettled == 0)
    assert (row["status"], row["errors"][0]["reason"]) == ("failed", "invalid_result")
    events = [line["event"] for line in logs]
    assert unanswered
    assert (events.count("task.result_refused"), events.count("claim.lost")) == (1, 0)


async def test_an_outcome_that_a_trigger_silently_ignores_is_written_once_it_is_gone(service: Service) -> None:
    gate = gated(service)

    @service.task("transaction")
    async def transaction(ctx: Context) -> int:
        async with ctx.transaction() as connection:
            await connection.execute("SELECT 1")
            await gate.wait()
        return ctx.attempt

    worker = await service.worker()
    ids = [
        await service.submit("waits", payload=False),
        await service.submit("waits", payload=True, retry=ONCE),
        await service.submit("transaction"),
    ]
    await eventually(lambda: worker.inside.executor.running == 3)
    with capture_logs() as logs:
        await ignore(service.database, "OLD.status = 'processing'")
        gate.set()
        await eventually(lambda: any("changed nothing" in line.get("error", "") for line in logs))
        await allow(service.database)
        await service.all_final(ids)
    rows = [await service.row(task_id) for task_id in ids]
    assert [(row["status"], row["result"], row["losses"]) for row in rows] == [
        ("done", 1, 0), ("failed", None, 0), ("done", 1, 0)
    ]  # fmt: skip
    assert not any(line["event"] == "claim.lost" for line in logs)


async def test_a_task_whose_row_was_hidden_from_its_outcome_runs_again(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By a row security policy, for one: then no write and no question finds it."""
    monkeypatch.setattr(worker_module, "LOOK_SECONDS", 0.2)
    gate = asyncio.Event()

    @service.task("waits")
    async def waits(ctx: Context) -> int:
        await gate.wait()
        return ctx.attempt

    worker = await service.worker()
    task_id = await service.submit("waits", retry=ONCE)
    await eventually(lambda: worker.inside.executor.running == 1)
    await service.database.fetch("ALTER TABLE tasks RENAME TO hidden_tasks")
    await service.database.fetch("CREATE VIEW tasks AS SELECT * FROM hidden_tasks WHERE status <> 'processing'")
    with capture_logs() as logs:
        gate.set()
        await eventually(lambda: any(line["event"] == "claim.lost" for line in logs))
        await service.database.fetch("DROP VIEW tasks")
        await service.database.fetch("ALTER TABLE hidden_tasks RENAME TO tasks")
        row = await service.final(task_id)
    assert (row["status"], row["attempt"], row["result"], row["losses"]) == ("done", 1, 1, 0)
    assert [line["tasks"] for line in logs if line["event"] == "task.orphaned"] == [[task_id]]


async def test_a_claim_without_an_answer_is_no_orphan(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is asked for again: giving it back meanwhile could let two run it."""
    monkeypatch.setattr(worker_module, "LOOK_SECONDS", 0.02)
    looks, ask = [], attempts.orphans

    async def counted(*arguments: Any) -> set[tuple[int, int]]:
        looks.append(await ask(*arguments))
        return looks[-1]

    monkeypatch.setattr(attempts, "orphans", counted)
    worker = await service.worker()
    task_id = await service.submit("echo", "late", delay_seconds=3600)
    worker.inside.claims.unsure.add(Hint(task_id, 0))
    await service.database.fetch(
        "UPDATE tasks SET status = 'processing', attempt = 1, worker_id = $1, started_at = now() WHERE id = $2",
        worker.id,
        task_id,
    )
    await eventually(lambda: sum(map(len, looks)) >= 3, message="it was seen three times")
    assert (await service.row(task_id))["status"] == "processing"
    worker.inside.claims.unsure.clear()
    assert (await service.final(task_id))["status"] == "done"


@asynccontextmanager
async def refusing(service: Service, sqlstate: str, condition: str) -> AsyncIterator[None]:
    """Refuse until the end of the block."""
    await refuse(service.database, sqlstate, condition)
    try:
        yield
    finally:
        await allow(service.database)


@pytest.mark.parametrize("sqlstate", SERVERS_FAULTS)
async def test_a_servers_fault_costs_neither_a_result_nor_a_failure(service: Service, sqlstate: str) -> None:
    gate = gated(service)
    worker = await service.worker()
    ids = [
        *await service.submit_many(3, "waits", payload=False),
        *await service.submit_many(3, "waits", payload=True),
    ]
    await eventually(lambda: worker.inside.executor.running == 6)
    with capture_logs() as logs:
        async with refusing(service, sqlstate, "OLD.status = 'processing'"):
            gate.set()
            await eventually(lambda: any(line["event"] == "database.away" for line in logs))
            late = await service.submit("echo", "late")
            await service.reached(late, "processing")
            assert worker.inside.executor.unsettled == 7
        await service.all_final([*ids, late])
    told = [line for line in logs if line["event"] == "database.away" and line["part"] == "completions"]
    assert all(sqlstate in line["error"] for line in told)
    rows = [await service.row(task_id) for task_id in [*ids, late]]
    assert [row["status"] for row in rows] == ["done"] * 3 + ["failed"] * 3 + ["done"]
    assert [row["result"] for row in rows] == [1] * 3 + [None] * 3 + ["late"]
    assert [[error["reason"] for error in row["errors"]] for row in rows[3:6]] == [["error"] * 3] * 3
    assert [row["attempt"] for row in rows] == [1, 1, 1, 3, 3, 3, 1]


async def test_one_row_that_cannot_be_written_holds_up_no_other(service: Service) -> None:
    await service.worker()
    bad = await service.submit("echo", "bad", delay_seconds=0.3)
    async with refusing(service, "P0001", f"NEW.id = {bad} AND NEW.status = 'done'"):
        others = await service.submit_many(200)
        await service.all_final(others)
        await service.reached(bad, "processing")
        more = await service.submit_many(50)
        await service.all_final(more)
    row = await service.final(bad)
    assert (row["status"], row["attempt"], row["result"]) == ("done", 1, "bad")


async def test_one_row_that_cannot_be_claimed_holds_up_no_other(service: Service) -> None:
    await service.worker()
    bad = await service.submit("echo", "bad", delay_seconds=0.3)
    async with refusing(service, "P0001", f"NEW.id = {bad} AND NEW.status = 'processing'"):
        await service.all_final(await service.submit_many(200))
        await eventually(lambda: _is_refused(service), message="its claim was refused")
        await service.all_final(await service.submit_many(50))
    row = await service.final(bad)
    assert (row["status"], row["attempt"]) == ("done", 1)


async def _is_refused(service: Service) -> bool:
    rows = await service.database.fetch("SELECT count(*) FROM outbox")
    return int(rows[0][0]) == 0


async def test_a_row_that_somebody_has_locked_holds_up_no_other(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate = asyncio.Event()

    @service.task("waits")
    async def waits() -> str:
        await gate.wait()
        return "kept"

    monkeypatch.setenv("BOBRAI_DATABASE_COMMAND_TIMEOUT_SECONDS", "0.3")
    await service.worker()
    locked = await service.submit("waits")
    await service.reached(locked, "processing")
    async with service.database.transaction() as connection:
        await connection.execute(f"SELECT FROM tasks WHERE id = {locked} FOR UPDATE")
        gate.set()
        await service.all_final(await service.submit_many(100))
    row = await service.final(locked)
    assert (row["status"], row["attempt"], row["result"]) == ("done", 1, "kept")


async def test_an_outcome_that_can_never_be_written_gives_its_task_back(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The lease ends once what else runs under it has ended; then the reaper takes the task."""
    monkeypatch.setattr(completions, "PATIENCE_SECONDS", 0.3)
    monkeypatch.setattr(completions, "LONG_PATIENCE_SECONDS", 0.6)
    gate = asyncio.Event()

    @service.task("waits")
    async def waits(ctx: Context) -> int:
        await gate.wait()
        return ctx.attempt

    worker = await service.worker(drain_seconds=60)
    before = worker.id
    neighbour = await service.submit("waits")
    await service.reached(neighbour, "processing")
    bad = await service.submit("echo", "bad", delay_seconds=0.2)
    async with refusing(service, "P0001", f"NEW.id = {bad} AND NEW.status = 'done' AND NEW.attempt = 1"):
        await eventually(lambda: worker.inside._ending_lease is not None, message="the lease is given up")
        gate.set()
        row = await service.final(bad)
    assert (row["status"], row["attempt"], row["result"]) == ("done", 2, "bad")
    assert [error["reason"] for error in row["errors"]] == ["worker_lost"]
    kept = await service.final(neighbour)
    assert (kept["status"], kept["attempt"], kept["errors"]) == ("done", 1, [])
    assert worker.id not in {None, before}
    await service.nothing_is_left()


async def test_a_failure_that_can_never_be_written_gives_its_task_back(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Refused for its values as well, however plain they are made."""
    monkeypatch.setattr(completions, "PATIENCE_SECONDS", 0.3)
    monkeypatch.setattr(completions, "LONG_PATIENCE_SECONDS", 0.6)

    @service.task("fails")
    async def fails(ctx: Context) -> str:
        if ctx.attempt == 1:
            raise ValueError("as planned")
        return "second"

    await service.worker()
    bad = await service.submit("fails", delay_seconds=0.2)
    async with refusing(service, "23514", f"NEW.id = {bad} AND OLD.status = 'processing' AND NEW.worker_id IS NULL"):
        await eventually(lambda: _has_no_worker(service, bad), message="the lease is given up")
    row = await service.final(bad)
    assert (row["status"], row["result"]) == ("done", "second")


async def _has_no_worker(service: Service, task_id: int) -> bool:
    rows = await service.database.fetch(
        "SELECT FROM tasks AS t WHERE id = $1 AND status = 'processing' "
        "AND NOT EXISTS (SELECT FROM workers AS w WHERE w.id = t.worker_id)",
        task_id,
    )
    return bool(rows)
