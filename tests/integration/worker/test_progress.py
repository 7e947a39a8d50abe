"""The final task shows what its handler reported last, however shortly before its end and however it ended."""

import threading
from typing import Any

import pytest

from bobrai import Context, PermanentFailure, Retry
from bobrai.domain.errors import DatabaseUnavailable
from bobrai.store import attempts
from tests.integration.worker.service import Service


def declare(service: Service) -> None:
    """Handlers that report until the very end."""

    @service.task("event-loop")
    async def event_loop(ctx: Context) -> None:
        for step in range(50):
            ctx.progress({"step": step})

    @service.task("thread")
    def thread(ctx: Context) -> None:
        for step in range(50):
            ctx.progress({"step": step})

    @service.task("transaction")
    async def transaction(ctx: Context) -> None:
        async with ctx.transaction() as connection:
            await connection.execute("SELECT 1")
            for step in range(50):
                ctx.progress({"step": step})

    @service.task("failing")
    async def failing(ctx: Context) -> None:
        for step in range(50):
            ctx.progress({"step": step})
        raise PermanentFailure("that is all")


TYPES = ["event-loop", "thread", "transaction", "failing"]


@pytest.mark.parametrize("type_", TYPES)
async def test_the_last_report_is_kept(service: Service, type_: str) -> None:
    declare(service)
    await service.worker()
    ids = await service.submit_many(20, type_)
    await service.all_final(ids)
    rows = [await service.row(task_id) for task_id in ids]
    assert {row["status"] for row in rows} == {"failed" if type_ == "failing" else "done"}
    assert [row["progress"] for row in rows] == [{"step": 49}] * 20


async def test_a_report_that_could_not_be_written_comes_with_the_outcome(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def away(*_: Any) -> None:
        raise DatabaseUnavailable("away")

    monkeypatch.setattr(attempts, "show_progress", away)
    declare(service)
    await service.worker()
    for type_ in TYPES:
        assert (await service.run(type_))["progress"] == {"step": 49}


async def test_the_last_report_is_kept_when_the_handlers_transaction_cannot_commit(service: Service) -> None:
    await service.database.fetch("CREATE TABLE once (id int UNIQUE DEFERRABLE INITIALLY DEFERRED)")

    @service.task("twice")
    async def twice(ctx: Context) -> None:
        async with ctx.transaction() as connection:
            await connection.execute("INSERT INTO once VALUES (1), (1)")
            ctx.progress("the end")

    await service.worker()
    row = await service.run("twice", retry=Retry(max_attempts=1))
    assert (row["status"], row["progress"]) == ("failed", "the end")


async def test_an_attempt_that_goes_on_after_its_end_does_not_push_out_the_next_ones_reports(service: Service) -> None:
    last, ghost, over = threading.Event(), threading.Event(), threading.Event()

    @service.task("deaf")
    def deaf(ctx: Context) -> None:
        if ctx.attempt == 2:
            ctx.progress("last")
            last.set()
            ghost.wait(20)
            return
        while not over.wait(0.001):
            ctx.progress("ghost")
            if last.is_set():
                ghost.set()

    await service.worker()
    try:
        row = await service.final(await service.submit("deaf", timeout_seconds=1))
    finally:
        over.set()
    assert (row["status"], row["attempt"], row["progress"]) == ("done", 2, "last")


async def test_reports_of_an_attempt_that_is_over_change_nothing(service: Service) -> None:
    left: list[Context] = []

    @service.task("keeps-its-context")
    async def keeps_its_context(ctx: Context) -> None:
        left.append(ctx)
        ctx.progress("last")

    await service.worker()
    task_id = await service.submit("keeps-its-context")
    await service.final(task_id)
    left[0].progress("too late")
    await service.run("keeps-its-context")
    assert (await service.row(task_id))["progress"] == "last"


async def test_a_report_that_cannot_be_stored_costs_only_itself(service: Service) -> None:
    @service.task("odd")
    async def odd(ctx: Context) -> str:
        ctx.progress("fine")
        ctx._services.report_progress(ctx.task_id, ctx.attempt, '"a lone \\ud800 surrogate \ud800"')
        return "result"

    await service.worker()
    row = await service.run("odd")
    assert (row["status"], row["result"]) == ("done", "result")
