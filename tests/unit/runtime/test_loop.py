"""A periodic duty goes on through every error, says each change once, and ends between two rounds."""

import asyncio
from collections.abc import Callable

import pytest

from bobrai.domain.errors import DatabaseUnavailable
from bobrai.runtime import loop as loop_module
from bobrai.runtime.lifecycle import Stop
from bobrai.runtime.loop import PeriodicLoop
from tests.support.eventually import eventually


@pytest.fixture
def said(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The events that loops logged."""
    events: list[str] = []

    class _Log:
        def __getattr__(self, _level: str) -> Callable[..., None]:
            return lambda event, **_: events.append(event)

    monkeypatch.setattr(loop_module, "log", _Log())
    return events


async def test_rounds_follow_each_other_until_the_process_stops() -> None:
    stop, rounds = Stop(), []

    async def once() -> None:
        rounds.append(1)
        if len(rounds) == 3:
            stop.request("test")

    await asyncio.wait_for(PeriodicLoop("test", 0.001, once).run(stop), 5)
    assert len(rounds) == 3


async def test_an_outage_is_said_once_and_so_is_its_end(said: list[str]) -> None:
    stop, rounds = Stop(), []

    async def once() -> None:
        rounds.append(1)
        if 2 <= len(rounds) <= 5:
            raise DatabaseUnavailable("away")
        if len(rounds) == 8:
            stop.request("test")

    loop = PeriodicLoop("test", 0.001, once, longest_pause_seconds=0.02)
    await asyncio.wait_for(loop.run(stop), 5)
    assert said == ["loop.failed", "loop.recovered"]
    assert loop.healthy


async def test_a_defect_does_not_end_the_loop(said: list[str]) -> None:
    stop, rounds = Stop(), []

    async def once() -> None:
        rounds.append(1)
        if len(rounds) == 1:
            raise KeyError("a defect")
        stop.request("test")

    await asyncio.wait_for(PeriodicLoop("test", 0.001, once).run(stop), 5)
    assert len(rounds) == 2


async def test_a_wake_starts_the_next_round_now() -> None:
    stop, rounds = Stop(), []

    async def once() -> float:
        rounds.append(1)
        return 60.0

    loop = PeriodicLoop("test", 60.0, once)
    running = asyncio.ensure_future(loop.run(stop))
    await eventually(lambda: len(rounds) == 1)
    loop.wake()
    await eventually(lambda: len(rounds) == 2)
    stop.request("test")
    await asyncio.wait_for(running, 5)


async def test_a_wake_during_a_round_is_not_lost() -> None:
    stop, rounds = Stop(), []

    async def once() -> float:
        rounds.append(1)
        if len(rounds) == 1:
            loop.wake()
        else:
            stop.request("test")
        return 60.0

    loop = PeriodicLoop("test", 60.0, once)
    await asyncio.wait_for(loop.run(stop), 5)
    assert len(rounds) == 2


async def test_a_wake_does_not_hammer_what_is_away(said: list[str]) -> None:
    stop, rounds = Stop(), []

    async def once() -> None:
        rounds.append(1)
        raise DatabaseUnavailable("away")

    loop = PeriodicLoop("test", 60.0, once, longest_pause_seconds=60.0)
    running = asyncio.ensure_future(loop.run(stop))
    await eventually(lambda: not loop.healthy)
    for _ in range(20):
        loop.wake()
        await asyncio.sleep(0)
    assert len(rounds) == 1
    stop.request("test")
    await asyncio.wait_for(running, 5)


async def test_the_round_under_way_is_finished_at_the_end() -> None:
    stop, ended, begun = Stop(), [], asyncio.Event()
    gate = asyncio.Event()

    async def once() -> None:
        begun.set()
        await gate.wait()
        ended.append(1)

    running = asyncio.ensure_future(PeriodicLoop("test", 0.001, once).run(stop))
    await begun.wait()
    stop.request("test")
    gate.set()
    await asyncio.wait_for(running, 5)
    assert ended == [1]
