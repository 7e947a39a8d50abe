"""Threads for plain functions."""

import asyncio
import contextvars
import ctypes
import threading

import pytest

from bobrai.worker.threads import HandlerThreads
from tests.support.eventually import eventually


async def test_call_gives_its_value_or_its_error_of_any_kind() -> None:
    threads = HandlerThreads()
    assert (await threads.run(lambda: 42)).value == 42

    def leave() -> None:
        raise SystemExit(3)

    def stop() -> None:
        raise StopIteration

    for function, kind in ((leave, SystemExit), (stop, StopIteration)):
        assert isinstance((await threads.run(function)).error, kind)
    threads.close()


async def test_idle_threads_are_used_again_and_busy_ones_never_waited_for() -> None:
    threads = HandlerThreads()
    gate = threading.Event()
    names: set[str] = set()

    async def is_used_again() -> bool:
        name = (await threads.run(lambda: threading.current_thread().name)).value
        seen = name in names
        names.add(name)
        return seen

    await eventually(is_used_again, message="a thread that has answered is idle soon, and takes the next call")
    stuck = [threads.run(lambda: gate.wait(20)) for _ in range(3)]
    assert (await threads.run(lambda: "free")).value == "free"
    assert not any(future.done() for future in stuck)
    gate.set()
    assert [(await future).value for future in stuck] == [True] * 3
    threads.close()


async def test_abandoned_call_goes_on_and_its_answer_is_dropped() -> None:
    threads = HandlerThreads()
    gate, ended = threading.Event(), threading.Event()

    def stuck() -> None:
        gate.wait(20)
        ended.set()

    future = threads.run(stuck)
    future.cancel()
    with pytest.raises(asyncio.CancelledError):
        await future
    assert (await threads.run(lambda: "meanwhile")).value == "meanwhile"
    gate.set()
    assert (await threads.run(lambda: ended.wait(20))).value
    threads.close()


async def test_threads_are_daemons_and_see_the_callers_context() -> None:
    threads = HandlerThreads()
    variable = contextvars.ContextVar("variable", default="outside")
    variable.set("inside")
    assert (await threads.run(variable.get)).value == "inside"
    assert (await threads.run(lambda: threading.current_thread().daemon)).value
    threads.close()


async def test_what_is_thrown_into_an_idle_thread_costs_no_call() -> None:
    threads = HandlerThreads()
    thread = (await threads.run(threading.get_ident)).value
    for _ in range(20):
        ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread), ctypes.py_object(TimeoutError))
        calls = [threads.run(lambda: "here") for _ in range(3)]
        assert [(await asyncio.wait_for(call, 20)).value for call in calls] == ["here"] * 3
    threads.close()
