"""Handlers whose type runs in processes: the same as elsewhere, and whatever they do hurts nobody else."""

import asyncio
import json
import os
import signal
import socket
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import psutil
import pytest

import bobrai
from bobrai.domain.errors import ClaimLost
from bobrai.domain.task import OutcomeKind
from bobrai.handlers.registry import Registry
from bobrai.settings import Settings, load
from bobrai.store.pool import Database as Pool
from bobrai.telemetry.logs import captured
from bobrai.worker import memory
from bobrai.worker.children import Children
from bobrai.worker.executor import Executor
from bobrai.worker.isolation import Isolation
from bobrai.worker.speeds import Speeds
from bobrai.worker.starting import Starter
from bobrai.worker.transaction import AttemptTransaction
from tests.integration.worker.executing import Nothing, Outcomes, end_of, outcome_of, processes, start
from tests.support.databases import Database
from tests.support.eventually import eventually

MODULE = """
import asyncio, ctypes, os, pathlib, resource, signal, sys, threading, time
from typing import Annotated
from bobrai import Context, Depends, PermanentFailure, RetryLater, middleware, on_startup, task

THREADS, NOW, BAD = pathlib.Path("threads"), pathlib.Path("now"), pathlib.Path("bad")
while pathlib.Path("slow").exists():
    time.sleep(0.01)
if THREADS.exists():
    threading.Thread(target=threading.Event().wait, daemon=True).start()

def everywhere(name, **more):
    def declare(function):
        task(name, **more)(function)
        task(name + "-process", runs_in="process", **more)(function)
        return function
    return declare

def in_process(name, **more):
    return task(name, runs_in="process", **more)

@everywhere("answers")
def answers(ctx: Context, payload: int) -> dict[str, int]:
    ctx.progress({"at": payload})
    return {"payload": payload, "attempt": ctx.attempt}

@everywhere("answers-async")
async def answers_async(ctx: Context, payload: int) -> dict[str, int]:
    ctx.progress({"at": payload})
    return {"payload": payload, "attempt": ctx.attempt}

@everywhere("raises")
def raises(ctx: Context, payload: str) -> None:
    ctx.progress("before")
    raise {"value": ValueError("no"), "permanent": PermanentFailure("never"), "later": RetryLater(7),
           "exit": SystemExit(3), "group": ExceptionGroup("all", [PermanentFailure("deep")])}[payload]

@everywhere("raises-async")
async def raises_async(payload: str) -> None:
    raise {"value": ValueError("no"), "permanent": PermanentFailure("never"), "later": RetryLater(7),
           "exit": SystemExit(3), "group": ExceptionGroup("all", [PermanentFailure("deep")])}[payload]

@everywhere("returns-what-is-no-json")
def returns_what_is_no_json() -> object:
    return object()

@everywhere("waits-until-cancelled")
def waits_until_cancelled(ctx: Context) -> None:
    ctx.progress("waits")
    while not ctx.cancelled:
        time.sleep(0.01)

@everywhere("waits-until-cancelled-async")
async def waits_until_cancelled_async(ctx: Context) -> None:
    ctx.progress("waits")
    await asyncio.sleep(600)

@everywhere("writes-and-fails")
async def writes_and_fails(ctx: Context, payload: int) -> str:
    async with ctx.transaction() as connection:
        await connection.execute("INSERT INTO effects VALUES ($1)", payload)
    raise ValueError("no")

@everywhere("asks-for-a-transaction")
def asks_for_a_transaction(ctx: Context) -> None:
    ctx.transaction()

@on_startup
async def opened_in():
    if BAD.exists():
        raise ValueError("no")
    threading.Thread(target=threading.Event().wait, daemon=True).start()
    asyncio.get_running_loop().create_task(asyncio.sleep(600))
    yield os.getpid()
    pathlib.Path(f"closed-in-{os.getpid()}").touch()

@middleware
async def marked(ctx, payload, call_next):
    value = await call_next(payload)
    return f"{value} marked" if ctx.type == "has-what-was-opened" else value

@in_process("has-what-was-opened")
def has_what_was_opened(*, pid: Annotated[int, Depends(opened_in)]) -> str:
    return f"{pid} {os.getpid()}"

@in_process("pid")
def pid() -> int:
    return os.getpid()

@in_process("spins")
def spins() -> None:
    while True:
        pass

@in_process("spins-async")
async def spins_async() -> None:
    while True:
        pass

@in_process("grows", memory_mb=128)
def grows() -> None:
    kept = []
    while True:
        kept.append(b"x" * 1_000_000)

@in_process("grows-without-a-limit")
def grows_without_a_limit(ctx: Context) -> None:
    kept = [b"x" * 50_000_000]
    ctx.progress("has grown")
    while True:
        time.sleep(1)

@in_process("stays", memory_mb=512)
def stays(ctx: Context) -> str:
    while not NOW.exists():
        time.sleep(0.01)
    return "stayed"

@in_process("reserves", memory_mb=128)
def reserves() -> int:
    return len(bytearray(10_000_000_000))

@in_process("keeps")
def keeps(payload: int) -> int:
    global kept
    kept = b"x" * payload
    return os.getpid()

@in_process("ends")
def ends(payload: str) -> None:
    match payload:
        case "exit":
            os._exit(3)
        case "segfault":
            ctypes.string_at(0)
        case name:
            os.kill(os.getpid(), signal.Signals[name])

@in_process("changes")
async def changes(payload: str) -> int:
    match payload:
        case "alarm":
            signal.alarm(1)
        case "timer":
            signal.setitimer(signal.ITIMER_REAL, 0.2)
        case "folder":
            os.chdir("/")
        case "umask":
            os.umask(0o077)
        case "environment":
            os.environ["CHANGED"] = "yes"
        case "limit":
            resource.setrlimit(resource.RLIMIT_NOFILE, (64, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
        case "stdout":
            sys.stdout.close()
        case "descriptors":
            os.close(1)
        case "handler":
            signal.signal(signal.SIGCHLD, signal.SIG_IGN)
        case "signal":
            os.kill(os.getpid(), signal.SIGTERM)
    return os.getpid()

@in_process("kills-what-forks")
def kills_what_forks() -> None:
    os.kill(os.getppid(), signal.SIGKILL)
    time.sleep(600)

@in_process("leaves-a-bomb")
def leaves_a_bomb() -> None:
    def end() -> None:
        while not NOW.exists():
            time.sleep(0.01)
        os._exit(9)
    threading.Thread(target=end, daemon=True).start()

@in_process("runs-into-it")
def runs_into_it() -> int:
    if not NOW.exists():
        NOW.touch()
        time.sleep(600)
    return os.getpid()

@in_process("prints")
def prints(payload: list[str]) -> None:
    for text in payload:
        print(text, end="")

@in_process("prints-without-end")
def prints_without_end(ctx: Context) -> None:
    ctx.progress("prints")
    while True:
        print("x" * 100)

@in_process("descriptors")
def descriptors() -> dict[str, str]:
    found = {}
    for number in os.listdir("/proc/self/fd"):
        try:
            found[number] = os.readlink(f"/proc/self/fd/{number}")
        except OSError:
            pass
    return found

@in_process("parents")
def parents() -> list[int]:
    return [os.getppid(), os.getpid()]
"""


class Reports(Nothing):
    """What handlers report; outcomes take none of it, so that all of it is here."""

    def __init__(self) -> None:
        self.all: list[tuple[int, str]] = []

    def report(self, task_id: int, _attempt: int, text: str) -> None:
        self.all.append((task_id, text))


@pytest.fixture
def settings(database: Database, tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> Settings:
    (tmp_path / "several.py").write_text(MODULE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("BOBRAI_DATABASE_URL", database.url)
    return load(worker={"concurrency": 5}, top={"handlers": "several"})


@pytest.fixture
def registry(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> Registry:
    """The handlers of the module, as this process knows them."""
    registry = Registry()
    monkeypatch.setitem(bobrai.__dict__, "task", registry.task)
    monkeypatch.setitem(bobrai.__dict__, "on_startup", registry.hooks.on_startup)
    monkeypatch.setitem(bobrai.__dict__, "middleware", registry.middlewares.middleware)
    module = ModuleType("several")
    exec(compile(MODULE, "several.py", "exec"), module.__dict__)
    return registry


@pytest.fixture
def reports() -> Reports:
    return Reports()


Make = Callable[..., Executor]


@pytest.fixture
async def make(settings: Settings, registry: Registry, reports: Reports) -> AsyncIterator[Make]:
    """Makes executors that have processes."""
    database = Pool(settings.database, pool_size=2, name="test")
    await database.open()
    places = asyncio.Semaphore(2)
    made: list[Isolation] = []

    def make(**worker: Any) -> Executor:
        more = settings.model_copy(update={"worker": settings.worker.model_copy(update=worker)})
        isolation = Isolation(more, lambda task_id, attempt, text: reports.report(task_id, attempt, text))
        made.append(isolation)
        executor = Executor(
            registry,
            settings.worker.concurrency,
            reports,  # type: ignore[arg-type]
            Speeds(5),
            lambda: AttemptTransaction(database, places, Children(database, registry)),
            isolation=isolation,
        )
        executor.completions = outcomes = Outcomes()  # type: ignore[assignment]
        outcomes.settled = executor.settled
        return executor

    yield make
    for isolation in made:
        isolation.close()
    await database.close()


@pytest.fixture
async def executor(make: Make) -> Executor:
    return make()


def isolation_of(executor: Executor) -> Isolation:
    isolation = executor._isolation
    assert isolation is not None
    return isolation


def shown(outcome: Any) -> Any:
    """What is to be the same wherever a handler runs."""
    error = outcome.error
    told = error and (error.type, error.message, error.reason, error.traceback.rpartition("several.py")[2])
    return outcome.kind, outcome.result, outcome.delay_seconds, told


@pytest.mark.parametrize(
    ("type_", "payload"),
    [
        ("answers", "7"),
        ("answers", '"seven"'),
        ("raises", '"value"'),
        ("raises", '"permanent"'),
        ("raises", '"later"'),
        ("raises", '"exit"'),
        ("raises", '"group"'),
        ("returns-what-is-no-json", "null"),
        ("asks-for-a-transaction", "null"),
    ],
)
async def test_the_same_function_ends_the_same_in_event_loop_thread_and_process(
    executor: Executor, type_: str, payload: str
) -> None:
    there = [type_, f"{type_}-process"]
    if type_ in {"answers", "raises"}:
        there += [f"{type_}-async", f"{type_}-async-process"]
    ends = [shown(await outcome_of(executor, each, payload)) for each in there]
    assert ends[1:2] == ends[:1]
    assert ends[2:3] == ends[3:]
    assert len({end[:3] for end in ends}) == 1
    assert len({end[3] and end[3][:3] for end in ends}) == 1


@pytest.mark.parametrize("type_", ["answers", "answers-async", "answers-process", "answers-async-process"])
async def test_progress_is_shown_wherever_a_handler_runs(executor: Executor, reports: Reports, type_: str) -> None:
    outcome = await outcome_of(executor, type_, "7")
    assert '{"at":7}' in {outcome.progress, *(text for _, text in reports.all)}


@pytest.mark.parametrize(
    "type_", ["waits-until-cancelled-process", "waits-until-cancelled-async-process", "spins", "spins-async"]
)
async def test_a_cancel_ends_it(executor: Executor, type_: str) -> None:
    task_id = start(executor, type_)
    await eventually(lambda: executor._attempts[task_id].place.is_prepared)  # type: ignore[union-attr]
    executor.cancel([task_id])
    assert (await end_of(executor, task_id)).kind is OutcomeKind.CANCELLED


@pytest.mark.parametrize("type_", ["writes-and-fails", "writes-and-fails-process"])
async def test_a_transaction_goes_with_its_attempt(executor: Executor, database: Database, type_: str) -> None:
    await database.execute("CREATE TABLE effects (value int)")
    assert (await outcome_of(executor, type_, "7")).error.type == "ValueError"
    assert await database.fetch("SELECT value FROM effects") == []


@pytest.mark.parametrize("type_", ["spins", "spins-async"])
async def test_what_runs_without_end_times_out_and_its_slot_is_free(executor: Executor, type_: str) -> None:
    outcome = await outcome_of(executor, type_, timeout_seconds=0.5)
    assert (outcome.kind, outcome.error.reason) == (OutcomeKind.RETRY, "timeout")
    assert executor.running == 0
    assert (await outcome_of(executor, "pid")).kind is OutcomeKind.DONE


async def test_what_grows_over_its_memory_ends_with_its_peak(executor: Executor) -> None:
    error = (await outcome_of(executor, "grows")).error
    assert (error.type, error.reason) == ("ProcessDied", "memory_limit")
    peak = int(error.message.partition("took ")[2].split()[0])
    assert 128 < peak < 1_000, error.message
    assert error.message.endswith("it may use 128 MiB here")


async def test_what_reserves_more_than_its_memory_ends_where_it_does_so(executor: Executor) -> None:
    error = (await outcome_of(executor, "reserves")).error
    assert (error.type, error.reason) == ("MemoryError", "memory_limit")
    assert "it may use 128 MiB here" in error.message
    assert "return len(bytearray(10_000_000_000))" in error.traceback


async def test_when_the_container_is_short_of_memory_what_has_grown_most_ends(
    make: Make, monkeypatch: pytest.MonkeyPatch, reports: Reports, tmp_path: Path
) -> None:
    used = [0]
    monkeypatch.setattr(memory, "container", lambda: memory.Container(500_000_000, lambda: used[0]))
    executor = make()
    innocent = start(executor, "stays")
    culprit = start(executor, "grows-without-a-limit")
    await eventually(lambda: (culprit, '"has grown"') in reports.all)
    used[0] = 480_000_000
    error = (await end_of(executor, culprit)).error
    assert error.reason == "memory_limit"
    assert error.message.endswith("the worker's container may use 476 MiB and used 457 MiB")
    (tmp_path / "now").touch()
    assert (await end_of(executor, innocent)).result == '"stayed"'


@pytest.mark.parametrize(
    ("payload", "how"),
    [
        ("exit", "ended with exit code 3"),
        ("segfault", "was ended by SIGSEGV"),
        ("SIGKILL", "was ended by SIGKILL"),
        ("SIGABRT", "was ended by SIGABRT"),
    ],
)
async def test_a_crash_says_how_and_the_slot_takes_the_next_task(executor: Executor, payload: str, how: str) -> None:
    before = (await outcome_of(executor, "pid")).result
    with captured() as lines:
        outcome = await outcome_of(executor, "ends", json.dumps(payload))
    assert (outcome.kind, outcome.error.reason) == (OutcomeKind.RETRY, "crashed")
    assert how in outcome.error.message
    assert [line["runs_again"] for line in lines if line["event"] == "isolation.died"] == [False], (
        "an attempt starts once"
    )
    assert executor.running == 0
    assert (await outcome_of(executor, "pid")).result != before


async def test_a_crash_in_native_code_shows_where_python_was(executor: Executor) -> None:
    error = (await outcome_of(executor, "ends", '"segfault"')).error
    assert error.traceback.startswith("Fatal Python error: Segmentation fault")
    assert "in ends" in error.traceback


async def test_what_an_earlier_task_has_left_costs_the_next_one_nothing(executor: Executor) -> None:
    assert (await outcome_of(executor, "leaves-a-bomb")).kind is OutcomeKind.DONE
    with captured() as lines:
        innocent = await outcome_of(executor, "runs-into-it")
    assert (innocent.kind, innocent.attempt) == (OutcomeKind.DONE, 1)
    assert [line["runs_again"] for line in lines if line["event"] == "isolation.died"] == [True]


@pytest.mark.parametrize(
    "what", ["folder", "umask", "environment", "limit", "stdout", "descriptors", "handler", "signal"]
)
async def test_a_process_that_was_changed_is_not_used_again(executor: Executor, what: str) -> None:
    changed = await outcome_of(executor, "changes", json.dumps(what))
    assert changed.kind is OutcomeKind.DONE
    assert (await outcome_of(executor, "pid")).result != changed.result


@pytest.mark.parametrize("what", ["alarm", "timer"])
async def test_a_timer_that_was_set_ends_with_its_attempt(executor: Executor, what: str) -> None:
    changed = await outcome_of(executor, "changes", json.dumps(what))
    waits = start(executor, "waits-until-cancelled-async-process", timeout_seconds=1.5)
    assert (await end_of(executor, waits)).error.reason == "timeout"
    assert changed.kind is OutcomeKind.DONE


async def test_a_handler_that_ends_what_forks_it_is_tried_as_often_as_its_attempts_and_once_more(
    executor: Executor,
) -> None:
    with captured() as lines:
        error = (await outcome_of(executor, "kills-what-forks")).error
    assert (error.reason, "together with the process that forks" in error.message) == ("crashed", True)
    assert [line["runs_again"] for line in lines if line["event"] == "isolation.died"] == [True, False]


async def test_what_does_not_get_a_process_in_time_is_given_back_and_leaves_it_to_the_next(
    executor: Executor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bobrai.worker.place._LEAST_PATIENCE_SECONDS", 0.1)
    (tmp_path / "slow").touch()
    with captured() as lines:
        waiting = start(executor, "pid", timeout_seconds=0.5)
        assert (await end_of(executor, waiting)).kind is OutcomeKind.INTERRUPTED
    assert [line["error"] for line in lines if line["event"] == "isolation.failed"] == [
        "no process has come up within 0.5 s"
    ]
    coming = {each.pid for each in processes()}
    (tmp_path / "slow").unlink()
    parents = json.loads((await outcome_of(executor, "parents")).result)
    assert parents[0] in coming, "its imports were not for nothing"


async def test_a_drain_gives_back_what_waits_for_a_process(executor: Executor, tmp_path: Path) -> None:
    (tmp_path / "slow").touch()
    waiting = start(executor, "pid")
    await eventually(processes)
    executor.draining = True
    executor.give_back_ready()
    assert (await end_of(executor, waiting)).kind is OutcomeKind.INTERRUPTED
    assert executor.running == 0


async def test_a_process_is_kept_also_when_a_handler_raises(executor: Executor) -> None:
    first = (await outcome_of(executor, "pid")).result
    assert (await outcome_of(executor, "raises-process", '"value"')).error.type == "ValueError"
    assert (await outcome_of(executor, "pid")).result == first


async def test_a_process_is_replaced_after_its_number_of_attempts(make: Make) -> None:
    executor = make(process_max_tasks=2)
    used = [(await outcome_of(executor, "pid")).result for _ in range(4)]
    assert used[0] == used[1] != used[2] == used[3]
    await eventually(lambda: not psutil.pid_exists(int(used[0])))


async def test_a_process_is_replaced_when_it_has_grown(make: Make) -> None:
    executor = make(process_max_memory_mib=200)
    small = [(await outcome_of(executor, "keeps", "1000")).result for _ in range(2)]
    assert small[0] == small[1]
    assert (await outcome_of(executor, "keeps", "200000000")).result == small[0]
    assert (await outcome_of(executor, "pid")).result != small[0]


async def test_what_others_have_kept_is_not_held_against_a_limit(executor: Executor) -> None:
    grown = (await outcome_of(executor, "keeps", "100000000")).result
    assert "it had taken" in (await outcome_of(executor, "reserves")).error.message
    assert (await outcome_of(executor, "pid")).result == grown, "the one that had grown was not used for a small limit"


async def test_the_next_process_is_ready_before_it_is_needed(executor: Executor) -> None:
    isolation_of(executor).keep_warm()
    await eventually(lambda: len(processes()) == 2)  # the one that forks, and one
    spare = [each.pid for each in processes()]
    assert int((await outcome_of(executor, "pid")).result) in spare
    await outcome_of(executor, "ends", '"SIGKILL"')
    await eventually(lambda: len(processes()) >= 2)


async def test_nothing_of_the_worker_is_in_a_process(executor: Executor) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        listening.set_inheritable(True)
        found = json.loads((await outcome_of(executor, "descriptors")).result)
        ours = os.readlink(f"/proc/self/fd/{listening.fileno()}")  # noqa: PTH115 - as the handler does
    assert ours not in found.values()
    assert found["0"] == "/dev/null"
    assert found["1"] == found["2"]
    assert found["1"].startswith("pipe:")


def below() -> list[psutil.Process]:
    """All processes below this one."""
    return psutil.Process().children(recursive=True)


async def test_processes_end_with_the_worker_and_leave_no_zombies(make: Make) -> None:
    executor = make()
    pids = json.loads((await outcome_of(executor, "parents")).result)
    await outcome_of(executor, "ends", '"SIGKILL"')
    # It is one until the worker has heard of its end.
    await eventually(lambda: psutil.STATUS_ZOMBIE not in {each.status() for each in below()})
    isolation_of(executor).close()
    await eventually(lambda: not any(map(psutil.pid_exists, pids)))


async def test_a_process_dies_with_the_one_that_forks_and_its_attempt_starts_again(
    executor: Executor, tmp_path: Path
) -> None:
    forks, _ = json.loads((await outcome_of(executor, "parents")).result)
    task_id = start(executor, "stays")
    await eventually(lambda: executor._attempts[task_id].place.is_prepared)  # type: ignore[union-attr]
    os.kill(forks, signal.SIGKILL)
    (tmp_path / "now").touch()
    assert (await end_of(executor, task_id)).kind is OutcomeKind.DONE
    assert json.loads((await outcome_of(executor, "parents")).result)[0] != forks


async def test_modules_that_start_threads_are_imported_by_each_process_anew(executor: Executor, tmp_path: Path) -> None:
    """To fork with another thread under way could copy a lock that nobody opens any more."""
    (tmp_path / "threads").touch()
    with captured() as lines:
        parent, _ = json.loads((await outcome_of(executor, "parents")).result)
    assert parent == os.getpid()
    assert [line["threads"] for line in lines if line["event"] == "isolation.spawning"] == [2]
    assert (await outcome_of(executor, "ends", '"SIGKILL"')).error.reason == "crashed"
    assert (await outcome_of(executor, "pid")).kind is OutcomeKind.DONE


async def test_without_a_process_a_task_is_given_back_and_never_runs_in_the_worker(
    executor: Executor, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fail(_self: Starter) -> None:
        raise OSError(12, "Cannot allocate memory")

    monkeypatch.setattr(Starter, "start", fail)
    outcome = await outcome_of(executor, "pid")
    assert (outcome.kind, outcome.delay_seconds > 0) == (OutcomeKind.INTERRUPTED, True)
    assert executor.running == 0


async def test_each_process_has_what_was_started_in_it_and_ends_it(make: Make, tmp_path: Path) -> None:
    executor = make(process_max_tasks=1)
    results = [json.loads((await outcome_of(executor, "has-what-was-opened")).result) for _ in range(2)]
    pids = {result.split()[0] for result in results}
    assert results == [f"{pid} {pid} marked" for pid in dict.fromkeys(result.split()[0] for result in results)]
    assert len(pids) == 2
    await eventually(lambda: all((tmp_path / f"closed-in-{pid}").exists() for pid in pids))


async def test_what_start_up_functions_have_begun_is_nobodys_leftover(executor: Executor) -> None:
    assert (await outcome_of(executor, "pid")).kind is OutcomeKind.DONE
    with captured() as lines:
        assert (await outcome_of(executor, "ends", '"exit"')).error.reason == "crashed"
    assert [line["runs_again"] for line in lines if line["event"] == "isolation.died"] == [False]


async def test_a_start_up_that_fails_in_a_process_gives_the_task_back(executor: Executor, tmp_path: Path) -> None:
    (tmp_path / "bad").touch()
    assert (await outcome_of(executor, "pid")).kind is OutcomeKind.INTERRUPTED
    (tmp_path / "bad").unlink()
    assert (await outcome_of(executor, "pid")).kind is OutcomeKind.DONE


async def test_what_a_handler_prints_becomes_lines_of_its_attempt(executor: Executor) -> None:
    with captured() as lines:
        await outcome_of(executor, "prints", json.dumps(["one\ntwo", "\nthree"]), request_id="r")
        await outcome_of(executor, "prints", json.dumps(["four\n"]), request_id="s")
    printed = [(line["request_id"], line["text"]) for line in lines if line["event"] == "handler.output"]
    assert "\n".join(text for who, text in printed if who == "r") == "one\ntwo\nthree"
    assert [text for who, text in printed if who == "s"] == ["four"]


async def test_what_prints_without_end_is_slowed_down_and_holds_up_nobody(executor: Executor, reports: Reports) -> None:
    with captured() as lines:
        task_id = start(executor, "prints-without-end", timeout_seconds=1.0)
        await eventually(lambda: (task_id, '"prints"') in reports.all)
        for _ in range(20):
            assert (await outcome_of(executor, "answers", "7")).kind is OutcomeKind.DONE
        assert (await end_of(executor, task_id)).error.reason == "timeout"
    printed = [line for line in lines if line["event"] == "handler.output"]
    assert 0 < len(printed) < 2_000
    assert max(len(line["text"]) for line in printed) <= 2 * 8_192


async def test_a_lost_claim_ends_its_process(executor: Executor) -> None:
    task_id = start(executor, "spins")
    place = executor._attempts[task_id]
    await eventually(lambda: place.place is not None and place.place.is_prepared)
    executor.drop_all()
    await eventually(lambda: executor.running == 0)
    with pytest.raises(ClaimLost):
        executor._services.open_transaction(task_id, 1)
