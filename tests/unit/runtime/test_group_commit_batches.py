"""Alone, an item is written at once; under load batches form; a bad item fails alone; a caller may give up."""

import asyncio
from collections.abc import Sequence

import pytest

from bobrai.domain.errors import DatabaseUnavailable, StoreRejected, Unavailable
from bobrai.runtime.group_commit import GroupCommit


class Writer:
    """Notes every flush; holds each until it is let go, or lets all through."""

    def __init__(self, *, held: bool = False) -> None:
        self.batches: list[list[int]] = []
        self._gate = asyncio.Semaphore(0)
        self._held = held

    async def flush(self, items: Sequence[int]) -> list[int]:
        self.batches.append(list(items))
        if self._held:
            await self._gate.acquire()
        if any(item < 0 for item in items):
            raise StoreRejected("negative")
        return [item * 10 for item in items]

    def let_go(self, flushes: int = 1) -> None:
        for _ in range(flushes):
            self._gate.release()


async def turns(count: int = 5) -> None:
    """Let everything run that can."""
    for _ in range(count):
        await asyncio.sleep(0)


async def test_an_item_alone_is_written_at_once() -> None:
    writer = Writer()
    group = GroupCommit("test", writer.flush)
    assert await group.put(1) == 10
    assert await group.put(2) == 20
    assert writer.batches == [[1], [2]]


async def test_what_waits_during_a_flush_goes_out_together() -> None:
    writer = Writer(held=True)
    group = GroupCommit("test", writer.flush)
    answers = [group.put(0)]
    await turns()
    answers += [group.put(item) for item in range(1, 50)]
    writer.let_go(2)
    assert await asyncio.gather(*answers) == [item * 10 for item in range(50)]
    assert writer.batches == [[0], list(range(1, 50))]


async def test_a_batch_has_a_maximum() -> None:
    writer = Writer()
    group = GroupCommit("test", writer.flush, max_batch=4)
    await asyncio.gather(*(group.put(item) for item in range(10)))
    assert [len(batch) for batch in writer.batches] == [4, 4, 2]


async def test_a_heavy_item_takes_more_of_the_batch() -> None:
    writer = Writer()
    group = GroupCommit("test", writer.flush, max_batch=10, weight=lambda item: item)
    await asyncio.gather(*(group.put(item) for item in (3, 4, 5, 50, 1)))
    assert writer.batches == [[3, 4], [5], [50], [1]]


async def test_parallel_flushes_are_bounded() -> None:
    writer = Writer(held=True)
    group = GroupCommit("test", writer.flush, max_batch=1, parallel=2)
    answers = [group.put(item) for item in range(4)]
    await turns()
    assert writer.batches == [[0], [1]]
    writer.let_go(4)
    await asyncio.gather(*answers)


async def test_a_bad_item_fails_alone() -> None:
    group = GroupCommit("test", Writer().flush)
    answers = await asyncio.gather(*(group.put(item) for item in (1, -2, 3)), return_exceptions=True)
    assert [answers[0], answers[2]] == [10, 30]
    assert isinstance(answers[1], StoreRejected)


async def test_an_outage_reaches_every_caller_and_ends_with_it() -> None:
    away = True

    async def flush(items: Sequence[int]) -> Sequence[int]:
        if away:
            raise DatabaseUnavailable("away")
        return items

    group = GroupCommit("test", flush)
    answers = await asyncio.gather(*(group.put(item) for item in range(3)), return_exceptions=True)
    assert [type(answer) for answer in answers] == [DatabaseUnavailable] * 3
    away = False
    assert await group.put(7) == 7


async def test_a_caller_that_gave_up_in_time_is_not_written() -> None:
    writer = Writer(held=True)
    group = GroupCommit("test", writer.flush)
    first = group.put(0)
    await turns()
    regretted, kept = group.put(1), group.put(2)
    regretted.cancel()
    writer.let_go(2)
    assert await asyncio.gather(first, kept) == [0, 20]
    assert writer.batches == [[0], [2]]


async def test_a_caller_that_gives_up_during_the_flush_hurts_nobody() -> None:
    writer = Writer(held=True)
    group = GroupCommit("test", writer.flush)
    gone, stays = group.put(1), group.put(2)
    await turns()
    gone.cancel()
    writer.let_go()
    assert await stays == 20


async def test_too_much_waiting_is_refused_at_once() -> None:
    writer = Writer(held=True)
    group = GroupCommit("test", writer.flush, max_waiting=3)
    answers = [group.put(0)]
    await turns()
    answers += [group.put(item) for item in range(1, 4)]
    with pytest.raises(Unavailable):
        group.put(4)
    writer.let_go(2)
    assert await asyncio.gather(*answers) == [0, 10, 20, 30]


async def test_idle_waits_for_every_answer() -> None:
    writer = Writer(held=True)
    group = GroupCommit("test", writer.flush, max_batch=1)
    answers = [group.put(item) for item in range(3)]
    waiting = asyncio.ensure_future(group.idle())
    await turns()
    assert not waiting.done()
    writer.let_go(3)
    await waiting
    assert all(answer.done() for answer in answers)
    await group.idle()


async def test_a_flush_that_answers_too_little_fails_its_callers_instead_of_leaving_them_waiting() -> None:
    async def flush(items: Sequence[int]) -> Sequence[int]:
        return items[1:]

    group = GroupCommit("test", flush)
    async with asyncio.timeout(2):
        answers = await asyncio.gather(*(group.put(item) for item in range(3)), return_exceptions=True)
    assert any(isinstance(answer, Exception) for answer in answers)


@pytest.mark.parametrize(
    ("error", "repeatable", "alone"),
    [
        (DatabaseUnavailable("a trigger", "P0001", perhaps_one_row=True), False, True),
        (DatabaseUnavailable("a lock", perhaps_one_row=True), True, True),
        (DatabaseUnavailable("a lock", perhaps_one_row=True), False, False),  # it may have been written
        (DatabaseUnavailable("all of it", "53100"), True, False),
    ],
)
async def test_a_batch_is_split_when_one_row_may_be_at_fault_and_writing_again_does_no_harm(
    error: DatabaseUnavailable, repeatable: bool, alone: bool
) -> None:
    async def flush(items: Sequence[int]) -> list[int]:
        if 3 in items:
            raise error
        return [item * 10 for item in items]

    commits: GroupCommit[int, int] = GroupCommit("test", flush, repeatable=repeatable)
    answers = await asyncio.gather(*(commits.put(item) for item in range(5)), return_exceptions=True)
    assert answers == ([0, 10, 20, error, 40] if alone else [error] * 5)
