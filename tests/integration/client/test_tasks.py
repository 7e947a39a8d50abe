"""Submitting, waiting, listing, cancelling and replaying, from threads and from coroutines."""

import asyncio
import gc
import os
import threading
import time
import warnings
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta

import pytest

from bobrai.client import (
    AsyncClient,
    BadResult,
    Client,
    ResultHidden,
    Submission,
    TaskCancelled,
    TaskFailed,
    WaitTimeout,
    errors,
)
from bobrai.domain import submitting
from bobrai.testing.service import Service
from tests.integration.client.conftest import Handlers, Letter


def test_a_task_is_submitted_by_name_or_by_its_handler(client: Client, handlers: Handlers) -> None:
    by_name = client.submit("letter", {"to": "ada"})
    assert by_name.result(10) == {"to": "ada", "copies": 2}
    by_handler = client.submit(handlers.letter, Letter(to="ada"), priority=5)
    assert by_handler.result(10) == Letter(to="ada", copies=2)
    task = by_handler.read()
    assert (task.status, task.priority, task.queue, task.payload) == ("done", 5, "mail", {"to": "ada", "copies": 1})
    assert by_name.id < by_handler.id
    assert client.submit(handlers.nothing).result(10) is None
    assert client.submit(handlers.doubled, 4).result(10) == 8
    assert client.submit(handlers.greet, "world").result(10) == "hello world"


def test_many_are_submitted_in_order_whatever_their_number(client: Client, handlers: Handlers) -> None:
    handles = client.submit_many(handlers.doubled, range(2500))
    assert len(handles) == 2500
    assert [handle.id for handle in handles] == sorted({handle.id for handle in handles})
    assert [handle.result(30) for handle in handles[::500]] == [0, 1000, 2000, 3000, 4000]
    mixed = client.submit_many([Submission("greet", "ada"), Submission(handlers.letter, Letter(to="x"), priority=9)])
    assert [handle.result(10) for handle in mixed] == ["hello ada", Letter(to="x", copies=2)]
    assert client.submit_many([]) == []


def test_large_payloads_are_sent_in_several_requests(client: Client) -> None:
    payloads = [{"text": "x" * 200_000}] * 100  # 20 MB, where a request may have 16 MiB
    assert len(client.submit_many("echo", payloads, delay=600)) == 100


def test_options_become_the_tasks(client: Client) -> None:
    at = datetime.now(UTC) + timedelta(hours=2)
    task = client.submit("echo", 1, queue="later", run_at=at, deadline=timedelta(hours=3), max_attempts=7).read()
    assert (task.queue, task.run_at, task.max_attempts, task.status) == ("later", at, 7, "pending")
    assert task.deadline_at is not None
    assert timedelta(hours=2.9) < task.deadline_at - task.created_at < timedelta(hours=3.1)


def test_a_key_makes_one_task_however_often_it_is_used(client: Client) -> None:
    first = client.submit("echo", 1, delay=600, idempotency_key="order-1")
    assert client.submit("echo", 1, delay=600, idempotency_key="order-1").id == first.id
    with pytest.raises(errors.IdempotencyMismatch):
        client.submit("echo", 2, delay=600, idempotency_key="order-1")
    many = [handle.id for handle in client.submit_many("echo", range(1500), delay=600, idempotency_key="import")]
    assert [
        handle.id for handle in client.submit_many("echo", range(1500), delay=600, idempotency_key="import")
    ] == many


def test_a_task_of_which_there_is_one_is_told(client: Client) -> None:
    first = client.submit("echo", {"a": 1}, delay=600, unique={"key": "/a"})
    again = client.submit("echo", {"a": 1}, delay=600, unique={"key": "/a"})
    assert (first.duplicate, again.duplicate, again.id) == (False, True, first.id)
    both = client.submit_many("echo", [{"a": 1}, {"a": 2}], delay=600, unique={"key": "/a"})
    assert [handle.duplicate for handle in both] == [True, False]


def test_a_failure_tells_the_errors_of_its_attempts(client: Client, handlers: Handlers) -> None:
    with pytest.raises(TaskFailed, match=r"failed: ValueError: attempt 2") as told:
        client.submit(handlers.fails, "x").result(10)
    assert [(error.attempt, error.type, error.message) for error in told.value.errors] == [
        (1, "ValueError", "attempt 1"),
        (2, "ValueError", "attempt 2"),
    ]
    assert "raise (PermanentFailure if" in told.value.errors[0].traceback
    with pytest.raises(TaskFailed) as told:
        client.submit(handlers.fails, "for good").result(10)
    assert [error.reason for error in told.value.errors] == ["permanent"]


def test_waiting_ends_in_time_and_the_task_goes_on(client: Client) -> None:
    waiting = client.submit("echo", 1, delay=600)
    began = time.monotonic()
    with pytest.raises(WaitTimeout, match=r"is still pending after 0\.3 s"):
        waiting.result(timeout=0.3)
    assert 0.3 <= time.monotonic() - began < 5
    with pytest.raises(TimeoutError):
        waiting.result(timeout=0)
    assert waiting.status() == "pending"


def test_a_cancelled_task_has_no_result_until_it_is_replayed(client: Client) -> None:
    waiting = client.submit("echo", 1, delay=600)
    assert waiting.cancel().status == "cancelled"
    assert waiting.cancel().status == "cancelled"
    with pytest.raises(TaskCancelled):
        waiting.result(1)
    assert waiting.replay().status in {"pending", "processing", "done"}
    assert waiting.result(10) == 1
    with pytest.raises(errors.WrongStatus):
        waiting.cancel()
    with pytest.raises(errors.TaskNotFound):
        client.task(999_999).read()


def test_a_result_that_is_something_else_is_told(client: Client) -> None:
    def echo(payload: dict[str, int]) -> int: ...  # type: ignore[empty-body]

    submitting.declare(echo, "echo")
    with pytest.raises(BadResult, match="is not what its handler returns"):
        client.submit(echo, {"a": 1}).result(10)


def test_a_result_that_the_key_may_not_see_is_not_taken_for_none(running: Service) -> None:
    made = running.client.create_key("blind", ["tasks:submit", "tasks:read"])
    with Client(running.url, made.key) as blind, pytest.raises(ResultHidden):
        blind.submit("echo", 1).result(10)


def test_pages_are_read_as_they_are_asked_for(client: Client) -> None:
    ids = [handle.id for handle in client.submit_many("echo", range(30), delay=600)]
    assert [task.id for task in client.tasks(page_size=7)] == ids[::-1]
    client.task(ids[3]).cancel()
    assert [task.id for task in client.tasks(status="cancelled")] == [ids[3]]
    assert list(client.tasks(queue="elsewhere")) == []
    later = datetime.now(UTC) + timedelta(hours=1)
    assert list(client.tasks(created_after=later)) == []
    with pytest.raises(ValueError, match="needs an offset"):
        list(client.tasks(created_after=datetime(2030, 1, 1)))  # noqa: DTZ001
    with pytest.raises(errors.Invalid):
        list(client.tasks(status="lost"))


def test_threads_share_one_client(client: Client) -> None:
    with ThreadPoolExecutor(20) as threads:
        results = list(threads.map(lambda n: client.submit("echo", n).result(30), range(200)))
    assert results == list(range(200))


def test_a_forked_child_has_connections_of_its_own(client: Client) -> None:
    assert client.submit("echo", "parent").result(10) == "parent"
    ready, go = os.pipe()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of threads that the child lacks: from Python 3.12 on
        child = os.fork()
    if child == 0:
        code = 1
        try:
            code = 0 if client.submit("echo", "child").result(10) == "child" else 2
            client.close()  # those of the parent are not touched
        finally:
            os._exit(code)
    os.close(go)
    assert os.read(ready, 1) == b""  # the child has ended
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert client.submit("echo", "parent").result(10) == "parent"
    os.close(ready)


async def test_coroutines_do_the_same(running: Service, handlers: Handlers) -> None:
    async with running.async_client() as client:
        handle = await client.submit(handlers.greet, "ada")
        assert await handle.result(10) == "hello ada"
        assert (await handle.read()).type == "greet"
        results = await asyncio.gather(*(_echoed(client, n) for n in range(50)))
        assert results == list(range(50))
        many = await client.submit_many(handlers.doubled, [1, 2, 3])
        assert [await each.result(10) for each in many] == [2, 4, 6]
        waiting = await client.submit("echo", 1, delay=600)
        with pytest.raises(WaitTimeout):
            await waiting.result(0.1)
        assert (await waiting.cancel()).status == "cancelled"
        assert [task.id async for task in client.tasks(status="cancelled", page_size=1)] == [waiting.id]
        assert await client.task(waiting.id).status() == "cancelled"
        await waiting.replay()
        assert await waiting.result(10) == 1
        with pytest.raises(TaskFailed):
            await (await client.submit(handlers.fails, "x")).result(10)
    with pytest.raises(RuntimeError, match="this client is closed"):
        await client.submit("echo", 1)


async def _echoed(client: object, number: int) -> object:
    handle = await client.submit("echo", number)  # type: ignore[attr-defined]
    return await handle.result(30)


# A loop that is closed has left connections open that nobody can close in another one.
@pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")
def test_an_async_client_goes_on_in_the_next_event_loop_and_refuses_two_at_once(running: Service) -> None:
    use_in_several_loops(running.async_client())
    gc.collect()  # here, and not in a test that has no part in it


def use_in_several_loops(client: AsyncClient) -> None:
    """In one after the other, and in two at once."""
    assert asyncio.run(_echoed(client, 1)) == 1
    assert asyncio.run(_echoed(client, 2)) == 2
    errors_: list[BaseException] = []

    async def use_elsewhere() -> None:
        await _echoed(client, 3)

        def elsewhere() -> None:
            try:
                asyncio.run(_echoed(client, 4))
            except RuntimeError as error:
                errors_.append(error)

        thread = threading.Thread(target=elsewhere)
        thread.start()
        await asyncio.to_thread(thread.join)

    asyncio.run(use_elsewhere())
    assert "belongs to the event loop of its first call" in str(errors_[0])
