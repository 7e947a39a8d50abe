"""A worked example: tests of ``newsletter.py``, without a server and with the whole service.

Run it from this folder with:  pytest -o bobrai_handlers=newsletter test_newsletter.py
"""

import newsletter
import pytest
from newsletter import Letter, count_primes, nap, send_letter, sign_up

from bobrai.client import AsyncClient, Client, TaskCancelled, TaskFailed
from bobrai.testing import Submitted, run
from bobrai.testing.service import Service

ADA = Letter(to="ada@example.org", subject="Hi")


# One attempt, judged as the product would judge it: no server, some milliseconds.


@pytest.mark.asyncio
async def test_a_letter_is_sent() -> None:
    ended = await run(send_letter, ADA, attempt=2)
    assert ended.status == "done"
    assert ended.result["attempt"] == 2


@pytest.mark.asyncio
async def test_a_busy_server_is_asked_again_and_a_missing_one_is_not() -> None:
    busy = await run(send_letter, Letter(to="x@busy.example", subject="Hi"))
    assert (busy.status, busy.delay_seconds) == ("snooze", 3.0)
    nowhere = await run(send_letter, Letter(to="x@nowhere.example", subject="Hi"))
    assert (nowhere.status, nowhere.reason) == ("failed", "permanent")


@pytest.mark.asyncio
async def test_what_does_not_fit_never_gets_to_the_handler() -> None:
    assert (await run(send_letter, {"to": "nobody", "subject": ""})).reason == "invalid_payload"


@pytest.mark.asyncio
async def test_it_says_how_far_it_has_come() -> None:
    ended = await run(count_primes, 2001)
    assert list(ended.progress) == [{"at": 1000, "of": 2001}, {"at": 2000, "of": 2001}]


@pytest.mark.asyncio
async def test_a_nap_that_takes_too_long_times_out() -> None:
    assert (await run(nap, 60, timeout=0.05)).reason == "timeout"


@pytest.mark.asyncio
async def test_who_signs_up_is_welcomed() -> None:
    class Connection:
        """All that the handler asks of the database."""

        async def execute(self, statement: str, *values: object) -> None: ...

    ended = await run(sign_up, ADA, connection=Connection())
    assert list(ended.children) == [Submitted("letter", {"to": "ada@example.org", "subject": "Welcome"})]


# The whole service in this process, on a database of the test's own: a fifth of a second.


def test_a_subscriber_is_stored_and_welcomed(bobrai_client: Client) -> None:
    task = bobrai_client.submit(sign_up, ADA)
    assert task.result(timeout=10) == "ada@example.org is subscribed"
    [welcome] = bobrai_client.tasks(parent_id=task.id)
    assert bobrai_client.task(welcome.id).result(timeout=10)["to"] == "ada@example.org"


def test_a_failure_tells_why(bobrai_client: Client) -> None:
    with pytest.raises(TaskFailed, match=r"nowhere\.example does not exist"):
        bobrai_client.submit(send_letter, Letter(to="x@nowhere.example", subject="Hi")).result(timeout=10)


@pytest.mark.bobrai(newsletter, worker={"concurrency": 1})
def test_a_nap_can_be_cancelled(bobrai_client: Client) -> None:
    sleeping, waiting = bobrai_client.submit_many(nap, [600.0, 600.0])
    for task in (waiting, sleeping):
        task.cancel()
        with pytest.raises(TaskCancelled):
            task.result(timeout=10)


@pytest.mark.asyncio
async def test_the_same_from_coroutines(bobrai_service: Service) -> None:
    async with AsyncClient(bobrai_service.url) as client:
        letter = await client.submit(send_letter, ADA)
        assert (await letter.result(timeout=10)).to == "ada@example.org"
