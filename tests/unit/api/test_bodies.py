"""Bodies share a room: small ones always find some, large ones wait their turn, slow ones make way."""

import asyncio

import pytest

from bobrai.api import bodies as bodies_module
from bobrai.api.bodies import Bodies, Body
from bobrai.api.deadlines import Deadline
from bobrai.api.problems import Problem
from bobrai.domain import limits

MIB = 1024 * 1024
LARGE = 10 * MIB


@pytest.fixture
def bodies() -> Bodies:
    return Bodies(40 * MIB)  # 30 for large ones


def body() -> Body:
    return Body(Deadline(None, 60))


async def waiting(bodies: Bodies, size: int) -> tuple[Body, "asyncio.Task[None]"]:
    one = body()
    task = asyncio.create_task(bodies.wait(one, size))
    while not any(entry[0] is one for entry in bodies._waiting):
        await asyncio.sleep(0)
    return one, task


async def test_large_bodies_leave_a_part_of_the_room_to_small_ones(bodies: Bodies) -> None:
    large = [body() for _ in range(4)]
    assert [bodies.take(one, LARGE) for one in large] == [True, True, True, False]
    small = [body() for _ in range(41)]
    assert [bodies.take(one, limits.MAX_BODY_BYTES) for one in small] == [True] * 40 + [False]
    with pytest.raises(Problem) as refused:
        await bodies.wait(small[-1], limits.MAX_BODY_BYTES)
    assert refused.value.status == 503
    for one in (*large, *small):
        bodies.release(one)
    assert bodies.held == 0


async def test_large_bodies_have_their_turn_in_the_order_in_which_they_came(bodies: Bodies) -> None:
    held = [body() for _ in range(3)]
    for one in held:
        assert bodies.take(one, LARGE)
    first, first_turn = await waiting(bodies, 2 * LARGE)
    second, second_turn = await waiting(bodies, MIB)
    assert not bodies.take(body(), MIB)  # although there would be room: they came first
    bodies.release(held[0])
    await asyncio.sleep(0)
    assert not first_turn.done()
    assert not second_turn.done()
    bodies.release(held[1])
    await first_turn
    assert not second_turn.done()
    bodies.release(first)
    await second_turn
    assert bodies.held == held[2].size + second.size


async def test_who_waits_in_vain_is_refused_and_forgotten(bodies: Bodies, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bodies_module, "_LONGEST_WAIT_SECONDS", 0.05)
    holder = body()
    assert bodies.take(holder, 3 * LARGE)
    with pytest.raises(Problem):
        await bodies.wait(body(), LARGE)
    bodies.release(holder)
    assert bodies.held == 0
    assert bodies.take(body(), LARGE)


async def test_who_gives_up_waiting_leaves_nothing_behind(bodies: Bodies) -> None:
    holder = body()
    assert bodies.take(holder, 3 * LARGE)
    one, turn = await waiting(bodies, LARGE)
    turn.cancel()
    await asyncio.gather(turn, return_exceptions=True)
    bodies.release(one)
    # and one who gives up in the moment in which it is granted
    other, turn = await waiting(bodies, LARGE)
    bodies.release(holder)
    turn.cancel()
    await asyncio.gather(turn, return_exceptions=True)
    bodies.release(other)
    assert bodies.held == 0


async def test_only_so_many_wait(bodies: Bodies, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bodies_module, "_MOST_WAITING", 2)
    assert bodies.take(body(), 3 * LARGE)
    turns = [(await waiting(bodies, LARGE))[1] for _ in range(2)]
    with pytest.raises(Problem):
        await bodies.wait(body(), LARGE)
    for turn in turns:
        turn.cancel()
    await asyncio.gather(*turns, return_exceptions=True)


async def test_a_body_that_takes_long_to_arrive_makes_way_and_one_that_has_arrived_does_not(
    bodies: Bodies, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bodies_module, "_SLOW_SECONDS", 0.0)
    ended = asyncio.Event()

    async def sends_slowly() -> None:
        slow = Body(Deadline(asyncio.current_task(), 60))
        assert bodies.take(slow, 2 * LARGE)
        bodies.arrives(slow)
        started.set()
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            assert slow.deadline.crowded
            ended.set()
        finally:
            bodies.release(slow)

    started = asyncio.Event()
    sender = asyncio.create_task(sends_slowly())
    await started.wait()
    whole = body()
    assert bodies.take(whole, LARGE)
    bodies.arrives(whole)
    bodies.complete(whole)
    newcomer = body()
    await bodies.wait(newcomer, 2 * LARGE)
    await asyncio.wait_for(ended.wait(), 10)
    await sender
    assert bodies.held == whole.size + newcomer.size
