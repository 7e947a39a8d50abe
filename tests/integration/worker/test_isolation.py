"""Places for tasks that run alone, and the processes in them."""

import asyncio
import itertools
import os
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import msgspec
import psutil
import pytest

import bobrai
from bobrai.cli import process
from bobrai.domain.retry import Retry
from bobrai.domain.task import Claim, Outcome, OutcomeKind
from bobrai.handlers.registry import Registry
from bobrai.settings import Settings, load
from bobrai.telemetry.logs import captured
from bobrai.worker import memory, starting
from bobrai.worker.channel import Channel
from bobrai.worker.child import Child, ProcessDied
from bobrai.worker.executor import Executor
from bobrai.worker.isolation import Isolation
from bobrai.worker.speeds import Speeds
from tests.integration.worker.executing import Nothing, Outcomes, processes
from tests.support.databases import Database
from tests.support.eventually import eventually

HANDLERS = """
import asyncio, os, pathlib, threading, time
from bobrai import Context, task

SLOW, NOW = pathlib.Path("slow"), pathlib.Path("now")
if SLOW.exists():
    time.sleep(600)

@task("where")
def where(ctx: Context) -> int:
    ctx.progress({"at": 1})
    return os.getpid()

@task("wrong")
async def wrong() -> None:
    raise ValueError("no")

@task("strict", non_retryable=ValueError)
async def strict() -> None:
    raise ValueError("no")

@task("strict-of-memory", non_retryable=MemoryError)
def strict_of_memory() -> int:
    return len(bytearray(10_000_000_000_000))

@task("large")
def large() -> int:
    kept = [b"x" * 1_000_000 for _ in range(100)]
    time.sleep(0.2)
    return sum(map(len, kept))

@task("huge")
def huge() -> int:
    return len(bytearray(10_000_000_000_000))

@task("crowded")
def crowded() -> int:
    done = threading.Event()
    threads = [threading.Thread(target=done.wait) for _ in range(30)]
    [thread.start() for thread in threads]
    done.set()
    return len(threads)

@task("talks-on")
def talks_on(ctx: Context) -> None:
    def talk():
        while True:
            ctx.progress("still here")
            time.sleep(0.01)
    threading.Thread(target=talk, daemon=True).start()

@task("stay")
def stay(ctx: Context) -> None:
    ctx.progress("here")
    while True:
        try:
            time.sleep(1)
        except BaseException:
            pass

@task("end")
async def end(payload: int) -> None:
    os._exit(payload)

@task("ends-later")
def ends_later() -> None:
    def end() -> None:
        while not NOW.exists():
            time.sleep(0.01)
        os._exit(9)
    threading.Thread(target=end, daemon=True).start()

@task("blocks-later")
async def blocks_later() -> None:
    asyncio.get_running_loop().call_later(0.3, time.sleep, 600)

@task("waits")
async def waits() -> int:
    await asyncio.sleep(0.6)
    return os.getpid()

@task("many-threads")
async def many_threads() -> int:
    together = threading.Barrier(32)
    return len(await asyncio.gather(*(asyncio.to_thread(together.wait, 20) for _ in range(32))))

@task("runs-into-it")
def runs_into_it() -> int:
    if not NOW.exists():
        NOW.touch()
        time.sleep(600)
    return os.getpid()
"""


@pytest.fixture
def settings(database: Database, tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> Settings:
    (tmp_path / "alone.py").write_text(HANDLERS)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("BOBRAI_DATABASE_URL", database.url)
    return load(worker={"isolated": 4, "concurrency": 50}, top={"handlers": "alone"})


@pytest.fixture
async def isolation(settings: Settings, reports: list[tuple[int, int, str]]) -> AsyncIterator[Isolation]:
    isolation = Isolation(settings, lambda *report: reports.append(report))
    yield isolation
    isolation.close()


@pytest.fixture
def reports() -> list[tuple[int, int, str]]:
    """What handlers have reported."""
    return []


def claim(type_: str, payload: str = "null", *, failures: int = 0, attempt: int = 2, timeout: float = 30.0) -> Claim:
    return Claim(1, attempt, type_, "default", 0, payload, 4, failures, Retry(), timeout, "", "", 0.0, 0.0, losses=1)


async def run(isolation: Isolation, wanted: Claim) -> Any:
    place = isolation.place_for(wanted)
    assert place is not None
    try:
        assert await place.prepare()
        return await place.run(worker_id=1)
    finally:
        place.leave()


async def test_a_process_is_kept_for_the_next_task_unless_one_failed_in_it(
    isolation: Isolation, reports: list[tuple[int, int, str]]
) -> None:
    first = await run(isolation, claim("where"))
    assert first.outcome.result == (await run(isolation, claim("where"))).outcome.result
    assert int(first.outcome.result) != os.getpid()
    assert reports == [(1, 2, '{"at":1}')] * 2
    assert (await run(isolation, claim("wrong"))).outcome.error.type == "ValueError"
    assert first.outcome.result != (await run(isolation, claim("where"))).outcome.result


async def test_a_report_after_the_end_is_not_taken_for_the_next_tasks(
    isolation: Isolation, reports: list[tuple[int, int, str]]
) -> None:
    await run(isolation, claim("talks-on", attempt=2))
    reports.clear()
    attempts = itertools.count(3)

    async def heard_of_it() -> bool:
        await run(isolation, claim("where", attempt=next(attempts)))
        return any(text == '"still here"' for _, _, text in reports)

    await eventually(heard_of_it)
    assert {(task_id, attempt) for task_id, attempt, text in reports if text == '"still here"'} == {(1, 2)}
    assert [attempt for _, attempt, text in reports if text == '{"at":1}'] == list(range(3, next(attempts)))


async def test_a_process_starts_where_the_handlers_were_imported_and_takes_no_module_there_for_pythons(
    isolation: Isolation, settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bobrai.worker.starting._folder", None)
    monkeypatch.setattr("sys.path", [*sys.path])
    (tmp_path / "queue.py").write_text("# a helper of the user's own")
    monkeypatch.setattr(process, "load_handlers", lambda _: os.chdir("/"))
    process.registry(settings)
    assert (await run(isolation, claim("where"))).outcome.error is None


async def test_how_a_process_died_is_told(isolation: Isolation) -> None:
    with pytest.raises(ProcessDied, match="ended with exit code 7"):
        await run(isolation, claim("end", "7"))
    with pytest.raises(ProcessDied, match="ended with exit code 0"):
        await run(isolation, claim("end", "0"))


async def test_there_are_as_many_places_as_the_setting_says(isolation: Isolation) -> None:
    places = [isolation.place_for(claim("where")) for _ in range(5)]
    assert [place is not None for place in places] == [True] * 4 + [False]
    assert places[0] is not None
    places[0].leave()
    assert isolation.place_for(claim("where")) is not None


@pytest.fixture
async def limited(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Isolation]:
    """Isolation in a container that has memory for two tasks of 50 MB, or for a single one of over 100 MB."""
    monkeypatch.setattr(Isolation, "_planned", lambda _self: memory.Plan(2, 110_000_000, 300_000_000))
    monkeypatch.setattr(memory, "container", lambda: memory.Container(400_000_000, lambda: 0))
    isolation = Isolation(settings, lambda *_: None)
    yield isolation
    isolation.close()


async def test_what_failed_in_a_share_of_the_memory_gets_all_of_it(limited: Isolation) -> None:
    with pytest.raises(ProcessDied, match="of memory at its peak: it may use 104 MiB here"):
        await run(limited, claim("large"))
    assert (await run(limited, claim("large", failures=1))).outcome.result == "100000000"
    assert (await run(limited, claim("large", attempt=4))).outcome.result == "100000000"  # its last one


async def test_what_reserves_more_than_there_is_fails(limited: Isolation) -> None:
    with pytest.raises(ProcessDied, match="had no more memory: it may use 104 MiB here"):
        await run(limited, claim("huge"))


async def test_what_is_declared_non_retryable_fails_at_once_there_too(limited: Isolation) -> None:
    for type_ in ("strict", "strict-of-memory"):
        outcome = (await run(limited, claim(type_))).outcome
        assert (outcome.kind, outcome.error.reason) == (OutcomeKind.FAILED, "non_retryable")


async def test_what_runs_alone_is_stopped_at_its_tasks_deadline(isolation: Isolation) -> None:
    outcome = (await run(isolation, msgspec.structs.replace(claim("waits"), deadline_seconds=0.2).after(0.0))).outcome
    assert (outcome.kind, outcome.error.reason) == (OutcomeKind.FAILED, "deadline")


async def test_what_only_reserves_memory_goes_on(limited: Isolation) -> None:
    """Thirty threads reserve 240 MiB for their stacks, and take next to nothing."""
    assert (await run(limited, claim("crowded"))).outcome.result == "30"


async def test_places_are_planned_by_what_is_used_when_they_are_wanted(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A process that is there already, as a warm one, does not keep them as they were at the start."""
    used = 0
    monkeypatch.setattr(memory, "container", lambda: memory.Container(4_000_000_000, lambda: used))
    monkeypatch.setattr(memory, "resident_bytes", lambda _process="self": 150_000_000)
    isolation = Isolation(settings, lambda *_: None)
    try:
        await run(isolation, claim("where"))
        assert [isolation._plan.places, isolation._plan.share_bytes] == [4, 900_000_000]
        used = 3_200_000_000
        await run(isolation, claim("where"))
        assert isolation._plan.places == 1
        assert (isolation._plan.share_bytes or 0) > 400_000_000, "what idles is counted out"
    finally:
        isolation.close()


async def test_what_gets_all_memory_is_alone_with_it(limited: Isolation) -> None:
    shared = limited.place_for(claim("where"))
    assert shared is not None
    assert limited.place_for(claim("where", failures=1)) is None
    shared.leave()
    whole = limited.place_for(claim("where", failures=1))
    assert whole is not None
    assert limited.place_for(claim("where")) is None
    whole.leave()
    assert limited.place_for(claim("where")) is not None


async def test_an_idle_process_ends_after_a_while(isolation: Isolation, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bobrai.worker.processes._IDLE_SECONDS", 0.1)
    pid = int((await run(isolation, claim("where"))).outcome.result)
    await eventually(lambda: not psutil.pid_exists(pid))


async def test_a_task_is_ended_with_its_process_when_it_does_not_answer(
    isolation: Isolation, reports: list[tuple[int, int, str]]
) -> None:
    place = isolation.place_for(claim("stay"))
    assert place is not None
    assert await place.prepare()
    running = asyncio.create_task(place.run(worker_id=1))
    await eventually(lambda: reports)
    place.kill()
    with pytest.raises(ProcessDied, match="SIGKILL"):
        await running
    place.leave()


@pytest.fixture
async def executor(isolation: Isolation) -> Executor:
    registry = Registry()
    for name in ("where", "ends-later", "runs-into-it", "blocks-later", "waits"):
        registry.task(name)(lambda: os.getpid())
    executor = Executor(registry, 5, Nothing(), Speeds(5), lambda: None, isolation=isolation)  # type: ignore[arg-type,return-value]
    executor.completions = outcomes = Outcomes()  # type: ignore[assignment]
    outcomes.settled = executor.settled
    return executor


async def outcome_of(executor: Executor, type_: str, **more: Any) -> Any:
    there: list[Outcome | None] = executor.completions.all  # type: ignore[attr-defined]
    there.clear()
    executor.admit(claim(type_, **more), Nothing(), worker_id=1)
    await eventually(lambda: there, 30)
    assert executor.running == executor.unsettled == 0
    return there[0]


async def test_a_death_in_a_process_that_others_have_used_costs_no_attempt(executor: Executor) -> None:
    assert (await outcome_of(executor, "ends-later")).kind is OutcomeKind.DONE
    with captured() as lines:
        innocent = await outcome_of(executor, "runs-into-it", attempt=4)
    assert (innocent.kind, innocent.attempt) == (OutcomeKind.DONE, 4)
    assert [line["runs_again"] for line in lines if line["event"] == "isolation.died"] == [True]


async def test_a_process_that_others_have_blocked_costs_no_attempt(
    executor: Executor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(executor, "_grace_seconds", 0.1)
    assert (await outcome_of(executor, "blocks-later")).kind is OutcomeKind.DONE
    with captured() as lines:
        innocent = await outcome_of(executor, "waits", attempt=4, timeout=3.0)
    assert (innocent.kind, innocent.attempt) == (OutcomeKind.DONE, 4)
    assert [(line["error"], line["runs_again"]) for line in lines if line["event"] == "isolation.died"] == [
        ("did not answer", True)
    ]


async def test_an_isolated_handler_has_as_many_threads_as_in_the_worker(isolation: Isolation) -> None:
    assert (await run(isolation, claim("many-threads"))).outcome.result == "32"


def test_a_process_finds_us_where_its_worker_has(tmp_path: Path) -> None:
    """The worker may have been started in our folder, without an installation."""
    program = starting._PROGRAM.rpartition(";")[0] + "; import importlib.util as u; print(u.find_spec('bobrai').origin)"
    command = [sys.executable, "-S", "-E", "-P", "-c", program]
    found = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True, timeout=30)
    assert found.stdout.strip() == bobrai.__file__


@pytest.mark.parametrize(
    ("what", "error"),
    [
        ("bobrai.worker.starting.socket.socketpair", OSError(24, "Too many open files")),
        ("bobrai.worker.starting.Channel.over", RuntimeError("can't start new thread")),
        ("bobrai.worker.starting.Starter.start", MemoryError()),
    ],
)
async def test_a_task_runs_in_the_worker_whatever_keeps_its_process_from_coming_up(
    executor: Executor, monkeypatch: pytest.MonkeyPatch, what: str, error: Exception
) -> None:
    def fail(*_: Any) -> None:
        raise error

    monkeypatch.setattr(what, fail)
    assert (await outcome_of(executor, "where")).result == str(os.getpid())
    await eventually(lambda: len(processes()) <= 1, message="at most the process that forks others is left")


async def test_an_attempt_ends_whatever_comes_out_of_its_place(
    executor: Executor, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any) -> None:
        raise LookupError("unforeseen")

    monkeypatch.setattr(Child, "run", fail)
    assert (await outcome_of(executor, "where")).error.type == "LookupError"


async def test_what_is_told_to_end_does_not_wait_for_the_imports(executor: Executor, tmp_path: Path) -> None:
    (tmp_path / "slow").touch()
    outcome = asyncio.create_task(outcome_of(executor, "where"))
    await eventually(processes)
    executor.interrupt_all()
    assert (await asyncio.wait_for(outcome, 2)).kind is OutcomeKind.INTERRUPTED
    executor.close()
    await eventually(lambda: not processes())


async def test_a_channel_ends_with_what_is_no_message() -> None:
    reader = asyncio.StreamReader()
    reader.feed_data(b"\0\0\0\1" + msgspec.msgpack.encode(7))
    assert await Channel(reader, None).receive() is None  # type: ignore[arg-type]
